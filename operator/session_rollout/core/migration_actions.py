"""Actions about migrations and their rows.

None of them makes a migration count as applied: that is what `up` does. None of them undoes what users need.
"""

from session_rollout.api.action import SessionRolloutAction
from session_rollout.api.enums import ActionReason, Outcome, PhaseState, Stage
from session_rollout.api.migration_enums import MigrationState, NoReturn, Operation
from session_rollout.api.status_records import MigrationRecord
from session_rollout.core import migration_jobs
from session_rollout.core.context import DecisionContext
from session_rollout.core.inputs import RUNNING, UNDONE, kept_features
from session_rollout.core.outdated import reject_older
from session_rollout.errors import ActionRejected


def _idle_migration(context: DecisionContext, action: SessionRolloutAction) -> MigrationRecord:
    """The migration that an action names, while no migration is running."""
    known = {record.name: record for record in context.status.migrations}
    record = known.get(action.spec.migration or "")
    if record is None:
        allowed = ", ".join(known) or "none, because none has started"
        message = f"`migration` is {action.spec.migration}, which has not started or is unknown; allowed: {allowed}"
        raise ActionRejected(ActionReason.UNKNOWN_MIGRATION, message)
    if running := [record.name for record in context.status.migrations if record.state in RUNNING]:
        message = f"migration {running[0]} is running; try again when it has ended"
        raise ActionRejected(ActionReason.MIGRATION_RUNNING, message)
    return record


def restore_data(context: DecisionContext, action: SessionRolloutAction) -> str:
    """Restore rows from the snapshot of a migration. Raises ActionRejected."""
    record, options = _applied_migration(context, action, "rows are restored into a migration that is applied"), action.spec
    if record.backup_time is None:
        raise ActionRejected(ActionReason.NO_SNAPSHOT, f"there is no snapshot of {record.name}")
    arguments = [f"--user={options.user}"] if options.user else []
    arguments += [f"--at={options.at.isoformat()}"] if options.at else []
    arguments += ["--exact", "--lose-newer"] if options.lose_newer else []
    migration_jobs.begin(context, record, Operation.RESTORE, *arguments)
    newer = "newer changes are overwritten" if options.lose_newer else "newer changes are kept"
    return f"{record.name}: restoring rows from the snapshot; {newer}"


def retry_migration(context: DecisionContext, action: SessionRolloutAction) -> str:
    """Retry a migration that failed, or its rows in quarantine, or apply one that `Adopt` knew nothing of. Raises ActionRejected."""
    record = _idle_migration(context, action)
    if record.adopted and not record.is_applied:
        _require_users(context, record)
        migration_jobs.begin(context, record, Operation.UP)
        return f"applying {record.name}"
    if record.state is MigrationState.FAILED:
        _require_users(context, record)
        retry_failed(context, action, record.name)
        if context.status.outcome in UNDONE and not record.is_applied:  # no stage starts it again
            migration_jobs.begin(context, record, Operation.UP)
        return f"retrying {record.name}"
    if not record.quarantined:
        message = f"nothing to retry: {record.name} has not failed and has no rows in quarantine"
        raise ActionRejected(ActionReason.NOTHING_TO_RETRY, message)
    record = _applied_migration(context, action, "rows in quarantine are copied by a migration that is applied")
    migration_jobs.begin(context, record, Operation.RETRY)
    return f"retrying {record.quarantined:,} rows in quarantine"


def retry_failed(context: DecisionContext, action: SessionRolloutAction, *names: str) -> bool:
    """Try failed migrations again, these or all; whether there was one. What may be half applied or half undone is applied again by `up`.

    Raises ActionRejected when one has failed since the action was created.
    """
    failed = [record for record in context.status.migrations if record.state is MigrationState.FAILED]
    failures = [record for record in failed if not names or record.name in names]
    for record in failures:
        reject_older(context, action, record.end_time, f"migration {record.name} failed")
        again = MigrationState.SUCCEEDED if record.is_applied else MigrationState.PENDING
        context.put_migration(record.updated(state=again, reason=None, message=""))
    return bool(failures)


def _require_users(context: DecisionContext, record: MigrationRecord) -> None:
    """After a rollback, `up` must not take away what users without the phase need: `Retry` gives them the phase first."""
    rolling_back = context.current.stage is Stage.ROLLING_BACK and record.operation is Operation.UP
    undone = rolling_back or context.status.outcome in UNDONE
    if record.is_applied or not undone or not migration_jobs.needs_users(context.spec, record.name):
        return
    where = "is rolling back; when it has ended," if rolling_back else f"has ended ({context.status.outcome});"
    message = (
        f"`up` of {record.name} requires that users have the features of its phase, but the rollout {where} create a `Retry` action to"
        " start the rollout again, or a `MigrateDown` action to undo what is half applied"
    )
    raise ActionRejected(ActionReason.ALREADY_ROLLING_BACK if rolling_back else ActionReason.NOT_RUNNING, message)


def backup_data(context: DecisionContext, action: SessionRolloutAction) -> str:
    """Take a snapshot of the tables of a migration. Raises ActionRejected."""
    record = _applied_migration(context, action, "a snapshot requires a migration that is applied")
    # A name can be used again, and long names can begin alike: a snapshot with this label would be taken for this one.
    migration_jobs.begin(context, record, Operation.BACKUP, f"--label={action.name[:40]}-{action.uid[-12:]}")
    return f"taking a snapshot of the tables of {record.name}"


def _applied_migration(context: DecisionContext, action: SessionRolloutAction, why: str) -> MigrationRecord:
    """The migration that an action names, if the bundle of the spec is applied: no other operation may count as its `up`."""
    record = _idle_migration(context, action)
    if not record.is_applied:
        raise ActionRejected(ActionReason.MIGRATION_NOT_APPLIED, f"{record.name} is {record.state}: {why}")
    if not migration_jobs.has_source(context.spec, record):
        message = f"the bundle that the spec now has for {record.name} is not applied: {why}"
        raise ActionRejected(ActionReason.MIGRATION_NOT_APPLIED, message)
    return record


def repair_data(context: DecisionContext, action: SessionRolloutAction) -> str:
    """Copy damaged rows of a migration again. Raises ActionRejected."""
    record = _applied_migration(context, action, "rows are repaired in a migration that is applied")
    if record.total is None:
        raise ActionRejected(ActionReason.COPIES_NO_ROWS, f"{record.name} does not copy rows, so there are none to repair")
    migration_jobs.begin(context, record, Operation.REPAIR)
    return f"{record.name}: copying damaged rows from their source again"


def migrate_down(context: DecisionContext, action: SessionRolloutAction) -> str:
    """Undo a migration that nobody needs. Raises ActionRejected."""
    record = _idle_migration(context, action)
    if context.current.stage is not Stage.ENDED or context.status.outcome is Outcome.PROMOTED:
        message = (
            "a migration can be undone only after the rollout has been rolled back or aborted; create an `Abort` action first"
        )
        raise ActionRejected(ActionReason.PHASE_NOT_ROLLED_BACK, message)
    _require_unused(context, record)
    if not record.is_in_database:
        message = f"{record.name} is {record.state}: there is nothing to undo"
        raise ActionRejected(ActionReason.MIGRATION_NOT_APPLIED, message)
    if cause := migration_jobs.kept_cause(context.spec, record):
        passed = record.point_of_no_return is NoReturn.PASSED
        reason = ActionReason.POINT_OF_NO_RETURN_PASSED if passed else ActionReason.MIGRATION_NOT_APPLIED
        raise ActionRejected(reason, f"{record.name} cannot be undone, because {cause}")
    migration_jobs.begin(context, record, Operation.DOWN, *migration_jobs.down_arguments(context))
    return f"undoing {record.name}"


def _require_unused(context: DecisionContext, record: MigrationRecord) -> None:
    """Nobody may have a feature of the phase that the migration belongs to: its users need what would be undone."""
    name = next((phase.name for phase in context.spec.phases if record.name in phase.migrations.names), None)
    phase = context.status.phase(name)
    kept = kept_features(context.status, name)
    if kept or (phase is not None and phase.state is PhaseState.COMPLETED):
        cause = f"users have feature {kept[0]}" if kept else f"phase {name} is complete"
        message = f"{record.name} cannot be undone, because {cause}; it requires that no user has a feature of its phase"
        raise ActionRejected(ActionReason.PHASE_NOT_ROLLED_BACK, message)
