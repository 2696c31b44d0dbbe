"""Comparisons as text in `status.evidence`: rounded numbers, so that each decision continues from the same ones.

Whoever may write a status must not make later decisions raise: what cannot be read starts again.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from session_rollout.api.evidence_record import EvidenceRecord
from session_rollout.core.comparison import Comparison
from session_rollout.core.statistics.inflation import InformationBlocks
from session_rollout.core.statistics.rates import Block, RateTest

DECIMALS: Final = 3
DIGITS: Final = 5  # of the sums of a cell, which grow by far more than the sixth between two writes
NONE: Final = "-"  # for minus infinity: no evidence at all
PARTS_OF_A_BLOCK: Final = 4


def encoded(record: EvidenceRecord, comparison: Comparison) -> EvidenceRecord:
    """The record with what the comparison knows."""
    test, information = comparison.test, comparison.information
    return record.updated(
        until=comparison.until,
        blocks=test.blocks,
        events=_text((*_parts(test.events), test.expected)),
        harm=_text(test.start),
        recent=_text(test.recent),
        safe=_text(test.safe),
        cells=";".join(f"{name} {_text(map(_rounded, _parts(cell)))}" for name, cell in sorted(comparison.cells.items()))
        or None,
        information=None
        if comparison.has_cells or not test.blocks
        else _text(
            (information.observed, information.predicted, information.variance, information.closed, information.deviations)
        ),
    )


def decoded(record: EvidenceRecord, fresh: Comparison) -> Comparison:
    """The comparison that a record describes, or the fresh one if it has none that can be read."""
    try:
        events = _numbers(record.events, PARTS_OF_A_BLOCK + 1)
        if not record.blocks or not events:
            return fresh
        test = RateTest(
            start=_numbers(record.harm, len(fresh.test.start)),
            recent=_numbers(record.recent, len(fresh.test.recent)),
            safe=_numbers(record.safe, len(fresh.test.safe)),
            blocks=record.blocks,
            events=Block(*events[:PARTS_OF_A_BLOCK]),
            expected=events[-1],
        )
        cells = dict(_cell(text) for text in (record.cells or "").split(";") if text)
        observed, predicted, variance, closed, deviations = _numbers(record.information or "0 0 0 0 0", 5)
    except ValueError:
        return fresh
    information = InformationBlocks(observed, predicted, variance, int(closed), deviations)
    return replace(fresh, test=test, cells=cells, information=information)


def events_of(record: EvidenceRecord) -> Block | None:
    """The events that were compared; None before the first block."""
    try:
        return Block(*_numbers(record.events, PARTS_OF_A_BLOCK + 1)[:PARTS_OF_A_BLOCK]) if record.blocks else None
    except ValueError:
        return None


def _cell(text: str) -> tuple[str, Block]:
    name, _, numbers = text.partition(" ")
    return name, Block(*_numbers(numbers, PARTS_OF_A_BLOCK))


def _parts(block: Block) -> tuple[float, float, float, float]:
    return block.on_bad, block.on_total, block.off_bad, block.off_total


def _text(numbers: Iterable[float]) -> str:
    return " ".join(NONE if number == -math.inf else _short(number) for number in numbers)


def _short(number: float) -> str:
    """Without the zeros at its end."""
    text = f"{number:.{DECIMALS}f}".rstrip("0").rstrip(".")
    return "0" if text in {"", "-0", "-"} else text


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def _numbers(text: str, expected: int) -> tuple[float, ...]:
    """Raises ValueError if there is another number of them, or one of them is none."""
    numbers = tuple(-math.inf if part == NONE else float(part) for part in text.split())
    if len(numbers) != expected or any(math.isnan(number) or number == math.inf for number in numbers):
        raise ValueError("other numbers than were written")
    return numbers
