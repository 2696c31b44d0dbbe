"""The running step of a rollout: what an action must name, what completing it now skips, and what follows."""

from datetime import UTC, datetime
from typing import Any

from session_rollout.api.enums import CheckKind, Stage, Verdict
from session_rollout.api.phases import Phase, Step, StepApproval
from session_rollout.api.quantities import duration, format_duration
from session_rollout.api.rollout import SessionRollout
from session_rollout.api.status import AwaitedApproval, Current
from session_rollout.cli.command import refusal
from session_rollout.core.steps import audience_text, percent_text, phase_named


def require_running(rollout: SessionRollout) -> None:
    """Raises Failure when the rollout has ended."""
    if outcome := rollout.status.outcome:
        raise refusal(f"{rollout.name} has ended ({outcome}); no phase is running")


def target_of(rollout: SessionRollout) -> dict[str, Any]:
    """Generation, phase, step and percentage, as an action must name them. Raises Failure when no step is running."""
    current = rollout.status.current
    if current.stage is not Stage.STEP:
        message = rollout.status.decision.message or "the operator has not processed it yet"
        raise refusal(f"{rollout.name} is not currently running a step ({current.stage}): {message}")
    place = {"phase": current.phase, "step": current.step, "percent": current.percent}
    return {"generation": rollout.status.observed_generation, **place}


def running_phase(rollout: SessionRollout) -> Phase:
    """The running phase. Raises Failure when the spec no longer has it."""
    phase = phase_named(rollout.spec, rollout.status.current.phase)
    if phase is None:
        raise refusal(f"{rollout.name} is in phase {rollout.status.current.phase}, which is not in its spec")
    return phase


def next_step(rollout: SessionRollout) -> Step | None:
    """The step after the running one; None in the last step of a phase."""
    steps, number = running_phase(rollout).steps, rollout.status.current.step
    return steps[number] if number < len(steps) else None


def describe_next_step(rollout: SessionRollout) -> str:
    """What follows the running step."""
    step, phase = next_step(rollout), rollout.status.current.phase
    if step is None:
        return f"phase {phase} has no further step"
    held_back = percent_text(rollout.spec.control.held_back)
    if step.ramp is not None:
        audience = audience_text(step.ramp.to, step.groups, held_back=held_back)
        return f"the next step is a ramp to {audience} over {format_duration(duration(step.ramp.over))}"
    hold = format_duration(duration(step.hold or "0s"))
    audience = audience_text(step.percent or "0", step.groups, step.percent if step.placebo else None, held_back)
    return f"the next step is {audience}, held for {hold}"


def skipped_checks(rollout: SessionRollout) -> list[str]:
    """What completing the running step now skips: criteria that have not passed, the rest of the hold, and an approval."""
    status, number = rollout.status, rollout.status.current.step
    criteria = [
        f"  criterion {check.name}: {check.verdict}"
        for check in status.checks
        if check.kind == CheckKind.CRITERION and check.verdict is not Verdict.PASS
    ]
    steps = running_phase(rollout).steps[number - 1 : number]
    awaited = any(step.approval is StepApproval.REQUIRED for step in steps) and status.current.approved_by is None
    return [*criteria, *_rest_of_hold(status.current), *(["  the approval of the step"] if awaited else [])]


def _rest_of_hold(current: Current) -> list[str]:
    """What is left of the hold; nothing when it is complete. While its timer is paused, nobody knows when it ends."""
    until, now = current.hold_until, datetime.now(UTC)
    if until is None:
        return ["  the hold, which has not started"]
    if current.hold_paused_time is not None:
        return [f"  the last {format_duration(until - current.hold_paused_time)} of the hold, whose timer is paused"]
    return [f"  the hold until {until:%Y-%m-%d %H:%M:%S} UTC"] if until > now else []


def require_approval(rollout: SessionRollout) -> None:
    """Raises Failure unless the running step waits for approval now: whoever answers second must not approve the next step."""
    phase, number = running_phase(rollout), rollout.status.current.step
    waiting = [index for index, step in enumerate(phase.steps, start=1) if step.approval is StepApproval.REQUIRED]
    if number not in waiting:
        later = ", ".join(str(index) for index in waiting if index > number)
        hint = f"; step {later} does" if later else ""
        raise refusal(f"step {number} of phase {phase.name} does not require approval{hint}")
    if AwaitedApproval(phase=phase.name, step=number) not in rollout.status.decision.approvals:
        now = rollout.status.decision.message or "no decision yet"
        early = "to approve it in its hold, before it waits, create an `Approve` action that names it"
        raise refusal(f"step {number} of phase {phase.name} does not wait for approval now: {now}; {early}")
