"""The application itself: back to its earlier revision as part of a rollback or by a person's wish, and a restart.

The wish is in `status.workload` before anything is done. The adapter changes the Deployment only while it has the revision
that was seen, and what it shows afterwards ends the wish: a crash between the two repeats nothing.
"""

from datetime import datetime

from session_rollout.api.enums import DecisionAction, EventReason
from session_rollout.api.status import WorkloadRecord
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.observed import RestartWorkload, Revisions, UndoWorkload


def ask_undo(context: DecisionContext) -> None:
    """The wish to bring the workload back."""
    _put(context, undo_requested_time=context.now, undo_from=None, undo_to=None, undone_time=None, message="")


def ask_restart(context: DecisionContext) -> None:
    """The wish to have the workload's Pods replaced."""
    _put(context, restart_requested_time=context.now, restarted_time=None)


def track(context: DecisionContext) -> None:
    """Go on with what was asked."""
    seen = context.observed.revisions
    if context.status.workload is not None and seen is not None:
        _track_undo(context, context.status.workload, seen)
        _track_restart(context, context.status.workload, seen)


def run_undo(context: DecisionContext, since: datetime | None) -> StageResult | None:
    """Bring the workload back, once since a time; None when that is done or cannot be."""
    record = context.status.workload
    if record is None or record.undo_requested_time is None or (since is not None and record.undo_requested_time < since):
        ask_undo(context)
    elif record.undone_time is not None:
        return None
    why = f"rolling back: {_name(context)} goes back to its earlier revision"[:120]
    return StageResult(DecisionAction.ROLL_BACK, why, (why,), (f"Deployment {_name(context)} taking the change",))


def _track_undo(context: DecisionContext, record: WorkloadRecord, seen: Revisions) -> None:
    if record.undo_requested_time is None or record.undone_time is not None:
        return
    if record.undo_from is None:
        _choose(context, seen)
    elif seen.current == record.undo_from and record.undo_to is not None:
        context.effects.append(UndoWorkload(record.undo_from, record.undo_to))
    else:
        message = f"{_name(context)} is back at what revision {record.undo_to} was, now revision {seen.current}"
        _put(context, undone_time=context.now, message=message)
        context.tell(EventReason.WORKLOAD_UNDONE, message)


def _choose(context: DecisionContext, seen: Revisions) -> None:
    if seen.earlier is None or seen.problem:
        message = f"{_name(context)} stays at revision {seen.current}: {seen.problem or 'there is no earlier one'}"
        _put(context, undo_from=seen.current, undone_time=context.now, message=message)
        context.tell(EventReason.WORKLOAD_KEPT, message)
        return
    _put(context, undo_from=seen.current, undo_to=seen.earlier)
    context.effects.append(UndoWorkload(seen.current, seen.earlier))


def _track_restart(context: DecisionContext, record: WorkloadRecord, seen: Revisions) -> None:
    asked = record.restart_requested_time
    if asked is None or record.restarted_time is not None:
        return
    if seen.problem:
        _put(context, restarted_time=context.now, message=f"not restarted: {seen.problem}")
        context.tell(EventReason.WORKLOAD_KEPT, f"{_name(context)} is not restarted: {seen.problem}")
        return
    if seen.restarted == asked:
        _put(context, restarted_time=context.now)
        context.tell(EventReason.WORKLOAD_RESTARTED, f"Pods of {_name(context)} are replaced")
        return
    context.effects.append(RestartWorkload(asked))


def _name(context: DecisionContext) -> str:
    return context.spec.workload.name if context.spec.workload else ""


def _put(context: DecisionContext, **fields: object) -> None:
    record = context.status.workload or WorkloadRecord()
    context.change(workload=record.model_copy(update=fields))
