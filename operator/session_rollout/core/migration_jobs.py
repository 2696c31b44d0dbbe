"""Migrations of a phase: one at a time, each a Job with a deterministic name, never run twice, never terminated.

What a Job does is an Operation: up and down; for a copy of rows also backup, finish, retry, restore, repair and prune. A
Job that copies rows may be suspended and resumed; all others run to their end. The Job's Pod is made in `adapters.jobs`.
"""

import json
from datetime import datetime, timedelta
from typing import Any, Final

from session_rollout.api.base import sha256_of
from session_rollout.api.enums import DecisionAction, DecisionReason, EventReason, Stage
from session_rollout.api.migration import Change, Migration
from session_rollout.api.migration_enums import MigrationState, NoReturn, Operation
from session_rollout.api.progress import Progress, progress_text
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status_records import MigrationRecord
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.inputs import RUNNING
from session_rollout.core.naming import job_name
from session_rollout.core.observed import JobObservation, JobState, StartJob, SuspendJob

PROGRESS_AGE: Final = timedelta(seconds=5)
BACKUP_KEPT: Final = timedelta(days=7)  # after the bake
# Started by an action or by time, so that no stage may wait for them.
BY_ACTION: Final = frozenset(
    {Operation.RESTORE, Operation.RETRY, Operation.PRUNE, Operation.REPAIR, Operation.BACKUP, Operation.DOWN}
)
FAILURES: Final = frozenset({JobState.FAILED, JobState.FOREIGN})


def _job_name(context: DecisionContext, record: MigrationRecord) -> str:
    """A new name for each operation: the Job of an earlier `up` must not be taken for this one."""
    identity = f"{record.name}/{source_of(context.spec, record.name)}/{record.operation}/{record.attempt}"
    return job_name(context.observed.rollout, record.name, identity, kind=record.operation)


def declared(spec: RolloutSpec, name: str) -> Migration:
    """The migration as the spec has it."""
    return next((migration for migration in spec.migrations if migration.name == name), Migration(name=name))


def is_contract(spec: RolloutSpec, name: str) -> bool:
    """Whether a migration removes what the code path without the feature needs."""
    return declared(spec, name).change is Change.CONTRACT


def needs_users(spec: RolloutSpec, name: str) -> bool:
    """Whether a migration may start only while users have its phase: it may end the support of users who do not."""
    return is_contract(spec, name) or any(name in phase.migrations.after for phase in spec.phases)


def is_final(spec: RolloutSpec, name: str) -> bool:
    """Whether what a migration does may not be undone, for users without its phase or for anybody."""
    return needs_users(spec, name) or declared(spec, name).point_of_no_return is not None


def needed_features_off(context: DecisionContext, record: MigrationRecord) -> tuple[str, ...]:
    """Features that are off by an emergency, and that users need before the migration: what it removes, or ends, is no longer there for them."""
    removes = record.operation is Operation.FINISH or is_contract(context.spec, record.name)
    return context.off_published if removes else context.off_here


def source_of(spec: RolloutSpec, name: str) -> str:
    """Fingerprint of where the migration comes from: another bundle is another migration."""
    migration = declared(spec, name)
    where = {"bundle": migration.bundle, "configMapRef": migration.config_map_ref and migration.config_map_ref.name}
    return sha256_of(json.dumps(where, sort_keys=True))


# --- results of running Jobs


def track(context: DecisionContext) -> None:
    """Take over the results of Jobs, and announce a point of no return before it is passed."""
    _announce(context)
    for record in context.status.migrations:
        observation = context.observed.jobs.get(record.job or "")
        if record.state in RUNNING and observation is not None:
            _take_over(context, record, observation)


def drive(context: DecisionContext) -> None:
    """Keep the Jobs running that no stage waits for, and suspend copies while the rollout is paused."""
    for record in context.status.migrations:
        observation = context.observed.jobs.get(record.job or "")
        if record.state not in RUNNING or record.withdrawn:
            continue
        unawaited = record.operation in BY_ACTION or context.current.stage is Stage.ENDED
        if unawaited and (observation is None or observation.state is JobState.MISSING):
            _start(context, record)
        elif observation is not None and observation.state is JobState.ACTIVE and record.total is not None:
            _suspend(context, record, observation)


def _suspend(context: DecisionContext, record: MigrationRecord, observation: JobObservation) -> None:
    rolling_back = context.current.stage is Stage.ROLLING_BACK
    paused = bool(context.status.paused_by or context.spec.suspend) and not rolling_back
    if paused is not observation.suspended and record.job:
        context.effects.append(SuspendJob(record.job, paused))


def _announce(context: DecisionContext) -> None:
    known = {record.name for record in context.status.migrations}
    for migration in context.spec.migrations:
        if migration.point_of_no_return is not None and migration.name not in known:
            text = f"SQL step {migration.point_of_no_return} cannot be undone; once the migration has succeeded, no SQL step of it can be"
            context.put_migration(MigrationRecord(name=migration.name, point_of_no_return=NoReturn.AHEAD, message=text))
            context.record_event(EventReason.POINT_OF_NO_RETURN, f"{migration.name}: {text}", migration=migration.name)


def _take_over(context: DecisionContext, record: MigrationRecord, observation: JobObservation) -> None:
    if observation.state is JobState.SUCCEEDED:
        _succeeded(context, record, observation.progress)
    elif observation.state in FAILURES:
        _failed(context, record, observation)
    elif observation.state is JobState.ACTIVE:
        _update_progress(context, record, observation)


def _record_event(context: DecisionContext, event: EventReason, record: MigrationRecord, message: str) -> None:
    context.record_event(event, message, migration=record.name, operation=record.operation, job=record.job)


def _succeeded(context: DecisionContext, record: MigrationRecord, progress: Progress) -> None:
    state = MigrationState.REVERTED if record.operation is Operation.DOWN else MigrationState.SUCCEEDED
    ended = record.updated(
        **_figures(progress),
        **_consequences(context, record, progress),
        state=state,
        checksum=progress.checksum or record.checksum,
        rate=None,
        estimated_end_time=None,
        end_time=context.now,
        reason=None,
        message=progress.message,
        withdrawn=False,
    )
    context.put_migration(ended)
    message = f"{record.name} {record.operation}: {progress.message or state}"
    _record_event(context, EventReason.MIGRATION_SUCCEEDED, record, message)


def _consequences(context: DecisionContext, record: MigrationRecord, progress: Progress) -> dict[str, Any]:
    """What an operation means for the record beyond its end."""
    match record.operation:
        case Operation.UP:
            passed = NoReturn.PASSED if record.point_of_no_return else None
            return {"point_of_no_return": passed, "following": progress.following, "adopted": False}
        case Operation.DOWN:
            return {"following": False, "adopted": False}
        case Operation.BACKUP:
            return {"backup_time": context.now}
        case Operation.RESTORE:
            return {"restore_time": context.now}
        case Operation.FINISH:
            until = context.now + BACKUP_KEPT if record.backup_time else None
            return {"backup_until": until, "point_of_no_return": NoReturn.PASSED, "following": False}
        case Operation.PRUNE:
            return {"backup_time": None, "backup_until": None}
    return {}


def _failed(context: DecisionContext, record: MigrationRecord, observation: JobObservation) -> None:
    """A failed operation that nothing waits for leaves the migration applied, as it was before."""
    cause = observation.message or "its Job failed without a message"
    awaited = _is_awaited(context, record)
    context.put_migration(
        record.updated(
            state=MigrationState.FAILED if awaited else MigrationState.SUCCEEDED,
            end_time=context.now,
            reason=observation.progress.reason or "JobFailed",
            message=cause if awaited else f"{record.operation} failed: {cause}",
            rate=None,
            estimated_end_time=None,
            withdrawn=False,
        )
    )
    _record_event(context, EventReason.MIGRATION_FAILED, record, f"{record.name} {record.operation}: {cause}")


def _is_awaited(context: DecisionContext, record: MigrationRecord) -> bool:
    """Whether the rollout cannot continue until the operation of this migration has succeeded."""
    match record.operation:
        case Operation.UP | Operation.DOWN | Operation.FINISH:
            return True
        case Operation.BACKUP:
            names = context.phase.migrations.before if context.phase is not None else ()
            return context.current.stage is Stage.BEFORE and record.name in names
        case Operation.RESTORE:
            return context.current.stage is Stage.ROLLING_BACK and context.spec.rollback.restore_data
    return False


def _figures(progress: Progress) -> dict[str, Any]:
    if progress.total is None:
        return {}
    return {"done": progress.done, "total": progress.total, "quarantined": progress.quarantined}


def _update_progress(context: DecisionContext, record: MigrationRecord, observation: JobObservation) -> None:
    """Take over the progress, at most once per PROGRESS_AGE: each change is a status write."""
    if record.withdrawn:
        return  # its message says why
    progress = observation.progress
    fresh = record.updated(
        **_figures(progress),
        rate=progress.rate,
        following=record.following or progress.following,
        reason=progress.reason,
        message="paused" if observation.suspended else progress.waiting or progress.message,
    )
    age = min(PROGRESS_AGE, context.interval)
    recent = record.progress_time is not None and context.now - record.progress_time < age
    if recent or fresh == record:
        return
    left = progress.remaining_seconds
    ends = context.now + timedelta(seconds=left) if left is not None and not observation.suspended else None
    context.put_migration(fresh.updated(estimated_end_time=ends, progress_time=context.now))


# --- forward and back


def run_up(context: DecisionContext, names: tuple[str, ...]) -> StageResult | None:
    """Bring these migrations up, in order; None when all have succeeded."""
    for name in names:
        if not is_up(context.spec, record := context.migration(name)):
            return _operate(context, record, Operation.UP)
    return None


def is_up(spec: RolloutSpec, record: MigrationRecord) -> bool:
    """Whether this bundle is applied, and no operation of the migration is running or has failed."""
    return record.state is MigrationState.SUCCEEDED and has_source(spec, record)


def has_source(spec: RolloutSpec, record: MigrationRecord) -> bool:
    """Whether the spec still has the bundle that the record is about: a Job of the spec would be about another one."""
    return record.source == source_of(spec, record.name)


def run_backups(context: DecisionContext, names: tuple[str, ...]) -> StageResult | None:
    """Take the snapshots of these migrations that are wanted and missing; None when all are there."""
    label = f"{context.current.phase}-{context.now:%Y%m%dT%H%M%S}"
    for name in names:
        record = context.migration(name)
        if declared(context.spec, name).backup and record.backup_time is None:
            return _operate(context, record, Operation.BACKUP, f"--label={label}")
    return None


def run_finish(context: DecisionContext) -> StageResult | None:
    """End the copies that still follow their source; None when none does.

    The bake calls this only while no feature is disabled: users without the feature write to the source.
    """
    for record in context.status.migrations:
        started = record.operation is Operation.FINISH and record.state is not MigrationState.SUCCEEDED
        if record.is_applied and (record.following or started):
            return _operate(context, record, Operation.FINISH)
    return None


def run_restore(context: DecisionContext, names: tuple[str, ...], since: datetime | None) -> StageResult | None:
    """Restore the snapshots of these migrations that were not restored after `since`; None when all are restored."""
    for name in names:
        record = context.migration(name)
        restored = record.restore_time is not None and since is not None and record.restore_time >= since
        wanted = record.backup_time is not None and record.is_applied and has_source(context.spec, record)
        if wanted and not restored:
            return _operate(context, record, Operation.RESTORE)
    return None


def run_down(context: DecisionContext, names: tuple[str, ...]) -> StageResult | None:
    """Undo these migrations, the last one first; None when all are undone, except those that cannot be."""
    arguments = down_arguments(context)
    for name in reversed(names):
        record = context.migration(name)
        if not record.is_in_database:
            continue
        if cause := kept_cause(context.spec, record):
            _keep(context, record, cause)
        elif record.state is MigrationState.FAILED and record.operation is not Operation.DOWN:
            return _keep_running(context, begin(context, record, Operation.DOWN, *arguments))  # it may be half applied
        else:
            return _operate(context, record, Operation.DOWN, *arguments)
    return None


def kept_cause(spec: RolloutSpec, record: MigrationRecord) -> str | None:
    """Why a migration cannot be undone; None when it can."""
    if record.point_of_no_return is NoReturn.PASSED:
        return "it has passed its point of no return"
    return None if has_source(spec, record) else "the spec has another bundle than the one that was applied"


def down_arguments(context: DecisionContext) -> tuple[str, ...]:
    """Arguments of a migration that is undone, as the spec allows."""
    return ("--allow-data-loss",) if context.spec.rollback.allow_data_loss else ()


def _keep(context: DecisionContext, record: MigrationRecord, cause: str) -> None:
    start = context.current.stage_start_time
    is_recorded = any(
        entry.event is EventReason.MIGRATION_KEPT and entry.migration == record.name and entry.time >= (start or entry.time)
        for entry in context.status.history
    )
    if not is_recorded:
        message = f"{record.name} is kept, because {cause}"
        context.record_event(EventReason.MIGRATION_KEPT, message, migration=record.name)


def run_prune(context: DecisionContext) -> None:
    """Delete the snapshots that have expired; nothing waits for it."""
    for record in context.status.migrations:
        expired = record.backup_until is not None and context.now >= record.backup_until
        if expired and record.state is MigrationState.SUCCEEDED:
            begin(context, record, Operation.PRUNE)


def _operate(context: DecisionContext, record: MigrationRecord, operation: Operation, *arguments: str) -> StageResult:
    """Start an operation or continue it; a failure requires manual intervention."""
    if record.state is MigrationState.FAILED:
        return failure(context, record)
    if record.state not in RUNNING or _is_outdated(context, record):
        record = begin(context, record, operation, *arguments)
    return _keep_running(context, record)


def _is_outdated(context: DecisionContext, record: MigrationRecord) -> bool:
    """Whether the Job of this `up` does not exist, and would now be created with another bundle than the record is about."""
    observation = context.observed.jobs.get(record.job or "")
    missing = observation is not None and observation.state is JobState.MISSING
    return missing and record.operation is Operation.UP and not has_source(context.spec, record)


def failure(context: DecisionContext, record: MigrationRecord) -> StageResult:
    """What to do about a failed migration: wait for manual intervention."""
    message = f"migration {record.name} {record.operation} failed: {record.message}"
    generation = context.status.observed_generation
    next_actions = (f"fix the database or the migration, then create a `Retry` action with generation {generation}",)
    return StageResult(DecisionAction.STALL, DecisionReason.MIGRATION_FAILED, message, (message,), next_actions)


def begin(context: DecisionContext, record: MigrationRecord, operation: Operation, *arguments: str) -> MigrationRecord:
    """The intent to run an operation; its Job follows. All but `up` and `down` require a migration that is applied."""
    # Only `up` says what is applied. It changes the data, so that a snapshot from before is none of the phase.
    applied = {"source": source_of(context.spec, record.name), "backup_time": None} if operation is Operation.UP else {}
    planned = record.updated(
        state=MigrationState.REVERTING if operation is Operation.DOWN else MigrationState.RUNNING,
        operation=operation,
        arguments=arguments,
        attempt=record.attempt + 1 if record.job else record.attempt,
        **applied,
        start_time=context.now,
        end_time=None,
        progress_time=None,
        reason=None,
        message="",
        withdrawn=False,
    )
    planned = planned.updated(job=_job_name(context, planned))
    context.put_migration(planned)
    _record_event(context, EventReason.MIGRATION_STARTED, planned, f"{record.name} {operation} in Job {planned.job}")
    return planned


def _start(context: DecisionContext, record: MigrationRecord) -> None:
    if record.job:
        job = StartJob(record.job, record.name, record.operation, record.attempt, record.arguments)
        if job not in context.effects:
            context.effects.append(job)


def _keep_running(context: DecisionContext, record: MigrationRecord) -> StageResult:
    observation = context.observed.jobs.get(record.job or "")
    if observation is None or observation.state is JobState.MISSING:
        _start(context, record)
    details = (f"Job {record.job} is running", *((record.message,) if record.message else ()))
    message = f"migration {summary(record)}"
    next_actions = ("wait for the Job to end",)
    return StageResult(DecisionAction.MIGRATE, DecisionReason.MIGRATION_RUNNING, message, details, next_actions)


def summary(record: MigrationRecord) -> str:
    """`legacy-sessions up 42% (420,000 of 1,000,000 rows), 31,000 rows/s, 19s left`: what runs and how far it is."""
    what = f"{record.name} {record.operation}"
    if not record.total:
        return f"{what} is running"
    ends, measured = record.estimated_end_time, record.progress_time
    remaining = ends - measured if ends and measured else None
    figures = progress_text(
        record.done, record.total, rate=record.rate, remaining=remaining, quarantined=record.quarantined or 0
    )
    return f"{what} {figures}"
