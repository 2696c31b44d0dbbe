"""What guards on all users would have cost (`lab.guard_cost`): against what is known in closed form, and against simulated runs.

Not here: the demo that prints it (`make demo SIZE=...`).
"""

import math
import random

import pytest

from lab.guard_cost import LONGEST_HOURS, WINDOWS, Case, GuardOnAll, best, bounded

MINUTES = 1 / 60
CASE = Case(per_hour=10_000, share=0.05, base=0.0005, harm=0.05)


def test_rates_of_a_case() -> None:
    assert CASE.failing_without == pytest.approx(5)
    assert CASE.failing_with == pytest.approx(30)
    assert CASE.harmed == pytest.approx(25.25)


@pytest.mark.parametrize(("bound", "per_hour", "failures"), [(0.01, 10_000, 9), (0.01, 12_000, 10), (0.05, 10_000, 42)])
def test_a_bound_is_a_number_of_failures(bound: float, per_hour: float, failures: int) -> None:
    """The first whose share is not below the bound."""
    case = Case(per_hour, 0.05, 0.0005, 0.05)
    assert bounded(case, bound, 5 * MINUTES) == GuardOnAll(5 * MINUTES, failures)


@pytest.mark.parametrize("failures", [1, 9, 40])
def test_many_failures_wait_only_for_their_number(failures: int) -> None:
    """In a window without an end, the guard acts at that failure: after about the median of a gamma distribution."""
    hours = GuardOnAll(1000.0, failures).median_hours(10.0, seed=1)
    assert hours == pytest.approx((failures - 1 / 3) / 10, rel=0.2)


def test_a_guard_that_never_sees_harm() -> None:
    """At 0.1 % of all sessions, nine failures do not come in five minutes."""
    assert math.isinf(bounded(CASE, 0.01, 5 * MINUTES).median_hours(10.0, seed=1))


def test_for_waits_while_the_guard_fails() -> None:
    """If it fails from the first failure on, it acts that much later; where failures come and go, much later."""
    steady, scarce = (GuardOnAll(5 * MINUTES, 9, lasting) for lasting in (2 * MINUTES, 0.0))
    assert GuardOnAll(1000.0, 1, 2.0).median_hours(10.0, seed=1) == pytest.approx(
        2 + GuardOnAll(1000.0, 1).median_hours(10.0, seed=1)
    )
    assert steady.median_hours(30.0, seed=1) > 3 * scarce.median_hours(30.0, seed=1)
    assert steady.median_hours(255.0, seed=1) == pytest.approx(scarce.median_hours(255.0, seed=1) + 2 * MINUTES, rel=0.05)


def test_for_is_interrupted_by_a_time_without_failures() -> None:
    """Two failures in an hour, for two hours: by hand, on failures at fixed times."""
    guard = GuardOnAll(window=1.0, failures=2, lasting=1.5)
    assert guard.run(Steps(0.5, 0.5, 1.5, 0.5, 0.4, 0.5, 0.45)) == pytest.approx(3.0 + 1.5)


class Steps(random.Random):
    """Times between failures that are given."""

    def __init__(self, *steps: float) -> None:
        super().__init__(0)
        self._steps = iter(steps)

    def expovariate(self, _rate: float = 1.0) -> float:
        return next(self._steps, 10 * LONGEST_HOURS)


@pytest.mark.parametrize(("window", "failures", "rate"), [(1.0, 15, 5.0), (5 * MINUTES, 6, 7.0), (6.0, 52, 5.0)])
def test_probability_of_no_false_alarm(window: float, failures: int, rate: float) -> None:
    """The formula, and the share of simulated runs without one."""
    guard, source, runs = GuardOnAll(window, failures), random.Random(7), 300
    quiet = sum(math.isinf(guard.run(source, rate)) for _ in range(runs)) / runs
    assert 0.1 < quiet < 0.9, "a probability at which runs tell a difference"
    assert guard.quiet(rate) == pytest.approx(quiet, abs=0.1)


@pytest.mark.parametrize("harm", [0.01, 0.05, 0.15, 0.5])
def test_best_guard_has_few_false_alarms_and_is_the_soonest(harm: float) -> None:
    case = Case(10_000, 0.05, 0.0005, harm)
    guard = best(case, alpha=0.01, seed=3)
    assert guard.window in WINDOWS
    assert (
        1 - guard.quiet(case.failing_without)
        <= 0.01
        < 1 - GuardOnAll(guard.window, guard.failures - 1).quiet(case.failing_without)
    )
    soonest = guard.median_hours(case.failing_with, seed=3)
    assert soonest <= GuardOnAll(5 * MINUTES, 9).median_hours(case.failing_with, seed=3)
    assert 0 < soonest * case.harmed < 100
