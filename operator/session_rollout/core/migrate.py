"""Migrations of a phase: one at a time, each a Job under a name that says what it is, never twice, never killed."""

import hashlib
import json

from session_rollout.api.reasons import DecisionAction, EventReason, MigrationState
from session_rollout.api.rollout import Migration
from session_rollout.api.status import MigrationRecord
from session_rollout.core.draft import Draft, Ruling
from session_rollout.core.observed import JobObservation, JobState, StartJob
from session_rollout.core.plan import RUNNING

UP, DOWN = "up", "down"
JOB_NAME_LENGTH = 63


def job_name(draft: Draft, migration: str, direction: str, attempt: int) -> str:
    """`<rollout>-<migration>-<up|down>-<hash of uid, migration source and attempt>`, at most 63 characters."""
    rollout = draft.observed.rollout
    identity = f"{rollout.uid}/{migration}/{source_of(draft, migration)}/{direction}/{attempt}"
    tail = f"-{direction}-{hashlib.sha256(identity.encode()).hexdigest()[:10]}"
    head = f"{rollout.name}-{migration}"[: JOB_NAME_LENGTH - len(tail)].rstrip("-")
    return head + tail


def source_of(draft: Draft, name: str) -> str:
    """Fingerprint of the migration as the spec declares it: another bundle is another migration."""
    migration = next((one for one in draft.spec.migrations if one.name == name), Migration(name=name))
    text = json.dumps(migration.to_wire(), sort_keys=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def track(draft: Draft) -> None:
    """Take over what running Jobs have come to."""
    for record in draft.status.migrations:
        seen = draft.observed.jobs.get(record.job or "")
        if record.state in RUNNING and seen is not None:
            _take_over(draft, record, seen)


def _take_over(draft: Draft, record: MigrationRecord, seen: JobObservation) -> None:
    match seen.state:
        case JobState.SUCCEEDED:
            reverting = record.state is MigrationState.REVERTING
            state = MigrationState.REVERTED if reverting else MigrationState.SUCCEEDED
            fields = {"state": state, "checksum": seen.checksum or record.checksum}
            event, text = EventReason.MIGRATION_SUCCEEDED, f"{record.name}: {seen.message or state}"
        case JobState.FAILED | JobState.FOREIGN:
            fields, event = {"state": MigrationState.FAILED}, EventReason.MIGRATION_FAILED
            text = f"{record.name}: {seen.message or 'its Job failed without a message'}"
        case JobState.MISSING | JobState.ACTIVE:
            return
    draft.put_migration(record.model_copy(update={**fields, "end_time": draft.now, "message": seen.message[:512]}))
    draft.tell(event, text)


def run_up(draft: Draft, names: tuple[str, ...]) -> Ruling | None:
    """Bring these migrations up, in order; None when all have succeeded."""
    for name in names:
        record = draft.migration(name)
        if record.state is MigrationState.SUCCEEDED and record.source == source_of(draft, name):
            continue
        if record.state is MigrationState.FAILED:
            return failed(record)
        if record.state not in RUNNING:
            record = _begin(draft, record, MigrationState.RUNNING, UP)
        return _keep_running(draft, record, UP)
    return None


def run_down(draft: Draft, names: tuple[str, ...]) -> Ruling | None:
    """Take these migrations down, last first; None when none is up any more."""
    for name in reversed(names):
        record = draft.migration(name)
        if record.state is MigrationState.FAILED:
            return failed(record)
        if record.state is MigrationState.SUCCEEDED:
            record = _begin(draft, record, MigrationState.REVERTING, DOWN)
        if record.state is MigrationState.REVERTING:
            return _keep_running(draft, record, DOWN)
    return None


def failed(record: MigrationRecord) -> Ruling:
    """A failed migration needs a person."""
    return Ruling(
        DecisionAction.STALL,
        f"migration {record.name} failed"[:120],
        because=(f"migration {record.name} failed: {record.message}"[:512],),
        unblocked_by=("mend the database or the migration, then an action `Retry` with this generation",),
    )


def _begin(draft: Draft, record: MigrationRecord, state: MigrationState, direction: str) -> MigrationRecord:
    name = job_name(draft, record.name, direction, record.attempt)
    fresh = record.model_copy(
        update={
            "state": state,
            "job": name,
            "source": source_of(draft, record.name),
            "start_time": draft.now,
            "end_time": None,
            "message": "",
        }
    )
    draft.put_migration(fresh)
    draft.tell(EventReason.MIGRATION_STARTED, f"{record.name} {direction} in Job {name}")
    return fresh


def _keep_running(draft: Draft, record: MigrationRecord, direction: str) -> Ruling:
    seen = draft.observed.jobs.get(record.job or "")
    if record.job and (seen is None or seen.state is JobState.MISSING):
        draft.effects.append(StartJob(record.job, record.name, direction, record.attempt))
    return Ruling(
        DecisionAction.MIGRATE,
        f"migration {record.name} {direction} runs"[:120],
        because=(f"Job {record.job} runs migration {record.name} {direction}",),
        unblocked_by=("the end of the Job",),
    )


def retry_failed(draft: Draft) -> bool:
    """Give every failed migration another attempt; whether there was one."""
    failures = [record for record in draft.status.migrations if record.state is MigrationState.FAILED]
    for record in failures:
        again = MigrationState.SUCCEEDED if f"-{DOWN}-" in (record.job or "") else MigrationState.PENDING
        draft.put_migration(record.model_copy(update={"state": again, "attempt": record.attempt + 1, "message": ""}))
    return bool(failures)
