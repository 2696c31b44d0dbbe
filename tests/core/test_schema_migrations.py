"""Migrations of a schema: up before and after a phase, down in a rollback or by an action, failures and lost Jobs.

Not here: migrations that copy rows (test_migrations), what a Job does in a database (tests/migrations).
"""

from typing import Any

from core.world import World, at, ended, rollout_data, spec
from session_rollout.api.enums import ActionReason, DecisionAction, DecisionReason, EventReason, Outcome, Stage
from session_rollout.api.migration_enums import MigrationState, Operation
from session_rollout.core.observed import JobObservation, JobState

MIGRATED: dict[str, Any] = {
    "database": {"secretKeyRef": {"name": "db"}},
    "migrations": [{"name": "tables", "bundle": "a/b"}, {"name": "cleanup", "bundle": "a/c"}],
    "phases": [
        {**phase, "migrations": {"before": ["tables"], "after": ["cleanup"]}} if phase["name"] == "one" else phase
        for phase in rollout_data()["phases"]
    ],
}
DOWN: dict[str, Any] = {**MIGRATED, "rollback": {"migrations": "Down"}}


def test_migrations_run_once_before_and_after() -> None:
    """One Job each; nothing is published before the first has succeeded."""
    world = World(spec(**MIGRATED))
    world.reconcile()
    assert (world.status.current.stage, world.reason) == (Stage.BEFORE, DecisionReason.MIGRATION_RUNNING)
    assert world.status.phases[0].features == ()
    world.until(ended)
    assert len(world.jobs) == 2
    assert {record.state for record in world.status.migrations} == {MigrationState.SUCCEEDED}
    assert (world.condition("MigrationsApplied"), world.condition_reason("MigrationsApplied")) == ("True", "Applied")
    for event in (EventReason.MIGRATION_STARTED, EventReason.MIGRATION_SUCCEEDED):
        entries = [(entry.migration, entry.operation, entry.job) for entry in world.entries(event)]
        assert entries == [(record.name, Operation.UP, record.job) for record in reversed(world.status.migrations)]


def test_failed_migration_stalls_and_retry_runs_another_job() -> None:
    """The reason of the failure is in status; Retry is another Job."""
    world = World(spec(**MIGRATED), jobs_succeed=False)
    world.run(60)
    assert (world.status.decision.action, world.reason) == (DecisionAction.STALL, DecisionReason.MIGRATION_FAILED)
    record = world.migration("tables")
    assert (record.state, record.reason) == (MigrationState.FAILED, "StatementFailed")
    assert record.message
    assert (world.condition("MigrationsApplied"), world.condition_reason("MigrationsApplied")) == ("False", "Failed")
    assert len(world.entries(EventReason.STALLED)) == 1
    assert [entry.job for entry in world.entries(EventReason.MIGRATION_FAILED)] == [record.job]
    world.jobs_succeed = True
    name = world.request("Retry", generation=1)
    world.until(ended)
    assert world.answer(name) == (True, ActionReason.ACCEPTED)
    assert world.status.outcome is Outcome.PROMOTED
    assert len(world.jobs) == 3


def test_rollback_waits_for_a_running_migration() -> None:
    """Flags are off at once; the generation ends when the Job has ended."""
    world = World(spec(**MIGRATED))
    world.reconcile()
    world.reconcile()
    world.request("Abort")
    world.reconcile()
    assert world.status.current.stage is Stage.ROLLING_BACK
    world.reconcile()
    assert world.reason is DecisionReason.AWAITING_MIGRATION
    assert world.migration("tables").state is MigrationState.RUNNING
    world.until(ended)
    assert world.status.outcome is Outcome.ABORTED
    assert world.migration("tables").state is MigrationState.SUCCEEDED


def test_rollback_takes_migrations_down_where_declared() -> None:
    """`migrations: Down` undoes what this phase had applied."""
    world = World(spec(**DOWN))
    world.until(at("one", 1))
    world.request("Abort")
    world.until(ended)
    record = world.migration("tables")
    assert (record.state, record.operation) == (MigrationState.REVERTED, Operation.DOWN)
    assert any("-down-" in name for name in world.jobs)


def test_rollback_takes_the_last_migration_down_first() -> None:
    """In the reverse of the order in which they were applied, with those after the phase included."""
    phases = rollout_data()["phases"]
    both = {"before": ["tables", "cleanup"]}
    world = World(spec(**{**DOWN, "phases": [{**phases[0], "migrations": both}, phases[1]]}))
    world.until(at("one", 1))
    world.request("Abort")
    world.until(ended)
    undone = [entry.migration for entry in world.entries(EventReason.MIGRATION_STARTED) if entry.operation is Operation.DOWN]
    assert undone == ["cleanup", "tables"]


def test_rollback_undoes_a_migration_that_failed_half_way() -> None:
    """Before the one that was applied before it: its SQL steps up to the failure are in the database."""
    phases = rollout_data()["phases"]
    both = {"before": ["tables", "cleanup"]}
    world = World(spec(**{**DOWN, "phases": [{**phases[0], "migrations": both}, phases[1]]}))
    world.reconcile()
    world.advance_jobs()
    world.reconcile()
    world.jobs_succeed = False
    world.until(lambda world: world.reason is DecisionReason.MIGRATION_FAILED)
    world.jobs_succeed = True
    world.request("Abort")
    world.until(ended)
    undone = [entry.migration for entry in world.entries(EventReason.MIGRATION_STARTED) if entry.operation is Operation.DOWN]
    assert undone == ["cleanup", "tables"]
    assert {record.state for record in world.status.migrations} == {MigrationState.REVERTED}


def test_failed_migration_is_undone_by_an_action_as_often_as_needed() -> None:
    """After a rollback that kept migrations; a `down` that failed is tried again in another Job."""
    world = World(spec(**MIGRATED), jobs_succeed=False)
    world.until(lambda world: world.reason is DecisionReason.MIGRATION_FAILED)
    world.request("Abort")
    world.until(ended)
    for succeeds, state in ((False, MigrationState.FAILED), (True, MigrationState.REVERTED)):
        world.jobs_succeed = succeeds
        name = world.request("MigrateDown", migration="tables")
        world.run(60)
        assert world.answer(name) == (True, ActionReason.ACCEPTED)
        assert (world.migration("tables").operation, world.migration("tables").state) == (Operation.DOWN, state)
    assert len([name for name in world.jobs if "-down-" in name]) == 2


def test_failed_down_stalls_the_rollback_until_retried() -> None:
    """A rollback that cannot finish says so, and continues after Retry."""
    world = World(spec(**DOWN))
    world.until(at("one", 1))
    world.jobs_succeed = False
    world.request("Abort")
    world.run(60)
    assert (world.status.decision.action, world.reason) == (DecisionAction.STALL, DecisionReason.MIGRATION_FAILED)
    assert world.status.current.stage is Stage.ROLLING_BACK
    world.jobs_succeed = True
    world.request("Retry", generation=1)
    world.until(ended)
    assert world.migration("tables").state is MigrationState.REVERTED


def test_job_that_was_never_created_is_pending_again_after_a_rollback() -> None:
    """A crash between the intent and the Job, then an abort: nothing is waited for."""
    world = World(spec(**MIGRATED))
    world.reconcile(crash_before_effects=True)
    name = world.migration("tables").job
    assert name is not None
    world.jobs[name] = JobObservation(JobState.MISSING)
    world.request("Abort")
    world.until(ended)
    assert world.migration("tables").state is MigrationState.PENDING


def test_job_of_another_owner_is_a_failure() -> None:
    """A Job with the name of ours, created by somebody else, is neither used nor deleted."""
    world = World(spec(**MIGRATED))
    world.reconcile(crash_before_effects=True)
    world.jobs[world.migration("tables").job or ""] = JobObservation(JobState.FOREIGN)
    world.settle()
    assert (world.reason, world.migration("tables").reason) == (DecisionReason.MIGRATION_FAILED, "JobFailed")


def test_migration_is_undone_by_an_action_only_after_a_rollback() -> None:
    """While users may have what needs it, it stays."""
    world = World(spec(**MIGRATED))
    world.until(at("one", 1))
    early = world.request("MigrateDown", migration="tables")
    world.run(10)
    assert world.answer(early) == (False, ActionReason.PHASE_NOT_ROLLED_BACK)
    world.request("Abort")
    world.run(20)
    down = world.request("MigrateDown", migration="tables")
    world.run(20)
    assert world.answer(down) == (True, ActionReason.ACCEPTED)
    assert world.migration("tables").state is MigrationState.REVERTED
    assert sorted(name.rsplit("-", 2)[1] for name in world.jobs) == ["down", "up"]
    again = world.request("MigrateDown", migration="tables")
    world.run(20)
    assert world.answer(again) == (False, ActionReason.MIGRATION_NOT_APPLIED)
