"""`restore`: merges a snapshot into the live tables.

Missing rows are inserted. Changed rows are reverted unless the application has written them since the snapshot. Both versions
of every changed row are kept in `session_rollout.restore_conflicts`.
"""

import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from session_rollout.api.migration_enums import FailureReason
from session_rollout.errors import MigrationFailed
from session_rollout.migrations import ledger
from session_rollout.migrations.connection import (
    Connection,
    RunContext,
    configure_for_batches,
    copy_lock_key,
    execute,
    fetch_row,
    quote_literal,
    quote_name,
)
from session_rollout.migrations.copy import snapshots, state
from session_rollout.migrations.copy.runner import CopyJob
from session_rollout.migrations.copy.snapshots import TAKEN_AT, SnapshotTable, tables_of
from session_rollout.migrations.copy.throttle import Throttle
from session_rollout.migrations.retry import run_with_retries


@dataclass(frozen=True)
class RestoreOptions:
    """Which snapshot and which rows to restore."""

    label: str | None = None  # None: the newest snapshot
    user: str | None = None  # None: the rows of all users
    at: datetime | None = None  # the newest snapshot that was complete at this time
    overwrite_newer: bool = False  # also revert rows that the application has written since


@dataclass(frozen=True)
class RestoreResult:
    """Numbers of rows of one table."""

    table: str
    inserted: int  # rows that were missing
    reverted: int  # rows that were changed
    kept: int  # rows that the application has written since the snapshot
    orphaned: int  # missing rows that are not inserted because a row they refer to is missing, such as their user

    def __str__(self) -> str:
        text = f"{self.table}: {self.inserted:,} missing rows restored, {self.reverted:,} damaged rows restored"
        orphaned = f", {self.orphaned:,} rows of deleted users skipped" if self.orphaned else ""
        return f"{text}, {self.kept:,} newer rows kept{orphaned}"


def restore(context: RunContext, job: CopyJob, options: RestoreOptions) -> list[RestoreResult]:
    """Merge a snapshot into the live tables; one result per table. Raises MigrationFailed, Interrupted."""

    def work(connection: Connection) -> list[RestoreResult]:
        if not snapshots.exist(connection):
            raise MigrationFailed(f"there is no snapshot of {job.name}", FailureReason.NO_SNAPSHOT)
        configure_for_batches(connection, context.limits)
        sql = state.sql_of(connection, job.spec)
        throttle = Throttle(context, connection, job.name, sql, job.throttle)
        # The source first: while changes are followed, the trigger corrects the target with it.
        chosen = [(table, _choose(connection, job, options, table)) for table in tables_of(job.spec)]
        results = [_merge(throttle, job, options, table, snapshot) for table, snapshot in chosen]
        ledger.add_history(connection, context, job.name, "restore: " + "; ".join(map(str, results)))
        return results

    return run_with_retries(context, work, lock=copy_lock_key(job.name))


def _choose(connection: Connection, job: CopyJob, options: RestoreOptions, table: SnapshotTable) -> str:
    """Table of the newest complete snapshot that matches the options."""
    record = fetch_row(
        connection,
        "SELECT snapshot FROM session_rollout.snapshots WHERE copy = %s AND table_name = %s AND complete_at IS NOT NULL"
        " AND (%s::text IS NULL OR label = %s) AND (%s::timestamptz IS NULL OR complete_at <= %s) ORDER BY number DESC LIMIT 1",
        *(job.name, table.name, options.label, options.label, options.at, options.at),
    )
    if record is None:
        listed = snapshots.listed(connection, job.name)
        complete = [snapshot for snapshot in listed if snapshot["table"] == table.name and snapshot["completeAt"]]
        allowed = ", ".join(f"{snapshot['label']} of {snapshot['completeAt']}" for snapshot in complete) or "none"
        message = f"no complete snapshot of {table.name} matches; available are: {allowed}"
        raise MigrationFailed(message, FailureReason.NO_SNAPSHOT)
    return str(record[0])


def _merge(throttle: Throttle, job: CopyJob, options: RestoreOptions, table: SnapshotTable, snapshot: str) -> RestoreResult:
    context, connection = throttle.context, throttle.connection
    cursor, sums = None, [0, 0, 0, 0]
    statement = _merge_text(connection, options, table, snapshot, throttle.sql.key_type)
    while True:
        started = time.monotonic()
        size = throttle.settings.statement_rows
        values = {"cursor": cursor, "size": size, "user": options.user, "copy": job.name}
        *counts, cursor = execute(connection, statement, values).fetchone()
        sums = [total + count for total, count in zip(sums, counts, strict=True)]
        context.completed += 1
        if cursor is None:
            return RestoreResult(table.name, *sums)
        context.reporter.update(message=f"restoring {table.name}: {sums[0] + sums[1]:,} rows restored")
        throttle.pace(time.monotonic() - started)


# --- SQL


def _merge_text(connection: Connection, options: RestoreOptions, table: SnapshotTable, snapshot: str, key_type: str) -> str:
    """SQL that merges `size` rows after `cursor`: (inserted, reverted, kept, orphaned, last key)."""
    key, live, columns = quote_name(table.key), quote_name(table.name), _columns(connection, table, snapshot)
    names, values = (", ".join(f"{alias}{quote_name(column)}" for column in columns) for alias in ("", "b."))
    sides = [
        f"ROW({', '.join(f'{alias}.{quote_name(column)}' for column in columns if column not in table.ignored)})"
        for alias in ("l", "b")
    ]
    newer = _newer(options, table)
    user = f"AND b.{quote_name(table.user)} = %(user)s" if options.user and table.user else ""
    return f"""
WITH batch AS MATERIALIZED (
  SELECT b.* FROM {snapshot} b WHERE (%(cursor)s::{key_type} IS NULL OR b.{key} > %(cursor)s::{key_type}) {user}
  ORDER BY b.{key} LIMIT %(size)s
), missing AS MATERIALIZED (
  SELECT b.*, {_orphaned(connection, table)} AS session_rollout_orphan FROM batch b
  WHERE NOT EXISTS (SELECT FROM {live} l WHERE l.{key} = b.{key})
), differing AS MATERIALIZED (
  SELECT b.{key}, ({newer}) AS newer, to_jsonb(l) AS live, to_jsonb(b) - '{TAKEN_AT}' AS snapshot
  FROM batch b JOIN {live} l ON l.{key} = b.{key} WHERE {sides[0]} IS DISTINCT FROM {sides[1]}
), inserted AS (
  INSERT INTO {live} ({names}) SELECT {values} FROM missing b WHERE NOT b.session_rollout_orphan ON CONFLICT DO NOTHING RETURNING 1
), reverted AS (
  UPDATE {live} l SET {_assignments(table, columns)} FROM batch b, differing d
  WHERE d.{key} = b.{key} AND l.{key} = b.{key} AND d.newer IS NOT TRUE AND ({newer}) IS NOT TRUE RETURNING l.{key}
), conflicts AS (
  INSERT INTO session_rollout.restore_conflicts (copy, table_name, key, what, live, snapshot)
  SELECT %(copy)s, {quote_literal(table.name)}, d.{key}::text, CASE WHEN d.newer THEN 'KeptNewer' ELSE 'Overwritten' END, d.live, d.snapshot
  FROM differing d
)
SELECT (SELECT count(*) FROM inserted), (SELECT count(*) FROM reverted),
  (SELECT count(*) FROM differing d WHERE d.newer), (SELECT count(*) FROM missing b WHERE b.session_rollout_orphan),
  (SELECT b.{key}::text FROM batch b ORDER BY b.{key} DESC LIMIT 1)"""


def _newer(options: RestoreOptions, table: SnapshotTable) -> str:
    """Condition: the application has written the live row since the snapshot, and no check rejects it."""
    if options.overwrite_newer or table.changed is None:
        return "false"
    return f"({table.changed}) > b.{TAKEN_AT} AND NOT ({table.damaged})".replace("%", "%%")


def _assignments(table: SnapshotTable, columns: list[str]) -> str:
    """SET clause that takes all columns but the key from the snapshot row `b`."""
    return ", ".join(f"{quote_name(column)} = b.{quote_name(column)}" for column in columns if column != table.key)


_COLUMNS: Final = """
SELECT a.attname FROM pg_attribute a JOIN pg_attribute b ON b.attname = a.attname AND b.attrelid = to_regclass(%s::text)
WHERE a.attrelid = to_regclass(%s::text) AND a.attnum > 0 AND b.attnum > 0 AND NOT a.attisdropped AND NOT b.attisdropped
AND b.attgenerated = '' ORDER BY a.attnum"""
_PARENTS: Final = """
SELECT k.confrelid::regclass::text, f.attname, p.attname FROM pg_constraint k
JOIN pg_attribute f ON f.attrelid = k.conrelid AND f.attnum = k.conkey[1]
JOIN pg_attribute p ON p.attrelid = k.confrelid AND p.attnum = k.confkey[1]
WHERE k.contype = 'f' AND k.conrelid = to_regclass(%s) AND cardinality(k.conkey) = 1"""


def _columns(connection: Connection, table: SnapshotTable, snapshot: str) -> list[str]:
    """Columns that both the live table and the snapshot have, without generated ones."""
    return [record[0] for record in execute(connection, _COLUMNS, (table.name, snapshot)).fetchall()]


def _orphaned(connection: Connection, table: SnapshotTable) -> str:
    """Condition: a row of the snapshot refers by a foreign key to a row that no longer exists."""
    parents = execute(connection, _PARENTS, (table.name,)).fetchall()
    cases = [
        f"(b.{quote_name(column)} IS NOT NULL"
        f" AND NOT EXISTS (SELECT FROM {parent} p WHERE p.{quote_name(key)} = b.{quote_name(column)}))"
        for parent, column, key in parents
    ]
    return "(" + " OR ".join(cases) + ")" if cases else "false"


# --- counts and single rows


def count_newer_rows(context: RunContext, job: CopyJob, options: RestoreOptions) -> int:
    """How many rows that the application has written since the snapshot would be overwritten. Raises MigrationFailed."""

    def work(connection: Connection) -> int:
        tables = [table for table in tables_of(job.spec) if table.changed is not None]
        if not snapshots.exist(connection):
            return 0
        return sum(_count_newer(connection, table, _choose(connection, job, options, table)) for table in tables)

    return run_with_retries(context, work)


def _count_newer(connection: Connection, table: SnapshotTable, snapshot: str) -> int:
    query = (
        f"SELECT count(*) FROM {snapshot} b JOIN {quote_name(table.name)} l USING ({quote_name(table.key)})"
        f" WHERE ({table.changed}) > b.{TAKEN_AT} AND NOT ({table.damaged})"
    )
    return int(execute(connection, query).fetchone()[0])


def restore_rows(connection: Connection, copy: str, table: SnapshotTable, label: str, keys: list[str]) -> int:
    """Replace these rows by their version in the snapshot, where no check rejects it; returns how many. Raises psycopg.Error."""
    query = "SELECT snapshot FROM session_rollout.snapshots WHERE copy = %s AND label = %s AND table_name = %s"
    snapshot = fetch_row(connection, query, copy, label, table.name)[0]
    assignments = _assignments(table, _columns(connection, table, snapshot))
    damaged = re.sub(r"\bl\.", "b.", table.damaged).replace("%", "%%")
    result: Any = execute(
        connection,
        f"UPDATE {quote_name(table.name)} l SET {assignments} FROM {snapshot} b WHERE l.{quote_name(table.key)} ="
        f" b.{quote_name(table.key)} AND b.{quote_name(table.key)}::text = ANY(%(keys)s) AND NOT ({damaged})",
        {"keys": keys},
    )
    return int(result.rowcount)
