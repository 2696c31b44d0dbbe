"""The control tables of copies: where each one is, which changes wait to be applied, and which rows could not be moved."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from session_rollout.migrations import ledger
from session_rollout.migrations.copyspec import Copy
from session_rollout.migrations.copysql import CopySql
from session_rollout.migrations.database import Connection, MigrationFailed, execute, row

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS session_rollout.copies (
  name text PRIMARY KEY,
  source text NOT NULL,
  target text NOT NULL,
  checksum text NOT NULL,
  state text NOT NULL,
  epoch bigint NOT NULL DEFAULT 0,   -- counts runners; only the newest may move rows
  cursor text,                       -- last key that was moved
  done bigint NOT NULL DEFAULT 0,
  total bigint NOT NULL DEFAULT 0,
  batch integer NOT NULL DEFAULT 500,
  paused boolean NOT NULL DEFAULT false,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  moved_at timestamptz,              -- when every row had been moved once
  updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS session_rollout.changes (   -- no index: it is written with every change, and read when small
  copy text NOT NULL,
  key text NOT NULL
);
CREATE TABLE IF NOT EXISTS session_rollout.quarantine (
  copy text NOT NULL,
  key text NOT NULL,                 -- of the source row, which stays where it is
  reason text NOT NULL,
  attempts integer NOT NULL DEFAULT 1,
  first_at timestamptz NOT NULL DEFAULT now(),
  last_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (copy, key)
);"""
EXACT_BELOW: Final = 20_000_000  # rows; more are estimated


class CopyState(StrEnum):
    """Where a copy is."""

    COPYING = "Copying"  # rows are moved in the order of their keys, changes are recorded
    FOLLOWING = "Following"  # all rows are moved, the trigger applies changes
    FINISHED = "Finished"  # the target is the truth


@dataclass(frozen=True)
class CopyRow:
    """One copy as its control row says."""

    state: CopyState
    epoch: int
    cursor: str | None
    done: int
    total: int
    batch: int
    checksum: str


def ready(connection: Connection) -> None:
    """Make sure the control tables are there."""
    ledger.ready(connection)
    if not prepared(connection):
        ledger.prepare(connection, _TABLES)


def prepared(connection: Connection) -> bool:
    """Whether they are there."""
    return bool(row(connection, "SELECT to_regclass('session_rollout.quarantine') IS NOT NULL")[0])


def sql_of(connection: Connection, copy: Copy) -> CopySql:
    """The statements of a copy. Raises MigrationFailed when a table or its key is missing."""
    for table in (copy.source, copy.target):
        if not row(connection, "SELECT to_regclass(%s) IS NOT NULL", table)[0]:
            raise MigrationFailed(f"table {table} does not exist: the migration that creates it must come before")
    query = (
        "SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a WHERE a.attrelid = to_regclass(%s) AND a.attname = %s"
        " AND EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indkey[0] = a.attnum)"
    )
    found = [row(connection, query, table, copy.key) for table in (copy.source, copy.target)]
    if found[0] is None or found[1] is None:
        table = copy.source if found[0] is None else copy.target
        raise MigrationFailed(f"`key` is {copy.key}, and it must be a unique column of {table}")
    return CopySql.of(copy, found[0][0])


def find(connection: Connection, name: str) -> CopyRow | None:
    """The control row of a copy."""
    if not prepared(connection):
        return None
    query = "SELECT state, epoch, cursor, done, total, batch, checksum FROM session_rollout.copies WHERE name = %s"
    found = row(connection, query, name)
    return CopyRow(CopyState(found[0]), *found[1:]) if found else None


def take_over(connection: Connection, name: str, copy: Copy) -> CopyRow:
    """Become the only runner that may move rows; the control row, made where there is none."""
    execute(
        connection,
        "INSERT INTO session_rollout.copies (name, source, target, checksum, state, epoch) VALUES (%s, %s, %s, %s, %s, 1)"
        " ON CONFLICT (name) DO UPDATE SET epoch = copies.epoch + 1",
        (name, copy.source, copy.target, copy.checksum, CopyState.COPYING),
    )
    found = find(connection, name)
    assert found is not None, "it was just written"
    return found


def change(connection: Connection, name: str, epoch: int, **fields: object) -> None:
    """Set fields of the control row. Raises MigrationFailed when another runner has taken over."""
    sets = ", ".join(f"{field} = %({field})s" for field in fields)
    query = f"UPDATE session_rollout.copies SET {sets}, updated_at = now() WHERE name = %(name)s AND epoch = %(epoch)s"
    if execute(connection, query, {**fields, "name": name, "epoch": epoch}).rowcount == 0:
        raise MigrationFailed("another runner has taken over")


def paused(connection: Connection, name: str) -> bool:
    """Whether a person has paused it."""
    found = row(connection, "SELECT paused FROM session_rollout.copies WHERE name = %s", name)
    return bool(found and found[0])


def quarantined(connection: Connection, name: str) -> int:
    """How many rows could not be moved."""
    return int(row(connection, "SELECT count(*) FROM session_rollout.quarantine WHERE copy = %s", name)[0])


def total(connection: Connection, sql: CopySql) -> int:
    """Rows of the source that are to be moved; an estimate for very large tables."""
    estimate = row(connection, "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)", sql.copy.source)[0]
    if estimate > EXACT_BELOW:
        return int(estimate)
    return int(execute(connection, f"SELECT count(*) FROM {sql.source} s WHERE {sql.copy.where}", {}).fetchone()[0])


def both(connection: Connection, sql: CopySql) -> tuple[int, int]:
    """Rows that are moved, and rows that are to be, at one moment."""
    query = (
        f"SELECT (SELECT count(*) FROM {sql.target} t WHERE {sql.copy.ours}),"
        f" (SELECT count(*) FROM {sql.source} s WHERE {sql.copy.where})"
    )
    here, there = execute(connection, query, {}).fetchone()
    return int(here), int(there)


def moved(connection: Connection, sql: CopySql) -> int:
    """Rows of the target that came from the source."""
    return int(execute(connection, f"SELECT count(*) FROM {sql.target} t WHERE {sql.copy.ours}", {}).fetchone()[0])
