"""The clocks of adapters, which tests advance and set."""

from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)


class Clock:
    """A wall clock and a monotonic one, which tests advance."""

    def __init__(self) -> None:
        self.wall, self.seconds = START, 100.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds

    def advance(self, length: timedelta) -> None:
        self.wall, self.seconds = self.wall + length, self.seconds + length.total_seconds()
