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
LARGEST: Final = 1e12
LARGEST_LOG: Final = 99_999.0
EXACT: Final = 1e6  # a larger number has no decimals
NONE: Final = "-"  # for minus infinity: no evidence at all
PARTS_OF_A_BLOCK: Final = 4


def encoded(record: EvidenceRecord, comparison: Comparison) -> EvidenceRecord:
    """The record with what the comparison knows."""
    test, information = comparison.test, comparison.information
    return record.updated(
        until=comparison.until,
        blocks=test.blocks,
        events=_text((*_parts(test.events), test.expected)),
        harm=_text(map(_bounded, test.start)),
        recent=_text(map(_bounded, test.recent)),
        safe=_text(map(_bounded, test.safe)),
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
        events = _counts(record.events, PARTS_OF_A_BLOCK + 1)
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
        cells = dict(_cell(text) for text in (record.cells or "").split(";") if text)
        observed, predicted, variance, closed, deviations = _counts(record.information or "0 0 0 0 0", 5)
    except ValueError:
        return fresh
    information = InformationBlocks(observed, predicted, variance, int(closed), deviations)
    return replace(fresh, test=test, cells=cells, information=information)


def events_of(record: EvidenceRecord) -> Block | None:
    """The events that were compared; None before the first block."""
    try:
        return Block(*_counts(record.events, PARTS_OF_A_BLOCK + 1)[:PARTS_OF_A_BLOCK]) if record.blocks else None
    except ValueError:
        return None


def _cell(text: str) -> tuple[str, Block]:
    name, _, numbers = text.partition(" ")
    return name, Block(*_counts(numbers, PARTS_OF_A_BLOCK))


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
    """Evidence beyond that decides the same."""
    return log if log == -math.inf else min(max(log, -LARGEST_LOG), LARGEST_LOG)


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def _counts(text: str, expected: int) -> tuple[float, ...]:
    """Numbers of events. Raises ValueError if there is another number of them, or one of them is none."""
    numbers = _numbers(text, expected)
    if any(number < 0 for number in numbers):
        raise ValueError("a negative number of events")
    return numbers


def _numbers(text: str, expected: int) -> tuple[float, ...]:
    """Raises ValueError if there is another number of them, or one of them is none."""
    numbers = tuple(-math.inf if part == NONE else float(part) for part in text.split())
    if len(numbers) != expected or any(math.isnan(number) or number > LARGEST for number in numbers):
        raise ValueError("other numbers than were written")
    return numbers
