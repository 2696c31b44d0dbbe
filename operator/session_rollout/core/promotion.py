"""Promotion: when a step is complete, and the only place where an audience grows.

`_STEP_RULES` is the order of what must hold before a step is promoted; the first rule that is not satisfied says what the
rollout waits for. Before these rules, `decide` deals with guards, pauses, `suspend` and an invalid spec; after them,
`raise_audience` waits for a window. It is the only function that adds a percentage or a group. The rollout itself is promoted
at the end of the bake, in `stages._bake`.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Final

from session_rollout.api.enums import CheckKind, DecisionAction, DecisionReason, EventReason, Outcome, Stage, Verdict
from session_rollout.api.phases import OnDeadline, Phase
from session_rollout.api.quantities import duration, format_duration
from session_rollout.api.status import AwaitedApproval
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.criteria import forget_criteria, restart_criteria
from session_rollout.core.guards import hold_back
from session_rollout.core.hold import await_features, missing_evidence
from session_rollout.core.rollback import begin_rollback, breach_uid
from session_rollout.core.steps import Increment, increment_after, increment_with, increments, percent_text
from session_rollout.core.windows import next_opening


def running_phase(context: DecisionContext) -> Phase:
    """The phase that is running."""
    phase = context.phase
    assert phase is not None, "generation.conflict stalls a rollout whose phase has vanished"
    return phase


def first_increment(context: DecisionContext) -> Increment:
    """The increment with which the running phase begins: the one that is published already, else its first."""
    phase, record = running_phase(context), context.status.phase(context.current.phase)
    published = increment_with(phase, Decimal(record.percent), record.groups) if record is not None else None
    return published or increments(phase)[0]


def raise_audience(context: DecisionContext, increment: Increment) -> StageResult | None:
    """Enter a step with this audience; waits for a window unless an action skips the checks."""
    if result := hold_back(context):
        return result
    opening = next_opening(context.spec.windows, context.now)
    if opening > context.now and context.current.promoted_by is None:
        return StageResult(
            DecisionAction.WAIT,
            DecisionReason.AWAITING_WINDOW,
            f"waiting for the window that opens {opening:%a %H:%M} UTC",
            ("no window is open now",),
            (f"wait until the window opens at {opening:%Y-%m-%d %H:%M} UTC",),
            next_time=opening,
        )
    phase, current = running_phase(context), context.current
    percent = percent_text(increment.percent)
    context.mark(phase.name, percent=percent, groups=increment.groups, features=phase.features)
    context.enter(
        Stage.STEP,
        step=increment.step,
        increment=increment.index,
        percent=percent,
        groups=increment.groups,
        approved_by=current.approved_by if increment.step == current.step else None,
    )
    restart_criteria(context)
    return None


def run_step(context: DecisionContext) -> StageResult | None:
    """Keep the audience until every rule lets the step be promoted, or a `Promote` action skips the rules."""
    increment = context.increment
    assert increment is not None, "generation.conflict stalls a rollout whose step has vanished"
    if context.current.published_time is None:
        return StageResult(
            DecisionAction.PUBLISH,
            DecisionReason.PUBLISHING,
            f"publishing {increment.audience}",
            (f"the flag document with {increment.audience} has not been read back yet",),
            ("wait until the ConfigMap contains the document",),
        )
    if context.current.promoted_by is None:
        for rule in _STEP_RULES:
            if result := rule(context, increment):
                return result
            if context.current.stage is not Stage.STEP:
                return None  # a deadline started a rollback
    return _promote_step(context, increment)


def _awaits_results(context: DecisionContext, _: Increment) -> StageResult | None:
    """While results are on their way, the last decision stands: nothing is decided on older verdicts."""
    return repeat_decision(context) if context.awaits_results and context.current.hold_until is not None else None


def repeat_decision(context: DecisionContext) -> StageResult:
    """The decision that stands in status."""
    last = context.observed.rollout.status.decision
    return StageResult(last.action, last.reason, last.message, last.details, last.next_actions, last.next_time, last.approvals)


def _awaits_features(context: DecisionContext, _: Increment) -> StageResult | None:
    return await_features(context.disabled_in(context.phase), "the hold timer is paused")


def _awaits_evidence(context: DecisionContext, _: Increment) -> StageResult | None:
    missing = missing_evidence(context)
    if not missing and context.current.hold_until is not None:
        return None
    timer = "the hold timer is paused" if context.current.hold_until else "the hold has not started"
    message = missing[0] if missing else "evidence is not available yet"
    return StageResult(
        DecisionAction.WAIT,
        DecisionReason.AWAITING_EVIDENCE,
        message,
        (*missing[:7], timer),
        ("wait until evidence is available for every criterion and guard",),
    )


def _awaits_hold(context: DecisionContext, increment: Increment) -> StageResult | None:
    until = context.current.hold_until
    assert until is not None
    if context.now >= until:
        return None
    criteria = context.checks_of(CheckKind.CRITERION)
    failing = tuple(record.message for record in criteria if record.verdict is Verdict.FAIL)
    message = f"holding {increment.audience} for {format_duration(increment.hold)}" + (f"; {failing[0]}" if failing else "")
    details = failing or ("the hold is not complete",)
    return StageResult(DecisionAction.HOLD, DecisionReason.HOLDING, message, details, next_time=until)


def _awaits_criteria(context: DecisionContext, increment: Increment) -> StageResult | None:
    failing = tuple(record.message for record in context.criteria_not_passing())
    if not failing:
        return None
    phase, until = running_phase(context), context.current.hold_until
    deadline = until + duration(phase.deadline) if phase.deadline and until else None
    if deadline is None or context.now < deadline:
        next_actions = ("wait until all criteria pass, or create a `Promote` action with a reason",)
        reason = DecisionReason.CRITERIA_NOT_MET
        return StageResult(DecisionAction.WAIT, reason, failing[0], failing, next_actions, next_time=deadline)
    limit = format_duration(duration(phase.deadline or "0s"))
    causes = (f"the deadline of {limit} after the hold of step {increment.step} has passed", *failing)
    if phase.on_deadline is OnDeadline.ROLLBACK:
        begin_rollback(context, Outcome.ROLLED_BACK, causes, breach_uid(context, "deadline"))
        return None
    message = f"deadline exceeded: {failing[0]}"
    next_actions = ("wait until all criteria pass, or create an `Abort` action",)
    return StageResult(DecisionAction.STALL, DecisionReason.DEADLINE_EXCEEDED, message, causes, next_actions)


def _awaits_confirmation(context: DecisionContext, _: Increment) -> StageResult | None:
    """Every criterion has passed for at least one check interval."""
    times = [record.time for record in context.checks_of(CheckKind.CRITERION) if record.time]
    ready = max(times, default=context.now - context.interval) + context.interval
    if context.now >= ready:
        return None
    message = "all criteria have passed for less than one check interval"
    reason = DecisionReason.CONFIRMING_CRITERIA
    return StageResult(DecisionAction.HOLD, reason, message, (message,), next_time=ready)


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
    _awaits_results,  # every query has a result
    _awaits_features,  # no feature of the phase is disabled in an emergency
    _awaits_evidence,  # every criterion has a verdict, and the timer runs
    _awaits_hold,  # the hold is complete
    _awaits_criteria,  # every criterion passes
    _awaits_confirmation,  # ... and has for a check interval
    _awaits_approval,  # the step is approved, where that is required
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
        forget_criteria(context)
        context.enter(Stage.VERIFICATION)
    message = f"{increment.audience}: {f'promoted by {skipped_by}' if skipped_by else passed}"
    context.record_event(EventReason.STEP_PASSED, message, at=here, by=skipped_by)
    return None
