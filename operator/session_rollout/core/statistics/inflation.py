"""How much more counts vary than independent events would: bad events come in bursts, and users differ for good.

An inflation of 4 means that four bad events say as much as one independent event. It is measured on cells: each user is in one
of 16 cells for good, so that both kinds of clustering make the cells differ. Without cells, it is measured over time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Final

from session_rollout.core.statistics.rates import NOTHING, Block

ALPHA_OF_SAFETY: Final = 0.05
UNKNOWN: Final = 10.0  # while nothing says how bad events cluster: without cells, until four blocks of information are complete
INFORMATION: Final = 4.0  # variance at which a block of information is complete
FEWEST_BLOCKS: Final = 4
FEW_BAD_EVENTS: Final = 50.0
MARGIN: Final = 1.5  # time alone does not show that users differ for good


@lru_cache(maxsize=256)
def small_sample_factor(groups: int, alpha: float) -> float:
    """The square of Student's t over the normal quantile, at `groups - 1` degrees of freedom (Cornish and Fisher 1938)."""
    z, free = NormalDist().inv_cdf(1 - alpha), groups - 1
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return (t / z) ** 2


def inflation_of(cells: Sequence[Block], times: float, alpha: float) -> float:
    """The inflation of the difference between the cohorts, at least 1."""
    return max(1.0, small_sample_factor(len(cells), alpha) * _of_difference(cells, times))


def inflation_of_safety(cells: Sequence[Block], times: float) -> float:
    """The same for evidence of safety: a feature that has not had its bursts yet looks harmless, so those without it count too.

    Against a fixed rate there are none: as long as there are few bad events, the inflation is close to that of an unknown clustering.
    """
    factor = small_sample_factor(len(cells), ALPHA_OF_SAFETY)
    if times:
        return max(1.0, factor * max(_of_difference(cells, times), _of_control(cells)))
    known = math.fsum(cell.on_bad for cell in cells)
    weight = known / (known + FEW_BAD_EVENTS)
    return max(1.0, weight * factor * _of_difference(cells, times) + (1 - weight) * UNKNOWN)


def _of_difference(cells: Sequence[Block], times: float) -> float:
    """The variance between cells over that of independent events; 1 while there are none."""
    whole = sum(cells, NOTHING)
    if whole.on_total <= 0 or (times and whole.off_total <= 0):
        return 1.0
    on_rate, off_rate = whole.on_bad / whole.on_total, whole.off_bad / whole.off_total if times else 0.0
    independent = whole.on_bad / whole.on_total**2 + (times**2 * whole.off_bad / whole.off_total**2 if times else 0.0)
    if independent <= 0:
        return 1.0
    squares = 0.0
    for cell in cells:
        deviation = (cell.on_bad - on_rate * cell.on_total) / whole.on_total
        if times:
            deviation -= times * (cell.off_bad - off_rate * cell.off_total) / whole.off_total
        squares += deviation**2
    return len(cells) / (len(cells) - 1) * squares / independent


def _of_control(cells: Sequence[Block]) -> float:
    whole = sum(cells, NOTHING)
    if whole.off_bad <= 0 or whole.off_total <= 0:
        return 1.0
    rate = whole.off_bad / whole.off_total
    squares = math.fsum((cell.off_bad - rate * cell.off_total) ** 2 for cell in cells)
    return len(cells) / (len(cells) - 1) * squares / whole.off_bad


@dataclass(frozen=True)
class InformationBlocks:
    """The inflation over time, for metrics without cells: blocks are joined until each has the same information."""

    observed: float = 0.0  # bad events with the feature in the open block of information
    predicted: float = 0.0
    variance: float = 0.0
    closed: int = 0
    deviations: float = 0.0  # sum of (observed - predicted) ** 2 / variance of the complete ones

    def add(self, block: Block, on_bad: float, expected: float) -> "InformationBlocks":
        """After one more block; `on_bad` and `expected` are the sums of the blocks before it."""
        if block.on_total <= 0 or block.off_total <= 0:
            return self
        bad, ratio = block.on_bad + block.off_bad, (on_bad + 1) / (expected + 1)
        share = ratio * block.on_total / (ratio * block.on_total + block.off_total)
        observed, predicted = self.observed + block.on_bad, self.predicted + bad * share
        variance = self.variance + bad * share * (1 - share)
        return self._with(observed, predicted, variance)

    def add_alone(self, block: Block, events: Block) -> "InformationBlocks":
        """After one more block of events that are compared with a fixed rate; `events` are the sums of the blocks before it."""
        if events.on_total <= 0:
            return self  # nothing predicts the first one
        predicted = block.on_total * (events.on_bad + 0.5) / events.on_total
        return self._with(self.observed + block.on_bad, self.predicted + predicted, self.variance + predicted)

    def _with(self, observed: float, predicted: float, variance: float) -> "InformationBlocks":
        if variance < INFORMATION:
            return InformationBlocks(observed, predicted, variance, self.closed, self.deviations)
        more = (observed - predicted) ** 2 / variance
        return InformationBlocks(closed=self.closed + 1, deviations=self.deviations + more)

    def inflation(self, alpha: float) -> float:
        """The inflation, at least 1; `UNKNOWN` until four blocks of information are complete."""
        if self.closed < FEWEST_BLOCKS:
            return UNKNOWN
        return max(1.0, MARGIN * small_sample_factor(self.closed, alpha) * self.deviations / self.closed)
