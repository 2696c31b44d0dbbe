"""The hold timer, a clock that stops: how long an audience is kept. Only time with evidence for every criterion counts.

The timer starts with the first evidence. It pauses while evidence is missing (`missing_evidence` says why), while an
emergency disables a feature of the phase, and while the rollout is paused, suspended or stalled. Each pause moves its end:
outages extend the hold.
"""

from datetime import timedelta

from session_rollout.api.enums import CheckKind, DecisionAction, DecisionReason, EventReason, Stage, Verdict
from session_rollout.api.quantities import duration
from session_rollout.core.context import DecisionContext, StageResult


def missing_evidence(context: DecisionContext) -> tuple[str, ...]:
    """Criteria with another verdict than Pass or Fail, and guards that cannot be queried."""
    criteria = [record.message for record in context.checks_of(CheckKind.CRITERION) if not record.verdict.is_evidence]
    guards = [record.message for record in context.checks_of(CheckKind.GUARD) if record.verdict is Verdict.PROVIDER_ERROR]
    return (*criteria, *guards)


def await_features(features: tuple[str, ...], subject: str) -> StageResult | None:
    """What to do while an emergency disables these features; None when there is none."""
    if not features:
        return None
    causes = tuple(f"{name} is disabled in an emergency" for name in features)
    next_actions = (f"create an `EmergencyEnable` action for {', '.join(features)}, or an `Abort` action",)
    return StageResult(DecisionAction.WAIT, DecisionReason.FEATURE_DISABLED, f"{subject}: {causes[0]}", causes, next_actions)


def advance_hold(context: DecisionContext, problems: tuple[str, ...]) -> None:
    """Start, pause, resume and move the timer of the running step or of the bake; `problems` stall the rollout."""
    stopped_by = _stop_reason(context, problems)
    if context.awaits_results and stopped_by is None:
        return  # whether this time counts is known when the results are here
    current, increment = context.current, context.increment
    if current.stage is Stage.STEP and current.published_time is not None and increment is not None:
        run_timer(context, increment.hold, stopped_by=stopped_by)
    elif current.stage is Stage.BAKE:
        run_timer(context, duration(context.spec.bake), stopped_by=stopped_by)


def _stop_reason(context: DecisionContext, problems: tuple[str, ...]) -> DecisionReason | None:
    """Why the timer is paused whatever the evidence says; None when only evidence decides."""
    if context.spec.suspend:
        return DecisionReason.SUSPENDED
    if problems:
        return DecisionReason.INVALID_SPEC
    if context.status.paused_by:
        return DecisionReason.PAUSED
    return DecisionReason.FEATURE_DISABLED if context.disabled_in(context.phase) else None


def run_timer(context: DecisionContext, hold: timedelta, *, stopped_by: DecisionReason | None = None) -> None:
    """Bring `holdUntil`, `holdPausedTime` and `holdPausedReason` up to date for a hold of this length."""
    current, missing = context.current, missing_evidence(context)
    reason = stopped_by or (DecisionReason.AWAITING_EVIDENCE if missing else None)
    if current.hold_until is None:
        if reason is None:
            context.move(hold_until=context.now + hold)
        return
    if current.hold_paused_time is None:
        if context.unobserved == timedelta.max:
            context.move(hold_until=context.now + hold)
        elif context.unobserved:
            context.move(hold_until=current.hold_until + context.unobserved)
    paused = current.hold_paused_time is not None
    if reason is not current.hold_paused_reason or paused is (reason is None):
        _change_pause(context, reason, missing)


def _change_pause(context: DecisionContext, reason: DecisionReason | None, missing: tuple[str, ...]) -> None:
    """Pause the timer, resume it, or pause it for another reason; events tell when evidence is lost and when it is back."""
    before, paused = context.current.hold_paused_reason, context.current.hold_paused_time
    if reason is None and paused is not None and context.current.hold_until is not None:
        context.move(hold_until=context.current.hold_until + (context.now - paused), hold_paused_time=None)
    elif paused is None:
        context.move(hold_paused_time=context.now)
    context.move(hold_paused_reason=reason)
    if reason is DecisionReason.AWAITING_EVIDENCE:
        context.record_event(EventReason.EVIDENCE_LOST, "the hold timer is paused: " + "; ".join(missing))
    elif before is DecisionReason.AWAITING_EVIDENCE:
        context.record_event(EventReason.EVIDENCE_BACK, "evidence is available again for every criterion and guard")
