"""The later operations of a copy: compare, status, pause, finish (the target becomes the source of truth), and undo."""

import time
from collections.abc import Callable
from typing import Any, Final

import psycopg

from session_rollout.api.migration_enums import FailureReason
from session_rollout.errors import MigrationFailed
from session_rollout.migrations import ledger
from session_rollout.migrations.connection import Connection, RunContext, connect, copy_lock_key, execute, fetch_row
from session_rollout.migrations.copy import compare as comparing
from session_rollout.migrations.copy import functions, snapshots, state, trigger
from session_rollout.migrations.copy.compare import Comparison
from session_rollout.migrations.copy.runner import Copier, CopyJob, not_started, open_copy
from session_rollout.migrations.copy.state import CopyState
from session_rollout.migrations.retry import execute_with_lock_retries, run_with_retries

_QUARANTINE: Final = (
    "SELECT reason, count(*), min(key) FROM session_rollout.quarantine WHERE copy = %s GROUP BY 1 ORDER BY 2 DESC LIMIT 20"
)


def finish(context: RunContext, job: CopyJob) -> str:
    """Compare a last time, stop following, and mark the source rows; the copy cannot be undone afterwards.

    Snapshots are kept for seven more days. Returns a summary. Raises MigrationFailed, Interrupted.
    """

    def work(connection: Connection) -> str:
        copier = open_copy(context, job, connection)
        if copier.record.state is CopyState.COPYING:
            raise MigrationFailed("some rows have not been copied yet; run `up` first", FailureReason.COPY_INCOMPLETE)
        if copier.record.state is CopyState.FOLLOWING:
            copier.run()
            state.update(connection, job.name, copier.record.epoch, state=CopyState.FINISHED, cursor=None)
            ledger.add_history(connection, context, job.name, f"finished: {job.spec.target} is the source of truth")
        stop_following(context, copier)
        copier.drain_all(copier.sql.apply)  # changes that the trigger recorded at the last moment
        marked = _run_in_batches(copier, copier.sql.mark, lambda row: row[1]) if job.spec.mark else 0
        snapshots.set_expiry(connection, job.name, snapshots.RETENTION)
        context.reporter.update(following=False, done=copier.done, total=copier.total)
        return f"{job.spec.target} is the source of truth; {marked:,} rows of {job.spec.source} are marked as copied"

    return run_with_retries(context, work, lock=copy_lock_key(job.name))


def down(context: RunContext, job: CopyJob) -> str:
    """Stop following and delete the copied rows, except those that the application has written since they were copied.

    Returns a summary. Raises Interrupted, and MigrationFailed once the copy is finished.
    """

    def work(connection: Connection) -> str:
        record = state.read(connection, job.name)
        if record is None:
            return "nothing to undo"
        if record.state is CopyState.FINISHED:
            message = f"{job.spec.target} became the source of truth when the copy was finished, so the copy cannot be undone"
            raise MigrationFailed(message, FailureReason.COPY_FINISHED)
        copier = open_copy(context, job, connection)
        stop_following(context, copier)
        deleted = _run_in_batches(copier, copier.sql.undo, lambda row: row[2])
        kept = state.copied(connection, copier.sql)
        _delete_state(connection, context, job, f"undone: {deleted} rows deleted, {kept} kept")
        context.reporter.update(following=False, done=0, total=copier.total, quarantined=0)
        written = f", {kept:,} that the application has written since they were copied are kept" if kept else ""
        return f"{deleted:,} rows of {job.spec.target} are deleted{written}"

    return run_with_retries(context, work, lock=copy_lock_key(job.name))


def stop_following(context: RunContext, copier: Copier) -> None:
    """Empty the function of the trigger, then remove the trigger if the role may. Raises Interrupted, psycopg.Error."""
    with connect(context.definer_dsn) as definer:
        trigger.set_mode(definer, copier.sql, copier.job.name, trigger.OFF)
        functions.drop(definer, copier.job.name)
        try:
            execute_with_lock_retries(context, definer, "the trigger", trigger.remove_text(copier.sql, copier.job.name))
        except psycopg.errors.InsufficientPrivilege:
            return  # only the owner of the table may remove it; with an empty function it costs next to nothing


def _run_in_batches(copier: Copier, statement: str, last_key: Callable[[Any], str | None]) -> int:
    """Run a statement for all keys in batches, throttled as the copy is; returns how many rows it changed."""
    cursor: str | None = None
    changed = 0
    while True:
        started = time.monotonic()
        values = {"cursor": cursor, "size": copier.job.throttle.statement_rows}
        row = execute(copier.connection, statement, values).fetchone()
        changed += int(row[0])
        copier.context.completed += 1
        if (cursor := last_key(row)) is None:
            return changed
        copier.context.reporter.update(message=f"{changed:,} rows deleted or marked")
        copier.throttle.pace(time.monotonic() - started)


def _delete_state(connection: Connection, context: RunContext, job: CopyJob, event: str) -> None:
    with connection.transaction():
        for table in ("changes", "quarantine"):
            execute(connection, f"DELETE FROM session_rollout.{table} WHERE copy = %s", (job.name,))
        execute(connection, "DELETE FROM session_rollout.copies WHERE name = %s", (job.name,))
        ledger.add_history(connection, context, job.name, event)


def compare(context: RunContext, job: CopyJob) -> Comparison:
    """Compare both sides without changing anything. Raises MigrationFailed, Interrupted."""

    def work(connection: Connection) -> Comparison:
        if state.read(connection, job.name) is None:
            raise not_started(job.name)
        pause = 1 / job.throttle.copy_duty_cycle - 1
        sql = state.sql_of(connection, job.spec)
        return comparing.compare(connection, sql, job.name, lambda seconds: time.sleep(seconds * pause))

    return run_with_retries(context, work)


def status(context: RunContext, job: CopyJob) -> dict[str, Any]:
    """State, numbers of rows, quarantine and snapshots of the copy as JSON-ready data. Raises MigrationFailed, Interrupted."""

    def work(connection: Connection) -> dict[str, Any]:
        record = state.read(connection, job.name)
        if record is None:
            return {"copy": job.name, "state": "NotStarted"}
        waiting = fetch_row(connection, "SELECT count(*) FROM session_rollout.changes WHERE copy = %s", job.name)[0]
        reasons = execute(connection, _QUARANTINE, (job.name,)).fetchall()
        return {
            "copy": job.name,
            "state": str(record.state),
            "done": record.done,
            "total": record.total,
            "paused": state.paused(connection, job.name),
            "changesWaiting": waiting,
            "quarantine": [{"reason": reason, "rows": count, "example": key} for reason, count, key in reasons],
            "snapshots": snapshots.listed(connection, job.name),
        }

    return run_with_retries(context, work)


def pause(context: RunContext, job: CopyJob, *, paused: bool) -> str:
    """Pause or resume the runner of the copy, wherever it runs. Returns a summary. Raises MigrationFailed, Interrupted."""

    def work(connection: Connection) -> str:
        query = "UPDATE session_rollout.copies SET paused = %s WHERE name = %s"
        if execute(connection, query, (paused, job.name)).rowcount == 0:
            raise not_started(job.name)
        return "pausing after the current batch" if paused else "resumed"

    return run_with_retries(context, work)
