"""Baselines: the value of a metric before the phase's first publish, for checks with `comparedTo: Baseline`.

The query must cover no time in which users had something else: after a rollback, an emergency or the last step of an earlier
phase, its baseline waits as the first verdict about a new audience does. When users have a feature of the phase, it is too late.

What counts is the value in the decision that publishes: a window or a guard may keep the phase back for days. Until then, a guard
that protects an earlier phase is compared with the time before that one, and in that decision it does not fail. How many earlier
seasons there are is counted at the same time, and decides what the check is compared with in this phase, see `seasons`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from session_rollout.api.checks import Check, ComparedTo
from session_rollout.api.enums import CheckKind, CheckReason, Stage
from session_rollout.api.quantities import duration
from session_rollout.api.status_records import CheckRecord
from session_rollout.core.clocks import reach_of
from session_rollout.core.context import DecisionContext
from session_rollout.core.criteria import not_evaluated, record_of, unmeasured
from session_rollout.core.hold import acts
from session_rollout.core.inputs import published_phases
from session_rollout.core.observed import Measurement
from session_rollout.core.seasons import is_unreachable, number_of, unseasoned


@dataclass(frozen=True)
class Baselines:
    """The baselines of this moment, and a sentence for each that is missing."""

    records: tuple[CheckRecord, ...] = ()
    missing: tuple[str, ...] = ()


def forget_past(context: DecisionContext) -> None:
    """A guard that fails against a time that has passed, while nobody has any phase, protects nobody: it is measured again."""
    if published_phases(context.status):
        return
    for kind, check in _compared(context):
        record = record_of(context, check, kind)
        if kind is CheckKind.GUARD and record.failing_time is not None:
            context.put_check(not_evaluated(context, record).updated(baseline=None, seasons=None, recovery_time=None))


def measure_baselines(context: DecisionContext) -> Baselines:
    """The baselines of this phase as they are now. Only those that are needed to judge before the publish are kept yet."""
    phase = context.status.phase(context.current.phase)
    if phase is not None and phase.is_published:
        return Baselines()  # what is measured now is not the time before it
    results = [_measured(context, kind, check) for kind, check in _compared(context)]
    records = tuple(result for result in results if isinstance(result, CheckRecord))
    return Baselines(records, tuple(result for result in results if isinstance(result, str)))


def _compared(context: DecisionContext) -> Iterator[tuple[CheckKind, Check]]:
    """The checks of the running phase that have a baseline."""
    criteria = context.phase.criteria if context.phase is not None else ()
    for kind, checks in ((CheckKind.CRITERION, criteria), (CheckKind.GUARD, context.spec.guards)):
        yield from ((kind, check) for check in checks if check.compared_to is ComparedTo.BASELINE)


def _ready(context: DecisionContext, check: Check) -> datetime | None:
    """When the query covers only what users have now, and no failure of a guard; None while another document is on its way."""
    flags, start = context.status.flags, context.current.stage_start_time
    is_read_back = flags.sha256 == flags.published_sha256 and flags.published_time is not None
    if start is None or not (is_read_back or flags.published_sha256 is None):
        return None
    guards = [context.check(CheckKind.GUARD, guard.name) for guard in context.spec.guards if acts(guard)]
    changes = [guard.recovery_time for guard in guards if guard.recovery_time is not None]
    if flags.given_time is not None:
        changes.append(flags.given_time + duration(context.spec.propagation))
    reach = max(reach_of(context, name) for name in check.metrics)
    return max(start, max(changes) + reach) if changes else start


def _measured(context: DecisionContext, kind: CheckKind, check: Check) -> CheckRecord | str | None:
    """The record with the baseline of now, or why there is none; None for a dry run without one, and a guard that fails.

    The latter can only be one that warns: it does not keep the phase back, and must not get what it warns of as its baseline.
    """
    record, ready = record_of(context, check, kind), _ready(context, check)
    cause = unmeasured(context, check, ready) if ready is not None else None
    if ready is None or (cause is not None and cause.reason is CheckReason.AWAITING_RESULT):
        return f"{check.name}: measuring the baseline"
    if cause is not None and cause.reason is CheckReason.WARMING_UP:
        return f"{check.name}: measuring the baseline at {ready:%H:%M:%S} UTC; its query still covers older data"
    if cause is not None:
        return None if check.dry_run else f"{cause.message}, so there is no baseline"
    if kind is CheckKind.GUARD and record.failing_time is not None:
        return None
    measurement = context.observed.measurements[check.metric]
    if not _seasons_known(context, check, measurement):
        return f"{check.name}: reading earlier seasons for the baseline"
    return _kept(context, record, ready, measurement)


def _seasons_known(context: DecisionContext, check: Check, measurement: Measurement) -> bool:
    """Whether it is known how many earlier seasons there are. A decision that enters this stage was not given them."""
    metric, began_here = context.spec.metric(check.metric), context.observed.rollout.status.current.stage is Stage.BASELINE
    if metric is None or metric.seasonal is None:
        return True
    return began_here and not is_unreachable(measurement)


def _why(measurement: Measurement) -> str:
    seasons = measurement.seasons
    return f" ({seasons.message})" if seasons is not None and seasons.message else ""


def _kept(context: DecisionContext, record: CheckRecord, ready: datetime, measurement: Measurement) -> CheckRecord:
    """The record with this baseline. It is kept at once if there is none yet, or one of an earlier time that protects nobody."""
    seasons = number_of(measurement)
    origin = f"; {text}{_why(measurement)}" if (text := unseasoned(seasons)) else ""
    measured = CheckRecord(
        name=record.name,
        kind=record.kind,
        reason=CheckReason.BASELINE_MEASURED,
        baseline=str(measurement.value),
        seasons=seasons,
        source=record.source,
        definition=record.definition,
        time=context.now,
        message=f"{record.name}: the baseline is {measurement.value:.6g}{origin}",
        results=record.results,
        evidence_time=record.evidence_time,
        needs_users=record.needs_users,
        result_time=record.result_time,
    )
    protects = record.kind is CheckKind.GUARD and published_phases(context.status)
    is_older = record.time is None or record.time < ready
    if record.baseline is None or (is_older and not protects):
        context.put_check(measured)
    return measured
