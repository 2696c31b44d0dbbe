"""Migrations of a rollout on the command line: how one is chosen, shown and inspected."""

from collections.abc import Iterator, Sequence

import click

from session_rollout.adapters.kubectl import Kubectl
from session_rollout.api.enums import ActionReason, ActionType
from session_rollout.api.migration_enums import MigrationState, Operation
from session_rollout.api.rollout import SessionRollout
from session_rollout.api.status_records import MigrationRecord
from session_rollout.cli.action_client import INSPECTION_TIMEOUT, action_spec, send
from session_rollout.cli.command import emit, refusal, usage_error
from session_rollout.cli.common import listed, print_table
from session_rollout.cli.render.status import migration_figures

MIGRATION = click.argument("migration", required=False)
COLUMNS = ("MIGRATION", "STATE", "OPERATION", "PHASE", "PROGRESS", "MESSAGE")


def records_of(rollout: SessionRollout) -> list[MigrationRecord]:
    """The migrations of the spec, each with its record in status or as Pending."""
    known = {record.name: record for record in rollout.status.migrations}
    names = [migration.name for migration in rollout.spec.migrations]
    return [known.get(name, MigrationRecord(name=name)) for name in names]


def chosen_record(rollout: SessionRollout, name: str | None, *, moves_rows: bool = False) -> MigrationRecord:
    """The named migration, or the only one (of those that copy rows). Raises Failure when there is none."""
    records = records_of(rollout)
    if not records:
        raise refusal(f"{rollout.name} has no migrations")
    if name is not None:
        records = [record for record in records if record.name == name]
        if not records:
            known = listed([record.name for record in records_of(rollout)])
            raise usage_error(f"there is no migration {name}; migrations of {rollout.name}: {known}")
        return records[0]
    candidates = [record for record in records if not moves_rows or _moves_rows(record)] or records
    if len(candidates) > 1:
        names = listed([record.name for record in candidates])
        raise usage_error(f"MIGRATION is required, because there are several: {names}")
    return candidates[0]


def _moves_rows(record: MigrationRecord) -> bool:
    return record.total is not None or record.backup_time is not None


def show(rollout: SessionRollout, records: Sequence[MigrationRecord], form: str | None) -> None:
    """Print migrations with the phase that runs them."""
    if form:
        emit([record.to_wire() for record in records], form)
        return
    if not records:
        click.echo(f"{rollout.name} has no migrations")
        return
    phases = {name: phase.name for phase in rollout.spec.phases for name in phase.migrations.names}
    print_table(COLUMNS, [_row(record, phases.get(record.name, "")) for record in records])


def _row(record: MigrationRecord, phase: str) -> tuple[str, ...]:
    operation = "" if record.state is MigrationState.PENDING else record.operation
    return record.name, record.state, operation, phase, ", ".join(progress(record)), record.message


def progress(record: MigrationRecord) -> Iterator[str]:
    """How far a migration is, and what matters for undoing it."""
    yield from migration_figures(record)
    if record.backup_time is not None:
        yield f"snapshot of {record.backup_time:%Y-%m-%d %H:%M:%S}"
    if record.point_of_no_return is not None:
        yield f"point of no return {record.point_of_no_return.lower()}"


def inspect(kubectl: Kubectl, rollout: SessionRollout, record: MigrationRecord, operation: Operation) -> None:
    """Run a Job that only reads the migration, and print its output. Raises Failure when the Job failed."""
    spec = action_spec(rollout.name, ActionType.INSPECT_MIGRATION, migration=record.name, operation=operation)
    status = send(kubectl, spec, INSPECTION_TIMEOUT).status
    if status.reason is ActionReason.FAILED:
        raise refusal(status.message)
    click.echo(status.output or status.message)
