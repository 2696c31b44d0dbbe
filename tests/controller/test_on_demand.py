"""Read-only actions: each answer has a reason, and the loop of the rollout is neither needed nor disturbed."""

import asyncio
from typing import Any

import pytest

from controller.cluster import Cluster, Process, run
from session_rollout.api.action import ActionStatus, Result
from session_rollout.api.enums import ActionReason, CheckReason, Verdict
from session_rollout.api.progress import Progress
from session_rollout.controller import on_demand
from session_rollout.core.observed import JobObservation, JobState
from session_rollout.errors import Conflict, SpecError, Unavailable

GATES = [
    {"name": "health", "builtin": "Health"},
    {"name": "smoke", "job": {"profile": "smoke"}},
    {"name": "sign-off", "approval": {}},
]
MIGRATIONS = {
    "database": {"secretKeyRef": {"name": "db"}},
    "migrations": [{"name": "extra", "configMapRef": {"name": "sql"}}],
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_demand, "POLL_SECONDS", 0)


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with one rollout that has gates and a migration."""
    cluster = Cluster()
    cluster.add_rollout(preflight=GATES, **MIGRATIONS)
    cluster.diagnostics = {"errors": (Result(name="rate", verdict=Verdict.FAIL), Result(name="count", verdict=Verdict.PASS))}
    return cluster


def answer(cluster: Cluster, kind: str, **fields: Any) -> ActionStatus:
    """The answer to an action."""

    async def body() -> None:
        process = Process(cluster)
        process.inbox.action_changed(cluster.add_action("u1", kind, **fields))
        await process.on_demand._running["u1"]

    run(body)
    [(name, status)] = cluster.answers
    assert name == "action-u1"
    return status


def ends(cluster: Cluster, call: str, job: JobObservation) -> None:
    """The Job that this call creates has this state from the start."""

    def create() -> None:
        cluster.jobs = _Always(job)

    cluster.hooks[call] = create


class _Always(dict[str, JobObservation]):
    def __init__(self, job: JobObservation) -> None:
        super().__init__()
        self.job = job

    def get(self, *_: Any) -> Any:
        return self.job


def test_write_of_the_loop_is_not_a_reason_to_refuse(cluster: Cluster) -> None:
    """The read meets a write of the rollout's own loop and is repeated."""
    cluster.failures["read"] = [Conflict("older than the last write")]
    assert answer(cluster, "Diagnose", topic="errors").accepted
    assert cluster.calls.count("read") == 2


def test_diagnose(cluster: Cluster) -> None:
    status = answer(cluster, "Diagnose", topic="errors")
    assert (status.accepted, status.reason) == (True, ActionReason.ACCEPTED)
    assert [result.name for result in status.results] == ["rate", "count"]


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        ("Diagnose", {"topic": "nothing"}, ActionReason.UNKNOWN_TOPIC),
        ("Diagnose", {"topic": "errors", "rollout": "nobody"}, ActionReason.UNKNOWN_ROLLOUT),
        ("Verify", {"check": "nothing"}, ActionReason.UNKNOWN_CHECK),
        ("InspectMigration", {"migration": "nothing", "operation": "status"}, ActionReason.UNKNOWN_MIGRATION),
    ],
)
def test_refusals(cluster: Cluster, kind: str, fields: dict[str, str], reason: ActionReason) -> None:
    status = answer(cluster, kind, **fields)
    assert (status.accepted, status.reason) == (False, reason)
    assert status.conditions[0].reason == reason


def test_rollout_that_cannot_be_parsed(cluster: Cluster) -> None:
    next(iter(cluster.rollouts.values()))["spec"] = {"flagSet": 1}
    assert answer(cluster, "Verify").reason is ActionReason.INVALID


@pytest.mark.parametrize("error", [Unavailable("down"), SpecError("no such profile")])
def test_error_is_an_answer(cluster: Cluster, error: Exception) -> None:
    cluster.failures["start_check"] = [error]
    status = answer(cluster, "Verify", check="smoke")
    assert (status.accepted, status.reason) == (False, ActionReason.FAILED)


def test_action_that_takes_too_long(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Job never ends."""
    monkeypatch.setattr(on_demand, "LONGEST_SECONDS", 0.05)
    status = answer(cluster, "Verify", check="smoke")
    assert (status.accepted, status.reason) == (False, ActionReason.TIMED_OUT)


@pytest.mark.parametrize(
    ("state", "verdict", "reason"),
    [
        (JobState.SUCCEEDED, Verdict.PASS, CheckReason.JOB_SUCCEEDED),
        (JobState.FAILED, Verdict.FAIL, CheckReason.JOB_FAILED),
    ],
)
def test_verify_checks_every_gate(cluster: Cluster, state: JobState, verdict: Verdict, reason: CheckReason) -> None:
    ends(cluster, "start_check", JobObservation(state))
    status = answer(cluster, "Verify")
    assert [(result.name, result.verdict, result.reason) for result in sorted(status.results, key=lambda item: item.name)] == [
        ("health", Verdict.PASS, CheckReason.CHECK_SUCCEEDED),
        ("sign-off", Verdict.NOT_EVALUATED, CheckReason.AWAITING_APPROVAL),
        ("smoke", verdict, reason),
    ]


def test_approval_that_was_given_passes(cluster: Cluster) -> None:
    check = {"name": "sign-off", "kind": "Preflight", "verdict": "Pass", "reason": "Approved"}
    next(iter(cluster.rollouts.values()))["status"] = {"checks": [check]}
    [result] = answer(cluster, "Verify", check="sign-off").results
    assert (result.verdict, result.reason) == (Verdict.PASS, CheckReason.APPROVED)


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (JobObservation(JobState.SUCCEEDED), ActionReason.ACCEPTED),
        (JobObservation(JobState.FAILED, Progress(message="relation exists")), ActionReason.FAILED),
    ],
)
def test_inspection_tells_whether_its_job_succeeded_by_the_reason(
    cluster: Cluster, job: JobObservation, reason: ActionReason
) -> None:
    ends(cluster, "inspect", job)
    status = answer(cluster, "InspectMigration", migration="extra", operation="status")
    assert (status.accepted, status.reason) == (True, reason)
    assert status.output == job.message or status.output.startswith("output of shop-extra-status")


@pytest.mark.parametrize("error", [Unavailable("down"), KeyError("metadata")])
def test_answer_that_cannot_be_written_is_found_by_the_next_sweep(cluster: Cluster, error: Exception) -> None:
    """Whatever it is: the process does not end."""
    cluster.failures["answer"] = [error]

    async def body() -> None:
        process = Process(cluster)
        process.inbox.action_changed(cluster.add_action("u1", "Diagnose", topic="errors"))
        await process.on_demand._running["u1"]
        assert cluster.answers == []
        await asyncio.gather(process.inbox.sweep())
        await process.on_demand._running["u1"]
        assert len(cluster.answers) == 1

    run(body)
