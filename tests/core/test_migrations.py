"""Migrations that copy rows: snapshot, progress, pause, finish, restore, retry, and what cannot be undone.

Not here: up and down of schemas and their failures (test_schema_migrations), what a Job really does (tests/migrations).
"""

from datetime import timedelta
from typing import Any

import pytest

from core.world import World, at, ended, rollout_data, spec
from session_rollout.api.enums import ActionReason, DecisionAction, DecisionReason, EventReason, Outcome, Stage, State
from session_rollout.api.migration_enums import MigrationState, NoReturn, Operation
from session_rollout.api.progress import Progress
from session_rollout.api.status_records import MigrationRecord, Refusal
from session_rollout.core.observed import Decision, JobObservation, JobState, StartJob

FIGURES = {"done": 1000, "total": 1000, "following": True}
ACCEPTED = (True, ActionReason.ACCEPTED)


def copying(**changes: Any) -> dict[str, Any]:
    """A spec whose first phase copies rows, with a snapshot."""
    phases = rollout_data()["phases"]
    return {
        "database": {"secretKeyRef": {"name": "db"}},
        "migrations": [{"name": "rows", "bundle": "a/rows", "change": "Migrate", "backup": True}],
        "phases": [{**phases[0], "migrations": {"before": ["rows"]}}, phases[1]],
        **changes,
    }


def copying_world(**changes: Any) -> World:
    """Its rows are copied at once when a Job ends."""
    return World(spec(**copying(**changes)), progress=FIGURES)


def rows(world: World) -> MigrationRecord:
    """The record of the migration."""
    return world.migration("rows")


def operations(world: World) -> list[str]:
    """What the Jobs did, in order."""
    return [name.rsplit("-", 2)[1] for name in world.jobs]


def report(world: World, **progress: Any) -> str:
    """Let the running Job report progress; its name."""
    name = rows(world).job or ""
    world.jobs[name] = JobObservation(JobState.ACTIVE, Progress(**progress), suspended=world.jobs[name].suspended)
    return name


def at_step(world: World) -> bool:
    """The first step has started."""
    return world.status.current.step > 0


def test_snapshot_comes_after_the_rows_and_before_anything_is_published() -> None:
    """Up, backup, then the first step; finish at the end of the bake; the snapshot is kept for a week."""
    world = copying_world()
    world.until(at_step)
    assert operations(world) == ["up", "backup"]
    assert rows(world).following
    assert rows(world).backup_time is not None
    world.until(ended)
    assert operations(world) == ["up", "backup", "finish"]
    assert world.status.outcome is Outcome.PROMOTED
    assert rows(world).backup_until is not None
    world.progress = {"done": 1000, "total": 1000}
    world.now += timedelta(days=7, minutes=1)
    world.run(60)
    assert operations(world) == ["up", "backup", "finish", "prune"]
    assert rows(world).backup_until is None
    assert world.status.outcome is Outcome.PROMOTED


def test_a_copy_is_not_finished_while_a_feature_of_its_phase_is_disabled() -> None:
    """Users without the feature write to the source, from which nothing is copied after `finish`; the bake is a later phase's."""
    world = copying_world()
    world.until(at("two", 1))
    world.request("EmergencyDisable", features=["alpha"])
    world.until(lambda world: world.status.current.stage is Stage.BAKE)
    world.run(3600)
    assert operations(world) == ["up", "backup"]
    assert world.reason is DecisionReason.FEATURE_DISABLED
    assert world.status.decision.next_actions
    assert rows(world).following
    world.request("EmergencyEnable", features=["alpha"])
    world.until(ended)
    assert operations(world) == ["up", "backup", "finish"]
    assert world.status.outcome is Outcome.PROMOTED


def test_finish_is_requested_while_it_is_refused() -> None:
    """It is one stall, and not one that comes and goes with each decision."""
    world = copying_world(bake="60s")
    world.until(lambda world: world.status.current.stage is Stage.BAKE)
    decisions: list[Decision] = []
    while not (decisions and any(isinstance(effect, StartJob) for effect in decisions[-1].effects)):
        world.now += timedelta(seconds=10)
        decisions.append(world.reconcile(crash_before_effects=True))
    world.refusals = (Refusal(effect="StartJob", verb="create", resource="jobs", message="forbidden", since=world.now),)
    for _ in range(3):
        decision = world.reconcile(crash_before_effects=True)
        assert any(isinstance(effect, StartJob) for effect in decision.effects)
        assert world.reason is DecisionReason.REQUEST_REFUSED
    world.refusals = ()
    world.until(ended)
    assert operations(world) == ["up", "backup", "finish"]


def test_a_phase_that_copies_rows_must_end_at_100_percent() -> None:
    """Below, `finish` would cut off the rows of the remaining users: it stalls before anybody has the feature; an edit ends that."""
    complete = copying()["phases"]
    partial = complete[0] | {"steps": [{"percent": 10, "hold": "1m"}, {"percent": 50, "hold": "1m"}]}
    world = copying_world(phases=[partial, complete[1]])
    world.run(600)
    assert (world.reason, world.status.state) == (DecisionReason.INVALID_SPEC, State.STALLED)
    assert world.condition_reason("SpecValid") == "Invalid"
    assert operations(world) == ["up"]
    assert world.where[3] == "0"
    world.edit(spec(**copying()))
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_progress_is_in_status_and_not_written_more_often_than_read() -> None:
    """Rows, rate, end, quarantine; a second reconcile within five seconds writes nothing."""
    world = copying_world()
    world.reconcile()
    report(world, message="copying rows", done=420, total=1000, rate=20, remaining_seconds=29, quarantined=3)
    world.reconcile()
    record = rows(world)
    assert (record.done, record.total, record.rate, record.quarantined) == (420, 1000, 20, 3)
    assert record.estimated_end_time == world.now + timedelta(seconds=29)
    assert world.status.progress
    assert world.reason is DecisionReason.MIGRATION_RUNNING
    report(world, message="copying rows", done=430, total=1000, rate=20, quarantined=3)
    writes = world.writes
    world.now += timedelta(seconds=1)
    world.reconcile()
    assert world.writes == writes
    world.now += timedelta(seconds=5)
    world.reconcile()
    assert rows(world).done == 430


def test_what_holds_a_job_up_is_in_its_record() -> None:
    """A lock or a throttle, with the reason that the Job gives."""
    world = copying_world()
    world.reconcile()
    report(world, reason="WaitingForLock", message="copying rows", waiting="users is locked by pid 7", done=0, total=10)
    world.reconcile()
    assert rows(world).reason == "WaitingForLock"
    assert len(world.status.decision.details) == 2


def test_pause_suspends_the_copy_and_resume_continues_it() -> None:
    """Only a Job that copies rows is suspended; a change of the schema runs to its end."""
    world = copying_world()
    world.reconcile()
    world.request("Pause")
    world.reconcile()
    name = rows(world).job or ""
    assert not world.jobs[name].suspended, "it has not reported yet that it copies rows"
    report(world, done=1, total=10, rate=5, remaining_seconds=2)
    world.reconcile()
    world.reconcile()
    assert world.jobs[name].suspended
    world.now += timedelta(seconds=10)
    world.reconcile()
    assert rows(world).estimated_end_time is None
    world.request("Resume")
    world.reconcile()
    world.reconcile()
    assert not world.jobs[name].suspended
    world.until(ended)


def test_rollback_resumes_a_suspended_copy_and_waits_for_its_end() -> None:
    """Nothing is killed, nothing waits for ever."""
    world = copying_world()
    world.reconcile()
    report(world, done=1, total=10)
    world.request("Pause")
    world.reconcile()
    world.reconcile()
    name = rows(world).job or ""
    assert world.jobs[name].suspended
    world.request("Abort")
    world.reconcile()
    world.reconcile()
    assert not world.jobs[name].suspended
    assert world.reason is DecisionReason.AWAITING_MIGRATION
    world.until(ended)
    assert world.status.outcome is Outcome.ABORTED


def test_restore_is_part_of_a_rollback_where_declared_and_comes_after_the_flags() -> None:
    """Once; and a retry takes a new snapshot."""
    world = copying_world(rollback={"restoreData": True})
    world.until(at_step)
    world.request("Abort")
    world.reconcile()
    assert world.status.current.stage is Stage.ROLLING_BACK
    world.until(ended)
    assert operations(world) == ["up", "backup", "restore"]
    assert rows(world).restore_time is not None
    world.request("Retry", generation=1)
    world.until(ended)
    assert operations(world) == ["up", "backup", "restore", "backup", "finish"]


def test_failed_restore_stalls_the_rollback_until_retried() -> None:
    """With the reason of the Job."""
    world = copying_world(rollback={"restoreData": True})
    world.until(at_step)
    world.jobs_succeed = False
    world.request("Abort")
    world.run(60)
    assert (world.status.decision.action, world.reason) == (DecisionAction.STALL, DecisionReason.MIGRATION_FAILED)
    assert (rows(world).operation, rows(world).reason) == (Operation.RESTORE, "StatementFailed")
    world.jobs_succeed = True
    world.request("Retry", generation=1)
    world.until(ended)
    assert operations(world)[-1] == "restore"


def test_action_restores_at_any_time_with_its_options() -> None:
    """User, time, whether newer rows may be lost; refused for an unknown migration, and while something runs."""
    world = copying_world()
    world.reconcile()
    early = world.request("RestoreData", migration="rows")
    world.reconcile()
    assert world.answer(early) == (False, ActionReason.MIGRATION_RUNNING)
    world.until(at_step)
    unknown = world.request("RestoreData", migration="other")
    right = world.request("RestoreData", migration="rows", user="u-1", at="2026-01-05T09:00:00Z", loseNewer=True)
    world.reconcile()
    assert world.answer(unknown) == (False, ActionReason.UNKNOWN_MIGRATION)
    assert world.answer(right) == ACCEPTED
    assert rows(world).arguments == ("--user=u-1", "--at=2026-01-05T09:00:00+00:00", "--exact", "--lose-newer")
    world.until(ended)
    assert operations(world) == ["up", "backup", "restore", "finish"]


def test_restore_without_a_snapshot_is_refused() -> None:
    """`backup` is false by default."""
    world = copying_world(migrations=[{"name": "rows", "bundle": "a/rows", "change": "Migrate"}])
    world.until(at_step)
    name = world.request("RestoreData", migration="rows")
    world.settle()
    assert world.answer(name) == (False, ActionReason.NO_SNAPSHOT)


def test_optional_operation_that_fails_leaves_the_migration_what_it_was() -> None:
    """Its failure is in status and in the history, and the rollout continues."""
    world = copying_world()
    world.until(at_step)
    world.jobs_succeed = False
    world.request("RestoreData", migration="rows")
    world.settle()
    assert (rows(world).state, rows(world).reason) == (MigrationState.SUCCEEDED, "StatementFailed")
    assert [entry.operation for entry in world.entries(EventReason.MIGRATION_FAILED)] == [Operation.RESTORE]
    assert world.condition("MigrationsApplied") == "True"
    world.jobs_succeed = True
    world.until(ended)


def test_rows_in_quarantine_are_retried_by_an_action() -> None:
    """Refused where there is none."""
    world = copying_world()
    world.progress = {**FIGURES, "quarantined": 7}
    world.until(at_step)
    assert rows(world).quarantined == 7
    world.progress = FIGURES
    name = world.request("RetryMigration", migration="rows")
    world.settle()
    assert world.answer(name) == ACCEPTED
    assert (rows(world).operation, rows(world).quarantined) == (Operation.RETRY, 0)
    again = world.request("RetryMigration", migration="rows")
    world.settle()
    assert world.answer(again) == (False, ActionReason.NOTHING_TO_RETRY)


def test_failed_migration_is_retried_by_an_action() -> None:
    """RetryMigration is Retry for one migration."""
    world = copying_world()
    world.jobs_succeed = False
    world.run(20)
    assert world.reason is DecisionReason.MIGRATION_FAILED
    world.jobs_succeed = True
    name = world.request("RetryMigration", migration="rows")
    world.until(at_step)
    assert world.answer(name) == ACCEPTED


def test_only_the_named_migration_is_retried() -> None:
    """The failure of another stays in the status."""
    phases = rollout_data()["phases"]
    phases[0]["migrations"] = {"before": ["rows", "more"]}
    world = copying_world(migrations=[{"name": name, "bundle": f"shop/{name}"} for name in ("rows", "more")], phases=phases)
    world.until(at_step)
    world.request("Abort")
    world.until(ended)
    world.jobs_succeed = False
    for name in ("more", "rows"):
        world.request("MigrateDown", migration=name)
        world.settle()
    assert {world.migration(name).state for name in ("more", "rows")} == {MigrationState.FAILED}
    world.jobs_succeed = True
    world.request("RetryMigration", migration="more")
    world.settle()
    assert [world.migration(name).state for name in ("more", "rows")] == [MigrationState.SUCCEEDED, MigrationState.FAILED]


@pytest.mark.parametrize(("action", "operation"), [("BackupData", Operation.BACKUP), ("RepairData", Operation.REPAIR)])
def test_backup_and_repair_by_an_action(action: str, operation: Operation) -> None:
    """A Job each time; a failure leaves the migration what it was."""
    world = copying_world(migrations=[{"name": "rows", "bundle": "shop/rows"}])
    world.until(at_step)
    for _ in range(2):
        name = world.request(action, migration="rows")
        world.run(20)
        assert world.answer(name) == ACCEPTED
    assert operations(world).count(operation) == 2
    world.jobs_succeed = False
    world.request(action, migration="rows")
    world.run(20)
    assert (rows(world).state, rows(world).operation, rows(world).reason) == (
        MigrationState.SUCCEEDED,
        operation,
        "StatementFailed",
    )


def test_repair_of_a_migration_without_rows_is_refused() -> None:
    """There are none to copy again."""
    world = World(spec(**copying()))
    world.until(at_step)
    name = world.request("RepairData", migration="rows")
    world.settle()
    assert world.answer(name) == (False, ActionReason.COPIES_NO_ROWS)


def test_point_of_no_return_is_announced_before_it_is_passed_and_refuses_down() -> None:
    """In status from the first decision on; the rollback ends without undoing it, with an event."""
    declared = [{"name": "rows", "bundle": "a/rows", "pointOfNoReturn": 3}]
    world = World(spec(**copying(migrations=declared, rollback={"migrations": "Down"})))
    world.reconcile()
    assert rows(world).point_of_no_return is NoReturn.AHEAD
    assert [entry.migration for entry in world.entries(EventReason.POINT_OF_NO_RETURN)] == ["rows"]
    world.until(at_step)
    assert rows(world).point_of_no_return is NoReturn.PASSED
    world.request("Abort")
    world.until(ended)
    assert operations(world) == ["up"]
    assert [entry.migration for entry in world.entries(EventReason.MIGRATION_KEPT)] == ["rows"]
    name = world.request("MigrateDown", migration="rows")
    world.settle()
    assert world.answer(name) == (False, ActionReason.POINT_OF_NO_RETURN_PASSED)


@pytest.mark.parametrize(("allowed", "arguments"), [(False, ()), (True, ("--allow-data-loss",))], ids=["refused", "allowed"])
def test_down_has_the_argument_that_allows_data_loss(arguments: tuple[str, ...], *, allowed: bool) -> None:
    """As the spec declares."""
    world = copying_world(rollback={"migrations": "Down", "allowDataLoss": allowed})
    world.until(at_step)
    world.request("Abort")
    world.until(ended)
    assert (rows(world).state, rows(world).arguments) == (MigrationState.REVERTED, arguments)


def test_lost_job_is_created_again() -> None:
    """Somebody deleted it: the same name, so that it resumes where it stopped."""
    world = copying_world()
    world.reconcile()
    name = rows(world).job or ""
    world.jobs[name] = JobObservation(JobState.MISSING)
    decision = world.reconcile()
    assert [effect.name for effect in decision.effects if isinstance(effect, StartJob)] == [name]
