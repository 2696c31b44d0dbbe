"""Simulated latencies of both cohorts, and the comparison of their means.

Values are gamma distributed, so that the sum of any number of them is drawn in one step. Users differ for good in how active they are, and
in how slow. `tests/core/statistics/test_acceptance.py` compares the test with that of the operator.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import log_ndtr

from bench.evidence.traffic import CELLS, Array, Counts, Traffic, Truths, Users
from session_rollout.core.statistics.inflation import ALPHA_OF_SAFETY, small_sample_factor
from session_rollout.core.statistics.means import EXPECTED_CHANGE, FEWEST_EVENTS, tail_of
from session_rollout.core.statistics.rates import ALPHA_OF_PASS


@dataclass(frozen=True)
class Latency:
    """The values of one metric: their mean without the feature is 1."""

    variation: float = 2.0  # coefficient of variation of the values of one user
    between_users: float = 1.0  # the same of the means of users
    factor: float = 1.0  # multiplies the values with the feature


class Latencies:
    """The values of many runs."""

    def __init__(self, traffic: Traffic, latency: Latency, runs: int, rng: np.random.Generator) -> None:
        self.traffic, self.latency, self.rng = traffic, latency, rng
        self.active = Users(traffic, runs, rng)
        levels = Traffic(users=traffic.users, variation=latency.between_users, steps=traffic.steps)
        self.levels = Users(levels, runs, rng)

    def block(self, number: int) -> Counts:
        """The sums and the numbers of values in one block of every run, by cell."""
        share = self.traffic.share_at((number + 0.5) * self.traffic.minutes / 60)
        on_count, off_count = self.active.sessions(number, wired=True)
        on, off = self.levels.weights(share)
        on_sum = self._sums(on_count, on * CELLS / share * self.latency.factor)
        return Counts(on_sum, on_count, self._sums(off_count, off * CELLS / (1 - share)), off_count)

    def _sums(self, counts: Array, means: Array) -> Array:
        square = self.latency.variation**2
        sums: Array = np.where(counts > 0, self.rng.gamma(np.maximum(counts, 1) / square, square * means), 0.0)
        return sums


class Means:
    """One comparison of means in each run."""

    def __init__(self, runs: int, times: float, alpha: float) -> None:
        self.times, self.alpha, self.sums = times, alpha, np.zeros((4, runs, CELLS))

    def add(self, counts: Counts) -> None:
        """One more block in every run."""
        self.sums += np.stack([counts.on_bad, counts.on_total, counts.off_bad, counts.off_total])

    def log_evidence(self, alpha: float, *, safe: bool) -> Array:
        """Evidence of harm, or of harmlessness if `safe`; 0 from too little."""
        x1, n1, x0, n0 = self.sums
        t1, u1, t0, u0 = (np.maximum(each.sum(axis=1, keepdims=True), 1e-12) for each in self.sums)
        deviation = (x1 - t1 / u1 * n1) / u1 - self.times * (x0 - t0 / u0 * n0) / u0
        squares = (deviation**2).sum(axis=1)
        if safe:
            of_event = (self.times * (x0 - t0 / u0 * n0)) ** 2 / u0
            squares = np.maximum(squares, of_event.sum(axis=1) * (1 / u1 + 1 / u0)[:, 0])
        variance = small_sample_factor(CELLS, tail_of(alpha)) * CELLS / (CELLS - 1) * squares
        off = (t0 / u0)[:, 0]
        difference = ((t1 / u1)[:, 0] - self.times * off) * (-1 if safe else 1)
        information, prior = 1 / np.maximum(variance, 1e-300), 1 / (EXPECTED_CHANGE * off) ** 2
        weight, z = information / (information + prior), difference * np.sqrt(information)
        log_e = math.log(2) + log_ndtr(z * np.sqrt(weight)) + z * z * weight / 2 - np.log1p(information / prior) / 2
        evidence: Array = np.where(np.minimum(u1, u0)[:, 0] >= FEWEST_EVENTS, log_e, 0.0)
        return evidence

    def shows_harm(self) -> Truths:
        """Runs in which harm is shown."""
        return self.log_evidence(self.alpha, safe=False) >= math.log(1 / self.alpha)

    def shows_safety(self) -> Truths:
        """Runs in which harmlessness is shown."""
        return self.log_evidence(ALPHA_OF_SAFETY, safe=True) >= NEEDED


NEEDED: Final = math.log(1 / ALPHA_OF_PASS)
