"""The core as people meet it: whole rollouts told on a clock that the test moves.

Covered: the way forward, evidence and the hold clock, guards, rollback scopes, migrations, gates, approvals, windows,
deadlines, pause and suspend, every action, spec edits, restarts. Not here: single rules of checks, flags and windows (their
own files), random runs (test_model), anything with a server (integration).
"""

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import yaml

from core.world import ROLLOUT, START, World, spec
from session_rollout.api.enums import DecisionAction, Outcome, Stage, Verdict
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status import AwaitedApproval


def programme(**changes: Any) -> dict[str, Any]:
    """The programme as data, top-level fields replaced."""
    return {**yaml.safe_load(ROLLOUT), **changes}


def edited(change: Any) -> RolloutSpec:
    """The programme after `change` had its hands on the data."""
    data = programme()
    change(data)
    return RolloutSpec.model_validate(data)


def ended(world: World) -> bool:
    """Whether it has an outcome."""
    return world.status.outcome is not None


def at(phase: str, step: int, increment: int = 0) -> Any:
    """Condition: published at this place."""
    return lambda world: world.where[:3] == (phase, step, increment) and world.status.current.published_time is not None


def test_promotes_through_every_audience_in_order() -> None:
    """All audiences of the YAML are published, in order, and nothing else."""
    world = World(spec())
    seen: list[tuple[str | None, str]] = []

    def note(world: World) -> bool:
        here = (world.where[0], world.where[3])
        if world.status.current.stage is Stage.STEP and (not seen or seen[-1] != here):
            seen.append(here)
        return ended(world)

    world.until(note)
    assert seen == [("one", "10"), ("one", "30"), ("one", "50"), ("one", "100"), ("two", "50"), ("two", "100")]
    assert world.status.outcome is Outcome.PROMOTED
    assert (world.condition("Ready"), world.condition("Reconciling"), world.condition("Stalled")) == ("True", "False", "False")


def test_hold_is_never_shorter_than_declared() -> None:
    """From the reading back of 10 % to the next audience at least its 60 s pass."""
    world = World(spec())
    world.until(at("one", 1))
    start = world.now
    world.until(at("one", 2, 1), tick=1)
    assert world.now - start >= timedelta(seconds=60)


def test_steady_hold_writes_nothing() -> None:
    """A check that repeats its verdict is no change."""
    world = World(spec())
    world.until(at("one", 1))
    world.run(10)
    writes = world.writes
    world.values["errors"] = Decimal("0.0031")  # another value, the same verdict
    world.run(30)
    assert world.writes == writes


@pytest.mark.parametrize("trouble", [Verdict.NO_DATA, Verdict.PROVIDER_ERROR, Verdict.INCONCLUSIVE])
def test_missing_evidence_stops_the_clock(trouble: Verdict) -> None:
    """Neither promotion nor rollback, the hold longer by as much, and the reason in status."""
    world = World(spec())
    world.until(at("one", 1))
    world.run(20)
    until = world.status.current.hold_until
    world.values["errors"] = trouble
    world.run(600)
    assert world.where[:2] == ("one", 1)
    assert any("for a reason" in text for text in world.status.decision.details)
    assert world.condition("EvidenceAvailable") == "False"
    world.values["errors"] = Decimal("0.001")
    world.run(10)
    assert until is not None
    assert world.status.current.hold_until == until + timedelta(seconds=600)
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_time_that_nobody_watched_does_not_count() -> None:
    """The operator was away for ten minutes in a hold: the hold is ten minutes longer."""
    world = World(spec())
    world.until(at("one", 1))
    world.run(20)
    until = world.status.current.hold_until
    world.now += timedelta(seconds=600)
    world.settle()
    assert until is not None
    assert world.where[:2] == ("one", 1)
    assert world.status.current.hold_until == until + timedelta(seconds=600)


def test_answers_on_their_way_change_nothing_and_promote_nothing() -> None:
    """After a start the last verdicts stand until the first answers are here, and the wait for them does not count."""
    world = World(spec())
    world.until(at("one", 1))
    world.run(40)
    writes, world.answering = world.writes, False
    world.run(300)
    assert world.writes == writes
    assert world.where[:2] == ("one", 1)
    world.answering = True
    world.run(10)
    assert world.where[:2] == ("one", 1)
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_unknown_absence_restarts_the_hold() -> None:
    """Nobody knows since when nobody looked: the hold is counted from now."""
    world = World(spec())
    world.until(at("one", 1))
    world.run(30)
    world.last_reconcile = None
    world.settle()
    assert world.status.current.hold_until == world.now + timedelta(seconds=60)


def test_warm_up_comes_before_the_hold() -> None:
    """Until the window of the PromQL holds no older data the verdict is NotEvaluated, and the hold has not begun."""
    world = World(spec(), ranges={"errors": timedelta(seconds=50)})
    world.until(at("one", 1))
    world.run(40)
    assert world.status.current.hold_until is None
    assert {one.verdict for one in world.status.checks if one.name == "errors" and one.kind == "Criterion"} == {
        Verdict.NOT_EVALUATED
    }
    world.run(20)
    assert world.status.current.hold_until is not None


def test_guard_breach_rolls_back_the_phase_and_keeps_earlier_ones() -> None:
    """Flags off first; because names metric, value and bound; not retried."""
    world = World(spec())
    world.until(at("two", 1))
    world.values["errors"] = Decimal("0.08")
    took = world.until(ended)
    assert took <= 40
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert "errors 8% is not below 5% for 20s" in world.status.decision.details[0]
    audiences = {one.name: (one.percent, one.state) for one in world.status.phases}
    assert audiences == {"one": ("100", "Completed"), "two": ("0", "RolledBack")}
    assert (world.condition("Ready"), world.condition("Stalled"), world.condition("RolledBack")) == ("False", "True", "True")
    writes, texts = world.writes, len(world.documents)
    world.values["errors"] = Decimal("0.001")
    world.run(600)
    assert (world.writes, len(world.documents)) == (writes, texts)


def test_breach_shorter_than_for_is_forgiven() -> None:
    """`for: 20s` means 20 s."""
    world = World(spec())
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.08")
    world.run(10)
    world.values["errors"] = Decimal("0.001")
    world.run(60)
    assert world.status.outcome is None


@pytest.mark.parametrize("answers_at_once", [True, False])
def test_breach_is_not_assumed_over_an_absence(*, answers_at_once: bool) -> None:
    """A breach before and after ten minutes without a look has lasted no time, however long the first answer takes."""
    world = World(spec())
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.08")
    world.run(10)
    world.now += timedelta(seconds=600)
    world.answering = answers_at_once
    world.settle()
    assert world.status.outcome is None
    world.answering = True
    world.settle()
    assert world.status.outcome is None
    world.run(20)
    assert world.status.outcome is Outcome.ROLLED_BACK


@pytest.mark.parametrize(
    ("scope", "left"),
    [("Step", {"one": "100", "two": "50"}), ("Phase", {"one": "100", "two": "0"}), ("All", {"one": "0", "two": "0"})],
)
def test_rollback_scopes(scope: str, left: dict[str, str]) -> None:
    """Step goes back one audience, Phase one phase, All everything."""
    world = World(spec(rollback={"scope": scope}))
    world.until(at("two", 2))
    world.values["errors"] = Decimal("0.08")
    world.until(ended)
    assert {one.name: one.percent for one in world.status.phases} == left


def test_rollback_of_a_first_step_is_off() -> None:
    """Scope Step before any other audience of the phase means nobody."""
    world = World(spec(rollback={"scope": "Step"}))
    world.until(at("two", 1))
    world.request("Abort")
    world.until(ended)
    assert {one.name: one.percent for one in world.status.phases} == {"one": "100", "two": "0"}


@pytest.mark.parametrize(("on_breach", "paused"), [("Pause", True), ("Warn", False)])
def test_other_breaches(on_breach: str, *, paused: bool) -> None:
    """Pause keeps it, Warn tells once, neither rolls back."""
    world = World(spec(guards=[{"name": "errors", "metric": "errors", "below": "5%", "onBreach": on_breach}]))
    world.until(at("two", 1))
    world.values["errors"] = Decimal("0.08")
    world.run(60)
    assert world.status.outcome is None
    assert bool(world.status.paused_by) is paused
    assert world.events.count("GuardBreached") == 1


def test_failing_criterion_keeps_the_step() -> None:
    """No promotion and no rollback; why says which and with which numbers."""
    world = World(spec())
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.02")
    world.run(600)
    assert world.where[:2] == ("one", 1)
    assert world.status.decision.message == "errors 2% is not below 1%"
    world.values["errors"] = Decimal("0.001")
    world.until(ended)


def test_promotion_needs_a_whole_interval_of_passing() -> None:
    """A criterion that passed only just now is not enough."""
    world = World(spec())
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.02")
    world.run(100)
    world.values["errors"] = Decimal("0.001")
    world.now += timedelta(seconds=5)
    world.settle()
    assert world.where[:2] == ("one", 1)
    assert "whole check interval" in world.status.decision.message
    world.run(10)
    assert world.where[:2] == ("one", 2)


def test_baseline_is_measured_before_each_phase() -> None:
    """A load that rose between the phases is the new normal; a rise within one is not."""
    world = World(spec())
    world.until(at("one", 3))
    assert next(one.baseline for one in world.status.checks if one.name == "load") == "1.0"
    world.until(lambda w: w.status.current.phase == "two" or w.where[1] == 3, tick=1)
    world.until(at("two", 1))
    world.values["load"] = Decimal("1.2")
    world.run(120)
    assert world.where[:2] == ("two", 1)
    assert world.status.decision.message == "load 1.2 is not within an increase of 10% of the baseline 1"


def test_baseline_that_cannot_be_measured_keeps_the_phase_from_starting() -> None:
    """No baseline, no publish."""
    world = World(spec(), values={"errors": Decimal("0.001"), "load": Verdict.NO_DATA})
    world.run(120)
    assert world.status.current.stage is Stage.BASELINE
    assert "no baseline" in world.status.decision.message
    assert world.status.phases[0].percent == "0"
    world.values["load"] = Decimal(1)
    world.until(ended)


def test_publishing_must_be_read_back_before_the_hold() -> None:
    """While the document is not in the cluster nothing is held and nothing promoted."""
    world = World(spec(), publishing=False)
    world.run(600)
    assert world.status.decision.action is DecisionAction.PUBLISH
    assert world.status.current.hold_until is None
    world.publishing = True
    world.until(ended)


def test_drift_is_put_right() -> None:
    """Somebody changed the document: it is published again, and people are told."""
    world = World(spec())
    world.until(at("one", 1))
    right, world.published_sha256 = world.published_sha256, "sha256:other"
    world.settle()
    assert world.published_sha256 == right
    assert "FlagDriftCorrected" in world.events


# --- migrations


MIGRATED: dict[str, Any] = {
    "database": {"secretKeyRef": {"name": "db"}},
    "migrations": [{"name": "tables", "bundle": "a/b"}, {"name": "cleanup", "bundle": "a/c"}],
    "phases": [
        {**phase, "migrations": {"before": ["tables"], "after": ["cleanup"]}} if phase["name"] == "one" else phase
        for phase in yaml.safe_load(ROLLOUT)["phases"]
    ],
}


def test_migrations_run_once_before_and_after() -> None:
    """One Job each; nothing is published before the first has succeeded."""
    world = World(spec(**MIGRATED))
    world.reconcile()
    assert world.status.current.stage is Stage.BEFORE
    assert world.status.phases[0].features == ()
    world.until(ended)
    assert len(world.jobs) == 2
    assert {one.state for one in world.status.migrations} == {"Succeeded"}
    assert world.condition("MigrationsApplied") == "True"


def test_failed_migration_stalls_and_retry_tries_again() -> None:
    """The database's message is in status; Retry is another Job."""
    world = World(spec(**MIGRATED), jobs_succeed=False)
    world.run(60)
    assert world.status.decision.action is DecisionAction.STALL
    assert "relation exists" in world.status.decision.details[0]
    assert world.condition("MigrationsApplied") == "False"
    assert world.events.count("Stalled") == 1
    world.jobs_succeed = True
    name = world.request("Retry", generation=1)
    world.until(ended)
    assert world.answers[name].accepted
    assert world.status.outcome is Outcome.PROMOTED
    assert len(world.jobs) == 3


def test_rollback_waits_for_a_running_migration() -> None:
    """Flags are off at once; the generation ends when the Job has."""
    world = World(spec(**MIGRATED))
    world.reconcile()
    world.reconcile()
    world.request("Abort")
    world.reconcile()
    assert world.status.current.stage is Stage.ROLLING_BACK
    world.reconcile()
    assert "waits for migration tables" in world.status.decision.message
    world.until(ended)
    assert world.status.outcome is Outcome.ABORTED
    assert world.status.migrations[0].state == "Succeeded"


def test_rollback_takes_migrations_down_where_asked() -> None:
    """`migrations: Down` undoes what this phase had applied, last first."""
    world = World(spec(**MIGRATED, rollback={"migrations": "Down"}))
    world.until(at("one", 1))
    world.request("Abort")
    world.until(ended)
    assert world.status.migrations[0].state == "Reverted"
    assert any("-down-" in name for name in world.jobs)


def test_failed_down_stalls_the_rollback_until_retried() -> None:
    """A rollback that cannot finish says so, and goes on after Retry."""
    world = World(spec(**MIGRATED, rollback={"migrations": "Down"}))
    world.until(at("one", 1))
    world.jobs_succeed = False
    world.request("Abort")
    world.run(60)
    assert world.status.decision.action is DecisionAction.STALL
    world.jobs_succeed = True
    world.request("Retry", generation=1)
    world.until(ended)
    assert world.status.migrations[0].state == "Reverted"


def test_job_that_was_never_created_is_pending_again_after_a_rollback() -> None:
    """Crash between the intent and the Job, then an abort: nothing is waited for."""
    world = World(spec(**MIGRATED))
    world.reconcile(crash_before_effects=True)
    name = world.status.migrations[0].job
    assert name is not None
    from session_rollout.core.observed import JobObservation, JobState

    world.jobs[name] = JobObservation(JobState.MISSING)
    world.request("Abort")
    world.until(ended)
    assert world.status.migrations[0].state == "Pending"


# --- gates, approvals, windows, deadlines


def test_preflight_waits_for_workload_metric_and_approval() -> None:
    """All must pass before anything is published."""
    gates = [{"name": "calm", "metric": "errors", "below": "1%"}, {"name": "signed", "approval": {}}]
    world = World(
        spec(preflight=gates, workload={"name": "web"}), workload_unavailable_reason="Deployment web is not available"
    )
    world.run(20)
    assert world.status.decision.details == ("Deployment web is not available",)
    world.workload_unavailable_reason = ""
    world.run(20)
    assert world.status.decision.message == "preflight: signed: waits for an approval"
    assert "check signed" in world.status.decision.next_actions[0]
    assert world.status.decision.approvals == (AwaitedApproval(check="signed"),)
    wrong = world.request("Approve", generation=1, check="calm")
    world.run(10)
    assert world.answers[wrong].accepted is False
    right = world.request("Approve", generation=1, check="signed")
    world.until(ended)
    assert world.answers[right] == (True, "signed is approved")


def test_verification_is_judged_after_the_last_step() -> None:
    """A phase ends only when its verification passes."""
    data = programme()
    data["phases"][0]["verification"] = [{"name": "calm", "metric": "errors", "below": "0.5%"}]
    world = World(RolloutSpec.model_validate(data))
    world.until(at("one", 3))
    world.values["errors"] = Decimal("0.006")
    world.run(300)
    assert world.status.current.stage is Stage.VERIFICATION
    assert "calm 0.6% is not below 0.5%" in world.status.decision.message
    world.values["errors"] = Decimal("0.001")
    world.until(ended)


def with_approval(data: dict[str, Any]) -> None:
    """The first step of phase two needs a yes."""
    data["phases"][1]["steps"][0]["approval"] = "Required"


def test_step_waits_for_its_approval() -> None:
    """Bound to generation, phase and step; asked for once."""
    world = World(edited(with_approval))
    world.until(at("two", 1))
    world.run(300)
    assert world.status.decision.message == "step 1 of two waits for an approval"
    assert world.status.decision.approvals == (AwaitedApproval(phase="two", step=1),)
    assert world.events.count("ApprovalNeeded") == 1
    refused = [
        world.request("Approve", generation=2, phase="two", step=1),
        world.request("Approve", generation=1, phase="two", step=2),
        world.request("Approve", generation=1, phase="one", step=1),
    ]
    world.run(10)
    assert [world.answers[name].accepted for name in refused] == [False] * 3
    world.request("Approve", generation=1, phase="two", step=1)
    world.until(at("two", 2))
    assert not world.status.decision.approvals
    needless = world.request("Approve", generation=1, phase="two", step=2)
    world.run(10)
    assert world.answers[needless] == (False, "step 2 of phase two needs no approval")


def test_approval_can_come_early() -> None:
    """A yes during the hold counts at its end."""
    world = World(edited(with_approval))
    world.until(at("two", 1))
    world.request("Approve", generation=1, phase="two", step=1)
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_promotion_waits_for_a_window_and_rollback_does_not() -> None:
    """Outside the window the audience stays; a breach still acts."""
    window = [{"days": ["Mon"], "from": "10:00", "to": "10:01", "timeZone": "UTC"}]
    world = World(spec(windows=window))
    world.until(at("one", 1))
    world.run(3600)
    assert world.where[:2] == ("one", 1)
    assert world.status.decision.message == "waits for the window that opens Mon 10:00 UTC"
    assert world.status.decision.next_time == START + timedelta(days=7)
    world.values["errors"] = Decimal("0.08")
    world.until(ended)
    assert world.status.outcome is Outcome.ROLLED_BACK


@pytest.mark.parametrize(("on_deadline", "outcome"), [("Stall", None), ("Rollback", Outcome.ROLLED_BACK)])
def test_deadline(on_deadline: str, outcome: Outcome | None) -> None:
    """Criteria may keep a step only so long beyond its hold."""

    def late(data: dict[str, Any]) -> None:
        data["phases"][0] |= {"deadline": "120s", "onDeadline": on_deadline}

    world = World(edited(late))
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.02")
    world.run(160)
    assert world.status.decision.action is DecisionAction.WAIT
    world.run(60)
    assert world.status.outcome is outcome
    assert any("deadline" in text for text in world.status.decision.details)
    if outcome is None:
        assert world.condition("Stalled") == "True"
        world.values["errors"] = Decimal("0.001")
        world.until(ended)
        assert world.status.outcome is Outcome.PROMOTED


def test_bake_judges_guards_before_promoted() -> None:
    """The programme is not Promoted before its bake is over, and a breach in it rolls back."""
    world = World(spec(bake="300s"))
    world.until(lambda w: w.status.current.stage is Stage.BAKE)
    world.run(200)
    assert world.status.outcome is None
    world.values["errors"] = Decimal("0.08")
    world.until(ended)
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_bake_clock_stops_while_guards_cannot_be_asked() -> None:
    """ProviderError of a guard is no evidence either."""
    world = World(spec(bake="100s"))
    world.until(lambda w: w.status.current.stage is Stage.BAKE)
    world.values["errors"] = Verdict.PROVIDER_ERROR
    world.run(600)
    assert world.status.outcome is None
    assert world.status.decision.message.startswith("bake: errors")
    world.values["errors"] = Decimal("0.001")
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


# --- actions


def test_pause_keeps_it_resume_lets_it_go_and_guards_protect_meanwhile() -> None:
    """The clock stands still; a breach rolls back even while paused."""
    world = World(spec())
    world.until(at("one", 1))
    world.run(20)
    until = world.status.current.hold_until
    first, second = world.request("Pause"), world.request("Pause", "pause-again")
    world.run(300)
    assert (world.answers[first].accepted, world.answers[second].accepted) == (True, False)
    assert world.condition("Paused") == "True"
    assert world.where[:2] == ("one", 1)
    world.request("Resume")
    world.run(10)
    assert until is not None
    assert world.status.current.hold_until == until + timedelta(seconds=300)
    world.request("Pause", "pause-third")
    world.run(10)
    world.values["errors"] = Decimal("0.08")
    world.until(ended)
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_resume_of_what_is_not_paused_is_refused() -> None:
    """With the reason."""
    world = World(spec())
    name = world.request("Resume")
    world.run(10)
    assert world.answers[name] == (False, "not paused")


def test_promote_goes_past_checks_of_exactly_this_step() -> None:
    """Past hold and failing criteria, to the next step, once."""
    world = World(spec())
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.02")
    wrong = world.request("Promote", generation=1, phase="one", step=3)
    right = world.request("Promote", generation=1, phase="one", step=1)
    world.run(10)
    assert world.answers[wrong] == (False, "meant is step 3 of phase one, and the rollout is at step 1 of phase one")
    assert world.answers[right].accepted
    assert world.where[:3] == ("one", 2, 1)
    skip = world.request("Promote", generation=1, phase="one", step=2)
    world.run(10)
    assert world.answers[skip].accepted
    assert world.where[:3] == ("one", 3, 0)
    last = world.request("Promote", generation=1, phase="one", step=3)
    world.run(10)
    assert world.answers[last].accepted
    assert world.status.current.phase == "two"


def test_abort_and_retry() -> None:
    """Abort rolls back; the generation stays so until a Retry that names it."""
    world = World(spec())
    world.until(at("two", 1))
    world.request("Abort")
    world.until(ended)
    assert world.status.outcome is Outcome.ABORTED
    assert world.status.decision.message == "aborted: because"
    again, wrong = world.request("Abort", "late"), world.request("Retry", generation=7)
    world.run(10)
    assert (world.answers[again].accepted, world.answers[wrong].accepted) == (False, False)
    world.request("Retry", "retry", generation=1)
    world.until(lambda w: w.status.outcome is Outcome.PROMOTED)


def test_retry_without_need_is_refused() -> None:
    """Nothing failed, nothing to retry."""
    world = World(spec())
    name = world.request("Retry", generation=1)
    world.run(10)
    assert world.answers[name].accepted is False


def test_actions_on_an_ended_rollout_are_refused_with_its_outcome() -> None:
    """Nothing is running any more."""
    world = World(spec())
    world.until(ended)
    names = [world.request("Pause"), world.request("Abort"), world.request("Promote", generation=1, phase="two", step=2)]
    world.run(30)
    assert all("ended (Promoted)" in world.answers[name].message for name in names)


def test_abort_while_rolling_back_is_refused() -> None:
    """It is on its way already."""
    world = World(spec(), publishing=True)
    world.until(at("one", 1))
    world.publishing = False
    world.request("Abort")
    world.run(10)
    name = world.request("Abort", "again")
    world.run(10)
    assert world.answers[name] == (False, "the rollout is rolling back already")


def flag(world: World, name: str) -> dict[str, Any]:
    """A flag of the document that is published."""
    return dict(json.loads(world.documents[-1])["flags"][name])


def test_emergency_disables_the_feature_and_its_dependents_and_stops_the_clock() -> None:
    """Off for everybody, whatever groups and percentages say, until Restore."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("EmergencyDisable", features=["alpha"])
    world.run(600)
    for name in ("alpha", "beta"):
        assert "targeting" not in flag(world, name)
        assert flag(world, name)["defaultVariant"] == "off"
    assert world.where[:2] == ("one", 1)
    assert "disabled in an emergency" in world.status.decision.message
    world.request("EmergencyEnable", features=["alpha"])
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_emergency_survives_rollback_edit_and_end() -> None:
    """Only an action lifts it."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("EmergencyDisable")
    world.request("Abort")
    world.until(ended)
    world.edit(spec(bake="10s"))
    world.run(30)
    assert {one.feature for one in world.status.flags.disabled} == {"alpha", "beta", "gamma"}
    assert all("targeting" not in flag(world, name) for name in ("alpha", "beta", "gamma"))


def test_emergency_with_unknown_feature_and_empty_restore_are_refused() -> None:
    """The answer says what is allowed."""
    world = World(spec())
    unknown, nothing = world.request("EmergencyDisable", features=["delta"]), world.request("EmergencyEnable")
    world.run(10)
    assert "allowed are alpha, beta, gamma" in world.answers[unknown].message
    assert world.answers[nothing] == (False, "nothing is disabled")


def test_action_done_before_a_crash_is_answered_not_done_again() -> None:
    """The status was written, the answer was not: the same action comes again."""
    world = World(spec())
    world.until(at("one", 1))
    name = world.request("Promote", generation=1, phase="one", step=1)
    world.reconcile(crash_before_effects=True)
    assert world.where[:2] == ("one", 2)
    world.settle()
    assert world.answers[name].accepted is True
    assert world.where[:3] == ("one", 2, 1)


# --- suspend and edits


def test_suspend_freezes_and_only_emergencies_work() -> None:
    """Nothing moves, not even back; the clock stands still."""
    world = World(spec())
    world.until(at("one", 1))
    world.edit(spec(suspend=True))
    world.values["errors"] = Decimal("0.08")
    pause, kill = world.request("Pause"), world.request("EmergencyDisable", features=["alpha"])
    world.run(600)
    assert world.where[3] == "10"
    assert world.status.decision.message == "suspended"
    assert (world.answers[pause].accepted, world.answers[kill].accepted) == (False, True)
    assert "targeting" not in flag(world, "alpha")


def test_suspended_without_a_status_leaves_the_document_that_is_there() -> None:
    """As after a restore from a backup; an emergency is published all the same, and so is what follows the suspension."""
    world = World(spec(suspend=True))
    world.published_sha256 = "sha256:of-before"
    world.run(600)
    assert world.published_sha256 == "sha256:of-before"
    assert world.status.flags.sha256 is None
    assert "the flag document that was found stays as it is" in world.status.decision.details
    kill = world.request("EmergencyDisable", features=["alpha"])
    world.run(60)
    assert world.answers[kill].accepted is True
    assert world.published_sha256 == world.status.flags.sha256 is not None


def test_suspended_from_the_start_publishes_everything_off_where_nothing_is() -> None:
    """Applications find a document, and no feature in it is on."""
    world = World(spec(suspend=True))
    world.run(60)
    assert world.published_sha256 == world.status.flags.sha256 is not None
    assert "fractional" not in json.dumps(flag(world, "alpha"))


def test_edit_in_mid_flight_keeps_the_audience_and_voids_verdicts() -> None:
    """Same place by name, a new hold, evidence of the new generation."""
    world = World(spec())
    world.until(at("one", 2, 2))
    world.run(40)
    world.edit(spec(bake="10s"))
    world.run(10)
    assert world.where == ("one", 2, 2, "50")
    assert "Superseded" in world.events
    start = world.now
    world.until(at("one", 3))
    assert world.now - start >= timedelta(seconds=50)


def test_edit_voids_an_approval() -> None:
    """A yes to generation 1 is none to generation 2."""
    world = World(edited(with_approval))
    world.until(at("two", 1))
    world.request("Approve", generation=1, phase="two", step=1)
    world.run(10)

    def change(data: dict[str, Any]) -> None:
        with_approval(data)
        data["bake"] = "10s"

    world.edit(edited(change))
    world.run(600)
    assert world.where[:2] == ("two", 1)
    assert "waits for an approval" in world.status.decision.message


CONFLICTS: dict[str, tuple[Any, str]] = {
    "lower percentage": (
        lambda d: d["phases"][0]["steps"].__setitem__(1, {"percent": 20, "groups": ["staff"], "hold": "60s"}),
        "must keep as many",
    ),
    "feature gone": (lambda d: d["phases"][0]["features"].remove("beta"), "`phases` must keep it there"),
    "feature added": (
        lambda d: (
            d["phases"][0]["features"].append("gamma")
            or d["phases"][1].update(features=["delta"])
            or d["features"].append({"name": "delta"})
        ),
        "put it in a later phase",
    ),
    "phase gone": (lambda d: d["phases"].pop(0), "`phases` must keep it there"),
    "phase before": (lambda d: d["phases"].reverse(), "must keep it directly after"),
    "group lost": (lambda d: [s.pop("groups", None) for s in d["phases"][0]["steps"]], "must keep the group staff"),
    "ramp shorter": (lambda d: d["phases"][0]["steps"][1]["ramp"].update(to=20), "must not be below the"),
}


@pytest.mark.parametrize("case", CONFLICTS)
def test_edit_that_cannot_go_on_stalls_with_the_reason(case: str) -> None:
    """Published audiences stay; mending the spec lets it go on."""
    change: Any
    change, reason = CONFLICTS[case]
    world = World(spec())
    world.until(at("one", 2, 1))
    before = world.status.phases[0]
    data = programme()
    change(data)
    world.edit(RolloutSpec.model_validate(data))
    world.run(120)
    assert world.status.decision.action is DecisionAction.STALL
    assert reason in world.status.decision.details[0]
    assert world.condition("SpecValid") == "False"
    assert {one.name: one.percent for one in world.status.phases}["one"] == before.percent
    world.edit(spec())
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_phase_before_a_completed_one_is_a_conflict() -> None:
    """New phases come after the completed ones."""
    world = World(spec())
    world.until(at("two", 1))
    data = programme()
    data["features"].append({"name": "delta"})
    data["phases"].insert(0, {"name": "zero", "features": ["delta"], "steps": [{"percent": 100, "hold": "60s"}]})
    world.edit(RolloutSpec.model_validate(data))
    world.run(20)
    assert "stands before a phase that has completed" in world.status.decision.details[0]


def test_edit_after_rollback_starts_the_phase_again() -> None:
    """A changed programme is a new chance."""
    world = World(spec())
    world.until(at("two", 1))
    world.values["errors"] = Decimal("0.08")
    world.until(ended)
    world.values["errors"] = Decimal("0.001")
    world.edit(spec(bake="10s"))
    world.until(lambda w: w.status.outcome is Outcome.PROMOTED)


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
    world.until(lambda w: w.status.observed_generation == 2)


def test_edit_after_promotion_adds_phases() -> None:
    """What is out stays; the new phase runs; an edit without a new phase changes nothing."""
    world = World(spec())
    world.until(ended)
    world.edit(spec(bake="10s"))
    world.run(30)
    assert world.status.outcome is Outcome.PROMOTED
    data = programme()
    data["features"].append({"name": "delta"})
    data["phases"].append({"name": "three", "features": ["delta"], "steps": [{"percent": 100, "hold": "60s"}]})
    world.edit(RolloutSpec.model_validate(data))
    world.run(20)
    assert world.status.outcome is None
    assert world.status.current.phase == "three"
    world.until(ended)


def test_edit_in_preflight_and_before_a_publish() -> None:
    """Nothing was published: it goes on with the new programme."""
    world = World(spec(), values={"errors": Decimal("0.001"), "load": Verdict.NO_DATA})
    world.run(20)
    world.edit(spec(bake="10s"))
    world.values["load"] = Decimal(1)
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_configuration_problem_stalls_without_moving() -> None:
    """An unknown provider or a bad time zone is said, and nothing is published further."""
    world = World(spec(), problems=("`prometheus` is x, which is no provider",))
    world.run(60)
    assert world.status.decision.action is DecisionAction.STALL
    world.problems = ()
    world.until(ended)
    bad = World(spec(windows=[{"days": ["Mon"], "from": "09:00", "to": "10:00", "timeZone": "Mars/Olympus"}]))
    bad.run(10)
    assert "Mars/Olympus" in bad.status.decision.details[0]


def test_status_stays_small_with_twenty_phases() -> None:
    """<= 32 KiB, always."""
    phases = [
        {
            "name": f"phase-{n:02}",
            "features": [f"feature{n}a", f"feature{n}b"],
            "steps": [{"percent": 100, "hold": "60s"}],
            "criteria": [{"name": f"c{m}-" + "x" * 50, "metric": "errors", "below": "1%"} for m in range(16)],
        }
        for n in range(20)
    ]
    features = [{"name": f"feature{n}{letter}"} for n in range(20) for letter in "ab"]
    guards = [{"name": f"g{m}-" + "y" * 50, "metric": "errors", "below": "5%"} for m in range(16)]
    world = World(spec(phases=phases, features=features, guards=guards))
    largest = 0

    def measure(world: World) -> bool:
        nonlocal largest
        largest = max(largest, len(json.dumps(world.status.to_wire())))
        return ended(world)

    world.until(lambda w: w.status.current.phase == "phase-03")
    world.request("EmergencyDisable", reason="z" * 256)
    world.run(20)
    measure(world)
    world.request("EmergencyEnable")
    world.until(measure, seconds=20_000)
    assert world.status.outcome is Outcome.PROMOTED
    assert largest <= 32 * 1024
