"""An emergency of a phase and its audience: none grows while the emergency lasts, and none that was decided before it is published after it."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.world import World, at, edited, ended, spec
from session_rollout.api.enums import DecisionReason, EventReason, Outcome, Stage

FEATURES = ["alpha", "beta", "gamma"]
CRITERIA = [{"name": "errors", "metric": "errors", "below": "5%"}]
SEASONED = [{"name": "load", "metric": "load", "comparedTo": "Baseline", "maxIncrease": "10%"}]


def rollout(criteria: list[dict[str, Any]] = CRITERIA, first: dict[str, Any] | None = None) -> Any:
    """One phase with all features, in three steps."""
    steps = [{"percent": 10, "hold": "60s", **(first or {})}, {"percent": 50, "hold": "60s"}, {"percent": 100, "hold": "60s"}]
    return spec(guards=[], phases=[{"name": "one", "features": FEATURES, "steps": steps, "criteria": criteria}])


def percents(world: World) -> set[Decimal]:
    """The percentages that the document gives."""
    assert world.document is not None
    return {audience.percent for audience in world.document.audiences.values() if audience is not None}


def decide_raise(world: World, *, crash: bool) -> None:
    """An audience of 50% is decided and not published: its write is refused, or the process ends before it."""
    world.until(lambda world: world.reason is DecisionReason.AWAITING_APPROVAL)
    world.request("Approve", generation=1, phase="one", step=1)
    world.publishing = crash
    world.reconcile(crash_before_effects=crash)
    assert world.where[3] == "50"
    assert percents(world) == {10}


@pytest.mark.parametrize("crash", [True, False], ids=["crash", "refused"])
@pytest.mark.parametrize("names", [["alpha"], []], ids=["one", "all"])
@pytest.mark.parametrize("seconds", [5, 600])
@pytest.mark.parametrize("paused", [True, False], ids=["paused", "running"])
def test_end_of_an_emergency_publishes_no_audience_from_before_it(
    paused: bool, seconds: float, names: list[str], crash: bool
) -> None:
    """What let the audience grow is from before the emergency, and who approved it did not know of it: it is held and approved again."""
    world = World(rollout(first={"approval": "Required"}))
    decide_raise(world, crash=crash)
    world.now += timedelta(seconds=1)
    world.request("EmergencyDisable", features=names)
    if paused:
        world.request("Pause")
    world.reconcile()
    world.publishing = True
    world.run(seconds, tick=5)
    world.request("EmergencyEnable", features=names)
    world.settle()
    if paused:
        world.request("Resume")
    world.run(60)
    assert percents(world) == {10}
    assert world.where == ("one", 1, 0, "10")
    world.run(100)
    assert world.reason is DecisionReason.AWAITING_APPROVAL


def test_audience_does_not_grow_while_a_feature_of_its_phase_is_off() -> None:
    """It was decided and not published when the emergency began: users of the other features keep what they have."""
    world = World(rollout(first={"approval": "Required"}))
    decide_raise(world, crash=False)
    world.now += timedelta(seconds=3)
    world.request("EmergencyDisable", features=["alpha"])
    world.publishing = True
    world.run(60)
    assert world.document is not None
    assert world.document.audiences["gamma"] is not None
    assert world.document.audiences["gamma"].percent == 10
    assert world.reason is DecisionReason.FEATURE_DISABLED
    assert [entry.percent for entry in world.entries(EventReason.AUDIENCE_LAPSED)] == ["50"]


def test_first_audience_waits_for_the_end_of_an_emergency() -> None:
    """Its baselines are those of the decision that publishes it, and not of the incident because of which everything was turned off."""
    world = World(rollout(SEASONED))
    world.values["load"] = Decimal("2.0")
    world.request("EmergencyDisable")
    world.run(60)
    assert (world.status.current.stage, world.reason) == (Stage.BASELINE, DecisionReason.FEATURE_DISABLED)
    world.values["load"] = Decimal("1.0")
    world.run(3600, tick=600)
    world.request("EmergencyEnable")
    world.until(at("one", 1))
    world.values["load"] = Decimal("1.9")  # with the feature, the load nearly doubles
    world.run(1200)
    assert (world.where, world.reason) == (("one", 1, 0, "10"), DecisionReason.CRITERIA_NOT_MET)


@pytest.mark.parametrize("names", [["alpha"], []], ids=["one", "all"])
def test_first_audience_that_was_decided_before_an_emergency_is_decided_again(names: list[str]) -> None:
    """It was not published when the emergency began; after it, the baselines are measured again."""
    world = World(rollout(SEASONED))
    world.values["load"] = Decimal("2.0")
    world.refuse_first_publish()
    world.now += timedelta(seconds=1)
    world.request("EmergencyDisable", features=names)
    world.settle()
    world.publishing = True
    world.values["load"] = Decimal("1.0")
    world.run(600)
    assert percents(world) == {0}
    world.request("EmergencyEnable")
    world.until(at("one", 1))
    world.values["load"] = Decimal("1.9")
    world.run(1200)
    assert world.where == ("one", 1, 0, "10")


def test_retry_during_an_emergency_publishes_nothing_before_its_end() -> None:
    """Turn it off, abort, retry in the evening, turn it on days later: the baseline is not that of the evening."""
    world = World(rollout(SEASONED))
    world.until(at("one", 1))
    world.request("EmergencyDisable")
    world.run(20)
    world.request("Abort")
    world.until(ended)
    world.values["load"] = Decimal("2.0")
    world.request("Retry", generation=1)
    world.run(60)
    world.values["load"] = Decimal("1.0")
    world.run(3 * 86400, tick=3600)
    world.request("EmergencyEnable")
    world.until(at("one", 1))
    world.values["load"] = Decimal("1.9")
    world.run(1200)
    assert world.status.outcome is not Outcome.PROMOTED
    assert world.where == ("one", 1, 0, "10")


def test_emergency_of_another_phase_keeps_no_audience_from_growing() -> None:
    """Only the features of the running phase count."""
    world = World(edited(lambda data: data.update(guards=[])))
    world.until(at("one", 1))
    world.request("EmergencyDisable", features=["gamma"])
    world.until(at("one", 3))
