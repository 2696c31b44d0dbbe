"""What the Job says: a line of JSON in the log whenever something worth knowing changed, and the termination message."""

import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from session_rollout.api.progress import Progress, clipped

EVERY_SECONDS: Final = 1.0


@dataclass
class Reporter:
    """Tells people and the operator where the migration is; used from two threads."""

    termination_log: Path | None = None
    stream: IO[str] | None = None
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
        if self.stream is not None:
            print(self._line(), file=self.stream, flush=True)

    def _line(self) -> str:
        return self.last.model_dump_json(by_alias=True, exclude_defaults=True)

    def close(self, **fields: Any) -> None:
        """The last words: in the log and in the termination message."""
        self.tell(now=True, **fields)
        if self.termination_log is not None:
            self.termination_log.write_text(self._line())


def to_log(termination_log: Path | None) -> Reporter:
    """The reporter of a Job."""
    return Reporter(termination_log, sys.stdout)
