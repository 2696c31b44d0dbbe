"""The evidence of one check that compares users with the feature with users without it, or all users with a fixed rate.

Blocks come in, a verdict comes out. Where the rate is fixed, all users count as those with the feature.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Self

from session_rollout.api.enums import Verdict
from session_rollout.api.quantities import estimate_text
from session_rollout.core.blocks import MOST_CELLS, BlockProblem, CohortBlock
from session_rollout.core.statistics.inflation import (
    ALPHA_OF_SAFETY,
    InformationBlocks,
    inflation_of,
    inflation_of_safety,
)
from session_rollout.core.statistics.power import Design
from session_rollout.core.statistics.rates import NOTHING, Block, RateTest, Tolerance

LARGEST_LOG: Final = 27.0  # odds beyond 5e11 to 1 are said to be as large
FEWEST_CELLS: Final = 8  # between which a variance can be measured, if they are of one size
MINUTE: Final = timedelta(minutes=1)
WITHOUT_CELLS: Final = ""  # the name of the only cell of a metric without the label


@dataclass(frozen=True)
class Comparison:
    """What is known after some blocks. The same blocks in the same order give the same comparison, together or one by one."""

    tolerance: Tolerance
    alpha: float  # probability of a wrong Fail, for this check in this phase
    horizon: float  # number of blocks for which `alpha` holds
    until: datetime  # end of the last block that was read
    length: timedelta = MINUTE  # of a block
    test: RateTest = field(default_factory=RateTest)
    cells: Mapping[str, Block] = field(default_factory=dict)  # the sums of each cell of users
    information: InformationBlocks = field(default_factory=InformationBlocks)
    largest: float = 1.0  # inflation that was measured between cells so far

    def add(self, blocks: Iterable[CohortBlock]) -> Self:
        """The comparison after these blocks, of which only those after `until` count."""
        known = self
        for block in blocks:
            if block.end > known.until:
                known = known._after(block)
        return known

    def restarted(self) -> Self:
        """The same comparison without anything that is known."""
        return type(self)(self.tolerance, self.alpha, self.horizon, self.until, self.length)

    def problem_of(self, block: CohortBlock) -> BlockProblem | None:
        """Why a block is no evidence: its own problem, or another set of cells in each block, such as one for each user."""
        has_room = len({*self.cells, *block.cells}) <= MOST_CELLS
        return block.problem if has_room or block.problem is not None else BlockProblem.UNEVEN_CELLS

    def _after(self, block: CohortBlock) -> Self:
        """A block that cannot be compared is over as well: it counts for neither cohort."""
        if block.problem is not None or not block.whole.is_comparable(self.tolerance):
            return replace(self, until=block.end)
        if self.cells and (WITHOUT_CELLS in self.cells) is not (WITHOUT_CELLS in block.cells):
            return self.restarted().add([block])  # the sums of before say nothing about clustering between cells
        if self.problem_of(block) is not None:
            return replace(self, until=block.end)
        names = {**self.cells, **block.cells}
        return self._counting(block, {name: self.cells.get(name, NOTHING) + block.cells.get(name, NOTHING) for name in names})

    def _counting(self, block: CohortBlock, cells: Mapping[str, Block]) -> Self:
        """The comparison after a block that counts; `cells` are all sums with it."""
        counted = replace(self, until=block.end, cells=cells, information=self._informed(block.whole))
        largest = max(self.largest, counted.inflation) if counted.has_cells else self.largest
        inflation = max(self.inflation, counted.inflation, largest)
        learned, rest = self._divided(block)
        return replace(counted, largest=largest, test=self.test.learn(learned).add(rest, self.tolerance, inflation))

    def _informed(self, block: Block) -> InformationBlocks:
        events = self.test.events
        if self.tolerance.times:
            return self.information.add(block, events.on_bad, self.test.expected)
        return self.information.add_alone(block, events)

    def _divided(self, block: CohortBlock) -> tuple[Block, Block]:
        """What the test learns from, and what it bets on, which is nearly always everything.

        Nobody knows the rate without the feature before the first block. A large one would be lost to bets on a wrong rate, so that
        every second cell of it teaches the rate. What decides is the number of events, not how many of them are bad.
        """
        cells = [block.cells[name] for name in sorted(block.cells)]
        learned, rest = sum(cells[::2], NOTHING), sum(cells[1::2], NOTHING)
        is_large = learned.off_total > self.test.known_events and rest.is_comparable(self.tolerance)
        return (learned, rest) if is_large and not self.test.blocks else (NOTHING, block.whole)

    @property
    def is_of_values(self) -> bool:
        """Whether it sums up values of events, and not the bad ones."""
        return False

    @property
    def has_cells(self) -> bool:
        """Whether clustering can be measured between cells of users: enough of them, of which none has most of the events."""
        totals = [cell.on_total + cell.off_total for cell in self.cells.values()]
        squares = sum(total * total for total in totals)
        return squares > 0 and sum(totals) ** 2 / squares >= FEWEST_CELLS

    @property
    def inflation(self) -> float:
        """That of evidence of harm; 1 before the first block."""
        if not self.cells:
            return 1.0
        if self.has_cells:
            return inflation_of(tuple(self.cells.values()), self.tolerance.times, self.alpha)
        return self.information.inflation(self.alpha)

    @property
    def safe_inflation(self) -> float:
        """That of evidence of safety."""
        if self.has_cells:
            measured = inflation_of_safety(tuple(self.cells.values()), self.tolerance.times)
            return measured if self.tolerance.times else max(measured, self.largest)
        return self.information.inflation(ALPHA_OF_SAFETY)

    @property
    def excess(self) -> float:
        """How many more bad events the users with the feature have had than expected without it."""
        return max(self.test.events.on_bad - self.test.expected, 0.0)

    @property
    def counts_text(self) -> str:
        """`42 of 12,276 bad with the feature (0.342%), 14.1 expected without it (0.115%)`."""
        events, expected = self.test.events, self.test.expected
        if not events.off_total:
            return f"{_count(events.on_bad)} of {_count(events.on_total)} bad ({_rate(events.on_bad, events.on_total)})"
        with_it = f"{_count(events.on_bad)} of {_count(events.on_total)} bad with the feature ({_rate(events.on_bad, events.on_total)})"
        return f"{with_it}, {_count(expected)} expected without it ({_rate(expected, events.on_total)})"

    @property
    def tolerated_text(self) -> str:
        """The tolerated rate, if the one without the feature is as it was so far: `0.244%`."""
        events = self.test.events
        return _rate(self.tolerance.limit(self.test.expected / events.on_total), 1.0) if events.on_total > 0 else ""

    @property
    def odds_text(self) -> str:
        """How sure harm is, in odds, and from which odds on the check fails."""
        start, recent = self.test.log_harm(self.inflation), self.test.log_recent() - math.log(self.horizon)
        odds, needed = math.exp(min(max(start, recent), LARGEST_LOG)), 2 / self.alpha
        return f"odds {odds:,.0f} to 1 (fails at {needed:,.0f} to 1)"

    @property
    def missing_text(self) -> str:
        """What is missing until harmlessness is shown, if there is no harm, and for how long at the traffic so far; empty if nobody can say."""
        missing, events = self.missing, self.test.events
        if not 0 < missing < math.inf:
            return ""
        wait = self.length * (missing * self.test.blocks / (events.on_total + events.off_total))
        return f"; about {missing:,.0f} more events of all users are needed, {estimate_text(wait)} at this traffic"

    @property
    def missing(self) -> float:
        """About how many events of all users; infinite if no number of them would do, and 0 if that is not known."""
        events = self.test.events
        total, shown = events.on_total + events.off_total, self.test.shows_safety(self.safe_inflation)
        share = events.on_total / total if total > 0 else 0.0
        if shown or self.tolerates_everything or not 0 < share < (1 if self.tolerance.times else math.inf):
            return 0.0
        rate = self.test.rate_without() if events.off_total else (events.on_bad + 0.5) / events.on_total
        return Design(share, rate, self.tolerance, self.safe_inflation).events_to_pass() - total

    @property
    def verdict(self) -> Verdict:
        """Fail once harm is shown, Pass once harmlessness is, and Inconclusive until then, and where everything is tolerated."""
        if self.test.shows_harm(self.alpha, self.horizon, self.inflation):
            return Verdict.FAIL
        shown = self.test.shows_safety(self.safe_inflation) and not self.tolerates_everything
        return Verdict.PASS if shown else Verdict.INCONCLUSIVE

    @property
    def tolerates_everything(self) -> bool:
        """Whether no rate with the feature would be too high: nearly every event is bad without it, or is counted as bad."""
        events = self.test.events
        rate = events.off_bad / events.off_total if events.off_total > 0 else 0.0
        return self.tolerance.limit(max(rate, self.test.rate_without())) >= 1


def _rate(events: float, total: float) -> str:
    return f"{100 * events / total:.3g}%" if total > 0 else "0%"


def _count(events: float) -> str:
    """Estimates of counts, with a decimal only where it matters."""
    return f"{events:,.0f}" if events >= 100 or abs(events - round(events)) < 0.05 else f"{events:.1f}"  # noqa: PLR2004 - shown
