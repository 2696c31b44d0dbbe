"""What keeps the first publish of a phase back: guards that fail, also in a gap, and baselines of the last moment before it.

Not here: a guard that fails before anything was published (test_guards), and what a baseline covers (test_baselines).
"""

from decimal import Decimal
from typing import Any

import pytest

from core.collecting import SIGNED, verified
from core.world import World, at, ended, rollout_data, spec
from session_rollout.api.enums import CheckKind, CheckReason, DecisionReason, Outcome, Stage, Verdict
from session_rollout.api.rollout import RolloutSpec

FOR_LONG = {"name": "errors", "metric": "errors", "below": "5%", "for": "10m"}


def signed(guard: dict[str, Any], *others: dict[str, Any], **changes: Any) -> RolloutSpec:
    """Phase two begins when somebody approves phase one, which everybody has."""
    data = rollout_data(guards=[guard, *others], **changes)
    verified(SIGNED)(data)
    for phase in data["phases"]:
        phase["criteria"] = []
    return RolloutSpec.model_validate(data)


def before_two(plan: RolloutSpec) -> World:
    """Everybody has phase one, and phase two has not begun."""
    world = World(plan)
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    world.run(60)
    return world


def begin_two(world: World, seconds: float = 60) -> None:
    """Phase two reaches its baseline."""
    world.request("Approve", generation=1, check="signed")
    world.run(seconds)
    assert world.where[0] == "two"


@pytest.mark.parametrize("gap", [Verdict.NO_DATA, Verdict.INCONCLUSIVE, Verdict.PROVIDER_ERROR])
def test_first_publish_waits_for_the_end_of_a_failure_that_is_in_a_gap(gap: Verdict) -> None:
    """D15: a gap does not end a failure, so that its last minute may be this one."""
    world = before_two(signed(FOR_LONG))
    world.values["errors"] = Decimal("0.9")
    world.run(540)
    world.values["errors"] = gap
    begin_two(world, 600)
    assert (world.reason, world.percents()["two"]) == (DecisionReason.GUARD_FAILING, "0")
    world.values["errors"] = Decimal("0.9")
    world.until(ended, seconds=120)
    assert (world.status.outcome, world.percents()["one"]) == (Outcome.ROLLED_BACK, "0")


def test_first_publish_follows_when_a_guard_in_a_gap_passes() -> None:
    """A failure that was shorter than `for` ends with the next pass."""
    world = before_two(signed(FOR_LONG))
    world.values["errors"] = Decimal("0.9")
    world.run(60)
    world.values["errors"] = Verdict.NO_DATA
    begin_two(world)
    assert world.reason is DecisionReason.GUARD_FAILING
    world.values["errors"] = Decimal("0.001")
    world.until(at("two", 1), seconds=60)


def test_promote_grows_no_audience_in_the_gap_of_a_failure() -> None:
    """An action skips the evidence of a step, but not a guard that has failed and not passed since."""
    world = World(spec(guards=[FOR_LONG]))
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.9")
    world.run(30)
    world.values["errors"] = Verdict.NO_DATA
    world.request("Promote", generation=1, phase="one", step=1)
    world.run(120)
    assert (world.where[:2], world.reason) == (("one", 1), DecisionReason.GUARD_FAILING)


@pytest.mark.parametrize("again", [False, True], ids=["first publish", "retry"])
def test_first_publish_waits_for_a_guard_that_was_measured_in_part(*, again: bool) -> None:
    """A partial answer may hide any value, and does not become whole by the first users."""
    world = World(spec(guards=[FOR_LONG]))
    if again:
        world.until(at("one", 1))
        world.values["errors"] = Decimal("0.9")
        world.until(ended)
        world.request("Retry", generation=1)
    world.values["errors"] = Verdict.INCONCLUSIVE
    world.run(600)
    assert (world.reason, world.percents()["one"]) == (DecisionReason.AWAITING_EVIDENCE, "0")
    world.values["errors"] = Decimal("0.001")
    world.until(at("one", 1))


def test_first_publish_does_not_wait_for_events() -> None:
    """A guard with `minimum` may get its events with the first users, as one without data may get data."""
    data = rollout_data(guards=[{**FOR_LONG, "minimum": {"metric": "requests", "above": "20"}}])
    data["metrics"].append({"name": "requests", "query": "requests"})
    world = World(RolloutSpec.model_validate(data))
    world.values["requests"] = Decimal(0)
    world.until(at("one", 1), seconds=60)
    assert world.check(CheckKind.GUARD, "errors").reason is CheckReason.BELOW_MINIMUM
