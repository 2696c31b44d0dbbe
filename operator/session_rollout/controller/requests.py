"""Requests that a decision can do without: none of them may delay what protects users.

One that takes longer than a moment continues in the background. Its result wakes the loop, and the next decision takes it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from session_rollout.errors import Unavailable

RESPONSE_SECONDS: Final = 0.5
SECOND_SECONDS: Final = 1.0  # after which a read that a decision cannot do without is sent a second time
AT_ONCE: Final = 64  # of the rollouts of one namespace
Result = TypeVar("Result")


class Requests:
    """The requests of one rollout that are under way. Each takes a `slot` of its namespace.

    Requests that hang in one namespace, with hundreds of rollouts, must not use all connections.
    """

    def __init__(self, slot: asyncio.Semaphore | None = None) -> None:
        self._slot = slot or asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[str, asyncio.Task[tuple[Any, Exception | None]]] = {}

    def under_way(self, what: str) -> bool:
        """Whether a request of before has not been taken."""
        return what in self._tasks

    async def take(self, what: str, request: Callable[[], Coroutine[Any, Any, Result]], wake: Callable[[], None]) -> Result:
        """The result of the request, or of the one that is under way. Raises what it raises, and Unavailable while it is under way."""
        task = self._tasks.pop(what, None) or asyncio.create_task(self._settled(request), name=what)
        done, _ = await asyncio.wait({task}, timeout=RESPONSE_SECONDS)
        if not done:
            self._tasks[what] = task
            task.add_done_callback(lambda _: wake())
            raise Unavailable(f"{what}: no response within {RESPONSE_SECONDS} s")
        result: tuple[Result, Exception | None] = task.result()
        if result[1] is not None:
            raise result[1]
        return result[0]

    def forget(self, wanted: set[str]) -> None:
        """Drop the requests that no decision needs any more: their results would be of another time."""
        for what in set(self._tasks) - wanted:
            self._tasks.pop(what).cancel()

    async def _settled(self, request: Callable[[], Coroutine[Any, Any, Result]]) -> tuple[Result | None, Exception | None]:
        """The result or the error: nobody may be there when an error is raised."""
        try:
            async with self._slot:
                return await request(), None
        except Exception as error:  # noqa: BLE001 - raised where it is taken
            return None, error


async def read_soon(read: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """What is read. Its connection may be dead: a second request is sent after a moment, and the first response counts."""
    pending = {asyncio.create_task(read())}
    try:
        done, pending = await asyncio.wait(pending, timeout=SECOND_SECONDS)
        if not done:
            pending.add(asyncio.create_task(read()))
        while pending and not any(task.exception() is None for task in done):
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        return min(done, key=_failed).result()
    finally:
        for task in pending:
            task.cancel()


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.exception() is not None
