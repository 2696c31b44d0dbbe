"""What protects users works to the end of a deletion, and is written before it: whatever is refused, hangs, or comes next.

Not here: what is decided while a deletion waits (test_deleting), what becomes of the flags (test_deletion).
"""

import asyncio
import copy
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from controller.cluster import DOCUMENT, KEY, NOW, Cluster, Process, run, until
from session_rollout.api.enums import ActionReason, EventReason
from session_rollout.controller import deletion, finalizers, loops, reconciler, requests
from session_rollout.controller.finalizers import FINALIZER
from session_rollout.errors import Forbidden, Unavailable

JOB = ("shop-rows-up-1",)
ALWAYS = 100_000
WHAT = pytest.mark.parametrize("what", ["breach", "emergency"])


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (loops, finalizers, reconciler):
        monkeypatch.setattr(module, "delay", lambda *_: 0.01)
    monkeypatch.setattr(reconciler, "JITTER_SECONDS", 0)
    monkeypatch.setattr(requests, "RESPONSE_SECONDS", 0.02)


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with one rollout, whose guard acts at once and which keeps its flags on deletion."""
    cluster = Cluster()
    cluster.add_rollout(guards=[{"name": "errors", "metric": "errors", "below": "5%"}])
    return cluster


def is_on(cluster: Cluster) -> bool:
    """Whether users have a feature."""
    return cluster.document is not None and cluster.document.gives_something


async def holding(cluster: Cluster) -> Process:
    """A process that has published the first step, and goes on."""
    process = Process(cluster)
    process.loops.rollout_changed(KEY, copy.deepcopy(cluster.rollouts[KEY]))
    await until(lambda: cluster.rollouts[KEY].get("status") and cluster.status.current.published_time is not None)
    return process


def happen(cluster: Cluster, process: Process, what: str) -> None:
    """Something from which users must be protected."""
    if what == "breach":
        cluster.values["errors"] = Decimal("0.5")
        process.state.wake.set()
    else:
        process.inbox.action_changed(cluster.add_action("e1", "EmergencyDisable", reason="drill"))


def delete(cluster: Cluster, process: Process, *finalizers: str) -> None:
    """Request the deletion; without finalizers, the object is gone."""
    raw = cluster.rollouts[KEY]
    raw["metadata"] |= {"deletionTimestamp": NOW.isoformat(), "finalizers": list(finalizers)}
    if not finalizers:
        del cluster.rollouts[KEY]
    process.loops.rollout_changed(KEY, copy.deepcopy(raw), deleted=not finalizers)


async def close(process: Process) -> None:
    process.loops._stopped.set()
    process.state.wake.set()
    await process.loops.close()


@WHAT
@pytest.mark.parametrize("status", ["stored", "refused"])
@pytest.mark.parametrize("finalizer", [(), (FINALIZER,)], ids=["gone", "finalizer"])
def test_what_is_not_in_force_is_written_before_the_end(
    cluster: Cluster, what: str, status: str, finalizer: tuple[str, ...]
) -> None:
    """Policy `Retain` keeps what users have, and not what was decided to be off."""

    async def body() -> None:
        process = await holding(cluster)
        cluster.failures["protect"] = [Unavailable("etcd leader changed")] * 8
        if status == "refused":
            cluster.failures["write_status"] = [Forbidden("a policy")] * ALWAYS
        happen(cluster, process, what)
        await until(lambda: cluster.calls.count("protect") >= 2)
        delete(cluster, process, *finalizer)
        await until(lambda: process.deleted == [KEY])
        assert not is_on(cluster)
        assert cluster.document is not None
        assert cluster.document.owner is None
        assert bool(cluster.document.rolled_back) is (what == "breach")
        if what == "emergency":
            await until(lambda: cluster.answers)
            assert cluster.answers[-1][1].accepted

    run(body)


@pytest.mark.parametrize("finalizer", [(), (FINALIZER,)], ids=["gone", "finalizer"])
def test_write_that_is_refused_for_good_holds_up_no_deletion(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, finalizer: tuple[str, ...]
) -> None:
    """The Event says so."""
    monkeypatch.setattr(deletion, "RELEASE_SECONDS", 0.1)

    async def body() -> None:
        process = await holding(cluster)
        cluster.failures["protect"] = [Forbidden("the namespace is terminating")] * ALWAYS
        happen(cluster, process, "breach")
        await until(lambda: cluster.calls.count("protect") >= 2)
        delete(cluster, process, *finalizer)
        await until(lambda: process.deleted == [KEY])
        assert EventReason.FLAGS_NOT_RELEASED in cluster.events

    run(body)


def test_policy_off_of_the_last_edit_counts(cluster: Cluster) -> None:
    """The object is gone before a decision has seen the edit, and before it has a finalizer."""

    async def body() -> None:
        process = await holding(cluster)
        assert is_on(cluster)
        raw = cluster.rollouts[KEY]
        raw["spec"]["deletionPolicy"] = "Off"
        raw["metadata"]["generation"] += 1
        raw["metadata"]["resourceVersion"] = str(int(raw["metadata"]["resourceVersion"]) + 1)
        process.loops.rollout_changed(KEY, copy.deepcopy(raw))
        delete(cluster, process)
        await until(lambda: process.deleted == [KEY])
        assert not is_on(cluster)

    run(body)


@pytest.mark.parametrize("finalizer", [(), (FINALIZER,)], ids=["gone", "finalizer"])
def test_document_that_is_deleted_with_its_rollout_does_not_come_back(cluster: Cluster, finalizer: tuple[str, ...]) -> None:
    """Nobody would ever delete it."""

    async def body() -> None:
        process = await holding(cluster)
        happen(cluster, process, "emergency")
        await until(lambda: cluster.answers)
        delete(cluster, process, *finalizer)
        assert cluster.document is not None
        process.reconciler.document_changed(DOCUMENT, replace(cluster.document, version=99), deleted=True)
        cluster.document = None
        await until(lambda: process.deleted == [KEY])
        assert cluster.document is None

    run(body)


def test_emergency_that_waits_when_the_deletion_is_noticed_is_carried_out(cluster: Cluster) -> None:
    """Both came while the operator started again."""
    run(Process(cluster).settle)

    async def body() -> None:
        process = Process(cluster)
        process.inbox.action_changed(cluster.add_action("e1", "EmergencyDisable", reason="drill"))
        process.loops.rollout_changed(KEY, cluster.rollouts[KEY])
        delete(cluster, process, FINALIZER)
        await until(lambda: process.deleted == [KEY])
        assert not is_on(cluster)
        assert [answer.reason for _, answer in cluster.answers] == [ActionReason.ACCEPTED]

    run(body)


@pytest.mark.parametrize("how", ["refused", "hangs"])
@pytest.mark.parametrize("what", ["breach", "emergency", "policy Off"])
def test_jobs_that_cannot_be_listed_delay_no_protection(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, what: str, how: str
) -> None:
    """The deletion waits, because Jobs may run; `status.refusals` says so in the end."""
    if what == "policy Off":
        cluster.rollouts[KEY]["spec"]["deletionPolicy"] = "Off"
    cluster.running_jobs = [Unavailable("HTTP status 429")] * ALWAYS

    async def body() -> None:
        process = await holding(cluster)
        if how == "hangs":
            monkeypatch.setattr(process.reconciler._ports.jobs, "running", hang)
        delete(cluster, process, FINALIZER)
        await until(lambda: "RunningJobs" in process.state.refusals)
        if what != "policy Off":
            assert is_on(cluster)
            happen(cluster, process, what)
        await until(lambda: not is_on(cluster))
        assert KEY in cluster.rollouts
        await close(process)

    run(body)


async def hang(*_: Any) -> Any:
    await asyncio.Event().wait()


@WHAT
@pytest.mark.parametrize("refused", ["release", "finalizer False", "Jobs"])
def test_guards_and_emergencies_work_while_the_end_is_refused(cluster: Cluster, what: str, refused: str) -> None:
    """The label of the document must stay, the finalizer too, or a Job had no Pod for a moment."""
    if refused == "Jobs":
        cluster.running_jobs = [(), *[JOB] * ALWAYS]
    else:
        cluster.failures[refused] = [Forbidden("a policy")] * ALWAYS

    async def body() -> None:
        process = await holding(cluster)
        delete(cluster, process, FINALIZER)
        await until(lambda: cluster.calls.count("running" if refused == "Jobs" else refused) >= 2)
        assert is_on(cluster)
        happen(cluster, process, what)
        await until(lambda: not is_on(cluster))
        assert KEY in cluster.rollouts
        await close(process)

    run(body)


@WHAT
@pytest.mark.parametrize("policy", ["Retain", "Off"])
@pytest.mark.parametrize("refused", ["release", "protect"])
def test_object_that_is_created_again_does_not_wait_for_the_end_of_the_old_one(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, what: str, policy: str, refused: str
) -> None:
    """`kubectl replace --force`, or a restore with its status. What was not in force is tried for a moment."""
    monkeypatch.setattr(deletion, "SUCCESSOR_SECONDS", 0.1)
    cluster.running_jobs = [Unavailable("HTTP status 429")] * ALWAYS
    cluster.rollouts[KEY]["spec"]["deletionPolicy"] = policy

    async def body() -> None:
        process = await holding(cluster)
        cluster.failures[refused] = [Forbidden("a policy")] * ALWAYS
        if refused == "protect":
            happen(cluster, process, "breach")
            await until(lambda: cluster.calls.count("protect") >= 2)
            cluster.values["errors"] = Decimal("0.001")
        old = cluster.rollouts[KEY]
        new = copy.deepcopy(old)
        new["metadata"] |= {"uid": "uid-2", "resourceVersion": "100", "finalizers": []}
        cluster.rollouts[KEY] = new
        process.loops.rollout_changed(KEY, copy.deepcopy(old), deleted=True)
        process.loops.rollout_changed(KEY, copy.deepcopy(new))
        await until(lambda: KEY in process.loops._loops and process.loops._loops[KEY].uid == "uid-2")
        cluster.failures.pop("protect", None)
        happen(cluster, process, what)
        await until(lambda: not is_on(cluster))
        await close(process)

    run(body)
