"""Applies bundles exactly once.

One advisory lock per database, polled on a connection of its own (a blocking waiter would deadlock with index builds).
Each step is one transaction that holds the change and its ledger row, so there is no half state to repair. A step waits
for locks only as long as `lock_timeout`, then lets others pass and tries again: it never queues in front of the
application.
"""

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, LiteralString, cast

import psycopg
from psycopg import sql

from session_rollout.migrations.bundle import Step, checksum

LOCK_KEY: Final = 0x5E5510A011007  # any constant: the advisory lock of all session-rollout runners in a database
POLL_SECONDS: Final = 0.2
BACKOFF: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 3.0)
LEDGER: Final = """
CREATE SCHEMA IF NOT EXISTS session_rollout;
CREATE TABLE IF NOT EXISTS session_rollout.schema_migrations (
  bundle text NOT NULL,
  version integer NOT NULL,
  name text NOT NULL,
  checksum text NOT NULL,
  down_sql text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now(),
  applied_by text NOT NULL,
  duration_ms integer NOT NULL,
  pod_uid text NOT NULL,
  PRIMARY KEY (bundle, version)
)"""


class MigrationFailed(Exception):
    """The migration cannot go on; the message has the database's own words and the line of SQL."""


@dataclass(frozen=True)
class Limits:
    """How long things may take."""

    lock_timeout: timedelta = timedelta(seconds=2)
    lock_deadline: timedelta = timedelta(minutes=15)
    statement_timeout: timedelta = timedelta(minutes=10)


@dataclass(frozen=True)
class Result:
    """What was done, for the termination message."""

    message: str
    checksum: str


def _milliseconds(length: timedelta) -> int:
    return round(length / timedelta(milliseconds=1))


@contextmanager
def connected(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """An autocommit connection. Raises MigrationFailed without the connection string."""
    try:
        connection = psycopg.connect(dsn, autocommit=True, connect_timeout=10, application_name="session-rollout")
    except psycopg.Error as error:
        raise MigrationFailed(f"cannot connect to the database: {_first_line(error)}") from error
    with connection:
        yield connection


@contextmanager
def only_runner(dsn: str, limits: Limits) -> Iterator[None]:
    """Hold the advisory lock of this database; raises MigrationFailed naming the holder when it is not free in time."""
    deadline = time.monotonic() + limits.lock_deadline.total_seconds()
    with connected(dsn) as guard:
        while not _row(guard, "SELECT pg_try_advisory_lock(%s)", LOCK_KEY)[0]:
            if time.monotonic() > deadline:
                raise MigrationFailed(f"another migration holds the lock: {_holder(guard)}")
            time.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        yield


def _holder(guard: psycopg.Connection[Any]) -> str:
    found = guard.execute(
        "SELECT a.pid, a.application_name, a.client_addr, now() - a.backend_start FROM pg_locks l"
        " JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted"
        " AND ((l.classid::bigint << 32) | l.objid::bigint) = %s",
        (LOCK_KEY,),
    ).fetchone()
    return f"pid {found[0]} ({found[1]}, {found[2]}), connected for {found[3]}" if found else "nobody any more"


def up(dsn: str, bundle: str, steps: tuple[Step, ...], limits: Limits) -> Result:
    """Apply every step that the ledger does not have."""
    start = time.monotonic()
    with only_runner(dsn, limits), connected(dsn) as connection:
        _prepare(connection)
        applied = _applied(connection, bundle)
        _refuse_drift(steps, applied)
        missing = [step for step in steps if step.version not in applied]
        for step in missing:
            _patiently(connection, step.file, step.up, limits, lambda step=step: _enter(connection, bundle, step))
    if not missing:
        return Result(f"already applied: {len(steps)} steps", checksum(steps))
    return Result(f"{len(missing)} of {len(steps)} steps applied in {time.monotonic() - start:.1f} s", checksum(steps))


def down(dsn: str, bundle: str, steps: tuple[Step, ...], limits: Limits) -> Result:
    """Undo every step that the ledger has, newest first, with the SQL stored when it was applied."""
    start = time.monotonic()
    with only_runner(dsn, limits), connected(dsn) as connection:
        _prepare(connection)
        rows = connection.execute(
            "SELECT version, name, down_sql FROM session_rollout.schema_migrations WHERE bundle = %s ORDER BY version DESC",
            (bundle,),
        ).fetchall()
        for version, name, text in rows:
            _patiently(
                connection,
                f"{version:04d}_{name}.down.sql",
                text,
                limits,
                lambda version=version: _leave(connection, bundle, version),
            )
    return Result(f"{len(rows)} steps undone in {time.monotonic() - start:.1f} s", checksum(steps))


def _prepare(connection: psycopg.Connection[Any]) -> None:
    try:
        with connection.transaction():
            connection.execute(LEDGER)
    except psycopg.Error as error:
        raise MigrationFailed(f"the ledger cannot be created: {_first_line(error)}") from error


def _applied(connection: psycopg.Connection[Any], bundle: str) -> dict[int, tuple[str, str]]:
    rows = connection.execute(
        "SELECT version, name, checksum FROM session_rollout.schema_migrations WHERE bundle = %s", (bundle,)
    ).fetchall()
    return {version: (name, digest) for version, name, digest in rows}


def _refuse_drift(steps: tuple[Step, ...], applied: dict[int, tuple[str, str]]) -> None:
    known = {step.version: step for step in steps}
    for version, (name, digest) in applied.items():
        step = known.get(version)
        if step is not None and step.checksum != digest:
            raise MigrationFailed(f"{step.file} was changed after it was applied; a change must be a new step")
        if step is None:
            raise MigrationFailed(f"{version:04d}_{name} is applied, and this bundle does not have it: a newer one was here")


def _enter(connection: psycopg.Connection[Any], bundle: str, step: Step) -> None:
    connection.execute(
        "INSERT INTO session_rollout.schema_migrations (bundle, version, name, checksum, down_sql, applied_by, duration_ms,"
        " pod_uid) VALUES (%s, %s, %s, %s, %s, %s, extract(milliseconds FROM clock_timestamp() - now())::integer, %s)",
        (
            bundle,
            step.version,
            step.name,
            step.checksum,
            step.down,
            os.environ.get("SESSION_ROLLOUT_ACTOR", ""),
            os.environ.get("POD_UID", ""),
        ),
    )


def _leave(connection: psycopg.Connection[Any], bundle: str, version: int) -> None:
    connection.execute("DELETE FROM session_rollout.schema_migrations WHERE bundle = %s AND version = %s", (bundle, version))


def _patiently(connection: psycopg.Connection[Any], file: str, text: str, limits: Limits, record: Any) -> None:
    """Run a step and its ledger entry in one transaction; step back and try again when a lock is not to be had."""
    deadline = time.monotonic() + limits.lock_deadline.total_seconds()
    for attempt in range(1_000_000):
        try:
            with connection.transaction():
                _limit(connection, limits)
                connection.execute(cast("Any", text))
                record()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            if time.monotonic() > deadline:
                raise MigrationFailed(f"{file}: no lock within {limits.lock_deadline}: {_first_line(error)}") from error
            time.sleep(BACKOFF[min(attempt, len(BACKOFF) - 1)] * random.uniform(0.7, 1.3))  # noqa: S311 - jitter
        except psycopg.Error as error:
            raise MigrationFailed(f"{file}{_line(error, text)}: {_first_line(error)}") from error
        else:
            return


def _limit(connection: psycopg.Connection[Any], limits: Limits) -> None:
    for name, length in (("lock_timeout", limits.lock_timeout), ("statement_timeout", limits.statement_timeout)):
        statement = sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(name), sql.Literal(_milliseconds(length)))
        connection.execute(statement)


def _row(connection: psycopg.Connection[Any], query: LiteralString, *values: object) -> Any:
    return connection.execute(query, values).fetchone()


def _first_line(error: psycopg.Error) -> str:
    return str(error.diag.message_primary or (str(error).strip().splitlines() or [type(error).__name__])[0])


def _line(error: psycopg.Error, text: str) -> str:
    position = error.diag.statement_position
    return f" line {text.count(chr(10), 0, int(position)) + 1}" if position else ""
