"""Backup and restore of session data, in the same database.

A snapshot holds each row of a table as it was at a moment of its own, taken in small batches like the copy itself, so that
no long transaction is needed and a killed Job goes on. A restore is a merge: rows that are gone come back, rows that differ
go back unless the application has written them since. What is not restored, and what is overwritten, is kept in
`session_rollout.restore_conflicts`.
"""

import re
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from session_rollout.migrations import copies, ledger
from session_rollout.migrations.copying import Job
from session_rollout.migrations.copyspec import Copy
from session_rollout.migrations.database import (
    Connection,
    MigrationFailed,
    Target,
    connect,
    execute,
    for_batches,
    literal,
    lock_of,
    persist,
    quoted,
    row,
)
from session_rollout.migrations.throttle import Throttle

SCHEMA: Final = "session_rollout_snapshots"
KEPT: Final = timedelta(days=7)
TAKEN: Final = "session_rollout_taken_at"
_TABLES: Final = f"""
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
CREATE TABLE IF NOT EXISTS session_rollout.snapshots (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  copy text NOT NULL,
  label text NOT NULL,              -- what it was taken for
  table_name text NOT NULL,
  snapshot text NOT NULL,           -- the table that holds the rows
  cursor text,
  rows bigint NOT NULL DEFAULT 0,
  checksum numeric NOT NULL DEFAULT 0,   -- sum of hashtextextended of all rows
  begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  complete_at timestamptz,
  keep_until timestamptz,           -- not known before the rollout has ended
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
class Table:
    """A table of a copy, and how to tell who wrote a row when."""

    name: str
    key: str
    changed: str | None  # SQL with the alias `l` of the live row
    damaged: str  # SQL with the alias `l`: true when no application could have written such a row
    user: str | None
    ignored: frozenset[str] = frozenset()  # columns that say when a row was moved: no reason to bring it back


def tables_of(copy: Copy) -> tuple[Table, Table]:
    """The source and the target of a copy."""
    damage = " OR ".join(f"coalesce(({check.when}), false)" for check in copy.checks) or "false"
    source = copy.changed.source if copy.changed else None
    target = copy.changed.target if copy.changed else None
    return (
        Table(copy.source, copy.key, _live(source, "s"), _live(damage, "s") or "false", copy.user),
        Table(copy.target, copy.key, _live(target, "t"), _live(damage, "s") or "false", copy.user, frozenset(copy.stamps)),
    )


def _live(expression: str | None, alias: str) -> str | None:
    return re.sub(rf"\b{alias}\.", "l.", expression) if expression else None


# --- taking


def backup(target: Target, job: Job, label: str) -> str:
    """Take a snapshot of both tables, or finish one that was begun; in words. Raises MigrationFailed, Interrupted."""

    def work(connection: Connection) -> str:
        with connect(target.defining) as definer:
            copies.ready(definer)
            ready(definer)
        for_batches(connection, target.limits)
        sql = copies.sql_of(connection, job.copy)
        throttle = Throttle(target, connection, job.name, sql, job.gentleness)
        taken = [_take(target, connection, throttle, job, label, table) for table in tables_of(job.copy)]
        ledger.remember(connection, target, job.name, f"backup {label}: " + ", ".join(taken))
        return f"snapshot {label}: {', '.join(taken)}"

    return persist(target, work, lock=lock_of(job.name))


def ready(connection: Connection) -> None:
    """Make sure the tables are there."""
    if not prepared(connection):
        ledger.prepare(connection, _TABLES)


def prepared(connection: Connection) -> bool:
    """Whether they are there."""
    return bool(row(connection, "SELECT to_regclass('session_rollout.restore_conflicts') IS NOT NULL")[0])


def _take(target: Target, connection: Connection, throttle: Throttle, job: Job, label: str, table: Table) -> str:
    number, snapshot, cursor = _open(target, connection, job, label, table)
    statement = _batch(table, snapshot, throttle.sql.key_type)
    while True:
        begun = time.monotonic()
        found = execute(
            connection, statement, {"number": number, "cursor": cursor, "size": throttle.gentleness.rows}
        ).fetchone()
        target.progress += 1
        if found is None:
            break
        rows, cursor = found
        target.reporter.tell(message=f"snapshot of {table.name}: {rows:,} rows")
        throttle.rest(time.monotonic() - begun)
    rows = execute(
        connection,
        "UPDATE session_rollout.snapshots SET complete_at = coalesce(complete_at, clock_timestamp()) WHERE number = %s RETURNING rows",
        (number,),
    ).fetchone()[0]
    return f"{rows:,} rows of {table.name}"


def _open(target: Target, connection: Connection, job: Job, label: str, table: Table) -> tuple[int, str, str | None]:
    """Number, table and last key of the snapshot; made where there is none."""
    known = "SELECT number, snapshot, cursor FROM session_rollout.snapshots WHERE copy = %s AND label = %s AND table_name = %s"
    if found := row(connection, known, job.name, label, table.name):
        return found[0], found[1], found[2]
    number = row(connection, "SELECT coalesce(max(number), 0) + 1 FROM session_rollout.snapshots")[0]
    snapshot = f"{SCHEMA}.{table.name.replace('.', '_')[:40]}_{number}"
    with connect(target.defining) as definer, definer.transaction():
        execute(
            definer,
            f"CREATE TABLE IF NOT EXISTS {quoted(snapshot)} (LIKE {quoted(table.name)},"
            f" {TAKEN} timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY ({quoted(table.key)}))",
        )
    execute(
        connection,
        "INSERT INTO session_rollout.snapshots (copy, label, table_name, snapshot) VALUES (%s, %s, %s, %s)",
        (job.name, label, table.name, quoted(snapshot)),
    )
    return _open(target, connection, job, label, table)


def _batch(table: Table, snapshot: str, key_type: str) -> str:
    key, live = quoted(table.key), quoted(table.name)
    return f"""
WITH mine AS (
  SELECT FROM session_rollout.snapshots
  WHERE number = %(number)s AND complete_at IS NULL AND cursor IS NOT DISTINCT FROM %(cursor)s FOR UPDATE
), batch AS MATERIALIZED (
  SELECT l.* FROM {live} l WHERE EXISTS (SELECT FROM mine)
  AND (%(cursor)s::{key_type} IS NULL OR l.{key} > %(cursor)s::{key_type}) ORDER BY l.{key} LIMIT %(size)s
), kept AS (INSERT INTO {snapshot} SELECT batch.* FROM batch ON CONFLICT DO NOTHING RETURNING 1
), last AS (SELECT b.{key}::text AS key FROM batch b ORDER BY b.{key} DESC LIMIT 1)
UPDATE session_rollout.snapshots SET cursor = last.key, rows = rows + (SELECT count(*) FROM kept),
  checksum = checksum + (SELECT sum(hashtextextended(b::text, 0)) FROM batch b) FROM last
WHERE number = %(number)s RETURNING rows, cursor"""


# --- bringing back


@dataclass(frozen=True)
class Wanted:
    """What to bring back."""

    label: str | None = None  # the newest snapshot when none is named
    user: str | None = None
    at: datetime | None = None  # from the newest snapshot that was complete by then
    overwrite_newer: bool = False
    tables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Restored:
    """What came of it."""

    table: str
    returned: int  # rows that were gone
    mended: int  # rows that differed and went back
    kept: int  # rows that the application has written since, left as they are
    orphaned: int  # rows that are gone and whose user is gone, too

    def __str__(self) -> str:
        parts = [f"{self.returned:,} missing rows back", f"{self.mended:,} damaged rows back", f"{self.kept:,} newer rows kept"]
        return f"{self.table}: " + ", ".join(parts) + (f", {self.orphaned:,} without their user" if self.orphaned else "")


def restore(target: Target, job: Job, wanted: Wanted) -> list[Restored]:
    """Merge a snapshot into the live tables. Raises MigrationFailed, Interrupted."""

    def work(connection: Connection) -> list[Restored]:
        if not prepared(connection):
            raise MigrationFailed(f"there is no snapshot of {job.name}")
        for_batches(connection, target.limits)
        sql = copies.sql_of(connection, job.copy)
        throttle = Throttle(target, connection, job.name, sql, job.gentleness)
        # The source first: where changes are followed, the target is put right with it.
        chosen = [(table, _choose(connection, job, wanted, table)) for table in tables_of(job.copy)]
        results = [
            _merge(target, connection, throttle, job, wanted, table, snapshot)
            for table, snapshot in chosen
            if not wanted.tables or table.name in wanted.tables
        ]
        ledger.remember(connection, target, job.name, "restore: " + "; ".join(str(one) for one in results))
        return results

    return persist(target, work, lock=lock_of(job.name))


def _choose(connection: Connection, job: Job, wanted: Wanted, table: Table) -> str:
    """The table of the newest complete snapshot that fits."""
    found = row(
        connection,
        "SELECT snapshot FROM session_rollout.snapshots WHERE copy = %s AND table_name = %s AND complete_at IS NOT NULL"
        " AND (%s::text IS NULL OR label = %s) AND (%s::timestamptz IS NULL OR complete_at <= %s) ORDER BY number DESC LIMIT 1",
        *(job.name, table.name, wanted.label, wanted.label, wanted.at, wanted.at),
    )
    if found is None:
        mine = [one for one in listed(connection, job.name) if one["table"] == table.name and one["completeAt"]]
        known = ", ".join(f"{one['label']} of {one['completeAt']}" for one in mine) or "none"
        raise MigrationFailed(f"there is no complete snapshot of {table.name} that fits; there are: {known}")
    return str(found[0])


def _merge(
    target: Target, connection: Connection, throttle: Throttle, job: Job, wanted: Wanted, table: Table, snapshot: str
) -> Restored:
    cursor, sums = None, [0, 0, 0, 0]
    statement = _merge_text(connection, wanted, table, snapshot, throttle.sql.key_type)
    while True:
        begun = time.monotonic()
        found = execute(
            connection, statement, {"cursor": cursor, "size": throttle.gentleness.rows, "user": wanted.user, "copy": job.name}
        ).fetchone()
        sums = [before + now for before, now in zip(sums, found[:4], strict=True)]
        target.progress += 1
        if (cursor := found[4]) is None:
            return Restored(table.name, *sums)
        target.reporter.tell(message=f"restoring {table.name}: {sums[0] + sums[1]:,} rows back")
        throttle.rest(time.monotonic() - begun)


def _merge_text(connection: Connection, wanted: Wanted, table: Table, snapshot: str, key_type: str) -> str:
    key, live = quoted(table.key), quoted(table.name)
    columns = [found[0] for found in execute(connection, _COLUMNS, (table.name, snapshot)).fetchall()]
    named, taken = ", ".join(quoted(one) for one in columns), ", ".join(f"b.{quoted(one)}" for one in columns)
    sets = ", ".join(f"{quoted(one)} = b.{quoted(one)}" for one in columns if one != table.key)
    compared = [one for one in columns if one not in table.ignored]
    both = [f"ROW({', '.join(f'{alias}.{quoted(one)}' for one in compared)})" for alias in ("l", "b")]
    newer = (
        "false"
        if wanted.overwrite_newer or table.changed is None
        else f"({table.changed}) > b.{TAKEN} AND NOT ({table.damaged})"
    )
    newer = newer.replace("%", "%%")
    user = f"AND b.{quoted(table.user)} = %(user)s" if wanted.user and table.user else ""
    orphan = _orphan(connection, table)
    return f"""
WITH batch AS MATERIALIZED (
  SELECT b.* FROM {snapshot} b WHERE (%(cursor)s::{key_type} IS NULL OR b.{key} > %(cursor)s::{key_type}) {user}
  ORDER BY b.{key} LIMIT %(size)s
), gone AS MATERIALIZED (
  SELECT b.*, {orphan} AS session_rollout_orphan FROM batch b
  WHERE NOT EXISTS (SELECT FROM {live} l WHERE l.{key} = b.{key})
), differing AS MATERIALIZED (
  SELECT b.{key}, ({newer}) AS newer, to_jsonb(l) AS live, to_jsonb(b) - '{TAKEN}' AS snapshot
  FROM batch b JOIN {live} l ON l.{key} = b.{key} WHERE {both[0]} IS DISTINCT FROM {both[1]}
), returned AS (
  INSERT INTO {live} ({named}) SELECT {taken} FROM gone b WHERE NOT b.session_rollout_orphan ON CONFLICT DO NOTHING RETURNING 1
), mended AS (
  UPDATE {live} l SET {sets} FROM batch b, differing d
  WHERE d.{key} = b.{key} AND l.{key} = b.{key} AND d.newer IS NOT TRUE AND ({newer}) IS NOT TRUE RETURNING l.{key}
), noted AS (
  INSERT INTO session_rollout.restore_conflicts (copy, table_name, key, what, live, snapshot)
  SELECT %(copy)s, {literal(table.name)}, d.{key}::text, CASE WHEN d.newer THEN 'KeptNewer' ELSE 'Overwritten' END, d.live, d.snapshot
  FROM differing d
)
SELECT (SELECT count(*) FROM returned), (SELECT count(*) FROM mended),
  (SELECT count(*) FROM differing d WHERE d.newer), (SELECT count(*) FROM gone b WHERE b.session_rollout_orphan),
  (SELECT b.{key}::text FROM batch b ORDER BY b.{key} DESC LIMIT 1)"""


_COLUMNS: Final = """
SELECT a.attname FROM pg_attribute a JOIN pg_attribute b ON b.attname = a.attname AND b.attrelid = to_regclass(%s::text)
WHERE a.attrelid = to_regclass(%s::text) AND a.attnum > 0 AND b.attnum > 0 AND NOT a.attisdropped AND NOT b.attisdropped
AND b.attgenerated = '' ORDER BY a.attnum"""
_PARENTS: Final = """
SELECT k.confrelid::regclass::text, f.attname, p.attname FROM pg_constraint k
JOIN pg_attribute f ON f.attrelid = k.conrelid AND f.attnum = k.conkey[1]
JOIN pg_attribute p ON p.attrelid = k.confrelid AND p.attnum = k.confkey[1]
WHERE k.contype = 'f' AND k.conrelid = to_regclass(%s) AND cardinality(k.conkey) = 1"""


def _orphan(connection: Connection, table: Table) -> str:
    """SQL: whether a row of the snapshot refers to one that is gone, by any foreign key."""
    parents = execute(connection, _PARENTS, (table.name,)).fetchall()
    cases = [
        f"(b.{quoted(column)} IS NOT NULL AND NOT EXISTS (SELECT FROM {parent} p WHERE p.{quoted(key)} = b.{quoted(column)}))"
        for parent, column, key in parents
    ]
    return "(" + " OR ".join(cases) + ")" if cases else "false"


def newer_rows(target: Target, job: Job, wanted: Wanted) -> int:
    """How many rows a restore would lose if it overwrote what the application has written since."""

    def work(connection: Connection) -> int:
        count = 0
        for table in tables_of(job.copy):
            if not prepared(connection) or table.changed is None:
                continue
            snapshot = _choose(connection, job, wanted, table)
            query = (
                f"SELECT count(*) FROM {snapshot} b JOIN {quoted(table.name)} l USING ({quoted(table.key)})"
                f" WHERE ({table.changed}) > b.{TAKEN} AND NOT ({table.damaged})"
            )
            count += execute(connection, query).fetchone()[0]
        return count

    return persist(target, work)


# --- keeping


def keep(connection: Connection, copy: str, length: timedelta) -> None:
    """Snapshots of a copy that have no end get one, this long from now."""
    if prepared(connection):
        query = "UPDATE session_rollout.snapshots SET keep_until = now() + %s WHERE copy = %s AND keep_until IS NULL"
        execute(connection, query, (length, copy))


def prune(target: Target, job: Job) -> str:
    """Drop the snapshots whose time is over; in words. Raises MigrationFailed, Interrupted."""

    def work(connection: Connection) -> str:
        if not prepared(connection):
            return "no snapshots"
        query = "SELECT number, snapshot, label FROM session_rollout.snapshots WHERE copy = %s AND keep_until < now()"
        over = execute(connection, query, (job.name,)).fetchall()
        for number, snapshot, _ in over:
            with connect(target.defining) as definer:
                execute(definer, f"DROP TABLE IF EXISTS {snapshot}")
            execute(connection, "DELETE FROM session_rollout.snapshots WHERE number = %s", (number,))
        return f"{len(over)} snapshots dropped" if over else "no snapshot's time is over"

    return persist(target, work, lock=lock_of(job.name))


def listed(connection: Connection, copy: str) -> list[dict[str, Any]]:
    """Snapshots of a copy, oldest first."""
    if not prepared(connection):
        return []
    query = (
        "SELECT label, table_name, rows, complete_at::text, keep_until::text FROM session_rollout.snapshots"
        " WHERE copy = %s ORDER BY number"
    )
    names = ("label", "table", "rows", "completeAt", "keepUntil")
    return [dict(zip(names, found, strict=True)) for found in execute(connection, query, (copy,)).fetchall()]


def put_back(connection: Connection, copy: str, table: Table, label: str, keys: list[str]) -> int:
    """The snapshot's version of these rows, where that one is sound; how many."""
    query = "SELECT snapshot FROM session_rollout.snapshots WHERE copy = %s AND label = %s AND table_name = %s"
    snapshot = row(connection, query, copy, label, table.name)[0]
    columns = [found[0] for found in execute(connection, _COLUMNS, (table.name, snapshot)).fetchall()]
    sets = ", ".join(f"{quoted(one)} = b.{quoted(one)}" for one in columns if one != table.key)
    sound = re.sub(r"\bl\.", "b.", table.damaged).replace("%", "%%")
    done = execute(
        connection,
        f"UPDATE {quoted(table.name)} l SET {sets} FROM {snapshot} b WHERE l.{quoted(table.key)} = b.{quoted(table.key)}"
        f" AND b.{quoted(table.key)}::text = ANY(%(keys)s) AND NOT ({sound})",
        {"keys": keys},
    )
    return int(done.rowcount)
