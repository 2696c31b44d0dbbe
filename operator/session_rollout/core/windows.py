"""Windows: when a rollout may advance, in the time zone of each window, across daylight-saving changes."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from session_rollout.api.rollout import Day, Window

DAYS: Final = tuple(Day)
DAYS_AHEAD: Final = 15  # of a weekly window, one opening may be in the hour that a change to summer time skips


@dataclass(frozen=True)
class Opening:
    """When a window opens, in UTC, and the time zone in which its author wrote it."""

    time: datetime
    zone: str = "UTC"

    def text(self, form: str = "%a %H:%M") -> str:
        """`Mon 09:00 Europe/Berlin (08:00 UTC)`; UTC has its own day where that is a different one."""
        local = self.time.astimezone(ZoneInfo(self.zone))
        if self.zone == "UTC":
            return f"{local:{form}} UTC"
        own_day = "" if local.date() == self.time.date() else f"{self.time:%a} "
        return f"{local:{form}} {self.zone} ({own_day}{self.time:%H:%M} UTC)"


def unknown_zones(windows: tuple[Window, ...]) -> tuple[str, ...]:
    """Time zones of the windows that the time zone database does not have."""
    return tuple(sorted({window.time_zone for window in windows if not _exists(window.time_zone)}))


def _exists(zone: str) -> bool:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def next_opening(windows: tuple[Window, ...], now: datetime) -> Opening:
    """`now` when a window is open or there are none; else when the next one opens."""
    openings = (opening for window in windows for opening in _openings(window, now))
    return min(openings, key=lambda opening: opening.time, default=Opening(now.astimezone(UTC)))


def _openings(window: Window, now: datetime) -> Iterator[Opening]:
    today = now.astimezone(ZoneInfo(window.time_zone)).date()
    for day in (today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD)):
        start, end = (_instant(window.time_zone, day, text) for text in (window.from_, window.to))
        if DAYS[day.weekday()] in window.days and start < end and now < end:
            yield Opening(max(start, now.astimezone(UTC)), window.time_zone)


def _instant(zone: str, day: date, text: str) -> datetime:
    """The first moment, in UTC, at which clocks of the zone show this time of the day or, where they skip it, a later one."""
    wall, info = datetime.combine(day, time.fromisoformat(text)), ZoneInfo(zone)
    moment = min(wall.replace(tzinfo=info, fold=fold).astimezone(UTC) for fold in (0, 1))
    while moment.astimezone(info).replace(tzinfo=None) < wall:  # clocks go forward and skip it; a time is whole minutes
        moment += timedelta(minutes=1)
    return moment
