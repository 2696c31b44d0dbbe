"""Creating a SessionRolloutAction and waiting for its response. The plugin does not change anything in another way."""

import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from session_rollout.adapters.kubectl import ACTION_RESOURCE, ROLLOUT_RESOURCE, Kubectl, KubectlFailed
from session_rollout.cli.command import Exit, Failure, emit, output, refusal, usage_error
from session_rollout.cli.common import rollout_of, timeout_option, tolerant
from session_rollout.cli.operator_lease import OperatorLease

if TYPE_CHECKING:
    from session_rollout.api.action import ActionSpec, ActionStatus
    from session_rollout.api.enums import ActionType

POLL_SECONDS: Final = 0.2
INSPECTION_TIMEOUT: Final = timedelta(minutes=5)  # Jobs that only read: migrations plan, verify, check Jobs


@dataclass(frozen=True)
class ActionOptions:
    """How the user wants an action done."""

    reason: str = ""
    yes: bool = False
    form: str | None = None
    timeout: timedelta = INSPECTION_TIMEOUT


@dataclass(frozen=True)
class AnsweredAction:
    """An action that the operator has accepted."""

    name: str
    status: "ActionStatus"
    raw: dict[str, Any]


def action_options(*, reason: bool = False, confirms: bool = False) -> Callable[[Any], Any]:
    """Options of a command that creates an action; the command gets them as `options`."""

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def with_options(
            *arguments: Any, reason: str, form: str | None, timeout: timedelta, yes: bool = False, **fields: Any
        ) -> Any:
            return function(*arguments, options=ActionOptions(reason, yes, form, timeout), **fields)

        command = timeout_option("Wait this long for the operator to respond.", "30s")(with_options)
        command = output()(command)
        if confirms:
            command = click.option("-y", "--yes", is_flag=True, help="Do not prompt.")(command)
        text = "Record this reason in the action and in the history."
        needed: dict[str, Any] = {"required": True} if reason else {"default": ""}
        return click.option("-r", "--reason", help=text, **needed)(command)

    return decorate


def confirm(lines: list[str], question: str, *, yes: bool) -> None:
    """Show what will change, and prompt unless `yes`. Raises Failure when there is no terminal to prompt on."""
    for line in lines:
        click.echo(line, err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise usage_error("cannot prompt without a terminal; use --yes")
    if not click.confirm(question, default=False, err=True):
        raise refusal("canceled; nothing was changed")


def action_spec(rollout: str, action: "ActionType", **fields: Any) -> "ActionSpec":
    """The spec of an action; fields without a value are left out. Raises Failure when a value is not allowed."""
    from pydantic import ValidationError

    from session_rollout.api.action import ActionSpec
    from session_rollout.api.parsing import sentence

    given = {name: value for name, value in fields.items() if value not in (None, "", (), [])}
    try:
        return ActionSpec(rollout=rollout, action=action, **given)
    except ValidationError as error:
        raise usage_error(sentence(error)) from error


def send(kubectl: Kubectl, spec: "ActionSpec", timeout: timedelta) -> AnsweredAction:
    """Create an action and wait for its response. Raises Failure when it is rejected or gets no response in time."""
    from session_rollout.api import API_VERSION
    from session_rollout.api.action import ActionStatus
    from session_rollout.api.quantities import format_duration

    body = {
        "apiVersion": API_VERSION,
        "kind": "SessionRolloutAction",
        "metadata": {"generateName": f"{spec.rollout[:50]}-"},
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_unset=True),
    }
    name = kubectl.create(body).json()["metadata"]["name"]
    deadline = time.monotonic() + timeout.total_seconds()
    while time.monotonic() < deadline:
        raw = kubectl.get(ACTION_RESOURCE, name).json()
        status = tolerant(ActionStatus, raw.get("status", {}), f"the response to action {name}")
        if status.accepted is not None:
            if not status.accepted:
                raise refusal(f"the operator rejected the action: {status.message}")
            return AnsweredAction(name, status, raw)
        time.sleep(POLL_SECONDS)
    waited = format_duration(timeout)
    hint = OperatorLease(kubectl).sentence() or _decision_of(kubectl, spec.rollout) or "check that it is running"
    withdrawal = f"it still may: `kubectl delete sessionrolloutaction {name}` withdraws the action"
    rest = "" if spec.action.protects_users else f"; {withdrawal}"  # that may have begun, and is carried out in any case
    raise Failure(Exit.TIMEOUT, f"the operator did not respond to action {name} within {waited}; {hint}{rest}")


def _decision_of(kubectl: Kubectl, name: str) -> str | None:
    """What the rollout waits for: an action that protects users gets its response when the flag document has it."""
    try:
        rollout = rollout_of(kubectl.get(ROLLOUT_RESOURCE, name).json())
    except (Failure, KubectlFailed):
        return None
    return f"{name}: {rollout.status.decision.message}" if rollout.status.decision.message else None


def act(kubectl: Kubectl, rollout: str, action: "ActionType", options: ActionOptions, **fields: Any) -> None:
    """Create an action with the options of a command, wait, and print the response."""
    submit(kubectl, action_spec(rollout, action, reason=options.reason, **fields), options)


def submit(kubectl: Kubectl, spec: "ActionSpec", options: ActionOptions) -> None:
    """Create an action, wait, and print the response."""
    answered = send(kubectl, spec, options.timeout)
    if options.form:
        emit(answered.raw, options.form)
    else:
        click.echo(answered.status.message)
    if answered.status.reason == "UnknownFeature":
        raise refusal("the action was carried out in part: a name is not a feature")
