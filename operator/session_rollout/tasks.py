"""Background tasks of the process, each of them watched.

A task that nobody awaits dies in silence: a process whose renewal, sweep or notifier has ended looks healthy and does nothing.
So each is started by `watched`, which reports an end to the exception handler of the event loop. In the operator, that handler
(`adapters.logs.end_process`) writes one line and ends the process; it also receives what any library leaves unawaited.
"""

import asyncio
import logging
import traceback
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final

log = logging.getLogger(__name__)
WATCHED: Final = "watched"  # key in the context of the exception handler: the process cannot do without this task
PACKAGE: Final = "session_rollout"


class EndedUnexpectedly(Exception):
    """A background task returned, although it must run until the process ends."""


def watched(coroutine: Coroutine[Any, Any, None], name: str, *, may_end: bool = False) -> asyncio.Task[None]:
    """Run the coroutine in the background. Cancelling it is the only other end, unless it `may_end`."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    watch(task, may_end=may_end)
    return task


def watch(task: asyncio.Task[Any], *, may_end: bool) -> None:
    """Report the end of a task that another started."""
    task.add_done_callback(partial(_report, may_end=may_end))


def _report(task: asyncio.Task[Any], *, may_end: bool) -> None:
    if task.cancelled():
        return
    error = task.exception()
    if error is None and may_end:
        return
    context = {"message": "a background task ended", "task": task, "exception": error or EndedUnexpectedly(), WATCHED: True}
    task.get_loop().call_exception_handler(context)


class Background:
    """Work that must delay nobody: one at a time for each key. What fails in it concerns its key alone, and is logged.

    Each request of the work takes a `slot`: keys whose requests hang must not use all connections.
    """

    def __init__(self, name: str, at_once: int) -> None:
        self._name, self.slot = name, asyncio.Semaphore(at_once)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, key: str, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Start it, unless work of this key is running; returns what is running then."""
        if key not in self._tasks:
            self._tasks[key] = watched(self._guarded(key, work), f"{self._name} of {key}", may_end=True)
        return self._tasks[key]

    async def give(self, key: str, work: Callable[[], Coroutine[Any, Any, None]], seconds: float) -> asyncio.Task[None]:
        """Start it as `begin` does, and wait so long at most: then it continues in the background."""
        done, _ = await asyncio.wait({task := self.begin(key, work)}, timeout=seconds)
        for ended in done:
            ended.result()
        return task

    async def close(self, seconds: float) -> None:
        """Wait so long at most for what is running, and end the rest."""
        if tasks := set(self._tasks.values()):
            _, pending = await asyncio.wait(tasks, timeout=seconds)
            for task in pending:
                task.cancel()

    async def _guarded(self, key: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Exception as error:
            log.exception("%s of %s failed", self._name, key, extra=cause_of(error))
        finally:
            del self._tasks[key]


def root_cause(error: BaseException) -> BaseException:
    """What an exception was raised from, at the end of its chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def cause_of(error: BaseException) -> dict[str, str]:
    """What a log line says about an exception that nobody foresaw: its class and its place."""
    return {"class": type(error).__name__, "place": place_of(error)}


def place_of(error: BaseException) -> str:
    """File, line and function in which an exception was raised: the last one of this package, or of a library.

    Through `main`, what a library runs by itself arrives: there the place in the library says more.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "unknown"
    own = [frame for frame in frames if PACKAGE in Path(frame.filename).parts[:-1] and Path(frame.filename).name != "main.py"]
    frame = (own or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"
