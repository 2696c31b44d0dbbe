"""Migrations of a phase: one at a time, each a Job under a name that says what it is, never twice, never killed.

What a Job does is an Operation: up and down, for rows that are moved also backup, finish, retry, restore and prune. A Job
that moves rows may be let rest and go on; all others run to their end.
"""

import hashlib
import json
from datetime import datetime, timedelta
from typing import Any, Final

from session_rollout.api.migration import Migration
from session_rollout.api.progress import Progress
from session_rollout.api.quantities import spell
from session_rollout.api.reasons import DecisionAction, EventReason, MigrationState, NoReturn, Operation, Stage
from session_rollout.api.status import MigrationRecord
from session_rollout.core.draft import Draft, Ruling
from session_rollout.core.observed import JobObservation, JobState, StartJob, SuspendJob
from session_rollout.core.plan import RUNNING, job_name

PROGRESS_AGE: Final = timedelta(seconds=5)
BACKUP_KEPT: Final = timedelta(days=7)  # after the bake
# These are asked for by a person or by time, and no stage waits for them.
BESIDE: Final = frozenset({Operation.RESTORE, Operation.RETRY, Operation.PRUNE, Operation.REPAIR})
DRIVEN: Final = BESIDE | {Operation.BACKUP, Operation.DOWN}  # a person may ask for these, too
REPEATED: Final = BESIDE | {Operation.BACKUP}


def _job_name(draft: Draft, record: MigrationRecord) -> str:
    """Another one for each source, operation and attempt."""
    identity = f"{record.name}/{source_of(draft, record.name)}/{record.operation}/{record.attempt}"
    return job_name(draft.observed.rollout, record.name, identity, kind=record.operation)


def _declared(draft: Draft, name: str) -> Migration:
    return next((one for one in draft.spec.migrations if one.name == name), Migration(name=name))


def source_of(draft: Draft, name: str) -> str:
    """Fingerprint of where the migration comes from: another bundle is another migration."""
    migration = _declared(draft, name)
    where = {"bundle": migration.bundle, "configMapRef": migration.config_map_ref and migration.config_map_ref.name}
    return "sha256:" + hashlib.sha256(json.dumps(where, sort_keys=True).encode()).hexdigest()


# --- what running Jobs have come to


def track(draft: Draft) -> None:
    """Take over what Jobs have come to, and announce what cannot be undone before it is done."""
    _announce(draft)
    for record in draft.status.migrations:
        seen = draft.observed.jobs.get(record.job or "")
        if record.state in RUNNING and seen is not None:
            _take_over(draft, record, seen)


def drive(draft: Draft) -> None:
    """Keep Jobs going that no stage waits for, and let Jobs that move rows rest while the rollout is paused."""
    for record in draft.status.migrations:
        seen = draft.observed.jobs.get(record.job or "")
        if record.state not in RUNNING:
            continue
        if record.operation in DRIVEN and (seen is None or seen.state is JobState.MISSING):
            _start(draft, record)
        elif seen is not None and seen.state is JobState.ACTIVE and record.total is not None:
            paused = bool(draft.status.paused_by or draft.spec.suspend) and draft.current.stage is not Stage.ROLLING_BACK
            if paused is not seen.suspended and record.job:
                draft.effects.append(SuspendJob(record.job, paused))


def _announce(draft: Draft) -> None:
    known = {record.name for record in draft.status.migrations}
    for migration in draft.spec.migrations:
        if migration.point_of_no_return is not None and migration.name not in known:
            text = f"step {migration.point_of_no_return} of it cannot be undone: after that `Down` is refused"
            draft.put_migration(MigrationRecord(name=migration.name, point_of_no_return=NoReturn.AHEAD, message=text))
            draft.tell(EventReason.POINT_OF_NO_RETURN, f"{migration.name}: {text}")


def _take_over(draft: Draft, record: MigrationRecord, seen: JobObservation) -> None:
    match seen.state:
        case JobState.SUCCEEDED:
            _succeeded(draft, record, seen.said)
        case JobState.FAILED | JobState.FOREIGN:
            _failed(draft, record, seen)
        case JobState.ACTIVE:
            _progress(draft, record, seen)
        case JobState.MISSING:
            return


def _succeeded(draft: Draft, record: MigrationRecord, said: Progress) -> None:
    state = MigrationState.REVERTED if record.operation is Operation.DOWN else MigrationState.SUCCEEDED
    fields = {
        **_figures(said),
        **_consequences(draft, record, said),
        "state": state,
        "checksum": said.checksum or record.checksum,
        "rate": None,
        "estimated_end_time": None,
        "end_time": draft.now,
        "message": said.message[:512],
    }
    draft.put_migration(record.model_copy(update=fields))
    draft.tell(EventReason.MIGRATION_SUCCEEDED, f"{record.name} {record.operation}: {said.message or state}"[:400])


def _consequences(draft: Draft, record: MigrationRecord, said: Progress) -> dict[str, Any]:
    """What an operation means for the record beyond its end."""
    match record.operation:
        case Operation.UP:
            passed = NoReturn.PASSED if record.point_of_no_return else None
            return {"point_of_no_return": passed, "following": said.following}
        case Operation.DOWN:
            return {"following": False}
        case Operation.BACKUP:
            return {"backup_time": draft.now}
        case Operation.RESTORE:
            return {"restore_time": draft.now}
        case Operation.FINISH:
            until = draft.now + BACKUP_KEPT if record.backup_time else None
            return {"backup_until": until, "point_of_no_return": NoReturn.PASSED, "following": False}
        case Operation.PRUNE:
            return {"backup_time": None, "backup_until": None}
    return {}


def _failed(draft: Draft, record: MigrationRecord, seen: JobObservation) -> None:
    text = f"{record.name} {record.operation}: {seen.message or 'its Job failed without a message'}"
    # A wish that could not be granted leaves the migration what it was, unless a rollback waits for it.
    alone = record.operation is Operation.BACKUP and draft.current.stage is not Stage.BEFORE
    beside = alone or (record.operation in BESIDE and draft.current.stage is not Stage.ROLLING_BACK)
    state = MigrationState.SUCCEEDED if beside else MigrationState.FAILED
    message = f"{record.operation} failed: {seen.message}" if beside else seen.message
    fields = {"state": state, "end_time": draft.now, "message": message[:512], "rate": None, "estimated_end_time": None}
    draft.put_migration(record.model_copy(update=fields))
    draft.tell(EventReason.MIGRATION_FAILED, text[:400])


def _figures(said: Progress) -> dict[str, Any]:
    if said.total is None:
        return {}
    return {"done": said.done, "total": said.total, "quarantined": said.quarantined}


def _progress(draft: Draft, record: MigrationRecord, seen: JobObservation) -> None:
    """Take over how far it is, not more often than anybody reads it."""
    said, text = seen.said, "paused" if seen.suspended else seen.said.waiting or seen.said.message
    fresh = {**_figures(said), "rate": said.rate, "following": record.following or said.following, "message": text[:512]}
    age = min(PROGRESS_AGE, draft.interval)
    recent = record.progress_time is not None and draft.now - record.progress_time < age
    if recent or all(getattr(record, name) == value for name, value in fresh.items()):
        return
    left = said.remaining_seconds
    ends = draft.now + timedelta(seconds=left) if left is not None and not seen.suspended else None
    draft.put_migration(record.model_copy(update={**fresh, "estimated_end_time": ends, "progress_time": draft.now}))


# --- the way forward and back


def run_up(draft: Draft, names: tuple[str, ...]) -> Ruling | None:
    """Bring these migrations up, in order; None when all have succeeded."""
    for name in names:
        record = draft.migration(name)
        if record.state is MigrationState.SUCCEEDED and record.source == source_of(draft, name):
            continue
        if ruling := _operate(draft, record, Operation.UP):
            return ruling
    return None


def run_backups(draft: Draft, names: tuple[str, ...]) -> Ruling | None:
    """Take the snapshots of these migrations that are wanted and not there; None when all are."""
    label = f"{draft.current.phase}-{draft.now:%Y%m%dT%H%M%S}"
    for name in names:
        record = draft.migration(name)
        if _declared(draft, name).backup and record.backup_time is None:
            return _operate(draft, record, Operation.BACKUP, f"--label={label}")
    return None


def run_finish(draft: Draft) -> Ruling | None:
    """End the copies that still follow their source; None when none does."""
    for record in draft.status.migrations:
        if record.following or (record.operation is Operation.FINISH and record.state is not MigrationState.SUCCEEDED):
            return _operate(draft, record, Operation.FINISH)
    return None


def run_restore(draft: Draft, names: tuple[str, ...], since: datetime | None) -> Ruling | None:
    """Bring the snapshots of these migrations back, once since a time; None when all are."""
    for name in names:
        record = draft.migration(name)
        restored = record.restore_time is not None and since is not None and record.restore_time >= since
        if record.backup_time is not None and not restored:
            return _operate(draft, record, Operation.RESTORE)
    return None


def run_down(draft: Draft, names: tuple[str, ...]) -> Ruling | None:
    """Take these migrations down, last first; None when none is up any more, but for those that cannot be undone."""
    arguments = down_arguments(draft)
    for name in reversed(names):
        record = draft.migration(name)
        if record.point_of_no_return is NoReturn.PASSED:
            _keep(draft, record)
        elif record.state in {MigrationState.SUCCEEDED, MigrationState.FAILED, MigrationState.REVERTING}:
            return _operate(draft, record, Operation.DOWN, *arguments)
    return None


def down_arguments(draft: Draft) -> tuple[str, ...]:
    """What the spec allows an undoing migration."""
    return ("--allow-data-loss",) if draft.spec.rollback.allow_data_loss else ()


def _keep(draft: Draft, record: MigrationRecord) -> None:
    text = f"{record.name} stays: its point of no return was passed"
    if not any(entry.because == text and entry.time >= (draft.current.since or entry.time) for entry in draft.status.history):
        draft.tell(EventReason.MIGRATION_KEPT, text)


def run_prune(draft: Draft) -> None:
    """Let snapshots go whose time is over; nobody waits for it."""
    for record in draft.status.migrations:
        if record.backup_until is not None and draft.now >= record.backup_until and record.state is MigrationState.SUCCEEDED:
            begin(draft, record, Operation.PRUNE)


def _operate(draft: Draft, record: MigrationRecord, operation: Operation, *arguments: str) -> Ruling:
    """Begin an operation or go on with it; a failure needs a person."""
    if record.state is MigrationState.FAILED:
        return failed(record)
    if record.state not in RUNNING:
        record = begin(draft, record, operation, *arguments)
    return _keep_running(draft, record)


def failed(record: MigrationRecord) -> Ruling:
    """A failed migration needs a person."""
    what = f"migration {record.name} {record.operation} failed: {record.message}"
    return Ruling(
        DecisionAction.STALL,
        what[:120],
        because=(what[:512],),
        unblocked_by=("mend the database or the migration, then an action `Retry` with this generation",),
    )


def begin(draft: Draft, record: MigrationRecord, operation: Operation, *arguments: str) -> MigrationRecord:
    """The intent to run an operation; its Job follows."""
    attempt = record.attempt + 1 if operation in REPEATED else record.attempt
    fresh = record.model_copy(
        update={
            "state": MigrationState.REVERTING if operation is Operation.DOWN else MigrationState.RUNNING,
            "operation": operation,
            "arguments": arguments,
            "attempt": attempt,
            "source": source_of(draft, record.name),
            "start_time": draft.now,
            "end_time": None,
            "progress_time": None,
            "message": "",
        }
    )
    fresh = fresh.model_copy(update={"job": _job_name(draft, fresh)})
    draft.put_migration(fresh)
    draft.tell(EventReason.MIGRATION_STARTED, f"{record.name} {operation} in Job {fresh.job}")
    return fresh


def _start(draft: Draft, record: MigrationRecord) -> None:
    if record.job:
        job = StartJob(record.job, record.name, record.operation, record.attempt, record.arguments)
        if job not in draft.effects:
            draft.effects.append(job)


def _keep_running(draft: Draft, record: MigrationRecord) -> Ruling:
    seen = draft.observed.jobs.get(record.job or "")
    if seen is None or seen.state is JobState.MISSING:
        _start(draft, record)
    what = in_words(record)
    because = (f"Job {record.job} runs", *((record.message,) if record.message else ()))
    return Ruling(DecisionAction.MIGRATE, f"migration {what}"[:120], because, ("the end of the Job",))


def in_words(record: MigrationRecord) -> str:
    """`legacy-sessions up 42% (420,000 of 1,000,000), 31,000/s, 19s left`: what runs and how far it is."""
    if not record.total:
        return f"{record.name} {record.operation} runs"
    done = record.done or 0
    text = f"{record.name} {record.operation} {100 * done // record.total}% ({done:,} of {record.total:,})"
    if record.rate:
        text += f", {record.rate:,}/s"
    if record.estimated_end_time and record.progress_time:
        left = max(record.estimated_end_time - record.progress_time, timedelta(seconds=1))
        text += f", {spell(timedelta(seconds=round(left.total_seconds())))} left"
    return text + (f", {record.quarantined:,} quarantined" if record.quarantined else "")


def retry_failed(draft: Draft) -> bool:
    """Give every failed migration another attempt; whether there was one."""
    failures = [record for record in draft.status.migrations if record.state is MigrationState.FAILED]
    for record in failures:
        again = MigrationState.PENDING if record.operation is Operation.UP else MigrationState.SUCCEEDED
        draft.put_migration(record.model_copy(update={"state": again, "attempt": record.attempt + 1, "message": ""}))
    return bool(failures)
