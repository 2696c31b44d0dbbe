"""Values that a simulated metric could have: such that all its checks pass, or fail, as a scenario wants."""

import itertools
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from session_rollout.api.checks import Check, ComparedTo, Gate
from session_rollout.api.enums import CheckKind, Verdict
from session_rollout.api.metrics import Metric
from session_rollout.api.quantities import bound, unit_of
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status import RolloutStatus
from session_rollout.core.blocks import BlockSeries, CohortBlock
from session_rollout.core.evaluation import MINIMUM_EVENTS, evaluate, input_of
from session_rollout.core.evidence import percent_of, phase_of, tolerated_by
from session_rollout.core.observed import Counts, Measurement
from session_rollout.core.statistics.rates import Block

BIG: Final = Decimal(10**6)
TRAFFIC: Final = 1e9  # events of a block
BLOCKS: Final = 3
BASE_RATE: Final = 0.001  # of bad events, whoever has the feature
MEAN: Final = Decimal(1)  # of values, whoever has the feature
SPREAD: Final = 0.001  # between cells, of the mean
HARMFUL_RATE: Final = Decimal("0.5")
CELLS: Final = tuple(map(str, range(16)))
ANY_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)
FACTORS: Final = tuple(map(Decimal, ("1.05", "0.95", "1.3", "0.7", "3", "0.1")))

KindAndCheck = tuple[CheckKind, Check | Gate]
Baselines = Mapping[tuple[CheckKind, str], Decimal]


def measurement_of(value: Decimal, time: datetime, *, cohorts: bool) -> Measurement:
    """A measurement of this value; of a metric with cohorts also the counts that give it."""
    if not cohorts:
        return Measurement(time, value=value)
    total = Decimal(100 * MINIMUM_EVENTS) * 1000
    share = min(max(value, Decimal(0)), Decimal(1))
    return Measurement(time, value=share, on=Counts(share * total, total), off=Counts(total / 2, total))


def rates_of(spec: RolloutSpec, status: RolloutStatus, metric: Metric) -> tuple[Decimal, Decimal, Decimal]:
    """Of a metric that is counted: the percentage of users that its checks are about, and rates of bad events that pass and that fail.

    Of a mean, these are means, where that without the feature is 1.
    """
    if metric.is_mean:
        return percent_of(status, phase_of(spec, status, metric)), MEAN, _harmful_mean(spec, metric)
    if metric.counts is None:
        return percent_of(status, phase_of(spec, status, metric)), Decimal(str(BASE_RATE)), HARMFUL_RATE
    checks = spec.all_checks()
    limits = [bound(check.below) for check in checks if check.metric == metric.name and check.below is not None]
    return Decimal(100), min(limits, default=Decimal(1)) / 4, (1 + max(limits, default=Decimal(0))) / 2


def _harmful_mean(spec: RolloutSpec, metric: Metric) -> Decimal:
    checks = spec.all_checks()
    tolerated = (tolerated_by(spec, check).times for check in checks if check.metric == metric.name)
    return 2 * Decimal(str(max(tolerated, default=1.0)))


def compared_measurement(rate: Decimal, time: datetime, metric: Metric, *, percent: Decimal, length: timedelta) -> Measurement:
    """The last blocks of a metric that is counted: with this rate of bad events (or mean) with the feature, and a percentage of users with it.

    There is as much traffic as it takes to tell with each of them. Cells of a mean differ a little, as those of real users: means without
    a variance are no measurement.
    """
    with_it, without = (float(share) * TRAFFIC / 100 / len(CELLS) for share in (percent, 100 - percent))
    if metric.is_mean:
        on, off, spread = max(float(rate), 0.0), float(MEAN), SPREAD
    else:
        on, off, spread = min(max(float(rate), 0.0), 1.0), BASE_RATE, 0.0
    more, less = (
        Block(on * with_it * (1 + sign * spread), with_it, off * without * (1 - sign * spread), without) for sign in (1, -1)
    )
    cells = dict(zip(CELLS, itertools.cycle((more, less)), strict=False))
    seconds = length.total_seconds()
    newest = math.floor(time.timestamp() / seconds)
    ends = (datetime.fromtimestamp((newest - age) * seconds, UTC) for age in reversed(range(BLOCKS)))
    return Measurement(time, series=BlockSeries(length, tuple(CohortBlock(end, cells) for end in ends)))


def best_value(checks: list[KindAndCheck], baselines: Baselines, wanted: Verdict, *, cohorts: bool) -> Decimal:
    """The first value for which most checks have the wanted verdict."""
    best, most = Decimal(0), -1
    for value in dict.fromkeys(_candidates(checks, baselines)):
        score = sum(_verdict(kind, check, value, baselines, cohorts=cohorts) is wanted for kind, check in checks)
        if score > most:
            best, most = value, score
        if most == len(checks):
            break
    return best


def _candidates(checks: list[KindAndCheck], baselines: Baselines) -> Iterator[Decimal]:
    """Values worth trying: at baselines and bounds, and a little on either side of them."""
    bases = [baselines[kind, check.name] for kind, check in checks if (kind, check.name) in baselines]
    yield from bases
    for _, check in checks:
        yield from _around_bounds(check)
    for kind, check in checks:
        if isinstance(check, Check) and check.compared_to is ComparedTo.BASELINE and (kind, check.name) in baselines:
            yield from (baselines[kind, check.name] * factor for factor in FACTORS)
    yield from (Decimal(1), Decimal("0.5"), Decimal(0), Decimal(100), BIG)


def _around_bounds(check: Check | Gate) -> Iterator[Decimal]:
    if check.between is not None:
        low, high = map(bound, check.between)
        yield from ((low + high) / 2, high * 2, low - 1)
    for text in (check.above, check.below):
        if text is not None:
            limit = bound(text)
            step = max(abs(limit) / 10, Decimal("0.0001"))
            if unit_of(text) == "%" and 0 < limit < 1 and text == check.above:
                yield (1 + limit) / 2
            yield from (limit / 2, limit * 2, limit - step, limit + step)


def _verdict(kind: CheckKind, check: Check | Gate, value: Decimal, baselines: Baselines, *, cohorts: bool) -> Verdict:
    """The verdict of a check on a value, whatever its query covers."""
    baseline = baselines.get((kind, check.name))
    if isinstance(check, Check) and check.compared_to is ComparedTo.BASELINE and baseline is None:
        return Verdict.PASS
    return evaluate(
        input_of(
            check,
            measurement=measurement_of(value, ANY_TIME, cohorts=cohorts),
            not_before=ANY_TIME,
            stale_after=timedelta.max,
            now=ANY_TIME,
            baseline=baseline,
        )
    ).verdict
