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
from session_rollout.core.windows import Opening, next_opening, unknown_zones


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
SUNDAYS = {  # at night, in the hour that is skipped on 29 March and the one that comes twice on 25 October
    "skipped as a whole": ("02:15", "02:45", "2026-03-29T00:00+01:00", "2026-04-05T02:15+02:00"),
    "begins in the hour that is skipped": ("02:30", "03:10", "2026-03-29T00:00+01:00", "2026-03-29T03:00+02:00"),
    "ends in the hour that is skipped": ("01:30", "02:30", "2026-03-29T01:59+01:00", "2026-03-29T01:59+01:00"),
    "over before the skipped time would be": ("01:30", "02:30", "2026-03-29T03:00+02:00", "2026-04-05T01:30+02:00"),
    "begins in the hour that comes twice": ("02:30", "05:00", "2026-10-25T00:00+02:00", "2026-10-25T02:30+02:00"),
    "open in both": ("01:00", "05:00", "2026-10-25T02:30+01:00", "2026-10-25T02:30+01:00"),
}


@pytest.mark.parametrize(("now", "opening"), OPENINGS.values(), ids=OPENINGS)
def test_windows_open_in_their_own_time_zone(now: str, opening: str) -> None:
    """D22: across weekends and daylight saving."""
    found = next_opening((window(),), datetime.fromisoformat(now))
    assert (found.time, found.time.tzinfo) == (datetime.fromisoformat(opening), UTC)


@pytest.mark.parametrize(("from_", "to", "now", "opening"), SUNDAYS.values(), ids=SUNDAYS)
def test_windows_follow_the_clock_on_the_wall(from_: str, to: str, now: str, opening: str) -> None:
    """D22: a window is open from the first moment at which clocks show its start until the first at which they show its end."""
    sundays = window(days=["Sun"], **{"from": from_, "to": to})
    assert next_opening((sundays,), datetime.fromisoformat(now)).time == datetime.fromisoformat(opening)


def test_no_window_is_always_open_and_the_nearest_of_several_counts() -> None:
    """No list, no waiting."""
    saturday = datetime(2026, 1, 10, 8, 0, tzinfo=UTC)
    assert next_opening((), saturday) == Opening(saturday)
    both = (window(), window(days=["Sat"], timeZone="UTC"))
    assert next_opening(both, saturday) == Opening(datetime(2026, 1, 10, 9, 0, tzinfo=UTC), "UTC")


TEXTS = {
    "winter": (datetime(2026, 1, 12, 8, 0, tzinfo=UTC), "Europe/Berlin", "Mon 09:00 Europe/Berlin (08:00 UTC)"),
    "summer": (datetime(2026, 7, 13, 7, 0, tzinfo=UTC), "Europe/Berlin", "Mon 09:00 Europe/Berlin (07:00 UTC)"),
    "another day": (datetime(2026, 1, 11, 16, 0, tzinfo=UTC), "Asia/Tokyo", "Mon 01:00 Asia/Tokyo (Sun 16:00 UTC)"),
    "half hours": (datetime(2026, 1, 12, 3, 30, tzinfo=UTC), "Asia/Kolkata", "Mon 09:00 Asia/Kolkata (03:30 UTC)"),
    "UTC": (datetime(2026, 1, 12, 9, 0, tzinfo=UTC), "UTC", "Mon 09:00 UTC"),
    "as UTC in winter": (datetime(2026, 1, 12, 9, 0, tzinfo=UTC), "Europe/London", "Mon 09:00 Europe/London (09:00 UTC)"),
}


@pytest.mark.parametrize(("time", "zone", "text"), TEXTS.values(), ids=TEXTS)
def test_opening_names_the_zone_of_the_window_and_utc(time: datetime, zone: str, text: str) -> None:
    """D22: also the day, where UTC has a different one."""
    assert Opening(time, zone).text() == text


@pytest.mark.usefixtures("prose")
def test_message_and_next_action_name_both_times() -> None:
    """D22: what `get`, `status`, `explain` and `rehearse` print is the message of the decision."""
    world = World(spec(windows=[{"days": ["Tue"], "from": "09:00", "to": "16:00", "timeZone": "Europe/Berlin"}]))
    world.run(10)
    assert world.status.decision.next_time == datetime(2026, 1, 6, 8, 0, tzinfo=UTC)
    assert "Tue 09:00 Europe/Berlin (08:00 UTC)" in world.status.decision.message
    assert "2026-01-06 09:00 Europe/Berlin (08:00 UTC)" in world.status.decision.next_actions[0]


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


def test_last_step_is_completed_in_a_window() -> None:
    """What follows it, such as a migration that ends a code path, comes no earlier either."""
    world = World(spec(windows=[{"days": ["Mon"], "from": "10:00", "to": "10:04", "timeZone": "UTC"}]))
    world.until(at("one", 3))
    world.run(3600)
    assert (world.where[:2], world.reason) == (("one", 3), DecisionReason.AWAITING_WINDOW)
    world.now = START + timedelta(days=7)
    world.run(60)
    assert world.where[0] == "two"
