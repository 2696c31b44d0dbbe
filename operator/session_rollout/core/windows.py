"""Windows: when a rollout may advance, in the time zone of each window, across daylight-saving changes."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from session_rollout.api.rollout import Day, Window

DAYS: Final = tuple(Day)
DAYS_AHEAD: Final = 8


def unknown_zones(windows: tuple[Window, ...]) -> tuple[str, ...]:
    """Time zones of the windows that the time zone database does not have."""
    return tuple(sorted({window.time_zone for window in windows if not _exists(window.time_zone)}))


def _exists(zone: str) -> bool:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def next_opening(windows: tuple[Window, ...], now: datetime) -> datetime:
    """`now` when a window is open or there are none; else the time when the next one opens, in UTC."""
    openings = [opening for window in windows for opening in _openings(window, now)]
    return min(openings, default=now).astimezone(UTC)


def _openings(window: Window, now: datetime) -> list[datetime]:
    today = now.astimezone(ZoneInfo(window.time_zone)).date()
    spans = (_span(window, today + timedelta(days=ahead)) for ahead in range(DAYS_AHEAD))
    return [max(start, now) for start, end in spans if now < end and DAYS[start.weekday()] in window.days]


def _span(window: Window, day: date) -> tuple[datetime, datetime]:
    zone = ZoneInfo(window.time_zone)
    start, end = (datetime.combine(day, time.fromisoformat(text), tzinfo=zone) for text in (window.from_, window.to))
    return start, end
