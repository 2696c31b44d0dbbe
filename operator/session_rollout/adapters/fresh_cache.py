"""The background cache of metric queries and gates: rollouts use the latest results while those are refreshed.

Everything runs on the event loop, so there is no lock. One task at a time refreshes a question, and then wakes every rollout that
requested it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from datetime import datetime, timedelta
from typing import Final, Generic, Protocol, TypeVar

from session_rollout.ports import Clock
from session_rollout.tasks import watched

log = logging.getLogger(__name__)
FORGET_AFTER: Final = timedelta(minutes=10)


class Dated(Protocol):
    """A result with the time at which it was requested."""

    @property
    def time(self) -> datetime:
        """Time of the request."""


Question = TypeVar("Question", bound=Hashable)
Answer = TypeVar("Answer", bound=Dated)
Wake = Callable[[], None]


class FreshCache(Generic[Question, Answer]):
    """Results by question.

    `failed` returns the result to store when a fetch raises an exception. Without a stored result, the question would be
    fetched again immediately.
    """

    def __init__(self, clock: Clock, failed: Callable[[datetime], Answer]) -> None:
        self._clock, self._failed = clock, failed
        self._results: dict[Question, Answer] = {}
        self._tasks: dict[Question, asyncio.Task[None]] = {}
        self._waiting: dict[Question, set[Wake]] = {}
        self._pruned = clock.now()

    def get(self, question: Question, fetch: Callable[[], Awaitable[Answer]], max_age: timedelta, wake: Wake) -> Answer | None:
        """The latest result, or None before the first. Never waits: an older one is fetched again, then `wake` is called."""
        result = self._results.get(question)
        if result is not None and result.time > self._clock.now() - max_age:
            return result
        self._waiting.setdefault(question, set()).add(wake)
        if question not in self._tasks:
            self._tasks[question] = watched(self._refresh(question, fetch), "refresh of a result", may_end=True)
        return result

    def close(self) -> None:
        """Cancel running fetches."""
        for task in self._tasks.values():
            task.cancel()

    async def _refresh(self, question: Question, fetch: Callable[[], Awaitable[Answer]]) -> None:
        start = self._clock.now()
        try:
            self._results[question] = await fetch()
        except Exception:
            # A bug, because foreseeable failures are results. Rollouts must report it instead of waiting forever.
            log.exception("fetching a result failed")
            self._results[question] = self._failed(start)
        finally:
            del self._tasks[question]
            waiting = self._waiting.pop(question)
        self._prune()
        for wake in waiting:
            wake()

    def _prune(self) -> None:
        """Forget results that rollouts have not requested for FORGET_AFTER, at most once in that time."""
        now = self._clock.now()
        if now - self._pruned > FORGET_AFTER:
            self._pruned = now
            self._results = {key: result for key, result in self._results.items() if now - result.time < FORGET_AFTER}
