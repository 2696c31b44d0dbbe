"""The loop of one rollout against ports in memory: conflicts, outages, standby, crashes, wake-ups.

What is decided is for tests/core; the real API server is for tests/integration.
"""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from controller.cluster import KEY, NOW, Cluster, Crash, Process, run
from session_rollout.api.enums import ActionReason, DecisionAction, EventReason
from session_rollout.controller.backoff import LONGEST_SECONDS
from session_rollout.controller.reconciler import CONFLICT_SECONDS, CONFLICTS_AT_ONCE, RETRY_SECONDS
from session_rollout.errors import Conflict, Unavailable


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with one rollout."""
    cluster = Cluster()
    cluster.add_rollout()
    return cluster


def test_status_is_written_before_its_effects(cluster: Cluster) -> None:
    """The write-ahead intent: a crash after the write loses nothing."""

    async def body() -> None:
        await Process(cluster).settle()
        assert cluster.status.current.percent == "10"
        assert cluster.calls.index("write_status") < cluster.calls.index("publish")

    run(body)


def test_steady_state_writes_nothing(cluster: Cluster) -> None:
    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        cluster.calls.clear()
        for _ in range(5):
            assert await process.reconcile() > 0
        assert set(cluster.calls) == {"read"}

    run(body)


def test_conflict_is_read_and_decided_again(cluster: Cluster) -> None:
    """Somebody applies another spec between the read and the write: nothing of the old decision is done."""

    def apply() -> None:
        cluster.add_rollout(suspend=True)["metadata"].update(generation=2, resourceVersion="7")

    cluster.hooks["write_status"] = apply

    async def body() -> None:
        process = Process(cluster)
        assert await process.reconcile() == CONFLICT_SECONDS
        assert "publish" not in cluster.calls
        await process.settle()
        assert cluster.status.observed_generation == 2
        assert cluster.status.decision.action is DecisionAction.PAUSE

    run(body)


def test_stale_read_is_read_again(cluster: Cluster) -> None:
    cluster.failures["read"] = [Conflict("older than the last write")]

    async def body() -> None:
        assert await Process(cluster).reconcile() == CONFLICT_SECONDS

    run(body)


def test_outage_backs_off_and_starts_again_from_the_first_pause(cluster: Cluster) -> None:
    async def body() -> None:
        process = Process(cluster)
        for _ in range(2):
            cluster.failures["read"] = [Unavailable("down")] * 7
            pauses = [await process.reconcile() for _ in range(7)]
            assert pauses[: len(RETRY_SECONDS)] == [*RETRY_SECONDS]
            assert all(0 < pause <= LONGEST_SECONDS for pause in pauses)
            await process.settle()

    run(body)


def test_conflicts_in_a_row_back_off(cluster: Cluster) -> None:
    """R15: at once for the first ones, since somebody has just written; not forever."""

    async def body() -> None:
        process = Process(cluster)
        cluster.failures["read"] = [Conflict("older than the last write")] * 12
        pauses = [await process.reconcile() for _ in range(12)]
        assert pauses[:CONFLICTS_AT_ONCE] == [CONFLICT_SECONDS] * CONFLICTS_AT_ONCE
        assert max(pauses) > CONFLICT_SECONDS
        await process.settle()
        assert process.state.conflicts == 0

    run(body)


def test_retry_after_is_honoured(cluster: Cluster) -> None:
    async def body() -> None:
        process = Process(cluster)
        cluster.failures["read"] = [Unavailable("busy", retry_after=timedelta(seconds=7))]
        assert await process.reconcile() == 7

    run(body)


def test_standby_neither_writes_nor_does_anything(cluster: Cluster) -> None:
    """The Lease is not held for certain: another replica may lead."""

    async def body() -> None:
        process = Process(cluster)
        cluster.leads = False
        await process.reconcile()
        assert set(cluster.calls) <= {"read", "write_status"}
        assert "write_status" not in cluster.calls
        cluster.leads = True
        await process.settle()
        assert "publish" in cluster.calls

    run(body)


def test_lease_lost_after_the_write_stops_the_effects(cluster: Cluster) -> None:
    """The next leader decides them again from the status."""

    def lose() -> None:
        cluster.leads = False

    cluster.hooks["write_status"] = lose

    async def body() -> None:
        await Process(cluster).settle()
        assert "publish" not in cluster.calls
        cluster.leads = True
        await Process(cluster).settle()
        assert cluster.document is not None

    run(body)


def test_failed_effect_keeps_neither_the_record_nor_the_notifications(cluster: Cluster) -> None:
    cluster.add_rollout(notifications=[{"sink": "chat", "events": ["Started"]}])
    cluster.failures["publish"] = [Unavailable("down")]

    async def body() -> None:
        assert await Process(cluster).reconcile() == RETRY_SECONDS[0]
        assert [record.status for record in cluster.records] == [
            cluster.status.updated(last_update_time=None, evaluation_time=None)
        ]
        assert [item.event for item in cluster.enqueued[0]] == [EventReason.STARTED]

    run(body)


@pytest.mark.parametrize("gone", [True, False])
def test_deleted_rollout_is_not_decided(cluster: Cluster, *, gone: bool) -> None:
    """A document published now would undo what the deletion has released."""
    if gone:
        cluster.rollouts.clear()
    else:
        cluster.rollouts[KEY]["metadata"]["deletionTimestamp"] = NOW.isoformat()

    async def body() -> None:
        await Process(cluster).reconcile()
        assert cluster.calls == ["read"]

    run(body)


def test_downtime_is_accounted_once_every_measurement_was_seen(cluster: Cluster) -> None:
    async def body() -> None:
        await Process(cluster).settle()
        values, cluster.values = cluster.values, {}
        process = Process(cluster)
        process.downtime.begin(lambda *_: NOW, [KEY])
        await process.settle()
        assert not process.downtime.accounted.is_set()
        cluster.values = values
        await process.settle()
        assert process.downtime.accounted.is_set()

    run(body)


def test_downtime_is_accounted_once_a_status_has_it(cluster: Cluster) -> None:
    """Until then the next leader finds it in the Lease, and that the last decision about this rollout was not stored."""

    async def body() -> None:
        await Process(cluster).settle()
        cluster.time += timedelta(seconds=90)
        process = Process(cluster)
        process.downtime.begin(lambda *_: NOW, [KEY])
        cluster.failures["write_status"] = [Unavailable("down")] * 3
        await process.reconcile()
        assert (process.downtime.accounted.is_set(), process.downtime.unaccounted) == (False, {KEY})
        cluster.failures.clear()
        await process.settle()
        assert (process.downtime.accounted.is_set(), process.downtime.unaccounted) == (True, set())

    run(body)


def test_no_rollout_has_downtime_to_account(cluster: Cluster) -> None:
    """Or the first start of all."""
    process = Process(cluster)
    process.downtime.begin(lambda *_: None, [])
    assert process.downtime.accounted.is_set()


def test_measurements_alone_are_recorded_every_few_minutes(cluster: Cluster) -> None:
    """For `explain` and trends; a steady hold would have no values otherwise."""

    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        before = len(cluster.records)
        cluster.time += timedelta(seconds=1)
        await process.reconcile()
        assert len(cluster.records) == before
        process.state.last_record = cluster.time - timedelta(minutes=6)
        await process.reconcile()
        assert len(cluster.records) == before + 1

    run(body)


# --- the loop


def test_loop_reconciles_when_woken_until_it_is_stopped(cluster: Cluster) -> None:
    async def body() -> None:
        process, stopped = Process(cluster), asyncio.Event()
        await process.settle()
        process.reconciled.clear()
        reconciled = asyncio.Event()
        process.reconciler._on_reconciled = lambda *_: reconciled.set()
        loop = asyncio.create_task(process.reconciler.run(KEY, stopped))
        process.state.uid = "uid-1"
        job_changed = partial(process.reconciler.job_changed, KEY, frozenset({"uid-1"}))
        for wake in (None, job_changed, process.state.wake_soon):
            if wake is not None:
                wake()
            await asyncio.wait_for(reconciled.wait(), 60)
            reconciled.clear()
        assert process.memory.overdue() == ()
        stopped.set()
        await asyncio.wait_for(loop, 60)

    run(body)


def test_job_of_another_owner_wakes_nobody(cluster: Cluster) -> None:
    """Somebody has created a Job from the manifest of one of the operator: it has the labels of the rollout."""
    process = Process(cluster)
    process.state.uid = "uid-1"
    for owners in (frozenset[str](), frozenset({"uid-2"})):
        process.reconciler.job_changed(KEY, owners)
        assert not process.state.wake.is_set()


def test_wakes_within_a_moment_are_one(cluster: Cluster) -> None:
    """Ten results that arrive together cause one reconciliation."""

    async def body() -> None:
        process = Process(cluster)
        for _ in range(10):
            process.state.wake_soon()
        assert not process.state.wake.is_set()
        await asyncio.wait_for(process.state.wake.wait(), 60)

    run(body)


def test_rollout_that_was_not_reconciled_in_time_is_overdue(cluster: Cluster) -> None:
    process = Process(cluster)
    assert process.memory.overdue() == ()
    process.state.expect_next(5)
    assert process.memory.overdue() == ()
    process.state.expect_next(-31)
    assert process.memory.overdue() == (KEY,)


# --- a crash between the status and the answer


def test_crash_before_the_answer_repeats_the_answer_and_not_the_action(cluster: Cluster) -> None:
    """Many actions at once: the next process answers all of them, and does none of them again."""
    disable: tuple[str, dict[str, Any]] = ("EmergencyDisable", {"features": ["alpha"], "reason": "drill"})
    kinds = [disable, ("Pause", {}), *([("Resume", {}), ("Pause", {})] * 10)]

    async def body() -> None:
        await Process(cluster).settle()
        for number, (kind, fields) in enumerate(kinds):
            cluster.time += timedelta(seconds=1)
            cluster.add_action(f"u{number:02}", kind, **fields)
        first = Process(cluster)
        first.watch_actions()
        cluster.events.clear()
        cluster.failures["answer"] = [Crash()]
        with pytest.raises(Crash):
            await first.reconcile()
        decided = cluster.status
        assert [entry.uid for entry in decided.processed_actions] == sorted(cluster.action_objects)
        assert cluster.answers == []
        cluster.events.clear()

        second = Process(cluster)
        second.watch_actions()
        await second.settle()
        assert {name: answer.reason for name, answer in cluster.answers} == {
            entry.name: entry.reason for entry in decided.processed_actions
        }
        assert len(cluster.answers) == len(kinds), "each was answered once"
        assert {ActionReason.ACCEPTED} == {answer.reason for _, answer in cluster.answers}
        assert EventReason.ACTION_ACCEPTED not in cluster.events
        after = cluster.status
        assert (after.paused_by, after.flags.disabled, after.history) == (
            decided.paused_by,
            decided.flags.disabled,
            decided.history,
        )
        assert after.processed_actions == (), "every answer was read back"

    run(body)


def test_crash_after_some_answers(cluster: Cluster) -> None:
    """The third answer is lost: the next process repeats it, and forgets those that it reads in the actions' status."""

    async def body() -> None:
        await Process(cluster).settle()
        for number, kind in enumerate(["Pause", "Resume", "Pause", "Resume"]):
            cluster.time += timedelta(seconds=1)
            cluster.add_action(f"u{number}", kind)
        first = Process(cluster)
        first.watch_actions()
        cluster.failures["answer"] = [Unavailable("slow"), Crash()]
        with pytest.raises(Crash):
            await first.reconcile()
        assert len(cluster.answers) == 0
        cluster.failures["answer"] = [Unavailable("slow")]
        third = Process(cluster)
        third.watch_actions()
        assert await third.reconcile() == RETRY_SECONDS[0]
        assert [name for name, _ in cluster.answers] == ["action-u1", "action-u2", "action-u3"], "one failure holds up no other"
        await third.settle()
        assert [name for name, _ in cluster.answers][-1] == "action-u0"
        assert cluster.status.processed_actions == ()
        assert sum(entry.event is EventReason.ACTION_ACCEPTED for entry in cluster.status.history) == 4

    run(body)


def test_action_is_identified_by_its_uid(cluster: Cluster) -> None:
    """Deleted and created again under the same name, as `kubectl replace --force` does: it is another action."""

    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        for uid in ("u0", "u1"):
            raw = cluster.add_action(uid, "Pause")
            raw["metadata"]["name"] = "pause"
            process.inbox.action_changed(raw)
            await process.settle()
            process.inbox.action_changed(raw, deleted=True)
        assert [answer.reason for _, answer in cluster.answers] == [ActionReason.ACCEPTED, ActionReason.ALREADY_PAUSED]

    run(body)


def test_time_of_a_reconciliation_itself_is_told_to_the_decision(cluster: Cluster) -> None:
    """R13: the time in which the loop rests is not; without a loop, all of it is."""

    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        state = process.state
        rollout = process.reconciled[-1].rollout
        assert state.last_reconcile == cluster.time
        assert state.rested == 0
        cluster.time += timedelta(seconds=3)
        state.rested = 1.0
        observed = await process.reconciler._decisions._gatherer.gather(rollout, rollout.status, state)
        assert observed.busy == timedelta(seconds=2)
        state.rested = 4.0
        assert (await process.reconciler._decisions._gatherer.gather(rollout, rollout.status, state)).busy == timedelta(0)

    run(body)
