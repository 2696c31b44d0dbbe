"""Looking without touching: what is applied, what has drifted, and which locks a step would take."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import psycopg

from session_rollout.migrations import catalog, ledger
from session_rollout.migrations.bundle import Step, concurrent
from session_rollout.migrations.database import Connection, MigrationFailed, Target, execute, persist, settings, words
from session_rollout.migrations.lint import lint
from session_rollout.migrations.locks import Lock, locks_of
from session_rollout.migrations.schema import Bundle

DRY_LOCK_TIMEOUT: Final = timedelta(milliseconds=100)
DRY_TRIES: Final = 20


@dataclass(frozen=True)
class Planned:
    """A step that is not applied."""

    file: str
    sql: str
    locks: tuple[Lock, ...]
    findings: tuple[str, ...]


def plan(target: Target, bundle: Bundle) -> list[Planned]:
    """Run what is not applied in a transaction that is rolled back, and read which tables it locked how strongly.

    Raises MigrationFailed with file, line and the database's words when a step would fail.
    """

    def work(connection: Connection) -> list[Planned]:
        for attempt in range(DRY_TRIES):
            try:
                with connection.transaction(force_rollback=True):
                    settings(connection, lock_timeout=DRY_LOCK_TIMEOUT, statement_timeout=target.limits.statement_timeout)
                    return [_planned(connection, bundle, step) for step in _pending(connection, bundle)]
            except psycopg.errors.LockNotAvailable:
                target.reporter.waits(f"a lock, attempt {attempt + 1}")
        raise MigrationFailed(f"no lock in {DRY_TRIES} attempts of {DRY_LOCK_TIMEOUT}: try when the database is quieter")

    return persist(target, work)


def _pending(connection: Connection, bundle: Bundle) -> list[Step]:
    applied = {entry.version for entry in ledger.entries(connection, bundle.name)}
    return [step for step in bundle.steps if step.version not in applied]


def _planned(connection: Connection, bundle: Bundle, step: Step) -> Planned:
    findings = tuple(str(one) for one in lint(bundle.steps, bundle.change) if one.file == step.file)
    if concurrent(step.up):
        return Planned(step.file, step.up, locks_of((step,))[step.file], findings)
    there, held = catalog.tables(connection), dict[str, str]()
    held = catalog.locks(connection, there)
    try:
        execute(connection, step.up)
    except psycopg.errors.LockNotAvailable:
        raise
    except psycopg.Error as error:
        raise MigrationFailed(f"{step.file}: {words(error)}") from error
    taken = catalog.locks(connection, there)
    locks = (Lock.of(table, mode) for table, mode in sorted(taken.items()) if held.get(table) != mode)
    return Planned(step.file, step.up, tuple(locks), findings)


def status(target: Target, bundle: Bundle) -> dict[str, Any]:
    """Every step with its state, and what has drifted, as JSON-ready data."""

    def work(connection: Connection) -> dict[str, Any]:
        entries = ledger.entries(connection, bundle.name)
        return {"bundle": bundle.name, "steps": _states(bundle, entries), "drift": _drift(connection, entries)}

    return persist(target, work)


def _states(bundle: Bundle, entries: tuple[ledger.Entry, ...]) -> list[dict[str, Any]]:
    applied, states = {entry.version: entry for entry in entries}, list[dict[str, Any]]()
    for step in bundle.steps:
        entry = applied.pop(step.version, None)
        if entry is None:
            states.append({"step": step.file.removesuffix(".up.sql"), "state": "Pending"})
            continue
        state = {"building": "Building"}.get(entry.state, "Applied" if entry.checksum == step.checksum else "Changed")
        states.append(_described(entry, state))
    return [*states, *(_described(entry, "NotInBundle") for entry in applied.values())]


def _described(entry: ledger.Entry, state: str) -> dict[str, Any]:
    return {
        "step": entry.title,
        "state": state,
        "appliedAt": entry.applied_at,
        "appliedBy": entry.applied_by,
        "durationMilliseconds": entry.duration_ms,
        "pointOfNoReturn": entry.no_return,
    }


def _drift(connection: Connection, entries: tuple[ledger.Entry, ...]) -> list[str]:
    """What the applied steps made and is no longer so, and every index that is not valid."""
    expected: set[str] = set()
    for entry in entries:
        expected = (expected - set(entry.removed)) | set(entry.added)
    missing = sorted(expected - catalog.lines(connection))
    invalid = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
    broken = [f"invalid: index {found[0]}" for found in execute(connection, invalid).fetchall()]
    return [*(f"gone or changed: {line}" for line in missing), *broken]
