"""Features that are taken out of the plan, or join it: what users have stays, and stays guarded (D20)."""

import json
from decimal import Decimal
from typing import Any

import pytest

from core.document_scenarios import recreated
from core.world import World, at, edited, ended, spec
from session_rollout.api.enums import DecisionReason, Outcome
from session_rollout.core.flags import NOBODY


def without_gamma(data: dict[str, Any]) -> None:
    """Phase two and its feature have left the plan."""
    data["phases"] = data["phases"][:1]
    data["features"][2]["retired"] = True


def test_retired_feature_keeps_its_users_and_leaves_the_plan() -> None:
    """D20: its phase goes, and later the feature."""
    world = World(spec())
    world.until(ended)
    before = world.flag("gamma")
    world.edit(edited(without_gamma))
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED
    assert world.flag("gamma") == before
    assert [(kept.feature, kept.percent) for kept in world.status.flags.retired] == [("gamma", "100")]
    assert [record.name for record in world.status.phases] == ["one"]

    def gone(data: dict[str, Any]) -> None:
        without_gamma(data)
        data["features"] = data["features"][:2]

    world.edit(edited(gone))
    world.run(60)
    assert (world.status.outcome, world.status.flags.retired) == (Outcome.PROMOTED, ())
    assert "gamma" not in json.loads(world.documents[-1])["flags"]


def test_only_a_completed_phase_can_be_retired() -> None:
    """D20: users would keep an audience that nobody guards."""
    world = World(spec())
    world.until(at("two", 1))
    world.edit(edited(without_gamma))
    world.run(60)
    assert world.reason is DecisionReason.INVALID_SPEC
    assert world.percents()["two"] == "50"


def test_feature_that_was_not_promoted_cannot_be_retired() -> None:
    """D20: its phase is complete, and guards still protect it."""
    world = World(spec())
    world.until(at("two", 1))

    def change(data: dict[str, Any]) -> None:
        data["phases"] = data["phases"][1:]
        data["features"][0]["retired"] = data["features"][1]["retired"] = True

    world.edit(edited(change))
    world.run(60)
    assert world.reason is DecisionReason.INVALID_SPEC
    world.values["errors"] = Decimal("0.9")
    world.run(600)
    assert world.percents() == {"one": "0", "two": "0"}


@pytest.mark.parametrize("left", ["by a rollback of one step", "after Adopt"])
def test_feature_is_not_added_to_a_phase_that_users_have(left: str) -> None:
    """It would get the audience of the phase at once, without its steps."""
    world = World(spec(rollback={"scope": "Step"}, preflight=[{"name": "signed", "approval": {}}]))
    world.run(10)
    world.request("Approve", generation=1, check="signed")
    world.until(at("one", 2, 1))
    if left == "after Adopt":
        world = recreated(world)
        world.run(10)
        world.request("Adopt")
    else:
        world.request("Abort")
    world.run(60)
    assert "fresh" not in (world.document.audiences if world.document is not None else {})

    def change(data: dict[str, Any]) -> None:
        data["features"].append({"name": "fresh"})
        data["phases"][0]["features"].append("fresh")

    world.edit(edited(change, rollback={"scope": "Step"}, preflight=[{"name": "signed", "approval": {}}]))
    world.run(60)
    assert world.reason is DecisionReason.INVALID_SPEC
    assert world.document is not None
    assert world.document.audiences.get("fresh", NOBODY) == NOBODY


def test_retired_feature_comes_back_only_in_a_new_name() -> None:
    """D20: a phase from 0 % would take it away."""
    world = World(spec())
    world.until(ended)
    world.edit(edited(without_gamma))
    world.until(ended)
    world.edit(spec())
    world.run(60)
    assert world.reason is DecisionReason.INVALID_SPEC
    assert "fractional" not in json.dumps(world.flag("gamma"))
