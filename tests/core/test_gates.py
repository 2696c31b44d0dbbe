"""Gates: what must hold before the first phase and after each phase.

Covered: workload, metrics, HTTP and built-in checks, Jobs, approvals of gates, problems of the configuration. Not here: who
sends an HTTP check or runs a Job (tests/integration), approvals of steps (test_approvals), checks after a rollback.
"""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.collecting import verified
from core.world import World, at, edited, ended, spec
from session_rollout.api.enums import (
    ActionReason,
    CheckKind,
    CheckReason,
    DecisionAction,
    DecisionReason,
    EventReason,
    Stage,
    Verdict,
)
from session_rollout.api.status import AwaitedApproval

HEALTH = {"name": "health", "http": {"service": "web", "path": "/health"}}
STORE = {"name": "store", "builtin": "FlagStore"}
SMOKE = {"name": "smoke", "job": {"profile": "smoke-tests"}}


@pytest.mark.parametrize("gate", [HEALTH, STORE], ids=["http", "builtin"])
def test_preflight_waits_until_an_external_check_passes(gate: dict[str, Any]) -> None:
    """No result and a bad result both keep it waiting; status says which, and the failure is one event."""
    world = World(spec(preflight=[gate]))
    world.run(60)
    assert (world.status.current.stage, world.reason) == (Stage.PREFLIGHT, DecisionReason.AWAITING_GATES)
    assert world.check(CheckKind.PREFLIGHT, gate["name"]).reason is CheckReason.AWAITING_RESULT
    world.gates[gate["name"]] = Verdict.FAIL
    world.run(60)
    assert world.check(CheckKind.PREFLIGHT, gate["name"]).reason is CheckReason.CHECK_FAILED
    assert [entry.check for entry in world.entries(EventReason.CHECK_FAILED)] == [gate["name"]]
    world.gates[gate["name"]] = Verdict.PASS
    world.run(10)
    assert world.status.current.phase == "one"


def test_check_without_a_result_does_not_pass() -> None:
    """A provider error is in status, and the preflight waits."""
    world = World(spec(preflight=[STORE]), gates={"store": Verdict.PROVIDER_ERROR})
    world.run(120)
    record = world.check(CheckKind.PREFLIGHT, "store")
    assert (record.verdict, record.reason) == (Verdict.PROVIDER_ERROR, CheckReason.CONNECTION_FAILED)
    assert world.status.current.stage is Stage.PREFLIGHT


def test_job_of_a_check_runs_once_and_again_by_retry() -> None:
    """A failed Job stays failed until an action Retry; the second attempt is another Job."""
    world = World(spec(preflight=[SMOKE]), jobs_succeed=False)
    world.run(120)
    record = world.check(CheckKind.PREFLIGHT, "smoke")
    assert list(world.jobs) == [record.job]
    assert (record.verdict, record.reason) == (Verdict.FAIL, CheckReason.JOB_FAILED)
    assert [entry.job for entry in world.entries(EventReason.CHECK_FAILED)] == [record.job]
    assert world.reason is DecisionReason.AWAITING_GATES
    assert world.status.decision.next_actions
    world.jobs_succeed = True
    world.request("Retry", generation=1)
    world.run(20)
    assert len(world.jobs) == 2
    assert world.status.current.phase == "one"


def test_job_of_a_check_survives_a_crash_between_status_and_effect() -> None:
    """The intent is in status; the next reconcile creates the Job under the same name."""
    world = World(spec(preflight=[SMOKE]))
    world.reconcile(crash_before_effects=True)
    record = world.check(CheckKind.PREFLIGHT, "smoke")
    assert (record.reason, world.jobs) == (CheckReason.JOB_STARTED, {})
    world.settle()
    assert list(world.jobs) == [record.job]


def test_verification_of_a_phase_takes_every_kind() -> None:
    """All must pass before the next phase begins."""
    gates = [HEALTH, STORE, SMOKE]
    world = World(edited(lambda data: data["phases"][0].update(verification=gates)))
    world.gates |= {"health": Verdict.PASS, "store": Verdict.FAIL}
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    world.run(60)
    assert world.status.current.stage is Stage.VERIFICATION
    world.gates["store"] = Verdict.PASS
    world.until(at("two", 1), 120)
    assert len(world.jobs) == 1


def test_preflight_waits_for_workload_metric_and_approval() -> None:
    """All must pass before anything is published."""
    gates: list[dict[str, Any]] = [{"name": "calm", "metric": "errors", "below": "1%"}, {"name": "signed", "approval": {}}]
    world = World(spec(preflight=gates, workload={"name": "web"}), workload_unavailable_reason="Deployment web has no Pods")
    world.run(20)
    assert (world.reason, len(world.status.decision.details)) == (DecisionReason.WORKLOAD_UNAVAILABLE, 1)
    world.workload_unavailable_reason = None
    world.run(20)
    assert world.reason is DecisionReason.AWAITING_APPROVAL
    assert world.check(CheckKind.PREFLIGHT, "signed").reason is CheckReason.AWAITING_APPROVAL
    assert world.status.decision.approvals == (AwaitedApproval(check="signed"),)
    wrong = world.request("Approve", generation=1, check="calm")
    world.run(10)
    assert world.answer(wrong) == (False, ActionReason.UNKNOWN_CHECK)
    right = world.request("Approve", generation=1, check="signed")
    world.until(lambda world: world.status.current.stage is Stage.STEP)
    assert world.answer(right) == (True, ActionReason.ACCEPTED)
    assert world.documents != []


def test_workload_that_becomes_available_continues() -> None:
    """None is the only value that means available."""
    world = World(spec(workload={"name": "web"}), workload_unavailable_reason="Deployment web has no Pods")
    world.run(20)
    world.workload_unavailable_reason = None
    world.until(ended)


def test_verification_metric_is_evaluated_after_the_last_step() -> None:
    """A phase ends only when its verification passes."""
    gate = {"name": "calm", "metric": "errors", "below": "0.5%"}
    world = World(edited(lambda data: data["phases"][0].update(verification=[gate])))
    world.until(at("one", 3))
    world.values["errors"] = Decimal("0.006")
    world.run(300)
    record = world.check(CheckKind.VERIFICATION, "calm")
    assert (world.status.current.stage, world.reason) == (Stage.VERIFICATION, DecisionReason.AWAITING_GATES)
    assert (record.verdict, record.value, record.bound) == (Verdict.FAIL, "0.6%", "below 0.5%")
    world.values["errors"] = Decimal("0.001")
    world.until(ended)


def test_verification_is_about_the_audience_of_the_last_step() -> None:
    """A `Promote` skips the hold, but what a gate verifies must be measured after the read-back, `propagation` and its range."""
    gates = [{"name": "calm", "metric": "errors", "below": "1%"}, HEALTH, SMOKE]
    phase = {"name": "one", "features": ["alpha"], "steps": [{"percent": 100, "hold": "1h"}], "verification": gates}
    features = [{"name": "alpha"}]
    world = World(
        spec(phases=[phase], features=features, guards=[], propagation="60s"), ranges={"errors": timedelta(seconds=120)}
    )
    world.gates["health"] = Verdict.PASS
    world.until(at("one", 1))
    published = world.now
    world.request("Promote", generation=1, phase="one", step=1)
    world.run(10)
    assert world.status.current.stage is Stage.VERIFICATION
    assert world.jobs == {}
    assert world.check(CheckKind.VERIFICATION, "calm").reason is CheckReason.WARMING_UP
    world.run(60)
    assert world.check(CheckKind.VERIFICATION, "health").verdict is Verdict.PASS
    assert len(world.jobs) == 1
    assert world.status.current.stage is Stage.VERIFICATION
    world.until(ended)
    assert world.now - published == timedelta(seconds=180)


def test_problem_of_the_configuration_stalls_without_moving() -> None:
    """An unknown provider and an unknown time zone are the spec's problem, and nothing more is published."""
    world = World(spec(), problems=("`prometheus` is x, which is no provider",))
    world.run(60)
    assert (world.status.decision.action, world.reason) == (DecisionAction.STALL, DecisionReason.INVALID_SPEC)
    assert (world.condition("SpecValid"), world.condition_reason("SpecValid")) == ("False", "Invalid")
    assert [entry.event for entry in world.entries(EventReason.STALLED)] == [EventReason.STALLED]
    world.problems = ()
    world.until(ended)
    bad = World(spec(windows=[{"days": ["Mon"], "from": "09:00", "to": "10:00", "timeZone": "Mars/Olympus"}]))
    bad.run(10)
    assert bad.reason is DecisionReason.INVALID_SPEC
    assert len(bad.status.decision.details) == 1


def test_verification_is_about_the_last_step() -> None:
    """D4: a query over an hour says nothing about users who have the feature for two minutes."""
    gate = {"name": "calm", "metric": "burden", "below": "1%"}

    def change(data: dict[str, Any]) -> None:
        data["metrics"].append({"name": "burden", "query": "burden"})
        data["phases"][0].update(verification=[gate])

    world = World(edited(change, propagation="2m"), ranges={"burden": timedelta(hours=1)})
    world.values["burden"] = Decimal(0)
    world.until(at("one", 3))
    last = world.now
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    assert world.check(CheckKind.VERIFICATION, "calm").reason is CheckReason.WARMING_UP
    world.until(lambda world: world.where[0] == "two", 7200)
    assert world.now - last >= timedelta(hours=1, minutes=2)


@pytest.mark.parametrize("where", ["verification", "rollback"])
def test_builtin_gate_waits_for_the_range_of_its_queries(where: str) -> None:
    """A mean of an hour is about the time before the publish, or before the rollback, whoever wrote its query."""
    gates = [{"name": "capacity", "builtin": "Capacity"}]
    verified = {"rollback": {"verification": gates}} if where == "rollback" else {}
    plan = edited(
        lambda data: where == "rollback" or data["phases"][0].update(verification=gates), propagation="2m", **verified
    )
    world = World(plan, ranges={"capacity": timedelta(hours=1)}, gates={"capacity": Verdict.PASS})
    kind = CheckKind.AFTER_ROLLBACK if where == "rollback" else CheckKind.VERIFICATION
    world.until(at("one", 3))
    changed = world.now
    if where == "rollback":
        world.request("Abort")
        world.until(ended)
    world.until(lambda world: world.status.current.stage in {Stage.VERIFICATION, Stage.ENDED})
    assert world.check(kind, "capacity").verdict is Verdict.NOT_EVALUATED
    world.gates["capacity"] = Verdict.FAIL
    world.until(lambda world: world.check(kind, "capacity").verdict is not Verdict.NOT_EVALUATED, 7200)
    assert world.now - changed >= timedelta(hours=1, minutes=2)
    assert world.check(kind, "capacity").verdict is Verdict.FAIL


def test_preflight_accepts_the_data_that_exists() -> None:
    """Nothing is published, so that all of it is about what users have."""
    gate = {"name": "calm", "metric": "errors", "below": "1%"}
    world = World(spec(preflight=[gate], propagation="2m"), ranges={"errors": timedelta(hours=1)})
    world.run(20)
    assert world.status.current.stage is Stage.STEP


@pytest.mark.parametrize("stage", ["preflight", "verification"])
def test_gates_are_not_passed_on_verdicts_from_before_a_restart(stage: str) -> None:
    """The metric has become bad while the operator was away, and the approval that was missing is there at its start."""
    gates: list[dict[str, Any]] = [{"name": "calm", "metric": "errors", "below": "1%"}, {"name": "signed", "approval": {}}]
    world = World(spec(preflight=gates) if stage == "preflight" else edited(verified(gates)))
    world.until(lambda world: world.status.current.stage is (Stage.PREFLIGHT if stage == "preflight" else Stage.VERIFICATION))
    world.run(30)
    before = world.status.current
    world.now += timedelta(hours=3)
    world.values["errors"], world.answering = Decimal("0.04"), False
    world.request("Approve", generation=1, check="signed")
    world.settle()
    assert (world.status.current.stage, world.reason) == (before.stage, DecisionReason.AWAITING_GATES)
    world.answering = True
    world.run(30)
    assert world.status.current.stage is before.stage
    world.values["errors"] = Decimal("0.001")
    world.run(30)
    assert world.status.current.stage is not before.stage
