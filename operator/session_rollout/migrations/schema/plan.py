"""`plan`: runs the pending steps in a transaction that is rolled back, and reports their SQL, locks and findings."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import psycopg

from session_rollout.api.migration_enums import FailureReason
from session_rollout.errors import MigrationFailed
from session_rollout.migrations import ledger
from session_rollout.migrations.connection import Connection, RunContext, database_message, execute, set_timeouts
from session_rollout.migrations.retry import run_with_retries
from session_rollout.migrations.schema import catalog
from session_rollout.migrations.schema.bundle import Bundle, Step, is_concurrent
from session_rollout.migrations.schema.lint import lint, may_remove, removal_message
from session_rollout.migrations.schema.locks import Lock, locks_of

PLAN_LOCK_TIMEOUT: Final = timedelta(milliseconds=100)
PLAN_ATTEMPTS: Final = 20


@dataclass(frozen=True)
class PlannedStep:
    """A step that is not applied."""

    file: str
    sql: str
    locks: tuple[Lock, ...]  # on tables that exist before the step
    findings: tuple[str, ...]  # of `lint`


def plan(context: RunContext, bundle: Bundle) -> list[PlannedStep]:
    """The pending steps with the table locks they take; the database is not changed.

    Raises MigrationFailed with file, line and the message of the database when a step would fail, or without a lock.
    """

    def work(connection: Connection) -> list[PlannedStep]:
        for attempt in range(PLAN_ATTEMPTS):
            try:
                with connection.transaction(force_rollback=True):
                    timeout = context.limits.statement_timeout
                    set_timeouts(connection, lock_timeout=PLAN_LOCK_TIMEOUT, statement_timeout=timeout)
                    return [_planned(connection, bundle, step) for step in _pending(connection, bundle)]
            except psycopg.errors.LockNotAvailable:
                context.reporter.wait_for(f"a lock, attempt {attempt + 1} of {PLAN_ATTEMPTS}")
        message = f"no lock in {PLAN_ATTEMPTS} attempts of 100 ms; try again when the database is less busy"
        raise MigrationFailed(message, FailureReason.LOCK_TIMEOUT)

    return run_with_retries(context, work)


def _pending(connection: Connection, bundle: Bundle) -> list[Step]:
    applied = {entry.version for entry in ledger.entries(connection, bundle.name)}
    return [step for step in bundle.steps if step.version not in applied]


def _planned(connection: Connection, bundle: Bundle, step: Step) -> PlannedStep:
    findings = tuple(str(finding) for finding in lint(bundle.steps, bundle.change) if finding.file == step.file)
    if is_concurrent(step.up):
        return PlannedStep(step.file, step.up, locks_of((step,))[step.file], findings)
    existing, before = catalog.tables(connection), catalog.holders(connection)
    held = catalog.locks(connection, existing)
    try:
        execute(connection, step.up)
    except psycopg.errors.LockNotAvailable:
        raise
    except psycopg.Error as error:
        raise MigrationFailed(f"{step.file}: {database_message(error)}", FailureReason.STEP_FAILED) from error
    taken = catalog.locks(connection, existing)
    locks = (Lock.of(table, mode) for table, mode in sorted(taken.items()) if held.get(table) != mode)
    gone = [] if may_remove(step.up, bundle.change) else catalog.removed(before, catalog.holders(connection))
    if gone:
        findings = (*findings, removal_message(step.file, gone))
    return PlannedStep(step.file, step.up, tuple(locks), findings)
