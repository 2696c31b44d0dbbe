"""Actions on their way to their rollouts: the watch, the sweep, and what either may deliver late or twice."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.cluster import KEY, NOW, Cluster, Process, forbidden, run, until
from session_rollout.api.action import answer
from session_rollout.api.enums import ActionReason, Verdict
from session_rollout.api.status_records import AnsweredAction
from session_rollout.controller.state import ActionList
from session_rollout.errors import Unavailable
from session_rollout.ports import Listed

HOUR = timedelta(hours=1)


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with one rollout."""
    cluster = Cluster()
    cluster.add_rollout()
    return cluster


def entry(uid: str, age: timedelta = HOUR) -> AnsweredAction:
    """A remembered answer, decided this long ago."""
    fields = {"uid": uid, "name": f"action-{uid}", "accepted": True, "reason": ActionReason.ACCEPTED}
    return AnsweredAction.model_validate({**fields, "time": NOW - age})


def answered(cluster: Cluster, uid: str) -> None:
    """Another process has answered the action."""
    status = answer(accepted=True, reason=ActionReason.ACCEPTED, message="done", now=NOW)
    cluster.action_objects[uid]["status"] = status.to_wire()


def test_new_action_wakes_its_rollout_once(cluster: Cluster) -> None:
    process, raw = Process(cluster), cluster.add_action("u1", "Pause")
    process.inbox.action_changed(raw)
    assert process.state.wake.is_set()
    process.state.wake.clear()
    process.inbox.action_changed(raw)
    assert not process.state.wake.is_set()
    assert list(process.state.actions.waiting) == ["u1"]


def test_actions_are_delivered_oldest_first(cluster: Cluster) -> None:
    process = Process(cluster)
    for uid, seconds in (("b", 1), ("c", 0), ("a", 1)):
        cluster.time = NOW + timedelta(seconds=seconds)
        process.inbox.action_changed(cluster.add_action(uid, "Pause"))
    assert [action.uid for action in process.state.actions.oldest_first()] == ["c", "a", "b"]


def test_deleted_action_is_not_carried_out(cluster: Cluster) -> None:
    async def body() -> None:
        process, raw = Process(cluster), cluster.add_action("u1", "Pause")
        process.inbox.action_changed(raw)
        process.inbox.action_changed(raw, deleted=True)
        assert process.state.actions.waiting == {}

    run(body)


# --- the sweep


def test_sweep_delivers_what_the_watch_missed(cluster: Cluster) -> None:
    cluster.add_action("u1", "Pause")

    async def body() -> None:
        process = Process(cluster)
        await process.loops.close()  # no loop answers it
        await process.inbox.sweep()
        assert list(process.state.actions.waiting) == ["u1"]

    run(body)


def test_list_from_before_the_answer_does_not_carry_an_action_out_again(cluster: Cluster) -> None:
    """A sweep lists the action while it is unanswered, and delivers it after its answer has been read back."""
    cluster.add_action("u1", "Pause")

    async def body() -> None:
        process = Process(cluster)
        process.watch_actions()
        stale = await cluster.actions()
        await process.settle()
        assert cluster.status.processed_actions == ()
        for raw in stale.items:
            process.inbox.action_changed(raw)
        await process.settle()
        assert len(cluster.answers) == 1

    run(body)


def test_rollout_and_action_created_during_a_sweep_are_not_refused() -> None:
    """`kubectl apply` of both after the first of the two lists: that must be the list of actions."""
    cluster = Cluster()

    def create() -> None:
        cluster.add_rollout()
        cluster.add_action("u1", "Pause")

    cluster.hooks = {"listed": create, "actions": create}

    async def body() -> None:
        await Process(cluster).inbox.sweep()
        assert list(cluster.action_objects) == ["u1"]
        assert cluster.answers == []

    run(body)


def test_sweep_forgets_finished_actions_that_are_gone(cluster: Cluster) -> None:
    """What the process remembers is bounded by the actions that exist."""
    raw = cluster.add_action("u1", "Pause")

    async def body() -> None:
        process = Process(cluster)
        process.inbox.action_changed(raw, deleted=True)
        del cluster.action_objects["u1"]
        assert process.state.actions.finished == {"u1"}
        process.state.has_loop = True
        await process.inbox.sweep()
        assert process.state.actions.finished == set()

    run(body)


def test_action_on_an_unknown_rollout_is_refused(cluster: Cluster) -> None:
    cluster.add_action("u1", "Pause", rollout="nobody")

    async def body() -> None:
        process = Process(cluster)
        await process.inbox.sweep()
        [(name, status)] = cluster.answers
        assert (name, status.accepted, status.reason) == ("action-u1", False, ActionReason.UNKNOWN_ROLLOUT)
        await process.inbox.sweep()
        assert len(cluster.answers) == 1

    run(body)


def test_action_that_cannot_be_parsed_is_refused_once(cluster: Cluster) -> None:
    """Accepted by the CRD of another version."""
    cluster.add_action("u1", "Teleport")

    async def body() -> None:
        process = Process(cluster)
        process.watch_actions()
        assert cluster.answers == []
        for _ in range(2):
            await process.inbox.sweep()
        [(_, status)] = cluster.answers
        assert (status.accepted, status.reason) == (False, ActionReason.INVALID)

    run(body)


def test_answered_action_is_deleted_after_its_ttl(cluster: Cluster) -> None:
    for uid in ("old", "open"):
        cluster.add_action(uid, "Pause", ttl="1h")
    answered(cluster, "old")

    async def body() -> None:
        process = Process(cluster)
        await process.loops.close()  # no loop answers it
        cluster.time += HOUR
        await process.inbox.sweep()
        assert "delete_action" not in cluster.calls
        cluster.time += timedelta(seconds=1)
        await process.inbox.sweep()
        assert list(cluster.action_objects) == ["open"]

    run(body)


def test_sweep_survives_an_outage(cluster: Cluster) -> None:
    cluster.add_action("u1", "Pause")
    cluster.failures["actions"] = [Unavailable("down")]

    async def body() -> None:
        process = Process(cluster)
        await process.inbox.sweep()
        assert process.memory.actions is None
        await process.inbox.sweep()
        assert list(process.state.actions.waiting) == ["u1"]

    run(body)


def test_namespace_that_cannot_be_listed_is_not_taken_for_an_empty_one(cluster: Cluster) -> None:
    """The others are swept; here, no loop is woken, no answer is taken for one that nobody needs, and no state is dropped."""
    for uid in ("u1", "u2"):
        cluster.add_action(uid, "Pause")
    answered(cluster, "u1")

    async def body() -> None:
        process = Process(cluster)
        await process.inbox.sweep()
        state = process.state
        await until(lambda: state.actions.finished == {"u1", "u2"})
        loops_started = len(process.loops._loops)
        state.wake.clear()
        cluster.forbidden = {KEY.namespace}
        cluster.time += HOUR
        await process.inbox.sweep()
        assert process.state is state
        assert state.actions.finished == {"u1", "u2"}
        assert state.actions.settled([entry("u3", HOUR)], process.memory.actions_in(KEY.namespace)) == frozenset()
        assert process.memory.actions_in("another") is not None
        assert len(process.loops._loops) == loops_started
        await process.loops.close()

    run(body)


def test_actions_about_rollouts_that_could_not_be_listed_are_not_rejected(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The actions of the namespace can be listed, and its rollouts cannot."""
    cluster.add_action("u1", "Pause")

    async def listed() -> Listed:
        return Listed((), {KEY.namespace: forbidden("sessionrollouts", KEY.namespace)})

    monkeypatch.setattr(cluster, "listed", listed)
    run(Process(cluster).inbox.sweep)
    assert cluster.answers == []


@pytest.mark.parametrize("error", [Unavailable("refused"), KeyError("metadata")])
def test_action_that_cannot_be_answered_keeps_no_other_from_it(
    cluster: Cluster, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """A policy refuses the response to one of them, or nobody foresaw what happens."""
    for uid in ("u1", "u2"):
        cluster.add_action(uid, "Pause", rollout="nobody")
    cluster.failures["answer"] = [error]
    run(Process(cluster).inbox.sweep)
    assert [name for name, _ in cluster.answers] == ["action-u2"]
    assert "action-u1" in caplog.text


def test_action_that_cannot_be_delivered_keeps_no_other_from_it(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """An exception that nobody foresaw concerns one action: the sweep does not end."""
    del cluster.add_action("u1", "Pause")["metadata"]["creationTimestamp"]
    cluster.add_action("u2", "Pause")

    async def body() -> None:
        process = Process(cluster)
        await process.loops.close()  # no loop answers it
        await process.inbox.sweep()
        assert list(process.state.actions.waiting) == ["u2"]

    run(body)
    assert "action-u1" in caplog.text


def test_sweep_drops_what_is_left_of_deleted_rollouts(cluster: Cluster) -> None:
    """A late event of a flag document leaves a state behind; one with a loop or an action stays."""
    cluster.rollouts.clear()

    async def body() -> None:
        process = Process(cluster)
        left = process.state
        await process.inbox.sweep()
        assert process.state is not left
        process.state.has_loop = True
        running = process.state
        await process.inbox.sweep()
        assert process.state is running

    run(body)


@pytest.mark.parametrize(("kind", "acts"), [("Promote", False), ("Pause", True)])
def test_action_waits_for_no_rollout_that_is_created_later(cluster: Cluster, kind: str, *, acts: bool) -> None:
    """A GitOps tool has replaced the object while the operator was away: only what protects users is for any object of this name."""
    fields: dict[str, Any] = {"generation": 1, "phase": "one", "step": 1, "reason": "looks good"} if kind == "Promote" else {}
    cluster.add_action("u1", kind, **fields)
    created = cluster.time + timedelta(seconds=1)
    cluster.rollouts[KEY]["metadata"] |= {"uid": "uid-2", "creationTimestamp": created.isoformat()}
    cluster.time += timedelta(minutes=1)

    async def body() -> None:
        process = Process(cluster)
        process.watch_actions()
        await process.settle()
        [(_, response)] = cluster.answers
        assert response.accepted is acts
        assert (response.reason is ActionReason.OUTDATED) is not acts

    run(body)


# --- settled answers


def test_answer_read_back_from_the_watch_is_settled(cluster: Cluster) -> None:
    """After a restart: the entry is of the process before, and the watch shows the answer."""
    cluster.add_action("u1", "Pause")
    answered(cluster, "u1")

    async def body() -> None:
        process = Process(cluster)
        assert process.state.actions.settled([entry("u1")], None) == frozenset()
        process.watch_actions()
        assert process.state.actions.settled([entry("u1"), entry("u2")], None) == {"u1"}
        await process.state.wake.wait()

    run(body)


def test_answer_of_an_action_that_is_gone_is_settled_by_a_list_from_after_it(cluster: Cluster) -> None:
    actions = Process(cluster).state.actions
    listed = ActionList(NOW - HOUR / 2, frozenset({"there"}))
    before, after = entry("gone", HOUR), entry("gone", timedelta(0))
    assert actions.settled([before], listed) == {"gone"}
    assert actions.settled([after], listed) == frozenset(), "created and answered since the list"
    assert actions.settled([entry("there", HOUR)], listed) == frozenset()


def test_waiting_action_is_never_settled_by_a_list(cluster: Cluster) -> None:
    """Its answer would be forgotten, and it would be carried out a second time; clocks may have been set back."""
    process = Process(cluster)
    process.inbox.action_changed(cluster.add_action("u1", "Pause"))
    assert process.state.actions.settled([entry("u1")], ActionList(NOW, frozenset())) == frozenset()


def test_entries_of_deleted_actions_leave_the_status(cluster: Cluster) -> None:
    """The action was deleted while no operator ran."""

    async def body() -> None:
        await Process(cluster).settle()
        status = cluster.status.updated(processed_actions=(entry("u1"),))
        cluster.rollouts[KEY]["status"] = status.to_wire()
        process = Process(cluster)
        await process.settle()
        assert [known.uid for known in cluster.status.processed_actions] == ["u1"]
        await process.inbox.sweep()
        await process.settle()
        assert cluster.status.processed_actions == ()

    run(body)


# --- read-only actions


def test_read_only_action_goes_beside_the_loop(cluster: Cluster) -> None:
    cluster.add_rollout(preflight=[{"name": "health", "builtin": "Health"}])
    raw = cluster.add_action("u1", "Verify")

    async def body() -> None:
        process = Process(cluster)
        process.inbox.action_changed(raw)
        process.inbox.action_changed(raw)
        await process.on_demand._running["u1"]
        assert process.state.actions.waiting == {}
        [(_, status)] = cluster.answers
        assert [(result.name, result.verdict) for result in status.results] == [("health", Verdict.PASS)]
        process.inbox.action_changed(cluster.action_objects["u1"])
        assert process.on_demand._running == {}

    run(body)


@pytest.mark.parametrize("deleted", [False, True])
def test_sweep_has_a_document_read_again_that_the_watch_has_missed(cluster: Cluster, *, deleted: bool) -> None:
    """R15: the watch of ConfigMaps stays open and delivers nothing. A namespace that cannot be listed says nothing."""

    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        document, published = cluster.document, cluster.text
        assert document is not None
        cluster.document = (
            None if deleted else replace(document, version=document.version + 1, sha256="other", editor="kubectl")
        )
        cluster.forbidden = {KEY.namespace}
        await process.inbox.sweep()
        assert process.state.document == document
        cluster.forbidden = set()
        await process.inbox.sweep()
        await process.settle()
        assert cluster.document is not None
        assert (cluster.document.sha256, cluster.text) == (document.sha256, published)
        assert process.state.document == cluster.document
        process.state.wake.clear()
        await process.inbox.sweep()
        assert process.state.document is not None, "nothing has changed"
        await process.loops.close()

    run(body)
