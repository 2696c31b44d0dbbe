"""Checks of events that are counted: what is known of each is in `status.evidence`, and blocks of events are added to it.

A comparison with the users without a feature is about the phase of the feature, and runs through all of its steps. The events of
all users are compared with a fixed rate: by a guard from the first publish on, whatever the phase is, and by a criterion once
for each audience, because a smaller one says nothing about a larger one. A guard has its share of `control.falseRollback`, which
is fixed when its evidence begins, so that no edit of the spec can spend it twice.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from session_rollout.api.checks import Check, ComparedTo, Guard
from session_rollout.api.enums import CheckKind, CheckReason, EventReason, Outcome, PhaseState, Stage, Verdict
from session_rollout.api.evidence_record import EvidenceRecord
from session_rollout.api.metrics import Metric
from session_rollout.api.quantities import bound, duration
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status import EVIDENCE_LENGTH, RolloutStatus
from session_rollout.api.status_records import PhaseRecord
from session_rollout.core.blocks import BlockSeries
from session_rollout.core.clocks import SKEW, audience_start
from session_rollout.core.comparison import Comparison
from session_rollout.core.context import DecisionContext
from session_rollout.core.evaluation import Evaluation
from session_rollout.core.evidence_text import decoded, encoded, exposed_events, exposed_text, is_about
from session_rollout.core.exposure import Exposure
from session_rollout.core.flags import held_back_of
from session_rollout.core.identity import fingerprint, sources_of
from session_rollout.core.inputs import published_phases
from session_rollout.core.mean_comparison import MeanComparison
from session_rollout.core.recent_blocks import RECENT_BLOCKS, Unusable, unusable
from session_rollout.core.statistics.rates import Tolerance
from session_rollout.core.statistics.ratio import inflation_of_ratio
from session_rollout.core.status_budget import kept
from session_rollout.core.steps import increments, phase_named, planned_time

KEPT_FOR: Final = timedelta(minutes=10)  # what is younger is asked again after a restart
KEPT_BLOCKS: Final = 50
NO_HARM: Final = Tolerance(1.0, 0.0)
HORIZON: Final = timedelta(days=35)
EVERYBODY: Final = 100  # percent
SHORT_BLOCK: Final = timedelta(minutes=1)
LONG_BLOCK: Final = timedelta(minutes=5)  # if the provider decides how long one is
SMALLEST_ALPHA: Final = 1e-12
LARGEST_ALPHA: Final = 0.2  # the inflation has no meaning for a larger one
LEAST_SHARE: Final = 100  # of `falseRollback` that a guard has which came after the others had used it up


def metric_of(spec: RolloutSpec, check: Check) -> Metric | None:
    """The metric of a check that is evaluated by blocks of events; None for every other check."""
    metric = spec.metric(check.metric)
    if metric is None or metric.counted is None:
        return None
    return metric if metric.counts is not None or check.compared_to is ComparedTo.CONTROL else None


def phase_of(spec: RolloutSpec, status: RolloutStatus, metric: Metric, kind: CheckKind = CheckKind.GUARD) -> PhaseRecord | None:
    """The record of the phase that has published the feature of a metric, whatever the spec says now, or will publish it.

    For events of all users, it is the running phase for a criterion, and the first one that a guard protects.
    """
    if metric.counts is not None:
        running = status.phase(status.current.phase)
        return running if kind is CheckKind.CRITERION else next(iter(published_phases(status)), running)
    feature = metric.cohorts.feature if metric.cohorts is not None else None
    given = (record for record in status.phases if (record.is_published or record.placebo) and feature in record.features)
    name = next((phase.name for phase in spec.phases if feature in phase.features), None)
    return next(given, None) or status.phase(name)


def percent_of(status: RolloutStatus, record: PhaseRecord | None) -> Decimal:
    """The percentage of users that have the variant `on`: a larger audience that is decided is not published yet."""
    if record is None or record.promoted_time is not None or not (record.is_published or record.placebo):
        return Decimal(0)
    earlier = status.current.earlier_percent or 0
    percent = placebo_of(status, record) or Decimal(earlier if _is_pending(status, record) else record.percent)
    held = Decimal(record.held_back or 0) if status.is_release_pending else held_back_of(status, record)
    return min(percent, EVERYBODY - held)


def placebo_of(status: RolloutStatus, record: PhaseRecord | None) -> Decimal:
    """The same percentage in a placebo step, in which nobody has the features; 0 in any other."""
    if record is None:
        return Decimal(0)
    return Decimal((status.current.earlier_placebo if _is_pending(status, record) else record.placebo) or 0)


def _is_pending(status: RolloutStatus, record: PhaseRecord) -> bool:
    return status.current.is_unpublished and status.current.phase == record.name


def is_of_placebo(context: DecisionContext, check: Check) -> bool:
    """Whether a check compares users of whom nobody has the feature; the old form does not say which one it is."""
    metric, running = metric_of(context.spec, check), context.status.phase(context.current.phase)
    record = phase_of(context.spec, context.status, metric) if metric is not None else running
    return check.compared_to is ComparedTo.CONTROL and placebo_of(context.status, record) > 0


def has_control(status: RolloutStatus, record: PhaseRecord | None) -> bool:
    """Whether some users have a feature by their bucket, and others have not, in a phase that is not promoted yet."""
    return 0 < percent_of(status, record) < EVERYBODY


def is_counted(status: RolloutStatus, record: PhaseRecord | None, metric: Metric) -> bool:
    """Whether the events of a metric say something: there is a control, or they are those of all users and something is published."""
    if metric.counts is None:
        return has_control(status, record)
    if record is None or not record.is_published or record.promoted_time is not None:
        return False
    had_nothing = (status.current.earlier_percent or "0", status.current.earlier_groups) == ("0", ())
    return not (_is_pending(status, record) and had_nothing)


def blocks_since(spec: RolloutSpec, status: RolloutStatus, metric: Metric) -> datetime | None:
    """The time from which on a decision needs the blocks of a metric; None while there is nothing to compare."""
    record, published = phase_of(spec, status, metric), status.flags.published_time
    if record is None or not is_counted(status, record, metric) or published is None:
        return None
    known = [each.until for each in status.evidence if _reads(spec, each, metric)]
    length = duration(spec.control.block) if spec.control.block is not None else LONG_BLOCK
    return max(min(known, default=published) - (RECENT_BLOCKS + 1) * length, published)


def _reads(spec: RolloutSpec, record: EvidenceRecord, metric: Metric) -> bool:
    """Whether evidence is about a check of this metric."""
    check = check_of(spec, record)
    return check is not None and check.metric == metric.name


def check_of(spec: RolloutSpec, record: EvidenceRecord) -> Check | None:
    """The check that evidence is about; None if the spec has it no more."""
    return next((check for check in _checks_of(spec, record) if check.name == record.name), None)


def _checks_of(spec: RolloutSpec, record: EvidenceRecord) -> Iterable[Check]:
    phase = phase_named(spec, record.phase)
    return spec.guards if record.kind is CheckKind.GUARD else phase.criteria if phase is not None else ()


def without_control(context: DecisionContext, check: Check, kind: CheckKind, metric: Metric) -> Evaluation | None:
    """What a check says where there is nothing to compare; None where there is."""
    record = phase_of(context.spec, context.status, metric, kind)
    if is_counted(context.status, record, metric):
        return None
    if metric.counts is not None:
        return Evaluation(Verdict.PASS, CheckReason.NO_CONTROL, f"{check.name}: nobody has a feature of the rollout yet")
    everybody = percent_of(context.status, record) > 0
    cause = f"{'everybody' if everybody else 'nobody'} has the feature by percentage, so that there is nothing to compare"
    if everybody and not isinstance(check, Guard) and record is not None:
        known = context.status.evidence_of(record.name, CheckKind.CRITERION, check.name)
        if known is None or not known.passed or known.source != _source(context, check, metric):
            message = f"{check.name}: harmlessness was not shown before everybody had the feature"
            return Evaluation(Verdict.INCONCLUSIVE, CheckReason.NO_CONTROL, message)
    return Evaluation(Verdict.PASS, CheckReason.NO_CONTROL, f"{check.name}: {cause}")


@dataclass(frozen=True)
class Compared:
    """A comparison with every block that was read."""

    comparison: Comparison
    exposure: Exposure | None = None  # None while no audience is published that it could be about
    unusable: Unusable | None = None  # why the last blocks say nothing
    is_due: bool = False  # whether its numbers are to be written


def compare(context: DecisionContext, check: Check, kind: CheckKind, metric: Metric) -> Compared:
    """The comparison that a check makes, brought up to date in the status."""
    record = phase_of(context.spec, context.status, metric, kind)
    measurement, published = context.observed.measurements.get(metric.name), context.status.flags.published_time
    start = published if context.current.is_unpublished else audience_start(context)  # users have the audience before it
    assert record is not None
    series = measurement.series if measurement is not None and measurement.series is not None else None
    known = _continued(context, check, kind, metric, record)
    by_audience = metric.is_mean or (metric.counts is not None and kind is CheckKind.CRITERION)
    if by_audience and start is not None and not is_about(known, start):
        known = restarted(known)
    if known.until > context.now + SKEW:  # the clock was set back: what has counted until then must not count twice
        known = restarted(known).updated(until=context.now)
    comparison = comparison_of(context.spec, check, known, series)
    if is_of_placebo(context, check):
        comparison = replace(comparison, group="with the variant `on`")
    if series is None or start is None:
        _put(context, known)
        return Compared(comparison)
    audience = start + duration(context.spec.propagation)
    blocks = series.after(known.until, audience)
    comparison = comparison.add(blocks)
    passed = None if comparison.verdict is Verdict.FAIL else known.passed
    record_now = encoded(known.updated(passed=passed, exposed=exposed_text(known, start, blocks)), comparison)
    _put(context, record_now)
    problem, is_due = unusable(comparison, series.after(audience, audience)), _is_due(context, record_now)
    if is_due and (lost := series.lost(known.until, audience)):
        age = f"{lost:,} blocks before {blocks[0].end - series.length:%Y-%m-%d %H:%M} UTC"
        context.record_event(
            EventReason.EVIDENCE_LOST, f"{check.name}: {age} were not read in time, and their events do not count"
        )
    if metric.counts is not None:
        return Compared(comparison, None, problem, is_due)
    percent, elapsed = percent_of(context.status, record), max(comparison.until - audience, timedelta(0))
    return Compared(comparison, _exposure(context, record_now, comparison, percent, elapsed), problem, is_due)


def note_pass(context: DecisionContext, check: Check, kind: CheckKind, metric: Metric) -> None:
    """Keep that a check has had the verdict Pass: where everybody has the feature, nothing else shows it any more."""
    record = phase_of(context.spec, context.status, metric, kind)
    known = context.status.evidence_of(record.name, kind, check.name) if record is not None else None
    if known is not None:
        _put(context, known.updated(passed=True))


def _exposure(
    context: DecisionContext, record: EvidenceRecord, comparison: Comparison, percent: Decimal, elapsed: timedelta
) -> Exposure:
    cells = [(cell.on_total, cell.off_total) for cell in comparison.cells.values()]
    inflation = inflation_of_ratio(cells) if len(cells) > 1 else 1.0
    inflation = inflation if comparison.has_cells else max(inflation, comparison.inflation)
    on, off = exposed_events(record)
    return Exposure(on, off, float(percent), inflation, context.spec.control.exposure.min_events, elapsed)


def comparison_of(spec: RolloutSpec, check: Check, record: EvidenceRecord, series: BlockSeries | None) -> Comparison:
    """The comparison that a record describes; the blocks say for how many of them it holds."""
    phase, length = phase_named(spec, record.phase), series.length if series is not None else SHORT_BLOCK
    phases = spec.phases if check.below is not None else (phase,) if phase is not None else ()
    metric = spec.metric(check.metric)
    is_mean = metric is not None and metric.is_mean
    tests = len(increments(phase)) if is_mean and phase is not None else 1  # a mean is tested once for each audience
    fresh = (MeanComparison if is_mean else Comparison)(
        tolerance=tolerated_by(spec, check),
        # Whatever somebody has written into a status.
        alpha=min(max(float(record.alpha) / tests, SMALLEST_ALPHA), LARGEST_ALPHA),
        horizon=max(HORIZON, planned_time(phases) + duration(spec.bake)) / length,
        until=record.until,
        length=length,
    )
    return decoded(record, fresh)


def tolerated_by(spec: RolloutSpec, check: Check) -> Tolerance:
    """What a check tolerates; a budget tolerates no rate above the one without the feature, only so many events.

    Percentage points of a mean are a percentage of the mean without the feature.
    """
    if isinstance(check, Guard) and check.harm_budget is not None:
        return NO_HARM
    if check.below is not None:
        return Tolerance(0.0, float(bound(check.below)))
    times, plus, metric = float(check.tolerated.times), float(bound(check.tolerated.plus)), spec.metric(check.metric)
    return Tolerance(times + plus, 0.0) if metric is not None and metric.is_mean else Tolerance(times, plus)


def _continued(context: DecisionContext, check: Check, kind: CheckKind, metric: Metric, phase: PhaseRecord) -> EvidenceRecord:
    """The record of a comparison: the known one, one that starts again because something else is compared, or a new one."""
    source, known = _source(context, check, metric), context.status.evidence_of(phase.name, kind, check.name)
    if known is not None and known.source == source:
        return known
    alpha = known.alpha if known is not None else _alpha(context, kind)
    return EvidenceRecord(phase=phase.name, kind=kind, name=check.name, source=source, alpha=alpha, until=context.now)


def _source(context: DecisionContext, check: Check, metric: Metric) -> str:
    """Fingerprint of what is compared. What a placebo step shows says nothing about the feature."""
    placebo = " placebo" if is_of_placebo(context, check) else ""
    return fingerprint(
        f"{sources_of(context, metric.name)[0]} {tolerated_by(context.spec, check)} {context.spec.control.block}{placebo}"
    )


def rename_evidence(context: DecisionContext) -> None:
    """A check that has another name now, and compares the same, continues with what is known: also if names are swapped."""
    rollout = context.observed.rollout
    is_known = all(check_of(context.spec, record) is not None for record in context.status.evidence)
    if is_known and rollout.generation == rollout.status.observed_generation:
        return  # no name has changed
    kept = [record for record in context.status.evidence if _is_of(context, record, record.name)]
    taken = {record.key for record in kept}
    for record in context.status.evidence:
        if record in kept:
            continue
        names = (check.name for check in _checks_of(context.spec, record) if _is_of(context, record, check.name))
        free = (record.updated(name=name) for name in names)
        renamed = next((each for each in free if each.key not in taken), record)
        if renamed.key not in taken:
            taken.add(renamed.key)
            kept.append(renamed)
    records = tuple(sorted(kept, key=lambda known: known.key))
    if records != context.status.evidence:
        context.change(evidence=records)


def _is_of(context: DecisionContext, record: EvidenceRecord, name: str) -> bool:
    """Whether the check of this name compares what the record is about."""
    check = next((check for check in _checks_of(context.spec, record) if check.name == name), None)
    metric = metric_of(context.spec, check) if check is not None else None
    return check is not None and metric is not None and _source(context, check, metric) == record.source


def _alpha(context: DecisionContext, kind: CheckKind) -> str:
    """The probability of a wrong rollback that a new comparison has: an equal part of what is left, for a guard."""
    whole = Decimal(context.spec.control.false_rollback.removesuffix("%")) / 100
    if kind is not CheckKind.GUARD:
        return f"{whole:f}"  # it ends nothing, and all criteria must pass
    spent = min(max(Decimal(context.status.false_rollback_spent or 0), Decimal(0)), Decimal(1))
    begun = {record.name for record in context.status.evidence if record.kind is CheckKind.GUARD}
    left = [guard for guard in context.spec.guards if metric_of(context.spec, guard) is not None and guard.name not in begun]
    share = max((whole - spent) / max(len(left), 1), whole / LEAST_SHARE)
    context.change(false_rollback_spent=f"{(spent + share).normalize():f}")
    return f"{share.normalize():f}"


def _put(context: DecisionContext, record: EvidenceRecord) -> None:
    if record in context.status.evidence:
        return
    others = [known for known in context.status.evidence if known.key != record.key]
    records = kept((*others, record), lambda known: known is record or known.kind is CheckKind.GUARD, EVIDENCE_LENGTH)
    context.change(evidence=tuple(sorted(records, key=lambda known: known.key)))


def settle_evidence(context: DecisionContext) -> None:
    """Drop what has no meaning any more, and leave the stored evidence as it is until there is enough news to write."""
    status, before = context.status, context.observed.rollout.status
    if not (status.evidence or before.evidence or status.false_rollback_spent):
        return
    if status.outcome is Outcome.PROMOTED:
        context.change(evidence=(), false_rollback_spent=None)
        return
    records = tuple(record for record in (_lasting(context, each) for each in status.evidence) if record is not None)
    if records != status.evidence:
        context.change(evidence=records)
    if any(_is_due(context, record) for record in context.status.evidence):
        return
    if context.status.updated(evidence=before.evidence) == before:
        context.change(evidence=before.evidence)


def _is_due(context: DecisionContext, record: EvidenceRecord) -> bool:
    """Whether a record has enough news to be written for its own sake."""
    known = context.observed.rollout.status.evidence_of(*record.key)
    if known is None or (known.source, known.passed) != (record.source, record.passed):
        return True
    grown = record.blocks - known.blocks
    return record.until - known.until >= KEPT_FOR or grown >= KEPT_BLOCKS or grown < 0  # it has started again


def _lasting(context: DecisionContext, record: EvidenceRecord) -> EvidenceRecord | None:
    """A record without the evidence about a feature that was taken away; None for a check that is gone."""
    phase = context.status.phase(record.phase)
    is_over = phase is not None and phase.state is PhaseState.COMPLETED and record.kind is CheckKind.CRITERION
    if phase is None or is_over or phase.promoted_time is not None or check_of(context.spec, record) is None:
        return None
    is_compared = phase.is_published or phase.placebo is not None
    return record if is_compared and not _is_new_attempt(context) else restarted(record)


def _is_new_attempt(context: DecisionContext) -> bool:
    """Whether a rollback begins, or another attempt after one: what was harmful is taken away, or was mended."""
    return any(left is Stage.ENDED or entered is Stage.ROLLING_BACK for left, entered in context.transitions)


def restarted(record: EvidenceRecord) -> EvidenceRecord:
    """Without what is known; the probability of an error stays."""
    return EvidenceRecord(
        phase=record.phase, kind=record.kind, name=record.name, source=record.source, alpha=record.alpha, until=record.until
    )
