"""A CRD that is older than the operator: the API server drops fields of the status. A real one is in tests/integration."""

from datetime import timedelta
from decimal import Decimal

import pytest

from controller.cluster import KEY, Cluster, Process, run
from session_rollout.api.enums import DecisionReason, EventReason, Outcome, State
from session_rollout.core.documents import read_document
from session_rollout.core.flags import NOBODY
from session_rollout.errors import Unavailable

FAILING = "status.checks[].failingTime"
GUARD = {"name": "errors", "metric": "errors", "below": "5%", "for": "30s"}


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with one rollout, whose guard needs half a minute to roll it back."""
    cluster = Cluster()
    cluster.add_rollout(guards=[GUARD])
    return cluster


async def stalled(cluster: Cluster, *fields: str) -> Process:
    """An operator that holds the first step, with an older CRD, while the guard fails."""
    process = Process(cluster)
    await process.settle()
    cluster.unknown_fields = frozenset(fields)
    cluster.values["errors"] = Decimal("0.5")
    await notice(process)
    return process


async def notice(process: Process) -> None:
    """The first incomplete write is answered with a pause, and the next decision stalls."""
    await process.settle()
    await process.settle()


async def wait(cluster: Cluster, process: Process, seconds: int) -> None:
    for _ in range(seconds // 10):
        cluster.time += timedelta(seconds=10)
        await process.settle()


def test_rollout_stalls_and_names_the_field(cluster: Cluster) -> None:
    async def body() -> None:
        await stalled(cluster, FAILING)
        status = cluster.status
        assert (status.state, status.decision.reason) == (State.STALLED, DecisionReason.INVALID_SPEC)
        assert FAILING in status.decision.message
        assert "apply the CRDs" in status.decision.next_actions[0]
        assert [(refusal.effect, refusal.verb) for refusal in status.refusals] == [("StatusFields", "")]
        assert status.current.hold_paused_reason is DecisionReason.INVALID_SPEC

    run(body)


def test_guard_rolls_back_after_its_time(cluster: Cluster) -> None:
    """The time of the failure is known to the process alone."""

    async def body() -> None:
        process = await stalled(cluster, FAILING)
        await wait(cluster, process, 20)
        assert cluster.status.outcome is None
        await wait(cluster, process, 20)
        assert cluster.status.outcome is Outcome.ROLLED_BACK
        assert read_document(cluster.text).audiences["alpha"] == NOBODY

    run(body)


def test_rollback_happens_once(cluster: Cluster) -> None:
    """Its own marks are among the fields that the CRD of the first release does not have."""

    async def body() -> None:
        process = await stalled(cluster, FAILING, "status.current.rollbackUid", "status.flags.settled", "status.refusals")
        await wait(cluster, process, 120)
        assert [entry.event for entry in cluster.status.history].count(EventReason.ROLLED_BACK) == 1
        assert cluster.events.count(EventReason.ROLLBACK_STARTED) == 1

    run(body)


def test_audience_does_not_grow(cluster: Cluster) -> None:
    """Whatever the field is for: the next one may be what keeps it back."""

    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        assert cluster.document is not None
        before = cluster.document.audiences["alpha"]
        cluster.unknown_fields = frozenset({"status.progress"})
        await wait(cluster, process, 600)
        assert cluster.document.audiences["alpha"] == before
        assert cluster.status.state is State.STALLED

    run(body)


def test_steady_stall_is_recorded_once(cluster: Cluster) -> None:
    """Each decision writes again, to learn of a new CRD, and nothing else."""

    async def body() -> None:
        process = Process(cluster)
        cluster.unknown_fields = frozenset({"status.current.stageStartTime"})
        await process.settle()
        await wait(cluster, process, 10)
        version, records = cluster.rollouts[KEY]["metadata"]["resourceVersion"], len(cluster.records)
        cluster.calls.clear()
        await wait(cluster, process, 50)
        assert cluster.calls.count("write_status") == 5
        assert cluster.rollouts[KEY]["metadata"]["resourceVersion"] == version
        assert len(cluster.records) == records

    run(body)


@pytest.mark.parametrize("field", [FAILING, "status.decision.nextTime"])
def test_stall_ends_with_the_new_crd_and_not_before(cluster: Cluster, field: str) -> None:
    """A stall may itself have none of the fields that are dropped."""

    async def body() -> None:
        process = Process(cluster)
        cluster.unknown_fields = frozenset({field})
        cluster.values["errors"] = Decimal("0.5")
        await process.settle()
        cluster.values["errors"] = Decimal("0.001")
        await wait(cluster, process, 60)
        assert cluster.status.decision.reason is DecisionReason.INVALID_SPEC
        assert [entry.event for entry in cluster.status.history].count(EventReason.STALLED) == 1
        cluster.unknown_fields = frozenset()
        await wait(cluster, process, 20)
        assert cluster.status.state is State.PROGRESSING
        assert cluster.status.refusals == ()

    run(body)


def test_unknown_answer_to_the_probe_keeps_the_stall(cluster: Cluster) -> None:
    async def body() -> None:
        process = Process(cluster)
        cluster.unknown_fields = frozenset({"status.decision.nextTime"})
        await notice(process)
        cluster.failures["probe_status"] = [Unavailable("down")]
        cluster.unknown_fields = frozenset()
        await wait(cluster, process, 10)
        assert "probe_status" in cluster.calls
        assert cluster.status.state is State.STALLED

    run(body)


def test_restarted_operator_stalls_again(cluster: Cluster) -> None:
    """It does not know since when the guard fails; it says so."""

    async def body() -> None:
        await stalled(cluster, FAILING)
        process = Process(cluster)
        await notice(process)
        assert (cluster.status.state, list(process.state.refusals)) == (State.STALLED, ["StatusFields"])
        await wait(cluster, process, 40)
        assert cluster.status.outcome is Outcome.ROLLED_BACK

    run(body)
