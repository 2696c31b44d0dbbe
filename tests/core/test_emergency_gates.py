"""Emergencies and the end of things: a bake, a verification, a phase and a step end with features that users have.

Covered: the bake, verification gates of each kind, migrations after a phase, a `Promote` that waits, a step that waits for its
approval. Not here: the hold timer of a step, and what else an emergency does (test_emergency).
"""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.collecting import migrated, verified
from core.world import World, at, edited, ended, rollout_data, spec
from session_rollout.api.enums import ActionReason, CheckKind, CheckReason, DecisionReason, Outcome, PhaseState, Stage, Verdict
from session_rollout.api.quantities import duration
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status_records import Refusal
from session_rollout.core.flags import Audience
from session_rollout.core.observed import JobState

CALM = {"name": "calm", "metric": "errors", "below": "0.5%"}
SIGNED = {"name": "signed", "approval": {}}
SMOKE = {"name": "smoke", "job": {"profile": "smoke-tests"}}
HEALTH = {"name": "health", "http": {"service": "web", "path": "/health"}}


def in_stage(stage: Stage, *gates: dict[str, Any], **changes: Any) -> World:
    """A rollout that has just entered a stage; phase one has these gates."""
    world = World(edited(verified(list(gates)), **changes), ranges={"errors": timedelta(seconds=60)})
    world.gates["health"] = Verdict.PASS
    world.until(lambda world: world.status.current.stage is stage)
    return world


def kill(world: World, feature: str, *, by_hand: bool) -> None:
    """Turn a feature off for all users."""
    if by_hand:
        world.tamper(taken_away=frozenset({feature}), editor="kubectl-edit")
    else:
        world.request("EmergencyDisable", features=[feature])
    world.settle()
    assert "targeting" not in world.flag(feature)


@pytest.mark.parametrize("by_hand", [False, True], ids=["action", "hand"])
@pytest.mark.parametrize("feature", ["alpha", "gamma"], ids=["older phase", "last phase"])
@pytest.mark.parametrize("guarded", [True, False], ids=["guards", "no guards"])
def test_bake_does_not_end_while_a_feature_is_off(feature: str, *, by_hand: bool, guarded: bool) -> None:
    """The timer pauses, whoever turned the feature off, and its rest runs when users have the feature again."""
    world = in_stage(Stage.BAKE, bake="300s", **({} if guarded else {"guards": []}))
    world.run(100)
    kill(world, feature, by_hand=by_hand)
    world.run(3600)
    assert (world.status.current.stage, world.reason) == (Stage.BAKE, DecisionReason.FEATURE_DISABLED)
    assert world.status.current.hold_paused_reason is DecisionReason.FEATURE_DISABLED
    assert world.condition("Ready") != "True"
    world.request("EmergencyEnable")
    world.run(150)
    assert not ended(world)
    world.until(ended, 400)
    assert world.status.outcome is Outcome.PROMOTED


def test_bake_does_not_end_while_a_request_is_refused() -> None:
    """It has the rules of a step: the timer pauses, and its end is awaited."""
    world = in_stage(Stage.BAKE, bake="300s")
    world.run(100)
    world.refusals = (Refusal(effect="Publish", verb="update", resource="configmaps", message="forbidden", since=world.now),)
    world.run(600)
    assert (world.status.current.stage, world.reason) == (Stage.BAKE, DecisionReason.REQUEST_REFUSED)
    world.refusals = ()
    world.run(100)
    assert not ended(world)
    world.until(ended, 200)


@pytest.mark.parametrize("stage", [Stage.VERIFICATION, Stage.BAKE])
def test_nothing_ends_while_somebody_else_writes_the_document(stage: Stage) -> None:
    """Users have a feature part of the time: the verdicts of that time are not about what is published."""
    gates = (SIGNED,) if stage is Stage.VERIFICATION else ()
    world = in_stage(stage, *gates, bake="300s", guards=[])
    for number in range(40):
        world.tamper(editor="argocd")
        world.settle()
        if gates and number == 5:
            world.request("Approve", generation=1, check="signed")
        world.now += timedelta(seconds=10)
        world.settle()
    assert (world.status.current.stage, world.reason) == (stage, DecisionReason.DOCUMENT_CONTESTED)
    world.run(600)
    assert world.status.current.stage is not stage


def test_verification_is_not_judged_while_the_feature_is_off() -> None:
    """Its metric is good because nobody has the feature; then only results from after the warm-up count."""
    world = World(edited(verified([CALM])), ranges={"errors": timedelta(seconds=60)})
    world.until(at("one", 3))
    world.values["errors"] = Decimal("0.009")
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    kill(world, "alpha", by_hand=False)
    world.values["errors"] = Decimal("0.001")
    world.run(600)
    assert (world.status.current.stage, world.reason) == (Stage.VERIFICATION, DecisionReason.FEATURE_DISABLED)
    world.request("EmergencyEnable")
    world.run(50)
    record = world.check(CheckKind.VERIFICATION, "calm")
    assert (record.verdict, record.reason) == (Verdict.NOT_EVALUATED, CheckReason.WARMING_UP)
    world.values["errors"] = Decimal("0.009")
    world.run(60)
    assert world.check(CheckKind.VERIFICATION, "calm").verdict is Verdict.FAIL
    world.values["errors"] = Decimal("0.001")
    world.until(at("two", 1))


def test_gate_passed_before_an_emergency_is_judged_again() -> None:
    """Results and Jobs, but not approvals: a Job that ran while users lost the feature runs again, after `propagation`."""
    world = in_stage(Stage.VERIFICATION, SMOKE, HEALTH, SIGNED, propagation="120s")
    world.run(10)
    first = world.check(CheckKind.VERIFICATION, "smoke")
    assert (first.verdict, world.reason) == (Verdict.PASS, DecisionReason.AWAITING_APPROVAL)
    kill(world, "beta", by_hand=True)
    world.run(60)
    refused = world.request("Approve", generation=1, check="signed")
    world.run(10)
    assert world.answer(refused) == (False, ActionReason.FEATURE_DISABLED)
    world.request("EmergencyEnable")
    world.run(100)
    assert world.check(CheckKind.VERIFICATION, "smoke").reason is CheckReason.WARMING_UP
    assert world.check(CheckKind.VERIFICATION, "health").verdict is Verdict.NOT_EVALUATED
    world.request("Approve", generation=1, check="signed")
    world.run(10)
    assert world.status.current.stage is Stage.VERIFICATION
    world.until(lambda world: world.status.current.phase == "two", 60)
    smoke = [name for name, job in world.jobs.items() if job.state is JobState.SUCCEEDED]
    assert first.job in smoke
    assert len(smoke) == 2


def test_migration_after_a_phase_waits_for_its_features() -> None:
    """It ends the support of users without the feature, and now these are all users."""
    world = World(spec(**migrated()))
    world.until(at("one", 3))
    world.run(50)
    kill(world, "alpha", by_hand=False)
    world.status = world.status.updated(current=world.status.current.updated(stage=Stage.AFTER))
    world.run(600)
    assert world.reason is DecisionReason.FEATURE_DISABLED
    assert [record.state for record in world.status.phases] == [PhaseState.RUNNING, PhaseState.PENDING]
    assert not any(known.name == "cleanup" and known.job for known in world.status.migrations)
    world.request("EmergencyEnable")
    world.until(at("two", 1))


def test_promote_that_waits_for_a_guard_acts_neither_in_an_emergency_nor_after_it() -> None:
    """The guard passes because the feature is off, and whoever promoted the step did not know of the emergency."""
    guard = {"name": "errors", "metric": "errors", "below": "5%", "for": "10m"}
    world = World(spec(guards=[guard]))
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.08")
    world.run(10)
    world.request("Promote", generation=1, phase="one", step=1)
    world.run(10)
    kill(world, "alpha", by_hand=False)
    world.values["errors"] = Decimal("0.001")
    world.run(60)
    assert (world.where[:2], world.reason) == (("one", 1), DecisionReason.FEATURE_DISABLED)
    world.request("EmergencyEnable")
    world.run(10)
    assert world.where[:2] == ("one", 1)
    assert world.status.current.promoted_by is None


def test_step_does_not_end_in_the_decision_that_lifts_an_emergency() -> None:
    """Its hold was over before; the evidence is from the time in which nobody had the feature."""
    world = World(
        edited(lambda data: data["phases"][0]["steps"][0].update(approval="Required"), propagation="60s"),
        ranges={"errors": timedelta(seconds=60)},
    )
    world.until(lambda world: world.reason is DecisionReason.AWAITING_APPROVAL)
    kill(world, "alpha", by_hand=False)
    world.run(60)
    world.request("EmergencyEnable")
    lifted = world.now
    world.settle()
    world.request("Approve", generation=1, phase="one", step=1)
    world.until(at("one", 2, 1))
    assert world.now - lifted >= duration("60s") * 2


@pytest.mark.parametrize("features", [["alpha"], ["gamma"], ["alpha", "gamma"]])
def test_decision_that_is_repeated_speaks_of_an_emergency_once(features: list[str]) -> None:
    """Until the first results after a restart, the decision in status stands; its other sentences are not pushed out."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("EmergencyDisable", features=features, reason="payments fail " * 17)
    world.run(10)
    before = world.status.decision
    world.answering = False
    world.run(100)
    assert (world.status.decision.message, world.status.decision.details) == (before.message, before.details)


@pytest.mark.parametrize("criteria", [True, False], ids=["with criteria", "without"])
def test_what_was_measured_while_a_feature_was_off_promotes_nothing(*, criteria: bool) -> None:
    """The hold was over, and the metric recovered because the feature was off: its end gives nobody more than before."""

    def change(data: dict[str, Any]) -> None:
        data["phases"][0]["steps"] = [{"percent": 10, "hold": "60s", "approval": "Required"}, {"percent": 100, "hold": "60s"}]
        if not criteria:
            data["phases"][0]["criteria"], data["guards"] = [], []

    world = World(edited(change), ranges={"errors": timedelta(seconds=60)})
    world.until(lambda world: world.reason is DecisionReason.AWAITING_APPROVAL)
    world.request("EmergencyDisable", features=["alpha"])
    world.run(300)
    world.request("EmergencyEnable", features=["alpha"])
    start = world.now
    world.values["errors"] = Decimal("0.03")  # the guard passes, the criterion does not
    world.settle()
    world.request("Approve", generation=1, phase="one", step=1)
    assert world.document is not None
    assert world.document.audiences["alpha"] == Audience(Decimal(10))
    world.run(40)
    assert world.where[:2] == ("one", 1)
    if criteria:
        world.run(120)
        assert world.where[:2] == ("one", 1)
        world.values["errors"] = Decimal("0.001")
    world.until(at("one", 2))
    assert (world.now - start).total_seconds() >= 60


def test_hold_after_an_emergency_lasts_for_ten_results_of_the_slowest_metric() -> None:
    """Its interval is longer than that of the checks."""
    data = rollout_data()
    data["metrics"][0]["interval"] = "60s"
    data["phases"][0]["steps"][0]["hold"] = "1h"
    world = World(RolloutSpec.model_validate(data))
    world.until(at("one", 1))
    world.run(3300)
    world.request("EmergencyDisable", features=["alpha"])
    world.run(60)
    world.request("EmergencyEnable", features=["alpha"])
    start = world.now
    world.until(at("one", 2, 1))
    assert world.now - start >= timedelta(minutes=10)


@pytest.mark.parametrize("stopped", ["paused", "window"])
def test_emergency_enable_gives_back_what_users_had_although_nothing_may_grow(stopped: str) -> None:
    """The audience of the step was published before: a pause and a window keep it from growing, not from coming back."""
    world = World(spec())
    world.until(at("one", 1))
    before = world.document.audiences["alpha"] if world.document is not None else None
    world.request("EmergencyDisable", features=["alpha"])
    if stopped == "paused":
        world.request("Pause")
    else:
        world.edit(spec(windows=[{"timeZone": "UTC", "days": ["Sun"], "from": "03:00", "to": "03:01"}]))
    world.run(30)
    name = world.request("EmergencyEnable", features=["alpha"])
    world.run(30)
    assert world.answer(name) == (True, ActionReason.ACCEPTED)
    assert world.document is not None
    assert world.document.audiences["alpha"] == before != Audience()
