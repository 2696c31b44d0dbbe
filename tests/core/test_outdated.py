"""An action that is older than what it would undo: whoever created it did not know of that.

Not here: the order of actions that come together (test_actions), `EmergencyEnable` and its emergencies (test_emergency).
"""

from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import pytest

from core.collecting import migrated
from core.document_scenarios import recreated
from core.world import GOOD, World, at, edited, ended, spec
from session_rollout.api.action import SessionRolloutAction
from session_rollout.api.enums import ActionReason, ActionType, DecisionReason, Outcome, Stage
from session_rollout.api.status_records import AnsweredAction
from session_rollout.core.flags import NOBODY
from session_rollout.core.observed import ClockJump
from session_rollout.simulation import world as simulation

SECOND: Final = timedelta(seconds=1)
HOUR: Final = timedelta(hours=1)
BAD: Final = Decimal("0.5")
GUARD: Final = {"name": "errors", "metric": "errors", "below": "5%"}
OUTDATED: Final = (False, ActionReason.OUTDATED)
ACCEPTED: Final = (True, ActionReason.ACCEPTED)
SIGNED: Final[dict[str, Any]] = {"preflight": [{"name": "signed", "approval": {}}]}
STEP: Final[dict[str, Any]] = {"generation": 1, "phase": "one", "step": 1}


def late(world: World, action: str, **fields: Any) -> SessionRolloutAction:
    """An action that is created now, and that the operator does not notice yet."""
    simulation.World.request(world, action, f"late-{action}", **fields)
    return world.actions.pop()


def answer(world: World, action: SessionRolloutAction, seconds: float = 100) -> tuple[bool, ActionReason]:
    """The response after a sweep has noticed it."""
    world.actions.append(action)
    world.run(seconds)
    return world.answer(action.name)


def rolled_back(**changes: Any) -> World:
    world = World(spec(**{"guards": [GUARD], **changes}))
    world.until(at("one", 1))
    breach(world)
    return world


def breach(world: World) -> None:
    world.values["errors"] = BAD
    world.run(20)
    world.values["errors"] = GOOD["errors"]
    world.run(20)


def gives_something(world: World) -> bool:
    return world.document is not None and any(audience != NOBODY for audience in world.document.audiences.values())


# --- what protects users since


def test_retry_from_before_a_rollback_starts_nothing() -> None:
    """Two people answer the first rollback; the second answer comes after the second rollback."""
    world = rolled_back()
    assert world.status.outcome is Outcome.ROLLED_BACK
    world.request("Retry", generation=1)
    action = late(world, "Retry", generation=1)
    world.until(gives_something)
    breach(world)
    assert answer(world, action) == OUTDATED
    assert not gives_something(world)
    fresh = world.request("Retry", generation=1)
    world.until(gives_something)
    assert world.answer(fresh) == ACCEPTED


def test_retry_from_before_a_deadline_starts_nothing() -> None:
    """The step is rolled back because nobody could judge it."""

    def change(data: dict[str, Any]) -> None:
        data["phases"][0] |= {"deadline": "30s", "onDeadline": "Rollback"}

    world = World(edited(change))
    world.until(at("one", 1))
    action = late(world, "Retry", generation=1)
    world.values["errors"] = Decimal("0.02")
    world.until(ended)
    assert answer(world, action) == OUTDATED


@pytest.mark.parametrize("by", ["action", "guard"])
def test_resume_from_before_a_pause_resumes_nothing(by: str) -> None:
    world = World(spec(guards=[{**GUARD, "onBreach": "Pause"}]))
    world.until(at("one", 1))
    world.request("Pause")
    world.run(10)
    world.request("Resume")
    action = late(world, "Resume")
    world.run(10)
    if by == "guard":
        breach(world)
    else:
        world.request("Pause")
        world.run(10)
    assert answer(world, action) == OUTDATED
    assert world.status.paused_by
    world.request("Resume")
    world.run(10)
    assert not world.status.paused_by


def test_resume_from_before_a_pause_of_a_paused_rollout_resumes_nothing() -> None:
    """The second person was told that it is paused already, and relies on it."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("Pause")
    world.run(10)
    action = late(world, "Resume")
    world.run(10)
    again = world.request("Pause")
    world.run(10)
    assert world.answer(again) == (False, ActionReason.ALREADY_PAUSED)
    assert answer(world, action) == OUTDATED
    assert world.status.paused_by


def approving() -> World:
    """The hold of a step that requires approval."""
    world = World(edited(lambda data: data["phases"][0]["steps"][0].update(approval="Required"), guards=[GUARD]))
    world.until(at("one", 1))
    world.run(20)
    assert world.status.current.hold_until is not None
    return world


@pytest.mark.parametrize("kind", ["Approve", "Promote"])
@pytest.mark.parametrize("by", ["action", "hand"])
def test_step_does_not_end_by_an_action_from_before_an_emergency(kind: str, by: str) -> None:
    """Its author did not know that something was wrong."""
    world = approving()
    action = late(world, kind, **STEP)
    world.run(10)
    if by == "hand":
        world.tamper(taken_away=frozenset({"alpha"}), editor="kubectl-edit")
    else:
        world.request("EmergencyDisable", features=["alpha"])
    world.run(10)
    world.request("EmergencyEnable")
    world.run(10)
    assert answer(world, action) == OUTDATED
    assert world.where[1] == 1


def test_approval_of_a_gate_from_before_a_rollback_starts_nothing() -> None:
    world = World(spec(guards=[GUARD], **SIGNED))
    world.run(10)
    world.request("Approve", generation=1, check="signed")
    action = late(world, "Approve", generation=1, check="signed")
    world.until(at("one", 1))
    breach(world)
    world.request("Retry", generation=1)
    world.run(10)
    assert answer(world, action) == OUTDATED
    assert world.reason is DecisionReason.AWAITING_APPROVAL


@pytest.mark.parametrize("kind", ["Adopt", "Reset"])
def test_document_is_kept_in_spite_of_an_action_from_before_an_emergency(kind: str) -> None:
    world = World(spec())
    world.until(at("one", 1))
    fresh = recreated(world)
    fresh.run(10)
    action = late(fresh, kind)
    fresh.run(10)
    fresh.request("EmergencyDisable", features=["gamma"])
    fresh.run(10)
    assert answer(fresh, action) == OUTDATED
    assert fresh.reason is DecisionReason.ADOPTION_REQUIRED


def test_migration_that_failed_again_is_not_retried_by_an_older_action() -> None:
    """Somebody else has answered the first failure."""
    world = World(spec(**migrated()), jobs_succeed=False)
    world.until(lambda world: world.reason is DecisionReason.MIGRATION_FAILED)
    action = late(world, "Retry", generation=1)
    world.now += timedelta(minutes=1)
    world.request("Retry", generation=1)
    world.run(60)
    attempts = len(world.jobs)
    assert answer(world, action) == OUTDATED
    assert len(world.jobs) == attempts


# --- what the action is about


def test_approval_from_before_the_hold_does_not_count_when_it_comes_in_the_hold() -> None:
    """In time, it would have been rejected: nobody had seen anything of the step."""
    world = World(
        edited(lambda data: data["phases"][0]["steps"][0].update(approval="Required")), ranges={"errors": timedelta(minutes=5)}
    )
    world.until(at("one", 1))
    action = late(world, "Approve", **STEP)
    world.until(lambda world: world.status.current.hold_until is not None)
    assert answer(world, action) == OUTDATED
    assert world.where[1] == 1


def test_approval_that_waited_for_the_operator_counts_after_a_pause_of_the_hold() -> None:
    """It was created in the hold, and no pause of the timer makes it older."""
    world = approving()
    action = late(world, "Approve", **STEP)
    world.now += timedelta(seconds=30)
    assert answer(world, action, 10) == ACCEPTED


def test_promote_from_before_the_step_was_published_completes_nothing() -> None:
    """It was meant for the same step of the attempt before."""
    world = World(spec())
    world.until(at("one", 1))
    action = late(world, "Promote", **STEP)
    world.run(10)
    world.request("Abort")
    world.run(10)
    world.status = world.status.updated(protected_time=None)  # of an older version
    world.request("Retry", generation=1)
    world.until(at("one", 1))
    assert answer(world, action, 20) == OUTDATED
    assert world.where[1] == 1


# --- the same second


def test_what_a_guard_does_in_the_second_of_an_action_wins() -> None:
    """Nobody can tell which came first."""
    world = rolled_back()
    world.request("Retry", generation=1)
    world.until(gives_something)
    action = late(world, "Retry", generation=1)
    world.now += timedelta(milliseconds=900)
    breach(world)
    assert answer(world, action) == OUTDATED
    assert world.status.protected_time is not None


def test_resume_in_the_second_of_a_pause_that_was_answered_resumes() -> None:
    """Its author has waited for the response."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("Pause")
    world.settle()
    name = world.request("Resume")
    world.settle()
    assert world.answer(name) == ACCEPTED
    assert not world.status.paused_by


def test_resume_that_comes_before_the_response_of_a_pause_of_the_same_second() -> None:
    """After a start, actions come one by one, by name: the decision about the first comes in between."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("Pause")
    [pause] = world.actions
    world.settle()
    name = world.request("Resume")
    world.actions.append(pause)  # its response could not be written
    del world.answers[pause.name]
    answered = AnsweredAction(
        uid=pause.uid, name=pause.name, accepted=True, reason=ActionReason.ACCEPTED, message="", time=world.now
    )
    world.status = world.status.updated(processed_actions=(answered,))
    world.settle()
    assert world.answer(name) == OUTDATED
    assert world.status.paused_by


# --- clocks


def test_action_is_newer_after_the_clock_of_the_server_was_set_back() -> None:
    """This process goes by elapsed time."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("Pause")
    world.run(10)
    world.clock_jump = ClockJump(world.now, -HOUR, "api-server", -HOUR)
    world.run(10)
    name = world.request("Resume", after=-HOUR)
    world.run(10)
    assert world.answer(name) == ACCEPTED


def test_action_is_newer_for_a_process_that_began_after_the_clock_was_set_back() -> None:
    """Its clock is that of the server, and the pause is of a later time."""
    world = World(spec())
    world.until(at("one", 1))
    world.created = world.now
    world.request("Pause")
    world.run(10)
    world.now -= HOUR
    world.last_reconcile = None
    world.run(10)
    world.now += SECOND
    name = world.request("Resume")
    world.run(10)
    assert world.answer(name) == ACCEPTED


# --- the rollout itself

FIELDS: Final[dict[str, dict[str, Any]]] = {
    "Approve": {"generation": 1, "check": "signed"},
    "Promote": STEP,
    "Retry": {"generation": 1},
}
OF_MIGRATIONS: Final = ("RestoreData", "RetryMigration", "BackupData", "RepairData", "MigrateDown")
CHANGING: Final = [kind for kind in ActionType if not kind.is_read_only]


@pytest.mark.parametrize("kind", CHANGING)
def test_action_that_is_older_than_the_rollout_is_about_another_one(kind: ActionType) -> None:
    """A GitOps tool has replaced the object, whose generation is 1 again. What protects users is heard all the same."""
    world = World(spec(**SIGNED))
    action = late(world, kind, **FIELDS.get(kind, {"migration": "tables"} if kind in OF_MIGRATIONS else {}))
    world.now += SECOND
    world.created = world.now
    world.run(10)
    assert (answer(world, action, 20) == OUTDATED) is not kind.protects_users
    assert world.status.current.stage is (Stage.ENDED if kind is ActionType.ABORT else Stage.PREFLIGHT)


@pytest.mark.parametrize(("age", "accepted"), [(timedelta(0), True), (SECOND, False)])
def test_approval_in_the_second_of_the_rollout_counts(age: timedelta, *, accepted: bool) -> None:
    """Both are created by one command."""
    world = World(spec(**SIGNED))
    world.created = world.now
    name = world.request("Approve", generation=1, check="signed", after=-age)
    world.run(10)
    assert world.answer(name) == (ACCEPTED if accepted else OUTDATED)


def test_rollout_from_before_the_clock_was_set_back_rejects_nothing() -> None:
    """Its creation is in the future: every action seemed to be older."""
    world = World(spec(**SIGNED))
    world.created = world.now + HOUR
    name = world.request("Approve", generation=1, check="signed")
    world.run(10)
    assert world.answer(name) == ACCEPTED
