"""Acting: each command shows what will change, asks where it overrides something, creates an action and waits for its answer."""

import functools
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import click

from session_rollout.adapters.kubectl import ACTIONS, ROLLOUTS, Kubectl
from session_rollout.api import API_VERSION
from session_rollout.cli.command import Command, Exit, Failure, emit, output, refusal, wrong
from session_rollout.cli.status import NAME, pass_kubectl, the_only

POLL_SECONDS: Final = 0.2


@dataclass(frozen=True)
class Wish:
    """How a person wants an action done."""

    reason: str = ""
    yes: bool = False
    form: str | None = None
    timeout: int = 30


def wish(*, reason: bool = False, asks: bool = False) -> Callable[[Any], Any]:
    """Options of a command that creates an action; the command gets them as one `asked`."""

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def gathered(*arguments: Any, reason: str, form: str | None, timeout: int, yes: bool = False, **fields: Any) -> Any:
            return function(*arguments, asked=Wish(reason, yes, form, timeout), **fields)

        made = click.option("--timeout", default=30, show_default=True, help="Seconds to wait for the answer.")(gathered)
        made = output()(made)
        if asks:
            made = click.option("-y", "--yes", is_flag=True, help="Do not ask.")(made)
        text = "Why; goes into the history and to the audit log."
        needed: dict[str, Any] = {"required": True} if reason else {"default": ""}
        return click.option("-r", "--reason", help=text, **needed)(made)

    return decorate


def confirm(lines: list[str], question: str, *, yes: bool) -> None:
    """Show what will change, and ask where that is wanted. Raises Failure when nobody can answer."""
    for line in lines:
        click.echo(line, err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise wrong(f"{question} Nobody can be asked here: give --yes")
    if not click.confirm(question, default=False, err=True):
        raise refusal("nothing was changed")


def send(kubectl: Kubectl, name: str, action: str, spec: Mapping[str, Any], asked: Wish) -> dict[str, Any]:
    """Create an action and wait for its answer; the answered action. Raises Failure when it is refused or not answered."""
    body = {
        "apiVersion": API_VERSION,
        "kind": "SessionRolloutAction",
        "metadata": {"generateName": f"{name[:50]}-"},
        "spec": {
            "rollout": name,
            "action": action,
            **{key: value for key, value in {**spec, "reason": asked.reason}.items() if value not in (None, "", [])},
        },
    }
    made = kubectl.create(body).json()["metadata"]["name"]
    deadline = time.monotonic() + asked.timeout
    while time.monotonic() < deadline:
        found = kubectl.get(ACTIONS, made).json()
        if "accepted" in found.get("status", {}):
            if not found["status"]["accepted"]:
                raise refusal(f"refused: {found['status']['message']}")
            return found
        time.sleep(POLL_SECONDS)
    raise Failure(Exit.TIMEOUT, f"action {made} was not answered within {asked.timeout} s: is the operator running?")


def done(answered: dict[str, Any], form: str | None) -> None:
    """Say what came of it."""
    if form:
        emit(answered, form)
        return
    click.echo(answered["status"]["message"])


def current(raw: dict[str, Any]) -> dict[str, Any]:
    """Where it is; empty before the first look."""
    return dict(raw.get("status", {}).get("current", {}))


def running(raw: dict[str, Any]) -> dict[str, Any]:
    """The object, if something runs. Raises Failure when it has ended."""
    if outcome := raw.get("status", {}).get("outcome"):
        raise refusal(f"{raw['metadata']['name']} has ended ({outcome}): nothing is running")
    return raw


def place(raw: dict[str, Any]) -> dict[str, Any]:
    """Generation, phase and step of now, as an action must name them. Raises Failure between steps."""
    here = current(raw)
    if here.get("stage") != "Step":
        why = raw.get("status", {}).get("decision", {}).get("message", "it has not begun")
        raise refusal(f"{raw['metadata']['name']} is in no step now: {why}")
    return {"generation": raw["status"]["observedGeneration"], "phase": here["phase"], "step": here["step"]}


def next_audience(raw: dict[str, Any]) -> str:
    """What comes after the running step, in words."""
    here, steps = current(raw), next(one["steps"] for one in raw["spec"]["phases"] if one["name"] == current(raw)["phase"])
    if here["step"] >= len(steps):
        return f"phase {here['phase']} ends after this step"
    following = steps[here["step"]]
    groups = "".join(f"+{group}" for group in following.get("groups", []))
    if ramp := following.get("ramp"):
        return f"next is a climb to {ramp['to']}%{groups} over {ramp['over']}"
    return f"next is {following.get('percent', 0)}%{groups}, held for {following['hold']}"


def unmet(raw: dict[str, Any]) -> list[str]:
    """Checks of the running step that have not passed, and a hold that is not over."""
    checks = raw["status"].get("checks", [])
    open_ = [f"  {one['message']}" for one in checks if one["kind"] == "Criterion" and one["verdict"] != "Pass"]
    until = current(raw).get("holdUntil")
    return [*open_, *([f"  the hold, until {until}"] if until else ["  the hold, which has not begun"])]


def _needed(raw: dict[str, Any]) -> None:
    """Raises Failure when the running step asks for no approval; says which one does."""
    here = current(raw)
    steps = next(one["steps"] for one in raw["spec"]["phases"] if one["name"] == here["phase"])
    asking = [number for number, step in enumerate(steps, start=1) if step.get("approval") == "Required"]
    if here["step"] not in asking:
        later = [str(number) for number in asking if number > here["step"]]
        hint = f"; step {', '.join(later)} will" if later else ""
        raise refusal(f"step {here['step']} of phase {here['phase']} needs no approval{hint}")


# --- the commands


@click.command("approve", cls=Command)
@NAME
@click.option("--check", help="A gate of preflight or verification, where it waits for one.")
@wish()
@pass_kubectl
def approve(kubectl: Kubectl, name: str | None, *, check: str | None, asked: Wish) -> None:
    """Give the yes that a step or a gate waits for: to exactly this generation, phase and step."""
    name = the_only(kubectl, name)
    raw = kubectl.get(ROLLOUTS, name).json()
    awaited = raw.get("status", {}).get("decision", {}).get("approvals", [])
    waiting = [one["check"] for one in awaited if "check" in one]
    if check is None and current(raw).get("stage") in {"Preflight", "Verification"}:
        if len(waiting) != 1:
            raise wrong(f"--check must name the gate; awaited are {', '.join(waiting) or 'none'}")
        check = waiting[0]
    if check is not None:
        spec = {"generation": raw["status"]["observedGeneration"], "check": check}
        click.echo(f"Approves gate {check} of {name}.", err=True)
    else:
        spec = place(raw)
        _needed(raw)
        click.echo(f"Approves step {spec['step']} of {spec['phase']}; {next_audience(raw)}.", err=True)
    done(send(kubectl, name, "Approve", spec, asked), asked.form)


@click.command("promote", cls=Command)
@NAME
@wish(reason=True, asks=True)
@pass_kubectl
def promote(kubectl: Kubectl, name: str | None, *, asked: Wish) -> None:
    """Leave the running step now, past its hold and its criteria. Guards go on."""
    name = the_only(kubectl, name)
    raw = running(kubectl.get(ROLLOUTS, name).json())
    spec = place(raw)
    lines = [f"Leaves step {spec['step']} of {spec['phase']} of {name}; {next_audience(raw)}.", "It overrides:", *unmet(raw)]
    confirm(lines, "Promote?", yes=asked.yes)
    done(send(kubectl, name, "Promote", spec, asked), asked.form)


@click.command("pause", cls=Command)
@NAME
@wish()
@pass_kubectl
def pause(kubectl: Kubectl, name: str | None, *, asked: Wish) -> None:
    """Keep the audience as it is; guards still protect."""
    name = the_only(kubectl, name)
    here = current(running(kubectl.get(ROLLOUTS, name).json()))
    click.echo(f"Keeps {name} at {here.get('percent', '0')}% of {here.get('phase', 'no phase yet')}.", err=True)
    done(send(kubectl, name, "Pause", {}, asked), asked.form)


@click.command("resume", cls=Command)
@NAME
@wish()
@pass_kubectl
def resume(kubectl: Kubectl, name: str | None, *, asked: Wish) -> None:
    """Go on after a pause."""
    name = the_only(kubectl, name)
    raw = running(kubectl.get(ROLLOUTS, name).json())
    if raw["spec"].get("suspend"):
        raise refusal(f"{name} is suspended by `spec.suspend`: set it to false where the object is declared")
    click.echo(f"Lets {name} go on; it was paused by {raw.get('status', {}).get('pausedBy', 'nobody')}.", err=True)
    done(send(kubectl, name, "Resume", {}, asked), asked.form)


def _what_goes_back(raw: dict[str, Any]) -> list[str]:
    rollback = raw["spec"].get("rollback", {})
    scope = rollback.get("scope", "Phase")
    phases = raw.get("status", {}).get("phases", [])
    reached = [one for one in phases if one["state"] in {"Running", "Completed"}]
    touched = reached if scope == "All" else [one for one in reached if one["state"] == "Running"]
    lines = [f"  phase {one['name']}: {one.get('percent', '0')}% off, {', '.join(one.get('features', []))}" for one in touched]
    if scope == "Step":
        lines = [f"  {line.strip()} back to the audience before this step" for line in lines]
    extras = {
        "restoreData": "session rows come back from the snapshot",
        "migrations": "its migrations are undone",
        "workload": "the workload goes back to its earlier revision",
    }
    lines += [f"  {text}" for key, text in extras.items() if rollback.get(key) in {True, "Down", "Undo"}]
    return lines or ["  nothing is published yet"]


def _abort(kubectl: Kubectl, name: str | None, asked: Wish) -> None:
    name = the_only(kubectl, name)
    raw = running(kubectl.get(ROLLOUTS, name).json())
    confirm([f"Rolls {name} back:", *_what_goes_back(raw)], "Roll back?", yes=asked.yes)
    done(send(kubectl, name, "Abort", {}, asked), asked.form)


@click.command("abort", cls=Command)
@NAME
@wish(reason=True, asks=True)
@pass_kubectl
def abort(kubectl: Kubectl, name: str | None, *, asked: Wish) -> None:
    """Roll back now: flags first, then what `rollback` of the object asks for."""
    _abort(kubectl, name, asked)


@click.command("rollback", cls=Command)
@NAME
@click.option("--workload", is_flag=True, help="Bring the Deployment back to its earlier revision instead; flags stay.")
@wish(reason=True, asks=True)
@pass_kubectl
def rollback(kubectl: Kubectl, name: str | None, *, workload: bool, asked: Wish) -> None:
    """Roll back now, as abort does; or the application alone."""
    if not workload:
        _abort(kubectl, name, asked)
        return
    _on_workload(kubectl, name, "UndoWorkload", "goes back to its earlier revision", asked)


@click.command("restart", cls=Command)
@NAME
@wish(reason=True, asks=True)
@pass_kubectl
def restart(kubectl: Kubectl, name: str | None, *, asked: Wish) -> None:
    """Have the Pods of the workload replaced, as `kubectl rollout restart` does."""
    _on_workload(kubectl, name, "RestartWorkload", "has its Pods replaced", asked)


def _on_workload(kubectl: Kubectl, name: str | None, action: str, words: str, asked: Wish) -> None:
    name = the_only(kubectl, name)
    raw = kubectl.get(ROLLOUTS, name).json()
    workload = raw["spec"].get("workload")
    if workload is None:
        raise refusal(f"`workload` is not in the spec of {name}: it names the Deployment")
    confirm([f"Deployment {workload['name']} {words}."], "Go on?", yes=asked.yes)
    done(send(kubectl, name, action, {}, asked), asked.form)


@click.command("retry", cls=Command)
@NAME
@wish()
@pass_kubectl
def retry(kubectl: Kubectl, name: str | None, *, asked: Wish) -> None:
    """Another attempt: the phase that was rolled back, the migration or the check that failed."""
    name = the_only(kubectl, name)
    raw = kubectl.get(ROLLOUTS, name).json()
    status = raw.get("status", {})
    click.echo(f"Tries again: {status.get('decision', {}).get('why', 'nothing has been decided yet')}", err=True)
    done(
        send(kubectl, name, "Retry", {"generation": status.get("observedGeneration", 0)}, asked),
        asked.form,
    )
