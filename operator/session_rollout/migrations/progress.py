"""What a migration says while it runs: a Job lines of JSON in its log and the termination message, a person sentences."""

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from session_rollout.api.progress import Progress, clipped

EVERY_SECONDS: Final = 1.0


def as_json(progress: Progress) -> str:
    """For the operator, which reads the last line of the log."""
    return progress.model_dump_json(by_alias=True, exclude_defaults=True)


def as_sentence(progress: Progress) -> str:
    """For a person beside the database; empty when there is nothing to say."""
    parts = [progress.message] if progress.message else []
    if progress.total:
        parts.append(f"{progress.done or 0:,} of {progress.total:,}")
    if progress.rate and progress.remaining_seconds is not None:
        parts.append(f"{progress.rate:,}/s, {progress.remaining_seconds}s left")
    if progress.quarantined:
        parts.append(f"{progress.quarantined:,} quarantined")
    if progress.waiting:
        parts.append(f"waits: {progress.waiting}")
    return ", ".join(parts)


@dataclass
class Reporter:
    """Tells people and the operator where the migration is; used from two threads."""

    termination_log: Path | None = None
    stream: IO[str] | None = None
    words: Callable[[Progress], str] = as_json
    last: Progress = field(default_factory=Progress)
    _told: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, *, now: bool = False, **fields: Any) -> None:
        """Say how far it is; at most once a second unless it is said to be news."""
        with self._lock:
            fields = {"waiting": "", **fields}
            if "message" in fields:
                fields["message"] = clipped(fields["message"])
            self.last = Progress.model_validate({**self.last.model_dump(), **fields})
            if now or time.monotonic() - self._told >= EVERY_SECONDS:
                self._print()

    def waits(self, why: str) -> None:
        """Say what holds it up."""
        self.tell(waiting=why[:256], now=not self.last.waiting)

    def _print(self) -> None:
        self._told = time.monotonic()
        if self.stream is not None and (line := self.words(self.last)):
            print(line, file=self.stream, flush=True)

    def close(self, **fields: Any) -> None:
        """The last words: in the log and in the termination message."""
        self.tell(now=True, **fields)
        if self.termination_log is not None:
            self.termination_log.write_text(as_json(self.last))


def to_log(termination_log: Path) -> Reporter:
    """The reporter of a Job."""
    return Reporter(termination_log, sys.stdout)


def to_person() -> Reporter:
    """The reporter of a person's command, whose own answer is on the standard output."""
    return Reporter(stream=sys.stderr, words=as_sentence)
