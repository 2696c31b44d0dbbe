"""The test of two rates: a worked example, and agreement with other implementations.

Covered: e-values whose expectation under the null hypothesis is at most 1, optimal stakes, the three processes, and blocks that
say nothing. Not here: error rates over weeks (`make evidence`).
"""

import itertools
import math
from functools import reduce

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, poisson

from session_rollout.core.statistics.alternatives import LARGEST_STAKE
from session_rollout.core.statistics.rates import Block, RateTest, Tolerance, log_e, log_mean_exp, optimal_stake

DEFAULT = Tolerance(times=1.25, plus=0.001)
ALPHA = 0.01 / 12
HORIZON = 10_080
BLOCKS = (
    Block(0, 50, 0, 950),
    Block(1, 50, 0, 950),
    Block(3, 50, 1, 950),
    Block(2, 50, 0, 950),
    Block(4, 48, 1, 961),
)


def after(*blocks: Block, prior: float = 0.0001, tolerance: Tolerance = DEFAULT) -> RateTest:
    """The test after these blocks."""
    return reduce(lambda test, block: test.add(block, tolerance), blocks, RateTest(prior=prior))


def test_five_blocks() -> None:
    """A worked example, to six digits."""
    test = after(*BLOCKS, prior=0.001)
    assert test.start == pytest.approx(
        (1.713326, 3.779547, 6.380016, 9.878364, 13.861314, 17.949081, 19.588114, 17.778021), abs=1e-6
    )
    assert test.recent == pytest.approx(
        (3.030282, 4.898611, 7.378018, 10.8087, 14.775441, 18.907937, 20.680725, 18.962821), abs=1e-6
    )
    assert test.safe == pytest.approx((-14.567833, -4.675731, -17.410991, -21.431959), abs=1e-6)
    figures = test.log_harm(), test.log_harm(inflation=2), test.log_recent(), test.log_safe(), test.expected
    assert figures == pytest.approx((17.816985, 8.362707, 18.902927, -6.061971, 0.102580), abs=1e-6)
    assert test.shows_harm(ALPHA, HORIZON)
    assert not test.shows_safety()


def test_a_hundred_quiet_blocks_show_safety() -> None:
    test = after(*(Block(0, 50, 0, 950) for _ in range(100)))
    assert test.log_safe() == pytest.approx(4.6672, abs=1e-4)
    assert test.shows_safety()
    assert not test.shows_harm(ALPHA, HORIZON)


def test_a_fixed_bound_needs_no_users_without_the_feature() -> None:
    """One bad event of three is far above 1 %, and no evidence of it."""
    test = after(Block(1, 3, 0, 0), tolerance=Tolerance(times=0, plus=0.01))
    assert test.log_harm() == pytest.approx(1.5370, abs=1e-4)
    assert not test.shows_harm(ALPHA, HORIZON)
    assert not test.shows_safety()


def test_without_a_share_it_is_the_ratio_of_binomial_likelihoods() -> None:
    """Given the sum of the bad events, those with the feature are binomial (Lindon and Malek 2022)."""
    tolerance = Tolerance(times=1.25, plus=0)
    block = Block(7, 50, 40, 950)
    stake = optimal_stake(50, 950, tolerance, (2.5, 1.0))
    null, alternative = (50 * rate / (50 * rate + 950) for rate in (1.25, 2.5))
    ratio = binom.logpmf(7, 47, alternative) - binom.logpmf(7, 47, null)
    assert log_e(block, tolerance, stake) == pytest.approx(ratio, abs=1e-12)
    assert ratio == pytest.approx(2.036818, abs=1e-6)


RATES = st.floats(1e-5, 0.5)
TOLERANCES = st.builds(Tolerance, st.sampled_from((0.0, 0.8, 1.0, 1.25, 2.0)), st.sampled_from((0.0, 0.001, 0.05))).filter(
    lambda tolerance: tolerance.times + tolerance.plus > 0
)


@given(on=st.integers(1, 500), off=st.integers(1, 500), tolerance=TOLERANCES, rate_on=RATES, rate_off=RATES)
@example(on=50, off=950, tolerance=DEFAULT, rate_on=0.02, rate_off=0.0005)
def test_the_stake_is_the_best_against_the_nearest_null(
    on: int, off: int, tolerance: Tolerance, rate_on: float, rate_off: float
) -> None:
    """It maximizes the expected growth at the rates, within its bounds: a numerical optimum is not better."""
    stake = optimal_stake(on, off, tolerance, (rate_on, rate_off))

    def growth(stake: float) -> float:
        return log_e(Block(on * rate_on, on, off * rate_off, off), tolerance, stake)

    low = -LARGEST_STAKE * on
    high = LARGEST_STAKE * off / tolerance.times if tolerance.times else on * max(rate_on / tolerance.plus, 1.0)
    best = minimize_scalar(lambda x: -growth(x), bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    assert low <= stake <= high + 1e-9
    assert growth(stake) >= -best.fun - 1e-9


@given(
    on=st.integers(1, 12),
    off=st.integers(1, 12),
    tolerance=TOLERANCES,
    rate_off=RATES,
    bet=RATES,
    guess=RATES,
    share=st.just(0.0) | st.floats(1e-9, 1.0),  # binom.pmf overflows on rates that are too small for its own arithmetic
)
@example(on=5, off=7, tolerance=DEFAULT, rate_off=0.01, bet=0.4, guess=0.01, share=1.0)
def test_the_expected_evidence_is_at_most_one_under_the_null(
    on: int, off: int, tolerance: Tolerance, rate_off: float, bet: float, guess: float, share: float
) -> None:
    """Summed over every outcome of Bernoulli events, and closely of Poisson ones, whatever is bet."""
    limit = min(tolerance.limit(rate_off), 1.0)
    stake = optimal_stake(on, off, tolerance, (bet, guess))
    rate_on = limit * share if stake > 0 else limit + (1 - limit) * share
    if stake < 0 and tolerance.limit(rate_off) > 1:
        return  # no rate is as harmful as that

    def expected(chance_on: list[float], chance_off: list[float]) -> float:
        outcomes = itertools.product(enumerate(chance_on), enumerate(chance_off))
        return math.fsum(p * q * math.exp(log_e(Block(x, on, y, off), tolerance, stake)) for (x, p), (y, q) in outcomes)

    bernoulli = [binom.pmf(range(n + 1), n, rate).tolist() for n, rate in ((on, rate_on), (off, rate_off))]
    assert expected(*bernoulli) <= 1 + 1e-9
    events = [poisson.pmf(range(60), n * rate).tolist() for n, rate in ((on, rate_on), (off, rate_off))]
    assert expected(*events) <= 1 + 1e-9


@pytest.mark.parametrize("block", [Block(0, 0, 0, 950), Block(0, 50, 0, 0), Block(0, 0, 0, 0)])
def test_a_block_without_a_cohort_changes_nothing(block: Block) -> None:
    test = after(*BLOCKS)
    assert test.add(block, DEFAULT) == test


def test_late_harm_is_seen_by_the_recent_process() -> None:
    """After a hundred quiet blocks, the evidence since the start is too negative to notice it soon."""
    quiet = after(*(Block(0, 50, 1, 950) for _ in range(2_000)))
    harmed = reduce(lambda test, block: test.add(block, DEFAULT), [Block(2, 50, 1, 950)] * 6, quiet)
    assert harmed.log_recent() >= math.log(2 * HORIZON / ALPHA)
    assert harmed.log_harm() < math.log(2 / ALPHA)
    assert harmed.shows_harm(ALPHA, HORIZON)


def test_inflation_weakens_the_evidence() -> None:
    """Clustered events count for less: `recent` divides each block, the others all of them at once."""
    plain, inflated = RateTest(), RateTest()
    for block in BLOCKS:
        plain, inflated = plain.add(block, DEFAULT), inflated.add(block, DEFAULT, inflation=3.0)
    assert inflated.start == plain.start
    assert inflated.log_recent() < plain.log_recent() / 2
    assert plain.log_harm(inflation=3.0) < plain.log_harm() / 2


def test_the_mean_of_nothing_is_nothing() -> None:
    assert log_mean_exp((-math.inf, -math.inf)) == -math.inf
    assert log_mean_exp((1_000.0, -math.inf)) == pytest.approx(1_000 - math.log(2))
