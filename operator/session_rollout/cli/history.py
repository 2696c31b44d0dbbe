"""The commands history and events."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from session_rollout.adapters.kubectl import ACTION_RESOURCE, ROLLOUT_RESOURCE, Kubectl
from session_rollout.cli.command import Command, emit, output
from session_rollout.cli.common import NAME, pass_kubectl, printable, rollout_name, rollout_of, terminal, tolerant
from session_rollout.cli.operator_lease import OperatorLease

Entry = Mapping[str, Any]


@click.command("history", cls=Command)
@NAME
@output()
@pass_kubectl
def history(kubectl: Kubectl, name: str | None, form: str | None) -> None:
    """Show past decisions and actions, oldest first.

    The status of a rollout keeps the last 20 events. Actions are shown until their ttl has expired.
    """
    name = rollout_name(kubectl, name)
    with OperatorLease(kubectl):
        answer, actions = kubectl.get(ROLLOUT_RESOURCE, name), kubectl.list(ACTION_RESOURCE)
        rollout = rollout_of(answer.json())
    entries: list[Entry] = [entry.to_wire() for entry in rollout.status.history]
    recorded = {entry["by"] for entry in entries if "by" in entry}
    items = [item for item in actions.items() if item["spec"]["rollout"] == name]
    entries += [_of_action(item) for item in items if item["metadata"]["name"] not in recorded]
    entries.sort(key=lambda entry: str(entry["time"]))
    if form:
        emit(entries, form)
    else:
        _print(entries)


def _of_action(item: Mapping[str, Any]) -> Entry:
    """An action without an event in the history: rejected, read-only, without a response, or older than the last 20 events."""
    from session_rollout.api.action import ActionSpec, ActionStatus

    name = item["metadata"]["name"]
    spec = tolerant(ActionSpec, printable(item["spec"]), f"action {name}")
    answer = tolerant(ActionStatus, printable(item.get("status", {})), f"the response to action {name}")
    entry = {
        "time": item["metadata"]["creationTimestamp"],
        "action": spec.action,
        "answer": {True: "accepted", False: "rejected", None: "no response"}[answer.accepted],
        "by": name,
        "message": answer.message,
        "reason": spec.reason,
    }
    return {key: value for key, value in entry.items() if value}


def _print(entries: Sequence[Entry]) -> None:
    """One line for each event; on a terminal a long message wraps at its own left edge."""
    from rich.table import Table

    console = terminal()
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    for entry in entries:
        time, text = str(entry["time"])[:19].replace("T", " "), _text(entry)
        if console.is_terminal:
            table.add_row(time, text)
        else:
            console.print(f"{time}  {text}", soft_wrap=True)
    if console.is_terminal:
        console.print(table)


def _text(entry: Entry) -> str:
    what = entry.get("event") or f"{entry['action']} {entry['answer']}"
    step = f" step {entry['step']}" if entry.get("step") else ""
    place = f" {entry['phase']}{step}" if entry.get("phase") else ""
    reason = f": {entry['reason']}" if entry.get("reason") else ""
    by = f" (by {entry['by']})" if entry.get("by") else ""
    return f"{what}{place}: {entry.get('message', '')}{reason}{by}"


@click.command("events", cls=Command)
@NAME
@pass_kubectl
def events(kubectl: Kubectl, name: str | None) -> None:
    """Show the Kubernetes Events of a rollout."""
    name = rollout_name(kubectl, name)
    kubectl.get(ROLLOUT_RESOURCE, name).text()  # without this, an unknown name would give an empty list
    click.echo(kubectl.ask("events", "--for", f"sessionrollout.sessionrollout.dev/{name}").text(), nl=False)
