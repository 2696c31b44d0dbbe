"""Rollback: flags first, within the decision that sees the breach; then, in order, the slower parts.

It never waits for Prometheus, windows or approvals, only for a migration that is running: those are never killed.
"""

from typing import cast

from session_rollout.api.enums import DecisionAction, EventReason, MigrationState, Operation, Outcome, PhaseState, Stage
from session_rollout.api.rollout import OnRollback, OnWorkload, Phase, RollbackScope
from session_rollout.api.status import MigrationRecord
from session_rollout.core import migration_jobs, workload
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.observed import JobState
from session_rollout.core.steps import increments, percent_text

EVENTS = {Outcome.ROLLED_BACK: EventReason.ROLLED_BACK, Outcome.ABORTED: EventReason.ABORTED}


def begin_rollback(context: DecisionContext, outcome: Outcome, because: tuple[str, ...]) -> None:
    """Take the audiences back to the scope; publishing follows in the same decision."""
    context.tell(EventReason.ROLLBACK_STARTED, f"to the {context.spec.rollback.scope.lower()}: " + "; ".join(because)[:400])
    percent, groups = "0", cast("tuple[str, ...]", ())
    for record in context.status.phases:
        touched = context.spec.rollback.scope is RollbackScope.ALL or record.name == context.current.phase
        if touched and record.state in {PhaseState.RUNNING, PhaseState.COMPLETED}:
            percent, groups = _audience_left(context)
            context.mark(record.name, state=PhaseState.ROLLED_BACK, percent=percent, groups=groups, end_time=context.now)
    step = context.current.step
    context.enter(Stage.ROLLING_BACK, step=step, percent=percent, groups=groups, rollback_outcome=outcome, rollback_reasons=because)


def _audience_left(context: DecisionContext) -> tuple[str, tuple[str, ...]]:
    """What the phase keeps: nothing, or with scope Step the audience before this one."""
    if context.spec.rollback.scope is not RollbackScope.STEP or context.phase is None or context.increment is None:
        return "0", ()
    before = [
        increment
        for increment in increments(context.phase)
        if (increment.step, increment.increment) < (context.increment.step, context.increment.increment)
    ]
    return (percent_text(before[-1].percent), before[-1].groups) if before else ("0", ())


def continue_rollback(context: DecisionContext) -> StageResult | None:
    """The next slower part; None when all is done and the generation has ended."""
    because = context.current.rollback_reasons
    if context.current.published_time is None:
        return StageResult(DecisionAction.ROLL_BACK, "rolling back: publishing the flags", because)
    if running := _running_migrations(context):
        why = f"rolling back: waits for migration {running[0]}"[:120]
        return StageResult(DecisionAction.ROLL_BACK, why, because, (f"the end of migration {running[0]}",))
    names = _migrations_of(context.phase) if context.phase is not None else ()
    if context.spec.rollback.restore_data and (result := migration_jobs.run_restore(context, names, context.current.stage_start_time)):
        return result
    if context.spec.rollback.migrations is OnRollback.DOWN and (result := migration_jobs.run_down(context, names)):
        return result
    if context.spec.rollback.workload is OnWorkload.UNDO and (result := workload.run_undo(context, context.current.stage_start_time)):
        return result
    outcome = context.current.rollback_outcome or Outcome.ROLLED_BACK
    context.end(outcome, EVENTS[outcome], "; ".join(because)[:400])
    context.move(rollback_outcome=outcome, rollback_reasons=because)
    return None


def _migrations_of(phase: Phase) -> tuple[str, ...]:
    return (*phase.migrations.before, *phase.migrations.after)


def _running_migrations(context: DecisionContext) -> tuple[str, ...]:
    """Migrations whose Job is on its way forward; one whose Job was never created is pending again."""
    for record in context.status.migrations:
        seen = context.observed.jobs.get(record.job or "")
        if _forward(record) and seen is not None and seen.state is JobState.MISSING:
            state = MigrationState.PENDING if record.operation is Operation.UP else MigrationState.SUCCEEDED
            context.put_migration(record.model_copy(update={"state": state}))
    return tuple(record.name for record in context.status.migrations if _forward(record))


def _forward(record: MigrationRecord) -> bool:
    return record.state is MigrationState.RUNNING and record.operation is not Operation.RESTORE
