"""Retries: of connections, of the advisory lock, and of statements that need a strong table lock.

One connection works and holds the advisory lock, so that lock and transaction end together. A second connection watches the
first one: it reports which session blocks it, and cancels its statement at the deadline or after SIGTERM.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import psycopg

from session_rollout.api.migration_enums import FailureReason
from session_rollout.api.quantities import format_duration
from session_rollout.errors import Interrupted, MigrationFailed
from session_rollout.migrations.connection import (
    Connection,
    Limits,
    RunContext,
    connect,
    database_message,
    execute,
    fetch_row,
    is_rejected,
    is_transient,
    set_timeouts,
)

Value = TypeVar("Value")
BACKOFF: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 3.0)
WATCH_SECONDS: Final = 0.03
FIRST_LOCK_TIMEOUT: Final = timedelta(milliseconds=100)
LOCK_GROWTH: Final = 1.5


def terminated() -> Interrupted:
    """The error of an operation that SIGTERM has ended."""
    return Interrupted("stopped by SIGTERM: the next attempt resumes here", FailureReason.TERMINATED)


@dataclass
class Backoff:
    """Waits between attempts, longer each time, up to a limit since the last success."""

    context: RunContext
    limit: timedelta
    attempt: int = 0
    since: float | None = None

    def reset(self) -> None:
        """Start over after a success."""
        self.attempt, self.since = 0, None

    def wait(self, reason: str) -> None:
        """Wait before the next attempt and report the reason. Raises Interrupted after SIGTERM or at the limit."""
        self.since = self.since or time.monotonic()
        if time.monotonic() - self.since > self.limit.total_seconds():
            raise Interrupted(f"gave up after {format_duration(self.limit)}: {reason}", FailureReason.DEADLINE_EXCEEDED)
        self.context.reporter.wait_for(reason)
        seconds = BACKOFF[min(self.attempt, len(BACKOFF) - 1)] * random.uniform(0.7, 1.3)  # noqa: S311 - jitter
        self.attempt += 1
        if self.context.stopping.wait(seconds):
            raise terminated()


# --- connections


def run_with_retries(
    context: RunContext, work: Callable[[Connection], Value], *, lock: int | None = None, dsn: str = ""
) -> Value:
    """Run the work on a connection that holds the advisory lock `lock`; reconnect and repeat after transient errors.

    Raises MigrationFailed for an error that no retry can overcome, Interrupted after SIGTERM or the lock deadline.
    """
    backoff, completed = Backoff(context, context.limits.lock_deadline), context.completed
    while True:
        try:
            with connect(dsn or context.dsn) as connection:
                if lock is not None:
                    _take_advisory_lock(context, connection, lock, backoff)
                return work(connection)
        except psycopg.Error as error:
            _raise_unless_transient(context, error)
            if context.completed != completed:
                completed = context.completed
                backoff.reset()
            backoff.wait(f"database error: {database_message(error)}")


def _raise_unless_transient(context: RunContext, error: psycopg.Error) -> None:
    if context.stopping.is_set():
        raise terminated() from error
    if is_rejected(error):
        raise MigrationFailed(f"connection rejected: {database_message(error)}", FailureReason.CONNECTION_REJECTED) from error
    if not is_transient(error):
        raise MigrationFailed(f"database error: {database_message(error)}", FailureReason.DATABASE_ERROR) from error


def _take_advisory_lock(context: RunContext, connection: Connection, lock: int, backoff: Backoff) -> None:
    """Take the advisory lock by polling: a blocking waiter would deadlock with an index build."""
    while not fetch_row(connection, "SELECT pg_try_advisory_lock(%s)", lock)[0]:
        message = f"another migration holds the lock: {_lock_holder(connection, lock)}"
        try:
            backoff.wait(message)
        except Interrupted as error:
            if context.stopping.is_set():
                raise
            raise MigrationFailed(message, FailureReason.CONCURRENT_MIGRATION) from error


def _lock_holder(connection: Connection, lock: int) -> str:
    holder = fetch_row(
        connection,
        "SELECT a.pid, a.application_name, a.client_addr, date_trunc('second', now() - a.backend_start) FROM pg_locks l"
        " JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted"
        " AND ((l.classid::bigint << 32) | l.objid::bigint) = %s AND l.objsubid = 1",
        lock,
    )
    return f"pid {holder[0]} ({holder[1]}, {holder[2]}), connected for {holder[3]}" if holder else "released just now"


# --- table locks


def lock_timeout_of(limits: Limits, attempt: int) -> timedelta:
    """Lock timeout of the nth attempt, counted from 0: 100 ms at first, growing up to the limit."""
    return min(limits.lock_timeout, FIRST_LOCK_TIMEOUT * LOCK_GROWTH ** min(attempt, 50))


def execute_with_lock_retries(context: RunContext, connection: Connection, name: str, text: str) -> None:
    """Run a statement that needs a strong lock; the application never waits longer than the lock timeout.

    `name` says in messages what the lock is for. Raises Interrupted, psycopg.Error.
    """
    backoff = Backoff(context, context.limits.lock_deadline)
    while True:
        try:
            with watch(context, connection) as watcher, connection.transaction():
                set_timeouts(connection, lock_timeout=lock_timeout_of(context.limits, backoff.attempt))
                execute(connection, text)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            backoff.wait(f"{name}: {watcher.blocker or database_message(error)}")
        else:
            return


# --- the watcher

_BLOCKERS: Final = """
SELECT a.pid, a.application_name, a.usename, a.state, date_trunc('second', clock_timestamp() - a.xact_start),
  (SELECT l.relation::regclass::text FROM pg_locks l WHERE l.pid = %(pid)s AND NOT l.granted AND l.relation IS NOT NULL LIMIT 1)
FROM unnest(pg_blocking_pids(%(pid)s)) AS blocker JOIN pg_stat_activity a ON a.pid = blocker ORDER BY a.xact_start LIMIT 1"""


@dataclass
class Watcher:
    """What the watching connection has observed."""

    blocker: str = ""  # the session that blocks the statement, in words


@contextmanager
def watch(context: RunContext, connection: Connection, deadline: timedelta | None = None) -> Iterator[Watcher]:
    """Watch the connection during the block: report who blocks it, cancel it at the deadline or after SIGTERM."""
    watcher, done = Watcher(), threading.Event()
    arguments = (context, connection.info.backend_pid, deadline, watcher, done)
    thread = threading.Thread(target=_watch, args=arguments, daemon=True)
    thread.start()
    try:
        yield watcher
    finally:
        done.set()
        thread.join()


def _watch(context: RunContext, pid: int, deadline: timedelta | None, watcher: Watcher, done: threading.Event) -> None:
    started = time.monotonic()
    if done.wait(WATCH_SECONDS):
        return  # most statements end before a second connection could be opened
    try:
        with connect(context.dsn, "-watch") as connection:
            while not done.wait(WATCH_SECONDS):
                if blocker := execute(connection, _BLOCKERS, {"pid": pid}).fetchone():
                    watcher.blocker = _describe(blocker)
                    context.reporter.wait_for(watcher.blocker)
                late = deadline is not None and time.monotonic() - started > deadline.total_seconds()
                if late or context.stopping.is_set():
                    fetch_row(connection, "SELECT pg_cancel_backend(%s)", pid)
    except (psycopg.Error, MigrationFailed):
        return  # the statement has timeouts of its own; the watcher only shortens waits and names the blocker


def _describe(blocker: tuple[Any, ...]) -> str:
    pid, application, user, state, age, relation = blocker
    return f"{relation or 'a lock'} is held by pid {pid} ({application or 'no name'}, user {user}, {state or 'state hidden'}, {age})"
