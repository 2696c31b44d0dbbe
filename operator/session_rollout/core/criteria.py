"""Criteria and the records of all checks: what was measured becomes a verdict in `status.checks`."""

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from session_rollout.api.checks import Check, Criterion, Gate
from session_rollout.api.enums import CheckKind, CheckReason, Outcome, Stage, Verdict
from session_rollout.api.metrics import Metric
from session_rollout.api.quantities import format_duration
from session_rollout.api.status_records import CheckRecord
from session_rollout.core.clocks import counted_time, covered_since, range_of, warm_up_end
from session_rollout.core.context import DecisionContext
from session_rollout.core.evaluation import Evaluation, EvaluationInput, evaluate, input_of
from session_rollout.core.evidence import compare, is_of_placebo, metric_of, note_pass, without_control
from session_rollout.core.failures import MILLISECOND, Hold, fails, failure_text, forget_failures, note_failure, track
from session_rollout.core.identity import definition_of, renamed, sources_of
from session_rollout.core.inputs import published_phases
from session_rollout.core.seasons import season_of

STALE_INTERVALS: Final = 3
STALE_SLACK: Final = timedelta(seconds=10)


def evaluate_criteria(context: DecisionContext) -> None:
    """Bring the records of the running phase's criteria up to date; criteria count in steps only."""
    if context.current.stage is Stage.STEP and context.phase is not None:
        for criterion in context.phase.criteria:
            before = context.check(CheckKind.CRITERION, criterion.name)
            evaluate_check(context, criterion, CheckKind.CRITERION, warm_up_end(context, criterion.metrics))
            _note_failure(context, criterion, before)


def _note_failure(context: DecisionContext, criterion: Check, before: CheckRecord) -> None:
    """Keep when the criterion failed in the hold; what has left the hold is forgotten on that occasion."""
    increment = context.increment
    if increment is None:
        return
    counted, record = counted_time(context, increment.hold), context.check(CheckKind.CRITERION, criterion.name)
    noted = note_failure(context, criterion, before, record, counted)
    if noted is not record:
        context.put_check(forget_failures(noted, math.floor((counted - increment.hold) / MILLISECOND)))


def evaluate_check(context: DecisionContext, check: Check | Gate, kind: CheckKind, not_before: datetime | None) -> None:
    """Bring the record of a metric's check up to date; data from before `not_before` does not count."""
    before, measurements = record_of(context, check, kind), context.observed.measurements
    needed = check.metrics if isinstance(check, Check) else (check.metric or "",)
    stands = before.verdict is not Verdict.NOT_EVALUATED and before.reason is not CheckReason.NO_CONTROL
    if any(name not in measurements for name in needed) and stands:
        return  # the result is on its way; until then the last verdict stands, and nothing is promoted on it
    metric = metric_of(context.spec, check) if isinstance(check, Check) else None
    if metric is not None and isinstance(check, Check):
        evaluation, is_due = _compared(context, check, kind, metric, not_before)
        if evaluation.reason is CheckReason.HARMLESSNESS_SHOWN:
            note_pass(context, check, kind, metric)
    else:
        evaluation, is_due = _evaluated(context, check, not_before, before), False
    if isinstance(check, Check) and check.dry_run:
        evaluation = replace(evaluation, message=f"{evaluation.message} (dry run: not counted)")
    keep(context, kind, check.name, evaluation, refresh=is_due)
    if isinstance(check, Check):
        context.put_check(_evident(context, check, track(context, check, context.check(kind, check.name))))


def _compared(
    context: DecisionContext, check: Check, kind: CheckKind, metric: Metric, not_before: datetime | None
) -> tuple[Evaluation, bool]:
    """What a comparison with the users without the feature says, and whether its numbers are written though the verdict is the same."""
    if nothing := without_control(context, check, kind, metric):
        return nothing, False
    compared = compare(context, check, kind, metric)
    given = replace(
        _given(context, check, not_before, None),
        comparison=compared.comparison,
        unusable=compared.unusable,
        exposure=compared.exposure,
    )
    return evaluate(given), compared.is_due


def _evident(context: DecisionContext, check: Check, record: CheckRecord) -> CheckRecord:
    """The record with its first evidence, and whether the metric has values without users, too: its query covers only such a time."""
    if not record.has_evidence or record.reason is CheckReason.NO_CONTROL:
        return record
    left = context.status.flags.given_time or context.status.flags.published_time
    without = left is None or context.now >= covered_since(context, left, range_of(context, check.metrics))
    alone = without and not published_phases(context.status)
    if record.evidence_time is None:
        return record.updated(evidence_time=context.now, needs_users=None if alone else True)
    return record.updated(needs_users=None) if alone and record.needs_users else record


def _evaluated(
    context: DecisionContext, check: Check | Gate, not_before: datetime | None, record: CheckRecord | None
) -> Evaluation:
    return evaluate(_given(context, check, not_before, record))


def _given(
    context: DecisionContext, check: Check | Gate, not_before: datetime | None, record: CheckRecord | None
) -> EvaluationInput:
    measurements, minimum = context.observed.measurements, check.minimum if isinstance(check, Check) else None
    name = check.metric or ""
    compared = season_of(context.spec.metric(name), record, measurements.get(name))
    given = input_of(
        check,
        measurement=compared.measurement,
        not_before=not_before,
        stale_after=_stale_after(context, name),
        now=context.now,
        baseline=compared.baseline,
    )
    given = replace(given, origin=compared.origin, is_seasonal=compared.is_seasonal)
    if minimum is not None:
        limit = _stale_after(context, minimum.metric)
        given = replace(given, minimum=minimum, counted=measurements.get(minimum.metric), counted_stale_after=limit)
    return given


def evaluate_now(context: DecisionContext, check: Check, record: CheckRecord) -> Evaluation:
    """What a check says by its last result, whatever audience that is about."""
    always, metric = datetime.min.replace(tzinfo=UTC), metric_of(context.spec, check)
    if metric is not None:
        return _compared(context, check, record.kind, metric, always)[0]
    return _evaluated(context, check, always, record)


def unmeasured(context: DecisionContext, check: Check, not_before: datetime) -> Evaluation | None:
    """Why the value of now says nothing about the time since `not_before`; None when it can be a baseline."""
    evaluation = _evaluated(context, check, not_before, None)
    return None if evaluation.reason is CheckReason.BASELINE_MISSING else evaluation


def record_of(context: DecisionContext, check: Check | Gate, kind: CheckKind) -> CheckRecord:
    """The record of a metric's check, without a verdict or a baseline of another query, provider or window."""
    record, sources = context.check(kind, check.name), sources_of(context, check.metric or "")
    definition = definition_of(check)
    if (record.source, record.definition) == (sources[0], definition):
        return record
    known = record if record.source in {None, *sources} else CheckRecord(name=record.name, kind=kind)
    context.put_check(known.updated(source=sources[0], definition=definition))
    return context.check(kind, check.name)


def _stale_after(context: DecisionContext, metric: str) -> timedelta:
    """The age from which a result of a metric says that the provider has stopped responding; of blocks there is one for each block."""
    measurement = context.observed.measurements.get(metric)
    length = measurement.series.length if measurement is not None and measurement.series is not None else timedelta(0)
    return STALE_INTERVALS * max(context.spec.interval_of(metric), length) + STALE_SLACK


def keep(context: DecisionContext, kind: CheckKind, name: str, evaluation: Evaluation, *, refresh: bool = False) -> None:
    """Write the record only when the verdict or its reason changed, or with `refresh`: a repeated verdict is not a change.

    `time` is when the verdict changed: another reason for the same verdict does not change it.
    """
    before = context.check(kind, name)
    repeated = before.verdict is evaluation.verdict and before.reason is not None
    if repeated and before.reason is evaluation.reason and not refresh:
        return
    context.put_check(
        before.updated(
            verdict=evaluation.verdict,
            reason=evaluation.reason,
            value=evaluation.value,
            bound=evaluation.bound,
            seasonal_baseline=evaluation.seasonal_baseline,
            time=before.time if repeated else context.now,
            message=evaluation.message,
        )
    )


@dataclass(frozen=True)
class Unmet:
    """Why a criterion does not let a step end."""

    message: str
    ready: datetime | None = None  # when it will, if it passes from now on; None while it fails
    confirming: bool = False  # it passes often enough, but not in all of the last evaluations


def criteria_records(context: DecisionContext) -> tuple[tuple[Criterion, CheckRecord], ...]:
    """The criteria of the running phase that count, with their records. Nothing has to be shown harmless in a placebo step."""
    criteria = context.phase.criteria if context.phase is not None else ()
    counted = (each for each in criteria if not (each.dry_run or is_of_placebo(context, each)))
    return tuple((each, context.check(CheckKind.CRITERION, each.name)) for each in counted)


def unmet_criteria(context: DecisionContext, hold: timedelta) -> tuple[Unmet, ...]:
    """The criteria that do not pass now, or have not passed for long enough in a hold of this length."""
    counted = counted_time(context, hold)
    results = (_unmet(context, criterion, record, hold, counted) for criterion, record in criteria_records(context))
    return tuple(unmet for unmet in results if unmet is not None)


def _unmet(
    context: DecisionContext, criterion: Criterion, record: CheckRecord, length: timedelta, counted: timedelta
) -> Unmet | None:
    if record.verdict is not Verdict.PASS:
        return Unmet(record.message or f"{criterion.name}: waiting for a query result")
    if fails(context, criterion, record):
        return Unmet(f"{criterion.name} fails{failure_text(criterion)}")
    hold = Hold(context, criterion, record, length, counted)
    ready = context.now + (max(hold.enough, hold.steady) - hold.now) * MILLISECOND
    if hold.now < hold.steady and hold.enough <= hold.steady:
        last = format_duration(hold.trailing * MILLISECOND)
        return Unmet(f"{criterion.name} passes again; it must pass for {last}", ready, confirming=True)
    if hold.failed > hold.allowed:
        share = f"passed for {hold.share:.4g}% of the last {format_duration(length)}"
        return Unmet(f"{criterion.name} {share}; `passShare` is {criterion.pass_share}", ready)
    return None


def forget_verdicts(context: DecisionContext) -> None:
    """Drop every verdict and baseline: they are about another audience. That a guard can have a verdict is still known."""
    guards = context.checks_of(CheckKind.GUARD)
    context.change(checks=tuple(not_evaluated(context, guard).updated(baseline=None) for guard in guards))


def void_verdicts(context: DecisionContext) -> None:
    """Another generation: criteria are evaluated again with the same baselines.

    Guards continue, also under another name: an edit must not end a breach, or whoever edits often enough would never be rolled back. After the promotion
    they were not judged, so that they begin again.
    """
    guards, _ = renamed(context, CheckKind.GUARD, context.spec.guards)
    if context.status.outcome is Outcome.PROMOTED:
        guards = tuple(not_evaluated(context, record) for record in guards)  # nobody has judged them since
    known, others = renamed(context, CheckKind.CRITERION, context.phase.criteria if context.phase is not None else ())
    criteria = tuple(not_evaluated(context, record) for record in (*known, *others) if record.baseline)
    context.change(checks=(*criteria, *guards))


def forget_criteria(context: DecisionContext) -> None:
    """The phase is over: its criteria, their baselines and its gates mean nothing to the next phase."""
    context.change(checks=context.checks_of(CheckKind.GUARD))


def restart_criteria(context: DecisionContext) -> None:
    """Criteria are evaluated again with the same baselines, which cannot be measured while users have the phase; guards continue."""
    criteria = tuple(not_evaluated(context, record) for record in context.checks_of(CheckKind.CRITERION) if record.baseline)
    context.change(checks=(*criteria, *context.checks_of(CheckKind.GUARD)))


def not_evaluated(context: DecisionContext, record: CheckRecord) -> CheckRecord:
    """The record without its verdict, but with its baseline, and with what its earlier verdicts tell of its metric.

    Nobody judges a failure until there is a verdict again: it ends now, so that no baseline is measured on it.
    """
    return CheckRecord(
        name=record.name,
        kind=record.kind,
        baseline=record.baseline,
        seasons=record.seasons,
        source=record.source,
        definition=record.definition,
        time=record.time,
        evidence_time=record.evidence_time,
        needs_users=record.needs_users,
        recovery_time=context.now if record.failing_time is not None else record.recovery_time,
    )
