"""Rollback: flags first, within the decision that sees the breach; then, in order, the slower parts.

It never waits for Prometheus, windows or approvals, only for a migration that is running: those are never killed.
"""

from typing import cast

from session_rollout.api.reasons import DecisionAction, EventReason, MigrationState, Operation, Outcome, PhaseState, Stage
from session_rollout.api.rollout import OnRollback, OnWorkload, Phase, RollbackScope
from session_rollout.api.status import MigrationRecord
from session_rollout.core import migrate, workload
from session_rollout.core.draft import Draft, Ruling
from session_rollout.core.observed import JobState
from session_rollout.core.programme import percent_text, rungs

EVENTS = {Outcome.ROLLED_BACK: EventReason.ROLLED_BACK, Outcome.ABORTED: EventReason.ABORTED}


def begin_rollback(draft: Draft, outcome: Outcome, because: tuple[str, ...]) -> None:
    """Take the audiences back to the scope; publishing follows in the same decision."""
    draft.tell(EventReason.ROLLBACK_STARTED, f"to the {draft.spec.rollback.scope.lower()}: " + "; ".join(because)[:400])
    percent, groups = "0", cast("tuple[str, ...]", ())
    for record in draft.status.phases:
        touched = draft.spec.rollback.scope is RollbackScope.ALL or record.name == draft.current.phase
        if touched and record.state in {PhaseState.RUNNING, PhaseState.COMPLETED}:
            percent, groups = _audience_left(draft)
            draft.mark(record.name, state=PhaseState.ROLLED_BACK, percent=percent, groups=groups, end_time=draft.now)
    step = draft.current.step
    draft.enter(Stage.ROLLING_BACK, step=step, percent=percent, groups=groups, ending=outcome, ending_because=because)


def _audience_left(draft: Draft) -> tuple[str, tuple[str, ...]]:
    """What the phase keeps: nothing, or with scope Step the audience before this one."""
    if draft.spec.rollback.scope is not RollbackScope.STEP or draft.phase is None or draft.rung is None:
        return "0", ()
    before = [rung for rung in rungs(draft.phase) if (rung.step, rung.increment) < (draft.rung.step, draft.rung.increment)]
    return (percent_text(before[-1].percent), before[-1].groups) if before else ("0", ())


def continue_rollback(draft: Draft) -> Ruling | None:
    """The next slower part; None when all is done and the generation has ended."""
    because = draft.current.ending_because
    if draft.current.published_time is None:
        return Ruling(DecisionAction.ROLL_BACK, "rolling back: publishing the flags", because)
    if running := _running_migrations(draft):
        why = f"rolling back: waits for migration {running[0]}"[:120]
        return Ruling(DecisionAction.ROLL_BACK, why, because, (f"the end of migration {running[0]}",))
    names = _migrations_of(draft.phase) if draft.phase is not None else ()
    if draft.spec.rollback.restore_sessions and (ruling := migrate.run_restore(draft, names, draft.current.since)):
        return ruling
    if draft.spec.rollback.migrations is OnRollback.DOWN and (ruling := migrate.run_down(draft, names)):
        return ruling
    if draft.spec.rollback.workload is OnWorkload.UNDO and (ruling := workload.run_undo(draft, draft.current.since)):
        return ruling
    outcome = draft.current.ending or Outcome.ROLLED_BACK
    draft.end(outcome, EVENTS[outcome], "; ".join(because)[:400])
    draft.move(ending=outcome, ending_because=because)
    return None


def _migrations_of(phase: Phase) -> tuple[str, ...]:
    return (*phase.migrations.before, *phase.migrations.after)


def _running_migrations(draft: Draft) -> tuple[str, ...]:
    """Migrations whose Job is on its way forward; one whose Job was never created is pending again."""
    for record in draft.status.migrations:
        seen = draft.observed.jobs.get(record.job or "")
        if _forward(record) and seen is not None and seen.state is JobState.MISSING:
            state = MigrationState.PENDING if record.operation is Operation.UP else MigrationState.SUCCEEDED
            draft.put_migration(record.model_copy(update={"state": state}))
    return tuple(record.name for record in draft.status.migrations if _forward(record))


def _forward(record: MigrationRecord) -> bool:
    return record.state is MigrationState.RUNNING and record.operation is not Operation.RESTORE
