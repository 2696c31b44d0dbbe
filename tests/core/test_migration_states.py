"""What counts as applied: only a successful `up` of the bundle that the spec has, whatever other operations and actions do.

Not here: what each operation is for (test_migrations), when migrations run (test_schema_migrations).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pytest

from core.collecting import FIGURES
from core.copies import approve, changes_of, copy_of
from core.world import World, at, ended, rollout_data
from session_rollout.api.enums import ActionReason, DecisionReason, EventReason, Outcome, Stage
from session_rollout.api.migration_enums import MigrationState, Operation
from session_rollout.core.observed import JobObservation, JobState

DATA: Final = ("BackupData", "RepairData", "RestoreData")
MIGRATE: Final = ("RetryMigration", "MigrateDown")
NOT_APPLIED: Final = ActionReason.MIGRATION_NOT_APPLIED


# --- the states that an action or a retry may begin from


def _applied() -> World:
    world = World(copy_of(), progress=FIGURES)
    world.settle()
    approve(world)
    world.until(at("one", 1))
    world.request("Abort")
    world.until(ended)
    return world


def _undone(*, succeeds: bool) -> World:
    world = _applied()
    world.jobs_succeed = succeeds
    world.request("MigrateDown", migration="rows")
    world.run(20)
    return world


def _half_applied() -> World:
    world = World(copy_of(), progress=FIGURES, jobs_succeed=False)
    world.settle()
    approve(world)
    world.until(lambda world: world.reason is DecisionReason.MIGRATION_FAILED)
    world.request("Abort")
    world.until(ended)
    return world


def _other_bundle() -> World:
    world = _applied()
    world.edit(copy_of("a/rows-fixed"))
    world.settle()
    return world


@dataclass(frozen=True)
class Start:
    """A state, the actions that it accepts, and the reasons why it rejects others."""

    world: Callable[[], World]
    state: MigrationState
    accepts: tuple[str, ...]
    rejects: dict[str, ActionReason]


def _rejected(data: ActionReason, **others: ActionReason) -> dict[str, ActionReason]:
    return dict.fromkeys(DATA, data) | others


STARTS: Final = {
    "applied": Start(
        _applied, MigrationState.SUCCEEDED, (*DATA, "MigrateDown"), {"RetryMigration": ActionReason.NOTHING_TO_RETRY}
    ),
    "half applied": Start(_half_applied, MigrationState.FAILED, MIGRATE, _rejected(NOT_APPLIED)),
    "half undone": Start(lambda: _undone(succeeds=False), MigrationState.FAILED, MIGRATE, _rejected(NOT_APPLIED)),
    "undone": Start(
        lambda: _undone(succeeds=True),
        MigrationState.REVERTED,
        (),
        _rejected(NOT_APPLIED, RetryMigration=ActionReason.NOTHING_TO_RETRY, MigrateDown=NOT_APPLIED),
    ),
    "another bundle is pending": Start(
        _other_bundle,
        MigrationState.SUCCEEDED,
        (),
        _rejected(NOT_APPLIED, RetryMigration=ActionReason.NOTHING_TO_RETRY, MigrateDown=ActionReason.PHASE_NOT_ROLLED_BACK),
    ),
}
AFTER: Final = {
    Operation.UP: (MigrationState.SUCCEEDED, MigrationState.FAILED),
    Operation.DOWN: (MigrationState.REVERTED, MigrationState.FAILED),
}


@pytest.mark.parametrize("succeeds", [True, False], ids=["its Job succeeds", "its Job fails"])
@pytest.mark.parametrize("action", [*DATA, *MIGRATE])
@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_nothing_is_published_until_up_of_this_bundle_has_succeeded(start: Start, action: str, *, succeeds: bool) -> None:
    """An action that makes no sense is rejected; one that is accepted leaves the migration applied or not, as it was."""
    world = start.world()
    record, before = world.migration("rows"), changes_of(world)
    assert record.state is start.state
    world.jobs_succeed = succeeds
    name = world.request(action, migration="rows")
    world.run(20)
    after = world.migration("rows")
    expected = ActionReason.ACCEPTED if action in start.accepts else start.rejects[action]
    assert world.answer(name)[1] is expected
    if action in DATA:
        assert (after.state, after.source) == (record.state, record.source)
    elif action in start.accepts:
        assert after.state is AFTER[after.operation][not succeeds]
    world.jobs_succeed = True
    if world.status.outcome is not None:
        world.request("Retry", generation=world.generation)
        world.settle()
    approve(world)
    world.until(at("one", 1))
    done = [name.split("-")[2] for name in changes_of(world)[len(before) :]]
    assert done[-1:] == ([] if start.state is after.state is MigrationState.SUCCEEDED and start.accepts else ["up"])
    assert world.migration("rows").is_applied
    assert world.migration("rows").backup_time is not None


RESULTS: Final = {
    Operation.UP: (MigrationState.SUCCEEDED, MigrationState.FAILED),
    Operation.DOWN: (MigrationState.REVERTED, MigrationState.FAILED),
    Operation.FINISH: (MigrationState.SUCCEEDED, MigrationState.FAILED),
    Operation.BACKUP: (MigrationState.SUCCEEDED, MigrationState.SUCCEEDED),
    Operation.RESTORE: (MigrationState.SUCCEEDED, MigrationState.SUCCEEDED),
    Operation.RETRY: (MigrationState.SUCCEEDED, MigrationState.SUCCEEDED),
    Operation.REPAIR: (MigrationState.SUCCEEDED, MigrationState.SUCCEEDED),
    Operation.PRUNE: (MigrationState.SUCCEEDED, MigrationState.SUCCEEDED),
}
AWAITED: Final = {(Stage.BEFORE, Operation.BACKUP), (Stage.ROLLING_BACK, Operation.RESTORE)}


@pytest.mark.parametrize("stage", [Stage.BEFORE, Stage.STEP, Stage.BAKE, Stage.ROLLING_BACK, Stage.ENDED])
@pytest.mark.parametrize("operation", RESULTS)
def test_state_after_an_operation(operation: Operation, stage: Stage) -> None:
    """`up` applies, `down` undoes; any other leaves the migration applied, and stalls only what waits for it."""
    world = _applied()
    for succeeds, state in zip((True, False), RESULTS[operation], strict=True):
        undoing = operation is Operation.DOWN
        record = world.migration("rows").updated(
            state=MigrationState.REVERTING if undoing else MigrationState.RUNNING, operation=operation, job="shop-job"
        )
        job = JobObservation(JobState.SUCCEEDED if succeeds else JobState.FAILED)
        there = World(
            copy_of(rollback={"restoreData": operation is Operation.RESTORE}),
            generation=2,
            now=world.now,
            jobs={"shop-job": job},
            document=world.document,
        )
        phase = None if stage in {Stage.ENDED, Stage.BAKE} else "one"
        outcome = Outcome.ABORTED if stage is Stage.ENDED else None
        current = world.status.current.updated(stage=stage, phase=phase, step=1 if stage is Stage.STEP else 0)
        there.status = world.status.updated(
            current=current, outcome=outcome, migrations=(record,), observed_generation=2, paused_by="somebody"
        )
        there.reconcile(crash_before_effects=True)
        ended_as = there.entries(EventReason.MIGRATION_SUCCEEDED if succeeds else EventReason.MIGRATION_FAILED)
        assert [entry.operation for entry in ended_as] == [operation]
        awaited = not succeeds and (stage, operation) in AWAITED
        assert there.migration("rows").state is (MigrationState.FAILED if awaited else state)
        assert there.migration("rows").is_applied is (operation not in AFTER or state is MigrationState.SUCCEEDED)
        assert there.migration("rows").source == record.source


def test_applied_migration_is_undone_and_applied_again_in_jobs_of_their_own() -> None:
    """Jobs are kept: one that ended before says nothing about an `up` or a `down` that is started again."""
    migrations = [{"name": "rows", "bundle": "a/rows"}]
    world = World(copy_of(rollback={"migrations": "Down"}, migrations=migrations))
    world.settle()
    for _ in range(3):
        approve(world)
        world.until(at("one", 1))
        world.request("Abort")
        world.until(ended)
        world.request("Retry", generation=1)
        world.settle()
    assert [name.split("-")[2] for name in changes_of(world)] == ["up", "down"] * 3


def test_half_undone_migration_is_applied_again_after_an_edit_that_keeps_migrations() -> None:
    """The rollback that could not undo it ends with the edit; `Retry` runs `up`, and nothing is published before."""
    world = World(copy_of(rollback={"migrations": "Down"}), progress=FIGURES)
    world.settle()
    approve(world)
    world.until(at("one", 1))
    world.jobs_succeed = False
    world.request("Abort")
    world.run(30)
    assert (world.status.current.stage, world.reason) == (Stage.ROLLING_BACK, DecisionReason.MIGRATION_FAILED)
    world.edit(copy_of())
    world.run(30)
    assert (world.status.outcome, world.status.observed_generation) == (Outcome.ABORTED, 2)
    world.request("Retry", generation=2)
    world.settle()
    approve(world)
    world.run(30)
    assert (world.status.current.stage, world.reason) == (Stage.BEFORE, DecisionReason.MIGRATION_FAILED)
    assert [name.split("-")[2] for name in changes_of(world)] == ["up", "down", "up"]
    assert world.where[3] == "0"
    world.jobs_succeed = True
    world.request("Retry", generation=2)
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED
    assert [name.split("-")[2] for name in changes_of(world)] == ["up", "down", "up", "up"]


def test_repair_does_not_complete_a_phase_whose_last_migration_failed() -> None:
    """The same holds in `migrations.after`: a repair is no `up`."""
    phases = rollout_data()["phases"]
    world = World(copy_of(phases=[{**phases[0], "migrations": {"after": ["rows"]}}, phases[1]]), progress=FIGURES)
    world.settle()
    approve(world)
    world.until(at("one", 3))
    world.jobs_succeed = False
    world.until(lambda world: world.reason is DecisionReason.MIGRATION_FAILED)
    world.jobs_succeed = True
    name = world.request("RepairData", migration="rows")
    world.run(60)
    assert world.answer(name) == (False, NOT_APPLIED)
    assert (world.status.current.stage, world.reason) == (Stage.AFTER, DecisionReason.MIGRATION_FAILED)


def test_another_bundle_is_applied_and_has_a_snapshot_of_its_own() -> None:
    """What was applied and saved of the bundle before does not count for the phase."""
    world = World(copy_of(), progress=FIGURES)
    world.settle()
    world.answering = False  # the phase waits for its baseline
    approve(world)
    world.run(30)
    before = world.migration("rows")
    assert before.backup_time is not None
    world.edit(copy_of("a/rows-fixed"))
    assert world.decide().status.conditions
    world.run(30)
    approve(world)  # of another bundle
    world.run(30)
    record = world.migration("rows")
    assert record.source != before.source
    assert record.backup_time is not None
    assert record.backup_time > before.backup_time
    assert [name.rsplit("-", 2)[1] for name in world.jobs] == ["up", "backup", "up", "backup"]


def test_snapshot_of_a_completed_phase_outlives_a_retry_of_another() -> None:
    """Nothing takes it again."""
    world = World(copy_of(rollback={"scope": "Phase"}), progress=FIGURES)
    world.settle()
    approve(world)
    world.until(at("two", 1))
    taken = world.migration("rows").backup_time
    world.request("Abort")
    world.until(ended)
    world.request("Retry", generation=1)
    world.settle()
    restored = world.request("RestoreData", migration="rows")
    world.settle()
    assert world.migration("rows").backup_time == taken
    assert world.answer(restored) == (True, ActionReason.ACCEPTED)


def test_migrations_are_not_applied_while_another_bundle_is_pending() -> None:
    """The condition is about the bundles that the spec has."""
    world = _applied()
    assert world.condition("MigrationsApplied") == "True"
    world.edit(copy_of("a/rows-fixed"))
    world.settle()
    assert (world.condition("MigrationsApplied"), world.condition_reason("MigrationsApplied")) == ("Unknown", "Pending")


def test_job_that_was_lost_is_not_created_with_another_bundle() -> None:
    """Its `up` would count as that of the bundle before: it is another operation, in a Job with another name."""
    world = World(copy_of(), progress=FIGURES)
    world.settle()
    world.request("Approve", generation=1, check="signed")
    world.reconcile(crash_before_effects=True)
    first = world.migration("rows")
    world.jobs[first.job or ""] = JobObservation(JobState.MISSING)
    world.edit(copy_of("a/rows-fixed"))
    world.settle()
    approve(world)
    assert world.jobs[first.job or ""].state is JobState.MISSING
    assert world.migration("rows").source != first.source
    world.until(at("one", 1))


def test_rollback_keeps_what_was_applied_from_another_bundle() -> None:
    """A `down` of the new bundle would report that the old one is undone; the event says that it is kept."""
    world = World(copy_of(rollback={"migrations": "Down"}), progress=FIGURES)
    world.settle()
    world.answering = False
    approve(world)
    world.run(30)
    world.request("Pause")
    world.settle()
    world.edit(copy_of("a/rows-fixed", rollback={"migrations": "Down", "restoreData": True}))
    world.settle()
    world.request("Abort")
    world.until(ended)
    assert world.migration("rows").state is MigrationState.SUCCEEDED
    assert [entry.migration for entry in world.entries(EventReason.MIGRATION_KEPT)] == ["rows"]
    assert [name.rsplit("-", 2)[1] for name in world.jobs] == ["up", "backup"]


def test_rollback_undoes_what_an_action_is_restoring_when_that_has_ended() -> None:
    """An operation that is running is awaited, and does not exempt the migration."""
    world = World(copy_of(rollback={"migrations": "Down"}), progress=FIGURES)
    world.settle()
    approve(world)
    world.until(at("one", 1))
    world.request("RestoreData", migration="rows")
    world.reconcile()
    world.request("Abort")
    for _ in range(5):
        world.reconcile()
    assert (world.status.current.stage, world.reason) == (Stage.ROLLING_BACK, DecisionReason.MIGRATION_RUNNING)
    world.until(ended)
    assert [name.rsplit("-", 2)[1] for name in world.jobs] == ["up", "backup", "restore", "down"]
    assert world.migration("rows").state is MigrationState.REVERTED


def test_retry_of_a_migration_that_may_be_half_applied_does_not_exempt_it_from_the_rollback() -> None:
    """Between a `Retry` and the `up` that it asks for, the database still contains a part."""
    world = World(copy_of(rollback={"migrations": "Down"}), progress=FIGURES, jobs_succeed=False)
    world.settle()
    approve(world)
    world.run(30)
    world.request("Pause")
    world.settle()
    world.jobs_succeed = True
    world.request("Retry", generation=1)
    world.settle()
    assert world.migration("rows").state is MigrationState.PENDING
    world.request("Abort")
    world.until(ended)
    assert [name.split("-")[2] for name in changes_of(world)] == ["up", "down"]


@pytest.mark.parametrize("action", ["RestoreData", "BackupData"])
def test_failure_that_the_stage_does_not_wait_for_changes_nothing(action: str) -> None:
    """A snapshot or a restore by an action: while a later phase migrates, and in a rollback that restores nothing."""
    phases = rollout_data()["phases"]
    names = ({"before": ["rows"]}, {"before": ["more"]})
    more = [{"name": name, "bundle": f"a/{name}", "backup": True} for name in ("rows", "more")]
    both = [{**phase, "migrations": here} for phase, here in zip(phases, names, strict=True)]
    for abort in (False, True):
        world = World(copy_of(migrations=more, phases=both))
        world.settle()
        approve(world)
        world.until(at("one", 3))
        world.request("Pause")
        world.settle()
        world.status = world.status.updated(current=world.status.current.updated(stage=Stage.BEFORE, phase="two", step=0))
        world.jobs_succeed = False
        name = world.request(action, migration="rows")
        world.reconcile()
        if abort:
            world.request("Abort")
        world.run(20)
        assert world.answer(name) == (True, ActionReason.ACCEPTED)
        assert [entry.migration for entry in world.entries(EventReason.MIGRATION_FAILED)] == ["rows"]
        assert world.migration("rows").state is MigrationState.SUCCEEDED
