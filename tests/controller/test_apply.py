"""Effects of a decision: flags first, one failure holds up no other, and what only the user can correct is tried again."""

from datetime import timedelta

import pytest

from controller.cluster import Cluster, Process, run
from session_rollout.adapters.rollouts import parse
from session_rollout.api.enums import ActionReason, DecisionReason, EventReason, Operation, Stage
from session_rollout.api.rollout import SessionRollout
from session_rollout.api.status import Current, RolloutStatus
from session_rollout.controller.apply import RETRY_BLOCKED, Applier
from session_rollout.controller.state import RolloutState
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
from session_rollout.errors import Forbidden, SpecError, Unavailable

PUBLISH = Publish("shop-flags", "{}", "sha256:x")
JOB = StartJob("shop-m-1", "m", Operation.UP, 1)
CHECK = StartCheck("shop-smoke-1", "smoke")
ANSWER = Answer("action-u1", "u1", accepted=True, reason=ActionReason.ACCEPTED, message="done")
EMIT = Emit(EventReason.STARTED, "started")


def decision(*effects: Effect, stage: Stage = Stage.STEP) -> Decision:
    status = RolloutStatus(current=Current(stage=stage))
    return Decision(status, effects, timedelta(seconds=10), complete=True)


class Fixture:
    """An applier on a cluster."""

    def __init__(self, **spec: object) -> None:
        self.cluster, self.state = Cluster(), RolloutState()
        rollout = parse(self.cluster.add_rollout(**spec)).rollout
        assert rollout is not None
        self.rollout: SessionRollout = rollout
        self.applier = Applier(self.cluster.ports())

    async def apply(self, *effects: Effect, stage: Stage = Stage.STEP) -> bool:
        return await self.applier.apply(self.rollout, self.state, decision(*effects, stage=stage))


def test_flags_come_first() -> None:
    async def body() -> None:
        fixture = Fixture()
        assert await fixture.apply(JOB, CHECK, SuspendJob("shop-m-1", suspend=True), ANSWER, EMIT, PUBLISH)
        assert fixture.cluster.calls == ["publish", "start", "start_check", "suspend True", "answer", "emit"]
        assert fixture.state.document.version == 1

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
        if isinstance(error, SpecError):
            await fixture.apply(JOB, CHECK, ANSWER, EMIT)
        else:
            with pytest.raises(type(error)):
                await fixture.apply(JOB, CHECK, ANSWER, EMIT)
        assert fixture.cluster.calls == ["start", "start_check", "answer", "emit"]

    run(body)


def test_nothing_slower_begins_before_the_flags_are_published() -> None:
    """A migration that is undone before the features are off breaks users."""

    async def body() -> None:
        fixture = Fixture()
        fixture.cluster.failures["publish"] = [Unavailable("down")]
        with pytest.raises(Unavailable):
            await fixture.apply(JOB, ANSWER, PUBLISH)
        assert fixture.cluster.calls == ["publish"]

    run(body)


def test_blocked_effect_is_shown_at_once_and_tried_again_from_time_to_time() -> None:
    """A check profile that the configuration does not have."""

    async def body() -> None:
        fixture = Fixture()
        fixture.cluster.failures["start_check"] = [SpecError("no such profile")] * 2
        assert await fixture.apply(CHECK), "the next decision shows the problem"
        assert fixture.state.blocked is not None
        assert not await fixture.apply(), "the problem keeps the rollout from requesting it again"
        fixture.cluster.time += RETRY_BLOCKED
        assert not await fixture.apply(), "still blocked, and shown already"
        fixture.cluster.time += RETRY_BLOCKED
        assert await fixture.apply(), "the configuration was corrected"
        assert fixture.state.blocked is None
        assert fixture.cluster.calls == ["start_check"] * 3

    run(body)


@pytest.mark.parametrize("stage", [Stage.ROLLING_BACK, Stage.ENDED])
def test_rollback_gives_up_a_blocked_effect(stage: Stage) -> None:
    async def body() -> None:
        fixture = Fixture()
        fixture.cluster.failures["start_check"] = [SpecError("no such profile")]
        await fixture.apply(CHECK)
        await fixture.apply(stage=stage)
        assert fixture.state.blocked is None

    run(body)


def test_another_spec_gives_up_a_blocked_effect() -> None:
    async def body() -> None:
        fixture = Fixture()
        fixture.cluster.failures["start_check"] = [SpecError("no such profile")]
        await fixture.apply(CHECK)
        fixture.rollout = fixture.rollout.model_copy(update={"generation": 2})
        await fixture.apply()
        assert fixture.state.blocked is None

    run(body)


def test_blocked_effect_is_a_problem_of_the_next_decision() -> None:
    async def body() -> None:
        cluster = Cluster()
        cluster.add_rollout(preflight=[{"name": "smoke", "job": {"profile": "smoke"}}])
        cluster.failures["start_check"] = [SpecError("no profile of this name")]
        process = Process(cluster)
        await process.settle()
        conditions = {item.type: item.status for item in cluster.status.conditions}
        assert (conditions["Stalled"], conditions["SpecValid"]) == ("True", "False")
        assert process.state.blocked is not None
        assert cluster.status.decision.reason is DecisionReason.INVALID_SPEC

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
