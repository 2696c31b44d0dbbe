"""A rollout that is being deleted and still exists: what protects users works until it is gone, and nothing else does.

It waits for its Jobs, or for the finalizers of other controllers.

Not here: what becomes of the flags at the end (test_deletion), the loop and the finalizer (test_loops).
"""

from datetime import timedelta
from decimal import Decimal

import pytest

from controller.cluster import KEY, NOW, Cluster, Process, run
from session_rollout.api.enums import ActionReason, DecisionReason
from session_rollout.controller.finalizers import FINALIZER
from session_rollout.core.documents import read_document
from session_rollout.core.flags import NOBODY
from session_rollout.errors import Unavailable

JOB = ("shop-rows-up-1",)
OTHER = "example.org/x"


@pytest.fixture(params=[FINALIZER, OTHER], ids=["Job", "finalizer"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """A cluster whose rollout has published a step and is then deleted, which has to wait."""
    cluster = Cluster()
    cluster.add_rollout(guards=[{"name": "errors", "metric": "errors", "below": "5%"}])
    run(Process(cluster).settle)
    cluster.rollouts[KEY]["metadata"] |= {"deletionTimestamp": NOW.isoformat(), "finalizers": [request.param]}
    cluster.running_jobs = [JOB] * 100
    cluster.calls.clear()
    return cluster


def act(cluster: Cluster, *kinds: str) -> Process:
    """A process that hears these actions."""
    process = Process(cluster)
    for number, kind in enumerate(kinds):
        cluster.add_action(f"u{number}", kind, reason="drill")
    process.watch_actions()
    run(process.settle)
    return process


def answers(cluster: Cluster) -> list[tuple[bool | None, ActionReason | None]]:
    return [(answer.accepted, answer.reason) for _, answer in sorted(cluster.answers, key=lambda known: known[0])]


def test_wait_is_visible_and_nothing_advances(cluster: Cluster) -> None:
    before = cluster.text

    async def body() -> None:
        process = Process(cluster)
        for _ in range(30):
            cluster.time += timedelta(seconds=60)
            await process.reconcile()
        assert not process.state.deleted

    run(body)
    assert cluster.text == before
    assert cluster.status.decision.reason is DecisionReason.DELETING
    awaited = cluster.rollouts[KEY]["metadata"]["finalizers"][0]
    assert (JOB[0] if awaited == FINALIZER else OTHER) in cluster.status.decision.message
    assert not {"start", "start_check", "finalizer True", "finalizer False", "release"} & set(cluster.calls)


@pytest.mark.parametrize("cluster", [FINALIZER], indirect=True)
def test_loop_ends_with_the_job(cluster: Cluster) -> None:
    cluster.running_jobs = [JOB, Unavailable("down"), JOB, ()]

    async def body() -> None:
        process = Process(cluster)
        for _ in range(3):
            await process.reconcile()
            assert not process.state.deleted
        await process.reconcile()
        assert process.state.deleted

    run(body)


@pytest.mark.parametrize("cluster", [OTHER], indirect=True)
def test_loop_ends_when_the_object_is_gone(cluster: Cluster) -> None:
    async def body() -> None:
        process = Process(cluster)
        await process.reconcile()
        assert not process.state.deleted
        cluster.rollouts.clear()
        await process.reconcile()
        assert process.state.deleted

    run(body)


@pytest.mark.parametrize("kind", ["EmergencyDisable", "Abort"])
def test_what_protects_users_is_carried_out(cluster: Cluster, kind: str) -> None:
    act(cluster, kind)
    assert answers(cluster) == [(True, ActionReason.ACCEPTED)]
    assert read_document(cluster.text).audiences["alpha"] == NOBODY


def test_breach_turns_the_flags_off(cluster: Cluster) -> None:
    cluster.values["errors"] = Decimal("0.5")
    act(cluster)
    assert not read_document(cluster.text).gives_something
    assert cluster.status.current.rollback_guard == "errors"


def test_what_does_not_protect_users_is_rejected(cluster: Cluster) -> None:
    act(cluster, "Pause", "EmergencyEnable", "Resume", "Retry")
    assert answers(cluster) == [(False, ActionReason.DELETING)] * 4


def test_policy_off_does_not_wait(cluster: Cluster) -> None:
    """Everything is off first; then there is nothing left to protect, and actions are told so."""
    cluster.rollouts[KEY]["spec"]["deletionPolicy"] = "Off"
    cluster.failures["release"] = [Unavailable("down")]
    process = act(cluster, "EmergencyDisable")
    run(process.settle)
    assert answers(cluster)[0][1] in {ActionReason.ACCEPTED, ActionReason.DELETING}
    [text] = cluster.released
    assert text is not None
    assert not read_document(text).gives_something
    cluster.add_action("u9", "Abort", reason="drill")
    process.watch_actions()
    calls = len(cluster.calls)
    run(process.settle)
    assert answers(cluster)[-1] == (False, ActionReason.DELETING)
    assert not {"protect", "publish", "release"} & set(cluster.calls[calls:])
