"""The application itself: back to its earlier revision as part of a rollback or by a person's wish, and a restart.

The wish is in `status.workload` before anything is done. The adapter changes the Deployment only while it has the revision
that was seen, and what it shows afterwards ends the wish: a crash between the two repeats nothing.
"""

from datetime import datetime

from session_rollout.api.reasons import DecisionAction, EventReason
from session_rollout.api.status import WorkloadRecord
from session_rollout.core.draft import Draft, Ruling
from session_rollout.core.observed import RestartWorkload, Revisions, UndoWorkload


def ask_undo(draft: Draft) -> None:
    """The wish to bring the workload back."""
    _put(draft, undo_asked_time=draft.now, undo_from=None, undo_to=None, undone_time=None, message="")


def ask_restart(draft: Draft) -> None:
    """The wish to have the workload's Pods replaced."""
    _put(draft, restart_asked_time=draft.now, restarted_time=None)


def track(draft: Draft) -> None:
    """Go on with what was asked."""
    seen = draft.observed.revisions
    if draft.status.workload is not None and seen is not None:
        _track_undo(draft, draft.status.workload, seen)
        _track_restart(draft, draft.status.workload, seen)


def run_undo(draft: Draft, since: datetime | None) -> Ruling | None:
    """Bring the workload back, once since a time; None when that is done or cannot be."""
    record = draft.status.workload
    if record is None or record.undo_asked_time is None or (since is not None and record.undo_asked_time < since):
        ask_undo(draft)
    elif record.undone_time is not None:
        return None
    why = f"rolling back: {_name(draft)} goes back to its earlier revision"[:120]
    return Ruling(DecisionAction.ROLL_BACK, why, (why,), (f"Deployment {_name(draft)} taking the change",))


def _track_undo(draft: Draft, record: WorkloadRecord, seen: Revisions) -> None:
    if record.undo_asked_time is None or record.undone_time is not None:
        return
    if record.undo_from is None:
        _choose(draft, seen)
    elif seen.current == record.undo_from and record.undo_to is not None:
        draft.effects.append(UndoWorkload(record.undo_from, record.undo_to))
    else:
        message = f"{_name(draft)} is back at what revision {record.undo_to} was, now revision {seen.current}"
        _put(draft, undone_time=draft.now, message=message)
        draft.tell(EventReason.WORKLOAD_UNDONE, message)


def _choose(draft: Draft, seen: Revisions) -> None:
    if seen.earlier is None or seen.problem:
        message = f"{_name(draft)} stays at revision {seen.current}: {seen.problem or 'there is no earlier one'}"
        _put(draft, undo_from=seen.current, undone_time=draft.now, message=message)
        draft.tell(EventReason.WORKLOAD_KEPT, message)
        return
    _put(draft, undo_from=seen.current, undo_to=seen.earlier)
    draft.effects.append(UndoWorkload(seen.current, seen.earlier))


def _track_restart(draft: Draft, record: WorkloadRecord, seen: Revisions) -> None:
    asked = record.restart_asked_time
    if asked is None or record.restarted_time is not None:
        return
    if seen.problem:
        _put(draft, restarted_time=draft.now, message=f"not restarted: {seen.problem}")
        draft.tell(EventReason.WORKLOAD_KEPT, f"{_name(draft)} is not restarted: {seen.problem}")
        return
    if seen.restarted == asked:
        _put(draft, restarted_time=draft.now)
        draft.tell(EventReason.WORKLOAD_RESTARTED, f"Pods of {_name(draft)} are replaced")
        return
    draft.effects.append(RestartWorkload(asked))


def _name(draft: Draft) -> str:
    return draft.spec.workload.name if draft.spec.workload else ""


def _put(draft: Draft, **fields: object) -> None:
    record = draft.status.workload or WorkloadRecord()
    draft.change(workload=record.model_copy(update=fields))
