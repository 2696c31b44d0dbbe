"""What a harmful feature costs if the only guards are those on the failure share of all users.

Such a guard acts when `failures` or more sessions of all users failed within `window` hours, and this was so for `lasting` hours. How
long that takes with harm is the median of simulated runs, in which sessions fail independently. Without harm, at `rate` failures an
hour, a guard without `lasting` does not act within t hours with the probability

    F(failures - 1) * exp(-(1 - rate * window / failures) * rate * p(failures - 1) * (t - window))

where p and F are the Poisson distribution with the mean rate * window (Alm 1983). Both favor the guard on all users: nothing but
the feature changes the rate, the guard is evaluated all the time, and its rollback takes no time.
"""

import math
import random
import statistics
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

LONGEST_HOURS: Final = 35 * 24.0  # as `control.falseRollback` holds for: HORIZON in core/evidence.py
WINDOWS: Final = (5 / 60, 0.25, 1.0, 6.0, 24.0)  # hours
RUNS: Final = 201


@dataclass(frozen=True)
class Case:
    """Sessions of all users in an hour, the share of them that has the feature, and the shares that fail."""

    per_hour: float
    share: float
    base: float
    harm: float  # added to `base` with the feature

    @property
    def failing_without(self) -> float:
        """Failures an hour without the feature."""
        return self.per_hour * self.base

    @property
    def failing_with(self) -> float:
        """Failures an hour, of all users, while some have the feature."""
        return self.failing_without + self.per_hour * self.share * self.harm

    @property
    def harmed(self) -> float:
        """Failed sessions an hour of the users with the feature."""
        return self.per_hour * self.share * (self.base + self.harm)


@dataclass(frozen=True)
class GuardOnAll:
    """A guard that fails from this number of failures in a window on."""

    window: float  # hours
    failures: int
    lasting: float = 0.0  # hours, `for` of the guard

    def quiet(self, rate: float, hours: float = LONGEST_HOURS) -> float:
        """The probability that it never fails within this time. `failures` is above the mean number in a window."""
        mean = rate * self.window
        clusters = (1 - mean / self.failures) * rate * _probability(self.failures - 1, mean)
        fewer = math.fsum(_probability(number, mean) for number in range(self.failures))
        return min(fewer, 1.0) * math.exp(-clusters * (hours - self.window))

    def median_hours(self, rate: float, seed: int) -> float:
        """When it has acted in half of the runs; infinite if that is later than any rollout."""
        source = random.Random(seed)
        return statistics.median(self.run(source, rate) for _ in range(RUNS))

    def run(self, source: random.Random, rate: float = 1.0) -> float:
        """When it acts in one run. It fails from `since` to `until`, or longer if there are more failures before that."""
        now, since, until, last = 0.0, math.inf, 0.0, deque[float](maxlen=self.failures)
        while now < LONGEST_HOURS:
            now += source.expovariate(rate)
            last.append(now)
            since = since if now <= until else math.inf
            if len(last) == self.failures and now <= (until := last[0] + self.window):
                since = min(since, now)
                if since + self.lasting <= until:
                    return since + self.lasting
        return math.inf


def bounded(case: Case, bound: float, window: float, lasting: float = 0.0) -> GuardOnAll:
    """The guard whose share of failures must be below a bound."""
    return GuardOnAll(window, math.ceil(round(bound * case.per_hour * window, 6)), lasting)


def best(case: Case, alpha: float, seed: int) -> GuardOnAll:
    """The soonest guard of those that fail without harm with a probability of at most `alpha`: whoever sets it knows that rate."""
    quiet = (
        next(guard for guard in _guards(case, window) if 1 - guard.quiet(case.failing_without) <= alpha) for window in WINDOWS
    )
    return min(quiet, key=lambda guard: guard.median_hours(case.failing_with, seed))


def _guards(case: Case, window: float) -> Iterator[GuardOnAll]:
    """Those of one window, from the first number of failures on that is not usual."""
    failures = math.ceil(case.failing_without * window) + 1
    while True:
        yield GuardOnAll(window, failures)
        failures += 1


def _probability(number: int, mean: float) -> float:
    """Of so many events, if they are Poisson distributed."""
    return math.exp(number * math.log(mean) - mean - math.lgamma(number + 1))
