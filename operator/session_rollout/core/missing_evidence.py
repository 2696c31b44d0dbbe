"""What a step says while criteria or guards have no evidence: who has the features, what nobody protects, and what helps."""

from typing import Final

from session_rollout.api.enums import CheckKind, CheckReason, DecisionAction, DecisionReason, Verdict
from session_rollout.api.quantities import duration
from session_rollout.core.clocks import audience_start
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.hold import Missing
from session_rollout.core.placebo import retry_text


def unprotected_text(context: DecisionContext) -> tuple[str, ...]:
    """Which guards protect nobody while the step waits, and whom."""
    records = (context.check(CheckKind.GUARD, guard.name) for guard in context.spec.guards)
    blind = sum(
        record.verdict is not Verdict.NOT_EVALUATED and not record.has_evidence and record.reason is not CheckReason.NOT_EXPOSED
        for record in records
    )
    if not blind or context.current.placebo is not None:
        return ()
    return (
        f"{context.current.audience} keep the features, and {blind} of {len(context.spec.guards)} guards have no evidence: they protect nobody",
    )


ABORT: Final = "to take the features away now, create an `Abort` action"


def remedy(checks: tuple[Missing, ...]) -> str:
    """What helps: some evidence does not come by itself."""
    reasons = {missing.reason for missing in checks}
    known = (text for reason, text in _REMEDIES.items() if reason in reasons)
    return next(known, "wait until evidence is available for every criterion and guard")


_REMEDIES: Final = {
    CheckReason.NO_VARIANTS: "count events with the label `variant`, from the evaluation of the flag",
    CheckReason.UNEVEN_CELLS: "deploy one version of the instrumentation everywhere: the label `cell` is that of the flag `sessionrollout-cell`",
    CheckReason.NO_CELLS: "count events with the label `cell`, which is that of the flag `sessionrollout-cell`",
    CheckReason.IMPOSSIBLE_COUNTS: "select bad events, or the sum of values, from the series that `total` or `count` counts",
    CheckReason.NOT_A_COUNT: "select counters: `bad`, `total` and `histogram` must only grow",
    CheckReason.NO_BAD_COUNTER: "check the selector of bad events (or values), and let the application export the counter with 0 from its start",
    CheckReason.NO_EVENTS: "check that the application reads the flag document, and that Prometheus scrapes all Pods",
}


def await_exposure(context: DecisionContext, checks: tuple[Missing, ...]) -> StageResult | None:
    """The stall while other users have the feature than should, or nobody has received it for too long."""
    start, limit = audience_start(context), context.spec.control.exposure.deadline
    late = start is not None and context.now >= start + duration(limit)
    missing = [each for each in checks if each.reason is CheckReason.NOT_APPLIED or each.reason in _NOT_RECEIVED]
    applied = all(each.reason is not CheckReason.NOT_APPLIED for each in missing)
    if not missing or (applied and not late):
        return None
    causes = tuple({each.check: each.message for each in missing}.values())
    stays = f"{context.current.audience} stays published until somebody acts, or events show that these users have it, and no others"
    details = (*causes, stays, *((f"`control.exposure.deadline` of {limit} has passed",) if late else ()))
    next_actions = (
        retry_text(context)
        if context.current.placebo is not None
        else "create an `Abort` action if users may have the feature: no comparison protects them; after it, no event may have the feature",
        "check that the application reads the flag document, and counts each event once by its variant",
    )
    reason = DecisionReason.NOT_EXPOSED if applied else DecisionReason.NOT_APPLIED
    return StageResult(DecisionAction.STALL, reason, causes[0], details, next_actions)


_NOT_RECEIVED: Final = {CheckReason.NOT_EXPOSED, CheckReason.NO_EVENTS, CheckReason.NO_VARIANTS}
