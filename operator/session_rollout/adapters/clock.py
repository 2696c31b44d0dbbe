"""The only place that reads the wall clock."""

import time
from datetime import UTC, datetime


class WallClock:
    """The system's clock, to the millisecond, as times are kept in status."""

    def now(self) -> datetime:
        """Now in UTC."""
        moment = datetime.now(UTC)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def monotonic(self) -> float:
        """Seconds of a clock that nobody sets, for waiting and for ages."""
        return time.monotonic()
