"""Which query is sent next to one provider: slow queries of some rollouts must not delay the fast ones of others.

A query is known as fast if its previous response came within SLOW_SECONDS. That may have changed since: when a server becomes slow
for one team, hundreds of queries are known as fast and are not. So a slot that is kept for fast queries is held for SLOW_SECONDS
at most, and rollouts have turns: a fast query waits for one query of each other rollout at most, however many they have. With R
other rollouts, that is SLOW_SECONDS * (R // kept slots + 1), if at least one slot is kept.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Final, TypeVar

SLOW_SECONDS: Final = 0.5
KEPT_SHARE: Final = 4  # one of four slots is for queries that are fast
MOST_QUERIES: Final = 10_000

Result = TypeVar("Result")


class TurnedSlow(Exception):
    """A query that was known as fast did not respond in SLOW_SECONDS, and no slot for slow queries was free."""


class Turns:
    """Queries that wait: one queue for each caller, and one query of each caller in turn."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[asyncio.Future[None]]] = {}  # the caller whose turn is next is the first

    def join(self, caller: Hashable) -> asyncio.Future[None]:
        """Wait with this."""
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(caller, deque()).append(turn)
        return turn

    def next(self) -> asyncio.Future[None] | None:
        """The query whose turn it is, which waits no more."""
        while self._queues:
            caller = next(iter(self._queues))
            queue = self._queues.pop(caller)
            turn = queue.popleft()
            if queue:
                self._queues[caller] = queue
            if not turn.done():  # otherwise it was cancelled
                return turn
        return None


@dataclass(eq=False)
class Slot:
    """What a running query holds."""

    slow: bool
    overdue: bool = False


class Slots:
    """The slots of one provider. No more than `workers` queries run, and slow ones leave one slot of four to fast ones."""

    def __init__(self, workers: int) -> None:
        self._kept = math.ceil(workers / KEPT_SHARE)
        self._most_slow = max(1, workers - self._kept)
        self._free, self._slow = workers, 0
        self._latest_slow = False  # whether the latest slot was given to a slow query
        self._turns = {False: Turns(), True: Turns()}  # by whether they are for slow queries
        self._fast: dict[str, None] = {}  # queries whose latest response was fast, the latest last

    async def run(self, query: str, caller: Hashable, send: Callable[[], Awaitable[Result]]) -> Result:
        """What `send` returns, when it is the turn of this query. A query that is not known yet counts as slow.

        One that turns slow while it holds a kept slot is ended, and sent again when it is its turn among the slow ones.
        """
        if query in self._fast:
            try:
                return await self._run(query, caller, send, Slot(slow=False))
            except TurnedSlow:
                pass
        return await self._run(query, caller, send, Slot(slow=True))

    async def _run(self, query: str, caller: Hashable, send: Callable[[], Awaitable[Result]], slot: Slot) -> Result:
        await self._take(caller, slot)
        limit = asyncio.timeout(None)
        watch = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._is_overdue, slot, limit)
        try:
            async with limit:
                return await send()
        except TimeoutError:
            if limit.expired():
                raise TurnedSlow from None
            raise
        finally:
            watch.cancel()
            self._note_pace(query, fast=not slot.overdue)
            self._release(slot)

    def _is_overdue(self, slot: Slot, limit: asyncio.Timeout) -> None:
        """It is a slow query from now on: it stays if one more of those may run, and ends if its slot is kept for fast ones."""
        slot.overdue = True
        if slot.slow:
            return
        if self._slow < self._most_slow:
            slot.slow = True
            self._slow += 1
        else:
            limit.reschedule(asyncio.get_running_loop().time())

    def _note_pace(self, query: str, *, fast: bool) -> None:
        self._fast.pop(query, None)
        if fast:
            self._fast[query] = None
        if len(self._fast) > MOST_QUERIES:
            del self._fast[next(iter(self._fast))]

    async def _take(self, caller: Hashable, slot: Slot) -> None:
        turn = self._turns[slot.slow].join(caller)
        self._give()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was given at the same moment
                self._release(slot)
            raise

    def _release(self, slot: Slot) -> None:
        self._free += 1
        self._slow -= slot.slow
        self._give()

    def _give(self) -> None:
        """Give the slots that are free to those whose turn it is."""
        while self._free:
            for slow in self._order():
                if (turn := self._turns[slow].next()) is not None:
                    break
            else:
                return
            self._free -= 1
            self._slow += slow
            self._latest_slow = slow
            turn.set_result(None)

    def _order(self) -> tuple[bool, ...]:
        """Whose turn comes first. Fast ones, which soon leave; but not always, or many of them would stop the slow ones."""
        if self._slow >= self._most_slow:
            return (False,)
        return (False, True) if self._slow >= self._kept or self._latest_slow else (True, False)
