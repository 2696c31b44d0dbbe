"""Examining: checks on demand, diagnoses by topic, and the scorecard of the programme."""

from typing import Any, Final

import click

from session_rollout.adapters.kubectl import ROLLOUTS, Kubectl
from session_rollout.cli.actions import Wish, send
from session_rollout.cli.command import Command, emit, output, refusal
from session_rollout.cli.status import NAME, pass_kubectl, the_only

EXAMINE_SECONDS: Final = 120
MARKS: Final = {"Pass": "✔", "Fail": "✖"}


def report_results(answered: dict[str, Any], form: str | None) -> None:
    """Print what an examination found. Raises Failure when something of it is bad."""
    results = answered["status"].get("results", [])
    if form:
        emit(results, form)
    for one in results if not form else ():
        click.echo(f"{MARKS.get(one['verdict'], '?')} {one['name']:<28} {one['message']}")
    if not results:
        raise refusal("no check is declared that this could ask: nothing was examined")
    bad = [one for one in results if one["verdict"] != "Pass"]
    if bad:
        raise refusal(f"{len(results) - len(bad)} of {len(results)} pass; {', '.join(one['name'] for one in bad)} do not"[:300])


def _existing(kubectl: Kubectl, name: str | None) -> str:
    """The name of a rollout that exists: an action on none would be refused only later."""
    name = the_only(kubectl, name)
    kubectl.get(ROLLOUTS, name).text()
    return name


@click.command("verify", cls=Command)
@NAME
@click.option("--check", help="Only the gate of this name.")
@output()
@pass_kubectl
def verify(kubectl: Kubectl, name: str | None, *, check: str | None, form: str | None) -> None:
    """Run the checks of preflight, verification and rollback now; the rollout stays as it is."""
    name = _existing(kubectl, name)
    report_results(send(kubectl, name, "Verify", {"check": check}, Wish(timeout=EXAMINE_SECONDS)), form)


@click.command("diagnose", cls=Command)
@click.argument("topic")
@NAME
@output()
@pass_kubectl
def diagnose(kubectl: Kubectl, topic: str, *, name: str | None, form: str | None) -> None:
    """Ask what the operator's configuration knows about a TOPIC: memory, performance, database, cache, errors ..."""
    name = _existing(kubectl, name)
    report_results(send(kubectl, name, "Diagnose", {"topic": topic}, Wish(timeout=EXAMINE_SECONDS)), form)


@click.command("check-errors", cls=Command)
@NAME
@output()
@pass_kubectl
def check_errors(kubectl: Kubectl, name: str | None, form: str | None) -> None:
    """Ask about errors: guards and criteria as they stand, then the topic `errors`."""
    name = the_only(kubectl, name)
    raw = kubectl.get(ROLLOUTS, name).json()
    for one in raw.get("status", {}).get("checks", []) if not form else ():
        click.echo(f"{MARKS.get(one['verdict'], '?')} {one['kind']:<10} {one.get('message') or one['name']}")
    report_results(send(kubectl, name, "Diagnose", {"topic": "errors"}, Wish(timeout=EXAMINE_SECONDS)), form)
