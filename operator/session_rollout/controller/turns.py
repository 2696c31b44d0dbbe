"""Turns: how many rollouts are reconciled at the same time, and which of those that wait is next.

Five hundred loops that wake at once would each take a step of the event loop in turn, and the renewal of the Lease would wait for
all of them at each of its own steps. With few at a time, the others wait here instead. Those that people wait for come first, then
those whose flags are published; new rollouts come last. Where there is more to do than the process can, one of those before them always
waits, so of a few turns that are not urgent, one goes to the rollout that has waited longest. An urgent one also has places of its own,
so that ordinary ones whose requests hang cannot keep it waiting. And one that takes longer than a moment waits for the API server and
not for the event loop: it gives its place to the next, up to a bound. One that has protected its users passes its turn on, and records
it after the others that wait: of eighty guards in breach, the last must not wait for what follows the first.

Namespaces are served alike: of those that wait, the one with the fewest turns is next, and none may have more than a share of them. A
webhook that hangs in one namespace, with hundreds of rollouts, delays no rollback in another.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from itertools import count
from typing import Final

AT_ONCE: Final = 16
RESERVED: Final = 16  # for urgent ones, in addition
LONG_SECONDS: Final = 0.5  # a reconciliation that nothing delays takes milliseconds
MOST_LONG: Final = 256  # that have given their place to another
MOST_OF_NAMESPACE: Final = 64  # turns of the rollouts of one namespace, and as many of urgent ones in addition
TO_LONGEST: Final = 4  # of so many turns that are not urgent, one goes to the one that has waited longest


class Priority(IntEnum):
    """Which of several waiting rollouts is next: the lowest."""

    URGENT = 0  # an action waits for it
    KNOWN = 1
    NEW = 2  # it was not reconciled yet: no user has its features


URGENT: Final = frozenset({Priority.URGENT})
ORDINARY: Final = frozenset({Priority.KNOWN, Priority.NEW})


@dataclass(eq=False)
class Waiting:
    """One rollout that waits for its turn; its priority may rise while it does."""

    priority: Callable[[], Priority]
    namespace: str = ""
    queue: tuple[Priority, str] | None = None  # that it waits in
    arrival: int = 0
    called: asyncio.Event = field(default_factory=asyncio.Event)
    long: bool = False  # it has given its place to another, and goes on
    timer: asyncio.TimerHandle | None = None  # until it is long


async def no_others() -> None:
    """Pass on the turn of a reconciliation that has taken none: nobody waits for it."""


class Turns:
    """The turns of one process."""

    def __init__(self, at_once: int = AT_ONCE, reserved: int = RESERVED) -> None:
        self._at_once, self._reserved = at_once, reserved
        self._running = self._long = 0
        self._held = Counter[str]()  # turns by namespace, also of those that have given their place to another
        self._late: dict[Waiting, None] = {}  # long, while there are too many of them: they keep their places
        self._ordinary = 0  # turns that were not urgent
        self._arrivals = count()
        # Each in the order of arrival; a dict, because any of hundreds may leave.
        self._queues: dict[tuple[Priority, str], dict[Waiting, None]] = {}

    @asynccontextmanager
    async def take(self, priority: Callable[[], Priority], namespace: str = "") -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Wait for a turn, and hold it for the block. Awaiting the value passes the turn on and waits for another one."""
        waiting = Waiting(priority, namespace)
        try:
            await self._wait(waiting)
            yield partial(self._pass_on, waiting)
        finally:
            self._leave(waiting)
            self._next()

    async def _wait(self, waiting: Waiting) -> None:
        waiting.called.clear()
        waiting.arrival = next(self._arrivals)
        self._enqueue(waiting)
        self._next()
        await waiting.called.wait()
        waiting.timer = asyncio.get_running_loop().call_later(LONG_SECONDS, self._give_up_place, waiting)

    async def _pass_on(self, waiting: Waiting) -> None:
        self._leave(waiting)
        await self._wait(waiting)

    def _enqueue(self, waiting: Waiting) -> None:
        waiting.queue = waiting.priority(), waiting.namespace
        self._queues.setdefault(waiting.queue, {})[waiting] = None

    def _dequeue(self, waiting: Waiting) -> bool:
        """Take it out of its queue; whether it waited in one."""
        key, waiting.queue = waiting.queue, None
        if key is not None:
            del self._queues[key][waiting]
            if not self._queues[key]:
                del self._queues[key]
        return key is not None

    def _leave(self, waiting: Waiting) -> None:
        if self._dequeue(waiting):
            return
        if waiting.timer is not None:
            waiting.timer.cancel()
        self._late.pop(waiting, None)
        self._held[waiting.namespace] -= 1
        if not waiting.long:
            self._running -= 1
            return
        self._long, waiting.long = self._long - 1, False
        if self._late:
            self._give_up_place(next(iter(self._late)))

    def _give_up_place(self, waiting: Waiting) -> None:
        if self._long >= MOST_LONG:
            self._late[waiting] = None  # until another one ends
            return
        self._late.pop(waiting, None)
        waiting.long = True
        self._long, self._running = self._long + 1, self._running - 1
        self._next()

    def call(self) -> None:
        """Call those whose turn it is; to be called when a priority rises."""
        waiting = sorted((each for queue in self._queues.values() for each in queue), key=lambda each: each.arrival)
        self._queues.clear()
        for each in waiting:
            self._enqueue(each)
        self._next()

    def _next(self) -> None:
        while self._running < self._at_once + self._reserved and (first := self._first(URGENT, 2 * MOST_OF_NAMESPACE)):
            self._call(first)
        while self._running < self._at_once and (first := self._first(ORDINARY, MOST_OF_NAMESPACE)):
            self._ordinary += 1
            self._call(first)

    def _first(self, priorities: Container[Priority], most: int) -> Waiting | None:
        """The most urgent one, of the namespace with the fewest turns; of a few that are not urgent, the one that has waited longest."""
        longest = priorities is ORDINARY and (self._ordinary + 1) % TO_LONGEST == 0
        allowed = [
            ((0, 0) if longest else (priority, self._held[namespace]), next(iter(queue)))
            for (priority, namespace), queue in self._queues.items()
            if priority in priorities and self._held[namespace] < most
        ]
        return min(allowed, key=lambda each: (each[0], each[1].arrival))[1] if allowed else None

    def _call(self, waiting: Waiting) -> None:
        self._dequeue(waiting)
        self._running += 1
        self._held[waiting.namespace] += 1
        waiting.called.set()
