"""The test of how many users have the feature: the share that was published is accepted, and another one is found."""

from functools import reduce

import numpy as np
import pytest
from savvi.multinomial import Multinomial

from session_rollout.core.statistics.ratio import RatioTest, inflation_of_ratio


def after(blocks: list[tuple[float, float]], percent: float, tolerated: float = 0.2) -> RatioTest:
    """The test after these blocks."""
    return reduce(lambda test, block: test.add(*block, percent, tolerated), blocks, RatioTest())


@pytest.mark.parametrize("share", [0.05, 0.045, 0.055])
def test_a_share_within_the_tolerance_is_accepted(share: float) -> None:
    """In each of forty runs of five hundred blocks."""
    rng = np.random.default_rng(3)
    for _ in range(40):
        on = rng.binomial(100, share, size=500).tolist()
        assert not after([(float(events), 100.0 - events) for events in on], 5).rejects()


@pytest.mark.parametrize(("share", "blocks"), [(0.0, 8), (0.005, 10), (0.025, 60), (0.1, 60), (0.5, 1)])
def test_another_share_is_found(share: float, blocks: int) -> None:
    """In blocks of 100 events; a tenth of them shows nothing yet."""
    on = 100 * share
    assert after([(on, 100 - on)] * blocks, 5).rejects()
    assert not after([(on / 10, (100 - on) / 10)] * blocks, 5).rejects()


def test_it_agrees_with_another_sequential_test_of_counts() -> None:
    """The multinomial test of savvi (Lindon and Malek 2022) has a mixture of its own, so that only the size of the evidence agrees."""
    other = Multinomial(alpha=0.05, theta_0=np.array([0.05, 0.95]), k=100)
    other.update(np.array([60, 640]))
    assert 1 / other.odds == pytest.approx(0.0033707214, abs=1e-9)
    assert after([(60, 640)], 5, tolerated=0.0).log_evidence() == pytest.approx(np.log(other.odds), abs=1.0)


def test_clustered_users_make_it_slower() -> None:
    """Cells that differ give an inflation, by which the evidence is divided."""
    even, uneven = [(5.0, 95.0)] * 16, [(0.0, 100.0)] * 8 + [(10.0, 90.0)] * 8
    assert inflation_of_ratio(even) == 1
    assert inflation_of_ratio(uneven) > 5
    test = after([(0.5, 99.5)] * 15, 5)
    assert test.rejects()
    assert not test.rejects(inflation_of_ratio(uneven))
    assert inflation_of_ratio([(0.0, 5.0)] * 16) == 1
