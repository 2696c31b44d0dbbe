"""Moves the rows of a copy while the application goes on: capture first, copy second, verify last.

Any attempt may be killed at any moment: a batch and its cursor are one transaction, everything else can be done twice.
See `capture` for how changes made meanwhile are found, `copysql` for the statements.
"""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from session_rollout.migrations import capture, copies, ledger, paced, preflight, verify
from session_rollout.migrations.copies import CopyRow, CopyState
from session_rollout.migrations.copyspec import Copy
from session_rollout.migrations.copysql import CopySql
from session_rollout.migrations.database import (
    Connection,
    MigrationFailed,
    Patience,
    Target,
    connect,
    execute,
    faulty_row,
    for_batches,
    lock_of,
    passing,
    patiently,
    persist,
    words,
)
from session_rollout.migrations.throttle import SMALLEST, Gentleness, Throttle, next_size

CHUNK: Final = 100  # keys of changes that are applied at once
DRAIN_SECONDS: Final = 2.0
RATE_SECONDS: Final = 10.0
CAREFUL_BATCHES: Final = 20
ROUNDS: Final = 20
DIFFERENCES_SHOWN: Final = 3


@dataclass(frozen=True)
class Job:
    """What to copy, under which name, how gently."""

    name: str
    copy: Copy
    gentleness: Gentleness = field(default_factory=Gentleness)
    free_space_query: str = ""


@dataclass
class Copier:
    """One runner of one copy on one connection."""

    target: Target
    job: Job
    connection: Connection
    sql: CopySql
    state: CopyRow
    throttle: Throttle = field(init=False)
    patience: Patience = field(init=False)
    samples: deque[tuple[float, int]] = field(default_factory=deque)
    careful: int = 0
    drained: float = 0.0

    def __post_init__(self) -> None:
        self.throttle = Throttle(self.target, self.connection, self.job.name, self.sql, self.job.gentleness)
        self.patience = Patience(self.target, self.target.limits.lock_deadline)
        self.cursor, self.done, self.total, self.size = self.state.cursor, self.state.done, self.state.total, self.state.batch
        self.quarantined = copies.quarantined(self.connection, self.job.name)

    # --- the way

    def run(self) -> None:
        """From wherever it is to following. Raises MigrationFailed, Interrupted, psycopg.Error."""
        with connect(self.target.defining) as definer:
            paced.define(definer, self.sql, self.job.name)
        if self.state.state is CopyState.COPYING:
            self._begin()
            while self._step():
                pass
            self._note_moved()
            self.drain_all(self.sql.apply)
            self._follow()
        self.drain_all(self.sql.apply_beside_trigger)
        self._agree()

    def _begin(self) -> None:
        """Record changes from here on; nothing that is read later can be missed."""
        with connect(self.target.defining) as definer:
            capture.replace(definer, self.sql, self.job.name, capture.RECORDING)
            if not capture.installed(definer, self.sql, self.job.name):
                patiently(self.target, definer, "the trigger", capture.install_text(self.sql, self.job.name))
        if self.total == 0:
            self.total = copies.total(self.connection, self.sql)
            copies.change(self.connection, self.job.name, self.state.epoch, total=self.total)
        self._tell(f"moving rows of {self.job.copy.source}")

    def _note_moved(self) -> None:
        query = "UPDATE session_rollout.copies SET moved_at = coalesce(moved_at, clock_timestamp()) WHERE name = %s"
        execute(self.connection, query, (self.job.name,))

    # --- batches

    def _step(self) -> bool:
        """One batch; whether there may be more."""
        begun = time.monotonic()
        try:
            read = self._careful_batch() if self.careful else self._batch()
        except psycopg.Error as error:
            self._overcome(error)
            return True
        worked = time.monotonic() - begun
        self._progressed()
        self.size = next_size(self.size, worked)
        self._tell_progress(worked)
        if read:
            self.throttle.look()
            self._drain_sometimes()
        return read > 0

    def _progressed(self) -> None:
        self.patience.reset()
        self.target.progress += 1

    def _overcome(self, error: psycopg.Error) -> None:
        """A row at fault: look closely for a while. Anything that passes: smaller batches, later."""
        if faulty_row(error):
            self.careful = CAREFUL_BATCHES
        elif passing(error) and not self.connection.closed and not self.connection.broken:
            self.size = SMALLEST
            self.patience.wait(words(error))
        else:
            raise error

    def _batch(self) -> int:
        duty = self.job.gentleness.duty
        slice_ = paced.MOVE_SLICE if duty < 1 else self.size
        query = f"SELECT read, moved, bad, last FROM {paced.move_name(self.job.name)}(%s, %s, %s, %s, %s)"
        values = (self.job.name, self.state.epoch, self.size, duty, slice_)
        found = execute(self.connection, query, values).fetchone()
        if found is None:
            return self._check_epoch()
        read, moved, bad, self.cursor = found
        self.done, self.quarantined = self.done + moved, self.quarantined + bad
        return int(read)

    def _careful_batch(self) -> int:
        """The same rows key by key in effect: those that cannot be moved are found and set aside."""
        query = self.sql.keys(first=self.cursor is None)
        keys = [found[0] for found in execute(self.connection, query, {"cursor": self.cursor, "size": self.size}).fetchall()]
        if not keys:
            return self._check_epoch()
        moved = self.apply(keys, self.sql.apply)
        self.cursor, self.done, self.careful = keys[-1], self.done + moved, self.careful - 1
        copies.change(self.connection, self.job.name, self.state.epoch, cursor=self.cursor, done=self.done)
        self.quarantined = copies.quarantined(self.connection, self.job.name)
        return len(keys)

    def _check_epoch(self) -> int:
        copies.change(self.connection, self.job.name, self.state.epoch, batch=self.size)  # raises when it is not ours any more
        return 0

    def _run(self, query: str, **values: object) -> Any:
        parameters = {"name": self.job.name, "epoch": self.state.epoch, **values}
        return execute(self.connection, query, parameters).fetchone()

    # --- by key

    def apply(self, keys: list[str], statement: str) -> int:
        """Make the target agree with the source for these keys; how many were moved. A row at fault is set aside."""
        if not keys:
            return 0
        try:
            found = self._run(statement, keys=keys)
        except psycopg.Error as error:
            if not faulty_row(error):
                raise
            return self._halve(keys, statement, error)
        if found is None:
            raise MigrationFailed("another runner has taken over")
        self._forget_changes(keys, found[3] or [])
        return int(found[0])

    def _halve(self, keys: list[str], statement: str, error: psycopg.Error) -> int:
        if len(keys) > 1:
            middle = len(keys) // 2
            return self.apply(keys[:middle], statement) + self.apply(keys[middle:], statement)
        self._set_aside(keys[0], error)
        self._forget_changes(keys, [])
        return 0

    def _set_aside(self, key: str, error: psycopg.Error) -> None:
        execute(
            self.connection,
            "INSERT INTO session_rollout.quarantine (copy, key, reason) VALUES (%s, %s, %s) ON CONFLICT (copy, key) DO UPDATE"
            " SET reason = excluded.reason, attempts = quarantine.attempts + 1, last_at = now()",
            (self.job.name, key, f"{words(error)} (SQLSTATE {error.sqlstate})"),
        )
        execute(
            self.connection,
            f"DELETE FROM {self.sql.target} t WHERE t.{self.sql.key} = %(key)s::{self.sql.key_type} AND ({self.sql.copy.ours})",
            {"key": key},
        )

    def _forget_changes(self, keys: list[str], locked: list[str]) -> None:
        """Of the changes that were read before, those that are applied now."""
        done = set(keys) - set(locked)
        if places := [place for place, key in self._taken if key in done]:
            query = "DELETE FROM session_rollout.changes WHERE ctid = ANY(%s::tid[]) AND key = ANY(%s)"
            execute(self.connection, query, (places, list(done)))

    _taken: tuple[tuple[str, str], ...] = ()  # where the changes are that are being applied, and their keys

    # --- changes made meanwhile

    def _drain_sometimes(self) -> None:
        if time.monotonic() - self.drained > DRAIN_SECONDS:
            self.drained = time.monotonic()
            self._drop_changes_ahead()
            self._drain(self.sql.apply)

    def _drop_changes_ahead(self) -> None:
        """A changed row that was not reached yet will be read as it is then."""
        execute(
            self.connection,
            f"DELETE FROM session_rollout.changes WHERE copy = %(name)s AND key <> '*'"
            f" AND key::{self.sql.key_type} > %(cursor)s::{self.sql.key_type}",
            {"name": self.job.name, "cursor": self.cursor},
        )

    def _drain(self, statement: str) -> int:
        """Apply some changes; how many were there."""
        query = "SELECT ctid::text, key FROM session_rollout.changes WHERE copy = %s LIMIT %s"
        self._taken = tuple(execute(self.connection, query, (self.job.name, CHUNK)).fetchall())
        try:
            keys = {key for _, key in self._taken}
            if "*" in keys:
                self._forget_all_that_is_gone()
                keys.discard("*")
            self.apply(sorted(keys), statement)
            return len(self._taken)
        finally:
            self._taken = ()  # a place may be used again once its change is deleted

    def _forget_all_that_is_gone(self) -> None:
        """The source was truncated."""
        execute(
            self.connection,
            f"DELETE FROM {self.sql.target} t WHERE ({self.sql.copy.ours})"
            f" AND NOT EXISTS (SELECT FROM {self.sql.source} s WHERE s.{self.sql.key} = t.{self.sql.key})",
            {},
        )
        self._forget_changes(["*"], [])

    def drain_all(self, statement: str) -> None:
        """Until no more than a few changes wait; raises Interrupted when they do not become fewer."""
        while True:
            begun = time.monotonic()
            try:
                count = self._drain(statement)
            except psycopg.Error as error:
                if not passing(error) or self.connection.closed or self.connection.broken:
                    raise
                self.patience.wait(words(error))
                continue
            if count < CHUNK:
                return
            self._tell("applying changes made meanwhile")
            self.throttle.rest(time.monotonic() - begun)

    # --- the end of copying

    def _follow(self) -> None:
        """Let the trigger apply changes itself; those of transactions that are under way are still recorded."""
        source = self.job.copy.source
        with connect(self.target.defining) as definer:
            capture.replace(definer, self.sql, self.job.name, capture.FOLLOWING)
        before = capture.writers(self.connection, source)
        while left := before.keys() & capture.writers(self.connection, source).keys():
            self.patience.wait(f"a transaction that changed {source} and is still open: pid {before[min(left)]}")
        self._progressed()
        copies.change(self.connection, self.job.name, self.state.epoch, state=CopyState.FOLLOWING)

    def _agree(self) -> None:
        """Compare all rows, put right what differs, and end only when nothing does."""
        for _ in range(ROUNDS):
            self.drain_all(self.sql.apply_beside_trigger)
            differing = verify.differing(self.connection, self.job.name, self.job.gentleness.duty, self._compared)
            if not differing:
                break
            self.apply([key for key, _ in differing], self.sql.apply_beside_trigger)
            self.target.stopping.wait(0.1)
        else:
            shown = ", ".join(f"{key} {what}" for key, what in differing[:DIFFERENCES_SHOWN])
            raise MigrationFailed(f"{len(differing)} rows differ and cannot be made equal: {shown}")
        self.done, self.total = copies.both(self.connection, self.sql)
        self.quarantined = copies.quarantined(self.connection, self.job.name)
        copies.change(self.connection, self.job.name, self.state.epoch, done=self.done, total=self.total)

    def _compared(self) -> None:
        self._tell("comparing all rows")
        self.throttle.look()

    # --- telling

    def _tell(self, message: str, **fields: Any) -> None:
        done = min(self.done, self.total)
        self.target.reporter.tell(
            message=message, done=done, total=self.total, quarantined=self.quarantined, following=True, **fields
        )

    def _tell_progress(self, worked: float) -> None:
        now = time.monotonic()
        self.samples.append((now - worked, self.done))
        while now - self.samples[0][0] > RATE_SECONDS:
            self.samples.popleft()
        since, before = self.samples[0]
        rate = round((self.done - before) / max(now - since, 0.001))
        left = max(self.total - self.done - self.quarantined, 0)
        remaining = {"remaining_seconds": round(left / rate)} if rate else {}
        self._tell(f"moving rows of {self.job.copy.source}", rate=rate, **remaining)


def up(target: Target, job: Job) -> str:
    """Move all rows and follow the source from then on; what was done, in words. Raises MigrationFailed, Interrupted."""
    begun = time.monotonic()

    def work(connection: Connection) -> str:
        with connect(target.defining) as definer:
            copies.ready(definer)
        sql = copies.sql_of(connection, job.copy)
        before = copies.find(connection, job.name)
        if before is not None and before.state is CopyState.FINISHED:
            return "already finished: the target is the truth"
        if before is not None and before.checksum != job.copy.checksum:
            raise MigrationFailed("copy.yaml was changed after the copy began: undo it with `down` first")
        if before is None:
            preflight.check(connection, sql, target, job.free_space_query)
        for_batches(connection, target.limits)
        copier = Copier(target, job, connection, sql, copies.take_over(connection, job.name, job.copy))
        copier.run()
        ledger.remember(connection, target, job.name, f"copied {copier.done} rows, {copier.quarantined} quarantined")
        copier._tell("", rate=None, remaining_seconds=None)  # noqa: SLF001 - one room
        aside = f", {copier.quarantined:,} in quarantine" if copier.quarantined else ""
        return f"{copier.done:,} of {copier.total:,} rows are moved and agree{aside}; changes are followed"

    message = persist(target, work, lock=lock_of(job.name))
    return f"{message} ({time.monotonic() - begun:.1f} s)"


def retry(target: Target, job: Job) -> str:
    """Try the rows in quarantine again; what came of it, in words. Raises MigrationFailed, Interrupted."""

    def work(connection: Connection) -> str:
        copier = open_copy(target, job, connection)
        query = "SELECT key FROM session_rollout.quarantine WHERE copy = %s ORDER BY key"
        keys = [found[0] for found in execute(connection, query, (job.name,)).fetchall()]
        following = copier.state.state is CopyState.FOLLOWING
        statement = copier.sql.apply_beside_trigger if following else copier.sql.apply
        moved = sum(copier.apply(keys[at : at + CHUNK], statement) for at in range(0, len(keys), CHUNK))
        copier.quarantined = copies.quarantined(connection, job.name)
        copier.done = copies.moved(connection, copier.sql)
        copies.change(connection, job.name, copier.state.epoch, done=copier.done)
        copier._tell("")  # noqa: SLF001 - one room
        return f"{moved:,} of {len(keys):,} rows are moved now, {copier.quarantined:,} stay in quarantine"

    return persist(target, work, lock=lock_of(job.name))


def open_copy(target: Target, job: Job, connection: Connection) -> Copier:
    """A copy that has begun, taken over by this runner. Raises MigrationFailed when it has not."""
    if copies.find(connection, job.name) is None:
        raise MigrationFailed(f"the copy {job.name} has not begun")
    for_batches(connection, target.limits)
    return Copier(
        target, job, connection, copies.sql_of(connection, job.copy), copies.take_over(connection, job.name, job.copy)
    )
