"""Blocks of evidence: the events of users with the feature and without it in one period, by cells of users."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Final

from session_rollout.core.statistics.rates import NOTHING, Block

MOST_CELLS: Final = 64


class BlockProblem(StrEnum):
    """Why a period is no evidence about a feature."""

    NO_VARIANTS = "NoVariants"  # No series has the label `variant` with the value `on` or `off`.
    NO_EVENTS = "NoEvents"  # One of the cohorts has no events, or both.
    UNEVEN_CELLS = "UnevenCells"  # Some series have the label `cell`, and others have not, or have another number of cells.
    NO_CELLS = "NoCells"  # Means are compared by cells, and no series has the label `cell`.
    IMPOSSIBLE_COUNTS = "ImpossibleCounts"  # A cell has more bad events than events, or events without a sum of their values.
    NOT_A_COUNT = "NotACount"  # A count is negative, infinite or not a number.


@dataclass(frozen=True)
class CohortBlock:
    """One period of a metric that is counted by cohort.

    `cells` are by name, and one with an empty name if the metric has none. Users who were chosen (by a group, or
    with a value for everybody) cannot be compared with the others: their events are only reported. With a problem, there is
    nothing else, so that a period never counts by half; but for `NO_EVENTS`, where the events of the other cohort are known.
    """

    end: datetime
    cells: Mapping[str, Block] = field(default_factory=dict)
    chosen: Block = NOTHING
    problem: BlockProblem | None = None
    counts_bad: bool = True  # whether a counter of bad events exists, of anybody, be it 0

    @property
    def tells_shares(self) -> bool:
        """Whether it says how many users have the feature."""
        return self.problem in {None, BlockProblem.NO_EVENTS}

    @cached_property
    def whole(self) -> Block:
        """All cells together."""
        return sum(self.cells.values(), NOTHING)


@dataclass(frozen=True)
class BlockSeries:
    """Blocks of one metric, all of one length, the oldest first."""

    length: timedelta
    blocks: tuple[CohortBlock, ...] = ()
    scrape: timedelta = timedelta(0)  # the first events of a block may be that much older than it: a scrape brings them

    def after(self, until: datetime, audience: datetime) -> tuple[CohortBlock, ...]:
        """The blocks that begin at `until` or later and are only about an audience that all events are about since `audience`."""
        first = audience + self.length + self.scrape
        return tuple(block for block in self.blocks if block.end - self.length >= until and block.end >= first)

    def lost(self, until: datetime, audience: datetime) -> int:
        """How many blocks after `until` that were about the audience are too old to be read: those before the first known one."""
        known, start = self.after(until, audience), max(until, audience + self.scrape)
        return max((known[0].end - self.length - start) // self.length, 0) if known else 0
