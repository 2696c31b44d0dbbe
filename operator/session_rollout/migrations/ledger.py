"""The ledger in the database: which steps of which bundle are applied. It is the source of truth about migrations.

The row of a step is written in the transaction of the step itself.
"""

import time
from dataclasses import dataclass
from typing import Any, Final

from session_rollout.migrations.connection import LOCK_KEY, Connection, RunContext, execute, fetch_row
from session_rollout.migrations.schema.bundle import Step

_TABLES: Final = """
CREATE SCHEMA IF NOT EXISTS session_rollout;
CREATE TABLE IF NOT EXISTS session_rollout.schema_migrations (
  bundle text NOT NULL,
  version integer NOT NULL,
  name text NOT NULL,
  state text NOT NULL CHECK (state IN ('building', 'applied')),  -- building: an index build outside a transaction
  checksum text NOT NULL,
  down_sql text NOT NULL,        -- an image without this step can still undo it
  no_return boolean NOT NULL,    -- declared as irreversible
  added text[] NOT NULL,         -- catalog lines that the step added and removed, to detect drift
  removed text[] NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now(),
  applied_by text NOT NULL,
  job_uid text NOT NULL,
  duration_ms integer NOT NULL,
  lock_tries integer NOT NULL,
  PRIMARY KEY (bundle, version)
);
CREATE TABLE IF NOT EXISTS session_rollout.history (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  bundle text NOT NULL,
  what text NOT NULL,
  actor text NOT NULL,
  job_uid text NOT NULL
);"""


@dataclass(frozen=True)
class Entry:
    """One row of the ledger."""

    version: int
    name: str
    state: str
    checksum: str
    down: str
    no_return: bool
    added: tuple[str, ...]
    removed: tuple[str, ...]
    applied_at: str
    applied_by: str
    duration_ms: int

    @property
    def title(self) -> str:
        """Number and name, as in the file name: `0001_create_tables`."""
        return f"{self.version:04d}_{self.name}"


@dataclass(frozen=True)
class Effect:
    """What a step did, for its entry."""

    started: float  # time.monotonic()
    attempts: int
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def prepare(connection: Connection, tables: str = _TABLES) -> None:
    """Create control tables that are missing; does not need the privilege to create them when none is missing. Raises psycopg.Error."""
    with connection.transaction():
        # Two sessions that run CREATE IF NOT EXISTS at the same time can both fail.
        execute(connection, "SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY + 1,))
        execute(connection, tables)


def exists(connection: Connection) -> bool:
    """Whether the ledger exists."""
    return bool(fetch_row(connection, "SELECT to_regclass('session_rollout.history') IS NOT NULL")[0])


def ensure(connection: Connection) -> None:
    """Create the ledger if it does not exist. Raises psycopg.Error."""
    if not exists(connection):
        prepare(connection)


def entries(connection: Connection, bundle: str) -> tuple[Entry, ...]:
    """The applied steps of a bundle, oldest first; a step of a concurrent index build that was cut short has state `building`."""
    if not exists(connection):
        return ()
    query = (
        "SELECT version, name, state, checksum, down_sql, no_return, added, removed, applied_at::text, applied_by, duration_ms"
        " FROM session_rollout.schema_migrations WHERE bundle = %s ORDER BY version"
    )
    return tuple(Entry(*map(_as_tuple, record)) for record in execute(connection, query, (bundle,)).fetchall())


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def record_building(connection: Connection, context: RunContext, bundle: str, step: Step) -> None:
    """Record that an index build begins outside a transaction: an invalid index that exists afterwards belongs to the step."""
    _insert(connection, context, bundle, step, "building", Effect(time.monotonic(), 0))


def record_applied(connection: Connection, context: RunContext, bundle: str, step: Step, effect: Effect) -> None:
    """Record that the step is applied; to be called in the transaction of the step."""
    _insert(connection, context, bundle, step, "applied", effect)
    add_history(connection, context, bundle, f"up {step.version:04d}_{step.name}")


def _insert(connection: Connection, context: RunContext, bundle: str, step: Step, state: str, effect: Effect) -> None:
    execute(
        connection,
        "INSERT INTO session_rollout.schema_migrations (bundle, version, name, state, checksum, down_sql, no_return, added,"
        " removed, applied_by, job_uid, duration_ms, lock_tries) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (bundle, version) DO UPDATE SET state = excluded.state, added = excluded.added,"
        " removed = excluded.removed, applied_at = now(), applied_by = excluded.applied_by, job_uid = excluded.job_uid,"
        " duration_ms = excluded.duration_ms, lock_tries = excluded.lock_tries"
        " WHERE schema_migrations.state = 'building'",
        (
            *(bundle, step.version, step.name, state, step.checksum, step.down, step.no_return),
            *(list(effect.added), list(effect.removed), context.actor, context.job_uid),
            *(round((time.monotonic() - effect.started) * 1000), effect.attempts),
        ),
    )


def record_undone(connection: Connection, context: RunContext, bundle: str, entry: Entry) -> None:
    """Record that the step is undone; to be called in the transaction of its down file."""
    execute(
        connection,
        "DELETE FROM session_rollout.schema_migrations WHERE bundle = %s AND version = %s",
        (bundle, entry.version),
    )
    add_history(connection, context, bundle, f"down {entry.title}")


def add_history(connection: Connection, context: RunContext, bundle: str, event: str) -> None:
    """Add a line to `session_rollout.history`, which is kept for audits and never read by the runner."""
    execute(
        connection,
        "INSERT INTO session_rollout.history (bundle, what, actor, job_uid) VALUES (%s, %s, %s, %s)",
        (bundle, event, context.actor, context.job_uid),
    )
