"""Turns: how many rollouts are reconciled at the same time, and which of those that wait is next.

Five hundred loops that wake at once would each take a step of the event loop in turn, and the renewal of the Lease would wait for
all of them at each of its own steps. With few at a time, the others wait here instead. Those that people wait for come first, then
those whose flags are published; new rollouts come last. Where there is more to do than the process can, one of those before them always
waits, so of a few turns that are not urgent, one goes to the rollout that has waited longest. An urgent one also has places of its own,
so that ordinary ones whose requests hang cannot keep it waiting. And one that takes longer than a moment waits for the API server and
not for the event loop: it gives its place to the next, up to a bound. One that has protected its users passes its turn on, and records
it after the others that wait: of eighty guards in breach, the last must not wait for what follows the first.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from itertools import count
from typing import Final

AT_ONCE: Final = 16
RESERVED: Final = 16  # for urgent ones, in addition
LONG_SECONDS: Final = 0.5  # a reconciliation that nothing delays takes milliseconds
MOST_LONG: Final = 128  # that have given their place to another
TO_LONGEST: Final = 4  # of so many turns that are not urgent, one goes to the one that has waited longest


class Priority(IntEnum):
    """Which of several waiting rollouts is next: the lowest."""

    URGENT = 0  # an action waits for it
    KNOWN = 1
    NEW = 2  # it was not reconciled yet: no user has its features


@dataclass(eq=False)
class Waiting:
    """One rollout that waits for its turn; its priority may rise while it does."""

    priority: Callable[[], Priority]
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
        self._ordinary = 0  # turns that were not urgent
        self._arrivals = count()
        # Each in the order of arrival; a dict, because any of hundreds may leave.
        self._queues: dict[Priority, dict[Waiting, None]] = {priority: {} for priority in Priority}

    @asynccontextmanager
    async def take(self, priority: Callable[[], Priority]) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Wait for a turn, and hold it for the block. Awaiting the value passes the turn on and waits for another one."""
        waiting = Waiting(priority)
        try:
            await self._wait(waiting)
            yield partial(self._pass_on, waiting)
        finally:
            self._leave(waiting)
            self._next()

    async def _wait(self, waiting: Waiting) -> None:
        waiting.called.clear()
        waiting.arrival = next(self._arrivals)
        self._queues[waiting.priority()][waiting] = None
        self._next()
        await waiting.called.wait()
        waiting.timer = asyncio.get_running_loop().call_later(LONG_SECONDS, self._give_up_place, waiting)

    async def _pass_on(self, waiting: Waiting) -> None:
        self._leave(waiting)
        await self._wait(waiting)

    def _leave(self, waiting: Waiting) -> None:
        if waiting.timer is not None:
            waiting.timer.cancel()
        if queue := next((queue for queue in self._queues.values() if waiting in queue), None):
            del queue[waiting]
        elif waiting.long:
            self._long, waiting.long = self._long - 1, False
        else:
            self._running -= 1

    def _give_up_place(self, waiting: Waiting) -> None:
        if self._long < MOST_LONG:
            waiting.long = True
            self._long, self._running = self._long + 1, self._running - 1
            self._next()

    def call(self) -> None:
        """Call those whose turn it is; to be called when a priority rises."""
        waiting = sorted((each for queue in self._queues.values() for each in queue), key=lambda each: each.arrival)
        for queue in self._queues.values():
            queue.clear()
        for each in waiting:
            self._queues[each.priority()][each] = None
        self._next()

    def _next(self) -> None:
        urgent, *ordinary = self._queues.values()
        while urgent and self._running < self._at_once + self._reserved:
            self._call(urgent)
        while self._running < self._at_once and (queues := [queue for queue in ordinary if queue]):
            self._ordinary += 1
            longest = self._ordinary % TO_LONGEST == 0
            self._call(min(queues, key=_arrival_of_first) if longest else queues[0])

    def _call(self, queue: dict[Waiting, None]) -> None:
        waiting = next(iter(queue))
        del queue[waiting]
        self._running += 1
        waiting.called.set()


def _arrival_of_first(queue: dict[Waiting, None]) -> int:
    return next(iter(queue)).arrival
