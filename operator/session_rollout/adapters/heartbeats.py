"""Heartbeats: what must happen again and again in this process, and whether it does.

The liveness probe reads them: a loop that hangs raises nothing. A loop whose work fails still beats, because a restart would not
help it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

SILENT_SECONDS: Final = 70.0  # after which Kopf requests a silent watch again
WATCH_SECONDS: Final = 240  # after which the API server ends a watch, and Kopf requests it again
WATCH_LIMIT: Final = WATCH_SECONDS + 2 * SILENT_SECONDS


@dataclass
class Heart:
    """One activity."""

    limit: float
    last: float


class Heartbeats:
    """All activities of the process, by name."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._hearts: dict[str, Heart] = {}

    def expect(self, name: str, limit: float) -> None:
        """From now on this activity beats at least every `limit` seconds."""
        self._hearts[name] = Heart(limit, self._monotonic())

    def end(self, name: str) -> None:
        """The activity is over."""
        self._hearts.pop(name, None)

    def beat(self, name: str) -> None:
        """The activity is alive."""
        if name in self._hearts:
            self._hearts[name].last = self._monotonic()

    def beat_all(self, beginning: str) -> None:
        """All activities whose name begins so are alive."""
        for name in self._hearts:
            if name.startswith(beginning):
                self.beat(name)

    def late(self) -> tuple[str, ...]:
        """Activities that did not beat in time, each with the seconds since it last did."""
        now = self._monotonic()
        ages = ((name, now - heart.last, heart.limit) for name, heart in self._hearts.items())
        return tuple(f"{name} ({age:.0f} s)" for name, age, limit in ages if age > limit)


def watch_name(path: str) -> str:
    """Name of the activity of a watch."""
    return f"watch of {path}"
