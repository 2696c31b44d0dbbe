"""Approvals of steps: what is awaited, what an action must name, and what an edit does to them.

Not here: approvals of gates (test_gates).
"""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.world import World, at, edited, ended, spec
from session_rollout.api.enums import ActionReason, DecisionReason, EventReason, Outcome
from session_rollout.api.status import AwaitedApproval

AWAITED = AwaitedApproval(phase="two", step=1)


def with_approval(data: dict[str, Any]) -> None:
    """The first step of phase two requires approval."""
    data["phases"][1]["steps"][0]["approval"] = "Required"


def test_step_waits_for_its_approval() -> None:
    """Bound to generation, phase and step; recorded once."""
    world = World(edited(with_approval))
    world.until(at("two", 1))
    world.run(300)
    assert world.reason is DecisionReason.AWAITING_APPROVAL
    assert world.status.decision.approvals == (AWAITED,)
    [needed] = world.entries(EventReason.APPROVAL_NEEDED)
    assert (needed.phase, needed.step) == ("two", 1)
    refused = {
        world.request("Approve", generation=2, phase="two", step=1): ActionReason.OTHER_GENERATION,
        world.request("Approve", generation=1, phase="two", step=2): ActionReason.OTHER_STEP,
        world.request("Approve", generation=1, phase="one", step=1): ActionReason.OTHER_STEP,
    }
    world.run(10)
    assert {name: world.answer(name) for name in refused} == {name: (False, reason) for name, reason in refused.items()}
    world.request("Approve", generation=1, phase="two", step=1)
    world.until(at("two", 2))
    assert not world.status.decision.approvals
    needless = world.request("Approve", generation=1, phase="two", step=2)
    world.run(10)
    assert world.answer(needless) == (False, ActionReason.NO_APPROVAL_NEEDED)


def in_hold(world: World) -> bool:
    """The hold of the step that requires approval has begun."""
    return at("two", 1)(world) and world.status.current.hold_until is not None


def test_approval_can_come_early() -> None:
    """An approval during the hold counts at its end."""
    world = World(edited(with_approval))
    world.until(in_hold)
    name = world.request("Approve", generation=1, phase="two", step=1)
    world.run(10)
    assert world.status.current.approved_by == name
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED
    assert world.entries(EventReason.APPROVAL_NEEDED) == []


def test_second_answer_to_one_question_does_not_approve_the_next_step() -> None:
    """Whoever sends it has seen nothing of that step: its hold has not begun."""
    steps = [{"percent": percent, "hold": "60s", "approval": "Required"} for percent in (5, 50)]
    world = World(
        edited(lambda data: data["phases"][0].update(steps=[*steps, {"percent": 100, "hold": "60s"}])),
        ranges={"errors": timedelta(seconds=60)},
    )
    world.until(lambda world: world.reason is DecisionReason.AWAITING_APPROVAL)
    world.request("Approve", generation=1, phase="one", step=1)
    world.until(at("one", 2))
    second = world.request("Approve", generation=1, phase="one", step=2)
    world.run(600)
    assert world.answer(second) == (False, ActionReason.NOT_PUBLISHED)
    assert (world.where[:2], world.reason) == (("one", 2), DecisionReason.AWAITING_APPROVAL)


def test_ramp_is_approved_at_its_end() -> None:
    """Whoever approves an earlier increment has seen nothing of the last one; a response that comes too soon is none."""
    ramp = {"ramp": {"to": 90, "over": "3m", "increments": 3}, "approval": "Required"}
    data = {"steps": [ramp, {"percent": 100, "hold": "60s"}]}
    world = World(edited(lambda spec: spec["phases"][0].update(data)))
    world.until(lambda world: at("one", 1, 1)(world) and world.status.current.hold_until is not None)
    early = world.request("Approve", generation=1, phase="one", step=1)
    world.until(lambda world: world.reason is DecisionReason.AWAITING_APPROVAL)
    assert world.answer(early) == (False, ActionReason.NOT_PUBLISHED)
    assert world.where == ("one", 1, 3, "90")
    world.run(600)
    world.request("Approve", generation=1, phase="one", step=1)
    world.until(at("one", 2))


def test_edit_voids_an_approval() -> None:
    """An approval of generation 1 is none of generation 2."""
    world = World(edited(with_approval))
    world.until(in_hold)
    world.request("Approve", generation=1, phase="two", step=1)
    world.run(10)
    world.edit(edited(with_approval, bake="10s"))
    world.run(600)
    assert world.where[:2] == ("two", 1)
    assert world.status.current.approved_by is None
    assert (world.reason, world.status.decision.approvals) == (DecisionReason.AWAITING_APPROVAL, (AWAITED,))


@pytest.mark.parametrize("cause", ["emergency", "guard"])
def test_approval_from_before_an_incident_is_void(cause: str) -> None:
    """Whoever gave it did not know of the emergency, or of the breach that paused the rollout."""
    world = World(edited(with_approval, guards=[{"name": "errors", "metric": "errors", "below": "5%", "onBreach": "Pause"}]))
    world.until(in_hold)
    world.request("Approve", generation=1, phase="two", step=1)
    world.run(10)
    if cause == "emergency":
        world.request("EmergencyDisable", reason="drill")
        world.run(10)
        world.request("EmergencyEnable", reason="drill")
    else:
        world.values["errors"] = Decimal("0.5")
        world.run(60)
        world.values["errors"] = Decimal("0.01")
        world.request("Resume")
    world.run(900)
    assert world.status.current.approved_by is None
    assert (world.where[:2], world.reason) == (("two", 1), DecisionReason.AWAITING_APPROVAL)


def test_approval_of_a_step_that_the_spec_has_no_more_is_rejected() -> None:
    """D8: and nothing else of the decision is lost, such as a breach."""
    world = World(spec())
    world.until(at("two", 2))
    world.edit(edited(lambda data: data["phases"][1]["steps"].pop()))
    name = world.request("Approve", generation=2, phase="two", step=2)
    world.values["errors"] = Decimal("0.08")
    world.run(10)
    assert world.answer(name) == (False, ActionReason.STALLED)
    world.until(ended)
    assert world.status.outcome is Outcome.ROLLED_BACK
