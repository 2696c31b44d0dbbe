"""Jobs that were created and have not begun, of migrations that take away what users without the feature need, or cannot be undone.

Such a Job has no Pod yet, or its first statement waits for a lock. Hours later the rollout may be rolled back or paused: the Job
must not begin then. It is suspended for good, and its migration becomes pending again. It is never resumed: a later start is
another attempt, in another Job, so that each start is asked for by a stage and held by the rules of `migration_rules`. Neither
does the operator resume what somebody else has suspended. A Job that has begun is not interrupted.
"""

from session_rollout.api.enums import EventReason, Stage
from session_rollout.api.migration_enums import MigrationState, Operation
from session_rollout.api.status_records import MigrationRecord
from session_rollout.core import migration_jobs
from session_rollout.core.context import DecisionContext
from session_rollout.core.hold import await_guards
from session_rollout.core.inputs import UNDONE
from session_rollout.core.observed import JobObservation, JobState, SuspendJob


def settle(context: DecisionContext) -> None:
    """A Job that was withdrawn and has no Pod anymore runs no more: its migration is what it was before."""
    for record in context.status.migrations:
        observation = context.observed.jobs.get(record.job or "")
        if not record.withdrawn or record.state is not MigrationState.RUNNING or observation is None:
            continue
        if observation.stopped or observation.state is JobState.MISSING:
            context.put_migration(idle(record))
        elif observation.state is JobState.ACTIVE and _works(observation):
            context.put_migration(record.updated(withdrawn=False))  # it was faster; it runs to its end


def withdraw(context: DecisionContext, cause: str | None = None) -> None:
    """Suspend the Jobs that must not begin; `cause` is a reason that all of them have."""
    for record in context.status.migrations:
        observation = context.observed.jobs.get(record.job or "")
        if record.state is not MigrationState.RUNNING or observation is None or _works(observation):
            continue
        why = None if record.withdrawn else cause or _cause(context, record, observation)
        if why is not None and _is_final(context, record):
            _mark(context, record, why)
        if context.migration(record.name).withdrawn and observation.state is JobState.ACTIVE and not observation.suspended:
            context.effects.append(SuspendJob(record.job or "", suspend=True))


def idle(record: MigrationRecord) -> MigrationRecord:
    """What the migration was before an operation that did not run. A Pod may still have committed a part of it."""
    state = MigrationState.PENDING if record.operation is Operation.UP else MigrationState.SUCCEEDED
    return record.updated(state=state, withdrawn=False)


def _works(observation: JobObservation) -> bool:
    """Whether the Job has begun: it has counted rows, or reports what it does and waits for nothing."""
    progress = observation.progress
    begun = progress.total is not None or bool(progress.message and not progress.waiting)
    return begun and not observation.suspended


def _mark(context: DecisionContext, record: MigrationRecord, cause: str) -> None:
    message = f"withdrawn before it began: {cause}"
    context.put_migration(record.updated(withdrawn=True, message=message, reason=None))
    text = f"{record.name} {record.operation} is {message}"
    context.record_event(
        EventReason.MIGRATION_WITHDRAWN, text, migration=record.name, operation=record.operation, job=record.job
    )


def _is_final(context: DecisionContext, record: MigrationRecord) -> bool:
    """Whether what the Job does may not be undone. Of a migration that the spec no longer has, nobody knows."""
    if record.operation is Operation.UP:
        return migration_jobs.is_final(context.spec, record.name) or _is_gone(context, record)
    return record.operation is Operation.FINISH


def _is_gone(context: DecisionContext, record: MigrationRecord) -> bool:
    """Whether no phase has the migration anymore: nothing waits for its `up`, and nothing starts it again."""
    return not any(record.name in phase.migrations.names for phase in context.spec.phases)


def _cause(context: DecisionContext, record: MigrationRecord, observation: JobObservation) -> str | None:
    """Why a Job must not begin now; None when it may. One that does not exist is created only by a stage, which asks for itself."""
    up, exists = record.operation is Operation.UP, observation.state is JobState.ACTIVE
    if context.current.stage is Stage.ROLLING_BACK or context.status.outcome in UNDONE:
        return "the rollout is rolled back"
    if up and _is_gone(context, record):
        return "the spec no longer has it"
    if up and exists and not migration_jobs.has_source(context.spec, record):
        return "the spec has another bundle"
    return _passing_cause(context, record) if exists else None


def _passing_cause(context: DecisionContext, record: MigrationRecord) -> str | None:
    if context.spec.suspend:
        return "`spec.suspend` is true"
    if context.status.paused_by:
        return context.pause_text
    if record.operation is Operation.UP and context.current.stage in {Stage.PREFLIGHT, Stage.VERIFICATION}:
        return "the spec has changed, and its gates are asked again"
    if off := migration_jobs.needed_features_off(context, record):
        return f"{off[0]} is off by an emergency"
    failing = await_guards(context)
    return failing.message if failing is not None else None
