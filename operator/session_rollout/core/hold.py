"""The hold timer, a clock that stops: how long an audience is kept. Only time with evidence for every criterion and guard counts.

The timer starts with the first evidence. It pauses while evidence is missing (`missing_evidence` says why), while an
emergency disables a feature of the phase (in the bake, any feature of the rollout), and while the rollout is paused, suspended or stalled. Each pause moves its end:
outages extend the hold.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from session_rollout.api.checks import Check, Guard, OnBreach
from session_rollout.api.enums import (
    CheckKind,
    CheckReason,
    DecisionAction,
    DecisionReason,
    EventReason,
    Stage,
    Verdict,
)
from session_rollout.api.quantities import format_duration
from session_rollout.api.status_records import CheckRecord, WaitKind
from session_rollout.core.clocks import counted_checks, is_guard, warm_up_end
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.criteria import unmet_criteria
from session_rollout.core.deadline import count_wait, stop_wait
from session_rollout.core.drift import is_contested
from session_rollout.core.evidence import is_counted, metric_of, phase_of
from session_rollout.core.failures import TRAILING_CHECKS, restart_failures
from session_rollout.core.holdback import bake_length
from session_rollout.core.inputs import published_phases
from session_rollout.core.publication import audience_before, is_published
from session_rollout.core.refusals import needed_refusals, stall_reason
from session_rollout.core.unpublished import lapse


@dataclass(frozen=True)
class Missing:
    """A check without evidence about the present audience."""

    message: str
    reason: CheckReason | None
    verdict: Verdict
    warming_up: bool  # its query still covers data from before this audience, or its first result is on its way
    check: str  # its name: a criterion and a guard of one name are about the same events

    @property
    def unavailable(self) -> bool:
        """Whether the provider is the cause: it failed, or has stopped responding."""
        return self.verdict is Verdict.PROVIDER_ERROR or self.reason is CheckReason.STALE_RESULT


def missing_evidence(context: DecisionContext) -> tuple[str, ...]:
    """A sentence for each criterion and guard without evidence about the present audience."""
    return tuple(missing.message for missing in missing_checks(context))


def missing_checks(context: DecisionContext) -> tuple[Missing, ...]:
    """Criteria and guards without a verdict of Pass or Fail about the present audience; a dry run needs none."""
    results = (_missing(context, check) for check in counted_checks(context))
    return tuple(missing for missing in results if missing is not None)


def _missing(context: DecisionContext, check: Check) -> Missing | None:
    """Why a check has no evidence. A guard acts on a breach at any time, but counts for the hold only when it is warm."""
    record = context.check(CheckKind.GUARD if is_guard(check) else CheckKind.CRITERION, check.name)
    warm, measurements = warm_up_end(context, check.metrics), context.observed.measurements
    is_warm = warm is not None and context.now >= warm
    known = [measurement.oldest for name in check.metrics if (measurement := measurements.get(name)) is not None]
    older = warm is not None and any(time < warm for time in known)
    if record.has_evidence and is_warm and not older:
        return None
    if record.verdict is Verdict.PROVIDER_ERROR or (is_warm and not record.has_evidence):
        message = record.message or f"{check.name}: waiting for a query result"
        return Missing(message, record.reason, record.verdict, warming_up=record.reason in _AT_FIRST, check=check.name)
    until = f" until {warm:%H:%M:%S} UTC; its query still covers older data" if warm is not None and not is_warm else ""
    message = f"{check.name}: warming up{until}" if until else f"{check.name}: waiting for a query result"
    return Missing(message, CheckReason.WARMING_UP, Verdict.NOT_EVALUATED, warming_up=True, check=check.name)


_AT_FIRST: Final = {None, CheckReason.WARMING_UP, CheckReason.AWAITING_RESULT, CheckReason.BASELINE_MEASURED}


def await_guards(context: DecisionContext) -> StageResult | None:
    """What to do while a guard fails but does not act yet: it passes again, or acts, before anything is promoted."""
    records = (context.check(CheckKind.GUARD, guard.name) for guard in context.spec.guards if acts(guard))
    failing = tuple(message for record in records if (message := _open_failure(record)) is not None)
    if not failing:
        return None
    next_actions = ("wait until the guard passes, or acts on the breach",)
    return StageResult(DecisionAction.WAIT, DecisionReason.GUARD_FAILING, failing[0], failing, next_actions)


def _open_failure(record: CheckRecord) -> str | None:
    """What a guard fails with; a gap does not end a failure, so that it keeps users from getting more, too."""
    if record.verdict is Verdict.FAIL:
        return record.message
    return f"{record.message}; it failed before that, and has not passed since" if record.failing_time is not None else None


def await_steady_guards(context: DecisionContext, hold: timedelta) -> StageResult | None:
    """The same at the end of a hold of this length: one that failed lately has to pass for as long as a criterion."""
    if result := await_guards(context):
        return result
    waits = {}
    for guard in filter(acts, context.spec.guards):
        recovery = context.check(CheckKind.GUARD, guard.name).recovery_time
        trailing = min(TRAILING_CHECKS * max(context.spec.interval_of(name) for name in guard.metrics), hold)
        if recovery is not None and recovery + trailing > context.now:
            waits[f"{guard.name} passes again; it must pass for {format_duration(trailing)}"] = recovery + trailing
    if not waits:
        return None
    texts, next_actions = tuple(waits), ("wait until each guard has passed for long enough",)
    ready = max(waits.values())
    return StageResult(DecisionAction.WAIT, DecisionReason.GUARD_FAILING, texts[0], texts, next_actions, next_time=ready)


def await_judged_guards(context: DecisionContext) -> StageResult | None:
    """Users get nothing before each guard has a result of now. One that never had events may get some with them."""
    results = (_unjudged(context, guard) for guard in context.spec.guards if acts(guard))
    unjudged = tuple(message for message in results if message is not None)
    if not unjudged:
        return None
    next_actions = ("wait for a result of the guard's metric",)
    return StageResult(DecisionAction.WAIT, DecisionReason.AWAITING_EVIDENCE, unjudged[0], unjudged, next_actions)


def _unjudged(context: DecisionContext, guard: Guard) -> str | None:
    """Why a guard is not judged: it could not be measured, or only in part, which no first user changes.

    The verdict of an earlier process or query is none: its result is on its way.
    """
    record = context.check(CheckKind.GUARD, guard.name)
    if any(name not in context.observed.measurements for name in guard.metrics):
        return f"{guard.name}: waiting for a query result"
    few = record.reason is CheckReason.BELOW_MINIMUM
    absent = record.verdict is Verdict.NO_DATA and record.reason is not None and record.reason.is_absence
    phase = context.status.phase(context.current.phase)
    lost = record.evidence_time is not None and (not record.needs_users or bool(published_phases(context.status)))
    first = not lost and not (phase is not None and phase.is_published)
    early = record.verdict is Verdict.NOT_EVALUATED and _awaits_users(context, guard)
    return None if record.has_evidence or (first and (few or absent)) or early else record.message


def _awaits_users(context: DecisionContext, guard: Guard) -> bool:
    """Whether a guard judges events of which none count yet. In a phase that has users, it need not be judged before each audience."""
    metric, status, current = metric_of(context.spec, guard), context.status, context.current
    if metric is None:
        return False
    phase = status.phase(current.phase)
    had_users = not current.is_unpublished or audience_before(context).has_users
    runs = phase is not None and phase.is_published and had_users
    return runs or not is_counted(status, phase_of(context.spec, status, metric), metric)


def blind_guards(context: DecisionContext, *, before_phase: bool = False) -> tuple[str, ...]:
    """Guards without a verdict of now about the present audience. Before a phase, there may be none, and a baseline is not measured yet."""
    records = context.checks_of(CheckKind.GUARD) if before_phase else ()
    later = {record.name for record in records if record.reason is CheckReason.BASELINE_MISSING}
    guards = [guard for guard in context.spec.guards if acts(guard) and guard.name not in later]
    causes = [_unjudged(context, guard) for guard in guards]
    if not before_phase or published_phases(context.status):
        missing = (_missing(context, guard) for guard in guards)
        causes = [cause or (known.message if known is not None else None) for cause, known in zip(causes, missing, strict=True)]
    return tuple(cause for cause in causes if cause)


def acts(guard: Guard) -> bool:
    """Whether a guard keeps users from getting more, and not only warns or says what it would do."""
    return not guard.dry_run and guard.on_breach is not OnBreach.WARN


def await_features(features: tuple[str, ...], subject: str) -> StageResult | None:
    """What to do while an emergency disables these features; None when there is none."""
    if not features:
        return None
    causes = tuple(f"{name} is off by an emergency" for name in features)
    next_actions = (f"create an `EmergencyEnable` action for {', '.join(features)}, or an `Abort` action",)
    return StageResult(DecisionAction.WAIT, DecisionReason.FEATURE_DISABLED, f"{subject}: {causes[0]}", causes, next_actions)


def advance_hold(context: DecisionContext, problems: tuple[str, ...]) -> None:
    """Start, pause, resume and move the timer of the running step or of the bake; `problems` stall the rollout."""
    stopped_by = _stop_reason(context, problems)
    if context.awaits_results and stopped_by is None:
        _pause_since_last_results(context)
        return
    current, increment = context.current, context.increment
    if current.stage is Stage.STEP and current.published_time is not None and increment is not None:
        run_timer(context, increment.hold, stopped_by=stopped_by)
        count_wait(context, None if stopped_by else _wait_kind(context, increment.hold), increment.hold)
    elif current.stage is Stage.BAKE:
        run_timer(context, bake_length(context), stopped_by=stopped_by)


def _pause_since_last_results(context: DecisionContext) -> None:
    """Results are on their way for longer than they should. Another process would not know since when.

    The hold had begun by then: another leader may have counted a part of that time.
    """
    current, away = context.current, context.unobserved
    if current.hold_until is not None and current.hold_paused_time is None and timedelta(0) < away < timedelta.max:
        missing = missing_evidence(context) or ("results are on their way",)
        since = _last_evaluation(context, _length(context))
        _change_pause(context, DecisionReason.AWAITING_EVIDENCE, missing, since=since)


def _length(context: DecisionContext) -> timedelta:
    """How long the running step or the bake is held."""
    increment = context.increment
    return increment.hold if increment is not None else bake_length(context)


def judge_again(context: DecisionContext) -> None:
    """Users have a feature again after an emergency: what was measured until it is read back is about an audience without it.

    The hold continues, but ends only after as many evaluations as a criterion must pass at the end of one. Who approved the
    step, or promoted it in vain, did not know of the emergency; nor does an audience that was decided and not published.
    """
    lapse(context, "was decided before the emergency ended")
    context.change(flags=context.status.flags.updated(published_time=None))
    context.void_promote()
    context.move(approved_by=None)
    current, length = context.current, _length(context)
    if current.hold_until is not None:
        metrics = {name for check in counted_checks(context) for name in check.metrics}
        interval = max((context.spec.interval_of(name) for name in metrics), default=context.interval)
        left = min(TRAILING_CHECKS * interval, length)
        context.move(hold_until=max(current.hold_until, (current.hold_paused_time or context.now) + left))


def _stop_reason(context: DecisionContext, problems: tuple[str, ...]) -> DecisionReason | None:
    """Why the timer is paused whatever the evidence says; None when only evidence decides."""
    if context.spec.suspend:
        return DecisionReason.SUSPENDED
    if problems:
        return DecisionReason.INVALID_SPEC
    if context.status.paused_by:
        return DecisionReason.PAUSED
    if refusals := needed_refusals(context):
        return stall_reason(refusals)
    if is_contested(context):
        return DecisionReason.DOCUMENT_CONTESTED
    if context.off_here:
        return DecisionReason.FEATURE_DISABLED
    return None if is_published(context) else DecisionReason.PUBLISHING


def _wait_kind(context: DecisionContext, hold: timedelta) -> WaitKind | None:
    """What delays the step: criteria and evidence, or a provider that is unavailable; None while nothing does."""
    missing, until = missing_checks(context), context.current.hold_until
    if any(check.unavailable for check in missing):
        return WaitKind.AVAILABILITY
    late = until is not None and context.now >= until and bool(unmet_criteria(context, hold))
    return WaitKind.EVIDENCE if missing or late else None


def run_timer(context: DecisionContext, hold: timedelta, *, stopped_by: DecisionReason | None = None) -> None:
    """Bring `holdUntil`, `holdPausedTime` and `holdPausedReason` up to date for a hold of this length."""
    current, missing = context.current, missing_evidence(context)
    reason = stopped_by or (DecisionReason.AWAITING_EVIDENCE if missing else None)
    if current.hold_until is None:
        if reason is None:
            context.move(hold_until=context.now + hold)
        return
    if context.unobserved == timedelta.max:
        _restart(context, hold)
    elif context.unobserved and current.hold_paused_time is None:
        # It may have begun before the hold, of which all is left then.
        longest = max(context.now + hold, current.hold_until)
        context.move(hold_until=min(current.hold_until + context.unobserved, longest))
    paused = current.hold_paused_time is not None
    if reason is not current.hold_paused_reason or paused is (reason is None):
        # Only the time between two evaluations with evidence counts. The end of the hold has moved by an absence already.
        is_lost = reason is DecisionReason.AWAITING_EVIDENCE and not context.unobserved
        _change_pause(context, reason, missing, since=_last_evaluation(context, hold) if is_lost else context.now)


def _restart(context: DecisionContext, hold: timedelta) -> None:
    """Nobody knows for how long nobody evaluated the evidence, and what happened since: all of the hold is left."""
    paused = context.current.hold_paused_time
    if context.current.hold_until != (paused or context.now) + hold:
        context.move(hold_until=(paused or context.now) + hold)
        restart_failures(context)


def _last_evaluation(context: DecisionContext, hold: timedelta) -> datetime:
    """When evidence was evaluated last in a hold of this length that has begun; the absence since then is of known length."""
    last, until = context.observed.last_reconcile, context.current.hold_until
    assert last is not None
    assert until is not None
    return min(max(last, until - hold), context.now)


def pause_timer(context: DecisionContext, reason: DecisionReason) -> None:
    """The time until the next decision counts neither for the hold nor for a deadline: a guard has just paused, or nothing can be decided."""
    stop_wait(context)
    if context.current.hold_until is not None and context.current.hold_paused_reason is not reason:
        _change_pause(context, reason, (), since=context.now)


def _change_pause(
    context: DecisionContext, reason: DecisionReason | None, missing: tuple[str, ...], *, since: datetime
) -> None:
    """Pause the timer `since` a time, resume it, or pause it for another reason; events tell when evidence is lost and back."""
    before, paused = context.current.hold_paused_reason, context.current.hold_paused_time
    if reason is None and paused is not None and context.current.hold_until is not None:
        context.move(hold_until=context.current.hold_until + (context.now - paused), hold_paused_time=None)
    elif paused is None:
        context.move(hold_paused_time=since)
    context.move(hold_paused_reason=reason)
    if reason is DecisionReason.AWAITING_EVIDENCE:
        context.record_event(EventReason.EVIDENCE_LOST, "the hold timer is paused: " + "; ".join(missing))
    elif before is DecisionReason.AWAITING_EVIDENCE:
        context.record_event(EventReason.EVIDENCE_BACK, "evidence is available again for every criterion and guard")
