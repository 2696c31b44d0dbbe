"""Windows: when they open, and what waits for them.

Covered: time zones, weekends, daylight saving, several windows, a rollout that waits. Not here: a window with an unknown
time zone as a problem of the spec (test_gates).
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.world import START, World, at, ended, spec
from session_rollout.api.enums import DecisionAction, DecisionReason, Outcome
from session_rollout.api.rollout import Window
from session_rollout.core.windows import next_opening, unknown_zones


def window(**fields: Any) -> Window:
    """Monday to Thursday from nine to four in Berlin, unless the test has other fields."""
    given = {"days": ["Mon", "Tue", "Wed", "Thu"], "from": "09:00", "to": "16:00", "timeZone": "Europe/Berlin", **fields}
    return Window.model_validate(given)


OPENINGS = {
    "open now": ("2026-01-05T12:00+01:00", "2026-01-05T12:00+01:00"),
    "later today": ("2026-01-05T08:00+01:00", "2026-01-05T09:00+01:00"),
    "the end is closed": ("2026-01-05T16:00+01:00", "2026-01-06T09:00+01:00"),
    "over the weekend": ("2026-01-08T17:00+01:00", "2026-01-12T09:00+01:00"),
    "over the change to summer time": ("2026-03-28T12:00+01:00", "2026-03-30T09:00+02:00"),
    "over the change from summer time": ("2026-10-24T12:00+02:00", "2026-10-26T09:00+01:00"),
}


@pytest.mark.parametrize(("now", "opening"), OPENINGS.values(), ids=OPENINGS)
def test_windows_open_in_their_own_time_zone(now: str, opening: str) -> None:
    """Across weekends and daylight saving."""
    found = next_opening((window(),), datetime.fromisoformat(now))
    assert (found, found.tzinfo) == (datetime.fromisoformat(opening), UTC)  # messages name it as UTC


def test_no_window_is_always_open_and_the_nearest_of_several_counts() -> None:
    """No list, no waiting."""
    saturday = datetime(2026, 1, 10, 8, 0, tzinfo=UTC)
    assert next_opening((), saturday) == saturday
    both = (window(), window(days=["Sat"], timeZone="UTC"))
    assert next_opening(both, saturday) == datetime(2026, 1, 10, 9, 0, tzinfo=UTC)


def test_unknown_time_zones_are_named() -> None:
    """Only those that the time zone database does not have."""
    assert unknown_zones((window(timeZone="Mars/Olympus"), window())) == ("Mars/Olympus",)


def test_promotion_waits_for_a_window_and_rollback_does_not() -> None:
    """Outside the window the audience stays; a breach still acts."""
    world = World(spec(windows=[{"days": ["Mon"], "from": "10:00", "to": "10:01", "timeZone": "UTC"}]))
    world.until(at("one", 1))
    world.run(3600)
    assert world.where[:2] == ("one", 1)
    assert (world.status.decision.action, world.reason) == (DecisionAction.WAIT, DecisionReason.AWAITING_WINDOW)
    assert world.status.decision.next_time == START + timedelta(days=7)
    world.values["errors"] = Decimal("0.08")
    world.until(ended)
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_promote_does_not_wait_for_a_window() -> None:
    """An action that skips the checks skips the windows, too."""
    world = World(spec(windows=[{"days": ["Mon"], "from": "10:00", "to": "10:01", "timeZone": "UTC"}]))
    world.until(at("one", 1))
    world.run(600)
    world.request("Promote", generation=1, phase="one", step=1)
    world.run(10)
    assert world.where[:2] == ("one", 2)
