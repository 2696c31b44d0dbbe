"""What protects users comes first and needs nothing else: refused status writes, late documents, unforeseen exceptions.

The real API server is for tests/integration.
"""

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from controller.cluster import DOCUMENT, KEY, Cluster, Process, run, until
from session_rollout.api.enums import ActionType, DecisionReason, EventReason, Outcome, State
from session_rollout.controller import backoff, decisions
from session_rollout.core import actions
from session_rollout.core.documents import read_document
from session_rollout.core.flags import NOBODY
from session_rollout.errors import Conflict, Forbidden, Request, SpecError, Unavailable


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with one rollout, whose guard acts at once."""
    cluster = Cluster()
    cluster.add_rollout(guards=[{"name": "errors", "metric": "errors", "below": "5%"}])
    return cluster


async def published(cluster: Cluster) -> Process:
    """An operator that has published the first step."""
    process = Process(cluster)
    await process.settle()
    assert cluster.document is not None
    assert cluster.document.audiences["alpha"] != NOBODY
    cluster.calls.clear()
    return process


def refuse_status(cluster: Cluster, error: Exception, times: int = 1000) -> None:
    cluster.failures["write_status"] = [error] * times


def disabled(cluster: Cluster) -> list[tuple[str, str | None]]:
    """Feature and UID of the action, as the stored status has them."""
    return [(record.feature, record.uid) for record in cluster.status.flags.disabled]


ERRORS = [Unavailable("down"), Forbidden("sessionrollouts/status"), SpecError("invalid")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_breach_turns_flags_off_without_a_status_write(cluster: Cluster, error: Exception) -> None:
    """R1, R12: the document is written first, and what happened is recorded when the status can be written."""

    async def body() -> None:
        process = await published(cluster)
        refuse_status(cluster, error)
        cluster.values["errors"] = Decimal("0.5")
        await process.reconcile()
        assert cluster.calls[:2] == ["read", "protect"]
        assert read_document(cluster.text).audiences["alpha"] == NOBODY
        for _ in range(5):
            cluster.time += timedelta(seconds=10)
            await process.reconcile()
        assert cluster.status.outcome is None
        assert cluster.calls.count("protect") == 1
        cluster.failures.clear()
        cluster.values["errors"] = Decimal("0.001")
        await process.settle()
        assert cluster.status.outcome is Outcome.ROLLED_BACK
        assert cluster.status.current.rollback_guard == "errors"

    run(body)


@pytest.mark.parametrize("error", [Unavailable("TimeoutError"), Forbidden("sessionrollouts"), Conflict("written by others")])
def test_flags_are_turned_off_before_the_finalizer_is_added(error: Exception) -> None:
    """Its request may hang for seconds; what the decision begins afterwards waits for it all the same."""
    cluster = Cluster()
    cluster.add_rollout(guards=[{"name": "errors", "metric": "errors", "below": "5%"}], deletionPolicy="Off")

    async def body() -> None:
        process = await published(cluster)
        cluster.rollouts[KEY]["metadata"]["finalizers"] = []  # somebody has removed it
        cluster.failures["finalizer True"] = [error] * 1000
        cluster.values["errors"] = Decimal("0.5")
        await process.reconcile()
        assert cluster.calls[:3] == ["read", "protect", "finalizer True"]
        assert read_document(cluster.text).audiences["alpha"] == NOBODY

    run(body)


def test_repeated_conflicts_do_not_blind_a_guard() -> None:
    """R12, R15: whatever else changes in the object, `for` goes on."""
    cluster = Cluster()
    cluster.add_rollout(guards=[{"name": "errors", "metric": "errors", "below": "5%", "for": "30s"}])

    async def body() -> None:
        process = await published(cluster)
        refuse_status(cluster, Conflict("the object has been modified"))
        cluster.values["errors"] = Decimal("0.5")
        for _ in range(5):
            await process.reconcile()
            cluster.time += timedelta(seconds=10)
        assert read_document(cluster.text).audiences["alpha"] == NOBODY

    run(body)


def test_conflict_with_an_edit_drops_what_was_decided_before_it() -> None:
    """What was decided about another spec is not carried out."""
    cluster = Cluster()
    cluster.add_rollout()

    async def body() -> None:
        process = await published(cluster)
        cluster.failures["write_status"] = [Conflict("the object has been modified")]
        cluster.values["errors"] = Decimal("0.5")
        await process.reconcile()
        assert process.state.decided is not None
        assert process.state.base(cluster.status, 1) == process.state.decided.decided
        assert process.state.base(cluster.status, 2) == cluster.status
        assert process.state.decided is None

    run(body)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_emergency_needs_no_status_write(cluster: Cluster, error: Exception) -> None:
    """R12: also for the next process, which knows only the document and the stored status."""

    async def body() -> None:
        process = await published(cluster)
        refuse_status(cluster, error)
        cluster.add_action("u1", "EmergencyDisable", features=["alpha"], reason="drill")
        process.watch_actions()
        await process.reconcile()
        await process.reconcile()
        assert "alpha" in read_document(cluster.text).disabled
        assert [name for name, answer in cluster.answers if answer.accepted] == ["action-u1"]
        assert disabled(cluster) == []
        cluster.failures.clear()
        cluster.action_objects.clear()
        await Process(cluster).settle()
        assert disabled(cluster) == [("alpha", "u1")]

    run(body)


def test_nothing_is_switched_on_without_its_intent(cluster: Cluster) -> None:
    """A refused status write keeps the next step back, however long it lasts."""

    async def body() -> None:
        process = await published(cluster)
        before = cluster.text
        refuse_status(cluster, Unavailable("down"))
        for _ in range(40):
            cluster.time += timedelta(seconds=10)
            await process.reconcile()
        assert cluster.text == before
        assert cluster.status.current.step == 1
        cluster.failures.clear()
        await process.settle()
        assert cluster.status.current.step > 1, "the time counted"

    run(body)


def test_emergency_takes_nothing_else_on_its_way(cluster: Cluster) -> None:
    """The step that is decided in memory only is not published with it."""

    async def body() -> None:
        process = await published(cluster)
        share = read_document(cluster.text).audiences["beta"]
        refuse_status(cluster, Unavailable("down"))
        for _ in range(40):
            cluster.time += timedelta(seconds=10)
            await process.reconcile()
        cluster.add_action("u1", "EmergencyDisable", features=["gamma"], reason="drill")
        process.watch_actions()
        await process.reconcile()
        document = read_document(cluster.text)
        assert "gamma" in document.disabled
        assert document.audiences["beta"] == share

    run(body)


def test_late_document_write_replaces_no_newer_one(cluster: Cluster) -> None:
    """R8: another leader has written since; the decision is made again on what is there."""

    async def body() -> None:
        process = await published(cluster)
        cluster.values["errors"] = Decimal("0.5")
        assert cluster.document is not None
        cluster.document = replace(cluster.document, version=cluster.document.version + 1)
        await process.settle()
        assert read_document(cluster.text).audiences["alpha"] == NOBODY
        assert cluster.status.outcome is Outcome.ROLLED_BACK

    run(body)


def test_unforeseen_exception_is_a_stall_and_emergencies_are_heard(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """R5: its class and place are in the status, and it never ends the loop."""

    async def body() -> None:
        process = await published(cluster)

        def fail(*_: object) -> None:
            raise KeyError("spec")

        monkeypatch.setattr(decisions, "decide", fail)
        cluster.add_action("u1", "EmergencyDisable", reason="drill")
        process.watch_actions()
        await process.settle()
        assert cluster.status.decision.reason is DecisionReason.INTERNAL_ERROR
        assert cluster.status.state is State.STALLED
        assert set(read_document(cluster.text).disabled) == {"alpha", "beta", "gamma"}
        assert [name for name, answer in cluster.answers if answer.accepted] == ["action-u1"]

    run(body)


def test_action_that_raises_an_exception_is_a_stall(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """R5: even an emergency. Without this, every reconciliation would end with a traceback, and the status would not say so."""

    async def body() -> None:
        process = await published(cluster)

        def fail(*_: object) -> str:
            raise KeyError("features")

        monkeypatch.setitem(actions._HANDLERS, ActionType.EMERGENCY_DISABLE, fail)
        cluster.add_action("u1", "EmergencyDisable", reason="drill")
        process.watch_actions()
        await process.settle()
        assert (cluster.status.decision.reason, cluster.status.state) == (DecisionReason.INTERNAL_ERROR, State.STALLED)
        assert cluster.answers == []

    run(body)


def test_missing_right_is_in_the_status(cluster: Cluster) -> None:
    """R11: what cannot be read keeps no decision from being made."""

    async def body() -> None:
        process = await published(cluster)
        error = Forbidden("configmaps is forbidden")
        error.request = Request("patch", "configmaps", KEY.namespace)
        cluster.failures["protect"] = [error] * 3
        cluster.values["errors"] = Decimal("0.5")
        for _ in range(3):
            await process.reconcile()
        assert [refusal.effect for refusal in cluster.status.refusals] == ["Publish"]
        assert cluster.status.decision.reason is DecisionReason.REQUEST_REFUSED
        await process.settle()
        assert cluster.status.refusals == ()
        assert cluster.status.outcome is Outcome.ROLLED_BACK

    run(body)


def test_older_document_of_the_watch_is_ignored(cluster: Cluster) -> None:
    """It is from before the operator's own write; taking it for the present would publish again."""

    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        process.state.wake.clear()
        current = process.state.document
        assert current is not None
        process.reconciler.document_changed(DOCUMENT, replace(current, sha256="sha256:old", version=current.version - 1))
        assert (process.state.document, process.state.wake.is_set()) == (current, False)
        cluster.document = replace(current, sha256="sha256:edited", version=current.version + 1)
        process.reconciler.document_changed(DOCUMENT, cluster.document)
        assert process.state.wake.is_set()
        await process.settle()
        assert EventReason.FLAG_DRIFT in cluster.events
        late = replace(current, version=current.version + 1)
        process.reconciler.document_changed(DOCUMENT, late, deleted=True)
        assert process.state.document is not None, "it was created again since"
        process.reconciler.document_changed(DOCUMENT, replace(current, version=current.version + 9), deleted=True)
        assert process.state.document is None

    run(body)


@pytest.mark.parametrize("failures", [0, 40], ids=["one failure", "a long outage"])
@pytest.mark.parametrize("call", ["read", "protect"])
def test_what_is_urgent_waits_for_no_pause(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, call: str, failures: int) -> None:
    """A load balancer asks for a minute of patience while a server fails over: users are protected as soon as one accepts it."""
    monkeypatch.setattr(backoff, "URGENT_SECONDS", 0.05)

    async def body() -> None:
        process = await published(cluster)
        process.state.failures = failures
        cluster.failures[call] = [Unavailable("HTTP status 503", timedelta(seconds=60))] * 3
        process.loops.rollout_changed(KEY, cluster.rollouts[KEY])
        process.inbox.action_changed(cluster.add_action("u1", "EmergencyDisable", reason="drill"))
        async with asyncio.timeout(10):
            await until(lambda: cluster.document and cluster.document.disabled)
        await process.loops.close()

    run(body)


def test_breach_that_is_not_in_force_waits_for_no_pause(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "URGENT_SECONDS", 0.05)

    async def body() -> None:
        process = await published(cluster)
        cluster.failures["protect"] = [Unavailable("HTTP status 503", timedelta(seconds=60))] * 3
        cluster.values["errors"] = Decimal("0.5")
        process.loops.rollout_changed(KEY, cluster.rollouts[KEY])
        async with asyncio.timeout(10):
            await until(lambda: cluster.document and not cluster.document.gives_something)
        await process.loops.close()

    run(body)
