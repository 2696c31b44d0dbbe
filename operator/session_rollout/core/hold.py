"""The hold timer: how long an audience is kept. It counts only time in which every criterion has evidence.

The timer starts with the first evidence, pauses while evidence is missing (`missing_evidence` says why) or while the
rollout is paused, suspended or stalled, and moves its end by every pause: outages extend the hold.
"""

from datetime import timedelta

from session_rollout.api.enums import CheckKind, EventReason, Stage, Verdict
from session_rollout.api.quantities import duration
from session_rollout.core.context import DecisionContext


def missing_evidence(context: DecisionContext) -> tuple[str, ...]:
    """Why the time that passes now does not count: a criterion without a verdict, or a guard that cannot be queried."""
    criteria = [record.message for record in context.checks_of(CheckKind.CRITERION) if not record.verdict.is_evidence]
    guards = [record.message for record in context.checks_of(CheckKind.GUARD) if record.verdict is Verdict.PROVIDER_ERROR]
    disabled = [f"{name} is disabled in an emergency" for name in context.disabled_here()]
    return (*disabled, *criteria, *guards)


def advance_hold(context: DecisionContext, problems: tuple[str, ...]) -> None:
    """Start, pause, resume and move the timer of the running step or of the bake; `problems` stall the rollout."""
    paused = (f"paused by {context.status.paused_by}",) if context.status.paused_by else ()
    suspended = ("suspended",) if context.spec.suspend else ()
    stopped_by = (*paused, *suspended, *problems)
    if context.awaits_results and not stopped_by:
        return  # the time until the result is counted or not when it is here
    current, increment = context.current, context.increment
    if current.stage is Stage.STEP and current.published_time is not None and increment is not None:
        run_timer(context, increment.hold, stopped_by=stopped_by)
    elif current.stage is Stage.BAKE:
        run_timer(context, duration(context.spec.bake), stopped_by=stopped_by)


def run_timer(context: DecisionContext, hold: timedelta, *, stopped_by: tuple[str, ...] = ()) -> None:
    """Bring `holdUntil` and `holdPausedTime` up to date for a hold of this length."""
    current, missing = context.current, (*stopped_by, *missing_evidence(context))
    if current.hold_until is None:
        if not missing:
            context.move(hold_until=context.now + hold)
        return
    if current.hold_paused_time is not None:
        if not missing:
            context.move(hold_until=current.hold_until + (context.now - current.hold_paused_time), hold_paused_time=None)
            context.record_event(EventReason.EVIDENCE_BACK, "the hold timer runs again")
        return
    if context.unobserved == timedelta.max:
        context.move(hold_until=context.now + hold)
    elif context.unobserved:
        context.move(hold_until=current.hold_until + context.unobserved)
    if missing:
        context.move(hold_paused_time=context.now)
        if not stopped_by:
            context.record_event(EventReason.EVIDENCE_LOST, "the hold timer is paused: " + "; ".join(missing))
