"""Baselines: the value of a metric before the phase's first publish, for checks with `comparedTo: Baseline`."""

from session_rollout.api.checks import Check, ComparedTo
from session_rollout.api.enums import CheckKind, CheckReason
from session_rollout.api.status_records import CheckRecord
from session_rollout.core.context import DecisionContext


def measure_baselines(context: DecisionContext) -> tuple[str, ...]:
    """Take the baseline of every check of this phase that needs one; a sentence for each that is still missing."""
    criteria = context.phase.criteria if context.phase is not None else ()
    missing = (
        _measure_baseline(context, kind, check)
        for kind, checks in ((CheckKind.CRITERION, criteria), (CheckKind.GUARD, context.spec.guards))
        for check in checks
        if check.compared_to is ComparedTo.BASELINE
    )
    return tuple(sentence for sentence in missing if sentence is not None)


def _measure_baseline(context: DecisionContext, kind: CheckKind, check: Check) -> str | None:
    record, measurement = context.check(kind, check.name), context.observed.measurements.get(check.metric)
    start = context.current.stage_start_time
    if record.baseline is not None and record.time is not None and start is not None and record.time >= start:
        return None
    if measurement is None or start is None or measurement.time < start:
        return f"{check.name}: measuring the baseline"
    if measurement.value is None:
        return None if check.dry_run else f"{check.name}: no baseline, {measurement.message}"
    context.put_check(
        CheckRecord(
            name=check.name,
            kind=kind,
            reason=CheckReason.BASELINE_MEASURED,
            baseline=str(measurement.value),
            time=context.now,
            message=f"{check.name}: the baseline is {measurement.value:.6g}",
        )
    )
    return None
