"""One measurement compared with one bound gives one of six verdicts, a reason and a sentence with both numbers.

Each rule below is a small function that either returns an evaluation or leaves the case to the next rule; `_RULES` is the
order to read them in. "Could not measure" is a verdict here, never an exception and never a pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from session_rollout.api.checks import Check, ComparedTo, Gate, Guard, Minimum, OnNoData
from session_rollout.api.enums import CheckReason, Verdict
from session_rollout.api.quantities import bound, format_duration, show, unit_of
from session_rollout.core.comparison import Comparison
from session_rollout.core.exposure import Exposure
from session_rollout.core.observed import Counts, Measurement
from session_rollout.core.recent_blocks import Unusable
from session_rollout.core.statistics.proportion import newcombe

MINIMUM_EVENTS: Final = 50  # per cohort; below, the normal approximation says nothing


class Direction(StrEnum):
    """The change that a comparison limits, as messages name it."""

    MAX_INCREASE = "increase of at most"
    MAX_DECREASE = "decrease of at most"
    MIN_INCREASE = "increase of at least"


@dataclass(frozen=True)
class Tolerance:
    """The change against a baseline or a control that a check allows."""

    direction: Direction
    text: str  # as the spec has it, such as `5%`

    @property
    def words(self) -> str:
        """`increase of at most 5%`."""
        return f"{self.direction} {self.text}"

    def limit(self, baseline: Decimal) -> Decimal:
        """The limit of the change from this baseline, in the unit of the metric; `%` is relative to the baseline."""
        return bound(self.text) * (abs(baseline) if unit_of(self.text) == "%" else 1)

    def says_nothing(self, baseline: Decimal) -> bool:
        """Whether the limit is 0 only because the baseline is: a single event would be outside of it. Any rise is one from 0."""
        return not baseline and unit_of(self.text) == "%" and self.direction is not Direction.MIN_INCREASE

    def allows(self, change: Decimal, limit: Decimal) -> bool:
        """Whether a change (positive for a rise) is within the limit, both in the unit of the metric."""
        match self.direction:
            case Direction.MAX_INCREASE:
                return change <= limit
            case Direction.MAX_DECREASE:
                return -change <= limit
            case Direction.MIN_INCREASE:
                return change >= limit and (change > 0 or bound(self.text) == 0)  # any share of a baseline of 0 is 0


@dataclass(frozen=True)
class EvaluationInput:
    """All that one evaluation depends on."""

    name: str
    measurement: Measurement | None
    not_before: datetime | None  # older data is about an earlier audience; None when there is nothing to evaluate yet
    stale_after: timedelta
    now: datetime
    above: str | None = None
    below: str | None = None
    between: tuple[str, ...] | None = None
    compared_to: ComparedTo | None = None
    tolerance: Tolerance | None = None
    baseline: Decimal | None = None
    origin: str = ""  # where it comes from, for the message
    is_seasonal: bool = False  # whether it is the median of earlier seasons
    minimum: Minimum | None = None
    counted: Measurement | None = None  # of the metric in `minimum`
    counted_stale_after: timedelta = timedelta.max
    on_no_data: OnNoData = OnNoData.PAUSE
    comparison: Comparison | None = None  # with the users without the feature, of a metric that is counted in blocks
    unusable: Unusable | None = None  # why its last blocks say nothing
    exposure: Exposure | None = None  # of the users whom it is about
    harm_budget: int | None = None  # bad events beyond those expected without the feature


@dataclass(frozen=True)
class Evaluation:
    """A verdict, its reason, the numbers it rests on, and the sentence that explains it."""

    verdict: Verdict
    reason: CheckReason
    message: str
    value: str | None = None
    bound: str | None = None
    seasonal_baseline: str | None = None


def tolerance_of(check: Check | Gate) -> Tolerance | None:
    """The tolerance of a check that is compared to a baseline or a control; None for a fixed bound."""
    if not isinstance(check, Check):
        return None
    if check.max_increase is not None:
        return Tolerance(Direction.MAX_INCREASE, check.max_increase)
    if check.max_decrease is not None:
        return Tolerance(Direction.MAX_DECREASE, check.max_decrease)
    return Tolerance(Direction.MIN_INCREASE, check.min_increase) if check.min_increase is not None else None


def input_of(
    check: Check | Gate,
    *,
    measurement: Measurement | None,
    not_before: datetime | None,
    stale_after: timedelta,
    now: datetime,
    baseline: Decimal | None = None,
) -> EvaluationInput:
    """What to evaluate for a check or a gate of the spec, whatever its `minimum` is."""
    return EvaluationInput(
        name=check.name,
        measurement=measurement,
        not_before=not_before,
        stale_after=stale_after,
        now=now,
        above=check.above,
        below=check.below,
        between=check.between,
        compared_to=check.compared_to if isinstance(check, Check) else None,
        tolerance=tolerance_of(check),
        baseline=baseline,
        on_no_data=check.on_no_data if isinstance(check, Check) else OnNoData.PAUSE,
        harm_budget=check.harm_budget if isinstance(check, Guard) else None,
    )


def evaluate(given: EvaluationInput) -> Evaluation:
    """The result of the first rule that applies."""
    return next(evaluation for rule in _RULES if (evaluation := rule(given)) is not None)


def _is_warming_up(given: EvaluationInput) -> Evaluation | None:
    start = given.not_before
    if start is None or given.now >= start:
        return None
    message = f"{given.name}: warming up until {start:%H:%M:%S} UTC; its query still covers older data"
    return Evaluation(Verdict.NOT_EVALUATED, CheckReason.WARMING_UP, message)


def _has_no_result(given: EvaluationInput) -> Evaluation | None:
    measurement, start = given.measurement, given.not_before
    if measurement is None or start is None or measurement.time < start:
        return Evaluation(Verdict.NOT_EVALUATED, CheckReason.AWAITING_RESULT, f"{given.name}: waiting for a query result")
    return None


def _is_stale(given: EvaluationInput) -> Evaluation | None:
    for part, limit in ((given.measurement, given.stale_after), (given.counted, given.counted_stale_after)):
        if part is not None and given.now - part.time > limit:
            if part.series is not None and _is_harmful(given):
                continue  # what was shown stays shown, whatever the blocks say that are still to be read
            message = f"{given.name}: the last result is older than {format_duration(limit)}"
            if part.series is not None:
                message = f"{given.name}: events after {part.time:%Y-%m-%d %H:%M} UTC are still to be read"
            return Evaluation(Verdict.NO_DATA, CheckReason.STALE_RESULT, message)
    return None


def _has_failed(given: EvaluationInput) -> Evaluation | None:
    """The provider has, whatever the query would have returned."""
    failures = [part for part in (given.measurement, given.counted) if part and part.problem is Verdict.PROVIDER_ERROR]
    return _problem_of(given, failures[0]) if failures else None


def _has_too_few_events(given: EvaluationInput) -> Evaluation | None:
    minimum, counted = given.minimum, given.counted
    if minimum is None:
        return None
    if counted is None or (given.not_before is not None and counted.time < given.not_before):
        message = f"{given.name}: waiting for a query result of {minimum.metric}"
        return Evaluation(Verdict.NOT_EVALUATED, CheckReason.AWAITING_RESULT, message)
    if counted.problem is Verdict.INCONCLUSIVE:
        return _problem_of(given, counted)
    if (
        given.on_no_data is OnNoData.FAIL
        and counted.is_absent
        and given.measurement is not None
        and given.measurement.is_absent
    ):
        return None  # everything is gone, which is what `onNoData` is about
    holds, shown, bound_text = compare(counted.value, minimum.above, None) if counted.value is not None else (False, "", "")
    if holds:
        return None
    counts = f"{minimum.metric} {shown} is not {bound_text}" if shown else f"{minimum.metric}: {counted.message}"
    return Evaluation(Verdict.INCONCLUSIVE, CheckReason.BELOW_MINIMUM, f"{given.name}: too few events for a verdict: {counts}")


def _problem_of(given: EvaluationInput, measurement: Measurement) -> Evaluation:
    problem, reason = measurement.problem or Verdict.NO_DATA, measurement.reason or CheckReason.EMPTY_RESULT
    return Evaluation(problem, reason, f"{given.name}: {measurement.message}")


def _is_not_a_number(given: EvaluationInput) -> Evaluation | None:
    measurement = given.measurement
    if measurement is None or measurement.problem is None:
        return None
    problem = _problem_of(given, measurement)
    if not measurement.is_absent or given.on_no_data is OnNoData.PAUSE:
        return problem
    verdict, reason = _MEANING[given.on_no_data]
    return Evaluation(verdict, reason, f"{problem.message}; `onNoData` is {given.on_no_data}")


_MEANING: Final = {
    OnNoData.PASS: (Verdict.PASS, CheckReason.NO_DATA_PASSES),
    OnNoData.FAIL: (Verdict.FAIL, CheckReason.NO_DATA_FAILS),
}


def _against_users_without(given: EvaluationInput) -> Evaluation | None:
    comparison = given.comparison
    if comparison is None:
        return None
    if not _is_harmful(given) and (unusable := _unusable(given)):  # harm that was shown stays shown
        return unusable
    if not comparison.test.blocks:
        message = f"{given.name}: waiting for the first block of events about this audience"
        return Evaluation(Verdict.NOT_EVALUATED, CheckReason.AWAITING_RESULT, message)
    if given.harm_budget is not None:
        return _against_budget(given, comparison, given.harm_budget)
    tolerated = f"than tolerated ({comparison.tolerated_text})"
    unclear = f"too few events to tell whether it is more {tolerated}{comparison.missing_text}"
    verdict, reason, words = {
        Verdict.FAIL: (Verdict.FAIL, CheckReason.HARM_SHOWN, f"more {tolerated}, {comparison.odds_text}"),
        Verdict.PASS: (Verdict.PASS, CheckReason.HARMLESSNESS_SHOWN, f"not more {tolerated}"),
    }.get(comparison.verdict, (Verdict.INCONCLUSIVE, CheckReason.COMPARISON_OPEN, unclear))
    message = f"{given.name}: {comparison.counts_text}: {words}"
    return Evaluation(verdict, reason, message, value=comparison.counts_text, bound=comparison.tolerated_text)


def _is_harmful(given: EvaluationInput) -> bool:
    """Whether a comparison fails. Chance alone exceeds any budget one day, so that harm has to be shown as well."""
    known = given.comparison
    return known is not None and known.verdict is Verdict.FAIL and known.excess >= (given.harm_budget or 0)


def _against_budget(given: EvaluationInput, comparison: Comparison, budget: int) -> Evaluation:
    sure = f", {comparison.odds_text}" if comparison.verdict is Verdict.FAIL else ", which may be chance"
    message = (
        f"{given.name}: {comparison.counts_text}: {comparison.excess:,.0f} more than expected; `harmBudget` is {budget:,}{sure}"
    )
    verdict, reason = (
        (Verdict.FAIL, CheckReason.HARM_SHOWN) if _is_harmful(given) else (Verdict.INCONCLUSIVE, CheckReason.COMPARISON_OPEN)
    )
    return Evaluation(verdict, reason, message, value=comparison.counts_text, bound=f"{budget} events")


def _unusable(given: EvaluationInput) -> Evaluation | None:
    """Why the events that are compared say nothing about the users who should have the feature."""
    problem = given.exposure.problem if given.exposure is not None else None
    if given.exposure is not None and problem is CheckReason.NOT_APPLIED:
        return Evaluation(Verdict.INCONCLUSIVE, problem, f"{given.name}: {given.exposure.text}")
    if given.unusable is not None:
        return Evaluation(given.unusable.verdict, given.unusable.reason, f"{given.name}: {given.unusable.text}")
    if given.exposure is not None and problem is not None and given.comparison is not None and given.comparison.test.blocks:
        return Evaluation(Verdict.INCONCLUSIVE, problem, f"{given.name}: {given.exposure.text}")
    return None


def _against_bound(given: EvaluationInput) -> Evaluation | None:
    if given.above is None and given.below is None and given.between is None:
        return None
    holds, shown, bound_text = compare(_value(given), given.above, given.below, given.between)
    return Evaluation(
        Verdict.PASS if holds else Verdict.FAIL,
        CheckReason.WITHIN_BOUND if holds else CheckReason.OUT_OF_BOUND,
        f"{given.name} {shown} is {'' if holds else 'not '}{bound_text}",
        value=shown,
        bound=bound_text,
    )


def compare(
    value: Decimal, above: str | None, below: str | None, between: tuple[str, ...] | None = None
) -> tuple[bool, str, str]:
    """Compare a value with `above`, `below` or `between`, of which exactly one must be set.

    Returns whether the value is within the bound, the value as text in the unit of the bound, and the bound as text.
    """
    if between is not None:
        low, high = between
        return bound(low) < value < bound(high), show(value, unit_of(low)), f"between {low} and {high}"
    text, word = (above, "above") if above is not None else (below, "below")
    assert text is not None
    holds = value > bound(text) if word == "above" else value < bound(text)
    return holds, show(value, unit_of(text)), f"{word} {text}"


def _against_baseline(given: EvaluationInput) -> Evaluation | None:
    if given.compared_to is not ComparedTo.BASELINE:
        return None
    if given.baseline is None:
        message = f"{given.name}: the baseline was not measured before the phase was published"
        return Evaluation(Verdict.NOT_EVALUATED, CheckReason.BASELINE_MISSING, message)
    tolerance, value = _tolerance(given), _value(given)
    holds = tolerance.allows(value - given.baseline, tolerance.limit(given.baseline))
    shown, origin = show(value, ""), f", {given.origin}" if given.origin else ""
    verdict, reason = (Verdict.PASS, CheckReason.WITHIN_TOLERANCE) if holds else (Verdict.FAIL, CheckReason.OUT_OF_TOLERANCE)
    message = f"{given.name} {shown} is {'' if holds else 'not '}within the {tolerance.words} from the baseline"
    if not holds and tolerance.says_nothing(given.baseline):
        verdict, reason = Verdict.INCONCLUSIVE, CheckReason.ZERO_BASELINE
        message = f"{given.name} {shown}: {_ZERO_BASELINE.format(tolerance.words)}; the baseline is"
    return Evaluation(
        verdict,
        reason,
        f"{message} {show(given.baseline, '')}{origin}",
        value=shown,
        bound=tolerance.words,
        seasonal_baseline=str(given.baseline) if given.is_seasonal else None,
    )


_ZERO_BASELINE: Final = (
    'an {} says nothing, because each percentage of 0 is 0. Write a tolerance without %, such as `"0.001"`, and a `minimum`, so'
    " that no baseline is measured on few events"
)


def _against_control(given: EvaluationInput) -> Evaluation | None:
    measurement = given.measurement
    assert measurement is not None
    if measurement.on is None or measurement.off is None:
        message = f"{given.name}: its metric has no cohorts to compare"
        return Evaluation(Verdict.INCONCLUSIVE, CheckReason.NO_COHORTS, message)
    smallest = min(measurement.on.total, measurement.off.total)
    if smallest < MINIMUM_EVENTS:
        message = f"{given.name}: a cohort has {smallest:.0f} events; at least {MINIMUM_EVENTS} are required"
        return Evaluation(Verdict.INCONCLUSIVE, CheckReason.TOO_FEW_EVENTS, message)
    low, high = _difference(measurement.on, measurement.off)
    return _compare_interval(given, _tolerance(given), low, high)


def _difference(on: Counts, off: Counts) -> tuple[Decimal, Decimal]:
    low, high = newcombe(*((float(counts.good), float(counts.total)) for counts in (on, off)))
    return Decimal(low), Decimal(high)


def _compare_interval(given: EvaluationInput, tolerance: Tolerance, low: Decimal, high: Decimal) -> Evaluation:
    """Pass or Fail when the whole interval of the change says so; Inconclusive when the limit lies in it."""
    limit = bound(tolerance.text)
    ends = {tolerance.allows(low, limit), tolerance.allows(high, limit)}
    spread = f"{100 * low:.2f} to {100 * high:.2f} percentage points"
    verdict, reason, words = {
        frozenset({True}): (Verdict.PASS, CheckReason.WITHIN_TOLERANCE, "is within"),
        frozenset({False}): (Verdict.FAIL, CheckReason.OUT_OF_TOLERANCE, "is not within"),
    }.get(frozenset(ends), (Verdict.INCONCLUSIVE, CheckReason.TOLERANCE_UNCLEAR, "may or may not be within"))
    message = f"{given.name}: the change against users without the feature, {spread}, {words} the {tolerance.words}"
    return Evaluation(verdict, reason, message, value=spread, bound=tolerance.words)


_RULES: Final[tuple[Callable[[EvaluationInput], Evaluation | None], ...]] = (
    _is_warming_up,  # the query still covers data of another audience
    _has_no_result,  # the query was not sent yet, or its result is on its way
    _is_stale,  # the provider has stopped responding
    _has_failed,  # it cannot be reached, or rejects the query
    _has_too_few_events,  # `minimum` is not reached
    _is_not_a_number,  # empty, NaN, several series ..., unless `onNoData` says what that means
    _against_users_without,  # by blocks of events
    _against_bound,
    _against_baseline,
    _against_control,
)


def _value(given: EvaluationInput) -> Decimal:
    assert given.measurement is not None
    assert given.measurement.value is not None
    return given.measurement.value


def _tolerance(given: EvaluationInput) -> Tolerance:
    assert given.tolerance is not None, "a CEL rule demands one for every comparison"
    return given.tolerance
