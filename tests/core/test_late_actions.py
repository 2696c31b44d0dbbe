"""Actions that are delivered late: the watch missed them, and the sweep finds them. They undo nothing that is newer.

Not here: a late `EmergencyEnable` (test_emergency, test_kills_by_hand).
"""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import pytest

from core.world import World, at, edited, ended, spec
from session_rollout.api.enums import ActionReason, DecisionReason, Outcome

GUARDS: Final = [{"name": "errors", "metric": "errors", "below": "5%"}]


def _breach(world: World) -> None:
    world.values["errors"] = Decimal("0.5")
    world.run(20)
    world.values["errors"] = Decimal("0.001")
    world.run(20)


def _pause(world: World) -> None:
    world.request("Pause")
    world.run(10)


def _emergency(world: World) -> None:
    world.request("EmergencyDisable", features=["alpha"])
    world.run(10)
    world.request("EmergencyEnable")
    world.run(120)


def late(world: World, action: str, event: Callable[[World], None], **fields: Any) -> str:
    """The action is created, then something happens, and only then it is delivered; its name."""
    created = world.now
    world.now += timedelta(seconds=5)
    event(world)
    name = world.request(action, "late", after=created - world.now, **fields)
    world.run(60)
    return name


@pytest.mark.parametrize("by", ["action", "guard"])
def test_resume_from_before_a_pause_does_not_end_it(by: str) -> None:
    """Whoever resumed an earlier pause did not know of this one."""
    world = World(spec(guards=[{**GUARDS[0], "onBreach": "Pause"}]))
    world.until(at("one", 1))
    name = late(world, "Resume", _pause if by == "action" else _breach)
    assert world.answer(name) == (False, ActionReason.EXPIRED)
    assert world.reason is DecisionReason.PAUSED
    world.request("Resume")
    world.until(at("one", 3))


def test_retry_from_before_a_rollback_does_not_start_again() -> None:
    """It was meant for the attempt before, which another one has started already."""
    world = World(spec(guards=GUARDS))
    world.until(at("one", 1))
    _breach(world)
    world.request("Retry", generation=1)
    world.until(at("one", 1))
    name = late(world, "Retry", _breach, generation=1)
    assert world.answer(name) == (False, ActionReason.EXPIRED)
    assert world.status.outcome is Outcome.ROLLED_BACK
    world.request("Retry", generation=1)
    world.until(at("one", 1))


def test_approval_from_before_an_emergency_is_none() -> None:
    """Its author had not seen what turned the feature off."""
    world = World(edited(lambda data: data["phases"][0]["steps"][0].update(approval="Required")))
    world.until(lambda world: world.reason is DecisionReason.AWAITING_APPROVAL)
    name = late(world, "Approve", _emergency, generation=1, phase="one", step=1)
    assert world.answer(name) == (False, ActionReason.EXPIRED)
    assert (world.where[:2], world.reason) == (("one", 1), DecisionReason.AWAITING_APPROVAL)
    world.request("Approve", generation=1, phase="one", step=1)
    world.until(ended)


def test_promote_from_before_an_emergency_is_none() -> None:
    """Within the five minutes in which it would be valid."""
    world = World(spec())
    world.until(at("one", 1))
    world.values["load"] = Decimal(100)
    name = late(world, "Promote", _emergency, generation=1, phase="one", step=1)
    assert world.answer(name) == (False, ActionReason.EXPIRED)
    assert world.where[:2] == ("one", 1)
