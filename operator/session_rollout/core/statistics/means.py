"""Sequential test of two means, such as the latency from `_sum` and `_count`: a one-sided normal mixture (Robbins 1970).

Its error rates hold asymptotically (Waudby-Smith et al. 2024), so that it starts with 200 events in each cohort. The standard
error comes from cells of users, of which it requires 16: as many as flag documents have. The share of requests over a bound is the
better metric.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Final

from session_rollout.core.statistics.inflation import small_sample_factor
from session_rollout.core.statistics.rates import NOTHING, Block, Tolerance

FEWEST_EVENTS: Final = 200  # in each cohort
FEWEST_CELLS: Final = 16
EXPECTED_CHANGE: Final = 0.2  # of the mean without the feature: the scale of the mixture
CLOSE: Final = 1.05  # an estimate of how many events are missing need not be better

LARGEST_GROWTH: Final = 1e9  # of the number of events, beyond which nobody waits for more


@dataclass(frozen=True)
class Means:
    """What is known of two means: that with the feature, that without it, and the variance of what is tested."""

    on: float
    off: float
    variance: float

    def log_evidence(self, tolerance: Tolerance, *, safe: bool = False) -> float:
        """Evidence that the mean with the feature is above the tolerated one, or below it if `safe`."""
        difference = (self.on - tolerance.limit(self.off)) * (-1 if safe else 1)
        return _mixture(difference, 1 / self.variance, 1 / (EXPECTED_CHANGE * self.off) ** 2)

    def growth_to_pass(self, tolerance: Tolerance, needed: float) -> float:
        """How many times as many events it takes to show harmlessness, if the feature changes nothing; infinite if nobody waits for that."""
        if self._as_if_harmless(LARGEST_GROWTH).log_evidence(tolerance, safe=True) < needed:
            return math.inf
        few, many = 1.0, LARGEST_GROWTH
        while many / few > CLOSE:
            middle = math.sqrt(few * many)
            enough = self._as_if_harmless(middle).log_evidence(tolerance, safe=True) >= needed
            few, many = (few, middle) if enough else (middle, many)
        return many

    def _as_if_harmless(self, growth: float) -> "Means":
        return Means(self.off, self.off, self.variance / growth)


def means_of(cells: Sequence[Block], times: float, alpha: float, *, safe: bool = False) -> Means | None:
    """The means of the sums since the start, of which `bad` has the values; None while there is too little to test.

    If `safe`, the variance is at least as large as if values with the feature varied like those without it: few values may not have
    one of the long tail yet, and would look as if they had none.
    """
    whole = sum(cells, NOTHING)
    if len(cells) < FEWEST_CELLS or min(whole.on_total, whole.off_total) < FEWEST_EVENTS:
        return None
    on, off = whole.on_bad / whole.on_total, whole.off_bad / whole.off_total
    deviations = [
        (cell.on_bad - on * cell.on_total, times * (cell.off_bad - off * cell.off_total)) for cell in cells
    ]  # of the sum of each cell, from that of an equal part of all
    squares = math.fsum((with_it / whole.on_total - without / whole.off_total) ** 2 for with_it, without in deviations)
    if safe:
        of_event = math.fsum(without**2 for _, without in deviations) / whole.off_total
        squares = max(squares, of_event * (1 / whole.on_total + 1 / whole.off_total))
    variance = small_sample_factor(len(cells), tail_of(alpha)) * len(cells) / (len(cells) - 1) * squares
    return Means(on, off, variance) if variance > 0 and off > 0 else None


@lru_cache(maxsize=256)
def tail_of(alpha: float) -> float:
    """The tail of the normal distribution that evidence of 1 / alpha lies in, at least: there, Student's t has to be met."""
    return NormalDist().cdf(-math.sqrt(2 * math.log(1 / alpha)))


def _mixture(difference: float, information: float, prior: float) -> float:
    """Log of the e-value of a difference with this information, if the true one is normal with `prior` as its information."""
    weight, z = information / (information + prior), difference * math.sqrt(information)
    return _log_twice_normal(z * math.sqrt(weight)) + z * z * weight / 2 - math.log1p(information / prior) / 2


def _log_twice_normal(z: float) -> float:
    """log(2 * Phi(z)); far below zero by its asymptotic expansion, where `erfc` is zero."""
    tail = math.erfc(-z / math.sqrt(2))
    return math.log(tail) if tail > 0 else -z * z / 2 - math.log(-z * math.sqrt(math.pi / 2))
