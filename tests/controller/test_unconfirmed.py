"""Decisions whose status write has no response: which of them a status that is read later has."""

from datetime import UTC, datetime, timedelta

from core.world import World, spec
from session_rollout.api.enums import EventReason
from session_rollout.api.status import RolloutStatus
from session_rollout.controller.unconfirmed import MOST, Made, Unconfirmed
from session_rollout.core.observed import Decision, Emit

NOW = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)


def status(number: int) -> RolloutStatus:
    """A status that differs from others."""
    return RolloutStatus(observed_generation=number)


def made(before: int, after: int, *, event: bool = True) -> Made:
    """A decision from one status to another, with an event or without."""
    world = World(spec(), status=status(before))
    effects = (Emit(EventReason.PROMOTED, "promoted"),) if event else ()
    return Made(world.observed(), NOW, Decision(status(after), effects, None, timedelta(0), complete=True))


def told(number: int, *decisions: Made) -> list[int]:
    """The statuses of the decisions that a status has."""
    unconfirmed = Unconfirmed()
    for each in decisions:
        unconfirmed.add(each)
    found = [each.decision.status.observed_generation for each in unconfirmed.confirmed(status(number))]
    assert unconfirmed.confirmed(status(number)) == (), "each once"
    return found


def test_each_that_led_to_the_status_is_told_in_order() -> None:
    """What was decided after it is not in it."""
    chain = (made(0, 1), made(1, 2), made(2, 3))
    assert [told(number, *chain) for number in range(5)] == [[], [1], [1, 2], [1, 2, 3], []]


def test_first_of_two_decisions_about_one_status_was_stored() -> None:
    """Its response is late, and the object was read and decided about again meanwhile."""
    assert told(1, made(0, 1), made(0, 2)) == [1]
    assert told(2, made(0, 1), made(0, 2)) == [2]
    assert told(3, made(0, 1), made(0, 2), made(1, 3)) == [1, 3]


def test_decision_that_changes_nothing_is_none() -> None:
    """A status that is written again unchanged."""
    assert told(0, made(0, 0)) == []
    assert told(1, made(0, 1), made(1, 1)) == [1]


def test_refusal_that_lasts_keeps_what_happened_and_little_else() -> None:
    """Thousands of decisions, of which each changes the status a little."""
    quiet = [made(number, number + 1, event=number == 3) for number in range(10 * MOST)]
    assert told(10 * MOST, *quiet) == [4, 10 * MOST - 1, 10 * MOST]
    loud = [made(number, number + 1) for number in range(2 * MOST)]
    assert told(2 * MOST, *loud) == [*range(MOST + 1, 2 * MOST + 1)]


def test_time_of_the_write_is_no_difference() -> None:
    """It is set when the status is sent."""
    unconfirmed = Unconfirmed()
    unconfirmed.add(made(0, 1))
    assert len(unconfirmed.confirmed(status(1).updated(last_update_time=NOW, evaluation_time=NOW))) == 1
