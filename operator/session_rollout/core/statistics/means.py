"""Sequential test of two means, such as the latency from `_sum` and `_count`: a one-sided normal mixture (Robbins 1970).

Its error rates hold asymptotically (Waudby-Smith et al. 2024), so that it starts with 200 events in each cohort. The standard
error comes from cells of users, of which it requires 32. The share of requests over a bound is the better metric.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from session_rollout.core.statistics.inflation import small_sample_factor
from session_rollout.core.statistics.rates import Tolerance

FEWEST_EVENTS: Final = 200  # in each cohort
FEWEST_CELLS: Final = 32
EXPECTED_CHANGE: Final = 0.2  # of the mean without the feature: the scale of the mixture


@dataclass(frozen=True)
class Sums:
    """The sum of values and their number in one cell, with the feature and without it."""

    on_sum: float
    on_count: float
    off_sum: float
    off_count: float

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.on_sum + other.on_sum,
            self.on_count + other.on_count,
            self.off_sum + other.off_sum,
            self.off_count + other.off_count,
        )


def log_evidence(cells: Sequence[Sums], tolerance: Tolerance, alpha: float, *, safe: bool = False) -> float:
    """Evidence that the mean with the feature is above the tolerated one, or below it if `safe`; 0 while there is too little.

    `tolerance.plus` is in the unit of the values. `cells` holds the sums since the start.
    """
    whole = sum(cells, Sums(0.0, 0.0, 0.0, 0.0))
    if len(cells) < FEWEST_CELLS or min(whole.on_count, whole.off_count) < FEWEST_EVENTS:
        return 0.0
    on, off = whole.on_sum / whole.on_count, whole.off_sum / whole.off_count
    squares = math.fsum(
        (
            (cell.on_sum - on * cell.on_count) / whole.on_count
            - tolerance.times * (cell.off_sum - off * cell.off_count) / whole.off_count
        )
        ** 2
        for cell in cells
    )
    variance = small_sample_factor(len(cells), alpha) * len(cells) / (len(cells) - 1) * squares
    if variance <= 0 or off <= 0:
        return 0.0
    return _mixture((on - tolerance.limit(off)) * (-1 if safe else 1), 1 / variance, 1 / (EXPECTED_CHANGE * off) ** 2)


def _mixture(difference: float, information: float, prior: float) -> float:
    """Log of the e-value of a difference with this information, if the true one is normal with `prior` as its information."""
    weight, z = information / (information + prior), difference * math.sqrt(information)
    return _log_twice_normal(z * math.sqrt(weight)) + z * z * weight / 2 - math.log1p(information / prior) / 2


def _log_twice_normal(z: float) -> float:
    """log(2 * Phi(z)); far below zero by its asymptotic expansion, where `erfc` is zero."""
    tail = math.erfc(-z / math.sqrt(2))
    return math.log(tail) if tail > 0 else -z * z / 2 - math.log(-z * math.sqrt(math.pi / 2))
