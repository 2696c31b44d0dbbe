"""The deadline of a step: what counts toward it, what never rolls back, and what counts for nothing.

Every row is a way in which a step of 60 s with a deadline of ten minutes is delayed (D11). Not here: what makes a criterion
fail (test_failures, test_rules).
"""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.world import World, at, edited, ended
from session_rollout.api.enums import DecisionAction, DecisionReason, Outcome, Verdict
from session_rollout.api.rollout import RolloutSpec

GOOD, BAD = Decimal("0.001"), Decimal("0.02")


def limited(on_deadline: str = "Rollback", **changes: Any) -> RolloutSpec:
    """A step of 60 s with one criterion, one guard and a deadline of ten minutes."""

    def change(data: dict[str, Any]) -> None:
        criteria = [{"name": "errors", "metric": "errors", "below": "1%"}]
        data["phases"][0] |= {"criteria": criteria, "deadline": "10m", "onDeadline": on_deadline}

    return edited(change, guards=[{"name": "load", "metric": "load", "below": "5"}], **changes)


def held(on_deadline: str = "Rollback", ranges: dict[str, timedelta] | None = None, **changes: Any) -> World:
    """The rollout when its first step has just been published."""
    world = World(limited(on_deadline, **changes), ranges=ranges or {})
    world.until(at("one", 1))
    return world


def stalled(world: World) -> bool:
    """Whether the deadline has stalled the rollout."""
    return world.status.decision.action is DecisionAction.STALL and world.reason is DecisionReason.DEADLINE_EXCEEDED


WAITS = {
    "a criterion fails": ("errors", BAD),
    "a criterion has no data": ("errors", Verdict.NO_DATA),
    "a criterion is inconclusive": ("errors", Verdict.INCONCLUSIVE),
    "a guard has no data": ("load", Verdict.NO_DATA),
    "a guard is inconclusive": ("load", Verdict.INCONCLUSIVE),
}


@pytest.mark.parametrize(("metric", "value"), WAITS.values(), ids=WAITS)
@pytest.mark.parametrize("on_deadline", ["Stall", "Rollback"])
def test_waiting_for_criteria_or_evidence_counts(metric: str, value: Decimal | Verdict, on_deadline: str) -> None:
    """D11: at the planned end of the hold and ten minutes, not earlier, what `onDeadline` says happens."""
    world = held(on_deadline)
    world.values[metric] = value
    world.run(650)
    assert (world.status.outcome, stalled(world)) == (None, False)
    world.run(20)
    assert world.status.outcome is (Outcome.ROLLED_BACK if on_deadline == "Rollback" else None)
    assert stalled(world) is (on_deadline == "Stall")


@pytest.mark.parametrize("on_deadline", ["Stall", "Rollback"])
def test_a_provider_that_is_away_never_rolls_back(on_deadline: str) -> None:
    """D11: at the deadline Stalled, whatever `onDeadline` says, for as long as it lasts; then the rollout continues."""
    world = held(on_deadline)
    world.values["errors"] = Verdict.PROVIDER_ERROR
    world.run(650)
    assert not stalled(world)
    world.run(1800, tick=20)
    assert (world.status.outcome, stalled(world)) == (None, True)
    world.values["errors"] = GOOD
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


@pytest.mark.parametrize("on_deadline", ["Stall", "Rollback"])
@pytest.mark.parametrize("known", [True, False], ids=["known absence", "unknown absence"])
def test_an_operator_that_is_away_never_rolls_back(on_deadline: str, *, known: bool) -> None:
    """D11: hours without a reconcile of a step that waited stall it, and its own waiting still rolls it back."""
    world = held(on_deadline)
    world.values["errors"] = BAD
    world.run(300)
    world.now += timedelta(hours=5)
    world.last_reconcile = world.last_reconcile if known else None
    world.settle()
    world.run(90)
    assert (world.status.outcome, stalled(world)) == (None, True)
    world.run(600)
    assert world.status.outcome is (Outcome.ROLLED_BACK if on_deadline == "Rollback" else None)


@pytest.mark.parametrize("known", [True, False], ids=["known absence", "unknown absence"])
def test_an_operator_that_comes_back_waits_for_its_first_results(*, known: bool) -> None:
    """D11: before a hold has started, the hours in which nobody asked Prometheus are no waiting for evidence."""
    world = held(ranges={"errors": timedelta(seconds=60)})
    world.values["errors"] = Verdict.NO_DATA
    world.run(300)
    world.now += timedelta(hours=5)
    world.last_reconcile = world.last_reconcile if known else None
    world.answering = False
    world.settle()
    assert world.status.outcome is None
    world.answering, world.values["errors"] = True, GOOD
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_time_away_adds_to_waiting_only_for_a_stall() -> None:
    """D11: six minutes of a failing criterion and six without the provider stall; four more of the former roll back."""
    world = held()
    world.values["errors"] = BAD
    world.run(60 + 360)
    world.values["errors"] = Verdict.PROVIDER_ERROR
    world.run(230)
    assert not stalled(world)
    world.run(130)
    assert stalled(world)
    world.values["errors"] = BAD
    world.run(220)
    assert world.status.outcome is None
    world.run(40)
    assert world.status.outcome is Outcome.ROLLED_BACK


def pause(world: World) -> None:
    """By an action, for half an hour."""
    world.request("Pause")
    world.run(1800, tick=20)
    world.request("Resume")
    world.settle()


def suspend(world: World) -> None:
    """By the spec; an edit also starts the step again."""
    world.edit(world.spec.updated(suspend=True))
    world.run(1800, tick=20)
    world.edit(world.spec.updated(suspend=False))
    world.settle()


def disable(world: World) -> None:
    """By an emergency."""
    world.request("EmergencyDisable")
    world.run(1800, tick=20)
    world.request("EmergencyEnable")
    world.settle()


def invalid(world: World) -> None:
    """By a provider that the configuration lacks."""
    world.problems = ("no such provider",)
    world.run(1800, tick=20)
    world.problems = ()
    world.settle()


@pytest.mark.parametrize("stop", [pause, suspend, disable, invalid])
@pytest.mark.parametrize("waited", [0, 300], ids=["before it waits", "while it waits"])
def test_pauses_count_for_nothing(stop: Callable[[World], None], waited: int) -> None:
    """D11: half an hour of a pause, suspension, emergency or invalid spec is no waiting: ten minutes are left, or five."""
    world = held()
    world.values["errors"] = BAD
    world.run(60 + waited)
    stop(world)
    assert (world.status.outcome, stalled(world)) == (None, False)
    world.run(270)
    assert (world.status.outcome, stalled(world)) == (None, False)
    world.run(420)
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_warm_up_and_hold_count_for_nothing() -> None:
    """D11: with a range of an hour and a propagation of five minutes, ten minutes begin after both and the hold."""
    world = held(ranges={"load": timedelta(hours=1)}, propagation="5m")
    world.values["errors"] = BAD
    world.run(3600 + 300 + 60 + 580, tick=20)
    assert world.status.outcome is None
    world.run(30)
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_a_hold_that_was_only_delayed_is_no_waiting() -> None:
    """D11: an hour away in the middle of the hold; the rest of it runs, and nothing fails: promoted, never stalled."""
    world = held()
    world.run(30)
    world.now += timedelta(hours=1)
    world.settle()
    assert world.reason is DecisionReason.HOLDING
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_criteria_that_come_and_go_count() -> None:
    """D11: a criterion that passes every other time never holds for long enough, and that is waiting, too."""
    world = held()
    for _ in range(80):
        for value in (BAD, GOOD):
            world.values["errors"] = value
            world.now += timedelta(seconds=10)
            world.settle()
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_waiting_writes_nothing_while_it_is_steady() -> None:
    """D11: what was waited for is written when it changes."""
    world = held()
    world.values["errors"] = BAD
    world.run(120)
    writes = world.writes
    world.run(480)
    assert world.writes == writes


def test_without_a_deadline_nothing_is_counted() -> None:
    """D11: the step waits for ever, and status says nothing of a deadline."""
    world = World(edited(lambda data: data["phases"][0].pop("deadline", None)))
    world.until(at("one", 1))
    world.values["errors"] = Verdict.NO_DATA
    world.run(2400, tick=20)
    assert (world.status.current.deadline_wait, world.reason) == (None, DecisionReason.AWAITING_EVIDENCE)
