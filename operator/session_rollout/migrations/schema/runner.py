"""Applies bundles of SQL files exactly once, and undoes them.

Each step is one transaction that holds the change and its ledger row, so an interrupted step does not need to be repaired. A step
waits for locks only as long as the lock timeout, then lets other sessions pass and tries again, so it never queues in front of
the application. An index build with CONCURRENTLY runs outside a transaction: the ledger records it before it begins, and the
next attempt completes or removes what a crash has left.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import psycopg

from session_rollout.api.migration_enums import FailureReason
from session_rollout.api.quantities import format_duration
from session_rollout.errors import Interrupted, MigrationFailed
from session_rollout.migrations import ledger
from session_rollout.migrations.connection import (
    LOCK_KEY,
    Connection,
    RunContext,
    database_message,
    execute,
    fetch_row,
    is_transient,
    set_timeouts,
)
from session_rollout.migrations.ledger import Effect, Entry
from session_rollout.migrations.retry import Backoff, lock_timeout_of, run_with_retries, terminated, watch
from session_rollout.migrations.schema import catalog
from session_rollout.migrations.schema.bundle import Bundle, Step, is_concurrent, without_literals
from session_rollout.migrations.schema.lint import lint, may_remove, removal_message

ALLOW_DATA_LOSS: Final = "set `rollback.allowDataLoss` or use --allow-data-loss to allow it"
NO_TIMEOUT: Final = timedelta(0)
_INDEX: Final = re.compile(
    r"(?P<verb>CREATE|DROP)\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?(?P<name>[\w.\"]+)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Script:
    """SQL to run, and what it may do."""

    file: str
    text: str
    may_remove: bool = True  # whether tables and columns may be dropped or renamed

    @classmethod
    def up(cls, step: Step, change: str) -> "_Script":
        return cls(step.file, step.up, may_remove=may_remove(step.up, change))

    @classmethod
    def down(cls, entry: Entry) -> "_Script":
        return cls(f"{entry.title}.down.sql", entry.down)


# --- up


def up(context: RunContext, bundle: Bundle) -> str:
    """Apply every step that is not in the ledger; returns a summary. Raises MigrationFailed, Interrupted."""
    started, done = time.monotonic(), 0
    _refuse_findings(bundle)

    def work(connection: Connection) -> None:
        nonlocal done
        ledger.ensure(connection)
        for step in _pending(connection, bundle):
            context.reporter.update(message=f"applying {step.file}", now=True)
            _apply(context, connection, bundle, step)
            done += 1
            context.completed += 1

    run_with_retries(context, work, lock=LOCK_KEY)
    count = len(bundle.steps)
    if not done:
        return f"{count} SQL steps are already applied"
    return f"{done} of {count} SQL steps applied in {time.monotonic() - started:.1f} s"


def _refuse_findings(bundle: Bundle) -> None:
    if findings := lint(bundle.steps, bundle.change):
        more = f", and {len(findings) - 1} more" if len(findings) > 1 else ""
        raise MigrationFailed(f"{findings[0]}{more}", FailureReason.LINT_FAILED)


def _pending(connection: Connection, bundle: Bundle) -> list[Step]:
    applied = {entry.version: entry for entry in ledger.entries(connection, bundle.name)}
    _refuse_changed(bundle.steps, applied)
    return [step for step in bundle.steps if step.version not in applied or applied[step.version].state == "building"]


def _refuse_changed(steps: tuple[Step, ...], applied: dict[int, Entry]) -> None:
    known = {step.version: step for step in steps}
    for version, entry in applied.items():
        step = known.get(version)
        if step is None:
            message = f"{entry.title} is applied, but this bundle does not have it: it was applied by a newer version"
            raise MigrationFailed(message, FailureReason.BUNDLE_OUTDATED)
        if step.checksum != entry.checksum:
            message = f"{step.file} was changed after it was applied: put the change into a new SQL step"
            raise MigrationFailed(message, FailureReason.BUNDLE_CHANGED)


def _apply(context: RunContext, connection: Connection, bundle: Bundle, step: Step) -> None:
    script = _Script.up(step, bundle.change)
    if not is_concurrent(step.up):

        def record(effect: Effect) -> None:
            ledger.record_applied(connection, context, bundle.name, step, effect)

        _run_in_transaction(context, connection, script, record)
        return
    ledger.record_building(connection, context, bundle.name, step)
    before = catalog.lines(connection)
    effect = _with_changes(_run_outside(context, connection, script), before, catalog.lines(connection))
    with connection.transaction():
        ledger.record_applied(connection, context, bundle.name, step, effect)


def _with_changes(effect: Effect, before: frozenset[str], after: frozenset[str]) -> Effect:
    return replace(effect, added=tuple(sorted(after - before)), removed=tuple(sorted(before - after)))


# --- in one transaction


def _run_in_transaction(
    context: RunContext,
    connection: Connection,
    script: _Script,
    record: Callable[[Effect], None],
    *,
    keep_data: Sequence[_Script] = (),
) -> None:
    """Run a script and write its ledger entry in one transaction; roll back and retry when a lock is not granted.

    `keep_data` are scripts that must not destroy data, in the order in which they will run: they are tried first.
    """
    backoff, started = Backoff(context, context.limits.lock_deadline), time.monotonic()
    while True:
        try:
            with watch(context, connection) as watcher, connection.transaction():
                lock_timeout = lock_timeout_of(context.limits, backoff.attempt)
                set_timeouts(connection, lock_timeout=lock_timeout, statement_timeout=context.limits.statement_timeout)
                before = catalog.lines(connection)
                if keep_data:
                    _refuse_data_loss(connection, keep_data)
                _execute_guarded(connection, script)
                record(_with_changes(Effect(started, backoff.attempt + 1), before, catalog.lines(connection)))
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            _back_off(context, backoff, script.file, watcher.blocker or database_message(error))
        except psycopg.Error as error:
            if is_transient(error) and not isinstance(error, psycopg.errors.QueryCanceled):
                raise
            if context.stopping.is_set():
                raise terminated() from error
            raise _step_failed(error, script) from error
        else:
            return


def _execute_guarded(connection: Connection, script: _Script) -> None:
    """Run a script; fail in its own transaction when a table or column is missing afterwards that it must keep.

    The lint rules match patterns and can be passed by accident; the catalog cannot.
    """
    before = catalog.holders(connection)
    execute(connection, script.text)
    if not script.may_remove and (gone := catalog.removed(before, catalog.holders(connection))):
        raise MigrationFailed(removal_message(script.file, gone), FailureReason.DATA_LOSS)


def _back_off(context: RunContext, backoff: Backoff, file: str, blocker: str) -> None:
    try:
        backoff.wait(f"{file}: {blocker}")
    except Interrupted as error:
        if context.stopping.is_set():
            raise
        message = f"{file}: no lock within {format_duration(context.limits.lock_deadline)}: {blocker}"
        raise MigrationFailed(message, FailureReason.LOCK_TIMEOUT) from error


def _refuse_data_loss(connection: Connection, scripts: Sequence[_Script]) -> None:
    """Run the scripts in a transaction that is rolled back; raises MigrationFailed if one removes something with data."""
    removals = []
    with connection.transaction(force_rollback=True):
        for script in scripts:
            before = catalog.holders(connection)
            _try(connection, script)
            removals.append((script.file, catalog.removed(before, catalog.holders(connection))))
    for file, gone in removals:
        if lost := catalog.data_in(connection, gone):
            message = f"{file} would destroy {', '.join(lost)}: {ALLOW_DATA_LOSS}"
            raise MigrationFailed(message, FailureReason.DATA_LOSS)


def _try(connection: Connection, script: _Script) -> None:
    try:
        execute(connection, script.text)
    except psycopg.Error as error:
        if is_transient(error):
            raise
        raise _step_failed(error, script) from error


def _step_failed(error: psycopg.Error, script: _Script) -> MigrationFailed:
    """The message of the database with the line of the file."""
    position = error.diag.statement_position
    line = f" line {script.text.count(chr(10), 0, int(position)) + 1}" if position else ""
    return MigrationFailed(f"{script.file}{line}: {database_message(error)}", FailureReason.STEP_FAILED)


# --- outside a transaction


def _run_outside(context: RunContext, connection: Connection, script: _Script) -> Effect:
    """Build or drop an index concurrently. Without a lock timeout: it does not block others, and a timeout would leave an invalid index."""
    match = _INDEX.match(without_literals(script.text).strip())
    if match is None:
        message = f"{script.file}: CONCURRENTLY is only supported in CREATE INDEX and DROP INDEX"
        raise MigrationFailed(message, FailureReason.UNSUPPORTED_STATEMENT)
    backoff, started = Backoff(context, context.limits.lock_deadline), time.monotonic()
    creates, name = match["verb"].upper() == "CREATE", match["name"]
    while _is_valid(connection, name) is not (True if creates else None):
        try:
            if creates and _is_valid(connection, name) is False:  # a crash has left it
                _run_alone(context, connection, f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            _run_alone(context, connection, script.text)
        except (psycopg.errors.QueryCanceled, psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable) as error:
            _back_off(context, backoff, script.file, database_message(error))
        except psycopg.Error as error:
            if is_transient(error):
                raise
            raise _step_failed(error, script) from error
    return Effect(started, backoff.attempt + 1)


def _is_valid(connection: Connection, index: str) -> bool | None:
    """Whether the index is valid; None when it does not exist."""
    query = "SELECT i.indisvalid FROM pg_index i WHERE i.indexrelid = to_regclass(%s)"
    record = fetch_row(connection, query, index)
    return None if record is None else bool(record[0])


def _run_alone(context: RunContext, connection: Connection, text: str) -> None:
    set_timeouts(connection, local=False, lock_timeout=NO_TIMEOUT, statement_timeout=NO_TIMEOUT)
    try:
        with watch(context, connection, deadline=context.limits.lock_deadline):
            execute(connection, text)
    finally:
        if not connection.closed:
            execute(connection, "RESET lock_timeout; RESET statement_timeout")


# --- down


def down(context: RunContext, bundle: Bundle, *, to: int = 0, allow_data_loss: bool = False) -> str:
    """Undo every applied step above number `to`, newest first, with the SQL that was stored when it was applied.

    Returns a summary. Raises Interrupted, and MigrationFailed for an irreversible step or, unless `allow_data_loss`, for one
    that would destroy data; nothing is undone then.
    """
    started, done = time.monotonic(), 0

    def work(connection: Connection) -> None:
        nonlocal done
        applied = [entry for entry in ledger.entries(connection, bundle.name) if entry.version > to]
        _refuse_irreversible(applied)
        if not allow_data_loss:
            _refuse_any_loss(context, connection, [_Script.down(entry) for entry in reversed(applied)])
        for entry in reversed(applied):
            context.reporter.update(message=f"running {_Script.down(entry).file}", now=True)
            _undo(context, connection, bundle.name, entry, keep_data=not allow_data_loss)
            done += 1
            context.completed += 1

    run_with_retries(context, work, lock=LOCK_KEY)
    return f"{done} SQL steps undone in {time.monotonic() - started:.1f} s" if done else "nothing to undo"


def _refuse_irreversible(applied: list[Entry]) -> None:
    if irreversible := [entry.title for entry in applied if entry.no_return]:
        message = f"{irreversible[0]} is applied and was declared as the point of no return: it cannot be undone"
        raise MigrationFailed(message, FailureReason.POINT_OF_NO_RETURN)


def _refuse_any_loss(context: RunContext, connection: Connection, scripts: list[_Script]) -> None:
    """Raise MigrationFailed before the first step is undone if any step would destroy data.

    Scripts that drop an index concurrently are not tried: an index does not contain data of its own.
    """
    if keep_data := [script for script in scripts if not is_concurrent(script.text)]:
        nothing = _Script(keep_data[0].file, "SELECT")
        _run_in_transaction(context, connection, nothing, lambda _: None, keep_data=keep_data)


def _undo(context: RunContext, connection: Connection, bundle: str, entry: Entry, *, keep_data: bool) -> None:
    script = _Script.down(entry)

    def record(_: Effect) -> None:
        ledger.record_undone(connection, context, bundle, entry)

    if is_concurrent(script.text):
        effect = _run_outside(context, connection, script)
        with connection.transaction():
            record(effect)
    elif entry.state == "building":
        message = f"the index of {entry.title} is incomplete because its build was interrupted: run `up` first"
        raise MigrationFailed(message, FailureReason.STEP_INCOMPLETE)
    else:
        _run_in_transaction(context, connection, script, record, keep_data=[script] if keep_data else ())
