"""Connections of a migration, and how the database's errors are read.

One connection works and holds the advisory lock: lock and transaction live and die together. A second one watches it,
names who blocks it, and cancels it when its time is over or the Pod is told to end.
"""

import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeVar, cast

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from session_rollout.migrations.report import Reporter

Connection = psycopg.Connection[Any]
Value = TypeVar("Value")
LOCK_KEY: Final = 0x5E5510A011007  # any constant: the advisory lock of all runners that change the schema
APPLICATION: Final = "session-rollout"
BACKOFF: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 3.0)
WATCH_SECONDS: Final = 0.03
FIRST_LOCK_TIMEOUT: Final = timedelta(milliseconds=100)
LOCK_GROWTH: Final = 1.5
# Trying again can help: connection, resources and disk, operator intervention, system, deadlock, serialisation, lock.
PASSING: Final = ("08", "53", "57", "58", "40", "55P03")
DATA: Final = ("22", "23", "54")  # the row is at fault: bad data, constraint, limit


class MigrationFailed(Exception):
    """The migration cannot go on before a person acts; the message has the database's own words and the line of SQL."""


class Interrupted(Exception):
    """Not now; another attempt goes on where this one stopped."""


@dataclass(frozen=True)
class Limits:
    """How long things may take."""

    lock_timeout: timedelta = timedelta(seconds=2)  # the longest that others may have to wait for us
    lock_deadline: timedelta = timedelta(minutes=15)  # how long locks, connections and disk space are tried for
    statement_timeout: timedelta = timedelta(minutes=10)


@dataclass
class Target:
    """One database, what may be done to it, and where to tell about it."""

    dsn: str
    definer: str = ""  # connection string of the role that may define tables and triggers, where that is another one
    limits: Limits = field(default_factory=Limits)
    reporter: Reporter = field(default_factory=Reporter)
    stopping: threading.Event = field(default_factory=threading.Event)
    actor: str = ""
    job_uid: str = ""
    progress: int = 0  # raised by whoever gets something done: patience begins anew

    @property
    def defining(self) -> str:
        """Connection string for definitions."""
        return self.definer or self.dsn


def connect(dsn: str, role: str = "") -> Connection:
    """An autocommit connection that notices a dead server. Raises MigrationFailed for a connection string it cannot read."""
    try:
        conninfo_to_dict(dsn)
    except psycopg.Error as error:  # its words would show the string
        raise MigrationFailed(
            "the connection string cannot be read: it must be a URL (special characters of a password percent-encoded)"
            " or key=value pairs (values in single quotes)"
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


def execute(connection: Connection, query: str, values: Sequence[object] | Mapping[str, object] | None = None) -> Any:
    """Run a query that was put together here or comes from a bundle; the cursor."""
    return connection.execute(cast("Any", query), values)


def row(connection: Connection, query: str, *values: object) -> Any:
    """The first row of a query."""
    return execute(connection, query, values or None).fetchone()


def quoted(name: str) -> str:
    """A name, with its schema if it has one, as an identifier of SQL."""
    return ".".join(f'"{part.replace(chr(34), chr(34) * 2)}"' for part in name.split("."))


def literal(value: object) -> str:
    """A value as a literal of SQL."""
    return sql.Literal(value).as_string(None)


def settings(connection: Connection, *, local: bool = True, **lengths: timedelta) -> None:
    """Set time-outs; zero means none."""
    for name, length in lengths.items():
        scope = "LOCAL " if local else ""
        execute(connection, f"SET {scope}{name} = {round(length / timedelta(milliseconds=1))}")


def for_batches(connection: Connection, limits: Limits) -> None:
    """Make a connection fit for batches by key.

    A lost last batch loses its cursor too, so there is no need to wait for the disk; a plan that fits any cursor would
    read the table from its beginning, so plans are made anew.
    """
    connection.prepare_threshold = None
    execute(connection, "SET synchronous_commit = off; SET enable_seqscan = off; SET jit = off")
    settings(connection, local=False, lock_timeout=limits.lock_timeout, statement_timeout=limits.statement_timeout)


def words(error: psycopg.Error) -> str:
    """The database's own words in one line."""
    return str(error.diag.message_primary or (str(error).strip().splitlines() or [type(error).__name__])[0])


def passing(error: psycopg.Error) -> bool:
    """Whether trying again can help."""
    state = error.sqlstate or error.diag.sqlstate
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) if state is None else state.startswith(PASSING)


def faulty_row(error: psycopg.Error) -> bool:
    """Whether a row is at fault, so that the others can go on."""
    return (error.sqlstate or "").startswith(DATA)


@dataclass
class Patience:
    """Waits longer each time, and no longer in all than the limit since the last success."""

    target: Target
    limit: timedelta
    attempt: int = 0
    since: float | None = None

    def reset(self) -> None:
        """Something succeeded."""
        self.attempt, self.since = 0, None

    def wait(self, why: str) -> None:
        """Sleep a little, and say why. Raises Interrupted when told to end or when the limit is reached."""
        self.since = self.since or time.monotonic()
        if time.monotonic() - self.since > self.limit.total_seconds():
            raise Interrupted(f"gave up after {self.limit}: {why}")
        self.target.reporter.waits(why)
        seconds = BACKOFF[min(self.attempt, len(BACKOFF) - 1)] * random.uniform(0.7, 1.3)  # noqa: S311 - jitter
        self.attempt += 1
        if self.target.stopping.wait(seconds):
            raise Interrupted("told to end")


def lock_of(name: str) -> int:
    """The advisory lock of one copy: copies of different names may run at once."""
    return LOCK_KEY + 2 + int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])


def persist(target: Target, work: Callable[[Connection], Value], *, lock: int | None = None, dsn: str = "") -> Value:
    """Do the work on a connection that holds the advisory lock; again on another one when that is lost.

    Raises MigrationFailed with the database's words, or Interrupted when the database does not come back in time.
    """
    patience, progress = Patience(target, target.limits.lock_deadline), target.progress
    while True:
        try:
            with connect(dsn or target.dsn) as connection:
                if lock is not None:
                    _become_only_runner(target, connection, lock, patience)
                return work(connection)
        except psycopg.Error as error:
            if target.stopping.is_set():
                raise Interrupted("told to end") from error
            if not passing(error) or _refused(error):
                raise MigrationFailed(f"the database says: {words(error)}") from error
            if target.progress != progress:
                progress = target.progress
                patience.reset()
            patience.wait(f"the database: {words(error)}")


def _refused(error: psycopg.Error) -> bool:
    """Whether the server was reached and does not know us: no wait will help."""
    text = str(error)
    return error.sqlstate is None and any(one in text for one in ("authentication failed", "no pg_hba.conf", "does not exist"))


def _become_only_runner(target: Target, connection: Connection, lock: int, patience: Patience) -> None:
    """Take the advisory lock by polling: a blocking waiter would deadlock with an index build."""
    while not row(connection, "SELECT pg_try_advisory_lock(%s)", lock)[0]:
        holder = f"another migration holds the lock: {_holder(connection, lock)}"
        try:
            patience.wait(holder)
        except Interrupted as error:
            raise MigrationFailed(holder) if not target.stopping.is_set() else error from error


def _holder(connection: Connection, lock: int) -> str:
    found = row(
        connection,
        "SELECT a.pid, a.application_name, a.client_addr, date_trunc('second', now() - a.backend_start) FROM pg_locks l"
        " JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted"
        " AND ((l.classid::bigint << 32) | l.objid::bigint) = %s AND l.objsubid = 1",
        lock,
    )
    return f"pid {found[0]} ({found[1]}, {found[2]}), connected for {found[3]}" if found else "nobody any more"


def ladder(limits: Limits, attempt: int) -> timedelta:
    """How long the nth attempt waits for a lock: little at first, never longer than the limit."""
    return min(limits.lock_timeout, FIRST_LOCK_TIMEOUT * LOCK_GROWTH ** min(attempt, 50))


def patiently(target: Target, connection: Connection, what: str, text: str) -> None:
    """A statement that needs a strong lock, without making others wait longer than the lock time-out. Raises Interrupted."""
    patience = Patience(target, target.limits.lock_deadline)
    while True:
        try:
            with watched(target, connection) as seen, connection.transaction():
                settings(connection, lock_timeout=ladder(target.limits, patience.attempt))
                execute(connection, text)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            patience.wait(f"{what}: {seen.blocker or words(error)}")
        else:
            return


# --- the watcher

_BLOCKERS: Final = """
SELECT a.pid, a.application_name, a.usename, a.state, date_trunc('second', clock_timestamp() - a.xact_start),
  (SELECT l.relation::regclass::text FROM pg_locks l WHERE l.pid = %(pid)s AND NOT l.granted AND l.relation IS NOT NULL LIMIT 1)
FROM unnest(pg_blocking_pids(%(pid)s)) AS blocker JOIN pg_stat_activity a ON a.pid = blocker ORDER BY a.xact_start LIMIT 1"""


@dataclass
class Watch:
    """What the watcher has seen."""

    blocker: str = ""
    late: bool = False  # the deadline was reached and the statement cancelled


@contextmanager
def watched(target: Target, connection: Connection, deadline: timedelta | None = None) -> Iterator[Watch]:
    """Watch what the connection does: who blocks it; cancel it at the deadline or when the Pod is told to end."""
    seen, done = Watch(), threading.Event()
    thread = threading.Thread(
        target=_keep_watching, args=(target, connection.info.backend_pid, deadline, seen, done), daemon=True
    )
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def _keep_watching(target: Target, pid: int, deadline: timedelta | None, seen: Watch, done: threading.Event) -> None:
    begun = time.monotonic()
    if done.wait(WATCH_SECONDS):
        return  # most statements are over before anybody could look
    try:
        with connect(target.dsn, "-watch") as watcher:
            while not done.wait(WATCH_SECONDS):
                if found := execute(watcher, _BLOCKERS, {"pid": pid}).fetchone():
                    seen.blocker = _describe(found)
                    target.reporter.waits(seen.blocker)
                seen.late = deadline is not None and time.monotonic() - begun > deadline.total_seconds()
                if seen.late or target.stopping.is_set():
                    row(watcher, "SELECT pg_cancel_backend(%s)", pid)
    except (psycopg.Error, MigrationFailed):
        return  # watching is a courtesy; the work has time-outs of its own


def _describe(found: tuple[Any, ...]) -> str:
    pid, application, user, state, age, relation = found
    return f"{relation or 'a lock'} is held by pid {pid} ({application or 'no name'}, user {user}, {state or 'state hidden'}, {age})"
