"""Jobs of migrations that take away what users need, which were created and have not begun: no node, no quota, a lock.

They must not begin after a rollback has begun, while the rollout is paused, or while a rule would not let them start. Not here:
Jobs that do not exist yet (test_migration_rules), what a suspended Job is (tests/adapters, tests/integration).
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest

from core.withdrawing import (
    BAD,
    EACH,
    PASSING,
    SLOW,
    WAITS,
    Change,
    breach,
    pause,
    ran,
    record,
    suspend,
    waiting,
)
from core.world import GOOD, World, ended
from session_rollout.api.enums import DecisionReason, EventReason, Outcome, Stage
from session_rollout.api.migration_enums import MigrationState, NoReturn, Operation
from session_rollout.api.progress import Progress
from session_rollout.core.observed import JobObservation, JobState

# --- rollbacks


ROLLBACKS: Final[dict[str, Callable[[World], Any]]] = {"breach": breach, "Abort": lambda world: world.request("Abort")}


@EACH
@pytest.mark.parametrize("progress", WAITS.values(), ids=WAITS)
@pytest.mark.parametrize("begin", ROLLBACKS.values(), ids=ROLLBACKS)
def test_job_that_has_not_begun_does_not_run_after_a_rollback(
    begin: Callable[[World], Any], progress: Progress, kind: str
) -> None:
    """The rollback ends without it, and room for its Pod comes too late."""
    world = waiting(kind, progress)
    begin(world)
    world.run(30)
    assert world.status.outcome in {Outcome.ROLLED_BACK, Outcome.ABORTED}
    world.room = True
    world.values |= GOOD
    world.run(300)
    assert ran(world, kind) == [False]
    expected = MigrationState.PENDING if kind == "up" else MigrationState.SUCCEEDED
    assert (record(world).state, record(world).withdrawn, record(world).is_in_database) == (expected, False, True)
    assert record(world).point_of_no_return is not NoReturn.PASSED
    assert [entry.operation for entry in world.entries(EventReason.MIGRATION_WITHDRAWN)] == [Operation(kind)]


@EACH
def test_retry_after_the_rollback_starts_another_job(kind: str) -> None:
    """Users have the features again, and everything that the rules require."""
    world = waiting(kind)
    world.request("Abort")
    world.until(ended)
    world.room = True
    world.request("Retry", generation=1)
    world.until(lambda world: world.status.outcome is Outcome.PROMOTED)
    assert ran(world, kind) == [False, True]


@EACH
def test_rollback_undoes_a_migration_whose_job_was_withdrawn(kind: str) -> None:
    """Its Pod may have committed before it ended: `down` asks the ledger."""
    scope = {"migrations": "Down", "scope": "All"}
    world = waiting(kind, WAITS["lock"], rollback=scope)
    world.request("Abort")
    world.run(20)
    world.room = True
    world.until(ended)
    assert (record(world).state, ran(world, "down"), ran(world, kind)) == (MigrationState.REVERTED, [True], [False])


@EACH
@pytest.mark.parametrize("begin", ROLLBACKS.values(), ids=ROLLBACKS)
def test_rollback_waits_for_a_job_that_has_begun(begin: Callable[[World], Any], kind: str) -> None:
    """It is never interrupted, also when the operator learns of its work after it has decided to stop it."""
    progress = {"total": 10, "done": 1} if kind == "finish" else {"message": "applying 0001_drop.up.sql"}
    world = waiting(kind, Progress(**progress))
    begin(world)
    world.run(60)
    assert (world.status.current.stage, world.reason) == (Stage.ROLLING_BACK, DecisionReason.AWAITING_MIGRATION)
    assert not any(job.suspended for job in world.jobs.values())
    world.room = True
    world.until(ended)
    assert (record(world).point_of_no_return is NoReturn.PASSED) is (kind == "finish")
    assert ran(world, kind) == [True]


def test_job_that_begins_before_it_could_be_suspended_runs_to_its_end() -> None:
    """The request comes too late; the mark is gone."""
    world = waiting("up")
    world.request("Abort")
    world.reconcile(crash_before_effects=True)
    assert record(world).withdrawn
    world.jobs[record(world).job or ""] = JobObservation(JobState.ACTIVE, Progress(message="applying 0001_drop.up.sql"))
    world.settle()
    assert (record(world).withdrawn, world.reason) == (False, DecisionReason.AWAITING_MIGRATION)
    world.room = True
    world.until(ended)
    assert ran(world, "up") == [True]


def test_rollback_waits_for_the_pod_of_a_suspended_job() -> None:
    """Kubernetes may still be ending it; a crash in between changes nothing, and the record keeps the cause."""
    world = waiting("up", WAITS["no node"])
    world.request("Abort")
    world.reconcile(crash_before_effects=True)
    job = record(world).job or ""
    world.jobs[job] = replace(world.jobs[job], suspended=True)
    world.run(60)
    assert (world.reason, record(world).state) == (DecisionReason.AWAITING_MIGRATION, MigrationState.RUNNING)
    assert (record(world).withdrawn, record(world).reason) == (True, None)
    world.jobs[job] = replace(world.jobs[job], stopped=True)
    world.settle()
    assert world.status.outcome is Outcome.ABORTED


def test_withdrawn_job_that_was_deleted_is_not_created_again() -> None:
    """By hand, while the rollback waits for its Pod."""
    world = waiting("up", WAITS["lock"])
    world.request("Abort")
    world.reconcile(crash_before_effects=True)
    world.jobs[record(world).job or ""] = JobObservation(JobState.MISSING)
    world.run(60)
    assert (world.status.outcome, ran(world, "up")) == (Outcome.ABORTED, [False])


def test_copy_that_is_finished_while_paused_is_not_resumed_by_a_rollback() -> None:
    """It has compared rows before the pause; nothing is interrupted if it stays suspended."""
    world = waiting("finish", Progress(total=10, done=1))
    world.request("Pause")
    world.reconcile()
    world.request("Abort")
    world.run(30)
    world.room = True
    world.run(60)
    assert (world.status.outcome, ran(world, "finish")) == (Outcome.ABORTED, [False])


# --- what passes


@EACH
@pytest.mark.parametrize("progress", WAITS.values(), ids=WAITS)
@pytest.mark.parametrize(("begin", "end"), PASSING.values(), ids=PASSING)
def test_job_that_has_not_begun_does_not_run_while_its_rules_do_not_hold(
    begin: Change, end: Change, progress: Progress, kind: str
) -> None:
    """Another Job runs when they hold again."""
    world = waiting(kind, progress, **SLOW)
    begin(world)
    world.run(30)
    world.room = True
    world.run(300)
    assert (ran(world, kind), world.status.outcome) == ([False], None)
    end(world)
    world.until(ended)
    assert (ran(world, kind), world.status.outcome) == ([False, True], Outcome.PROMOTED)


@EACH
def test_end_of_the_situation_does_not_start_a_job_against_other_rules(kind: str) -> None:
    """Paused, and before the `Resume` a guard fails."""
    world = waiting(kind, **SLOW)
    world.request("Pause")
    world.run(30)
    world.values["errors"] = BAD
    world.request("Resume")
    world.room = True
    world.run(300)
    assert (ran(world, kind), world.reason) == ([False], DecisionReason.GUARD_FAILING)


@EACH
def test_situation_that_ends_before_the_job_is_suspended_leaves_no_job_behind(kind: str) -> None:
    """What was decided is completed: no record waits for a suspended Job."""
    world = waiting(kind)
    world.request("Pause")
    world.reconcile(crash_before_effects=True)
    world.now += timedelta(seconds=1)
    world.request("Resume")
    world.settle()
    world.room = True
    world.until(ended)
    assert (ran(world, kind), world.status.outcome) == ([False, True], Outcome.PROMOTED)


@EACH
@pytest.mark.parametrize(("begin", "end"), PASSING.values(), ids=PASSING)
def test_job_that_has_begun_ends_in_spite_of_it(begin: Change, end: Change, kind: str) -> None:
    """A `Pause` suspends a copy that has begun, as before; everything else leaves both alone."""
    progress = {"total": 10, "done": 1} if kind == "finish" else {"message": "applying 0001_drop.up.sql"}
    world = waiting(kind, Progress(**progress), **SLOW)
    begin(world)
    world.reconcile()
    world.reconcile()
    rests = kind == "finish" and begin in {pause, suspend}
    assert world.jobs[record(world).job or ""].suspended is rests
    world.room = True
    world.run(60)
    assert ran(world, kind) == [not rests]
    end(world)
    world.until(ended)
    assert ran(world, kind)[-1]


@EACH
def test_job_that_somebody_else_suspends_is_left_alone(kind: str) -> None:
    """A queue of Jobs, or an administrator: no other Job takes its place, and a schema migration is not resumed."""
    world = waiting(kind)
    job = record(world).job or ""
    world.jobs[job] = replace(world.jobs[job], suspended=True, stopped=True)
    world.run(60)
    assert (ran(world, kind), record(world).state) == ([False], MigrationState.RUNNING)
    assert world.jobs[job].suspended is (kind == "up")
