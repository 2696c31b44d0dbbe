"""The commands that steer a rollout. Each shows what will change, creates an action, and waits for the response."""

import time
from collections.abc import Iterator
from datetime import timedelta

import click

from session_rollout.adapters.kubectl import Kubectl
from session_rollout.api.enums import ActionType, PhaseState, Stage
from session_rollout.api.rollback import OnRollback, OnWorkload, RollbackScope
from session_rollout.api.rollout import SessionRollout
from session_rollout.api.status_records import PhaseRecord
from session_rollout.cli.action_client import ActionOptions, act, action_options, action_spec, confirm, send
from session_rollout.cli.command import Command, Exit, Failure, emit, refusal, usage_error
from session_rollout.cli.common import NAME, counted, listed, pass_kubectl, read_rollout
from session_rollout.cli.flag_document import published, read_document, text_of
from session_rollout.cli.running_step import (
    describe_next_step,
    require_approval,
    require_running,
    running_phase,
    skipped_checks,
    target_of,
)
from session_rollout.cli.wait import describe, exit_code, wait_for
from session_rollout.core.holdback import phase_text

# --- approve


@click.command("approve", cls=Command)
@NAME
@click.option("--check", help="Approve this gate of preflight or verification.", show_default="the only one that is waiting")
@action_options()
@pass_kubectl
def approve(kubectl: Kubectl, name: str | None, *, check: str | None, options: ActionOptions) -> None:
    """Approve the step or gate that is waiting.

    The approval is valid for the current generation, phase and step only. A step that does not wait for approval now is not approved:
    repeating the command, or answering after somebody else, approves nothing.
    """
    rollout = read_rollout(kubectl, name)
    check = check or _waiting_gate(rollout)
    if check is not None:
        click.echo(f"Approving gate {check} of {rollout.name}.", err=True)
        generation = rollout.status.observed_generation
        act(kubectl, rollout.name, ActionType.APPROVE, options, generation=generation, check=check)
        return
    target = target_of(rollout)
    require_approval(rollout)
    step = f"step {target['step']} of phase {target['phase']}"
    click.echo(f"Approving {step} of {rollout.name}; {describe_next_step(rollout)}.", err=True)
    act(kubectl, rollout.name, ActionType.APPROVE, options, **target)


def _waiting_gate(rollout: SessionRollout) -> str | None:
    """The gate that waits for approval; None in a step. Raises Failure unless it is exactly one."""
    if rollout.status.current.stage not in {Stage.PREFLIGHT, Stage.VERIFICATION}:
        return None
    waiting = [approval.check for approval in rollout.status.decision.approvals if approval.check]
    if len(waiting) != 1:
        raise usage_error(f"--check must name the gate to approve; waiting gates: {listed(waiting)}")
    return waiting[0]


# --- promote


@click.command("promote", cls=Command)
@NAME
@click.option("--full", is_flag=True, help="Complete all remaining steps of the phase, one after the other.")
@action_options(reason=True, confirms=True)
@pass_kubectl
def promote(kubectl: Kubectl, name: str | None, *, full: bool, options: ActionOptions) -> None:
    """Complete the current step without waiting for its hold, criteria or approval.

    The next step of the phase is published even outside windows. Guards are still evaluated.
    """
    rollout = read_rollout(kubectl, name)
    require_running(rollout)
    target = target_of(rollout)
    what = f"step {target['step']}"
    if full:
        what = f"{counted(len(running_phase(rollout).steps) - target['step'] + 1, 'step')} from {what}"
    lines = [f"Completing {what} of phase {target['phase']} of {rollout.name}; {describe_next_step(rollout)}.", "This skips:"]
    confirm([*lines, *skipped_checks(rollout)], "Promote?", yes=options.yes)
    if full:
        _promote_phase(kubectl, rollout, options)
    else:
        act(kubectl, rollout.name, ActionType.PROMOTE, options, **target)


def _promote_phase(kubectl: Kubectl, rollout: SessionRollout, options: ActionOptions) -> None:
    """One action for each step; the next one is created when the next step is published, until the phase has no more."""
    deadline = time.monotonic() + options.timeout.total_seconds()
    phase, generation = rollout.status.current.phase, rollout.status.observed_generation
    while rollout.status.current.stage is Stage.STEP and rollout.status.current.phase == phase:
        target = {**target_of(rollout), "generation": generation}
        spec = action_spec(rollout.name, ActionType.PROMOTE, reason=options.reason, **target)
        answered = send(kubectl, spec, _until(deadline))
        if not options.form:
            click.echo(answered.status.message)
        rollout = _next_published(kubectl, rollout, _until(deadline))
    if options.form:
        emit(rollout.status.to_wire(), options.form)


def _until(deadline: float) -> timedelta:
    return timedelta(seconds=max(deadline - time.monotonic(), 0))


def _next_published(kubectl: Kubectl, before: SessionRollout, timeout: timedelta) -> SessionRollout:
    """The rollout when its next step is published, or when the phase has no further step. Raises Failure if it stops."""
    left = before.status.current

    def ends(latest: SessionRollout) -> Exit | None:
        current = latest.status.current
        stopped = exit_code(latest)
        if stopped is not None or latest.status.observed_generation != before.status.observed_generation:
            return stopped or Exit.REFUSED
        if current.stage is Stage.STEP and (current.phase, current.step, current.percent) == (
            left.phase,
            left.step,
            left.percent,
        ):
            return None
        return Exit.DONE if current.stage is not Stage.STEP or current.published_time else None

    rollout, code = wait_for(kubectl, before.name, timeout, ends)
    if code is not Exit.DONE:
        raise Failure(code, describe(rollout))
    return rollout


# --- pause and resume


@click.command("pause", cls=Command)
@NAME
@action_options()
@pass_kubectl
def pause(kubectl: Kubectl, name: str | None, *, options: ActionOptions) -> None:
    """Keep the current audience; guards remain active."""
    rollout = read_rollout(kubectl, name)
    require_running(rollout)
    current = rollout.status.current
    place = f"{current.audience} of phase {current.phase}" if current.phase else f"stage {current.stage}"
    click.echo(f"Pausing {rollout.name} at {place}.", err=True)
    act(kubectl, rollout.name, ActionType.PAUSE, options)


@click.command("resume", cls=Command)
@NAME
@action_options()
@pass_kubectl
def resume(kubectl: Kubectl, name: str | None, *, options: ActionOptions) -> None:
    """Resume a paused rollout."""
    rollout = read_rollout(kubectl, name)
    require_running(rollout)
    if rollout.spec.suspend:
        raise refusal(f"{rollout.name} is suspended by `spec.suspend`; set it to false where the object is declared")
    by = f"; it was paused by {rollout.status.paused_by}" if rollout.status.paused_by else ""
    click.echo(f"Resuming {rollout.name}{by}.", err=True)
    act(kubectl, rollout.name, ActionType.RESUME, options)


# --- abort and rollback


@click.command("abort", cls=Command)
@NAME
@action_options(reason=True, confirms=True)
@pass_kubectl
def abort(kubectl: Kubectl, name: str | None, *, options: ActionOptions) -> None:
    """Roll back now: first the flags, then everything else that `spec.rollback` requests.

    By default, the features of the running phase are turned off. With `rollback.scope: Step`, they return to the preceding
    audience; with `All`, the features of every phase that has begun are turned off. The command waits until the flag document has it.
    """
    _abort(kubectl, name, options)


@click.command("rollback", cls=Command)
@NAME
@click.option("--workload", is_flag=True, help="Roll back only the Deployment, to its previous revision; keep the flags.")
@action_options(reason=True, confirms=True)
@pass_kubectl
def rollback(kubectl: Kubectl, name: str | None, *, workload: bool, options: ActionOptions) -> None:
    """Roll back now, as abort does, or roll back only the workload."""
    if workload:
        _change_workload(kubectl, name, ActionType.UNDO_WORKLOAD, options)
    else:
        _abort(kubectl, name, options)


def _abort(kubectl: Kubectl, name: str | None, options: ActionOptions) -> None:
    rollout = read_rollout(kubectl, name)
    require_running(rollout)
    lines = [f"  {line}" for line in (*_flags_to_roll_back(rollout), *_more_to_roll_back(rollout))]
    confirm([f"Rolling back {rollout.name}:", *(lines or ["  nothing is published yet"])], "Roll back?", yes=options.yes)
    act(kubectl, rollout.name, ActionType.ABORT, options)


def _flags_to_roll_back(rollout: SessionRollout) -> Iterator[str]:
    scope = rollout.spec.rollback.scope
    to = "to the audience before this step" if scope is RollbackScope.STEP else "off"
    states = {PhaseState.RUNNING, PhaseState.COMPLETED} if scope is RollbackScope.ALL else {PhaseState.RUNNING}
    for record in rollout.status.phases:
        if record.state in states:
            given = phase_text(rollout.status, record)
            yield f"phase {record.name}: {_features(record)} from {given} {to}"


def _features(record: PhaseRecord) -> str:
    return ", ".join(record.features) or "no features"


def _more_to_roll_back(rollout: SessionRollout) -> Iterator[str]:
    rollback = rollout.spec.rollback
    if rollback.restore_data:
        yield "rows are restored from the snapshot"
    if rollback.migrations is OnRollback.DOWN:
        yield "the migrations of the phase are undone"
    if rollback.workload is OnWorkload.UNDO:
        yield "the Deployment is rolled back to its previous revision"


# --- retry and restart


@click.command("retry", cls=Command)
@NAME
@action_options()
@pass_kubectl
def retry(kubectl: Kubectl, name: str | None, *, options: ActionOptions) -> None:
    """Start the rolled-back phase again, retry the failed migration or the failed Job of a gate, or begin a placebo step again."""
    rollout = read_rollout(kubectl, name)
    click.echo(f"Retrying {rollout.name}: {rollout.status.decision.message or 'no decision yet'}", err=True)
    act(kubectl, rollout.name, ActionType.RETRY, options, generation=rollout.status.observed_generation)


# --- adopt and reset


@click.command("adopt", cls=Command)
@NAME
@action_options(reason=True)
@pass_kubectl
def adopt(kubectl: Kubectl, name: str | None, *, options: ActionOptions) -> None:
    """Resume from the flag document that is in the cluster, when it gives more than the status knows.

    After a rollout was deleted and created again, or restored without its status. Users keep what they have.
    """
    rollout = read_rollout(kubectl, name)
    click.echo(f"Resuming {rollout.name} from what is published:", err=True)
    for line in _published_lines(kubectl, rollout):
        click.echo(line, err=True)
    act(kubectl, rollout.name, ActionType.ADOPT, options)


@click.command("reset", cls=Command)
@NAME
@action_options(reason=True, confirms=True)
@pass_kubectl
def reset(kubectl: Kubectl, name: str | None, *, options: ActionOptions) -> None:
    """Start from the beginning in spite of the flag document in the cluster; users lose the features until their phase.

    For a document that the status does not know. To keep what users have, use `adopt`.
    """
    rollout = read_rollout(kubectl, name)
    lines = [f"Starting {rollout.name} from the beginning. Users lose what is published until its phase begins:"]
    confirm([*lines, *_published_lines(kubectl, rollout)], "Reset?", yes=options.yes)
    act(kubectl, rollout.name, ActionType.RESET, options)


def _published_lines(kubectl: Kubectl, rollout: SessionRollout) -> list[str]:
    document = published(read_document(kubectl, rollout))
    return [f"  {feature}: {text_of(document, feature)}" for feature in document.audiences]


@click.command("restart", cls=Command)
@NAME
@action_options(reason=True, confirms=True)
@pass_kubectl
def restart(kubectl: Kubectl, name: str | None, *, options: ActionOptions) -> None:
    """Restart the workload: replace its Pods, as `kubectl rollout restart` does."""
    _change_workload(kubectl, name, ActionType.RESTART_WORKLOAD, options)


def _change_workload(kubectl: Kubectl, name: str | None, action: ActionType, options: ActionOptions) -> None:
    rollout = read_rollout(kubectl, name)
    if rollout.spec.workload is None:
        raise refusal(f"{rollout.name} has no `spec.workload`, which must name the Deployment")
    deployment = f"Deployment {rollout.spec.workload.name}"
    if action is ActionType.RESTART_WORKLOAD:
        confirm([f"Restarting {deployment}: all Pods are replaced."], "Restart?", yes=options.yes)
    else:
        confirm([f"Rolling back {deployment} to its previous revision."], "Roll back?", yes=options.yes)
    act(kubectl, rollout.name, action, options)
