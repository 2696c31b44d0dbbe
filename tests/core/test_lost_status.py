"""A status of which another client has removed or changed a part, by an edit or a restore: guards protect users all the same.

Not here: a status that is lost whole (test_adoption), and one that names a step that does not exist (test_status).
"""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import pytest

from core.document_scenarios import FailingWorld
from core.world import World, at, ended, spec
from session_rollout.api.enums import CheckKind, DecisionReason, Outcome, Stage
from session_rollout.api.status import Current, RolloutStatus

NOBODY: Final = {"one": "0", "two": "0"}
LOSSES: Final[dict[str, Callable[[RolloutStatus], RolloutStatus]]] = {
    "current": lambda status: status.updated(current=Current()),
    "guardsStartTime": lambda status: status.updated(current=status.current.updated(guards_start_time=None)),
    "checks": lambda status: status.updated(checks=()),
    "publishedTime": lambda status: status.updated(current=status.current.updated(published_time=None)),
}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("place", [("one", 1), ("two", 1)], ids=str)
def test_guards_protect_users_whatever_the_status_has_lost(
    lose: Callable[[RolloutStatus], RolloutStatus], place: tuple[str, int]
) -> None:
    world = World(spec())
    world.until(at(*place))
    world.status = lose(world.status)
    world.values["errors"] = Decimal("0.5")
    world.until(ended, seconds=120)
    world.run(120)  # the older phase follows, because the guard still fails
    assert (world.status.outcome, world.percents()) == (Outcome.ROLLED_BACK, NOBODY)


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_guards_protect_users_of_a_rollout_that_is_being_deleted(lose: Callable[[RolloutStatus], RolloutStatus]) -> None:
    """The deletion waits for a Job, perhaps for hours."""
    world = deleting()
    world.status, world.last_reconcile = lose(world.status), None
    fail(world)


@pytest.mark.parametrize("begun", [False, True])
def test_a_clock_that_was_set_back_blinds_no_guard_during_a_deletion(*, begun: bool) -> None:
    """Times in the status lie an hour ahead for the next leader."""
    world = deleting()
    if begun:
        world.values["errors"] = Decimal("0.5")
        world.run(10)
    world.now, world.last_reconcile = world.now - timedelta(hours=1), None
    fail(world)


def deleting() -> FailingWorld:
    """A rollout with users, of which the deletion waits for a Job."""
    world = FailingWorld(spec())
    world.until(at("one", 2, 1))
    world.jobs_left = ("shop-rows-up-1",)
    world.run(20)
    return world


def fail(world: World) -> None:
    """The guard fails, and takes the features from all users."""
    world.values["errors"] = Decimal("0.5")
    world.run(300)
    assert world.document is not None
    assert not world.document.gives_something


@pytest.mark.parametrize("end", ["breach", "Abort", "Abort before the first publish"])
def test_status_from_before_the_first_publish_learns_of_a_rollback(end: str) -> None:
    """A backup of the status is restored: the document, which gives nobody anything either, says that the rollout was rolled back."""
    world = World(spec())
    world.answering = False
    world.run(20)
    backup = world.status
    if end != "Abort before the first publish":
        world.answering = True
        world.until(at("one", 2, 1))
    if end == "breach":
        world.values["errors"] = Decimal("0.5")
    else:
        world.request("Abort")
    world.until(ended)
    world.values["errors"], world.answering = Decimal("0.001"), True
    world.run(60)
    outcome, world.status, world.last_reconcile = world.status.outcome, backup, None
    world.run(600)
    assert world.status.outcome is outcome
    assert world.document is not None
    assert not world.document.gives_something
    world.request("Retry", generation=1)
    world.until(at("one", 1))


def second_phase_aborted() -> World:
    """Users keep phase one; phase two was aborted."""
    world = World(spec())
    world.until(at("two", 1))
    world.request("Abort")
    world.until(ended)
    assert world.percents() == {"one": "100", "two": "0"}
    return world


@pytest.mark.parametrize("action", ["EmergencyEnable", "Adopt"])
def test_status_from_before_a_rollback_is_not_hidden_by_an_emergency(action: str) -> None:
    """Half of the users had alpha then, and a tenth have it since `Retry`: the end of the emergency must not give it to half of them."""
    world = World(spec(guards=[{"name": "errors", "metric": "errors", "below": "5%"}]))
    world.until(at("one", 2, 2))
    before = world.status
    world.request("Abort")
    world.until(ended)
    world.request("Retry", generation=1)
    world.until(at("one", 1))
    world.request("EmergencyDisable", features=["alpha"])
    world.run(30)
    world.status, world.last_reconcile = before, None
    world.run(30)
    assert world.reason is DecisionReason.ADOPTION_REQUIRED
    world.request(action)
    world.run(30)
    assert world.document is not None
    assert not world.document.gives_something


def test_lost_outcome_of_a_rollback_is_that_of_the_rollback() -> None:
    """What was aborted stays off, and what users keep is guarded."""
    world = second_phase_aborted()
    world.status = world.status.updated(outcome=None)
    world.run(60)
    assert (world.status.outcome, world.percents()["two"]) == (Outcome.ABORTED, "0")
    world.values["errors"] = Decimal("0.5")
    world.run(120)
    assert world.percents() == NOBODY


def test_lost_outcome_of_a_promotion_is_the_promotion() -> None:
    world = World(spec())
    world.until(ended)
    before = world.percents()
    world.status = world.status.updated(outcome=None)
    world.run(60)
    assert (world.status.outcome, world.percents()) == (Outcome.PROMOTED, before)


def test_rollout_that_was_aborted_does_not_start_again_because_its_place_is_lost() -> None:
    world = second_phase_aborted()
    world.status = world.status.updated(current=Current())
    world.run(600)
    assert (world.status.current.stage, world.status.outcome, world.percents()["two"]) == (Stage.ENDED, Outcome.ABORTED, "0")


@pytest.mark.parametrize("outcome", [Outcome.PROMOTED, Outcome.ROLLED_BACK])
def test_outcome_that_somebody_writes_ends_no_rollback(outcome: Outcome) -> None:
    world = World(spec())
    world.until(at("one", 2, 1))
    world.request("Abort")
    world.publishing = False
    world.settle()
    assert world.status.current.stage is Stage.ROLLING_BACK
    world.status = world.status.updated(outcome=outcome)
    world.publishing = True
    world.run(30)
    assert (world.status.outcome, world.percents()) == (Outcome.ABORTED, NOBODY)
    assert world.document is not None
    assert not world.document.gives_something


@pytest.mark.parametrize("back", [timedelta(minutes=40), timedelta(minutes=49, seconds=30)], ids=str)
def test_gap_before_the_clock_is_set_back_hides_no_failure(back: timedelta) -> None:
    """R14: a guard fails, the operator is away, and the next process has a clock that is earlier than the end of that gap."""
    guard: dict[str, Any] = {"name": "errors", "metric": "errors", "below": "5%", "for": "2m"}
    world = World(spec(guards=[guard]))
    world.until(at("one", 2, 1))
    world.values["errors"] = Decimal("0.5")
    world.run(10)
    world.now += timedelta(minutes=50)
    world.settle()
    world.run(10)
    assert world.check(CheckKind.GUARD, "errors").gap_milliseconds
    world.now -= back
    world.last_reconcile = None
    world.until(ended, seconds=180)
    assert world.percents() == NOBODY


def test_place_that_the_spec_does_not_have_is_said() -> None:
    world = World(spec())
    world.until(at("one", 1))
    world.status = world.status.updated(current=world.status.current.updated(step=7))
    world.run(10)
    assert world.reason is DecisionReason.INVALID_SPEC
