"""Blocks become a verdict: the same together or one by one, and never from a block that is no evidence."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_rollout.api.enums import Verdict
from session_rollout.core.blocks import BlockProblem, CohortBlock
from session_rollout.core.comparison import Comparison
from session_rollout.core.statistics.inflation import UNKNOWN
from session_rollout.core.statistics.power import Design
from session_rollout.core.statistics.rates import Block, RateTest, Tolerance

START = datetime(2026, 1, 5, tzinfo=UTC)
BLOCK = timedelta(minutes=5)
DEFAULT = Tolerance(times=1.25, plus=0.001)
NEW = Comparison(tolerance=DEFAULT, alpha=0.01 / 12, horizon=10_080, until=START)
CELLS = tuple(str(number) for number in range(16))


def block(number: int, counts: Block, cells: tuple[str, ...] = CELLS) -> CohortBlock:
    """The block of this number, whose events are the same in each cell."""
    return CohortBlock(START + number * BLOCK, dict.fromkeys(cells, counts))


def many(counts: Block, number: int, cells: tuple[str, ...] = CELLS) -> list[CohortBlock]:
    """As many equal blocks."""
    return [block(each, counts, cells) for each in range(1, number + 1)]


def test_harm_fails() -> None:
    """One bad event with the feature in each cell, of five, and one of two hundred without it."""
    assert NEW.verdict is Verdict.INCONCLUSIVE
    assert NEW.add(many(Block(1, 5, 1, 200), 3)).verdict is Verdict.FAIL


def test_no_effect_passes() -> None:
    assert NEW.add(many(Block(0, 50, 0, 950), 3)).verdict is Verdict.INCONCLUSIVE
    assert NEW.add(many(Block(0, 50, 0, 950), 10)).verdict is Verdict.PASS


def test_where_everything_is_bad_nothing_is_harmless() -> None:
    """A histogram without the bucket that was named counts every event as bad, with the feature and without it."""
    known = NEW.add(many(Block(50, 50, 950, 950), 200))
    assert known.test.shows_safety(known.safe_inflation)
    assert known.tolerates_everything
    assert known.verdict is Verdict.INCONCLUSIVE
    assert known.missing_text != NEW.add(many(Block(0, 5, 0, 95), 1)).missing_text


@pytest.mark.parametrize("rate", [0.005, 0.02, 0.05])
@pytest.mark.parametrize("events", [20_000, 200_000])
def test_a_large_first_block_is_not_lost_to_bets_on_a_wrong_rate(rate: float, events: int) -> None:
    """It teaches the rate without the feature. Else a busy application needed several times the events to pass."""
    counts = Block(0.2 * events * rate / 16, 0.2 * events / 16, 0.8 * events * rate / 16, 0.8 * events / 16)
    enough = Design(0.2, rate, DEFAULT).events_to_pass()
    blocks = 2 + math.ceil(1.5 * enough / events)
    assert NEW.add(many(counts, blocks)).verdict is Verdict.PASS


def test_a_small_first_block_counts_in_full() -> None:
    """Ten harmed users are enough, also if they are the first ones."""
    known = NEW.add(many(Block(1, 5, 1, 200), 1))
    assert (known.test.events, known.test.blocks) == (Block(16, 80, 16, 3200), 1)
    assert known.test == RateTest().add(Block(16, 80, 16, 3200), DEFAULT, known.inflation)


def test_all_events_of_a_large_first_block_are_shown() -> None:
    known = NEW.add(many(Block(1, 50, 20, 950), 1))
    assert known.test.events == Block(16, 800, 320, 15_200)
    assert known.test.blocks == 1


def test_without_cells_it_takes_longer() -> None:
    """Nobody knows how clustered the events are."""
    one = NEW.add(many(Block(0, 50, 0, 950), 100, ("",)))
    assert not one.has_cells
    assert one.safe_inflation == UNKNOWN
    assert one.verdict is Verdict.INCONCLUSIVE
    assert NEW.add(many(Block(0, 50, 0, 950), 1_200, ("",))).verdict is Verdict.PASS


@pytest.mark.parametrize("problem", BlockProblem)
def test_a_block_that_is_no_evidence_changes_only_the_time(problem: BlockProblem) -> None:
    known = NEW.add(many(Block(1, 50, 1, 950), 2))
    after = known.add([CohortBlock(START + 3 * BLOCK, problem=problem)])
    assert after.until == START + 3 * BLOCK
    assert (after.test, after.cells, after.information) == (known.test, known.cells, known.information)


def test_a_block_counts_once() -> None:
    """One that comes again, or late, is over."""
    known = NEW.add(many(Block(1, 50, 1, 950), 3))
    assert known.add(many(Block(1, 50, 1, 950), 3)) == known


def test_a_cell_may_begin_later() -> None:
    known = NEW.add([block(1, Block(0, 5, 0, 95), CELLS[:3]), block(2, Block(0, 5, 0, 95), CELLS[2:4])])
    assert {name: cell.on_total for name, cell in known.cells.items()} == {"0": 5, "1": 5, "2": 10, "3": 5}


COUNTS = st.builds(Block, st.integers(0, 5), st.integers(0, 50), st.integers(0, 5), st.integers(0, 900))
BLOCKS = st.lists(st.dictionaries(st.sampled_from(("1", "2", "3")), COUNTS, max_size=3), max_size=12)


@given(BLOCKS, st.integers(0, 12))
def test_to_catch_up_is_to_have_looked_each_time(counts: list[dict[str, Block]], together: int) -> None:
    """After an outage, the blocks that were missed come at once."""
    blocks = [CohortBlock(START + (number + 1) * BLOCK, cells) for number, cells in enumerate(counts)]
    one_by_one = NEW
    for each in blocks:
        one_by_one = one_by_one.add([each])
    assert NEW.add(blocks[:together]).add(blocks[together:]) == one_by_one == NEW.add(blocks)


def uneven(share: float, number: int, *, on: bool = False) -> CohortBlock:
    """A block in which one client, without bad events, has a share of all events of a group."""
    source = np.random.default_rng(number)
    cells = {}
    for name in CELLS:
        events = source.poisson(150), source.poisson(2_850)
        bad = (source.binomial(each, 0.01) for each in events)
        cells[name] = Block(*(float(part) for pair in zip(bad, events, strict=True) for part in pair))
    alone = (150 if on else 2_850) * 16 * share / (1 - share)
    cells["0"] += Block(0, alone, 0, 0) if on else Block(0, 0, 0, alone)
    return CohortBlock(START + number * BLOCK, cells)


@pytest.mark.parametrize("share", [0.3, 0.4, 0.5])
def test_a_client_that_has_most_events_shows_no_harm_of_all_others(share: float) -> None:
    """Such as a health check: its rate is that of one client, and cells differ by it."""
    known = NEW
    for number in range(1, 200):
        known = known.add([uneven(share, number)])
        assert known.verdict is not Verdict.FAIL


def test_cells_must_be_even_in_each_group() -> None:
    """One customer among the few users with the feature is no part of a sixteenth of all events."""
    known = NEW.add(uneven(0.9, number, on=True) for number in range(1, 30))
    assert not known.has_cells
    assert known.inflation >= UNKNOWN
    assert known.safe_inflation >= UNKNOWN
    few = NEW.add([CohortBlock(START + BLOCK, {name: Block(0, float(name == "3") * 40, 0, 900) for name in CELLS})])
    assert few.has_cells, "40 events may be in one cell by chance"
