"""The evidence of one check that compares the mean of a value, such as a latency, with the feature and without it.

The sums of values take the place of bad events: a mean is their rate. How much they vary is known from cells of users alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from session_rollout.api.enums import Verdict
from session_rollout.core.blocks import BlockProblem, CohortBlock
from session_rollout.core.comparison import WITHOUT_CELLS, Comparison, against_chance
from session_rollout.core.statistics.means import FEWEST_CELLS, Means, means_of
from session_rollout.core.statistics.rates import ALPHA_OF_PASS, Block

NEEDED_TO_PASS: Final = math.log(1 / ALPHA_OF_PASS)


@dataclass(frozen=True)
class MeanComparison(Comparison):
    """See `Comparison`. It has one process, for harm since the start, and all of `alpha` is for that."""

    def problem_of(self, block: CohortBlock) -> BlockProblem | None:
        """Why a block is no evidence: without cells, nobody knows how much values vary."""
        problem = super().problem_of(block)
        return BlockProblem.NO_CELLS if problem is None and WITHOUT_CELLS in block.cells else problem

    def _after(self, block: CohortBlock) -> Self:
        if self.problem_of(block) is not None:
            return replace(self, until=block.end)
        return super()._after(block)

    def _counting(self, block: CohortBlock, cells: Mapping[str, Block]) -> Self:
        test, whole = self.test, block.whole
        counted = replace(test, blocks=test.blocks + 1, events=test.events + whole, expected=test.expected + whole.expected)
        return replace(self, until=block.end, cells=cells, test=counted)

    @property
    def is_of_values(self) -> bool:
        """Values, in any unit."""
        return True

    @property
    def inflation(self) -> float:
        """That of sums is a part of their variance."""
        return 1.0

    @property
    def safe_inflation(self) -> float:
        """The same."""
        return 1.0

    def _means(self, alpha: float, *, safe: bool = False) -> Means | None:
        return means_of(tuple(self.cells.values()), self.tolerance.times, alpha, safe=safe) if self.has_cells else None

    @property
    def log_harm(self) -> float:
        """The logarithm of the evidence of harm; 0 while there is too little to test."""
        means = self._means(self.alpha)
        return means.log_evidence(self.tolerance) if means is not None else 0.0

    @property
    def log_safety(self) -> float:
        """The same of harmlessness."""
        means = self._means(ALPHA_OF_PASS, safe=True)
        return means.log_evidence(self.tolerance, safe=True) if means is not None else 0.0

    @property
    def verdict(self) -> Verdict:
        """Fail once harm is shown, Pass once harmlessness is, and Inconclusive until then."""
        if self.log_harm >= math.log(1 / self.alpha):
            return Verdict.FAIL
        return Verdict.PASS if self.log_safety >= NEEDED_TO_PASS else Verdict.INCONCLUSIVE

    @property
    def tolerates_everything(self) -> bool:
        """A mean has no largest value."""
        return False

    @property
    def counts_text(self) -> str:
        """`a mean of 0.412 in 12,276 events with the feature, 0.31 in 233,244 without it`."""
        whole = self.test.events
        on = f"a mean of {_mean(whole.on_bad, whole.on_total)} in {whole.on_total:,.0f} events {self.group}"
        return f"{on}, {_mean(whole.off_bad, whole.off_total)} in {whole.off_total:,.0f} without it"

    @property
    def tolerated_text(self) -> str:
        """The tolerated mean: `0.388`."""
        whole = self.test.events
        return _mean(self.tolerance.limit(whole.off_bad / whole.off_total), 1.0) if whole.off_total > 0 else ""

    @property
    def odds_text(self) -> str:
        """How sure harm is, in odds, and from which odds on the check fails."""
        return against_chance(self.log_harm, 1 / self.alpha)

    @property
    def missing_text(self) -> str:
        """What is missing until harmlessness is shown: cells, or events."""
        if self.test.blocks and len(self.cells) < FEWEST_CELLS:
            return f"; {len(self.cells)} cells of users have events, and {FEWEST_CELLS} are needed"
        return super().missing_text

    @property
    def missing(self) -> float:
        """About how many events of all users; infinite if no number of them would do, and 0 if that is not known."""
        means = self._means(ALPHA_OF_PASS, safe=True)
        if means is None or means.log_evidence(self.tolerance, safe=True) >= NEEDED_TO_PASS:
            return 0.0
        return (means.growth_to_pass(self.tolerance, NEEDED_TO_PASS) - 1) * self.total


def _mean(total: float, count: float) -> str:
    return f"{total / count:.3g}" if count > 0 else "nothing"
