"""A rollout that is being deleted and still exists: what protects users works until it is gone, and nothing else does.

It waits for its Jobs, or for the finalizers of other controllers.

Not here: what becomes of the flags at the end (test_deletion), the loop and the finalizer (test_loops).
"""

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from controller.cluster import DOCUMENT, KEY, NOW, Cluster, Process, run, until
from session_rollout.api.enums import ActionReason, DecisionReason, EventReason
from session_rollout.controller import reconciler
from session_rollout.controller.finalizers import FINALIZER
from session_rollout.core.documents import read_document
from session_rollout.core.flags import NOBODY
from session_rollout.errors import Conflict, Unavailable

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


@pytest.fixture
def off(cluster: Cluster) -> Process:
    """Its deletion has turned everything off, and waits."""
    cluster.rollouts[KEY]["spec"]["deletionPolicy"] = "Off"
    process = Process(cluster)
    run(process.settle)
    assert cluster.document is not None
    assert not cluster.document.gives_something
    return process


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


def restore(cluster: Cluster, text: str, *, labelled: bool) -> None:
    """Another client writes this document."""
    assert cluster.document is not None
    owner = KEY.name if labelled else None
    known: dict[str, Any] = {"version": cluster.document.version + 1, "owner": owner, "labelled": labelled, "editor": "velero"}
    cluster.document = read_document(text, **known)


@pytest.mark.parametrize("labelled", [True, False])
def test_policy_off_turns_off_what_another_client_gives_back(cluster: Cluster, off: Process, *, labelled: bool) -> None:
    """A backup is restored, or a GitOps tool manages the document: for as long as the deletion waits."""
    for attempt in range(1, 3):
        restore(cluster, cluster.text, labelled=labelled)
        assert cluster.document is not None
        assert cluster.document.gives_something
        if labelled:
            off.reconciler.document_changed(DOCUMENT, cluster.document)
        run(off.settle)
        assert not cluster.document.gives_something
        assert cluster.events.count(EventReason.FLAG_DRIFT) == attempt
    assert cluster.status.decision.reason is DecisionReason.DELETING


@pytest.mark.parametrize("kind", ["EmergencyDisable", "Abort"])
def test_action_is_not_told_that_features_are_off_while_the_document_gives_them(
    cluster: Cluster, off: Process, kind: str
) -> None:
    """The write that turns them off again is refused, or comes too late: the action is carried out."""
    restore(cluster, cluster.text, labelled=False)
    cluster.failures["release"] = [Conflict("changed since")]
    cluster.add_action("u1", kind, reason="drill")
    off.watch_actions()
    run(off.settle)
    assert answers(cluster) == [(True, ActionReason.ACCEPTED)]
    run(off.settle)
    assert cluster.document is not None
    assert not cluster.document.gives_something


def test_action_is_carried_out_if_a_client_writes_after_the_release(
    cluster: Cluster, off: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the release and the decision."""
    flags = off.reconciler._remains._ports.flags
    release = flags.release

    async def release_in_vain(*arguments: Any) -> None:
        await release(*arguments)
        restore(cluster, cluster.text, labelled=False)

    monkeypatch.setattr(flags, "release", release_in_vain)
    restore(cluster, cluster.text, labelled=False)
    cluster.add_action("u1", "Abort", reason="drill")
    off.watch_actions()
    run(off.settle)
    assert answers(cluster) == [(True, ActionReason.ACCEPTED)]
    assert cluster.document is not None
    assert not cluster.document.gives_something


def test_document_is_read_soon_while_the_deletion_keeps_it_off(
    cluster: Cluster, off: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing wakes the loop when a document without a label changes."""
    monkeypatch.setattr(reconciler, "KEEP_OFF_SECONDS", 0.01)
    monkeypatch.setattr(reconciler, "JITTER_SECONDS", 0)

    async def body() -> None:
        stopped = asyncio.Event()
        loop = asyncio.create_task(off.reconciler.run(KEY, stopped))
        await until(lambda: cluster.calls.count("read") > 3)
        restore(cluster, cluster.text, labelled=False)
        await until(lambda: cluster.document and not cluster.document.gives_something)
        stopped.set()
        await loop

    run(body)


def test_retained_document_is_corrected_as_before(cluster: Cluster) -> None:
    """Policy `Retain`: what a rollback has turned off stays off, whoever writes the earlier document."""
    before = cluster.text
    process = act(cluster, "Abort")
    assert cluster.document is not None
    assert not cluster.document.gives_something
    restore(cluster, before, labelled=True)
    process.reconciler.document_changed(DOCUMENT, cluster.document)
    run(process.settle)
    assert not read_document(cluster.text).gives_something
    assert cluster.released == []
