"""Comparisons as text in `status.evidence`: rounded numbers, so that each decision continues from the same ones.

Whoever may write a status must not make later decisions raise: what cannot be read starts again.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Final, TypeVar

from session_rollout.api.evidence_record import EvidenceRecord
from session_rollout.core.blocks import CohortBlock
from session_rollout.core.comparison import Comparison
from session_rollout.core.flags import CELL_NAMES
from session_rollout.core.statistics.inflation import InformationBlocks
from session_rollout.core.statistics.rates import Block, RateTest

DECIMALS: Final = 3
BASE: Final = 36  # of the sums of cells, which would otherwise be most of a status
DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
HUNDREDTHS: Final = 100
LARGEST: Final = 1e12
LARGEST_TOTAL: Final = 1e15  # of values, as they are shown
LARGEST_SUM: Final = 1e24  # of values, such as bytes
LARGEST_LOG: Final = 99_999.0
LEAST_LOG: Final = -99.0
EXACT: Final = 1e6  # a larger number has no decimals
NONE: Final = "-"  # for minus infinity: no evidence at all
PARTS_OF_A_BLOCK: Final = 4
Known = TypeVar("Known", bound=Comparison)


def encoded(record: EvidenceRecord, comparison: Comparison) -> EvidenceRecord:
    """The record with what the comparison knows."""
    test, information = comparison.test, comparison.information
    return record.updated(
        until=comparison.until,
        blocks=test.blocks,
        events=_events_text((*_parts(test.events), test.expected), exact=comparison.is_of_values),
        harm=_text(map(_bounded, test.start)),
        recent=_text(map(_bounded, test.recent)),
        safe=_text(map(_bounded, test.safe)),
        cells=_cells_text(comparison.cells, exact=comparison.is_of_values) or None,
        inflation=_short(comparison.largest) if comparison.largest > 1 else None,
        information=None
        if comparison.has_cells or not test.blocks
        else _text(
            (information.observed, information.predicted, information.variance, information.closed, information.deviations)
        ),
    )


def decoded(record: EvidenceRecord, fresh: Known) -> Known:
    """The comparison that a record describes, or the fresh one if it has none that can be read."""
    try:
        events = _events(record)
        if not record.blocks:
            return fresh
        test = RateTest(
            start=_numbers(record.harm, len(fresh.test.start)),
            recent=_numbers(record.recent, len(fresh.test.recent)),
            safe=_numbers(record.safe, len(fresh.test.safe)),
            blocks=record.blocks,
            events=Block(*events[:PARTS_OF_A_BLOCK]),
            expected=events[-1],
        )
        cells = _cells_of(record.cells or "", exact=fresh.is_of_values)
        (largest,) = _counts(record.inflation or "1", 1)
        observed, predicted, variance, closed, deviations = _counts(record.information or "0 0 0 0 0", 5)
    except ValueError:
        return fresh
    information = InformationBlocks(observed, predicted, variance, int(closed), deviations)
    return replace(fresh, test=test, cells=cells, information=information, largest=max(largest, 1.0))


def events_of(record: EvidenceRecord) -> Block | None:
    """The events that were compared; None before the first block."""
    try:
        return Block(*_events(record)[:PARTS_OF_A_BLOCK]) if record.blocks else None
    except ValueError:
        return None


def _events(record: EvidenceRecord) -> tuple[float, ...]:
    """Raises ValueError when these are others than were written."""
    return _counts(record.events, PARTS_OF_A_BLOCK + 1, LARGEST_TOTAL)


def _events_text(numbers: Iterable[float], *, exact: bool) -> str:
    """Sums of values have any unit."""
    if not exact:
        return _text(numbers)
    return " ".join(f"{Decimal(f'{min(number, LARGEST_TOTAL):.9g}'):f}" for number in numbers)


def exposed_text(record: EvidenceRecord, audience: datetime, blocks: Iterable[CohortBlock]) -> str:
    """The `exposed` of the record after these blocks, which are all about an audience that was published then."""
    known, since = _exposed(record), int(audience.timestamp())
    on, off = known[:2] if known[2] == since else (0.0, 0.0)
    told = [block.whole for block in blocks if block.tells_shares]
    counts = on + sum(block.on_total for block in told), off + sum(block.off_total for block in told)
    return f"{_text(map(round, counts))} {since}"


def is_about(record: EvidenceRecord, audience: datetime) -> bool:
    """Whether events were counted last for the audience that was published then."""
    return _exposed(record)[2] == int(audience.timestamp())


def exposed_events(record: EvidenceRecord) -> tuple[float, float]:
    """The events with the feature and without it since the audience was published."""
    return _exposed(record)[:2]


def _exposed(record: EvidenceRecord) -> tuple[float, float, float]:
    try:
        on, off, since = _counts(record.exposed, 3)
    except ValueError:
        return 0.0, 0.0, 0.0
    return on, off, since


def _cells_text(cells: Mapping[str, Block], *, exact: bool) -> str:
    """The sums of each cell, without the names if they are those of the flag document. Those of values are `exact`: any unit is theirs."""
    write = _exact_sums if exact else _short_sums
    if cells.keys() == set(CELL_NAMES):
        return ";".join(write(cells[name]) for name in CELL_NAMES)
    return ";".join(f"{name} {write(cell)}" for name, cell in sorted(cells.items()))


def _cells_of(text: str, *, exact: bool) -> dict[str, Block]:
    """Raises ValueError when there are others than were written."""
    read = _exact if exact else _sums
    rows = [row.split(" ") for row in text.split(";") if row]
    if len(rows) == len(CELL_NAMES) and all(len(row) == PARTS_OF_A_BLOCK for row in rows):
        rows = [[name, *row] for name, row in zip(CELL_NAMES, rows, strict=True)]
    return {name: read(parts) for name, *parts in rows}


def _exact_sums(cell: Block) -> str:
    """The sums of a cell of values, with as many digits as later ones need that are a millionth of them."""
    return " ".join(f"{min(part, LARGEST_SUM):.10g}" for part in _parts(cell))


def _exact(parts: Iterable[str]) -> Block:
    """Raises ValueError when these are others than were written."""
    return _block_of([float(part) for part in parts], LARGEST_SUM)


def _short_sums(cell: Block) -> str:
    """The sums of a cell in hundredths, with letters for digits beyond nine."""
    return " ".join(_letters(round(min(part, LARGEST) * HUNDREDTHS)) for part in _parts(cell))


def _letters(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, BASE)
        text = DIGITS[digit] + text
    return text or "0"


def _sums(parts: Iterable[str]) -> Block:
    """Raises ValueError when these are others than were written."""
    return _block_of([int(part, BASE) / HUNDREDTHS for part in parts], LARGEST)


def _block_of(sums: Sequence[float], largest: float) -> Block:
    if len(sums) != PARTS_OF_A_BLOCK or not all(0 <= part <= largest for part in sums):
        raise ValueError("other sums than were written")
    return Block(*sums)


def _parts(block: Block) -> tuple[float, float, float, float]:
    return block.on_bad, block.on_total, block.off_bad, block.off_total


def _text(numbers: Iterable[float]) -> str:
    return " ".join(NONE if number == -math.inf else _short(number) for number in numbers)


def _short(number: float) -> str:
    """Without the zeros at its end, and never longer than the field allows."""
    bounded = min(max(number, -LARGEST), LARGEST)
    text = f"{bounded:.{DECIMALS if abs(bounded) < EXACT else 0}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in {"-0", ""} else text


def _bounded(log: float) -> float:
    """Evidence beyond that decides the same. A smaller one than the least is as good as none: one in 1e43."""
    return log if log == -math.inf else min(max(log, LEAST_LOG), LARGEST_LOG)


def _counts(text: str, expected: int, largest: float = LARGEST) -> tuple[float, ...]:
    """Numbers of events. Raises ValueError if there is another number of them, or one of them is none."""
    numbers = _numbers(text, expected, largest)
    if any(number < 0 for number in numbers):
        raise ValueError("a negative number of events")
    return numbers


def _numbers(text: str, expected: int, largest: float = LARGEST) -> tuple[float, ...]:
    """Raises ValueError if there is another number of them, or one of them is none."""
    numbers = tuple(-math.inf if part == NONE else float(part) for part in text.split())
    if len(numbers) != expected or any(math.isnan(number) or number > largest for number in numbers):
        raise ValueError("other numbers than were written")
    return numbers
