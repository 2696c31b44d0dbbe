"""The commands `data ...`: the rows that a migration copies, and their snapshots."""

from datetime import datetime

import click

from session_rollout.adapters.kubectl import Kubectl
from session_rollout.api.enums import ActionType
from session_rollout.api.migration_enums import MigrationState, Operation
from session_rollout.cli.action_client import ActionOptions, act, action_options, action_spec, confirm, submit
from session_rollout.cli.command import Group, output
from session_rollout.cli.common import ROLLOUT, TimeType, pass_kubectl, read_rollout
from session_rollout.cli.migration_records import MIGRATION, chosen_record, inspect, show


@click.group("data", cls=Group)
def data() -> None:
    """Show, retry, repair, back up and restore the rows that a migration copies.

    MIGRATION can be omitted if exactly one migration copies rows.
    """


@data.command("status")
@MIGRATION
@ROLLOUT
@output()
@pass_kubectl
def status(kubectl: Kubectl, migration: str | None, name: str | None, form: str | None) -> None:
    """Show how many rows have been copied and how many are in quarantine.

    The command also shows whether changes in the source are still being applied to the target.
    """
    rollout = read_rollout(kubectl, name)
    show(rollout, [chosen_record(rollout, migration, moves_rows=True)], form)


@data.command("migrate")
@MIGRATION
@ROLLOUT
@action_options()
@pass_kubectl
def migrate(kubectl: Kubectl, migration: str | None, *, name: str | None, options: ActionOptions) -> None:
    """Show the copy, and retry it if it failed. The rollout starts the copy automatically in its phase."""
    rollout = read_rollout(kubectl, name)
    record = chosen_record(rollout, migration, moves_rows=True)
    if record.state is MigrationState.FAILED:
        act(kubectl, rollout.name, ActionType.RETRY_MIGRATION, options, migration=record.name)
    else:
        show(rollout, [record], options.form)


@data.command("retry")
@MIGRATION
@ROLLOUT
@action_options()
@pass_kubectl
def retry(kubectl: Kubectl, migration: str | None, *, name: str | None, options: ActionOptions) -> None:
    """Retry a failed copy, or its quarantined rows."""
    _change(kubectl, name, migration, ActionType.RETRY_MIGRATION, options)


@data.command("repair")
@MIGRATION
@ROLLOUT
@action_options()
@pass_kubectl
def repair(kubectl: Kubectl, migration: str | None, *, name: str | None, options: ActionOptions) -> None:
    """Replace damaged rows of the target: from the source, or from a snapshot if the copy is finished."""
    _change(kubectl, name, migration, ActionType.REPAIR_DATA, options)


@data.command("backup")
@MIGRATION
@ROLLOUT
@action_options()
@pass_kubectl
def backup(kubectl: Kubectl, migration: str | None, *, name: str | None, options: ActionOptions) -> None:
    """Take a snapshot of the tables."""
    _change(kubectl, name, migration, ActionType.BACKUP_DATA, options)


def _change(kubectl: Kubectl, name: str | None, migration: str | None, action: ActionType, options: ActionOptions) -> None:
    rollout = read_rollout(kubectl, name)
    record = chosen_record(rollout, migration, moves_rows=True)
    act(kubectl, rollout.name, action, options, migration=record.name)


@data.command("restore")
@MIGRATION
@ROLLOUT
@click.option("--of", "user", metavar="USER", help="Restore only the rows of this user.", show_default="all rows")
@click.option(
    "--at",
    type=TimeType(),
    help="Restore from the newest snapshot before this time, such as 2026-11-24T14:02 or '2h ago'.",
    show_default="now",
)
@click.option(
    "--lose-newer", is_flag=True, help="Overwrite rows that users have written since the snapshot. These changes are lost."
)
@action_options(reason=True, confirms=True)
@pass_kubectl
def restore(
    kubectl: Kubectl,
    migration: str | None,
    *,
    name: str | None,
    user: str | None,
    at: datetime | None,
    lose_newer: bool,
    options: ActionOptions,
) -> None:
    """Restore rows from a snapshot.

    Rows that users have written since the snapshot are kept if copy.yaml sets `changed`, unless --lose-newer is given.
    """
    rollout = read_rollout(kubectl, name)
    record = chosen_record(rollout, migration, moves_rows=True)
    fields = {"migration": record.name, "user": user, "at": at, "lose_newer": lose_newer or None}
    spec = action_spec(rollout.name, ActionType.RESTORE_DATA, reason=options.reason, **fields)
    rows = f"the rows of {user}" if user else "all rows"
    newer = (
        f"rows that users have written since the snapshot are {'LOST' if lose_newer else 'kept if copy.yaml sets `changed`'}"
    )
    confirm([f"Restoring {rows} of {record.name} from a snapshot; {newer}."], "Restore?", yes=options.yes)
    submit(kubectl, spec, options)


@data.command("verify")
@MIGRATION
@ROLLOUT
@pass_kubectl
def verify(kubectl: Kubectl, migration: str | None, name: str | None) -> None:
    """Compare source and target: number of rows, checksums of ranges, and a sample of rows."""
    rollout = read_rollout(kubectl, name)
    inspect(kubectl, rollout, chosen_record(rollout, migration, moves_rows=True), Operation.VERIFY)
