"""Reports progress while a migration runs: JSON lines and a termination message in a Job, sentences in a terminal."""

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Final

from session_rollout.api.progress import Progress, progress_text

REPORT_SECONDS: Final = 1.0
WAITING_LENGTH: Final = 256


def to_json(progress: Progress) -> str:
    """One line of JSON for the operator, which reads the last line of the log."""
    return progress.model_dump_json(by_alias=True, exclude_defaults=True)


def to_sentence(progress: Progress) -> str:
    """One line for a terminal; empty when there is nothing to report."""
    parts = [progress.message] if progress.message else []
    if progress.total:
        left = timedelta(seconds=progress.remaining_seconds) if progress.remaining_seconds is not None else None
        parts.append(
            progress_text(progress.done, progress.total, rate=progress.rate, remaining=left, quarantined=progress.quarantined)
        )
    if progress.waiting:
        parts.append(f"waiting: {progress.waiting}")
    return ", ".join(parts)


@dataclass
class Reporter:
    """Reports the progress of one migration; safe to use from two threads."""

    termination_log: Path | None = None
    stream: IO[str] | None = None
    line_of: Callable[[Progress], str] = to_json
    last: Progress = field(default_factory=Progress)
    _printed: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def update(self, *, now: bool = False, **fields: Any) -> None:
        """Set fields of the progress and print it, at most once per second unless `now`. Clears `waiting`."""
        with self._lock:
            self.last = self.last.updated(**{"waiting": "", **fields})
            if now or time.monotonic() - self._printed >= REPORT_SECONDS:
                self._print()

    def wait_for(self, reason: str) -> None:
        """Report what the migration waits for; the first report of a wait is printed immediately."""
        self.update(waiting=reason[:WAITING_LENGTH], now=not self.last.waiting)

    def _print(self) -> None:
        self._printed = time.monotonic()
        if self.stream is not None and (line := self.line_of(self.last)):
            print(line, file=self.stream, flush=True)

    def close(self, **fields: Any) -> None:
        """Report the end: in the log and, in a Job, in the termination message."""
        self.update(now=True, **fields)
        if self.termination_log is not None:
            self.termination_log.write_text(to_json(self.last))


def job_reporter(termination_log: Path) -> Reporter:
    """The reporter of a Job: JSON lines on standard output, the last one also in the termination log."""
    return Reporter(termination_log, sys.stdout)


def terminal_reporter() -> Reporter:
    """The reporter of a terminal: sentences on standard error; standard output is left to the result."""
    return Reporter(stream=sys.stderr, line_of=to_sentence)
