"""SessionRolloutActions: each is carried out or rejected once, and what it changed is in status before the response is written.

An action is identified by its UID. Its response is kept in `status.processedActions` until it has been read back, so that a
crash between the status write and the response repeats the response and not the action. Nothing reads the history but users.
"""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Final

from session_rollout.api.action import SessionRolloutAction
from session_rollout.api.enums import ActionReason, ActionType, CheckKind, CheckReason, EventReason, Outcome, Stage, Verdict
from session_rollout.api.quantities import format_duration
from session_rollout.api.status import PROCESSED_LENGTH
from session_rollout.api.status_records import AnsweredAction, CheckRecord
from session_rollout.core import workload
from session_rollout.core.adoption import adopt, reset
from session_rollout.core.clocks import creation_time
from session_rollout.core.context import DecisionContext
from session_rollout.core.emergencies import emergency_disable, emergency_enable, forget_unknown, is_in_force, unknown_features
from session_rollout.core.gates import retry_checks
from session_rollout.core.generation import restart
from session_rollout.core.inputs import UNDONE, current_gates
from session_rollout.core.migration_actions import (
    backup_data,
    migrate_down,
    repair_data,
    restore_data,
    retry_failed,
    retry_migration,
)
from session_rollout.core.observed import Answer
from session_rollout.core.outdated import note_protection, reject_older, reject_outdated
from session_rollout.core.placebo import begin_again
from session_rollout.core.promotion import PROMOTE_VALID
from session_rollout.core.publication import is_published
from session_rollout.core.rollback import begin_rollback, still_given
from session_rollout.errors import ActionRejected

EMERGENCY: Final = frozenset({ActionType.EMERGENCY_DISABLE, ActionType.EMERGENCY_ENABLE})
WHILE_KEPT: Final = frozenset({ActionType.EMERGENCY_DISABLE, ActionType.ADOPT, ActionType.RESET})
RELEASES: Final = frozenset(
    {ActionType.EMERGENCY_ENABLE, ActionType.RESUME, ActionType.RETRY, ActionType.ADOPT, ActionType.RESET}
)
RESERVED_ANSWERS: Final = 8  # places in `status.processedActions` that only actions which protect users may take


def apply_actions(context: DecisionContext) -> None:
    """Carry out or reject every action without a response, oldest first; emergencies before all others."""
    _forget_settled(context)
    for action in _in_order(context):
        _apply(context, action)


def _in_order(context: DecisionContext) -> list[SessionRolloutAction]:
    """The actions in the order in which they are carried out.

    Of several of one second, what protects users wins: it comes after the actions that it undoes, such as a `Resume`, and before those
    that it makes impossible, such as a `Promote`.
    """

    def turn(action: SessionRolloutAction) -> tuple[bool, datetime, int]:
        kind = action.spec.action
        rank = 0 if kind in RELEASES else 1 if kind.protects_users else 2
        return kind not in EMERGENCY, creation_time(context, action), rank

    return sorted(context.observed.actions, key=turn)


def apply_only(context: DecisionContext, kinds: frozenset[ActionType], refusal: ActionRejected | None = None) -> None:
    """Carry out actions of these kinds; the others are rejected for this reason, or wait when there is none."""
    _forget_settled(context)
    for action in _in_order(context):
        if action.spec.action in kinds or refusal is not None:
            _apply(context, action, None if action.spec.action in kinds else refusal)


def _forget_settled(context: DecisionContext) -> None:
    """Drop the responses that were read back from their actions, or whose action is gone, and names that were shown for long enough."""
    forget_unknown(context)
    left = tuple(answer for answer in context.status.processed_actions if answer.uid not in context.observed.settled_actions)
    if left != context.status.processed_actions:
        context.change(processed_actions=left)


def _apply(context: DecisionContext, action: SessionRolloutAction, refusal: ActionRejected | None = None) -> None:
    answer = next((known for known in context.status.processed_actions if known.uid == action.uid), None)
    if answer is None:
        answer = _carry_out(context, action, refusal)
        if len(context.status.processed_actions) < PROCESSED_LENGTH and answer.reason is not ActionReason.TOO_MANY_ACTIONS:
            context.change(processed_actions=(*context.status.processed_actions, answer))
    if not answer.accepted or is_in_force(context, action):
        context.effects.append(Answer(answer.name, answer.uid, answer.accepted, answer.reason, answer.message))


def _carry_out(context: DecisionContext, action: SessionRolloutAction, refusal: ActionRejected | None) -> AnsweredAction:
    """The response to an action after it was carried out or rejected, and its event."""
    note_protection(context, action)
    try:
        if refusal is not None:
            raise refusal
        message, event = _execute(context, action), EventReason.ACTION_ACCEPTED
        reason = ActionReason.UNKNOWN_FEATURE if unknown_features(context, action) else ActionReason.ACCEPTED
    except ActionRejected as rejection:
        message, reason, event = str(rejection), rejection.reason, EventReason.ACTION_REJECTED
    context.record_event(event, f"{action.spec.action}: {message}", by=action.name)
    return AnsweredAction(
        uid=action.uid,
        name=action.name,
        accepted=event is EventReason.ACTION_ACCEPTED,
        reason=reason,
        message=message,
        time=context.now,
    )


def _execute(context: DecisionContext, action: SessionRolloutAction) -> str:
    kind, waiting = action.spec.action, len(context.status.processed_actions)
    if waiting >= PROCESSED_LENGTH - RESERVED_ANSWERS and not kind.protects_users:
        raise ActionRejected(
            ActionReason.TOO_MANY_ACTIONS, f"{waiting} actions on this rollout are waiting for a response; try again later"
        )
    if context.status.flags.adoption_required and kind not in WHILE_KEPT:
        message = "the flag document gives more than the status knows; create an `Adopt` or a `Reset` action first"
        raise ActionRejected(ActionReason.ADOPTION_REQUIRED, message)
    if context.spec.suspend and kind not in EMERGENCY:
        raise ActionRejected(ActionReason.SUSPENDED, "the rollout is suspended; set `spec.suspend` to false first")
    reject_outdated(context, action)
    return _HANDLERS[kind](context, action)


# --- the rollout


def _pause(context: DecisionContext, action: SessionRolloutAction) -> str:
    _require_running(context)
    if context.status.paused_by:
        raise ActionRejected(ActionReason.ALREADY_PAUSED, f"the rollout is already paused by {context.status.paused_by}")
    context.pause(action.name, action.spec.reason)
    context.record_event(EventReason.PAUSED, action.spec.reason or "paused by an action", by=action.name)
    return "paused; guards still protect users"


def _resume(context: DecisionContext, action: SessionRolloutAction) -> str:
    if not context.status.paused_by:
        raise ActionRejected(ActionReason.NOT_PAUSED, "the rollout is not paused")
    context.resume()
    context.record_event(EventReason.RESUMED, action.spec.reason or "resumed by an action", by=action.name)
    return "resumed"


def _abort(context: DecisionContext, action: SessionRolloutAction) -> str:
    if context.current.rollback_uid != action.uid:  # else the flag document had it before the status
        _require_running(context)
        begin_rollback(context, Outcome.ABORTED, (action.spec.reason,), action.uid)
    return f"rolling back with scope {context.spec.rollback.scope}"


def _retry(context: DecisionContext, action: SessionRolloutAction) -> str:
    _require_generation(context, action)
    if context.status.outcome in UNDONE:
        retry_failed(context, action)
        context.resume()
        restart(context)
        return "restarting with the phase that was rolled back"
    if retry_failed(context, action):
        return "retrying the failed migration"
    if retry_checks(context, action):
        return "running the Job of the failed check again"
    if begin_again(context):
        return "beginning the placebo step again, without its evidence"
    raise ActionRejected(
        ActionReason.NOTHING_TO_RETRY,
        "nothing to retry: the generation was not rolled back, neither a migration nor the Job of a check has failed, and no placebo step"
        " is held",
    )


def _promote(context: DecisionContext, action: SessionRolloutAction) -> str:
    _require_recent(context, action)
    _require_step(context, action)
    _require_percent(context, action)
    _require_promotable(context)
    reject_older(context, action, context.current.published_time, "the audience of the step was published")
    context.move(promoted_by=action.name, promote_time=creation_time(context, action))
    where = f"step {action.spec.step} of phase {action.spec.phase}"
    return f"completing {where} without waiting for its hold, criteria or approval: {action.spec.reason}"


def _approve(context: DecisionContext, action: SessionRolloutAction) -> str:
    return _approve_gate(context, action) if action.spec.check else _approve_step(context, action)


def _approve_step(context: DecisionContext, action: SessionRolloutAction) -> str:
    _require_step(context, action)
    increment, where = context.increment, f"step {action.spec.step} of phase {action.spec.phase}"
    if increment is None:
        raise ActionRejected(ActionReason.STALLED, f"{where} is no longer in the spec; change the spec first")
    if not increment.approval:
        raise ActionRejected(ActionReason.NO_APPROVAL_NEEDED, f"{where} does not require approval")
    if not increment.last_of_step:
        message = f"{where} is a ramp that is at {increment.audience}; approve it at its end, when it waits for approval"
        raise ActionRejected(ActionReason.NOT_PUBLISHED, message)
    if context.current.hold_until is None:  # nobody can have seen anything of it: the answer was for the step before
        message = f"the hold of {where} has not begun; approve it when it waits for approval, or at the earliest in its hold"
        raise ActionRejected(ActionReason.NOT_PUBLISHED, message)
    reject_older(context, action, context.current.hold_until - increment.hold, f"the hold of {where} began")
    context.move(approved_by=action.name)
    return f"{where} is approved"


def _approve_gate(context: DecisionContext, action: SessionRolloutAction) -> str:
    _require_generation(context, action)
    kind, gates = current_gates(context.rollout)
    waiting = [gate.name for gate in gates if gate.approval]
    name = action.spec.check or ""
    if kind is None or kind is CheckKind.AFTER_ROLLBACK or name not in waiting:
        allowed = ", ".join(waiting) or "none"
        message = f"`check` is {name}, which is not a gate that awaits approval now; allowed: {allowed}"
        raise ActionRejected(ActionReason.UNKNOWN_CHECK, message)
    if kind is CheckKind.VERIFICATION:
        reject_older(context, action, context.current.stage_start_time, "the verification of the phase began")
        _require_features(context)  # what nobody has cannot be verified
    context.put_check(
        CheckRecord(
            name=name,
            kind=kind,
            verdict=Verdict.PASS,
            reason=CheckReason.APPROVED,
            time=context.now,
            message=f"{name}: approved by {action.name}",
        )
    )
    return f"{name} is approved"


# --- the workload


def _restart_workload(context: DecisionContext, _: SessionRolloutAction) -> str:
    name = _workload(context)
    workload.request_restart(context)
    return f"replacing the Pods of {name}"


def _undo_workload(context: DecisionContext, _: SessionRolloutAction) -> str:
    name = _workload(context)
    workload.request_undo(context)
    return f"rolling {name} back to its previous revision"


def _workload(context: DecisionContext) -> str:
    if context.spec.workload is None:
        raise ActionRejected(ActionReason.NO_WORKLOAD, "`spec.workload` is not set; it must name the Deployment")
    return context.spec.workload.name


# --- conditions of several actions


def _require_running(context: DecisionContext) -> None:
    if context.current.stage is Stage.ENDED:
        raise ActionRejected(ActionReason.NOT_RUNNING, f"the rollout has ended ({context.status.outcome})")
    if context.current.stage is Stage.ROLLING_BACK:
        left = f"; {', '.join(names)} still on in the flag document" if (names := still_given(context)) else ""
        raise ActionRejected(ActionReason.ALREADY_ROLLING_BACK, f"the rollout is already rolling back{left}")


def _require_generation(context: DecisionContext, action: SessionRolloutAction) -> None:
    running = context.status.observed_generation
    if action.spec.generation != running:
        message = f"`generation` is {action.spec.generation}, but generation {running} is running"
        raise ActionRejected(ActionReason.OTHER_GENERATION, message)


def _require_promotable(context: DecisionContext) -> None:
    """The step can be completed now: an action that cannot act is rejected, not forgotten."""
    if context.status.paused_by:
        raise ActionRejected(ActionReason.PAUSED, f"the rollout is {context.pause_text}; create a `Resume` action first")
    if context.problems:
        raise ActionRejected(ActionReason.STALLED, f"the rollout is stalled: {context.problems[0]}")
    if not is_published(context):
        raise ActionRejected(ActionReason.NOT_PUBLISHED, "the audience of the step has not been read back yet; try again")
    _require_features(context)


def _require_features(context: DecisionContext) -> None:
    if names := context.off_here:
        message = f"{names[0]} is off by an emergency; create an `EmergencyEnable` action first, and wait until it is published"
        raise ActionRejected(ActionReason.FEATURE_DISABLED, message)


def _require_step(context: DecisionContext, action: SessionRolloutAction) -> None:
    _require_running(context)
    _require_generation(context, action)
    current = context.current
    in_step = current.stage is Stage.STEP
    if not in_step or (action.spec.phase, action.spec.step) != (current.phase, current.step):
        where = f"at step {current.step} of phase {current.phase}" if in_step else f"in stage {current.stage}"
        message = f"the action targets step {action.spec.step} of phase {action.spec.phase}, but the rollout is {where}"
        raise ActionRejected(ActionReason.OTHER_STEP, message)
    if action.spec.percent is not None and Decimal(action.spec.percent) != Decimal(current.percent):
        message = (
            f"`percent` is {action.spec.percent}, but step {current.step} of phase {current.phase} is at {current.percent}%"
        )
        raise ActionRejected(ActionReason.OTHER_STEP, message)


def _require_recent(context: DecisionContext, action: SessionRolloutAction) -> None:
    """Whoever skips the checks has seen the application now, not before an outage of the operator."""
    if context.now - creation_time(context, action) > PROMOTE_VALID:
        message = f"the action was created more than {format_duration(PROMOTE_VALID)} ago; look at the application again"
        raise ActionRejected(ActionReason.EXPIRED, message)


def _require_percent(context: DecisionContext, action: SessionRolloutAction) -> None:
    """Whoever sends an action twice, or did not see that of somebody else, does not mean the end of the ramp, too."""
    phase, current = context.phase, context.current
    is_ramp = phase is not None and current.step <= len(phase.steps) and phase.steps[current.step - 1].ramp is not None
    if is_ramp and action.spec.percent is None:
        message = (
            f"step {current.step} of phase {current.phase} is a ramp, so `percent` must be what it is at: {current.percent}"
        )
        raise ActionRejected(ActionReason.OTHER_STEP, message)


_HANDLERS: Final[dict[ActionType, Callable[[DecisionContext, SessionRolloutAction], str]]] = {
    ActionType.EMERGENCY_DISABLE: emergency_disable,
    ActionType.EMERGENCY_ENABLE: emergency_enable,
    ActionType.PAUSE: _pause,
    ActionType.RESUME: _resume,
    ActionType.ABORT: _abort,
    ActionType.RETRY: _retry,
    ActionType.ADOPT: adopt,
    ActionType.RESET: reset,
    ActionType.PROMOTE: _promote,
    ActionType.APPROVE: _approve,
    ActionType.RESTORE_DATA: restore_data,
    ActionType.RETRY_MIGRATION: retry_migration,
    ActionType.BACKUP_DATA: backup_data,
    ActionType.REPAIR_DATA: repair_data,
    ActionType.MIGRATE_DOWN: migrate_down,
    ActionType.RESTART_WORKLOAD: _restart_workload,
    ActionType.UNDO_WORKLOAD: _undo_workload,
}  # read-only actions never come here: controller.on_demand responds to them
