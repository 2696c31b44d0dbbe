"""Spec edits: what is kept, what is voided, and which edits cannot be carried out.

Covered: edits in every stage, conflicts with published audiences and the rule that recognizes each. Not here: approvals
that an edit voids (test_approvals).
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from core.collecting import migrated
from core.world import World, at, edited, ended, spec, with_another_plan
from session_rollout.api.enums import DecisionAction, DecisionReason, EventReason, Outcome, Stage, State, Verdict
from session_rollout.api.migration_enums import MigrationState
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core import generation
from session_rollout.core.steps import audience_text, percent_text

DELTA = {"name": "delta", "features": ["delta"], "steps": [{"percent": 100, "hold": "60s"}]}


def test_edit_keeps_the_audience_and_voids_verdicts() -> None:
    """Same place by name, a new hold, evidence of the new generation."""
    world = World(spec())
    world.until(at("one", 2, 2))
    world.run(40)
    world.edit(spec(bake="10s"))
    world.run(10)
    assert world.where == ("one", 2, 2, "50")
    assert len(world.entries(EventReason.SUPERSEDED)) == 1
    start = world.now
    world.until(at("one", 3))
    assert (world.now - start).total_seconds() >= 50


@dataclass(frozen=True)
class Conflict:
    """An edit that cannot be carried out in phase one, step 2, and the rule of `core.generation` that recognizes it."""

    change: Callable[[dict[str, Any]], Any]
    rule: str


def _add_to_phase_one(data: dict[str, Any]) -> None:
    data["phases"][0]["features"].append("gamma")
    data["phases"][1].update(features=["delta"])
    data["features"].append({"name": "delta"})


PUBLISHED, ORDER, STEP = "_published_conflict", "_order_conflict", "_audience_conflict"
CONFLICTS = {
    "fewer increments": Conflict(
        lambda data: data["phases"][0]["steps"].__setitem__(1, {"percent": 20, "groups": ["staff"], "hold": "60s"}), STEP
    ),
    "feature removed": Conflict(lambda data: data["phases"][0]["features"].remove("beta"), PUBLISHED),
    "feature added": Conflict(_add_to_phase_one, PUBLISHED),
    "phase removed": Conflict(lambda data: data["phases"].pop(0), PUBLISHED),
    "phase moved": Conflict(lambda data: data["phases"].reverse(), ORDER),
    "group removed": Conflict(lambda data: [step.pop("groups", None) for step in data["phases"][0]["steps"]], STEP),
    "lower percentage": Conflict(lambda data: data["phases"][0]["steps"][1]["ramp"].update(to=20), STEP),
}


@pytest.mark.parametrize("conflict", CONFLICTS.values(), ids=CONFLICTS)
def test_edit_that_cannot_be_carried_out_stalls(conflict: Conflict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published audiences stay; correcting the spec lets it continue; the rule is the one that is meant for it."""
    world = World(spec())
    world.until(at("one", 2, 1))
    before = world.percents()
    changed = edited(conflict.change)
    world.edit(changed)
    world.run(120)
    assert (world.status.decision.action, world.reason) == (DecisionAction.STALL, DecisionReason.INVALID_SPEC)
    assert len(world.status.decision.details) == 1
    assert world.condition("SpecValid") == "False"
    assert world.percents()["one"] == before["one"]
    with monkeypatch.context() as alone:
        for rule in {PUBLISHED, ORDER, STEP} - {conflict.rule}:
            alone.setattr(generation, rule, lambda *_: None)
        assert generation.conflict(changed, world.status) is not None
    world.edit(spec())
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_phase_before_a_completed_phase_is_a_conflict() -> None:
    """New phases come after the completed ones."""
    world = World(spec())
    world.until(at("two", 1))
    world.edit(edited(lambda data: (data["features"].append({"name": "delta"}), data["phases"].insert(0, DELTA))))
    world.run(20)
    assert (world.status.decision.action, world.reason) == (DecisionAction.STALL, DecisionReason.INVALID_SPEC)
    assert generation._order_conflict(world.spec, world.status) is not None


def test_edit_after_a_rollback_starts_the_phase_again() -> None:
    """A changed spec is another attempt."""
    world = World(spec())
    world.until(at("two", 1))
    world.values["errors"] = Decimal("0.08")
    world.until(ended)
    world.values["errors"] = Decimal("0.001")
    world.edit(with_another_plan())
    world.until(lambda world: world.status.outcome is Outcome.PROMOTED)


def steps_of_phase_one(*steps: dict[str, Any], **phase: Any) -> RolloutSpec:
    """The rollout with these steps in phase one."""
    return edited(lambda data: data["phases"][0].update(steps=list(steps), **phase))


def document_audience(world: World, feature: str) -> str:
    """Who has the feature by the document in the cluster."""
    assert world.document is not None
    audience = world.document.audiences[feature]
    assert audience is not None
    return audience_text(percent_text(audience.percent), audience.groups)


TEN, FIFTY = {"percent": 10, "hold": "60s"}, {"percent": 50, "hold": "60s"}
ALL = {"percent": 100, "hold": "60s"}


@pytest.mark.parametrize(
    ("raised", "audience"),
    [({"percent": 30, "hold": "60s"}, "30%"), ({"percent": 10, "groups": ["beta"], "hold": "60s"}, "10%+beta")],
)
def test_running_step_that_is_raised_is_published_and_held(raised: dict[str, Any], audience: str) -> None:
    """What is held and judged is what users have, and the guards are heard before they get more."""
    world = World(steps_of_phase_one(TEN, ALL))
    world.until(at("one", 1))
    world.run(40)
    announced = generation.raised_by_edit(steps_of_phase_one(raised, ALL), world.status)
    assert announced is not None
    assert announced.audience == audience
    world.edit(steps_of_phase_one(raised, ALL))
    world.until(lambda world: world.status.current.audience == audience and world.status.current.published_time is not None)
    assert document_audience(world, "alpha") == audience
    start = world.now
    world.until(at("one", 2))
    assert (world.now - start).total_seconds() >= 60
    passed = [entry.audience for entry in world.entries(EventReason.STEP_PASSED)]
    assert passed == [audience]


def test_running_step_is_not_raised_while_a_guard_fails() -> None:
    """An edit gives nobody more while a guard is in breach."""
    world = World(steps_of_phase_one(TEN, ALL))
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.08")
    world.edit(steps_of_phase_one(FIFTY, ALL))
    world.run(5)
    assert document_audience(world, "alpha") in {"10%", "0%"}
    world.until(ended)
    assert world.status.outcome is Outcome.ROLLED_BACK


@pytest.mark.parametrize("steps", [(ALL,), (FIFTY, ALL)], ids=["removed", "raised"])
def test_running_step_is_neither_raised_nor_removed_while_a_criterion_fails(steps: tuple[dict[str, Any], ...]) -> None:
    """Whoever may edit the spec skips the hold by that, and not what the users of the step have shown."""
    world = World(steps_of_phase_one(TEN, FIFTY, ALL))
    world.until(at("one", 1))
    world.values["load"] = Decimal(100)
    world.run(60)
    world.edit(steps_of_phase_one(*steps))
    world.run(600)
    assert (document_audience(world, "alpha"), world.reason) == ("10%", DecisionReason.CRITERIA_NOT_MET)
    world.values["load"] = Decimal(1)
    world.until(lambda world: world.status.current.stage is Stage.STEP)
    assert document_audience(world, "alpha") == ("50%" if len(steps) > 1 else "100%")


def test_step_before_the_running_one_that_is_deleted_skips_nothing() -> None:
    """The running step is the one with the published audience, whatever its number is, and its approval stays required."""
    needs_approval = {**FIFTY, "approval": "Required"}
    world = World(steps_of_phase_one(TEN, needs_approval, ALL))
    world.until(at("one", 2))
    world.edit(steps_of_phase_one(needs_approval, ALL))
    world.run(200)
    assert world.where == ("one", 1, 0, "50")
    assert world.reason is DecisionReason.AWAITING_APPROVAL
    assert document_audience(world, "alpha") == "50%"


def test_last_step_that_is_raised_after_it_was_complete_stalls() -> None:
    """A phase does not complete with less than its last step, and its baselines are gone: nothing could be judged."""
    gate = {"name": "checked", "approval": {}}
    world = World(steps_of_phase_one(TEN, verification=[gate]))
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    for steps in ([ALL], [TEN, ALL]):
        world.edit(steps_of_phase_one(*steps, verification=[gate]))
        world.run(20)
        assert (world.status.decision.action, world.reason) == (DecisionAction.STALL, DecisionReason.INVALID_SPEC)
        assert document_audience(world, "alpha") == "10%"
    world.edit(steps_of_phase_one(TEN, verification=[gate]))
    world.run(20)
    assert world.reason is DecisionReason.AWAITING_APPROVAL


@pytest.mark.parametrize("stage", [Stage.BASELINE, Stage.STEP, Stage.BAKE])
def test_migration_that_is_added_where_its_place_is_over_stalls(stage: Stage) -> None:
    """Before the first step it runs; later it never would, and the rollout would be promoted without it."""

    def change(data: dict[str, Any]) -> None:
        data.update(migrated())
        data["migrations"].pop()
        data["phases"][0]["migrations"] = {"before": ["rows"]}

    values: dict[str, Any] = {"errors": Decimal("0.001"), "load": Verdict.NO_DATA if stage is Stage.BASELINE else Decimal(1)}
    world = World(spec(bake="600s"), values=values)
    world.until(lambda world: world.status.current.stage is stage)
    world.edit(edited(change, bake="600s"))
    world.run(30)
    if stage is Stage.BASELINE:
        world.values["load"] = Decimal(1)
        world.until(at("one", 1))
        assert [record.state for record in world.status.migrations] == [MigrationState.SUCCEEDED]
        return
    assert (world.status.decision.action, world.reason) == (DecisionAction.STALL, DecisionReason.INVALID_SPEC)
    assert generation._migration_conflict(world.spec, world.status) is not None


@pytest.mark.parametrize("lost", ["object", "generation"])
def test_status_of_a_rollback_that_was_restored_starts_nothing(lost: str) -> None:
    """D6: a new object has a lower generation, and a status may have lost it; neither is an edit."""
    world = World(spec())
    world.edit(spec(bake="10s"))
    world.until(at("one", 1))
    world.request("Abort")
    world.until(ended)
    if lost == "object":
        world.generation = 1
    else:
        world.status = world.status.updated(observed_generation=0)
    world.run(300)
    assert document_audience(world, "alpha") == "0%"
    if lost == "object":
        assert world.status.outcome is Outcome.ABORTED
        world.edit(with_another_plan())
        world.until(at("one", 1))


def test_edit_while_rolling_back_waits_for_the_rollback() -> None:
    """First back, then the new generation."""
    world = World(spec())
    world.until(at("one", 1))
    world.publishing = False
    world.request("Abort")
    world.run(10)
    world.edit(spec(bake="10s"))
    world.run(10)
    assert world.status.observed_generation == 1
    world.publishing = True
    world.until(lambda world: world.status.observed_generation == 2)


def test_edit_after_promotion_adds_phases() -> None:
    """What is published stays; the new phase runs; an edit without a new phase changes nothing."""
    world = World(spec())
    world.until(ended)
    world.edit(spec(bake="10s"))
    world.run(30)
    assert world.status.outcome is Outcome.PROMOTED
    world.edit(edited(lambda data: (data["features"].append({"name": "delta"}), data["phases"].append(DELTA))))
    world.run(20)
    assert world.status.outcome is None
    assert world.status.current.phase == "delta"
    world.until(ended)


def test_phase_that_is_added_after_the_promotion_waits_for_guards_of_now() -> None:
    """D15: a verdict from before the promotion lets nobody have the features of a phase that is added long after it."""
    world = World(spec())
    world.until(ended)
    world.values["errors"] = Decimal("0.08")
    world.edit(edited(lambda data: (data["features"].append({"name": "delta"}), data["phases"].append(DELTA))))
    world.run(60)
    assert world.status.decision.reason is DecisionReason.GUARD_FAILING
    assert world.where == ("delta", 0, 0, "0")
    world.values["errors"] = Decimal("0.001")
    world.until(at("delta", 1))


def test_edit_before_the_first_publish_continues_with_the_new_spec() -> None:
    """Nothing was published: nothing can conflict."""
    world = World(spec(), values={"errors": Decimal("0.001"), "load": Verdict.NO_DATA})
    world.run(20)
    world.edit(spec(bake="10s"))
    world.values["load"] = Decimal(1)
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


@pytest.mark.parametrize("how", ["added", "replaced", "lowered"])
def test_edit_of_a_promoted_rollout_that_cannot_be_carried_out_stalls(how: str) -> None:
    """D12: and the right spec promotes it again."""

    def change(data: dict[str, Any]) -> None:
        if how == "lowered":
            data["phases"][1]["steps"] = [{"percent": 5, "hold": "60s"}]
            return
        data["features"].append({"name": "delta"})
        features = data["phases"][1]["features"]
        data["phases"][1]["features"] = [*features, "delta"] if how == "added" else ["delta"]
        if how == "replaced":
            data["features"] = [feature for feature in data["features"] if feature["name"] != "gamma"]

    world = World(spec())
    world.until(ended)
    world.edit(edited(change))
    world.run(60)
    assert (world.status.state, world.reason) == (State.STALLED, DecisionReason.INVALID_SPEC)
    assert world.condition("Ready") == "False"
    assert world.percents() == {"one": "100", "two": "100"}
    world.edit(spec(bake="10s"))
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


@pytest.mark.parametrize("steps", [{"ramp": {"to": "50", "over": "3m", "increments": 3}}, {"percent": "50", "hold": "1m"}])
def test_running_ramp_is_not_shortened_to_a_larger_audience(steps: dict[str, Any]) -> None:
    """An edit of the pace must not raise the audience while a criterion fails."""
    world = World(spec())
    world.until(at("one", 2, 1))
    world.values["errors"] = Decimal("0.02")
    before = world.percents()["one"]
    world.edit(edited(lambda data: data["phases"][0]["steps"].__setitem__(1, steps)))
    world.run(600)
    assert (world.percents()["one"], world.reason) == (before, DecisionReason.INVALID_SPEC)


def test_feature_in_two_rollouts_is_said() -> None:
    """D19: which one an application gets depends on the flag set it reads."""
    world = World(spec())
    world.other_rollouts = {"alpha": "other"}
    world.run(60)
    assert len(world.entries(EventReason.FEATURE_SHARED)) == 1
