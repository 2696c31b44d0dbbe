"""Connections to the database, small helpers for SQL, and how errors of the database are classified.

The two control schemas `session_rollout` and `session_rollout_snapshots` are created by the code that uses them.
"""

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, cast

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from session_rollout.api.migration_enums import FailureReason
from session_rollout.errors import MigrationFailed
from session_rollout.migrations.progress import Reporter

Connection = psycopg.Connection[Any]
LOCK_KEY: Final = 0x5E5510A011007  # any constant: the advisory lock of all runners that change the schema
APPLICATION: Final = "session-rollout"
# SQLSTATE prefixes of errors that another attempt can overcome: connection, resources and disk, operator intervention,
# system error, deadlock and serialization failure, lock not available.
TRANSIENT: Final = ("08", "53", "57", "58", "40", "55P03")
ROW_ERRORS: Final = ("22", "23", "54")  # caused by the content of a row: data exception, constraint violation, limit exceeded


@dataclass(frozen=True)
class Limits:
    """How long things may take."""

    lock_timeout: timedelta = timedelta(seconds=2)  # the longest that the application may have to wait for a migration
    lock_deadline: timedelta = timedelta(minutes=15)  # retries of locks, connections and disk space end after this time
    statement_timeout: timedelta = timedelta(minutes=10)


@dataclass
class RunContext:
    """What every operation needs: the database, its limits, and where progress is reported."""

    dsn: str
    definer: str = ""  # connection string of the role that defines tables and triggers, where that is a separate one
    limits: Limits = field(default_factory=Limits)
    reporter: Reporter = field(default_factory=Reporter)
    stopping: threading.Event = field(default_factory=threading.Event)  # set by SIGTERM
    actor: str = ""
    job_uid: str = ""
    completed: int = 0  # counts units of work; retries start over when it has grown

    @property
    def definer_dsn(self) -> str:
        """Connection string for statements that define tables, functions and triggers."""
        return self.definer or self.dsn


def connect(dsn: str, role: str = "") -> Connection:
    """Open an autocommit connection that detects a dead server; `role` is appended to its application name.

    Raises MigrationFailed for an invalid connection string, psycopg.Error when the server cannot be reached.
    """
    try:
        conninfo_to_dict(dsn)
    except psycopg.Error as error:  # its message would show the string
        raise MigrationFailed(
            "the connection string cannot be read: it must be a URL (special characters of a password percent-encoded)"
            " or key=value pairs (values in single quotes)",
            FailureReason.INVALID_CONNECTION_STRING,
        ) from error
    return psycopg.connect(
        dsn,
        autocommit=True,
        connect_timeout=10,
        application_name=APPLICATION + role,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=30_000,
    )


# --- SQL


def execute(connection: Connection, query: str, values: Sequence[object] | Mapping[str, object] | None = None) -> Any:
    """Run a query that is composed here or comes from a bundle; returns the cursor. Raises psycopg.Error."""
    return connection.execute(cast("Any", query), values)


def fetch_row(connection: Connection, query: str, *values: object) -> Any:
    """The first row of a query; None when it has none."""
    return execute(connection, query, values or None).fetchone()


def quote_name(name: str) -> str:
    """A name, with its schema if it has one, as an SQL identifier."""
    return ".".join(f'"{part.replace(chr(34), chr(34) * 2)}"' for part in name.split("."))


def quote_literal(value: object) -> str:
    """A value as an SQL literal."""
    return sql.Literal(value).as_string(None)


def set_timeouts(connection: Connection, *, local: bool = True, **timeouts: timedelta) -> None:
    """Set timeouts by their PostgreSQL names, to the end of the transaction if `local`; zero disables a timeout."""
    for name, length in timeouts.items():
        scope = "LOCAL " if local else ""
        execute(connection, f"SET {scope}{name} = {round(length / timedelta(milliseconds=1))}")


def configure_for_batches(connection: Connection, limits: Limits) -> None:
    """Configure a connection for batches in key order.

    A lost last batch loses its cursor too, so commits need not wait for the disk. A cached plan would have to fit any cursor
    and would read the table from its beginning, so each batch is planned again.
    """
    connection.prepare_threshold = None
    execute(connection, "SET synchronous_commit = off; SET enable_seqscan = off; SET jit = off")
    set_timeouts(connection, local=False, lock_timeout=limits.lock_timeout, statement_timeout=limits.statement_timeout)


def copy_lock_key(name: str) -> int:
    """Key of the advisory lock of one copy: copies with different names may run at the same time."""
    return LOCK_KEY + 2 + int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])


# --- errors


def database_message(error: psycopg.Error) -> str:
    """The message of the database in one line."""
    return str(error.diag.message_primary or (str(error).strip().splitlines() or [type(error).__name__])[0])


def is_transient(error: psycopg.Error) -> bool:
    """Whether another attempt can succeed."""
    state = error.sqlstate or error.diag.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state.startswith(TRANSIENT)


def is_rejected(error: psycopg.Error) -> bool:
    """Whether the server was reached and denied the connection.

    psycopg has no SQLSTATE for this, so the text is checked. A server that sends other texts, because of its `lc_messages`, is
    retried until the deadline instead.
    """
    text = str(error)
    return error.sqlstate is None and any(
        part in text for part in ("authentication failed", "no pg_hba.conf", "does not exist")
    )


def is_row_error(error: psycopg.Error) -> bool:
    """Whether the content of a row caused the error, so that the other rows can be copied."""
    return (error.sqlstate or "").startswith(ROW_ERRORS)
