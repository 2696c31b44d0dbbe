"""Reads the result of a range query of `promql_blocks`, for bad and for all events, as blocks of evidence."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from session_rollout.adapters.promql_blocks import CELL, VARIANT
from session_rollout.core.blocks import MOST_CELLS, BlockProblem, CohortBlock
from session_rollout.core.statistics.rates import NOTHING, Block

Key = tuple[str, str]  # variant and cell
Counts = Mapping[Key, float]
HASHED: Final = ("on", "off")
CHOSEN: Final = ("on-chosen", "off-chosen")
CELL_NAME: Final = re.compile(r"[A-Za-z0-9._-]{0,16}")
SLACK: Final = 1.01  # each count is an estimate of its own
NOISE: Final = 1e-6  # the bad events of a histogram are a difference of two sums


ReadCell = Callable[[Counts, Counts, str, tuple[str, str]], Block]


class UnreadableBlock(Exception):
    """The period is no evidence."""

    def __init__(self, problem: BlockProblem) -> None:
        super().__init__(problem)
        self.problem = problem


def read_blocks(
    bad: Any, total: Any, ends: Sequence[datetime], *, of_all: bool = False, of_values: bool = False
) -> tuple[CohortBlock, ...]:
    """One block for each end. `bad` and `total` are two fields `data` of responses, which are `of_all` users without a variant.

    With `of_values`, the first one has sums of the values of all events.

    Raises LookupError, TypeError or ValueError if a response is none of Prometheus, or about other times than `ends`.
    """
    times = {end.timestamp() for end in ends}
    variant = HASHED[0] if of_all else ""
    bad_counts, total_counts = _counts(bad, times, variant), _counts(total, times, variant)
    needed = HASHED[:1] if of_all else HASHED
    cell = _cell_of_values if of_values else _cell
    return tuple(_block(end, bad_counts[end.timestamp()], total_counts[end.timestamp()], needed, cell) for end in ends)


def _counts(data: Any, times: set[float], variant: str) -> dict[float, dict[Key, float]]:
    """The counts of each time, by variant (of series without the label, this one) and cell."""
    if data["resultType"] != "matrix":
        raise ValueError("the result of a range query is a matrix")
    counts: dict[float, dict[Key, float]] = defaultdict(dict)
    for series in data["result"]:
        key = series["metric"].get(VARIANT, variant), series["metric"].get(CELL, "")
        for moment, value in series["values"]:
            if moment not in times or key in counts[moment]:
                raise ValueError("a sample comes twice, or at a time that was not requested")
            counts[moment][key] = float(value)
    return counts


def _block(end: datetime, bad: Counts, total: Counts, needed: Sequence[str], read: ReadCell) -> CohortBlock:
    """`needed` are the variants of which there must be events."""
    try:
        names = _cells(total)
        _refuse_strays(bad, total)
        cells = {name: read(bad, total, name, HASHED) for name in names}
        chosen = sum((read(bad, total, name, CHOSEN) for name in names), NOTHING)
    except UnreadableBlock as unreadable:
        return CohortBlock(end, problem=unreadable.problem)
    block = CohortBlock(end, cells, chosen, counts_bad=bool(bad))
    has_events = all(sum(total.get((variant, name), 0.0) for name in names) > 0 for variant in needed)
    return block if has_events else replace(block, problem=BlockProblem.NO_EVENTS)


def _cells(total: Counts) -> tuple[str, ...]:
    """The names of the cells of users who were not chosen: one without a name, or each with a name."""
    names = {cell for variant, cell in total if variant in HASHED}
    if not names:
        raise UnreadableBlock(BlockProblem.NO_VARIANTS if total else BlockProblem.NO_EVENTS)
    if ("" in names and len(names) > 1) or len(names) > MOST_CELLS or not all(map(CELL_NAME.fullmatch, names)):
        raise UnreadableBlock(BlockProblem.UNEVEN_CELLS)
    return tuple(sorted(names))


def _refuse_strays(bad: Counts, total: Counts) -> None:
    """Bad events that are counted under other labels than all events would be lost, and their cohort look harmless."""
    for variant, cell in (key for key, count in bad.items() if count and key not in total):
        if variant not in {*HASHED, *CHOSEN}:
            raise UnreadableBlock(BlockProblem.NO_VARIANTS)
        others = any(known == variant for known, _ in total)
        raise UnreadableBlock(
            BlockProblem.UNEVEN_CELLS if others and cell not in {each for _, each in total} else BlockProblem.IMPOSSIBLE_COUNTS
        )


def _cell(bad: Counts, total: Counts, name: str, variants: tuple[str, str]) -> Block:
    """The counts of one cell. A counter of bad events may begin with the first one, so that none is zero."""
    counts = _of_variants(bad, total, name, variants)
    if any(part > SLACK * whole + 1 for part, whole in (counts[:2], counts[2:])):
        raise UnreadableBlock(BlockProblem.IMPOSSIBLE_COUNTS)
    return Block(*counts)


def _cell_of_values(sums: Counts, total: Counts, name: str, variants: tuple[str, str]) -> Block:
    """The sums of one cell, which may be larger than the number of its events. Each series of events has a sum from its start."""
    if any(total.get((variant, name), 0.0) > 0 and (variant, name) not in sums for variant in variants):
        raise UnreadableBlock(BlockProblem.IMPOSSIBLE_COUNTS)
    return Block(*_of_variants(sums, total, name, variants))


def _of_variants(bad: Counts, total: Counts, name: str, variants: tuple[str, str]) -> list[float]:
    counts = [series.get((variant, name), 0.0) for variant in variants for series in (bad, total)]
    if not all(math.isfinite(count) and count > -NOISE for count in counts):
        raise UnreadableBlock(BlockProblem.NOT_A_COUNT)
    return [max(count, 0.0) for count in counts]
