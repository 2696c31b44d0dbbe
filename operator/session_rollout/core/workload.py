"""The application itself: undo to its earlier revision, as part of a rollback or by an action, and a restart.

The request is in `status.workload` before anything is done. The adapter changes the Deployment only while it has the
revision that was observed, and the request ends when the Deployment shows the change: a crash between the two repeats
nothing.
"""

from datetime import datetime
from typing import Any

from session_rollout.api.enums import DecisionAction, DecisionReason, EventReason
from session_rollout.api.surroundings import WorkloadRecord
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.observed import RestartWorkload, Revisions, UndoWorkload


def request_undo(context: DecisionContext) -> None:
    """Request that the workload goes back to its earlier revision."""
    _put(context, undo_requested_time=context.now, undo_from=None, undo_to=None, undone_time=None, message="")


def request_restart(context: DecisionContext) -> None:
    """Request that the workload's Pods are replaced."""
    _put(context, restart_requested_time=context.now, restarted_time=None)


def track(context: DecisionContext) -> None:
    """Continue what was requested."""
    revisions = context.observed.revisions
    if context.status.workload is not None and revisions is not None:
        _track_undo(context, context.status.workload, revisions)
        _track_restart(context, context.status.workload, revisions)


def run_undo(context: DecisionContext, since: datetime | None) -> StageResult | None:
    """Roll the workload back to its earlier revision; None when that is done or impossible.

    An undo that was requested before `since` does not count: it belongs to an earlier rollback or action.
    """
    record = context.status.workload
    if record is None or record.undo_requested_time is None or (since is not None and record.undo_requested_time < since):
        request_undo(context)
    elif record.undone_time is not None:
        return None
    message = f"rolling back: {_name(context)} returns to its previous revision"
    next_actions = (f"wait until Deployment {_name(context)} accepts the change",)
    return StageResult(DecisionAction.ROLL_BACK, DecisionReason.UNDOING_WORKLOAD, message, (message,), next_actions)


def _track_undo(context: DecisionContext, record: WorkloadRecord, revisions: Revisions) -> None:
    if record.undo_requested_time is None or record.undone_time is not None:
        return
    if record.undo_from is None:
        _choose(context, revisions)
    elif revisions.current == record.undo_from and record.undo_to is not None:
        context.effects.append(UndoWorkload(record.undo_from, record.undo_to))
    else:
        message = f"{_name(context)} was rolled back to revision {record.undo_to} (now revision {revisions.current})"
        _put(context, undone_time=context.now, message=message)
        context.record_event(EventReason.WORKLOAD_UNDONE, message)


def _choose(context: DecisionContext, revisions: Revisions) -> None:
    if revisions.earlier is None or revisions.blocked_reason:
        cause = revisions.blocked_reason or "there is no previous revision"
        message = f"{_name(context)} remains at revision {revisions.current}: {cause}"
        _put(context, undo_from=revisions.current, undone_time=context.now, message=message)
        context.record_event(EventReason.WORKLOAD_KEPT, message)
        return
    _put(context, undo_from=revisions.current, undo_to=revisions.earlier)
    context.effects.append(UndoWorkload(revisions.current, revisions.earlier))


def _track_restart(context: DecisionContext, record: WorkloadRecord, revisions: Revisions) -> None:
    requested = record.restart_requested_time
    if requested is None or record.restarted_time is not None:
        return
    if revisions.blocked_reason:
        message = f"{_name(context)} is not restarted: {revisions.blocked_reason}"
        _put(context, restarted_time=context.now, message=message)
        context.record_event(EventReason.WORKLOAD_KEPT, message)
    elif revisions.restarted == requested:
        _put(context, restarted_time=context.now)
        context.record_event(EventReason.WORKLOAD_RESTARTED, f"the Pods of {_name(context)} are being replaced")
    else:
        context.effects.append(RestartWorkload(requested))


def _name(context: DecisionContext) -> str:
    return context.spec.workload.name if context.spec.workload else ""


def _put(context: DecisionContext, **fields: Any) -> None:
    record = context.status.workload or WorkloadRecord()
    context.change(workload=record.updated(**fields))
