"""The test of two means: no evidence from too little, its error rate, and what it finds."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from session_rollout.core.statistics.means import _log_twice_normal as log_twice_normal
from session_rollout.core.statistics.means import means_of
from session_rollout.core.statistics.rates import Block, Tolerance

TOLERATED = Tolerance(times=1.05, plus=0.0)
ALPHA = 0.01 / 12


def cells(rng: np.random.Generator, change: float, requests: int = 2_000, number: int = 16) -> list[Block]:
    """The sums of as many cells, of lognormal values around a second."""

    def values(count: int, mean: float) -> float:
        return float(rng.lognormal(0, 0.8, count).sum()) * mean

    return [Block(values(requests // 20, change), requests // 20, values(requests, 1), requests) for _ in range(number)]


def log_evidence(known: list[Block], tolerance: Tolerance, alpha: float, *, safe: bool = False) -> float:
    """Evidence of harm, or of harmlessness."""
    means = means_of(known, tolerance.times, alpha)
    assert means is not None
    return means.log_evidence(tolerance, safe=safe)


def test_the_tail_of_the_normal_distribution() -> None:
    for z in (-60.0, -39.0, -30.0, -1.0, 0.0, 5.0):
        assert log_twice_normal(z) == pytest.approx(math.log(2) + norm.logcdf(z), rel=1e-3)


def test_more_than_tolerated_is_found_and_no_change_is_not() -> None:
    rng = np.random.default_rng(4)
    assert log_evidence(cells(rng, 1.5), TOLERATED, ALPHA) >= math.log(1 / ALPHA)
    assert log_evidence(cells(rng, 1.0), TOLERATED, ALPHA) < 0
    assert log_evidence(cells(rng, 1.0), Tolerance(1.5, 0.0), 0.05, safe=True) >= math.log(20)
    assert log_evidence(cells(rng, 1.5), Tolerance(1.5, 0.0), 0.05, safe=True) < math.log(20)


def test_as_many_events_as_are_said_to_be_missing_show_harmlessness() -> None:
    """If the feature changes nothing: the estimate is right within its own step."""
    rng, tolerance, needed = np.random.default_rng(6), Tolerance(1.1, 0.0), math.log(20)
    known = cells(rng, 1.0, requests=400)
    means = means_of(known, tolerance.times, 0.05)
    assert means is not None
    growth = means.growth_to_pass(tolerance, needed)
    assert 1 < growth < math.inf
    for factor, shown in ((0.9, False), (1.0, True)):
        later = type(means)(means.off, means.off, means.variance / (growth * factor))
        assert (later.log_evidence(tolerance, safe=True) >= needed) is shown
    assert means.growth_to_pass(Tolerance(1.0, 0.0), needed) == math.inf


def test_its_error_rate_holds_for_every_look() -> None:
    """At the edge of the tolerance, at most 5 of 100 runs of 50 looks show harm with an alpha of 5 %."""
    rng, errors = np.random.default_rng(5), 0
    for _ in range(100):
        known = [Block(0, 0, 0, 0)] * 16
        for _ in range(50):
            known = [before + more for before, more in zip(known, cells(rng, 1.05, requests=100), strict=True)]
            means = means_of(known, TOLERATED.times, 0.05)
            if means is not None and means.log_evidence(TOLERATED) >= math.log(1 / 0.05):
                errors += 1
                break
    assert errors <= 5


@pytest.mark.parametrize(
    "known",
    [
        [Block(10, 15, 100, 100)] * 8,  # too few cells
        [Block(10, 5, 100, 100)] * 16,  # too few events
        [Block(10, 20, 100, 100)] * 16,  # no variance: a copy is no measurement
        [Block(10, 20, 0, 100)] * 16,  # a mean of zero
    ],
)
def test_too_little_is_no_evidence(known: list[Block]) -> None:
    assert means_of(known, TOLERATED.times, ALPHA) is None
