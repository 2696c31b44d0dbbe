"""The commands verify, diagnose and check-errors. The operator runs the checks; the rollout itself does not change."""

from collections.abc import Sequence

import click

from session_rollout.adapters.kubectl import Kubectl
from session_rollout.api.action import Result
from session_rollout.api.enums import ActionType, Verdict
from session_rollout.api.rollout import SessionRollout
from session_rollout.cli.action_client import INSPECTION_TIMEOUT, action_spec, send
from session_rollout.cli.command import Command, emit, output, refusal
from session_rollout.cli.common import NAME, pass_kubectl, print_table, read_rollout
from session_rollout.cli.render.status import verdict_mark

ERRORS = "errors"
COLUMNS = ("", "CHECK", "VERDICT", "VALUE", "BOUND", "MESSAGE")


@click.command("verify", cls=Command)
@NAME
@click.option("--check", help="Run only this gate.", show_default="all gates of the spec")
@output()
@pass_kubectl
def verify(kubectl: Kubectl, name: str | None, *, check: str | None, form: str | None) -> None:
    """Run the gates of preflight, verification and rollback now."""
    rollout = read_rollout(kubectl, name)
    spec = action_spec(rollout.name, ActionType.VERIFY, check=check)
    print_results(send(kubectl, spec, INSPECTION_TIMEOUT).status.results, form)


@click.command("diagnose", cls=Command)
@click.argument("topic")
@NAME
@output()
@pass_kubectl
def diagnose(kubectl: Kubectl, topic: str, *, name: str | None, form: str | None) -> None:
    """Run the queries of a diagnostics TOPIC in the operator's configuration, such as memory, performance or database."""
    rollout = read_rollout(kubectl, name)
    print_results(diagnosis(kubectl, rollout, topic), form)


@click.command("check-errors", cls=Command)
@NAME
@output()
@pass_kubectl
def check_errors(kubectl: Kubectl, name: str | None, form: str | None) -> None:
    """Show the last verdicts of guards and criteria, then run the queries of the diagnostics topic `errors`."""
    rollout = read_rollout(kubectl, name)
    if not form:
        checks = rollout.status.checks
        rows = [
            (verdict_mark(check.verdict), check.kind, check.name, check.verdict, check.value or "", check.bound or "")
            for check in checks
        ]
        print_table(("", "KIND", "CHECK", "VERDICT", "VALUE", "BOUND"), rows)
        click.echo()
    print_results(diagnosis(kubectl, rollout, ERRORS), form)


def diagnosis(kubectl: Kubectl, rollout: SessionRollout, topic: str) -> Sequence[Result]:
    """Results of a diagnostics topic."""
    spec = action_spec(rollout.name, ActionType.DIAGNOSE, topic=topic)
    return send(kubectl, spec, INSPECTION_TIMEOUT).status.results


def print_results(results: Sequence[Result], form: str | None) -> None:
    """Print the results of checks. Raises Failure unless all pass."""
    if form:
        emit([result.to_wire() for result in results], form)
    elif results:
        print_table(COLUMNS, [_row(result) for result in results])
    if not results:
        raise refusal("no checks are defined")
    failed = [result.name for result in results if result.verdict is not Verdict.PASS]
    if failed:
        passed = len(results) - len(failed)
        raise refusal(f"{passed} of {len(results)} checks pass; not passed: {', '.join(failed)}")


def _row(result: Result) -> tuple[str, ...]:
    mark = verdict_mark(result.verdict)
    return mark, result.name, result.verdict, result.value or "", result.bound or "", result.message
