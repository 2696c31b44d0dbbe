"""Placebo steps: users are divided by the variants of their flags as in the next step, and nobody has the features.

Whatever a comparison shows then is about itself: which events are counted, by which variant and cell, or chance. So it rolls nothing
back, it stalls the rollout. What it has shown counts for no other step: `evidence` starts it again when users get the features.
"""

from session_rollout.api.checks import Check
from session_rollout.api.enums import CheckKind, DecisionAction, DecisionReason, Stage, Verdict
from session_rollout.core.clocks import is_guard
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.criteria import not_evaluated, restart_criteria
from session_rollout.core.evidence import is_of_placebo, restarted
from session_rollout.core.hold import acts, judge_again


def await_comparisons(context: DecisionContext) -> StageResult | None:
    """The stall while a comparison shows harm that nobody can have suffered; a `Promote` action skips the criteria alone."""
    criteria = context.phase.criteria if context.phase is not None and context.current.promoted_by is None else ()
    guards = tuple(guard for guard in context.spec.guards if acts(guard))
    checks: tuple[Check, ...] = (*guards, *(criterion for criterion in criteria if not criterion.dry_run))
    compared = (check for check in checks if is_of_placebo(context, check))
    records = (context.check(CheckKind.GUARD if is_guard(check) else CheckKind.CRITERION, check.name) for check in compared)
    failing = tuple({record.name: record.message for record in records if record.verdict is Verdict.FAIL}.values())
    if not failing:
        return None
    return StageResult(
        DecisionAction.STALL,
        DecisionReason.COMPARISON_BROKEN,
        f"nobody has the features, but the comparison shows harm, so it is broken: {failing[0]}",
        ("no user has the features, and no user loses anything: events are counted wrongly, or by another variant", *failing),
        (
            "check which events are counted, and by which `variant` and `cell`",
            retry_text(context),
            "or create an `Abort` action: no user loses anything",
        ),
    )


def retry_text(context: DecisionContext) -> str:
    """How to continue when the application counts as it should."""
    return (
        f"then create a `Retry` action with generation {context.status.observed_generation}: it begins the placebo step again"
    )


def begin_again(context: DecisionContext) -> bool:
    """Hold the placebo step from its beginning, without what its comparisons have shown; False if none is held."""
    current = context.current
    if current.stage is not Stage.STEP or current.placebo is None or current.is_unpublished:
        return False
    judge_again(context)
    timers = ("hold_until", "hold_paused_time", "hold_paused_reason", "deadline_wait")
    context.move(**dict.fromkeys(timers))
    compared = {guard.name for guard in context.spec.guards if is_of_placebo(context, guard)}
    for record in context.checks_of(CheckKind.GUARD):
        if record.name in compared:
            context.put_check(not_evaluated(context, record))
    restart_criteria(context)
    known = context.status.evidence
    context.change(evidence=tuple(restarted(each) if each.phase == current.phase else each for each in known))
    return True
