"""Sequential test of how many users have the feature, against the share that was published.

Counts of exposure are a test of rates with one unit of exposure in each cohort: the odds with the feature against those without it
are published / (1 - published). Two tests look for odds above and below the tolerated range.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from session_rollout.core.statistics.inflation import small_sample_factor
from session_rollout.core.statistics.rates import Block, Tolerance, log_e, log_mean_exp, optimal_stake

ALPHA: Final = 1e-4
TOLERATED: Final = 0.2  # odds within 20% of the published ones
MORE: Final = (1.1, 1.25, 1.5, 2.0, 4.0, 20.0)  # multiples of the largest tolerated odds
FEWER: Final = (0.9, 0.75, 0.5, 0.25, 0.05, 0.001)  # multiples of the smallest tolerated odds


@dataclass(frozen=True)
class RatioTest:
    """Evidence of too many and of too few users with the feature, and the events so far."""

    more: tuple[float, ...] = (0.0,) * len(MORE)
    fewer: tuple[float, ...] = (0.0,) * len(FEWER)
    on: float = 0.0
    off: float = 0.0

    def add(self, on: float, off: float, percent: float, tolerated: float = TOLERATED) -> "RatioTest":
        """The test after one more block with so many events, at a percentage above 0 and below 100."""
        odds, counts = percent / (100 - percent), Block(on, 1.0, off, 1.0)

        def evidence(bound: float, multiple: float) -> float:
            tolerance = Tolerance(bound, 0.0)
            return log_e(counts, tolerance, optimal_stake(1.0, 1.0, tolerance, (multiple * bound, 1.0)))

        upper, lower = odds * (1 + tolerated), odds * (1 - tolerated)
        return RatioTest(
            more=tuple(before + evidence(upper, multiple) for before, multiple in zip(self.more, MORE, strict=True)),
            fewer=tuple(before + evidence(lower, multiple) for before, multiple in zip(self.fewer, FEWER, strict=True)),
            on=self.on + on,
            off=self.off + off,
        )

    def log_evidence(self, inflation: float = 1.0) -> float:
        """The larger evidence of the two."""
        return max(log_mean_exp(value / inflation for value in logs) for logs in (self.more, self.fewer))

    def rejects(self, inflation: float = 1.0, alpha: float = ALPHA) -> bool:
        """Whether another ratio than a tolerated one is shown."""
        return self.log_evidence(inflation) >= math.log(2 / alpha)


def inflation_of_ratio(cells: Sequence[tuple[float, float]], alpha: float = ALPHA) -> float:
    """The inflation of the ratio, from the events of each cell with the feature and without it; at least 1."""
    on, off = math.fsum(cell[0] for cell in cells), math.fsum(cell[1] for cell in cells)
    if on <= 0 or off <= 0:
        return 1.0
    odds = on / off
    squares = math.fsum((with_it - odds * without) ** 2 for with_it, without in cells)
    ratio = len(cells) / (len(cells) - 1) * squares / (on + odds**2 * off)
    return max(1.0, small_sample_factor(len(cells), alpha) * ratio)
