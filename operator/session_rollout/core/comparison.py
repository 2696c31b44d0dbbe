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
    UNKNOWN,
    InformationBlocks,
    inflation_of,
    inflation_of_safety,
)
from session_rollout.core.statistics.power import Design
from session_rollout.core.statistics.rates import NOTHING, Block, RateTest, Tolerance

LARGEST_LOG: Final = math.log(1e6)  # nobody reads larger odds
ESTIMATED_DIGITS: Final = 2
FEWEST_CELLS: Final = 8  # between which a variance can be measured, if they are of one size
ENOUGH_EVENTS: Final = 50  # of a group: fewer are in few cells by chance
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
    group: str = "with the feature"  # the users whose events are compared, as messages name them

    def add(self, blocks: Iterable[CohortBlock]) -> Self:
        """The comparison after these blocks, of which only those after `until` count."""
        known = self
        for block in blocks:
            if block.end > known.until:
                known = known._after(block)
        return known

    def restarted(self) -> Self:
        """The same comparison without anything that is known."""
        return type(self)(self.tolerance, self.alpha, self.horizon, self.until, self.length, group=self.group)

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
        """Whether clustering can be measured between cells of users: enough of them, of which none has most of the events of a group."""
        cells = self.cells.values()
        both = _effective([cell.on_total + cell.off_total for cell in cells])
        groups = ([cell.on_total for cell in cells], [cell.off_total for cell in cells])
        return both >= FEWEST_CELLS and all(
            _effective(group) >= FEWEST_CELLS for group in groups if sum(group) >= ENOUGH_EVENTS
        )

    @property
    def inflation(self) -> float:
        """That of evidence of harm; 1 before the first block."""
        if not self.cells:
            return 1.0
        if len(self.cells) == 1:
            return self.information.inflation(self.alpha)
        between = inflation_of(tuple(self.cells.values()), self.tolerance.times, self.alpha)
        return between if self.has_cells else self._of_uneven_cells(between, self.alpha)

    @property
    def safe_inflation(self) -> float:
        """That of evidence of safety."""
        if len(self.cells) <= 1:
            return self.information.inflation(ALPHA_OF_SAFETY)
        between = inflation_of_safety(tuple(self.cells.values()), self.tolerance.times)
        if not self.has_cells:
            return self._of_uneven_cells(between, ALPHA_OF_SAFETY)
        return between if self.tolerance.times else max(between, self.largest)

    def _of_uneven_cells(self, between: float, alpha: float) -> float:
        """That of cells that are too few or too different to measure clustering: one user may have most of the events of a group."""
        return max(between, self.largest, UNKNOWN, self.information.inflation(alpha))

    @property
    def excess(self) -> float:
        """How many more bad events the users with the feature have had than expected without it."""
        return max(self.test.events.on_bad - self.test.expected, 0.0)

    @property
    def counts_text(self) -> str:
        """`42 of 12,276 bad with the feature (0.342%), 14.1 expected without it (0.115%)`."""
        events, expected = self.test.events, self.test.expected
        bad, rate = f"{_count(events.on_bad)} of {_count(events.on_total)}", _rate(events.on_bad, events.on_total)
        if not events.off_total:
            return f"{bad} events of all users bad ({rate})"
        with_it = f"{bad} bad {self.group} ({rate})"
        return f"{with_it}, {_count(expected)} expected without it ({_rate(expected, events.on_total)})"

    @property
    def tolerated_text(self) -> str:
        """The tolerated rate, if the one without the feature is as it was so far: `0.244%`."""
        events = self.test.events
        return _rate(self.tolerance.limit(self.test.expected / events.on_total), 1.0) if events.on_total > 0 else ""

    @property
    def odds_text(self) -> str:
        """How sure harm is, in odds against chance, and which odds are enough."""
        start, recent = self.test.log_harm(self.inflation), self.test.log_recent() - math.log(self.horizon)
        return against_chance(max(start, recent), 2 / self.alpha)

    @property
    def missing_text(self) -> str:
        """What is missing until harmlessness is shown, if there is no harm, and for how long at the traffic so far; empty if nobody can say."""
        missing = self.missing
        if not 0 < missing < math.inf:
            return ""
        wait = self.length * (missing * self.test.blocks / self.total)
        number = round(missing, ESTIMATED_DIGITS - len(f"{missing:.0f}"))
        return f"; at least {number:,.0f} more events of all users are needed, {estimate_text(wait)} at this traffic"

    @property
    def missing(self) -> float:
        """About how many events of all users; infinite if no number of them would do, and 0 if that is not known."""
        design = self.design(self.safe_inflation)
        if design is None or self.tolerates_everything or self.test.shows_safety(self.safe_inflation):
            return 0.0
        return design.events_to_pass() - self.total

    def design(self, inflation: float) -> Design | None:
        """The events so far as those of a plan; None without events of both groups, or of all users where the rate is fixed."""
        events, total = self.test.events, self.total
        share = events.on_total / total if total > 0 else 0.0
        if not 0 < share < (1 if self.tolerance.times else math.inf):
            return None
        rate = self.test.rate_without() if events.off_total else (events.on_bad + 0.5) / events.on_total
        return Design(share, rate, self.tolerance, inflation)

    @property
    def total(self) -> float:
        """Events of all users."""
        return self.test.events.on_total + self.test.events.off_total

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


def _effective(totals: list[float]) -> float:
    """The number of cells of one size that would be as uneven as these."""
    squares = sum(total * total for total in totals)
    return sum(totals) ** 2 / squares if squares > 0 else 0.0


def against_chance(log: float, enough: float) -> str:
    """`odds against chance: 2,413 to 1 (400 to 1 is enough)`."""
    odds = f"{math.exp(log):,.0f}" if log < LARGEST_LOG else "over a million"
    return f"odds against chance: {odds} to 1 ({enough:,.0f} to 1 is enough)"


def _rate(events: float, total: float) -> str:
    return f"{100 * events / total:.3g}%" if total > 0 else "0%"


def _count(events: float) -> str:
    """Estimates of counts, with a decimal only where it matters."""
    return f"{events:,.0f}" if events >= 100 or abs(events - round(events)) < 0.05 else f"{events:.1f}"  # noqa: PLR2004 - shown
