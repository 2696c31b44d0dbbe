"""What a status keeps of a comparison: as good as all of it, and the same however often it is written and read.

Not here: that whoever may write a status makes no decision raise (test_control_attacks.py), how large it is (test_control.py).
"""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_rollout.api.enums import CheckKind
from session_rollout.api.evidence_record import EvidenceRecord
from session_rollout.core.blocks import BlockProblem, CohortBlock
from session_rollout.core.comparison import Comparison
from session_rollout.core.evidence_text import LEAST_LOG, decoded, encoded, exposed_events, exposed_text
from session_rollout.core.statistics.rates import Block, Tolerance

START: Final = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)
MINUTE: Final = timedelta(minutes=1)
RECORD: Final = EvidenceRecord(phase="one", kind=CheckKind.GUARD, name="failures", source="x", alpha="0.01", until=START)
FRESH: Final = Comparison(Tolerance(1.25, 0.001), 0.01, 50_400, START)


def drawn(source: random.Random, number: int) -> CohortBlock:
    """A block of 167 events, of which a twentieth has the feature; a few users cause most of what is bad."""
    cells = {}
    for cell in range(16):
        rate = 0.05 if cell in {3, 11} else 0.002
        on, off = source.randint(0, 1), source.randint(6, 13)
        bad = [sum(source.random() < rate for _ in range(events)) for events in (on, off)]
        cells[str(cell)] = Block(bad[0], on, bad[1], off)
    return CohortBlock(START + number * MINUTE, cells)


def test_rounding_changes_no_verdict() -> None:
    """Written after each of 3,000 blocks, clustering is measured as without it."""
    source, exact, record = random.Random(1), FRESH, RECORD
    for number in range(1, 3_001):
        block = drawn(source, number)
        exact = exact.add([block])
        record = encoded(record, decoded(record, FRESH).add([block]))
    kept = decoded(record, FRESH)
    assert kept.test.events == pytest.approx(exact.test.events)
    assert kept.has_cells
    assert exact.inflation > 3, "the example has clusters"
    assert kept.inflation == pytest.approx(exact.inflation, rel=0.001)
    assert kept.safe_inflation == pytest.approx(exact.safe_inflation, rel=0.001)
    assert kept.verdict is exact.verdict


def test_evidence_against_harm_is_kept_where_it_is_divided() -> None:
    """Of bursts of hundreds: a least logarithm of -99, divided by an inflation of 300, would be no evidence, and each burst begin there."""
    quiet = {str(cell): Block(0, 300, 40, 5_700) for cell in range(16)}
    burst = {**quiet, "3": Block(180, 300, 40, 5_700)}
    exact, record = FRESH, RECORD
    for number in range(1, 400):
        block = [CohortBlock(START + number * MINUTE, burst if number % 40 == 0 else quiet)]
        exact = exact.add(block)
        record = encoded(record, decoded(record, FRESH).add(block))
    kept = decoded(record, FRESH)
    assert min(exact.test.start) < -1_000 < -99 * 2, "the example has such evidence"
    assert exact.inflation > 50
    for stored, known in ((kept.test.start, exact.test.start), (kept.test.safe, exact.test.safe)):
        assert stored == pytest.approx([max(each, LEAST_LOG) for each in known], rel=0.01)
    assert kept.verdict is exact.verdict


SUMS: Final = st.tuples(*(st.integers(0, 10**9).map(lambda number: number / 100) for _ in range(4)))


@given(st.lists(SUMS, min_size=1, max_size=64))
def test_reading_and_writing_changes_nothing(parts: list[tuple[float, float, float, float]]) -> None:
    """Otherwise each decision would find another status."""
    cells = {str(number): Block(*part) for number, part in enumerate(parts)}
    written = encoded(RECORD, FRESH.add([CohortBlock(START + MINUTE, cells)]))
    assert encoded(written, decoded(written, replace(FRESH, until=written.until))) == written


def exposed(record: EvidenceRecord, audience: datetime, blocks: list[CohortBlock]) -> EvidenceRecord:
    """The record after these blocks."""
    return record.updated(exposed=exposed_text(record, audience, blocks))


def test_exposed_events_are_those_of_the_last_audience() -> None:
    """A block without events of one cohort counts, too: that nobody has the feature is what it says."""
    audience = START - MINUTE
    blocks = [
        CohortBlock(START, {"": Block(0, 5, 0, 95)}),
        CohortBlock(START + MINUTE, {"": Block(0, 0, 0, 100)}, problem=BlockProblem.NO_EVENTS),
        CohortBlock(START + 2 * MINUTE, problem=BlockProblem.NO_VARIANTS),
    ]
    record = exposed(RECORD, audience, blocks)
    assert exposed_events(record) == (5, 195)
    assert exposed_events(exposed(record, audience, blocks[:1])) == (10, 290)
    assert exposed_events(exposed(record, START, blocks[:1])) == (5, 95)
    assert exposed_events(RECORD.updated(exposed="1 2")) == (0, 0)
