"""The inflation: independent events have 1, clustered ones more, and few cells or few events do not make it smaller."""

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, t

from session_rollout.core.statistics.inflation import (
    UNKNOWN,
    InformationBlocks,
    inflation_of,
    inflation_of_safety,
    small_sample_factor,
)
from session_rollout.core.statistics.rates import Block

ALPHA = 0.01 / 12
CELLS = (Block(0, 50, 1, 950), Block(5, 50, 0, 950), Block(0, 50, 0, 950), Block(0, 50, 9, 950))


def test_four_cells() -> None:
    """A worked example."""
    assert inflation_of(CELLS, 1.25, ALPHA) == pytest.approx(38.583477, abs=1e-6)
    assert inflation_of(CELLS, 1.25, 0.05) == pytest.approx(10.768419, abs=1e-6)
    assert inflation_of_safety(CELLS, 1.25) == pytest.approx(14.996847, abs=1e-6)


@pytest.mark.parametrize(("groups", "factor"), [(16, 1.4677), (32, 1.1986)])
def test_few_cells_have_the_quantile_of_student(groups: int, factor: float) -> None:
    """The expansion is within 1 % of the exact quantile."""
    assert small_sample_factor(groups, ALPHA) == pytest.approx(factor, abs=1e-4)
    exact = (t.ppf(1 - ALPHA, groups - 1) / norm.ppf(1 - ALPHA)) ** 2
    assert small_sample_factor(groups, ALPHA) == pytest.approx(exact, rel=0.01)


COUNTS = st.integers(0, 1_000)


@given(st.lists(st.builds(Block, COUNTS, COUNTS, COUNTS, COUNTS), min_size=2, max_size=32), st.sampled_from((0.0, 1.0, 1.25)))
def test_it_is_never_below_one(cells: list[Block], times: float) -> None:
    assert inflation_of(cells, times, ALPHA) >= 1
    assert inflation_of_safety(cells, times) >= 1


def test_events_that_come_five_at_a_time_have_five() -> None:
    """Before the factor for few cells, which is left out by many of them."""
    rng, cells = np.random.default_rng(1), 4_096

    def cell(burst: int) -> Block:
        return Block(float(burst * rng.poisson(20 / burst)), 1_000, float(burst * rng.poisson(100 / burst)), 5_000)

    assert inflation_of([cell(1) for _ in range(cells)], 1.0, 0.05) == pytest.approx(1, abs=0.1)
    assert inflation_of([cell(5) for _ in range(cells)], 1.0, 0.05) == pytest.approx(5, rel=0.1)


def test_a_feature_without_bursts_yet_is_not_safer_than_the_users_without_it() -> None:
    cells = [Block(1, 100, bad, 1_900) for bad in (0, 30, 0, 0, 25, 0, 0, 40)]
    assert inflation_of(cells, 0.1, 0.05) < inflation_of_safety(cells, 0.1) / 5


def test_without_cells_it_is_measured_over_time() -> None:
    """It is unknown until four blocks of information are complete; then bursts show."""

    def after(bursts: int, blocks: int) -> InformationBlocks:
        rng = np.random.default_rng(2)
        known, on_bad, expected = InformationBlocks(), 0.0, 0.0
        for _ in range(blocks):
            block = Block(float(bursts * rng.poisson(0.5)), 500, float(bursts * rng.poisson(0.5)), 500)
            known = known.add(block, on_bad, expected)
            on_bad, expected = on_bad + block.on_bad, expected + block.expected
        return known

    assert after(1, 8).inflation(ALPHA) == UNKNOWN
    assert after(1, 4_000).inflation(0.05) == pytest.approx(1.5, rel=0.25)
    assert after(8, 4_000).inflation(0.05) > 6


@pytest.mark.parametrize("block", [Block(0, 0, 3, 100), Block(2, 100, 0, 0)])
def test_a_block_without_a_cohort_has_no_information(block: Block) -> None:
    known = reduce(lambda known, each: known.add(each, 0.0, 0.0), [Block(1, 50, 1, 50)] * 3, InformationBlocks())
    assert known.add(block, 3.0, 3.0) == known
