"""What a comparison would see: fixed figures, and simulations that agree."""

import math

import numpy as np
import pytest

from session_rollout.core.statistics.power import Design
from session_rollout.core.statistics.rates import Block, RateTest, Tolerance

DEFAULT = Tolerance(times=1.25, plus=0.001)
ALPHA = 0.01 / 12
DAY = 24

# Rate without the feature, sessions per hour, share with it, days: the smallest rate that is seen in per cent, and with inflation 3.
SMALLEST = [
    (0.0005, 1_000, 0.01, 1, 3.46, 7.75),
    (0.0005, 1_000, 0.05, 3, 0.67, 1.22),
    (0.0005, 10_000, 0.05, 3, 0.29, 0.41),
    (0.0005, 100_000, 0.5, 7, 0.18, 0.18),
    (0.005, 10_000, 0.05, 3, 1.00, 1.20),
    (0.005, 10_000, 0.2, 4, 0.85, 0.94),
    (0.02, 10_000, 0.01, 1, 4.60, 6.31),
]


@pytest.mark.parametrize(("rate", "hourly", "share", "days", "plain", "inflated"), SMALLEST)
def test_the_smallest_rate_that_is_seen(
    rate: float, hourly: float, share: float, days: float, plain: float, inflated: float
) -> None:
    for inflation, smallest in ((1.0, plain), (3.0, inflated)):
        seen = Design(share, rate, DEFAULT, inflation).smallest_rate(hourly * DAY * days, ALPHA)
        assert seen is not None
        assert 100 * seen == pytest.approx(smallest, abs=0.005)


@pytest.mark.parametrize(
    ("hourly", "rate", "days"), [(1_000, 0.0005, 11.0), (10_000, 0.0005, 1.1), (10_000, 0.005, 1.7), (100_000, 0.0005, 0.1)]
)
def test_when_harmlessness_is_shown(hourly: float, rate: float, days: float) -> None:
    assert Design(0.05, rate, DEFAULT).events_to_pass() / hourly / DAY == pytest.approx(days, abs=0.05)


def test_what_is_tolerated_is_never_seen() -> None:
    design = Design(0.05, 0.0005, DEFAULT)
    assert design.events_to_see(DEFAULT.limit(0.0005), ALPHA) == math.inf
    assert design.events_to_see(DEFAULT.limit(0.0005) * 0.5, ALPHA) == math.inf


def test_too_few_events_see_nothing() -> None:
    """Not even a feature of which every event is bad; nor when the tolerance allows every rate."""
    assert Design(0.01, 0.0005, DEFAULT).smallest_rate(100, ALPHA) is None
    assert Design(0.05, 0.9, Tolerance(1.25, 0.0)).smallest_rate(1e9, ALPHA) is None


def test_four_of_five_simulated_runs_see_it() -> None:
    """The smallest rate that is promised is seen by `start` alone in 80 to 95 % of runs (here of 200)."""
    rng, runs, blocks, events = np.random.default_rng(6), 200, 72, 10_000.0
    rate = Design(0.05, 0.0005, DEFAULT).smallest_rate(blocks * events, ALPHA)
    assert rate is not None
    seen = 0
    for _ in range(runs):
        test = RateTest()
        on = rng.poisson(0.05 * events * rate, blocks).tolist()
        off = rng.poisson(0.95 * events * 0.0005, blocks).tolist()
        for on_bad, off_bad in zip(on, off, strict=True):
            test = test.add(Block(on_bad, 0.05 * events, off_bad, 0.95 * events), DEFAULT)
            if test.log_harm() >= math.log(2 / ALPHA):
                seen += 1
                break
    assert 0.8 <= seen / runs <= 0.95
