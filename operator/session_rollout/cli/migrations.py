"""The database half: migrations and session data. What changes something is an action; what looks is a Job that only looks."""

from typing import Any, Final

import click

from session_rollout.adapters.kubectl import ROLLOUTS, Kubectl
from session_rollout.api.enums import Verdict
from session_rollout.cli.actions import Wish, confirm, done, send, wish
from session_rollout.cli.command import Group, emit, output, refusal, wrong
from session_rollout.cli.status import ROLLOUT, moment_of, pass_kubectl, the_only

INSPECT_SECONDS: Final = 300
MIGRATION = click.argument("migration", required=False)


@click.group("migrations", cls=Group)
def migrations() -> None:
    """Migrations of the rollout: what is applied, what is planned, another attempt, and back."""


@click.group("sessions", cls=Group)
def sessions() -> None:
    """Session data that the rollout moves: how far it is, snapshots, recovery."""


def _records(raw: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Migrations of the spec, with what status knows of each."""
    known = {one["name"]: one for one in raw.get("status", {}).get("migrations", [])}
    declared = [one["name"] for one in raw["spec"].get("migrations", [])]
    return {name: known.get(name, {"name": name, "state": "Pending"}) for name in declared}


def _chosen(raw: dict[str, Any], migration: str | None, *, rows: bool = False) -> str:
    """The migration that is meant: the named one, or the only one (of those that move rows)."""
    records = _records(raw)
    if not records:
        raise refusal(f"{raw['metadata']['name']} has no `migrations`")
    if migration is not None and migration not in records:
        raise wrong(f"MIGRATION is {migration}; allowed are {', '.join(records) or 'none'}")
    if migration is not None:
        return migration
    fitting = [name for name, one in records.items() if not rows or one.get("total") is not None or "backupTime" in one]
    fitting = fitting or list(records)
    if len(fitting) != 1:
        raise wrong(f"MIGRATION is missing; allowed are {', '.join(fitting) or 'none'}")
    return fitting[0]


def _show(raw: dict[str, Any], records: dict[str, dict[str, Any]], form: str | None) -> None:
    if form:
        emit(list(records.values()), form)
        return
    if not records:
        click.echo(f"{raw['metadata']['name']} has no `migrations`")
    phases = {
        name: phase["name"]
        for phase in raw["spec"]["phases"]
        for name in (*phase.get("migrations", {}).get("before", []), *phase.get("migrations", {}).get("after", []))
    }
    for name, one in records.items():
        click.echo(
            f"{name:<24} {one['state']:<10} {one.get('operation', '') if one['state'] != 'Pending' else '':<8} in {phases.get(name, 'no phase')}"
        )
        for line in _details(one):
            click.echo(f"  {line}")


def _details(one: dict[str, Any]) -> list[str]:
    lines = []
    if one.get("total") is not None:
        moved = f"{one.get('done') or 0:,} of {one['total']:,} rows"
        moved += f", {one['rate']:,}/s" if one.get("rate") else ""
        moved += f", {one['quarantined']:,} in quarantine" if one.get("quarantined") else ""
        lines.append(moved + (", changes are followed" if one.get("following") else ""))
    lines += [f"snapshot of {one['backupTime'][:19]}"] if one.get("backupTime") else []
    lines += [f"point of no return: {one['pointOfNoReturn']}"] if one.get("pointOfNoReturn") else []
    lines += [str(one["message"])] if one.get("message") else []
    return lines


@migrations.command("status")
@ROLLOUT
@output()
@pass_kubectl
def migrations_status(kubectl: Kubectl, name: str | None, form: str | None) -> None:
    """Show each migration: what has been done, in which phase it is, and how far."""
    raw = kubectl.get(ROLLOUTS, the_only(kubectl, name)).json()
    _show(raw, _records(raw), form)


@migrations.command("up")
@MIGRATION
@ROLLOUT
@wish()
@pass_kubectl
def migrations_up(kubectl: Kubectl, migration: str | None, *, name: str | None, asked: Wish) -> None:
    """Apply what has failed once more; what is pending runs by itself when its phase begins."""
    name = the_only(kubectl, name)
    raw = kubectl.get(ROLLOUTS, name).json()
    records = _records(raw)
    if migration is not None:
        records = {migration: records[_chosen(raw, migration)]}
    failed = [one for one, record in records.items() if record["state"] == "Failed"]
    if not failed:
        _show(raw, records, asked.form)
        click.echo("Nothing has failed: each runs by itself in its phase.", err=True)
        return
    for one in failed:
        click.echo(f"Tries {one} again: {records[one].get('message', '')}", err=True)
        done(send(kubectl, name, "RetryMigration", {"migration": one}, asked), asked.form)


@migrations.command("down")
@MIGRATION
@ROLLOUT
@wish(reason=True, asks=True)
@pass_kubectl
def migrations_down(kubectl: Kubectl, migration: str | None, *, name: str | None, asked: Wish) -> None:
    """Undo a migration of a phase that was rolled back, newest step first; refuses what would destroy data."""
    name = the_only(kubectl, name)
    raw = kubectl.get(ROLLOUTS, name).json()
    chosen = _chosen(raw, migration)
    confirm(
        [f"Undoes {chosen}: {'; '.join(_details(_records(raw)[chosen])) or 'nothing is known of it'}."],
        "Undo it?",
        yes=asked.yes,
    )
    done(send(kubectl, name, "MigrateDown", {"migration": chosen}, asked), asked.form)


def _inspect(kubectl: Kubectl, name: str | None, migration: str | None, operation: str, *, rows: bool = False) -> None:
    name = the_only(kubectl, name)
    raw = kubectl.get(ROLLOUTS, name).json()
    spec = {"migration": _chosen(raw, migration, rows=rows), "operation": operation}
    answered = send(kubectl, name, "InspectMigration", spec, Wish(timeout=INSPECT_SECONDS))
    message = answered["status"]["message"]
    if any(result["verdict"] == Verdict.FAIL for result in answered["status"].get("results", [])):
        raise refusal(message)
    click.echo(answered["status"].get("output") or message)


@migrations.command("plan")
@MIGRATION
@ROLLOUT
@pass_kubectl
def migrations_plan(kubectl: Kubectl, migration: str | None, name: str | None) -> None:
    """Run what is not applied in a transaction that is rolled back; print its SQL and its locks."""
    _inspect(kubectl, name, migration, "plan")


# --- session data


@sessions.command("status")
@MIGRATION
@ROLLOUT
@output()
@pass_kubectl
def sessions_status(kubectl: Kubectl, migration: str | None, name: str | None, form: str | None) -> None:
    """Show how far the rows are."""
    raw = kubectl.get(ROLLOUTS, the_only(kubectl, name)).json()
    chosen = _chosen(raw, migration, rows=True)
    _show(raw, {chosen: _records(raw)[chosen]}, form)


@sessions.command("migrate")
@MIGRATION
@ROLLOUT
@wish()
@pass_kubectl
def sessions_migrate(kubectl: Kubectl, migration: str | None, *, name: str | None, asked: Wish) -> None:
    """Move the rows: the rollout does in its phase; this tries again what has failed, and says where it is."""
    raw = kubectl.get(ROLLOUTS, the_only(kubectl, name)).json()
    chosen = _chosen(raw, migration, rows=True)
    if _records(raw)[chosen]["state"] == "Failed":
        done(send(kubectl, raw["metadata"]["name"], "RetryMigration", {"migration": chosen}, asked), asked.form)
        return
    _show(raw, {chosen: _records(raw)[chosen]}, asked.form)


def _ask(kubectl: Kubectl, name: str | None, migration: str | None, action: str, asked: Wish, **spec: Any) -> None:
    name = the_only(kubectl, name)
    raw = kubectl.get(ROLLOUTS, name).json()
    done(send(kubectl, name, action, {"migration": _chosen(raw, migration, rows=True), **spec}, asked), asked.form)


@sessions.command("retry")
@MIGRATION
@ROLLOUT
@wish()
@pass_kubectl
def sessions_retry(kubectl: Kubectl, migration: str | None, *, name: str | None, asked: Wish) -> None:
    """Try rows in quarantine again, or the whole move where it has failed."""
    _ask(kubectl, name, migration, "RetryMigration", asked)


@sessions.command("recover")
@MIGRATION
@ROLLOUT
@wish()
@pass_kubectl
def sessions_recover(kubectl: Kubectl, migration: str | None, *, name: str | None, asked: Wish) -> None:
    """Mend damaged rows of the target from their source."""
    _ask(kubectl, name, migration, "RepairData", asked)


@sessions.command("backup")
@MIGRATION
@ROLLOUT
@wish()
@pass_kubectl
def sessions_backup(kubectl: Kubectl, migration: str | None, *, name: str | None, asked: Wish) -> None:
    """Take a snapshot of the tables."""
    _ask(kubectl, name, migration, "BackupData", asked)


@sessions.command("restore")
@MIGRATION
@ROLLOUT
@click.option("--of", "user", metavar="USER", help="Only this user's rows.")
@click.option("--at", metavar="TIME", help="From the newest snapshot taken before this time.")
@click.option("--lose-newer", is_flag=True, help="Bring back every row as it was, also where users have written since.")
@wish(reason=True, asks=True)
@pass_kubectl
def sessions_restore(
    kubectl: Kubectl,
    migration: str | None,
    *,
    name: str | None,
    user: str | None,
    at: str | None,
    lose_newer: bool,
    asked: Wish,
) -> None:
    """Bring rows back from a snapshot; what users have written since is kept."""
    name = the_only(kubectl, name)
    raw = kubectl.get(ROLLOUTS, name).json()
    chosen = _chosen(raw, migration, rows=True)
    whose = f"the rows of {user}" if user else "all rows"
    moment = moment_of(at).isoformat() if at else None
    kept = "what users wrote since is LOST" if lose_newer else "what users wrote since is kept"
    confirm([f"Brings {whose} of {chosen} back from its snapshot; {kept}."], "Restore?", yes=asked.yes)
    spec = {"migration": chosen, "user": user, "at": moment, "loseNewer": lose_newer or None}
    done(send(kubectl, name, "RestoreData", spec, asked), asked.form)


@sessions.command("verify")
@MIGRATION
@ROLLOUT
@pass_kubectl
def sessions_verify(kubectl: Kubectl, migration: str | None, name: str | None) -> None:
    """Compare both sides of the move: counts, checksums of ranges, a sample of rows."""
    _inspect(kubectl, name, migration, "verify", rows=True)
