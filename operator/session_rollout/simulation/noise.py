"""The noise of a baseline: how far a metric is from the median of its earlier seasons by itself.

A tolerance that is near the noise is exceeded by chance, one day of a long phase or the other. So a check needs a margin: research with
waves of the day, weekends and weeks that differ has shown that 1.5 times the noise of one week is enough, see `bench.evidence`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from statistics import median
from typing import Final

from session_rollout.api.checks import Check, ComparedTo
from session_rollout.api.quantities import bound, unit_of
from session_rollout.core.evaluation import Direction, Tolerance, tolerance_of
from session_rollout.simulation.history import Incident, SeasonalHistory

SHARE: Final = 0.999  # of the readings are within the noise
MARGIN: Final = 1.5
SHORTEST: Final = timedelta(days=1)  # fewer readings do not even have each hour of a day
NO_SEASONS: Final = "less than a day of its readings has an earlier season, so that checks may be Unseasoned"
NO_RATIO: Final = "it is 0 at times, or changes its sign, so that a tolerance with % says nothing; write one without %"


@dataclass(frozen=True)
class Noise:
    """What 99.9% of the readings do not exceed."""

    quantile: float | None  # of |log(mean / baseline)|; None if it was not measured
    unmeasured: str = ""  # the reason

    def beyond(self, direction: Direction) -> float | None:
        """The same as a share of the baseline, in the direction of a tolerance."""
        if self.quantile is None:
            return None
        return -math.expm1(-self.quantile) if direction is Direction.MAX_DECREASE else math.expm1(self.quantile)


@dataclass(frozen=True)
class SmallTolerance:
    """A tolerance that noise alone may exceed."""

    tolerance: Tolerance
    noise: float  # as a share of the baseline, in its direction

    @property
    def smallest(self) -> str | None:
        """The smallest tolerance, with two digits, that noise does not exceed; None for a fall by all of it."""
        least = Decimal(repr(100 * MARGIN * self.noise))
        least = least.quantize(Decimal(1).scaleb(min(least.adjusted() - 1, 0)), ROUND_CEILING)
        return None if self.tolerance.direction is Direction.MAX_DECREASE and least >= Decimal(100) else f"{least:f}%"


def noise_of(history: SeasonalHistory, since: datetime, incidents: Sequence[Incident] = ()) -> Noise:
    """The noise of all readings from a time on, without those of incidents."""
    readings = sorted(_deviations(history.without(incidents), since))
    if len(readings) * history.means.interval < SHORTEST:
        return Noise(None, NO_SEASONS)
    quantile = readings[math.ceil(SHARE * len(readings)) - 1]
    return Noise(quantile) if math.isfinite(quantile) else Noise(None, NO_RATIO)


def too_small(check: Check, noise: Noise) -> SmallTolerance | None:
    """The tolerance of a check, if it is relative and has not enough margin; None without a noise."""
    tolerance = tolerance_of(check)
    if tolerance is None or not is_relative(check):
        return None
    beyond = noise.beyond(tolerance.direction)
    small = beyond is not None and float(bound(tolerance.text)) < MARGIN * beyond
    return SmallTolerance(tolerance, beyond) if beyond is not None and small else None


def is_relative(check: Check) -> bool:
    """Whether a check tolerates a change by a share of its baseline."""
    tolerance = tolerance_of(check)
    return check.compared_to is ComparedTo.BASELINE and tolerance is not None and unit_of(tolerance.text) == "%"


def _deviations(history: SeasonalHistory, since: datetime) -> Iterator[float]:
    """Of each reading that has an earlier season. No finite ratio leads from 0, to it, or to the other sign."""
    means = history.means
    for number in range(max(-((means.start - since) // means.interval), 0), len(means.values)):
        value, earlier = means.values[number], history.earlier(means.time(number))
        if math.isfinite(value) and earlier:
            baseline = median(earlier)
            ratio = value / baseline if baseline else 0.0
            yield abs(math.log(ratio)) if ratio > 0 else math.inf
