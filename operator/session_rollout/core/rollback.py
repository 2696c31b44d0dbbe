"""Rollback: the flags first, in the decision that observes the breach; then, in order, the slower parts.

A rollback never waits for Prometheus, windows or approvals. It waits only for a running migration, which is never terminated.
"""

from typing import Final

from session_rollout.api.enums import (
    DecisionAction,
    DecisionReason,
    EventReason,
    MigrationState,
    Operation,
    Outcome,
    PhaseState,
    Stage,
)
from session_rollout.api.rollback import OnRollback, OnWorkload, RollbackScope
from session_rollout.api.status_records import MigrationRecord
from session_rollout.core import migration_jobs, workload
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.observed import JobState
from session_rollout.core.steps import increments, percent_text

EVENTS: Final = {Outcome.ROLLED_BACK: EventReason.ROLLED_BACK, Outcome.ABORTED: EventReason.ABORTED}


def begin_rollback(context: DecisionContext, outcome: Outcome, causes: tuple[str, ...], *, guard: str | None = None) -> None:
    """Reduce the audiences as `rollback.scope` says; publishing follows in the same decision.

    `causes` are sentences for users. `guard` is the name of the first guard in breach; None when no guard started it.
    """
    scope = context.spec.rollback.scope
    message = f"rolling back the {scope.lower() if scope is not RollbackScope.ALL else 'whole rollout'}: {'; '.join(causes)}"
    context.record_event(EventReason.ROLLBACK_STARTED, message, check=guard)
    percent, groups = "0", tuple[str, ...]()
    for record in context.status.phases:
        in_scope = scope is RollbackScope.ALL or record.name == context.current.phase
        if in_scope and record.state in {PhaseState.RUNNING, PhaseState.COMPLETED}:
            percent, groups = _audience_left(context)
            context.mark(record.name, state=PhaseState.ROLLED_BACK, percent=percent, groups=groups, end_time=context.now)
    context.enter(
        Stage.ROLLING_BACK,
        step=context.current.step,
        percent=percent,
        groups=groups,
        rollback_outcome=outcome,
        rollback_guard=guard,
        rollback_reasons=causes,
    )


def _audience_left(context: DecisionContext) -> tuple[str, tuple[str, ...]]:
    """What the phase keeps: nothing, or with scope Step the audience before this one."""
    here = context.increment
    if context.spec.rollback.scope is not RollbackScope.STEP or context.phase is None or here is None:
        return "0", ()
    earlier = [before for before in increments(context.phase) if (before.step, before.index) < (here.step, here.index)]
    return (percent_text(earlier[-1].percent), earlier[-1].groups) if earlier else ("0", ())


def continue_rollback(context: DecisionContext) -> StageResult | None:
    """Run the next part of the rollback that is not done; None when all parts are done and the generation has ended."""
    current, options = context.current, context.spec.rollback
    if current.published_time is None:
        reason = DecisionReason.PUBLISHING_ROLLBACK
        return StageResult(DecisionAction.ROLL_BACK, reason, "rolling back: publishing the flags", current.rollback_reasons)
    if running := _await_migrations(context):
        return StageResult(
            DecisionAction.ROLL_BACK,
            DecisionReason.AWAITING_MIGRATION,
            f"rolling back: waiting for migration {running[0]}",
            current.rollback_reasons,
            (f"wait for migration {running[0]} to end",),
        )
    names = context.phase.migrations.names if context.phase is not None else ()
    if options.restore_data and (result := migration_jobs.run_restore(context, names, current.stage_start_time)):
        return result
    if options.migrations is OnRollback.DOWN and (result := migration_jobs.run_down(context, names)):
        return result
    if options.workload is OnWorkload.UNDO and (result := workload.run_undo(context, current.stage_start_time)):
        return result
    outcome = current.rollback_outcome or Outcome.ROLLED_BACK
    context.end(
        outcome,
        EVENTS[outcome],
        "; ".join(current.rollback_reasons),
        rollback_outcome=outcome,
        rollback_guard=current.rollback_guard,
        rollback_reasons=current.rollback_reasons,
    )
    return None


def _await_migrations(context: DecisionContext) -> tuple[str, ...]:
    """Wait for running migrations: the names of those whose Job must end first.

    A migration whose Job was never created becomes pending again.
    """
    for record in context.status.migrations:
        observation = context.observed.jobs.get(record.job or "")
        if _is_forward(record) and observation is not None and observation.state is JobState.MISSING:
            state = MigrationState.PENDING if record.operation is Operation.UP else MigrationState.SUCCEEDED
            context.put_migration(record.updated(state=state))
    return tuple(record.name for record in context.status.migrations if _is_forward(record))


def _is_forward(record: MigrationRecord) -> bool:
    return record.state is MigrationState.RUNNING and record.operation is not Operation.RESTORE
