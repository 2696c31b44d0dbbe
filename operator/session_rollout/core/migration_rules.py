"""What must hold before a migration takes away what users without the feature need, or does what cannot be undone.

A migration of `migrations.after` and the `finish` of a copy cannot be undone by flags: a rollback returns users to a code path
that needs what is gone. `finish` has the rules of the bake, in `stages`. A migration with `pointOfNoReturn` cannot be undone at all.
"""

from datetime import timedelta

from session_rollout.api.enums import DecisionAction, DecisionReason
from session_rollout.api.migration_enums import MigrationState
from session_rollout.api.phases import Phase
from session_rollout.api.status_records import MigrationRecord
from session_rollout.core import migration_jobs
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.drift import await_document
from session_rollout.core.flags import EVERYBODY
from session_rollout.core.hold import await_features, await_steady_guards, blind_guards
from session_rollout.core.inputs import RUNNING
from session_rollout.core.observed import JobState
from session_rollout.core.promotion import await_window
from session_rollout.core.publication import is_published, publishing
from session_rollout.core.steps import increments

# --- phases that must end at 100%


def partial_phases(context: DecisionContext) -> tuple[str, ...]:
    """Phases that end below 100% although a migration needs that everybody has them."""
    return (*_partial_copies(context), *_partial_contracts(context))


def _partial_copies(context: DecisionContext) -> tuple[str, ...]:
    """Phases that copy rows: after `finish`, the rows of the remaining users would no longer be copied."""
    following = {record.name for record in context.status.migrations if record.following}
    return tuple(
        f"{_ends_at(phase)}, because {name} copies rows"
        for phase in context.spec.phases
        for name in phase.migrations.names
        if name in following and _is_partial(phase)
    )


def _partial_contracts(context: DecisionContext) -> tuple[str, ...]:
    """Phases up to that of a migration with `change: Contract`: the remaining users need what it removes. One that is applied has removed it."""
    phases = context.spec.phases
    return tuple(
        f"{_ends_at(phase)}, because the remaining users need what {name} removes"
        for number, last in enumerate(phases, start=1)
        for name in last.migrations.names
        if migration_jobs.is_contract(context.spec, name) and not migration_jobs.is_up(context.spec, context.migration(name))
        for phase in phases[:number]
        if _is_partial(phase)
    )


def _is_partial(phase: Phase) -> bool:
    return increments(phase)[-1].percent < EVERYBODY.percent


def _ends_at(phase: Phase) -> str:
    return f"`phases[].steps` of {phase.name} end at {increments(phase)[-1].percent:f}%; the last step must be `percent: 100`"


# --- the start of a Job


def run_up(context: DecisionContext, names: tuple[str, ...]) -> StageResult | None:
    """Bring these migrations up, in order; None when all have succeeded. One that may not be undone starts only on evidence of now."""
    for name in names:
        record = context.migration(name)
        if not migration_jobs.is_up(context.spec, record):
            return _await_start(context, record) or migration_jobs.run_up(context, (name,))
    return None


def _await_start(context: DecisionContext, record: MigrationRecord) -> StageResult | None:
    """What keeps the Job of a migration from being started; None when nothing does, or one is running or has failed."""
    if not (migration_jobs.is_final(context.spec, record.name) and _would_start(context, record)):
        return None
    subject = f"migration {record.name} waits"
    return (
        _await_request(context, record)
        or await_window(context)
        or await_document(context)
        or await_features(migration_jobs.needed_features_off(context, record), subject)
        or await_read_back(context, subject)
        or await_steady_guards(context, _last_hold(context, record.name))
        or _await_evidence(context, record.name, subject)
    )


def _await_request(context: DecisionContext, record: MigrationRecord) -> StageResult | None:
    """The stall of a migration whose phase `Adopt` completed: no verification of now precedes it, and it may be new in its phase."""
    asked = record.state in RUNNING and migration_jobs.has_source(context.spec, record)
    if asked or not record.adopted:
        return None
    message = f"migration {record.name} may not have been applied before `Adopt`, and no verification precedes it now"
    next_actions = (f"create a `RetryMigration` action for {record.name}: it is applied if the ledger does not have it",)
    return StageResult(DecisionAction.STALL, DecisionReason.AWAITING_APPROVAL, message, (message,), next_actions)


def _would_start(context: DecisionContext, record: MigrationRecord) -> bool:
    observation = context.observed.jobs.get(record.job or "")
    lost = observation is None or observation.state is JobState.MISSING
    return record.state is not MigrationState.FAILED and (record.state not in RUNNING or lost)


def _last_hold(context: DecisionContext, name: str) -> timedelta:
    """The hold of the last step of the phase that a migration is part of."""
    return next(increments(phase)[-1].hold for phase in context.spec.phases if name in phase.migrations.names)


def await_read_back(context: DecisionContext, subject: str) -> StageResult | None:
    """Wait until the flag document was read back: after an emergency, users have the features again only then."""
    if is_published(context):
        return None
    message = f"{subject}: the flag document has not been read back"
    return publishing(message, message)


def _await_evidence(context: DecisionContext, name: str, subject: str) -> StageResult | None:
    """What a blind guard cannot see may be what the migration makes permanent."""
    before_phase = not migration_jobs.needs_users(context.spec, name)
    if not (blind := blind_guards(context, before_phase=before_phase)):
        return None
    next_actions = ("wait until evidence is available for every guard",)
    return StageResult(DecisionAction.WAIT, DecisionReason.AWAITING_EVIDENCE, f"{subject}: {blind[0]}", blind, next_actions)
