"""The control tables of copies: the state of each copy, the changes to be applied, and the rows in quarantine."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from session_rollout.api.migration_enums import FailureReason
from session_rollout.errors import MigrationFailed
from session_rollout.migrations import ledger
from session_rollout.migrations.connection import Connection, execute, fetch_row
from session_rollout.migrations.copy.spec import CopySpec
from session_rollout.migrations.copy.sql import CopySql

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS session_rollout.copies (
  name text PRIMARY KEY,
  source text NOT NULL,
  target text NOT NULL,
  checksum text NOT NULL,
  state text NOT NULL,
  epoch bigint NOT NULL DEFAULT 0,   -- counts runners; only the newest may copy rows
  cursor text,                       -- last key that was copied
  done bigint NOT NULL DEFAULT 0,
  total bigint NOT NULL DEFAULT 0,
  batch integer NOT NULL DEFAULT 500,
  paused boolean NOT NULL DEFAULT false,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  moved_at timestamptz,              -- when every row had been copied once
  updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS session_rollout.changes (   -- no index: every change of the application writes it, and it remains small
  copy text NOT NULL,
  key text NOT NULL
);
CREATE TABLE IF NOT EXISTS session_rollout.quarantine (
  copy text NOT NULL,
  key text NOT NULL,                 -- of the source row, which remains in the source
  reason text NOT NULL,
  attempts integer NOT NULL DEFAULT 1,
  first_at timestamptz NOT NULL DEFAULT now(),
  last_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (copy, key)
);"""
ESTIMATE_ABOVE: Final = 20_000_000  # rows


class CopyState(StrEnum):
    """The state of a copy."""

    COPYING = "Copying"  # rows are copied in the order of their keys, changes are recorded
    FOLLOWING = "Following"  # all rows are copied, the trigger applies changes
    FINISHED = "Finished"  # the target is the source of truth


@dataclass(frozen=True)
class CopyRecord:
    """The control row of a copy."""

    state: CopyState
    epoch: int
    cursor: str | None
    done: int
    total: int
    batch: int
    checksum: str


def ensure(connection: Connection) -> None:
    """Create the control tables if they do not exist. Raises psycopg.Error."""
    ledger.ensure(connection)
    if not exists(connection):
        ledger.prepare(connection, _TABLES)


def exists(connection: Connection) -> bool:
    """Whether the control tables exist."""
    return bool(fetch_row(connection, "SELECT to_regclass('session_rollout.quarantine') IS NOT NULL")[0])


def sql_of(connection: Connection, spec: CopySpec) -> CopySql:
    """The statements of a copy. Raises MigrationFailed when a table or a unique key is missing."""
    for table in (spec.source, spec.target):
        if not fetch_row(connection, "SELECT to_regclass(%s) IS NOT NULL", table)[0]:
            raise MigrationFailed(
                f"table {table} does not exist: list the migration that creates it before this one", FailureReason.MISSING_TABLE
            )
    query = (
        "SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a WHERE a.attrelid = to_regclass(%s) AND a.attname = %s"
        " AND EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indkey[0] = a.attnum)"
    )
    types = {table: fetch_row(connection, query, table, spec.key) for table in (spec.source, spec.target)}
    for table, key_type in types.items():
        if key_type is None:
            message = f"`key` is {spec.key}: it must be a unique column of {table}"
            raise MigrationFailed(message, FailureReason.INVALID_KEY)
    return CopySql.of(spec, types[spec.source][0])


def read(connection: Connection, name: str) -> CopyRecord | None:
    """The control row of a copy; None when the copy has not started."""
    if not exists(connection):
        return None
    query = "SELECT state, epoch, cursor, done, total, batch, checksum FROM session_rollout.copies WHERE name = %s"
    record = fetch_row(connection, query, name)
    return CopyRecord(CopyState(record[0]), *record[1:]) if record else None


def take_over(connection: Connection, name: str, spec: CopySpec) -> CopyRecord:
    """Become the only runner that may copy rows; returns the control row, which is created if it does not exist."""
    execute(
        connection,
        "INSERT INTO session_rollout.copies (name, source, target, checksum, state, epoch) VALUES (%s, %s, %s, %s, %s, 1)"
        " ON CONFLICT (name) DO UPDATE SET epoch = copies.epoch + 1",
        (name, spec.source, spec.target, spec.checksum, CopyState.COPYING),
    )
    record = read(connection, name)
    assert record is not None, "the row was just written"
    return record


def taken_over() -> MigrationFailed:
    """The error of a runner that is not the newest one of its copy."""
    return MigrationFailed("another session-rollout-migrate has taken over this copy", FailureReason.CONCURRENT_MIGRATION)


def update(connection: Connection, name: str, epoch: int, **fields: object) -> None:
    """Set columns of the control row. Raises MigrationFailed when another runner has taken over."""
    sets = ", ".join(f"{field} = %({field})s" for field in fields)
    query = f"UPDATE session_rollout.copies SET {sets}, updated_at = now() WHERE name = %(name)s AND epoch = %(epoch)s"
    if execute(connection, query, {**fields, "name": name, "epoch": epoch}).rowcount == 0:
        raise taken_over()


def paused(connection: Connection, name: str) -> bool:
    """Whether `pause` was called for the copy."""
    record = fetch_row(connection, "SELECT paused FROM session_rollout.copies WHERE name = %s", name)
    return bool(record and record[0])


def quarantined(connection: Connection, name: str) -> int:
    """Number of rows in quarantine."""
    return int(fetch_row(connection, "SELECT count(*) FROM session_rollout.quarantine WHERE copy = %s", name)[0])


def total(connection: Connection, sql: CopySql) -> int:
    """Number of source rows to copy; an estimate for tables above 20 million rows."""
    estimate = fetch_row(connection, "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)", sql.spec.source)[0]
    if estimate > ESTIMATE_ABOVE:
        return int(estimate)
    return int(execute(connection, f"SELECT count(*) FROM {sql.source} s WHERE {sql.spec.where}", {}).fetchone()[0])


def counts(connection: Connection, sql: CopySql) -> tuple[int, int]:
    """Number of copied target rows and of source rows to copy, from one snapshot of the database."""
    query = (
        f"SELECT (SELECT count(*) FROM {sql.target} t WHERE {sql.spec.ours}),"
        f" (SELECT count(*) FROM {sql.source} s WHERE {sql.spec.where})"
    )
    copied_rows, source_rows = execute(connection, query, {}).fetchone()
    return int(copied_rows), int(source_rows)


def copied(connection: Connection, sql: CopySql) -> int:
    """Number of target rows that were copied from the source."""
    return int(execute(connection, f"SELECT count(*) FROM {sql.target} t WHERE {sql.spec.ours}", {}).fetchone()[0])


def set_copied_time(connection: Connection, name: str) -> None:
    """Record the time at which every row has been copied once; the first call counts."""
    query = "UPDATE session_rollout.copies SET moved_at = coalesce(moved_at, clock_timestamp()) WHERE name = %s"
    execute(connection, query, (name,))


def quarantine(connection: Connection, sql: CopySql, name: str, key: str, reason: str) -> None:
    """Put the source row with this key into quarantine, and delete its copy."""
    execute(
        connection,
        "INSERT INTO session_rollout.quarantine (copy, key, reason) VALUES (%s, %s, %s) ON CONFLICT (copy, key) DO UPDATE"
        " SET reason = excluded.reason, attempts = quarantine.attempts + 1, last_at = now()",
        (name, key, reason),
    )
    copied_row = f"t.{sql.key} = %(key)s::{sql.key_type} AND ({sql.spec.ours})"
    execute(connection, f"DELETE FROM {sql.target} t WHERE {copied_row}", {"key": key})


def delete_changes_after(connection: Connection, sql: CopySql, name: str, cursor: str | None) -> None:
    """Delete recorded changes of rows after the cursor: these rows will be read later, with the change."""
    execute(
        connection,
        f"DELETE FROM session_rollout.changes WHERE copy = %(name)s AND key <> '*'"
        f" AND key::{sql.key_type} > %(cursor)s::{sql.key_type}",
        {"name": name, "cursor": cursor},
    )


def delete_without_source(connection: Connection, sql: CopySql) -> None:
    """Delete all copied rows that no longer exist in the source, after TRUNCATE."""
    execute(
        connection,
        f"DELETE FROM {sql.target} t WHERE ({sql.spec.ours})"
        f" AND NOT EXISTS (SELECT FROM {sql.source} s WHERE s.{sql.key} = t.{sql.key})",
        {},
    )
