"""Applies bundles of SQL exactly once, and undoes them.

Each step is one transaction that holds the change and its ledger row, so there is no half state to repair. A step waits
for locks only as long as `lock_timeout`, then lets others pass and tries again: it never queues in front of the
application. An index that is built CONCURRENTLY runs outside a transaction: the ledger says so before, and what a crash
leaves of it is finished or removed by the next attempt.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import psycopg

from session_rollout.migrations import catalog, ledger
from session_rollout.migrations.bundle import Step, concurrent
from session_rollout.migrations.database import (
    LOCK_KEY,
    Connection,
    Interrupted,
    MigrationFailed,
    Patience,
    Target,
    execute,
    ladder,
    passing,
    persist,
    row,
    settings,
    watched,
    words,
)
from session_rollout.migrations.ledger import Effect, Entry
from session_rollout.migrations.lint import lint

Undone = Sequence[tuple[str, str]]  # down files and their SQL, in the order in which they run
LOSS_ALLOWED: Final = "data loss is allowed (`rollback.allowDataLoss`, `--allow-data-loss`)"
NONE: Final = timedelta(0)
_INDEX: Final = re.compile(
    r"(?P<verb>CREATE|DROP)\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?(?P<name>[\w.\"]+)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Bundle:
    """A bundle as it is to be applied."""

    name: str  # in the ledger
    steps: tuple[Step, ...]
    change: str = "Expand"


def up(target: Target, bundle: Bundle) -> str:
    """Apply every step that the ledger does not have; what was done, in words. Raises MigrationFailed, Interrupted."""
    begun, done = time.monotonic(), 0
    _refuse_findings(bundle)

    def work(connection: Connection) -> None:
        nonlocal done
        ledger.ready(connection)
        for step in _missing(connection, bundle):
            target.reporter.tell(message=f"{step.file} runs", now=True)
            _apply(target, connection, bundle.name, step)
            done += 1
            target.progress += 1

    persist(target, work, lock=LOCK_KEY)
    count = len(bundle.steps)
    if not done:
        return f"already applied: {count} steps"
    return f"{done} of {count} steps applied in {time.monotonic() - begun:.1f} s"


def _refuse_findings(bundle: Bundle) -> None:
    if findings := lint(bundle.steps, bundle.change):
        more = f", and {len(findings) - 1} more" if len(findings) > 1 else ""
        raise MigrationFailed(f"{findings[0]}{more}")


def _missing(connection: Connection, bundle: Bundle) -> list[Step]:
    applied = {entry.version: entry for entry in ledger.entries(connection, bundle.name)}
    _refuse_changed(bundle.steps, applied)
    return [step for step in bundle.steps if step.version not in applied or applied[step.version].state == "building"]


def _refuse_changed(steps: tuple[Step, ...], applied: dict[int, Entry]) -> None:
    known = {step.version: step for step in steps}
    for version, entry in applied.items():
        step = known.get(version)
        if step is None:
            raise MigrationFailed(f"{entry.title} is applied, and this bundle does not have it: a newer one was here")
        if step.checksum != entry.checksum:
            raise MigrationFailed(f"{step.file} was changed after it was applied; a change must be a new step")


def _apply(target: Target, connection: Connection, bundle: str, step: Step) -> None:
    if not concurrent(step.up):
        _in_transaction(
            target, connection, step.file, step.up, lambda effect: ledger.enter(connection, target, bundle, step, effect)
        )
        return
    ledger.announce(connection, target, bundle, step)
    before = catalog.lines(connection)
    effect = _outside(target, connection, step.file, step.up)
    after = catalog.lines(connection)
    effect = Effect(effect.begun, effect.tries, tuple(sorted(after - before)), tuple(sorted(before - after)))
    with connection.transaction():
        ledger.enter(connection, target, bundle, step, effect)


# --- in one transaction


def _in_transaction(
    target: Target, connection: Connection, file: str, text: str, record: Callable[[Effect], None], *, losing: Undone = ()
) -> None:
    """Run a step and its ledger entry in one transaction; step back and try again when a lock is not to be had."""
    patience, begun = Patience(target, target.limits.lock_deadline), time.monotonic()
    while True:
        try:
            with watched(target, connection) as seen, connection.transaction():
                lock_timeout = ladder(target.limits, patience.attempt)
                settings(connection, lock_timeout=lock_timeout, statement_timeout=target.limits.statement_timeout)
                before = catalog.lines(connection)
                if losing:
                    _refuse_loss(connection, losing)
                execute(connection, text)
                after = catalog.lines(connection)
                changed = tuple(sorted(after - before)), tuple(sorted(before - after))
                record(Effect(begun, patience.attempt + 1, *changed))
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            _step_back(target, patience, file, seen.blocker or words(error))
        except psycopg.Error as error:
            if passing(error) and not isinstance(error, psycopg.errors.QueryCanceled):
                raise
            if target.stopping.is_set():
                raise Interrupted("told to end") from error
            raise _fault(error, file, text) from error
        else:
            return


def _step_back(target: Target, patience: Patience, file: str, blocker: str) -> None:
    try:
        patience.wait(f"{file}: {blocker}")
    except Interrupted as error:
        if target.stopping.is_set():
            raise
        raise MigrationFailed(f"{file}: no lock within {target.limits.lock_deadline}: {blocker}") from error


def _refuse_loss(connection: Connection, undone: Undone) -> None:
    """Try the steps in this order, see what is gone, take it back, and refuse when that held data."""
    gone = []
    with connection.transaction(force_rollback=True):
        for file, text in undone:
            before = catalog.holders(connection)
            _try(connection, file, text)
            gone.append((file, before - catalog.holders(connection)))
    for file, what in gone:
        if found := catalog.data_in(connection, what):
            raise MigrationFailed(f"{file} would destroy {', '.join(found)}: it is refused unless {LOSS_ALLOWED}")


def _try(connection: Connection, file: str, text: str) -> None:
    try:
        execute(connection, text)
    except psycopg.Error as error:
        if passing(error):
            raise
        raise _fault(error, file, text) from error


def _fault(error: psycopg.Error, file: str, text: str) -> MigrationFailed:
    """The database's own words, with the line of the file."""
    position = error.diag.statement_position
    line = f" line {text.count(chr(10), 0, int(position)) + 1}" if position else ""
    return MigrationFailed(f"{file}{line}: {words(error)}")


# --- outside a transaction


def _outside(target: Target, connection: Connection, file: str, text: str) -> Effect:
    """Build or drop an index concurrently. No lock time-out: it blocks nobody, and a short one leaves an invalid index."""
    found = _INDEX.search(text)
    if found is None:
        raise MigrationFailed(f"{file}: of what runs CONCURRENTLY only CREATE INDEX and DROP INDEX are supported")
    patience, begun = Patience(target, target.limits.lock_deadline), time.monotonic()
    creates, name = found["verb"].upper() == "CREATE", found["name"]
    while _index(connection, name) is not (True if creates else None):
        try:
            if creates and _index(connection, name) is False:
                _run_alone(target, connection, f"DROP INDEX CONCURRENTLY IF EXISTS {name}")  # what a crash has left
            _run_alone(target, connection, text)
        except (psycopg.errors.QueryCanceled, psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable) as error:
            _step_back(target, patience, file, words(error))
        except psycopg.Error as error:
            if passing(error):
                raise
            raise _fault(error, file, text) from error
    return Effect(begun, patience.attempt + 1)


def _index(connection: Connection, name: str) -> bool | None:
    """Whether the index is valid; None when there is none."""
    found = row(connection, "SELECT i.indisvalid FROM pg_index i WHERE i.indexrelid = to_regclass(%s)", name)
    return None if found is None else bool(found[0])


def _run_alone(target: Target, connection: Connection, text: str) -> None:
    settings(connection, local=False, lock_timeout=NONE, statement_timeout=NONE)
    try:
        with watched(target, connection, deadline=target.limits.lock_deadline):
            execute(connection, text)
    finally:
        if not connection.closed:
            execute(connection, "RESET lock_timeout; RESET statement_timeout")


# --- back


def down(target: Target, bundle: Bundle, *, to: int = 0, allow_data_loss: bool = False) -> str:
    """Undo every step above `to` that the ledger has, newest first, with the SQL that was stored when it was applied.

    Refuses what was declared as not to be undone, and what would destroy data unless that is allowed.
    Raises MigrationFailed, Interrupted.
    """
    begun, done = time.monotonic(), 0

    def work(connection: Connection) -> None:
        nonlocal done
        entries = [entry for entry in ledger.entries(connection, bundle.name) if entry.version > to]
        _refuse_no_return(entries)
        if not allow_data_loss:
            _refuse_any_loss(target, connection, [(_undoing(entry), entry.down) for entry in reversed(entries)])
        for entry in reversed(entries):
            target.reporter.tell(message=f"{_undoing(entry)} runs", now=True)
            _undo(target, connection, bundle.name, entry, keep_data=not allow_data_loss)
            done += 1
            target.progress += 1

    persist(target, work, lock=LOCK_KEY)
    return f"{done} steps undone in {time.monotonic() - begun:.1f} s" if done else "nothing to undo"


def _refuse_no_return(entries: list[Entry]) -> None:
    if passed := [entry.title for entry in entries if entry.no_return]:
        raise MigrationFailed(f"{passed[0]} was declared as the point of no return, and it is applied: it cannot be undone")


def _undoing(entry: Entry) -> str:
    return f"{entry.title}.down.sql"


def _refuse_any_loss(target: Target, connection: Connection, undone: list[tuple[str, str]]) -> None:
    """Refuse before the first step is undone what a later one would destroy; an index holds no data."""
    if losing := [(file, text) for file, text in undone if not concurrent(text)]:
        _in_transaction(target, connection, losing[0][0], "SELECT", lambda _: None, losing=losing)


def _undo(target: Target, connection: Connection, bundle: str, entry: Entry, *, keep_data: bool) -> None:
    file = _undoing(entry)

    def forget(_: Effect) -> None:
        ledger.leave(connection, target, bundle, entry)

    if concurrent(entry.down):
        effect = _outside(target, connection, file, entry.down)
        with connection.transaction():
            forget(effect)
    elif entry.state == "building":
        raise MigrationFailed(f"{entry.title} was being built when its runner ended: run `up` first")
    else:
        losing = [(file, entry.down)] if keep_data else ()
        _in_transaction(target, connection, file, entry.down, forget, losing=losing)
