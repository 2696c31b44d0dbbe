"""Baselines: measured on data about what users have before the phase, and never on data about the phase itself.

Not here: that each phase has its own (test_promotion), and how a value is compared with one (test_rules).
"""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.document_scenarios import recreated
from core.world import World, at, edited, ended, spec, with_another_plan
from session_rollout.api.enums import CheckKind, CheckReason, DecisionReason, EventReason, Outcome, Stage, Verdict
from session_rollout.api.rollout import RolloutSpec

RANGE = timedelta(minutes=15)
PROPAGATION = timedelta(minutes=2)


def compared(**changes: Any) -> RolloutSpec:
    """The usual rollout with a propagation."""
    return spec(propagation="2m", **changes)


def rolled_back(world: World, *, load: int = 50) -> World:
    """In the first step the load rises, and another guard rolls back."""
    world.ranges = {"load": RANGE}
    world.until(at("one", 1))
    world.values |= {"load": Decimal(load), "errors": Decimal("0.08")}
    world.until(ended)
    world.values["errors"] = Decimal("0.001")
    return world


def baseline(world: World) -> str | None:
    """The baseline of the criterion."""
    return world.check(CheckKind.CRITERION, "load").baseline


def test_first_baseline_waits_for_nothing() -> None:
    """Before anything was ever published, all data is about the time before the phase."""
    world = World(compared(), ranges={"load": RANGE})
    world.run(20)
    assert (world.status.current.stage, baseline(world)) == (Stage.STEP, "1.0")


@pytest.mark.parametrize("how", ["retry", "edit", "retry after abort"])
def test_baseline_after_a_rollback_waits_for_data_without_the_feature(how: str) -> None:
    """The query still covers the time in which users had it: the regression would be the norm of the next attempt."""
    world = World(compared(), ranges={"load": RANGE})
    if how == "retry after abort":
        world.until(at("one", 1))
        world.values["load"] = Decimal(50)
        world.request("Abort")
        world.until(ended)
    else:
        rolled_back(world)
    back = world.entries(EventReason.ABORTED if "abort" in how else EventReason.ROLLED_BACK)[-1].time
    world.run(30)
    world.edit(compared(guards=[])) if how == "edit" else world.request("Retry", generation=1)
    world.run(600)
    assert (world.status.current.stage, world.reason) == (Stage.BASELINE, DecisionReason.MEASURING_BASELINE)
    world.values["load"] = Decimal(2)
    world.until(at("one", 1))
    assert world.now - back >= PROPAGATION + RANGE
    assert baseline(world) == "2"


def test_baseline_of_a_later_phase_waits_for_the_last_step_of_the_earlier_one() -> None:
    """Its query may be longer than the hold: it must not mix the audiences of the other phase."""
    world = World(edited(lambda data: data["phases"][0].pop("criteria")), ranges={"load": RANGE})
    world.until(at("one", 3))
    last = world.now
    world.until(lambda world: world.where[0] == "two")
    assert world.now - last < RANGE
    world.until(at("two", 1))
    assert world.now - last >= RANGE


def test_baseline_waits_for_an_emergency_of_an_earlier_phase() -> None:
    """What users have changes while it is measured: a value from before is of another time."""
    windows = [{"days": ["Tue"], "from": "10:00", "to": "16:00"}]
    world = World(spec())
    world.until(at("two", 1))
    world.request("Abort")
    world.until(ended)
    world.edit(with_another_plan(windows=windows))
    world.until(lambda world: world.reason is DecisionReason.AWAITING_WINDOW)
    assert baseline(world) == "1.0"
    world.ranges = {"load": RANGE}
    world.request("EmergencyDisable", features=["alpha"])
    world.run(600)
    assert world.reason is DecisionReason.MEASURING_BASELINE
    world.values["load"] = Decimal(3)
    world.run(600)
    assert baseline(world) == "3"


def test_new_phase_alone_does_not_delay_its_baseline() -> None:
    """A document that names another phase or generation, and gives the same, changes nothing for users."""
    gate = [{"name": "signed", "approval": {}}]
    world = World(edited(lambda data: data["phases"][0].update(verification=gate)), ranges={"load": timedelta(minutes=1)})
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    world.run(300)
    world.request("Approve", generation=1, check="signed")
    world.run(20)
    assert world.where[0] == "two"
    assert world.status.current.stage is Stage.STEP


def test_no_baseline_is_measured_while_users_have_the_phase() -> None:
    """After `Adopt` nobody knows the time before: the feature compared with itself passes whatever it does."""
    world = World(spec())
    world.until(at("one", 1))
    world.values["load"] = Decimal(50)
    fresh = recreated(world)
    fresh.values = world.values
    fresh.run(10)
    fresh.request("Adopt")
    fresh.run(600)
    assert fresh.where[:2] == ("one", 1)
    assert fresh.check(CheckKind.CRITERION, "load").reason is CheckReason.BASELINE_MISSING
    assert fresh.reason is DecisionReason.AWAITING_EVIDENCE
    fresh.request("Abort")
    fresh.until(ended)
    fresh.values["load"] = Decimal(1)
    fresh.request("Retry", generation=1)
    fresh.until(ended)
    assert fresh.status.outcome is Outcome.PROMOTED


def test_raised_step_keeps_the_baseline_from_before_the_phase() -> None:
    """An edit that publishes more of a running phase measures nothing again: users have it already."""
    world = World(spec())
    world.until(at("one", 1))
    world.edit(edited(lambda data: data["phases"][0]["steps"][0].update(percent=20)))
    world.run(10)
    world.values["load"] = Decimal(50)
    world.run(600)
    assert world.where == ("one", 1, 0, "20")
    record = world.check(CheckKind.CRITERION, "load")
    assert (record.baseline, record.reason) == ("1.0", CheckReason.OUT_OF_TOLERANCE)


def test_retry_of_a_step_keeps_the_baseline_from_before_the_phase() -> None:
    """With `scope: Step` users keep the step before, so it cannot be measured again."""
    world = World(spec(rollback={"scope": "Step"}))
    world.until(at("one", 2, 1))
    world.values |= {"load": Decimal("1.05"), "errors": Decimal("0.08")}
    world.until(ended)
    assert world.percents()["one"] == "10"
    world.values["errors"] = Decimal("0.001")
    world.request("Retry", generation=1)
    world.until(at("one", 2, 1))
    assert baseline(world) == "1.0"
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


# --- another query is another metric


def changed_metric(change: str, **others: Any) -> RolloutSpec:
    """The usual rollout with another definition of `load`."""
    fields = {"query": {"query": "other_load"}, "window": {"window": "5m"}, "provider": {}}[change]

    def edit(data: dict[str, Any]) -> None:
        data["metrics"][1].update(fields)
        if change == "provider":
            data["prometheus"] = "elsewhere"

    return edited(edit, **others)


@pytest.mark.parametrize("change", ["query", "window", "provider"])
def test_baseline_of_another_query_does_not_count(change: str) -> None:
    """A replaced query was never measured before the phase, and waits as a criterion does that is added in a running step."""
    world = World(spec())
    world.until(at("one", 1))
    world.edit(changed_metric(change))
    world.values["load"] = Decimal("0.05")
    world.run(600)
    record = world.check(CheckKind.CRITERION, "load")
    assert (world.where[:2], record.baseline, record.reason) == (("one", 1), None, CheckReason.BASELINE_MISSING)


@pytest.mark.parametrize("field", ["name", "interval", "bake"])
def test_baseline_of_the_same_query_counts(field: str) -> None:
    """Any other edit keeps it, also one that gives the metric another name."""

    def edit(data: dict[str, Any]) -> None:
        if field == "name":
            data["metrics"][1]["name"] = "burden"
            for check in (data["phases"][0]["criteria"][1], data["phases"][1]["criteria"][0]):
                check["metric"] = "burden"
        if field == "interval":
            data["metrics"][1]["interval"] = "20s"

    world = World(spec())
    world.values["burden"] = Decimal(1)
    world.until(at("one", 1))
    world.edit(edited(edit, bake="10s"))
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_query_that_is_edited_while_its_baseline_is_measured() -> None:
    """Before the first publish it is simply measured again."""
    windows = [{"days": ["Tue"], "from": "10:00", "to": "16:00"}]
    world = World(spec(windows=windows))
    world.until(lambda world: world.reason is DecisionReason.AWAITING_WINDOW)
    world.values["load"] = Decimal(7)
    world.edit(changed_metric("query", windows=windows))
    world.run(20)
    assert baseline(world) == "7"


def test_verdict_of_another_query_does_not_count() -> None:
    """A guard starts again with the new query: neither its pass nor its breach was measured there."""
    guard = {"name": "load", "metric": "load", "below": "5", "for": "60s"}
    world = World(spec(guards=[guard]))
    world.until(at("one", 1))
    world.values["load"] = Decimal(9)
    world.run(50)
    world.answering = False
    world.edit(changed_metric("query", guards=[guard]))
    world.run(20)
    record = world.check(CheckKind.GUARD, "load")
    assert (record.verdict, record.failing_time) == (Verdict.NOT_EVALUATED, None)
    world.answering = True
    world.run(50)
    assert (world.check(CheckKind.GUARD, "load").verdict, world.status.outcome) == (Verdict.FAIL, None)
    world.run(20)
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_baseline_waits_for_the_end_of_an_incident_that_an_abort_came_after() -> None:
    """Whoever is in a hurry aborts and retries: what the guard has seen is still in the data."""
    guard = {"name": "errors", "metric": "errors", "below": "5%", "for": "10h"}
    world = World(spec(guards=[guard]), ranges={"errors": RANGE, "load": RANGE})
    world.values |= {"errors": Decimal("0.2"), "load": Decimal(10)}
    world.run(600)
    world.values |= {"errors": Decimal("0.001"), "load": Decimal("1.0")}
    world.run(60)
    world.request("Abort")
    world.run(20)
    world.request("Retry", generation=1)
    world.run(300)
    assert (world.reason, world.percents()["one"]) == (DecisionReason.MEASURING_BASELINE, "0")
    world.until(at("one", 1))
    assert world.check(CheckKind.CRITERION, "load").baseline == "1.0"
