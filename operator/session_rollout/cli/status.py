"""The commands get and status."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from session_rollout.adapters.kubectl import ACTION_RESOURCE, ROLLOUT_RESOURCE, Call, Kubectl, KubectlFailed
from session_rollout.cli.command import Command, Exit, emit, output, usage_error
from session_rollout.cli.common import (
    NAME,
    pass_kubectl,
    printable,
    rollout_name,
    rollout_of,
    start_reading_records,
    terminal,
    timeout_option,
    trends_of,
)
from session_rollout.cli.operator_lease import OperatorLease
from session_rollout.cli.wait import exit_code, follow


@click.command("get", cls=Command)
@click.argument("names", nargs=-1)
@click.option("-A", "--all-namespaces", is_flag=True, help="List the rollouts of all namespaces.")
@output(wide=True)
@pass_kubectl
def get(kubectl: Kubectl, names: tuple[str, ...], *, all_namespaces: bool, form: str | None) -> None:
    """List rollouts with state, phase, step, audience and message."""
    argv = [*names, *(["-A"] if all_namespaces else []), *(["-o", form] if form else [])]
    with OperatorLease(kubectl):
        text = kubectl.ask("get", ROLLOUT_RESOURCE, *argv).text()
    click.echo(text, nl=False)


@click.command("status", cls=Command)
@NAME
@click.option("-w", "--watch", is_flag=True, help="Follow every change until the rollout ends or stalls.")
@timeout_option("With --watch, give up after this time, such as 10m or 1h30m.")
@output()
@pass_kubectl
def status(kubectl: Kubectl, name: str | None, *, watch: bool, timeout: timedelta | None, form: str | None) -> int:
    """Show the state of a rollout, its reason, and what comes next.

    The command shows phases and steps, checks with value, trend, bound and baseline, migrations with their progress, and flags. It also
    shows actions without a response for a minute; with --watch, it does not.

    Exit codes with --watch: 0 Promoted, 1 RolledBack or Aborted, 2 Stalled, 124 on --timeout.
    """
    if watch and form:
        raise usage_error("--watch and --output are mutually exclusive")
    if timeout is not None and not watch:
        raise usage_error("--timeout requires --watch")
    name = rollout_name(kubectl, name)
    if watch:
        return _draw_changes(kubectl, name, timeout)
    if form:
        with OperatorLease(kubectl):
            raw = kubectl.get(ROLLOUT_RESOURCE, name).json()
        emit(raw, form)
    else:
        _draw(kubectl, name)
    return Exit.DONE


def _draw(kubectl: Kubectl, name: str) -> None:
    with OperatorLease(kubectl):
        answer, records = kubectl.get(ROLLOUT_RESOURCE, name), start_reading_records(kubectl, name)
        actions = kubectl.list(ACTION_RESOURCE)
        from session_rollout.cli.render.status import draw, unanswered  # while kubectl runs

        rollout = rollout_of(answer.json())
    now = datetime.now(UTC)
    terminal().print(draw(rollout, now, trends_of(records)), *unanswered(_of_rollout(actions, name), now), sep="\n")


def _of_rollout(actions: Call, name: str) -> list[dict[str, Any]]:
    """Actions on a rollout; none if they cannot be read."""
    try:
        return [printable(item) for item in actions.items() if item["spec"]["rollout"] == name]
    except KubectlFailed:
        return []


def _draw_changes(kubectl: Kubectl, name: str, timeout: timedelta | None) -> int:
    """Draw every second on a terminal, elsewhere on every change; the exit code of the state at the end."""
    from rich.live import Live

    from session_rollout.cli.render.status import draw

    console = terminal()
    live = Live(console=console, auto_refresh=False, transient=True)
    with live, closing(follow(kubectl, name, timeout)) as states:
        for rollout, changed in states:
            if changed:
                trends = trends_of(start_reading_records(kubectl, name))
            picture = draw(rollout, datetime.now(UTC), trends)
            if console.is_terminal:
                live.update(picture, refresh=True)
            elif changed:
                console.print(picture, "")
            if (code := exit_code(rollout)) is not None:
                break
    if console.is_terminal:
        console.print(picture)
    return code or Exit.DONE
