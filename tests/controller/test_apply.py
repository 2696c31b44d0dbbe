"""Effects of a decision: flags first, one failure holds up no other, and what only the user can correct is tried again."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.cluster import KEY, Cluster, Process, run, until
from session_rollout.adapters.rollouts import parse
from session_rollout.api.action import ActionStatus
from session_rollout.api.enums import ActionReason, DecisionReason, EventReason, Stage
from session_rollout.api.migration_enums import Operation
from session_rollout.api.rollout import SessionRollout
from session_rollout.api.status import Current, RolloutStatus
from session_rollout.controller import apply
from session_rollout.controller.apply import Applier
from session_rollout.controller.state import OUTAGE_SHOWN, RolloutState
from session_rollout.core.documents import PublishedDocument
from session_rollout.core.observed import (
    Answer,
    Decision,
    Effect,
    Emit,
    Publish,
    RestartWorkload,
    StartCheck,
    StartJob,
    SuspendJob,
    UndoWorkload,
)
from session_rollout.errors import Conflict, Forbidden, Request, RolloutError, SpecError, Unavailable

PUBLISH = Publish("shop-flags", "{}", "sha256:x")
JOB = StartJob("shop-m-1", "m", Operation.UP, 1)
CHECK = StartCheck("shop-smoke-1", "smoke")
ANSWER = Answer("action-u1", "u1", accepted=True, reason=ActionReason.ACCEPTED, message="done")
EMIT = Emit(EventReason.STARTED, "started")


def decision(*effects: Effect, stage: Stage = Stage.STEP) -> Decision:
    status = RolloutStatus(current=Current(stage=stage))
    return Decision(status, effects, urgent=None, next_reconcile=timedelta(seconds=10), complete=True)


class Fixture:
    """An applier on a cluster."""

    def __init__(self, **spec: object) -> None:
        self.cluster, self.state = Cluster(), RolloutState()
        rollout = parse(self.cluster.add_rollout(**spec)).rollout
        assert rollout is not None
        self.rollout: SessionRollout = rollout
        self.applier = Applier(self.cluster.ports())

    def touch_before_each_write(self, left: list[int]) -> None:
        """So many times, the ConfigMap has got another annotation when the document is written."""
        publish = self.cluster.publish

        async def touch(rollout: SessionRollout, document: Publish, *, urgent: bool = False) -> PublishedDocument:
            if left[0] and self.cluster.document is not None:
                left[0] -= 1
                self.cluster.document = replace(self.cluster.document, version=self.cluster.document.version + 1)
            return await publish(rollout, document, urgent=urgent)

        self.cluster.publish = touch  # type: ignore[method-assign]
        self.applier = Applier(self.cluster.ports())

    async def apply(self, *effects: Effect, stage: Stage = Stage.STEP) -> bool:
        return await self.applier.apply(self.rollout, self.state, decision(*effects, stage=stage))


def test_flags_come_first() -> None:
    async def body() -> None:
        fixture = Fixture()
        assert await fixture.apply(JOB, CHECK, SuspendJob("shop-m-1", suspend=True), ANSWER, EMIT, PUBLISH)
        assert fixture.cluster.calls == ["publish", "start", "start_check", "suspend True", "emit", "answer"]
        assert fixture.state.document_version == 1

    run(body)


def test_an_event_alone_needs_no_other_decision() -> None:
    async def body() -> None:
        assert not await Fixture().apply(EMIT)

    run(body)


@pytest.mark.parametrize("error", [Unavailable("down"), Forbidden("jobs"), SpecError("no such profile")])
def test_failed_effect_holds_up_no_other(error: Exception) -> None:
    """An answer or an Event of the same decision may not come again for a long time."""

    async def body() -> None:
        fixture = Fixture()
        fixture.cluster.failures["start"] = [error]
        with pytest.raises(type(error)):
            await fixture.apply(JOB, CHECK, ANSWER, EMIT)
        assert fixture.cluster.calls == ["start", "start_check", "emit", "answer"]

    run(body)


def test_job_is_suspended_although_the_flags_are_refused() -> None:
    """A rollback must not leave a Job to begin; one that is started waits for the flags."""

    async def body() -> None:
        fixture = Fixture()
        fixture.cluster.failures["publish"] = [Forbidden("configmaps")]
        with pytest.raises(Forbidden):
            await fixture.apply(PUBLISH, SuspendJob("shop-m-1", suspend=True), SuspendJob("shop-m-2", suspend=False), JOB)
        assert fixture.cluster.calls == ["publish", "suspend True"]

    run(body)


@pytest.mark.parametrize("urgent", [False, True])
def test_others_who_touch_the_document_delay_nothing(*, urgent: bool) -> None:
    """Two controllers change an annotation of the ConfigMap in a loop: each attempt finds another version with the same text."""

    async def body() -> None:
        fixture, left = Fixture(), [5]
        await fixture.apply(PUBLISH)
        fixture.touch_before_each_write(left)
        effect = replace(PUBLISH, text='{"flags": {}}', version=1)
        error = await fixture.applier._attempt(fixture.rollout, fixture.state, effect, urgent=urgent)
        assert error is None
        assert (left, fixture.cluster.text) == ([0], '{"flags": {}}')
        assert fixture.state.document is fixture.cluster.document

    run(body)


@pytest.mark.parametrize("urgent", [True, False])
def test_document_that_the_watch_has_delivered_since_is_decided_about_again(*, urgent: bool) -> None:
    """What is known is another leader's then, and the decision was about the one before."""

    async def body() -> None:
        fixture = Fixture()
        await fixture.apply(PUBLISH)
        assert fixture.cluster.document is not None
        other = replace(fixture.cluster.document, version=2, sha256="sha256:other")
        fixture.cluster.document = touched = replace(other, version=3)
        late = replace(PUBLISH, text='{"flags": {}}')
        for version, conflict in ((1, True), (2, False)):
            fixture.state.know(other, 2)
            fixture.state.know(touched, 3)
            error = await fixture.applier._attempt(
                fixture.rollout, fixture.state, replace(late, version=version), urgent=urgent
            )
            assert isinstance(error, Conflict) is conflict
            assert (fixture.cluster.text == PUBLISH.text) is conflict

    run(body)


@pytest.mark.parametrize("own", [True, False], ids=["its own", "somebody else's"])
def test_document_that_the_watch_delivers_before_the_response(*, own: bool) -> None:
    """Its own is written again by the same decision; an edit since is read, and not forgotten."""

    async def body() -> None:
        fixture = Fixture()
        await fixture.apply(PUBLISH)
        publish = fixture.cluster.publish

        async def delivered(rollout: SessionRollout, document: Publish, *, urgent: bool = False) -> PublishedDocument:
            written = await publish(rollout, document, urgent=urgent)
            seen = written if own else replace(written, version=written.version + 1, sha256="sha256:edited")
            fixture.cluster.document = seen
            fixture.state.know(seen, seen.version)
            return written

        fixture.cluster.publish = delivered  # type: ignore[method-assign]
        fixture.applier = Applier(fixture.cluster.ports())
        effect = replace(PUBLISH, text='{"flags": {}}', version=1)
        assert await fixture.applier._attempt(fixture.rollout, fixture.state, effect, urgent=True) is None
        assert fixture.state.document == (fixture.cluster.document if own else None)
        if own:
            assert await fixture.applier._attempt(fixture.rollout, fixture.state, effect) is None

    run(body)


@pytest.mark.parametrize("changes", [{"sha256": "sha256:other"}, {"owner": None}, {"editor": "kubectl-edit"}], ids=str)
def test_document_that_was_changed_is_decided_about_again(changes: dict[str, Any]) -> None:
    """It may be another leader's, which has turned more off."""

    async def body() -> None:
        fixture = Fixture()
        await fixture.apply(PUBLISH)
        assert fixture.cluster.document is not None
        fixture.cluster.document = replace(fixture.cluster.document, version=2, **changes)
        with pytest.raises(Conflict):
            await fixture.apply(replace(PUBLISH, text='{"flags": {}}', version=1))
        assert fixture.cluster.text == PUBLISH.text
        assert fixture.state.document is None

    run(body)


def delay_answers(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Each answer waits for this event."""
    released, answer = asyncio.Event(), cluster.answer

    async def wait(namespace: str, name: str, status: ActionStatus, *, uid: str) -> None:
        await released.wait()
        await answer(namespace, name, status, uid=uid)

    monkeypatch.setattr(cluster, "answer", wait)
    return released


def test_answer_that_hangs_delays_no_emergency(monkeypatch: pytest.MonkeyPatch) -> None:
    """The webhook of a namespace times out, and a pipeline has created actions that are rejected."""

    async def body() -> None:
        cluster = Cluster()
        cluster.add_rollout()
        released, process = delay_answers(cluster, monkeypatch), Process(cluster)
        process.loops.rollout_changed(KEY, cluster.rollouts[KEY])
        await until(lambda: cluster.document)
        for number in range(12):
            process.inbox.action_changed(cluster.add_action(f"u{number}", "Resume"))
        await until(lambda: len(cluster.status.processed_actions) == 12)
        process.inbox.action_changed(cluster.add_action("emergency", "EmergencyDisable", reason="drill"))
        async with asyncio.timeout(20):
            await until(lambda: cluster.document is not None and cluster.document.disabled)
        assert cluster.answers == []
        released.set()
        await until(lambda: not process.state.actions.waiting)
        assert len(cluster.answers) == 13, "each once"
        await process.loops.close()

    run(body)


def test_answer_that_fails_late_is_a_refusal_and_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop is woken, and the next decision has the same answer."""
    monkeypatch.setattr(apply, "ANSWER_SECONDS", 0)

    async def body() -> None:
        fixture = Fixture()
        fixture.cluster.failures["answer"] = [Unavailable("down")]
        released = delay_answers(fixture.cluster, monkeypatch)
        assert not await fixture.apply(ANSWER)
        released.set()
        await until(fixture.state.wake.is_set)
        assert list(fixture.state.refusals) == ["Answer"]
        assert await fixture.apply(ANSWER)
        assert [name for name, _ in fixture.cluster.answers] == [ANSWER.action]
        assert fixture.state.refusals == {}

    run(body)


def test_nothing_slower_begins_before_the_flags_are_published() -> None:
    """A migration that is undone before the features are off breaks users."""

    async def body() -> None:
        fixture = Fixture()
        fixture.cluster.failures["publish"] = [Unavailable("down")]
        with pytest.raises(Unavailable):
            await fixture.apply(JOB, ANSWER, PUBLISH)
        assert fixture.cluster.calls == ["publish", "answer"]

    run(body)


def test_refusal_is_remembered_until_the_effect_succeeds_or_is_no_longer_requested() -> None:
    """R11: its time is that of the first refusal."""

    async def body() -> None:
        fixture = Fixture()
        error = Forbidden("jobs.batch is forbidden")
        error.request = Request("create", "jobs", "default")
        for _ in range(2):
            fixture.cluster.failures["start"] = [error]
            with pytest.raises(Forbidden):
                await fixture.apply(JOB)
            fixture.cluster.time += timedelta(seconds=10)
        [refusal] = fixture.state.shown_refusals(fixture.cluster.time)
        assert (refusal.effect, refusal.verb, refusal.resource, refusal.namespace) == ("StartJob", "create", "jobs", "default")
        assert refusal.since == fixture.cluster.time - timedelta(seconds=20)
        await fixture.apply(JOB)
        assert fixture.state.refusals == {}
        fixture.cluster.failures["start"] = [error]
        with pytest.raises(Forbidden):
            await fixture.apply(JOB)
        await fixture.applier.protect(fixture.rollout, fixture.state, decision())
        assert fixture.state.refusals == {}

    run(body)


def test_outage_is_a_refusal_only_when_it_lasts() -> None:
    """A restart of the API server is no news."""

    async def body() -> None:
        fixture = Fixture()
        fixture.cluster.failures["start"] = [Unavailable("down")]
        with pytest.raises(Unavailable):
            await fixture.apply(JOB)
        assert fixture.state.shown_refusals(fixture.cluster.time) == ()
        assert len(fixture.state.shown_refusals(fixture.cluster.time + OUTAGE_SHOWN)) == 1

    run(body)


def test_unforeseen_exception_of_an_effect_holds_up_no_other() -> None:
    """R7: it is a refusal with its class."""

    async def body() -> None:
        fixture = Fixture()
        fixture.cluster.failures["start"] = [KeyError("spec")]
        with pytest.raises(RolloutError):
            await fixture.apply(JOB, ANSWER, EMIT)
        assert fixture.cluster.calls == ["start", "emit", "answer"]
        assert list(fixture.state.refusals) == ["StartJob"]

    run(body)


def test_missing_check_profile_is_a_problem_of_the_spec() -> None:
    """It is tried with each decision: the configuration may have been corrected."""

    async def body() -> None:
        cluster = Cluster()
        cluster.add_rollout(preflight=[{"name": "smoke", "job": {"profile": "smoke"}}])
        cluster.failures["start_check"] = [SpecError("no profile of this name")] * 2
        process = Process(cluster)
        await process.reconcile()
        await process.reconcile()
        conditions = {item.type: item.status for item in cluster.status.conditions}
        assert (conditions["Stalled"], conditions["SpecValid"]) == ("True", "False")
        shown = [cluster.status.decision.reason]
        await process.settle()
        assert [*shown, cluster.status.decision.reason] == [DecisionReason.INVALID_SPEC, DecisionReason.AWAITING_GATES]

    run(body)


def test_workload_is_undone_and_restarted() -> None:
    async def body() -> None:
        fixture = Fixture(workload={"name": "web"})
        assert await fixture.apply(UndoWorkload(3, 2), RestartWorkload(fixture.cluster.time))
        assert fixture.cluster.calls == ["undo 3 to 2", "restart"]

    run(body)


def test_workload_that_was_removed_from_the_spec_is_left_alone() -> None:
    async def body() -> None:
        fixture = Fixture()
        await fixture.apply(UndoWorkload(3, 2), RestartWorkload(fixture.cluster.time))
        assert fixture.cluster.calls == []

    run(body)


def test_undo_of_the_observed_revision_is_requested_once() -> None:
    """From the action to the port: revision 2 goes back to 1."""

    async def body() -> None:
        cluster = Cluster()
        cluster.add_rollout(workload={"name": "web"})
        process = Process(cluster)
        await process.settle()
        cluster.add_action("u1", "UndoWorkload", reason="drill")
        process.watch_actions()
        await process.settle()
        assert cluster.calls.count("undo 2 to 1") == 1

    run(body)
