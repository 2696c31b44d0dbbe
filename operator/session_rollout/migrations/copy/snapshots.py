"""Snapshots of the tables of a copy, in the same database; see `restore` for how rows are restored from them.

A snapshot is taken in small batches, as the copy itself, so that no long transaction is needed and an interrupted Job resumes.
Each row is therefore as it was when its batch was read, not at one moment for the whole table.
"""

import re
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from session_rollout.migrations import ledger
from session_rollout.migrations.connection import (
    Connection,
    RunContext,
    configure_for_batches,
    connect,
    copy_lock_key,
    execute,
    fetch_row,
    quote_name,
)
from session_rollout.migrations.copy import state
from session_rollout.migrations.copy.runner import CopyJob
from session_rollout.migrations.copy.spec import CopySpec
from session_rollout.migrations.copy.throttle import Throttle
from session_rollout.migrations.retry import run_with_retries

SCHEMA: Final = "session_rollout_snapshots"
RETENTION: Final = timedelta(days=7)
TAKEN_AT: Final = "session_rollout_taken_at"
_TABLES: Final = f"""
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
CREATE TABLE IF NOT EXISTS session_rollout.snapshots (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  copy text NOT NULL,
  label text NOT NULL,              -- what it was taken for, such as the phase
  table_name text NOT NULL,
  snapshot text NOT NULL,           -- the table that holds the rows
  cursor text,
  rows bigint NOT NULL DEFAULT 0,
  checksum numeric NOT NULL DEFAULT 0,   -- sum of hashtextextended of all rows
  begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  complete_at timestamptz,
  keep_until timestamptz,           -- set when the copy is finished
  UNIQUE (copy, label, table_name)
);
CREATE TABLE IF NOT EXISTS session_rollout.restore_conflicts (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  copy text NOT NULL,
  table_name text NOT NULL,
  key text NOT NULL,
  what text NOT NULL,               -- KeptNewer or Overwritten
  live jsonb NOT NULL,
  snapshot jsonb NOT NULL
);"""


@dataclass(frozen=True)
class SnapshotTable:
    """A table of a copy, with the expressions that a restore needs; they call the live row `l`."""

    name: str
    key: str
    changed: str | None  # when the application last wrote the row
    damaged: str  # whether a check of copy.yaml rejects the row: no application can have written it
    user: str | None  # column with the owner of the row
    ignored: frozenset[str] = (
        frozenset()
    )  # columns about the copy itself: a difference in them is not a reason to restore a row


def tables_of(spec: CopySpec) -> tuple[SnapshotTable, SnapshotTable]:
    """The source and the target of a copy."""
    damage = " OR ".join(f"coalesce(({check.when}), false)" for check in spec.checks) or "false"
    source = spec.changed.source if spec.changed else None
    target = spec.changed.target if spec.changed else None
    return (
        SnapshotTable(spec.source, spec.key, _live(source, "s"), _live(damage, "s") or "false", spec.user),
        SnapshotTable(
            spec.target, spec.key, _live(target, "t"), _live(damage, "s") or "false", spec.user, frozenset(spec.stamps)
        ),
    )


def _live(expression: str | None, alias: str) -> str | None:
    return re.sub(rf"\b{alias}\.", "l.", expression) if expression else None


# --- backup


def backup(context: RunContext, job: CopyJob, label: str) -> str:
    """Take a snapshot of both tables, or complete one that was interrupted. Returns a summary.

    Raises MigrationFailed, Interrupted.
    """

    def work(connection: Connection) -> str:
        with connect(context.definer_dsn) as definer:
            state.ensure(definer)
            ensure(definer)
        configure_for_batches(connection, context.limits)
        sql = state.sql_of(connection, job.spec)
        throttle = Throttle(context, connection, job.name, sql, job.throttle)
        taken = [_take(throttle, job, label, table) for table in tables_of(job.spec)]
        ledger.add_history(connection, context, job.name, f"backup {label}: " + ", ".join(taken))
        return f"snapshot {label}: {', '.join(taken)}"

    return run_with_retries(context, work, lock=copy_lock_key(job.name))


def ensure(connection: Connection) -> None:
    """Create the control tables of snapshots if they do not exist. Raises psycopg.Error."""
    if not exist(connection):
        ledger.prepare(connection, _TABLES)


def exist(connection: Connection) -> bool:
    """Whether the control tables exist."""
    return bool(fetch_row(connection, "SELECT to_regclass('session_rollout.restore_conflicts') IS NOT NULL")[0])


def _take(throttle: Throttle, job: CopyJob, label: str, table: SnapshotTable) -> str:
    """Copy the rows of a table into its snapshot; returns a summary."""
    context, connection = throttle.context, throttle.connection
    number, snapshot, cursor = _open(context, connection, job, label, table)
    statement = _batch(table, snapshot, throttle.sql.key_type)
    while True:
        started = time.monotonic()
        values = {"number": number, "cursor": cursor, "size": throttle.settings.statement_rows}
        result = execute(connection, statement, values).fetchone()
        context.completed += 1
        if result is None:
            break
        rows, cursor = result
        context.reporter.update(message=f"snapshot of {table.name}: {rows:,} rows")
        throttle.pace(time.monotonic() - started)
    return f"{_complete(connection, number):,} rows of {table.name}"


def _complete(connection: Connection, number: int) -> int:
    """Mark the snapshot as complete; returns its number of rows."""
    query = (
        "UPDATE session_rollout.snapshots SET complete_at = coalesce(complete_at, clock_timestamp())"
        " WHERE number = %s RETURNING rows"
    )
    return int(fetch_row(connection, query, number)[0])


def _open(
    context: RunContext, connection: Connection, job: CopyJob, label: str, table: SnapshotTable
) -> tuple[int, str, str | None]:
    """Number, table and last key of the snapshot, which is created if it does not exist."""
    query = "SELECT number, snapshot, cursor FROM session_rollout.snapshots WHERE copy = %s AND label = %s AND table_name = %s"
    if record := fetch_row(connection, query, job.name, label, table.name):
        return record[0], record[1], record[2]
    number = fetch_row(connection, "SELECT coalesce(max(number), 0) + 1 FROM session_rollout.snapshots")[0]
    snapshot = f"{SCHEMA}.{table.name.replace('.', '_')[:40]}_{number}"
    with connect(context.definer_dsn) as definer, definer.transaction():
        execute(
            definer,
            f"CREATE TABLE IF NOT EXISTS {quote_name(snapshot)} (LIKE {quote_name(table.name)},"
            f" {TAKEN_AT} timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY ({quote_name(table.key)}))",
        )
    execute(
        connection,
        "INSERT INTO session_rollout.snapshots (copy, label, table_name, snapshot) VALUES (%s, %s, %s, %s)",
        (job.name, label, table.name, quote_name(snapshot)),
    )
    return _open(context, connection, job, label, table)


def _batch(table: SnapshotTable, snapshot: str, key_type: str) -> str:
    """SQL that adds `size` rows after `cursor` to the snapshot: (rows in all, last key), or no row at the end."""
    key, live = quote_name(table.key), quote_name(table.name)
    return f"""
WITH claim AS (
  SELECT FROM session_rollout.snapshots
  WHERE number = %(number)s AND complete_at IS NULL AND cursor IS NOT DISTINCT FROM %(cursor)s FOR UPDATE
), batch AS MATERIALIZED (
  SELECT l.* FROM {live} l WHERE EXISTS (SELECT FROM claim)
  AND (%(cursor)s::{key_type} IS NULL OR l.{key} > %(cursor)s::{key_type}) ORDER BY l.{key} LIMIT %(size)s
), kept AS (INSERT INTO {snapshot} SELECT batch.* FROM batch ON CONFLICT DO NOTHING RETURNING 1
), last AS (SELECT b.{key}::text AS key FROM batch b ORDER BY b.{key} DESC LIMIT 1)
UPDATE session_rollout.snapshots SET cursor = last.key, rows = rows + (SELECT count(*) FROM kept),
  checksum = checksum + (SELECT sum(hashtextextended(b::text, 0)) FROM batch b) FROM last
WHERE number = %(number)s RETURNING rows, cursor"""


# --- retention


def set_expiry(connection: Connection, copy: str, length: timedelta) -> None:
    """Let the snapshots of a copy that have no expiry time expire after this length of time. Raises psycopg.Error."""
    if exist(connection):
        query = "UPDATE session_rollout.snapshots SET keep_until = now() + %s WHERE copy = %s AND keep_until IS NULL"
        execute(connection, query, (length, copy))


def prune(context: RunContext, job: CopyJob) -> str:
    """Drop expired snapshots; returns a summary. Raises MigrationFailed, Interrupted."""

    def work(connection: Connection) -> str:
        if not exist(connection):
            return "no snapshots"
        query = "SELECT number, snapshot, label FROM session_rollout.snapshots WHERE copy = %s AND keep_until < now()"
        expired = execute(connection, query, (job.name,)).fetchall()
        for number, snapshot, _ in expired:
            with connect(context.definer_dsn) as definer:
                execute(definer, f"DROP TABLE IF EXISTS {snapshot}")
            execute(connection, "DELETE FROM session_rollout.snapshots WHERE number = %s", (number,))
        return f"{len(expired)} expired snapshots dropped" if expired else "no expired snapshots"

    return run_with_retries(context, work, lock=copy_lock_key(job.name))


def listed(connection: Connection, copy: str) -> list[dict[str, Any]]:
    """Snapshots of a copy as JSON-ready data, oldest first."""
    if not exist(connection):
        return []
    query = (
        "SELECT label, table_name, rows, complete_at::text, keep_until::text FROM session_rollout.snapshots"
        " WHERE copy = %s ORDER BY number"
    )
    names = ("label", "table", "rows", "completeAt", "keepUntil")
    return [dict(zip(names, record, strict=True)) for record in execute(connection, query, (copy,)).fetchall()]
