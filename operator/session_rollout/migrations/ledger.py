"""The ledger: which steps of which bundle are applied, written in the step's own transaction. The truth about migrations."""

import time
from dataclasses import dataclass
from typing import Any, Final

from session_rollout.migrations.bundle import Step
from session_rollout.migrations.database import LOCK_KEY, Connection, Target, execute, row

_TABLES: Final = """
CREATE SCHEMA IF NOT EXISTS session_rollout;
CREATE TABLE IF NOT EXISTS session_rollout.schema_migrations (
  bundle text NOT NULL,
  version integer NOT NULL,
  name text NOT NULL,
  state text NOT NULL CHECK (state IN ('building', 'applied')),  -- building: an index that is built outside a transaction
  checksum text NOT NULL,
  down_sql text NOT NULL,        -- so that an image without this step can undo it
  no_return boolean NOT NULL,    -- declared as not to be undone
  added text[] NOT NULL,         -- lines of the catalog that the step added and removed: drift is found by them
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
        """As its file is called."""
        return f"{self.version:04d}_{self.name}"


@dataclass(frozen=True)
class Effect:
    """What a step did, for its entry."""

    begun: float
    tries: int
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def prepare(connection: Connection, tables: str = _TABLES) -> None:
    """Create control tables that are missing; needs no right to create when none is. Raises psycopg.Error."""
    with connection.transaction():
        # CREATE IF NOT EXISTS is no protection against two at once.
        execute(connection, "SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY + 1,))
        execute(connection, tables)


def prepared(connection: Connection) -> bool:
    """Whether the ledger is there."""
    return bool(row(connection, "SELECT to_regclass('session_rollout.history') IS NOT NULL")[0])


def ready(connection: Connection) -> None:
    """Make sure the ledger is there."""
    if not prepared(connection):
        prepare(connection)


def entries(connection: Connection, bundle: str) -> tuple[Entry, ...]:
    """What the ledger has of a bundle, oldest first."""
    if not prepared(connection):
        return ()
    query = (
        "SELECT version, name, state, checksum, down_sql, no_return, added, removed, applied_at::text, applied_by, duration_ms"
        " FROM session_rollout.schema_migrations WHERE bundle = %s ORDER BY version"
    )
    return tuple(Entry(*map(_frozen, found)) for found in execute(connection, query, (bundle,)).fetchall())


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def announce(connection: Connection, target: Target, bundle: str, step: Step) -> None:
    """Before an index is built outside a transaction: whatever is found of it afterwards is ours."""
    _insert(connection, target, bundle, step, "building", Effect(time.monotonic(), 0))


def enter(connection: Connection, target: Target, bundle: str, step: Step, effect: Effect) -> None:
    """The step is applied. Belongs into its transaction."""
    _insert(connection, target, bundle, step, "applied", effect)
    remember(connection, target, bundle, f"up {step.version:04d}_{step.name}")


def _insert(connection: Connection, target: Target, bundle: str, step: Step, state: str, effect: Effect) -> None:
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
            *(list(effect.added), list(effect.removed), target.actor, target.job_uid),
            *(round((time.monotonic() - effect.begun) * 1000), effect.tries),
        ),
    )


def leave(connection: Connection, target: Target, bundle: str, entry: Entry) -> None:
    """The step is undone. Belongs into its transaction."""
    execute(
        connection,
        "DELETE FROM session_rollout.schema_migrations WHERE bundle = %s AND version = %s",
        (bundle, entry.version),
    )
    remember(connection, target, bundle, f"down {entry.title}")


def remember(connection: Connection, target: Target, bundle: str, what: str) -> None:
    """A line for those who ask later."""
    execute(
        connection,
        "INSERT INTO session_rollout.history (bundle, what, actor, job_uid) VALUES (%s, %s, %s, %s)",
        (bundle, what, target.actor, target.job_uid),
    )
