"""The only place that reads the wall clock."""

from datetime import UTC, datetime


class WallClock:
    """The system's clock, to the millisecond, as times are kept in status."""

    def now(self) -> datetime:
        """Now in UTC."""
        moment = datetime.now(UTC)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
