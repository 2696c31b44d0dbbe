"""The background cache of metric queries and gates: rollouts use the latest results while those are refreshed.

Everything runs on the event loop, so there is no lock. One task at a time refreshes a question, and then wakes every rollout that
requested it. Ages are measured with the monotonic clock: when the wall clock is set back by an hour, results are still refreshed
in that hour.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

from session_rollout.core.observed import CheckResult, Measurement
from session_rollout.ports import Clock
from session_rollout.tasks import watched

log = logging.getLogger(__name__)
FORGET_AFTER: Final = timedelta(minutes=10)
SET_BACK: Final = timedelta(seconds=1)  # smaller differences between both clocks are noise

Question = TypeVar("Question", bound=Hashable)
Answer = TypeVar("Answer", Measurement, CheckResult)
Wake = Callable[[], None]


@dataclass(frozen=True)
class Entry(Generic[Answer]):
    """A result, and when it was requested, in seconds of the monotonic clock."""

    answer: Answer
    requested: float


class FreshCache(Generic[Question, Answer]):
    """Results by question.

    `failed` returns the result to store when a fetch raises an exception. Without a stored result, the question would be
    fetched again immediately.
    """

    def __init__(self, clock: Clock, failed: Callable[[datetime], Answer]) -> None:
        self._clock = clock
        self._failed: Callable[[datetime], Answer] = failed
        self._entries: dict[Question, Entry[Answer]] = {}
        self._tasks: dict[Question, asyncio.Task[None]] = {}
        self._waiting: dict[Question, set[Wake]] = {}
        self._wanted: dict[Question, float] = {}  # when a rollout last requested it
        self._pruned = clock.monotonic()

    def get(self, question: Question, fetch: Callable[[], Awaitable[Answer]], max_age: timedelta, wake: Wake) -> Answer | None:
        """The latest result, or None before the first. Never waits: an older one is fetched again, then `wake` is called."""
        entry, self._wanted[question] = self._entries.get(question), self._clock.monotonic()
        if entry is not None and self._age(entry) < max_age:
            return self._dated(entry)
        self._waiting.setdefault(question, set()).add(wake)
        if question not in self._tasks:
            self._tasks[question] = watched(self._refresh(question, fetch), "refresh of a result", may_end=True)
        return None if entry is None else self._dated(entry)

    def close(self) -> None:
        """Cancel running fetches."""
        for task in self._tasks.values():
            task.cancel()

    def _age(self, entry: Entry[Answer]) -> timedelta:
        return timedelta(seconds=self._clock.monotonic() - entry.requested)

    def _dated(self, entry: Entry[Answer]) -> Answer:
        """The result with a time that the wall clock of now agrees with.

        After the clock was set back, the time of an older result lies in the future, and the result would never become stale.
        After it was set forward, the time stays: the result is not newer than it was.
        """
        latest = self._clock.now() - self._age(entry)
        return replace(entry.answer, time=latest) if entry.answer.time - latest > SET_BACK else entry.answer

    async def _refresh(self, question: Question, fetch: Callable[[], Awaitable[Answer]]) -> None:
        begun, start = self._clock.monotonic(), self._clock.now()
        try:
            self._store(question, await fetch(), begun)
        except Exception:
            # A bug, because foreseeable failures are results. Rollouts must report it instead of waiting forever.
            log.exception("fetching a result failed")
            self._store(question, self._failed(start), begun)
        finally:
            del self._tasks[question]
            waiting = self._waiting.pop(question)
        self._prune()
        for wake in waiting:
            wake()

    def _store(self, question: Question, answer: Answer, begun: float) -> None:
        """Keep a result. Its age counts from its own time, because it may have waited for its turn after `begun`."""
        now = self._clock.monotonic()
        waited = (self._clock.now() - answer.time).total_seconds()
        self._entries[question] = Entry(answer, now - min(max(waited, 0.0), now - begun))

    def _prune(self) -> None:
        """Forget results that rollouts have not requested for FORGET_AFTER, at most once in that time."""
        now = self._clock.monotonic()
        if now - self._pruned > FORGET_AFTER.total_seconds():
            self._pruned = now
            self._wanted = {key: at for key, at in self._wanted.items() if now - at < FORGET_AFTER.total_seconds()}
            self._entries = {key: entry for key, entry in self._entries.items() if key in self._wanted}
