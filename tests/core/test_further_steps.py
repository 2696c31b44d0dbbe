"""Edits that add steps to a phase that is complete.

Not here: edits of the running phase (test_edits).
"""

from decimal import Decimal
from typing import Any

import pytest

from core.world import World, at, edited, ended, spec
from session_rollout.api.enums import DecisionReason, Outcome, Stage, State
from session_rollout.core.documents import read_document
from session_rollout.core.flags import Audience


def extended(data: dict[str, Any]) -> None:
    """Phase two ends at 80% instead of 50%."""
    half(data)
    data["phases"][1]["steps"] = [{"percent": 50, "hold": "60s"}, {"percent": 80, "hold": "60s"}]


def half(data: dict[str, Any]) -> None:
    """Phase two ends at 50%, and nothing is compared to a baseline, which can be measured only before it."""
    data["phases"][1]["criteria"] = []
    data["phases"][1]["steps"] = [{"percent": 50, "hold": "60s"}]


@pytest.mark.parametrize("stage", [Stage.BAKE, Stage.ENDED])
def test_complete_phase_continues_with_further_steps(stage: Stage) -> None:
    """D12: users keep what they have, and what they get is held and guarded like every other audience."""
    world = World(edited(half, bake="600s"))
    world.until(lambda world: world.status.current.stage is stage, seconds=7200)
    documents = len(world.documents)
    world.edit(edited(extended, bake="600s"))
    world.until(at("two", 1))
    assert {read_document(text).audiences["gamma"] for text in world.documents[documents:]} <= {Audience(Decimal(50))}
    world.until(at("two", 2))
    assert world.percents() == {"one": "100", "two": "80"}
    world.values["errors"] = Decimal("0.08")
    world.until(ended)
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert world.percents() == {"one": "100", "two": "0"}


@pytest.mark.parametrize(("percent", "stalls"), [(5, True), (40, False)])
def test_phase_that_a_rollback_left_published_never_begins_with_less(percent: int, *, stalls: bool) -> None:
    """D12: its first audience is the first one of the new spec that takes nothing away."""
    world = World(spec(rollback={"scope": "Step"}))
    world.until(at("one", 2, 1))
    world.request("Abort")
    world.until(ended)
    assert world.percents()["one"] == "10"
    steps = [{"percent": 5, "groups": ["staff"], "hold": "60s"}, {"percent": percent, "groups": ["staff"], "hold": "60s"}]
    world.edit(edited(lambda data: data["phases"][0].update(steps=steps), rollback={"scope": "Step"}))
    world.run(60)
    assert (world.reason is DecisionReason.INVALID_SPEC) is stalls
    assert world.percents()["one"] == ("10" if stalls else "40")


def test_complete_phase_that_a_later_one_follows_keeps_its_last_audience() -> None:
    """D12: it stalls, guards still act, and the earlier spec continues."""
    world = World(edited(lambda data: data["phases"][0]["steps"].pop()))
    world.until(at("two", 1))
    world.edit(spec())
    world.run(60)
    assert (world.status.state, world.reason) == (State.STALLED, DecisionReason.INVALID_SPEC)
    assert world.percents() == {"one": "50", "two": "50"}
    world.edit(edited(lambda data: data["phases"][0]["steps"].pop()))
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED
    world.edit(spec())
    world.run(60)
    assert world.reason is DecisionReason.INVALID_SPEC
