"""The limits that `make demo SIZE=...` allows a single run, which are about many runs: against simulated ones.

Not here: the limits for many runs (`make evidence SCENARIO=detection`), the rollouts themselves (tests/integration/test_cohorts.py).
"""

import numpy as np
import pytest

from bench.evidence.scenarios import DEFAULT as TOLERANCE
from bench.evidence.scenarios import DETECTED, EARLY, harm, harmed_in_lag
from bench.evidence.traffic import Traffic
from lab.comparison_demo import BASE, BLOCKS_PER_HOUR, DELAY_BLOCKS, FACTOR, FALSE_ROLLBACK, LIMITS, PER_HOUR
from session_rollout.api.metrics import DEFAULT_CONTROL
from session_rollout.api.quantities import bound

RUNS = 1_000


@pytest.mark.parametrize("size", LIMITS)
def test_hardly_any_run_exceeds_what_is_allowed(size: float) -> None:
    """In cells, with the delays of the lab in addition to the lag of a block that the simulation has."""
    blocks, harmed = LIMITS[size]
    traffic = Traffic(per_hour=PER_HOUR, rate=BASE, harm=size, steps=EARLY, minutes=60 / BLOCKS_PER_HOUR, users=1_000_000)
    result = harm(traffic, RUNS, TOLERANCE, FALSE_ROLLBACK, seed=50)
    assert result.share == 1.0
    delayed = np.random.default_rng(1).poisson((DELAY_BLOCKS - 1) * harmed_in_lag(traffic), RUNS)
    is_late = result.block + 1 + DELAY_BLOCKS > FACTOR * blocks
    exceeding = float((is_late | (result.harmed + delayed > FACTOR * harmed)).mean())
    assert exceeding < 0.01


def test_limits_are_those_of_the_evidence() -> None:
    assert {size: (round(hours * BLOCKS_PER_HOUR), harmed) for size, hours, harmed in DETECTED} == LIMITS


def test_the_guard_has_the_whole_default() -> None:
    assert float(bound(DEFAULT_CONTROL.false_rollback)) == FALSE_ROLLBACK
