"""Copies the rows of a table while the application keeps working: capture changes first, copy second, compare last.

An attempt may be terminated at any moment: a batch and its cursor are one transaction, and every other step can be repeated.
See `trigger` for how changes are captured and `sql` for the statements.
"""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from session_rollout.api.migration_enums import FailureReason
from session_rollout.errors import MigrationFailed
from session_rollout.migrations import ledger
from session_rollout.migrations.connection import (
    Connection,
    RunContext,
    configure_for_batches,
    connect,
    copy_lock_key,
    database_message,
    execute,
    is_row_error,
    is_transient,
)
from session_rollout.migrations.copy import compare, functions, preflight, state, trigger
from session_rollout.migrations.copy.spec import CopySpec
from session_rollout.migrations.copy.sql import CopySql
from session_rollout.migrations.copy.state import CopyRecord, CopyState
from session_rollout.migrations.copy.throttle import MIN_BATCH_ROWS, Throttle, ThrottleSettings, next_batch_rows
from session_rollout.migrations.retry import Backoff, execute_with_lock_retries, run_with_retries

KEY_BATCH: Final = 100  # keys that are applied in one statement
DRAIN_SECONDS: Final = 2.0
RATE_SECONDS: Final = 10.0
CAREFUL_BATCHES: Final = 20
COMPARE_ROUNDS: Final = 20
ROUND_SECONDS: Final = 0.1
DIFFERENCES_SHOWN: Final = 3


@dataclass(frozen=True)
class CopyJob:
    """What to copy, under which name, and how fast."""

    name: str
    spec: CopySpec
    throttle: ThrottleSettings = field(default_factory=ThrottleSettings)
    free_space_query: str = ""


@dataclass
class Copier:
    """One runner of one copy on one connection."""

    context: RunContext
    job: CopyJob
    connection: Connection
    sql: CopySql
    record: CopyRecord
    throttle: Throttle = field(init=False)
    backoff: Backoff = field(init=False)
    cursor: str | None = field(init=False)
    done: int = field(init=False)
    total: int = field(init=False)
    batch_rows: int = field(init=False)
    quarantined: int = field(init=False)
    _samples: deque[tuple[float, int]] = field(default_factory=deque)  # monotonic seconds, rows done by then
    _careful: int = 0  # batches that are still copied key by key, after a row error
    _drained: float = 0.0
    _draining: tuple[tuple[str, str], ...] = ()  # ctid and key of the recorded changes that are being applied

    def __post_init__(self) -> None:
        self.throttle = Throttle(self.context, self.connection, self.job.name, self.sql, self.job.throttle)
        self.backoff = Backoff(self.context, self.context.limits.lock_deadline)
        self.cursor, self.done, self.total = self.record.cursor, self.record.done, self.record.total
        self.batch_rows = self.record.batch
        self.quarantined = state.quarantined(self.connection, self.job.name)

    def run(self) -> None:
        """Continue from the current state until changes are followed. Raises MigrationFailed, Interrupted, psycopg.Error."""
        with connect(self.context.definer_dsn) as definer:
            functions.define(definer, self.sql, self.job.name)
        if self.record.state is CopyState.COPYING:
            self._begin()
            while self._step():
                pass
            state.set_copied_time(self.connection, self.job.name)
            self.drain_all(self.sql.apply)
            self._follow()
        self.drain_all(self.sql.apply_beside_trigger)
        self._make_equal()

    def _begin(self) -> None:
        """Record changes from now on, so that a row that is read later cannot be missed."""
        with connect(self.context.definer_dsn) as definer:
            trigger.set_mode(definer, self.sql, self.job.name, trigger.RECORDING)
            if not trigger.is_installed(definer, self.sql, self.job.name):
                text = trigger.install_text(self.sql, self.job.name)
                execute_with_lock_retries(self.context, definer, "the trigger", text)
        if self.total == 0:
            self.total = state.total(self.connection, self.sql)
            self._update(total=self.total)
        self.report(f"copying rows of {self.job.spec.source}")

    def _update(self, **columns: object) -> None:
        state.update(self.connection, self.job.name, self.record.epoch, **columns)

    # --- batches

    def _step(self) -> bool:
        """Copy one batch; returns whether there may be more."""
        started = time.monotonic()
        try:
            rows_read = self._careful_batch() if self._careful else self._batch()
        except psycopg.Error as error:
            self._handle(error)
            return True
        seconds = time.monotonic() - started
        self._note_success()
        self.batch_rows = next_batch_rows(self.batch_rows, seconds)
        self._report_rate(seconds)
        if rows_read:
            self.throttle.wait_within_limits()
            self._drain_sometimes()
        return rows_read > 0

    def _note_success(self) -> None:
        self.backoff.reset()
        self.context.completed += 1

    def _handle(self, error: psycopg.Error) -> None:
        """After a row error, copy key by key for a while; after a transient error, retry later with small batches."""
        if is_row_error(error):
            self._careful = CAREFUL_BATCHES
        elif is_transient(error) and not self.connection.closed and not self.connection.broken:
            self.batch_rows = MIN_BATCH_ROWS
            self.backoff.wait(database_message(error))
        else:
            raise error

    def _batch(self) -> int:
        duty_cycle = self.job.throttle.copy_duty_cycle
        slice_rows = functions.COPY_SLICE if duty_cycle < 1 else self.batch_rows
        query = f"SELECT read, copied, quarantined, last FROM {functions.copy_function(self.job.name)}(%s, %s, %s, %s, %s)"
        values = (self.job.name, self.record.epoch, self.batch_rows, duty_cycle, slice_rows)
        result = execute(self.connection, query, values).fetchone()
        if result is None:
            return self._end_of_rows()
        rows_read, copied, quarantined, self.cursor = result
        self.done, self.quarantined = self.done + copied, self.quarantined + quarantined
        return int(rows_read)

    def _careful_batch(self) -> int:
        """Copy the same rows by key: rows that cannot be copied go into quarantine, the others are copied."""
        query = self.sql.keys(first=self.cursor is None)
        values = {"cursor": self.cursor, "size": self.batch_rows}
        keys = [record[0] for record in execute(self.connection, query, values).fetchall()]
        if not keys:
            return self._end_of_rows()
        copied = self.apply(keys, self.sql.apply)
        self.cursor, self.done, self._careful = keys[-1], self.done + copied, self._careful - 1
        self._update(cursor=self.cursor, done=self.done)
        self.quarantined = state.quarantined(self.connection, self.job.name)
        return len(keys)

    def _end_of_rows(self) -> int:
        self._update(batch=self.batch_rows)  # raises when another runner has taken over
        return 0

    # --- by key

    def apply(self, keys: list[str], statement: str) -> int:
        """Make the target equal to the source for these keys; returns how many rows were copied.

        A row that causes an error goes into quarantine. Raises MigrationFailed, psycopg.Error.
        """
        if not keys:
            return 0
        try:
            values = {"name": self.job.name, "epoch": self.record.epoch, "keys": keys}
            result = execute(self.connection, statement, values).fetchone()
        except psycopg.Error as error:
            if not is_row_error(error):
                raise
            return self._apply_halves(keys, statement, error)
        if result is None:
            raise state.taken_over()
        copied, locked = result[0], result[3] or []
        self._delete_changes(keys, locked)
        return int(copied)

    def _apply_halves(self, keys: list[str], statement: str, error: psycopg.Error) -> int:
        """Find the row that causes the error by bisection."""
        if len(keys) > 1:
            middle = len(keys) // 2
            return self.apply(keys[:middle], statement) + self.apply(keys[middle:], statement)
        reason = f"{database_message(error)} (SQLSTATE {error.sqlstate})"
        state.quarantine(self.connection, self.sql, self.job.name, keys[0], reason)
        self._delete_changes(keys, [])
        return 0

    def _delete_changes(self, keys: list[str], locked: list[str]) -> None:
        """Delete the recorded changes of these keys, without those that were recorded after the drain began."""
        applied = set(keys) - set(locked)
        if places := [place for place, key in self._draining if key in applied]:
            query = "DELETE FROM session_rollout.changes WHERE ctid = ANY(%s::tid[]) AND key = ANY(%s)"
            execute(self.connection, query, (places, list(applied)))

    # --- changes that the trigger has recorded

    def _drain_sometimes(self) -> None:
        if time.monotonic() - self._drained > DRAIN_SECONDS:
            self._drained = time.monotonic()
            state.delete_changes_after(self.connection, self.sql, self.job.name, self.cursor)
            self._drain(self.sql.apply)

    def _drain(self, statement: str) -> int:
        """Apply up to 100 recorded changes; returns how many there were."""
        query = "SELECT ctid::text, key FROM session_rollout.changes WHERE copy = %s LIMIT %s"
        self._draining = tuple(execute(self.connection, query, (self.job.name, KEY_BATCH)).fetchall())
        try:
            keys = {key for _, key in self._draining}
            if "*" in keys:
                state.delete_without_source(self.connection, self.sql)
                self._delete_changes(["*"], [])
                keys.discard("*")
            self.apply(sorted(keys), statement)
            return len(self._draining)
        finally:
            self._draining = ()  # a ctid may be used again once its row is deleted

    def drain_all(self, statement: str) -> None:
        """Apply recorded changes until fewer than 100 are left. Raises MigrationFailed, Interrupted, psycopg.Error."""
        while True:
            started = time.monotonic()
            try:
                count = self._drain(statement)
            except psycopg.Error as error:
                if not is_transient(error) or self.connection.closed or self.connection.broken:
                    raise
                self.backoff.wait(database_message(error))
                continue
            if count < KEY_BATCH:
                return
            self.report("applying changes that were made during the copy")
            self.throttle.pace(time.monotonic() - started)

    # --- the end of copying

    def _follow(self) -> None:
        """Let the trigger apply changes; transactions that began before still record them, so wait until these have ended."""
        source = self.job.spec.source
        with connect(self.context.definer_dsn) as definer:
            trigger.set_mode(definer, self.sql, self.job.name, trigger.FOLLOWING)
        before = trigger.writers(self.connection, source)
        while left := before.keys() & trigger.writers(self.connection, source).keys():
            self.backoff.wait(f"an open transaction that has changed {source}: pid {before[min(left)]}")
        self._note_success()
        self._update(state=CopyState.FOLLOWING)

    def _make_equal(self) -> None:
        """Compare all rows and copy those that differ, until no row does. Raises MigrationFailed when some always do."""
        duty_cycle = self.job.throttle.copy_duty_cycle
        for _ in range(COMPARE_ROUNDS):
            self.drain_all(self.sql.apply_beside_trigger)
            differences = compare.find_differences(self.connection, self.job.name, duty_cycle, self._after_range)
            if not differences:
                break
            self.apply([key for key, _ in differences], self.sql.apply_beside_trigger)
            self.context.stopping.wait(ROUND_SECONDS)
        else:
            examples = ", ".join(f"{key} {kind}" for key, kind in differences[:DIFFERENCES_SHOWN])
            message = f"{len(differences)} rows still differ after {COMPARE_ROUNDS} attempts: {examples}"
            raise MigrationFailed(message, FailureReason.ROWS_DIFFER)
        self.done, self.total = state.counts(self.connection, self.sql)
        self.quarantined = state.quarantined(self.connection, self.job.name)
        self._update(done=self.done, total=self.total)

    def _after_range(self) -> None:
        self.report("comparing all rows")
        self.throttle.wait_within_limits()

    # --- progress

    def report(self, message: str, **fields: Any) -> None:
        """Report a message with the numbers of the copy; `fields` are further fields of `Progress`."""
        self.context.reporter.update(
            message=message,
            done=min(self.done, self.total),
            total=self.total,
            quarantined=self.quarantined,
            following=True,
            **fields,
        )

    def _report_rate(self, seconds: float) -> None:
        now = time.monotonic()
        self._samples.append((now - seconds, self.done))
        while now - self._samples[0][0] > RATE_SECONDS:
            self._samples.popleft()
        since, before = self._samples[0]
        rate = round((self.done - before) / max(now - since, 0.001))
        left = max(self.total - self.done - self.quarantined, 0)
        remaining = {"remaining_seconds": round(left / rate)} if rate else {}
        self.report(f"copying rows of {self.job.spec.source}", rate=rate, **remaining)


def up(context: RunContext, job: CopyJob) -> str:
    """Copy all rows and follow the source from then on; returns a summary. Raises MigrationFailed, Interrupted."""
    started = time.monotonic()

    def work(connection: Connection) -> str:
        with connect(context.definer_dsn) as definer:
            state.ensure(definer)
        sql = state.sql_of(connection, job.spec)
        record = state.read(connection, job.name)
        if record is not None and record.state is CopyState.FINISHED:
            return f"already finished: {job.spec.target} is the source of truth"
        if record is not None and record.checksum != job.spec.checksum:
            message = "copy.yaml was changed after the copy started: undo the copy with `down` first"
            raise MigrationFailed(message, FailureReason.BUNDLE_CHANGED)
        if record is None:
            preflight.check(context, connection, sql, job.free_space_query)
        return _copy(context, job, connection, sql)

    message = run_with_retries(context, work, lock=copy_lock_key(job.name))
    return f"{message} ({time.monotonic() - started:.1f} s)"


def _copy(context: RunContext, job: CopyJob, connection: Connection, sql: CopySql) -> str:
    configure_for_batches(connection, context.limits)
    copier = Copier(context, job, connection, sql, state.take_over(connection, job.name, job.spec))
    copier.run()
    ledger.add_history(connection, context, job.name, f"copied {copier.done} rows, {copier.quarantined} quarantined")
    copier.report("", rate=None, remaining_seconds=None)
    quarantine = f", {copier.quarantined:,} in quarantine" if copier.quarantined else ""
    return f"{copier.done:,} of {copier.total:,} rows are copied and equal{quarantine}; changes are followed"


def retry(context: RunContext, job: CopyJob) -> str:
    """Try to copy the rows in quarantine again; returns a summary. Raises MigrationFailed, Interrupted."""

    def work(connection: Connection) -> str:
        copier = open_copy(context, job, connection)
        query = "SELECT key FROM session_rollout.quarantine WHERE copy = %s ORDER BY key"
        keys = [record[0] for record in execute(connection, query, (job.name,)).fetchall()]
        following = copier.record.state is CopyState.FOLLOWING
        statement = copier.sql.apply_beside_trigger if following else copier.sql.apply
        copied = sum(copier.apply(keys[start : start + KEY_BATCH], statement) for start in range(0, len(keys), KEY_BATCH))
        copier.quarantined = state.quarantined(connection, job.name)
        copier.done = state.copied(connection, copier.sql)
        state.update(connection, job.name, copier.record.epoch, done=copier.done)
        copier.report("")
        return f"{copied:,} of {len(keys):,} quarantined rows are copied, {copier.quarantined:,} remain in quarantine"

    return run_with_retries(context, work, lock=copy_lock_key(job.name))


def open_copy(context: RunContext, job: CopyJob, connection: Connection) -> Copier:
    """Take over a copy that has started. Raises MigrationFailed when it has not."""
    if state.read(connection, job.name) is None:
        raise not_started(job.name)
    configure_for_batches(connection, context.limits)
    sql = state.sql_of(connection, job.spec)
    return Copier(context, job, connection, sql, state.take_over(connection, job.name, job.spec))


def not_started(name: str) -> MigrationFailed:
    """The error of an operation that needs a copy which has started."""
    return MigrationFailed(f"the copy {name} has not started: run `up` first", FailureReason.COPY_NOT_STARTED)
