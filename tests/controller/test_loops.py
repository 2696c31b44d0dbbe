"""Loops: each rollout has one from its creation to the end of its deletion, whatever the watch delivers or misses."""

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from controller.cluster import KEY, NOW, Cluster, Process, run, until
from session_rollout.api.enums import DecisionReason
from session_rollout.controller import finalizers, loops, reconciler
from session_rollout.controller import state as remembered
from session_rollout.controller.finalizers import FINALIZER
from session_rollout.controller.loops import Loop
from session_rollout.controller.state import HUNG_SECONDS
from session_rollout.core.documents import read_document
from session_rollout.errors import Forbidden, Request, RolloutError, SpecError, Unavailable
from session_rollout.ports import Key

OFF = {"deletionPolicy": "Off"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "delay", lambda *_: 0)
    monkeypatch.setattr(finalizers, "delay", lambda *_: 0)
    monkeypatch.setattr(reconciler, "JITTER_SECONDS", 0)


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with one rollout that has a finalizer."""
    cluster = Cluster()
    cluster.add_rollout(**OFF)
    return cluster


def delete(cluster: Cluster) -> dict[str, Any]:
    """Request the deletion."""
    raw = cluster.rollouts[KEY]
    raw["metadata"]["deletionTimestamp"] = NOW.isoformat()
    return raw


def test_loop_starts_with_the_event_and_lives_to_the_end_of_the_deletion(cluster: Cluster) -> None:
    async def body() -> None:
        process = Process(cluster)
        process.loops.rollout_changed(KEY, cluster.rollouts[KEY])
        await until(lambda: cluster.document)
        assert cluster.rollouts[KEY]["metadata"]["finalizers"] == [FINALIZER]
        process.loops.rollout_changed(KEY, delete(cluster))
        await until(lambda: KEY not in cluster.rollouts and not process.loops._loops)
        assert len(cluster.released) == 1
        assert process.deleted == [KEY]
        process.loops.rollout_changed(KEY, {"metadata": {"uid": "uid-1"}}, deleted=True)
        assert not process.loops._loops

    run(body)


def test_rollout_whose_creation_event_was_lost_gets_its_loop(cluster: Cluster) -> None:
    """R9: the sweep starts it."""

    async def body() -> None:
        process = Process(cluster)
        await process.inbox.sweep()
        await until(lambda: cluster.document)
        before = process.loops._loops[KEY].task
        await process.inbox.sweep()
        assert process.loops._loops[KEY].task is before, "there is one"
        await process.loops.close()

    run(body)


@pytest.mark.parametrize("error", [Forbidden("a policy"), SpecError("a policy"), Unavailable("down"), KeyError("metadata")])
def test_finalizer_that_cannot_be_removed_is_removed_later(cluster: Cluster, error: Exception) -> None:
    """R9: a policy refuses the removal for a while. What nobody foresaw ends neither this deletion nor the process."""
    cluster.rollouts[KEY]["metadata"]["finalizers"] = [FINALIZER]
    cluster.failures["finalizer False"] = [error] * 5

    async def body() -> None:
        process = Process(cluster)
        process.loops.rollout_changed(KEY, delete(cluster))
        await until(lambda: KEY not in cluster.rollouts)
        assert cluster.calls.count("finalizer False") == 6
        await until(lambda: not process.loops._loops)

    run(body)


@pytest.mark.parametrize("lost", ["request", "end"])
def test_deletion_whose_event_was_lost_is_seen(cluster: Cluster, lost: str) -> None:
    """R9: neither the request nor the end of a deletion has to be delivered."""

    async def body() -> None:
        process = Process(cluster)
        process.loops.rollout_changed(KEY, cluster.rollouts[KEY])
        await until(lambda: cluster.document)
        delete(cluster)
        if lost == "end":
            del cluster.rollouts[KEY]
        await process.inbox.sweep()
        await until(lambda: not process.loops._loops)
        assert KEY not in cluster.rollouts
        assert process.deleted == [KEY]

    run(body)


def test_false_report_of_a_deletion_ends_nothing(cluster: Cluster) -> None:
    """R15: a watch may say anything. The object is read before its flags are released."""

    async def body() -> None:
        process = Process(cluster)
        process.loops.rollout_changed(KEY, cluster.rollouts[KEY])
        await until(lambda: cluster.document)
        process.loops.rollout_changed(KEY, cluster.rollouts[KEY], deleted=True)
        await until(lambda: not process.loops._loops)
        assert cluster.released == []
        await process.inbox.sweep()
        count = len(process.reconciled)
        await until(lambda: len(process.reconciled) > count)
        await process.loops.close()

    run(body)


def test_object_of_the_same_name_gets_a_loop_of_its_own(cluster: Cluster) -> None:
    """It was deleted and created again, faster than its loop noticed."""

    async def body() -> None:
        process = Process(cluster)
        process.loops.rollout_changed(KEY, cluster.rollouts[KEY])
        await until(lambda: cluster.document)
        raw = cluster.add_rollout(**OFF)
        raw["metadata"]["uid"] = "uid-2"
        process.loops.rollout_changed(KEY, raw)
        await until(lambda: KEY in process.loops._loops and process.loops._loops[KEY].uid == "uid-2")
        assert process.deleted == [KEY], "the first one was ended"
        await until(lambda: "status" in raw)
        await process.loops.close()

    run(body)


def test_only_what_needs_it_has_a_finalizer(cluster: Cluster) -> None:
    """R4: nothing of the operator blocks the deletion of a namespace whose rollouts keep their flags and have no Jobs."""

    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        assert cluster.rollouts[KEY]["metadata"]["finalizers"] == [FINALIZER]
        cluster.rollouts[KEY]["spec"]["deletionPolicy"] = "Retain"
        await process.settle()
        assert cluster.rollouts[KEY]["metadata"]["finalizers"] == []

    run(body)


def refused(kind: type[RolloutError] = Forbidden) -> RolloutError:
    """What the API server says about the finalizer."""
    error = kind("a policy or a webhook")
    error.request = Request("patch", "sessionrollouts", "default")
    return error


def gives_something(cluster: Cluster) -> bool:
    """Whether users have a feature."""
    return read_document(cluster.text).gives_something


@pytest.mark.parametrize("error", [refused(), refused(Unavailable)])
def test_policy_off_gives_nobody_anything_before_it_has_its_finalizer(cluster: Cluster, error: Exception) -> None:
    """A deletion while the operator is away would leave it on. The status says what is in the way."""
    cluster.failures["finalizer True"] = [error] * 3

    async def body() -> None:
        process = Process(cluster)
        for _ in range(3):
            await process.reconcile()
            assert cluster.status.decision.reason is DecisionReason.REQUEST_REFUSED
            assert [refusal.effect for refusal in cluster.status.refusals] == ["Finalizer"]
            assert not gives_something(cluster)
            assert condition(cluster, "Stalled") == "True"
        for _ in range(2):
            await process.settle()
        assert cluster.rollouts[KEY]["metadata"]["finalizers"] == [FINALIZER]
        assert cluster.status.refusals == ()
        assert gives_something(cluster)

    run(body)


def condition(cluster: Cluster, kind: str) -> str:
    """Status of a condition."""
    return next(known.status for known in cluster.status.conditions if known.type == kind)


@pytest.mark.parametrize("policy", ["Off", "Retain"])
def test_refused_finalizer_is_only_shown_where_it_holds_nothing_up(cluster: Cluster, policy: str) -> None:
    """Users have the features already, or a deletion would only terminate Jobs."""
    raw, process = cluster.add_rollout(), Process(cluster)
    if policy == "Off":
        run(process.settle)
        raw["spec"]["deletionPolicy"] = "Off"
    else:
        raw["spec"]["phases"][0]["verification"] = [{"name": "smoke", "job": {"profile": "smoke"}}]
    cluster.failures["finalizer True"] = [refused()] * 30
    for _ in range(2):  # what protects users comes first, so that the next decision knows of the refusal
        run(process.settle)
    assert gives_something(cluster)
    [refusal] = cluster.status.refusals
    assert (refusal.effect, refusal.verb, refusal.resource) == ("Finalizer", "patch", "sessionrollouts")
    assert refusal.remedy
    assert condition(cluster, "Stalled") == "False"


@pytest.mark.parametrize("finalizers", [[], ["example.org/x"]])
def test_rollout_that_waits_for_the_finalizers_of_others_keeps_its_loop(cluster: Cluster, finalizers: list[str]) -> None:
    """An emergency must be heard for as long as it exists."""

    async def body() -> None:
        raw = delete(cluster)
        raw["metadata"]["finalizers"] = finalizers
        process = Process(cluster)
        process.loops.rollout_changed(KEY, raw)
        assert bool(process.loops._loops) is bool(finalizers)
        await process.loops.close()

    run(body)


def test_exception_that_nobody_foresaw_ends_no_loop(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """One line with its class and place; the loop continues."""
    cluster.failures["read"] = [KeyError("metadata")]

    async def body() -> None:
        process = Process(cluster)
        process.loops.rollout_changed(KEY, cluster.rollouts[KEY])
        await until(lambda: cluster.document)
        await process.loops.close()

    run(body)
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert vars(record)["class"] == "KeyError"
    assert vars(record)["place"].endswith(" in read_soon")


def test_loop_that_hangs_does_not_hold_up_the_end_of_the_process(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(loops, "GRACE_SECONDS", 0.05)
    monkeypatch.setattr(cluster, "read", hang)

    async def body() -> None:
        process = Process(cluster)
        process.loops.rollout_changed(KEY, cluster.rollouts[KEY])
        await asyncio.wait_for(process.loops.close(), 60)
        assert not process.loops._loops

    run(body)


async def reconciling(process: Process, stopped: asyncio.Event) -> None:
    await process.reconciler.run(KEY, stopped)


async def deleting(process: Process, _: asyncio.Event) -> None:
    await process.loops._end(KEY, Loop(process.cluster.rollouts[KEY]))


@pytest.mark.parametrize(("work", "overdue"), [(reconciling, (KEY,)), (deleting, ())])
def test_loop_hangs_when_it_works_for_ever_and_not_when_requests_are_slow(
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    work: Callable[[Process, asyncio.Event], Coroutine[Any, Any, None]],
    overdue: tuple[Key, ...],
) -> None:
    """A restart helps only the first: the liveness probe must not end an operator that works, whatever its API server does."""
    seconds = [0.0]
    monkeypatch.setattr(remembered, "time", SimpleNamespace(monotonic=lambda: seconds[0]))

    async def body() -> None:
        process, stopped = Process(cluster), asyncio.Event()
        begun = asyncio.Event()

        async def read(_: object) -> None:
            begun.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(cluster, "read", read)
        loop = asyncio.create_task(work(process, stopped))
        await begun.wait()
        seconds[0] = HUNG_SECONDS - 1
        assert (process.memory.overdue(), process.memory.hung()) == (overdue, ())
        seconds[0] = HUNG_SECONDS + 1
        assert process.memory.hung() == (KEY,)
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        assert process.memory.hung() == ()

    run(body)
