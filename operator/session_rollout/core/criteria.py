"""Criteria and the records of all checks: what was measured becomes a verdict in `status.checks`."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from session_rollout.api.checks import Check, Gate
from session_rollout.api.enums import CheckKind, Stage, Verdict
from session_rollout.api.status_records import CheckRecord
from session_rollout.core.context import DecisionContext
from session_rollout.core.evaluation import Evaluation, evaluate, input_of

STALE_INTERVALS: Final = 3
STALE_SLACK: Final = timedelta(seconds=10)


def evaluate_criteria(context: DecisionContext) -> None:
    """Bring the records of the running phase's criteria up to date; criteria count in steps only."""
    if context.current.stage is Stage.STEP and context.phase is not None:
        for criterion in context.phase.criteria:
            start = after_range(context, criterion.metric, context.current.published_time)
            evaluate_check(context, criterion, CheckKind.CRITERION, start)


def after_range(context: DecisionContext, metric: str, start: datetime | None) -> datetime | None:
    """When the range of a metric's query no longer covers data from before a time."""
    return None if start is None else start + context.observed.ranges.get(metric, timedelta(0))


def evaluate_check(context: DecisionContext, check: Check | Gate, kind: CheckKind, not_before: datetime | None) -> None:
    """Bring the record of a metric's check up to date; data from before `not_before` does not count."""
    before = context.check(kind, check.name)
    if check.metric not in context.observed.measurements and before.verdict is not Verdict.NOT_EVALUATED:
        return  # the result is on its way; until then the last verdict stands, and nothing is promoted on it
    evaluation = evaluate(
        input_of(
            check,
            measurement=context.observed.measurements.get(check.metric or ""),
            not_before=not_before,
            stale_after=STALE_INTERVALS * context.interval + STALE_SLACK,
            now=context.now,
            baseline=Decimal(before.baseline) if before.baseline is not None else None,
        )
    )
    keep(context, kind, check.name, evaluation)


def keep(context: DecisionContext, kind: CheckKind, name: str, evaluation: Evaluation) -> None:
    """Write the record only when the verdict or its reason changed: a repeated verdict is not a change.

    `time` is when the verdict changed: another reason for the same verdict does not change it. If nobody evaluated a guard
    for a while, its breach starts again, because `for` counts only time in which the breach was observed.
    """
    before = context.check(kind, name)
    restarted = before.verdict is Verdict.FAIL and context.unobserved > timedelta(0) and kind is CheckKind.GUARD
    repeated = before.verdict is evaluation.verdict and before.reason is not None and not restarted
    if repeated and before.reason is evaluation.reason:
        return
    context.put_check(
        before.updated(
            verdict=evaluation.verdict,
            reason=evaluation.reason,
            value=evaluation.value,
            bound=evaluation.bound,
            time=before.time if repeated else context.now,
            message=evaluation.message,
        )
    )


def forget_verdicts(context: DecisionContext, *, keep_baselines: bool) -> None:
    """Drop every verdict: they are about another audience, or another generation."""
    context.change(
        checks=tuple(_not_evaluated(record) for record in context.status.checks if keep_baselines and record.baseline)
    )


def forget_criteria(context: DecisionContext) -> None:
    """The phase is over: its criteria, their baselines and its gates mean nothing to the next phase."""
    context.change(checks=context.checks_of(CheckKind.GUARD))


def restart_criteria(context: DecisionContext) -> None:
    """A new audience of the same phase: criteria are evaluated again with the same baselines; guards continue."""
    criteria = tuple(_not_evaluated(record) for record in context.checks_of(CheckKind.CRITERION) if record.baseline)
    context.change(checks=(*criteria, *context.checks_of(CheckKind.GUARD)))


def _not_evaluated(record: CheckRecord) -> CheckRecord:
    return CheckRecord(name=record.name, kind=record.kind, baseline=record.baseline, time=record.time)
