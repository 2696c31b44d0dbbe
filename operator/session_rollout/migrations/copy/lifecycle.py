"""The two ends of a copy: the target becomes the truth (`finish`), or what was moved is taken back (`down`)."""

import time
from collections.abc import Callable
from typing import Any

import psycopg

from session_rollout.migrations import capture, copies, ledger, paced, snapshots, verify
from session_rollout.migrations.copies import CopyState
from session_rollout.migrations.copying import Copier, Job, open_copy
from session_rollout.migrations.database import (
    Connection,
    MigrationFailed,
    Target,
    connect,
    execute,
    lock_of,
    patiently,
    persist,
    row,
)


def finish(target: Target, job: Job) -> str:
    """Compare a last time, stop following, mark the source; from here on the copy cannot be undone.

    Snapshots are kept for seven more days. Raises MigrationFailed, Interrupted.
    """

    def work(connection: Connection) -> str:
        copier = open_copy(target, job, connection)
        if copier.state.state is CopyState.COPYING:
            raise MigrationFailed("rows are still to be moved: run `up` first")
        if copier.state.state is CopyState.FOLLOWING:
            copier.run()
            copies.change(connection, job.name, copier.state.epoch, state=CopyState.FINISHED, cursor=None)
            ledger.remember(connection, target, job.name, f"finished: {job.copy.target} is the truth")
        stop_following(target, copier)
        copier.drain_all(copier.sql.apply)  # what the trigger could only record in its last moment
        marked = _through(copier, copier.sql.mark, lambda found: found[1]) if job.copy.mark else 0
        snapshots.keep(connection, job.name, snapshots.KEPT)
        copier.target.reporter.tell(following=False, done=copier.done, total=copier.total)
        return f"{job.copy.target} is the truth; {marked:,} rows of {job.copy.source} are marked as moved"

    return persist(target, work, lock=lock_of(job.name))


def down(target: Target, job: Job) -> str:
    """Stop following and delete the rows that were moved, except those the application has written since.

    Refused once the target is the truth. Raises MigrationFailed, Interrupted.
    """

    def work(connection: Connection) -> str:
        found = copies.find(connection, job.name)
        if found is None:
            return "nothing to undo"
        if found.state is CopyState.FINISHED:
            raise MigrationFailed(f"{job.copy.target} is the truth since the copy was finished: it cannot be undone")
        copier = open_copy(target, job, connection)
        stop_following(target, copier)
        deleted = _through(copier, copier.sql.undo, lambda found: found[2])
        kept = copies.moved(connection, copier.sql)
        _forget(connection, target, job, f"undone: {deleted} rows deleted, {kept} kept")
        copier.target.reporter.tell(following=False, done=0, total=copier.total, quarantined=0)
        touched = f", {kept:,} that the application has written since are kept" if kept else ""
        return f"{deleted:,} rows of {job.copy.target} are deleted{touched}"

    return persist(target, work, lock=lock_of(job.name))


def stop_following(target: Target, copier: Copier) -> None:
    """Empty the trigger's function, then take the trigger off where our role may."""
    with connect(target.defining) as definer:
        capture.replace(definer, copier.sql, copier.job.name, capture.OFF)
        paced.drop(definer, copier.job.name)
        try:
            patiently(target, definer, "the trigger", capture.remove_text(copier.sql, copier.job.name))
        except psycopg.errors.InsufficientPrivilege:
            return  # only the table's owner may; without a body it costs next to nothing


def _through(copier: Copier, statement: str, last_key: Callable[[Any], str | None]) -> int:
    """Run a statement over all keys in batches, as gently as the copy; how many rows it changed."""
    cursor: str | None = None
    changed = 0
    while True:
        begun = time.monotonic()
        found = execute(copier.connection, statement, {"cursor": cursor, "size": copier.job.gentleness.rows}).fetchone()
        changed += int(found[0])
        copier.target.progress += 1
        if (cursor := last_key(found)) is None:
            return changed
        copier.target.reporter.tell(message=f"{changed:,} rows changed back or marked")
        copier.throttle.rest(time.monotonic() - begun)


def _forget(connection: Connection, target: Target, job: Job, what: str) -> None:
    with connection.transaction():
        for table in ("changes", "quarantine"):
            execute(connection, f"DELETE FROM session_rollout.{table} WHERE copy = %s", (job.name,))
        execute(connection, "DELETE FROM session_rollout.copies WHERE name = %s", (job.name,))
        ledger.remember(connection, target, job.name, what)


def compare(target: Target, job: Job) -> verify.Verification:
    """Compare both sides without changing anything. Raises MigrationFailed."""

    def work(connection: Connection) -> verify.Verification:
        if copies.find(connection, job.name) is None:
            raise MigrationFailed(f"the copy {job.name} has not begun")
        pause = 1 / job.gentleness.duty - 1
        sql = copies.sql_of(connection, job.copy)
        return verify.verification(connection, sql, job.name, lambda worked: time.sleep(worked * pause))

    return persist(target, work)


def standing(target: Target, job: Job) -> dict[str, Any]:
    """Where the copy is, as JSON-ready data."""

    def work(connection: Connection) -> dict[str, Any]:
        found = copies.find(connection, job.name)
        if found is None:
            return {"copy": job.name, "state": "NotBegun"}
        waiting = row(connection, "SELECT count(*) FROM session_rollout.changes WHERE copy = %s", job.name)[0]
        reasons = execute(
            connection,
            "SELECT reason, count(*), min(key) FROM session_rollout.quarantine WHERE copy = %s GROUP BY 1 ORDER BY 2 DESC LIMIT 20",
            (job.name,),
        ).fetchall()
        return {
            "copy": job.name,
            "state": str(found.state),
            "done": found.done,
            "total": found.total,
            "paused": copies.paused(connection, job.name),
            "changesWaiting": waiting,
            "quarantine": [{"reason": reason, "rows": count, "example": key} for reason, count, key in reasons],
            "snapshots": snapshots.listed(connection, job.name),
        }

    return persist(target, work)


def pause(target: Target, job: Job, *, paused: bool) -> str:
    """Tell the runner, wherever it is, to rest or to go on. Raises MigrationFailed."""

    def work(connection: Connection) -> str:
        query = "UPDATE session_rollout.copies SET paused = %s WHERE name = %s"
        if execute(connection, query, (paused, job.name)).rowcount == 0:
            raise MigrationFailed(f"the copy {job.name} has not begun")
        return "rests from the next batch on" if paused else "goes on"

    return persist(target, work)
