"""The commands `migrations ...`."""

import click

from session_rollout.adapters.kubectl import Kubectl
from session_rollout.api.enums import ActionType
from session_rollout.api.migration_enums import MigrationState, Operation
from session_rollout.cli.action_client import ActionOptions, act, action_options, confirm
from session_rollout.cli.command import Group, output
from session_rollout.cli.common import ROLLOUT, pass_kubectl, read_rollout
from session_rollout.cli.migration_records import MIGRATION, chosen_record, inspect, progress, records_of, show


@click.group("migrations", cls=Group)
def migrations() -> None:
    """Show, plan, retry and undo migrations."""


@migrations.command("status")
@ROLLOUT
@output()
@pass_kubectl
def status(kubectl: Kubectl, name: str | None, form: str | None) -> None:
    """Show the state, phase and progress of every migration."""
    rollout = read_rollout(kubectl, name)
    show(rollout, records_of(rollout), form)


@migrations.command("plan")
@MIGRATION
@ROLLOUT
@pass_kubectl
def plan(kubectl: Kubectl, migration: str | None, name: str | None) -> None:
    """Run the pending SQL steps of MIGRATION in a transaction that is rolled back; print their SQL and locks."""
    rollout = read_rollout(kubectl, name)
    inspect(kubectl, rollout, chosen_record(rollout, migration), Operation.PLAN)


@migrations.command("up")
@MIGRATION
@ROLLOUT
@action_options()
@pass_kubectl
def up(kubectl: Kubectl, migration: str | None, *, name: str | None, options: ActionOptions) -> None:
    """Retry MIGRATION, or every migration that failed. Pending migrations start automatically in their phase."""
    rollout = read_rollout(kubectl, name)
    records = [chosen_record(rollout, migration)] if migration is not None else records_of(rollout)
    failed = [record for record in records if record.state is MigrationState.FAILED]
    if not failed:
        show(rollout, records, options.form)
        click.echo("No migration has failed; each starts automatically in its phase.", err=True)
    for record in failed:
        click.echo(f"Retrying {record.name}: {record.message}", err=True)
        act(kubectl, rollout.name, ActionType.RETRY_MIGRATION, options, migration=record.name)


@migrations.command("down")
@MIGRATION
@ROLLOUT
@action_options(reason=True, confirms=True)
@pass_kubectl
def down(kubectl: Kubectl, migration: str | None, *, name: str | None, options: ActionOptions) -> None:
    """Undo MIGRATION, newest SQL step first, after the rollout has been rolled back or aborted.

    The undo fails if it would drop tables or columns that contain data, unless `rollback.allowDataLoss` is set.
    """
    rollout = read_rollout(kubectl, name)
    record = chosen_record(rollout, migration)
    state = ", ".join((record.state, *progress(record)))
    confirm([f"Undoing migration {record.name} ({state})."], "Undo?", yes=options.yes)
    act(kubectl, rollout.name, ActionType.MIGRATE_DOWN, options, migration=record.name)
