"""Promotion: when a step is complete, and the only place where an audience grows.

`_STEP_RULES` is the order of what must hold before a step is promoted; the first rule that is not satisfied says what the
rollout waits for. Before these rules, `decide` deals with guards, pauses, `suspend` and an invalid spec; after them,
`raise_audience` waits for a window. It is the only function that adds a percentage or a group. The rollout itself is promoted
at the end of the bake, in `stages._bake`.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Final

from session_rollout.api.enums import (
    CheckKind,
    CheckReason,
    DecisionAction,
    DecisionReason,
    EventReason,
    Outcome,
    Stage,
    Verdict,
)
from session_rollout.api.phases import OnDeadline, Phase
from session_rollout.api.quantities import duration, format_duration
from session_rollout.api.status import AwaitedApproval
from session_rollout.api.status_records import WaitKind
from session_rollout.core.clocks import counted_checks, second_results, warm_up_end
from session_rollout.core.conditions import repeat_decision
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.criteria import criteria_records, forget_criteria, restart_criteria, unmet_criteria
from session_rollout.core.deadline import deadline_passed, next_deadline
from session_rollout.core.drift import await_document
from session_rollout.core.hold import (
    await_features,
    await_guards,
    await_judged_guards,
    await_steady_guards,
    missing_checks,
)
from session_rollout.core.holdback import holdback_fields
from session_rollout.core.missing_evidence import ABORT, await_exposure, remedy, unprotected_text
from session_rollout.core.placebo import await_comparisons
from session_rollout.core.publication import is_published, publishing
from session_rollout.core.refusals import await_requests
from session_rollout.core.rollback import begin_rollback, breach_uid
from session_rollout.core.steps import (
    Increment,
    increment_after,
    increment_from,
    increment_with,
    percent_text,
    placebo_text,
)
from session_rollout.core.unpublished import await_criteria, hold_again, lapse_cause
from session_rollout.core.windows import next_opening

PROMOTE_VALID: Final = timedelta(minutes=5)  # between the creation of a `Promote` action and its effect


def running_phase(context: DecisionContext) -> Phase:
    """The phase that is running."""
    phase = context.phase
    assert phase is not None, "generation.conflict stalls a rollout whose phase has vanished"
    return phase


def first_increment(context: DecisionContext) -> Increment:
    """The increment with which the running phase goes on: the one that is published already, else the first that takes nothing away."""
    phase, record = running_phase(context), context.status.phase(context.current.phase)
    assert record is not None, "the phase has a record from the generation that it is part of"
    published = Decimal(record.percent), record.groups
    wanted = increment_with(phase, *published) or increment_from(phase, *published)
    assert wanted is not None, "generation.conflict stalls a rollout whose steps are below its audience"
    return wanted


def _await_raise(context: DecisionContext) -> StageResult | None:
    """What keeps users from getting more: requests, other writers, emergencies and guards; a window unless an action skips the checks."""
    features = await_features(context.off_here, "no user gets more")
    return await_requests(context) or await_document(context) or features or await_guards(context) or await_window(context)


def await_window(context: DecisionContext) -> StageResult | None:
    """What to do while no window is open; an action that skips the checks does not wait."""
    opening, current = next_opening(context.spec.windows, context.now), context.current
    if opening.time <= context.now or current.promoted_by is not None or current.raised_by is not None:
        return None
    return StageResult(
        DecisionAction.WAIT,
        DecisionReason.AWAITING_WINDOW,
        f"waiting for the window that opens {opening.text()}",
        ("no window is open now",),
        (f"wait until the window opens at {opening.text('%Y-%m-%d %H:%M')}",),
        next_time=opening.time,
    )


def _await_document_before(context: DecisionContext) -> StageResult | None:
    """The document of the decisions before is read back: else this one could not be published either."""
    flags, document = context.status.flags, context.document
    if flags.sha256 is None or (document is not None and document.sha256 == flags.sha256):
        return None
    return publishing("publishing the flag document", "the flag document has not been read back yet")


def raise_audience(context: DecisionContext, increment: Increment) -> StageResult | None:
    """Enter a step with this audience, as soon as nothing keeps users from getting more."""
    blind = await_judged_guards(context) if context.current.placebo is not None else None  # before the first users of the phase
    if result := _await_document_before(context) or _await_raise(context) or blind:
        return result
    phase, current = running_phase(context), context.current
    percent, before = percent_text(increment.percent), context.status.phase(phase.name)
    placebo, known = placebo_text(increment.placebo), before.first_publish_time if before is not None else None
    first = {} if placebo is not None else {"first_publish_time": known or context.now}
    first |= holdback_fields(context, before)
    context.mark(phase.name, percent=percent, groups=increment.groups, placebo=placebo, features=phase.features, **first)
    context.enter(
        Stage.STEP,
        step=increment.step,
        increment=increment.index,
        percent=percent,
        groups=increment.groups,
        placebo=placebo,
        earlier_percent=before.percent if before is not None else None,
        earlier_groups=before.groups if before is not None else (),
        earlier_placebo=before.placebo if before is not None else None,
        raised_by=current.promoted_by,
    )
    restart_criteria(context)
    return None


def holds_back(context: DecisionContext) -> bool:
    """Whether the audience that an earlier decision raised must not be published now: its write failed, and a rule fails since."""
    if not _was_raised_earlier(context):
        return False
    stopped = context.spec.suspend or context.status.paused_by or context.problems
    return bool(stopped) or _await_late_raise(context) is not None


def _was_raised_earlier(context: DecisionContext) -> bool:
    before, current = context.observed.rollout.status.current, context.current
    same = (before.stage, before.stage_start_time) == (current.stage, current.stage_start_time)
    return (current.is_unpublished or context.status.is_release_pending) and same


def _await_late_raise(context: DecisionContext) -> StageResult | None:
    """The same for an audience that an earlier decision raised: perhaps of another process, and guards may have failed since."""
    if context.awaits_results:
        return repeat_decision(context)
    return await_judged_guards(context) or await_criteria(context) or _await_raise(context)


def _forget_old_promote(context: DecisionContext) -> None:
    """Whoever skips the checks has seen the application now, and not when a guard passes, or a request succeeds, much later."""
    by, created = context.current.promoted_by, context.current.promote_time
    if by is None or (created is not None and context.now - created <= PROMOTE_VALID):
        return
    context.void_promote()
    message = f"Promote: it had no effect within {format_duration(PROMOTE_VALID)} and is void; look at the application again"
    context.record_event(EventReason.ACTION_REJECTED, message, by=by)


def run_step(context: DecisionContext) -> StageResult | None:
    """Keep the audience until every rule lets the step be promoted, or a `Promote` action skips the rules."""
    increment = context.increment
    assert increment is not None, "generation.conflict stalls a rollout whose step has vanished"
    _forget_old_promote(context)
    if cause := lapse_cause(context):
        hold_again(context, running_phase(context), cause)
        return None
    if _was_raised_earlier(context) and (result := _await_late_raise(context)):
        return result
    if not (is_published(context) or set(context.off_here) - set(context.still_off)):
        audience = context.current.audience
        return publishing(f"publishing {audience}", f"the flag document with {audience} has not been read back yet")
    for rule in _STEP_RULES if context.current.promoted_by is None else _PROMOTE_RULES:
        if result := rule(context, increment):
            return result
        if context.current.stage is not Stage.STEP:
            return None  # a deadline started a rollback
    return _promote_step(context, increment)


def _awaits_results(context: DecisionContext, _: Increment) -> StageResult | None:
    """While results are on their way, the last decision stands: nothing is decided on older verdicts."""
    return repeat_decision(context) if context.awaits_results and context.current.hold_until is not None else None


def _awaits_first_results(context: DecisionContext, _: Increment) -> StageResult | None:
    return repeat_decision(context) if context.awaits_results else None


def _awaits_requests(context: DecisionContext, _: Increment) -> StageResult | None:
    return await_requests(context) or await_document(context)


def _awaits_features(context: DecisionContext, _: Increment) -> StageResult | None:
    return await_features(context.off_here, "the hold timer is paused")


def _awaits_comparisons(context: DecisionContext, _: Increment) -> StageResult | None:
    return await_comparisons(context)


def _awaits_evidence(context: DecisionContext, increment: Increment) -> StageResult | None:
    checks = missing_checks(context)
    if not checks and context.current.hold_until is not None:
        return None
    missing = tuple(check.message for check in checks)
    no_baseline = any(check.reason is CheckReason.BASELINE_MISSING for check in checks)
    measure = "give the check a bound, or roll the phase back and start it again: a baseline is measured before the first step"
    timer = "the hold timer is paused" if context.current.hold_until else "the hold has not started"
    message = missing[0] if missing else "evidence is not available yet"
    warm = (warm_up_end(context, check.metrics) for check in counted_checks(context))
    if result := await_exposure(context, checks):
        return result
    unprotected = unprotected_text(context)
    waiting = StageResult(
        DecisionAction.WAIT,
        DecisionReason.AWAITING_EVIDENCE,
        message,
        (*unprotected, *dict.fromkeys(missing[:7]), timer),
        (measure if no_baseline else remedy(checks), *([ABORT] if unprotected else ())),
        next_time=min((time for time in warm if time is not None and time > context.now), default=None),
    )
    return _until_deadline(context, increment, waiting, missing)


def _awaits_hold(context: DecisionContext, increment: Increment) -> StageResult | None:
    until, once = context.current.hold_until, second_results(context, increment.hold)
    assert until is not None
    if context.now >= until and not once:
        return None
    failing = tuple(record.message for _, record in criteria_records(context) if record.verdict is Verdict.FAIL)
    message = f"holding {context.current.audience} for {format_duration(increment.hold)}" + (
        f"; {failing[0]}" if failing else ""
    )
    details = failing or ("the hold is not complete",)
    if context.now >= until:
        until = max(once.values())
        details = tuple(f"{name} was measured only once in this hold; waiting for the next result" for name in once)
    return StageResult(DecisionAction.HOLD, DecisionReason.HOLDING, message, details, next_time=until)


def _awaits_guards(context: DecisionContext, increment: Increment) -> StageResult | None:
    return await_steady_guards(context, increment.hold)


def _awaits_criteria(context: DecisionContext, increment: Increment) -> StageResult | None:
    """Every criterion passes, has passed for its share of the hold, and in all of the last evaluations."""
    unmet = unmet_criteria(context, increment.hold)
    if not unmet:
        return None
    failing = tuple(each.message for each in sorted(unmet, key=lambda each: each.confirming))
    known = [each.ready for each in unmet if each.ready is not None]
    ready = max(known) if len(known) == len(unmet) else None
    if all(each.confirming for each in unmet):
        reason = DecisionReason.CONFIRMING_CRITERIA
        waiting = StageResult(DecisionAction.HOLD, reason, failing[0], failing, next_time=ready)
    else:
        next_actions = ("wait until all criteria pass, or create a `Promote` action with a reason",)
        reason = DecisionReason.CRITERIA_NOT_MET
        waiting = StageResult(DecisionAction.WAIT, reason, failing[0], failing, next_actions, next_time=ready)
    return _until_deadline(context, increment, waiting, failing)


def _until_deadline(
    context: DecisionContext, increment: Increment, waiting: StageResult, causes: tuple[str, ...]
) -> StageResult | None:
    """Wait, unless the deadline has passed: then stall, or start a rollback, which returns None."""
    phase = running_phase(context)
    passed, following = deadline_passed(context, phase), next_deadline(context, phase)
    times = [time for time in (waiting.next_time, following) if time is not None]
    if passed is None:
        return replace(waiting, next_time=min(times, default=None))
    limit = format_duration(duration(phase.deadline or "0s"))
    why = f"step {increment.step} waited for longer than its deadline of {limit}"
    if passed is WaitKind.AVAILABILITY:
        why += ", part of it because Prometheus or the operator was unavailable, so it is not rolled back"
    elif increment.placebo:
        why += ", and nobody has the features, so there is nothing to roll back"
    elif phase.on_deadline is OnDeadline.ROLLBACK:
        context.protect()
        begin_rollback(context, Outcome.ROLLED_BACK, (why, *causes), breach_uid(context, "deadline"))
        return None
    message = f"deadline exceeded: {causes[0] if causes else waiting.message}"
    next_actions = ("wait until all criteria pass, or create an `Abort` action",)
    reason = DecisionReason.DEADLINE_EXCEEDED
    return StageResult(DecisionAction.STALL, reason, message, (why, *causes), next_actions, next_time=min(times, default=None))


def _awaits_approval(context: DecisionContext, increment: Increment) -> StageResult | None:
    if not increment.approval or not increment.last_of_step or context.current.approved_by:
        return None
    phase, generation = context.current.phase, context.status.observed_generation
    awaited = AwaitedApproval(phase=phase, step=increment.step)
    if awaited not in context.status.decision.approvals:
        message = f"step {increment.step} of phase {phase}, generation {generation}"
        context.record_event(EventReason.APPROVAL_NEEDED, message)
    message = f"step {increment.step} of phase {phase} requires approval"
    hint = f"create an `Approve` action with generation {generation}, phase {phase}, step {increment.step}"
    reason = DecisionReason.AWAITING_APPROVAL
    return StageResult(DecisionAction.WAIT, reason, message, (message,), (hint,), approvals=(awaited,))


_STEP_RULES: Final[tuple[Callable[[DecisionContext, Increment], StageResult | None], ...]] = (
    _awaits_requests,  # the API server refuses nothing that the rollout needs, and nobody else writes the document
    _awaits_results,  # every query has a result
    _awaits_features,  # no feature of the phase is disabled in an emergency
    _awaits_comparisons,  # in a placebo step, no comparison shows harm
    _awaits_evidence,  # every criterion and guard has a verdict about this audience, and the timer runs
    _awaits_hold,  # the hold is complete
    _awaits_guards,  # no guard fails, or failed lately
    _awaits_criteria,  # every criterion passes, and has for long enough
    _awaits_approval,  # the step is approved, where that is required
)
_PROMOTE_RULES: Final = (
    _awaits_requests,
    _awaits_first_results,  # a guard may have failed while the operator was away
    _awaits_features,  # a guard may have kept the action waiting until the emergency
    _awaits_comparisons,  # a guard that would take the features away as soon as users have them
)


def _promote_step(context: DecisionContext, increment: Increment) -> StageResult | None:
    """Advance to the next audience of the phase, or to its verification after the last."""
    here, skipped_by = context.current, context.current.promoted_by
    passed = (
        "; ".join(record.message for record in context.checks_of(CheckKind.CRITERION))
        or "the hold is complete; the phase has no criteria"
    )
    following = increment_after(running_phase(context), increment, skip_step=skipped_by is not None)
    if following is not None:
        if result := raise_audience(context, following):
            return result
    else:
        if result := await_window(context):
            return result
        forget_criteria(context)
        context.enter(Stage.VERIFICATION)
    message = f"{here.audience}: {f'promoted by {skipped_by}' if skipped_by else passed}"
    context.record_event(EventReason.STEP_PASSED, message, at=here, by=skipped_by)
    return None
