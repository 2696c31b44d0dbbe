"""The tests of `core.statistics`, for many simulated runs at once: the same formulas over arrays.

`tests/core/statistics/test_acceptance.py` compares them with the ones that the operator uses, block by block.
"""

import math
from typing import Final

import numpy as np

from bench.evidence.traffic import CELLS, Array, Counts, Truths
from session_rollout.core.statistics.alternatives import BELOW, HARM, LARGEST_STAKE
from session_rollout.core.statistics.inflation import (
    ALPHA_OF_SAFETY,
    FEW_BAD_EVENTS,
    FEWEST_BLOCKS,
    INFORMATION,
    MARGIN,
    UNKNOWN,
    small_sample_factor,
)
from session_rollout.core.statistics.rates import ALPHA_OF_PASS, PRIOR_RATE, Tolerance
from session_rollout.core.statistics.ratio import ALPHA, FEWER, MORE, TOLERATED

HARM_BETS: Final = np.array(HARM)[:, None]


class Runs:
    """One test of two rates in each run, with its inflation."""

    def __init__(self, runs: int, cells: int, tolerance: Tolerance, alpha: float, *, start_only: bool = False) -> None:
        self.tolerance, self.alpha, self.start_only = tolerance, alpha, start_only
        self.start, self.recent = np.zeros((len(HARM), runs)), np.full((len(HARM), runs), -np.inf)
        self.safe = np.zeros((4, runs))
        self.sums = np.zeros((4, runs, cells))  # bad and all with the feature, bad and all without it
        self.inflation, self.safe_inflation, self.largest = np.ones(runs), np.ones(runs), np.ones(runs)
        self.expected = np.zeros(runs)

    def add(self, counts: Counts) -> None:
        """One more block in every run, with events in both cohorts."""
        x1, n1, x0, n0 = (each.sum(axis=1) for each in (counts.on_bad, counts.on_total, counts.off_bad, counts.off_total))
        before = self.sums.sum(axis=2)
        off = (before[2] + 0.5) / (before[3] + 0.5 / PRIOR_RATE)
        limit = self.tolerance.times * off + self.tolerance.plus
        stakes = optimal_stakes(n1, n0, self.tolerance, HARM_BETS * limit, off)
        harm = log_e(x1, n1, x0, n0, self.tolerance, stakes)
        self.start += harm
        earlier = self.inflation.copy()
        self._count(counts)
        self.largest = self._largest(earlier)
        self.recent = np.logaddexp(0, self.recent) + harm / self.largest
        bets = np.stack([off, (off + limit) / 2, 0.75 * off, 0.5 * off])
        self.safe += log_e(x1, n1, x0, n0, self.tolerance, optimal_stakes(n1, n0, self.tolerance, bets, off))
        self.expected += n1 * x0 / n0

    def _largest(self, before: Array) -> Array:
        """The inflation of `recent` after a block, with its inflation `before` the block."""
        largest: Array = np.maximum(np.maximum(before, self.largest), self.inflation)
        return largest

    def _count(self, counts: Counts) -> None:
        """Add the counts, and measure the inflation."""
        self.sums += np.stack([counts.on_bad, counts.on_total, counts.off_bad, counts.off_total])
        if self.sums.shape[2] > 1:
            difference = self._difference()
            self.inflation = np.maximum(1, small_sample_factor(self.sums.shape[2], self.alpha) * difference)
            worst = np.maximum(difference, self._control())
            self.safe_inflation = np.maximum(1, small_sample_factor(self.sums.shape[2], ALPHA_OF_SAFETY) * worst)

    def _difference(self) -> Array:
        x1, n1, x0, n0 = self.sums
        cells, times = x1.shape[1], self.tolerance.times
        t1, u1, t0, u0 = (each.sum(axis=1, keepdims=True) for each in (x1, n1, x0, n0))
        deviation = (x1 - t1 / u1 * n1) / u1 - times * (x0 - t0 / u0 * n0) / u0
        independent = (t1 / u1**2 + times**2 * t0 / u0**2)[:, 0]
        return _ratio(cells / (cells - 1) * (deviation**2).sum(axis=1), independent)

    def _control(self) -> Array:
        _, _, x0, n0 = self.sums
        cells, t0, u0 = x0.shape[1], x0.sum(axis=1, keepdims=True), n0.sum(axis=1, keepdims=True)
        return _ratio(cells / (cells - 1) * ((x0 - t0 / u0 * n0) ** 2).sum(axis=1), t0[:, 0])

    def shows_harm(self, horizon: float) -> Truths:
        """Runs in which harm is shown."""
        start = log_mean_exp(self.start / self.inflation)
        if self.start_only:
            return start >= math.log(1 / self.alpha)
        return (start >= math.log(2 / self.alpha)) | (log_mean_exp(self.recent) >= math.log(2 * horizon / self.alpha))

    def shows_safety(self) -> Truths:
        """Runs in which harmlessness is shown."""
        return log_mean_exp(self.safe / self.safe_inflation) >= math.log(1 / ALPHA_OF_PASS)


class WithoutCells(Runs):
    """The inflation over time, by blocks of information."""

    def __init__(self, runs: int, tolerance: Tolerance, alpha: float) -> None:
        super().__init__(runs, 1, tolerance, alpha)
        self.open, self.closed, self.deviations = np.zeros((3, runs)), np.zeros(runs), np.zeros(runs)
        self.inflation, self.safe_inflation = np.full(runs, UNKNOWN), np.full(runs, UNKNOWN)

    def _largest(self, before: Array) -> Array:
        largest: Array = np.maximum(before, self.inflation)  # that of an unknown clustering does not last
        return largest

    def _count(self, counts: Counts) -> None:
        before = self.sums[0, :, 0].copy()  # bad events with the feature
        block = np.stack([each.sum(axis=1) for each in (counts.on_bad, counts.on_total, counts.off_bad, counts.off_total)])
        self.sums += block[:, :, None]
        x1, n1, x0, n0 = block
        ratio = (before + 1) / (self.expected + 1)
        share = ratio * n1 / (ratio * n1 + n0)
        self.open += np.stack([x1, (x1 + x0) * share, (x1 + x0) * share * (1 - share)])
        full = self.open[2] >= INFORMATION
        self.deviations[full] += ((self.open[0] - self.open[1]) ** 2 / np.maximum(self.open[2], 1e-12))[full]
        self.closed[full] += 1
        self.open[:, full] = 0
        known = self.closed >= FEWEST_BLOCKS
        for number in np.unique(self.closed[known & full]):
            these = self.closed == number
            mean = self.deviations[these] / number
            self.inflation[these] = np.maximum(1, MARGIN * small_sample_factor(int(number), self.alpha) * mean)
            self.safe_inflation[these] = np.maximum(1, MARGIN * small_sample_factor(int(number), ALPHA_OF_SAFETY) * mean)


class Bounds:
    """One test of a fixed rate in each run: all users count."""

    def __init__(self, runs: int, cells: int, bound: float, alpha: float) -> None:
        self.bound, self.alpha = bound, alpha
        self.start, self.recent = np.zeros((len(HARM), runs)), np.full((len(HARM), runs), -np.inf)
        self.safe = np.zeros((len(BELOW), runs))
        self.bad, self.total = np.zeros((runs, cells)), np.zeros((runs, cells))
        self.inflation, self.safe_inflation, self.largest = np.ones(runs), np.ones(runs), np.ones(runs)

    def add(self, counts: Counts) -> None:
        """One more block in every run."""
        bad, total = counts.on_bad + counts.off_bad, counts.on_total + counts.off_total
        self.bad += bad
        self.total += total
        self._inflate()
        harm = self._log_e(bad, total, HARM_BETS)
        self.start += harm
        self.largest = np.maximum(self.largest, self.inflation)
        self.recent = np.logaddexp(0, self.recent) + harm / self.largest
        self.safe += self._log_e(bad, total, np.array(BELOW)[:, None])

    def _log_e(self, bad: Array, total: Array, multiples: Array) -> Array:
        evidence: Array = bad.sum(axis=1) * np.log(multiples) - total.sum(axis=1) * self.bound * (multiples - 1)
        return evidence

    def _inflate(self) -> None:
        cells, known = self.bad.shape[1], self.bad.sum(axis=1)
        rate = known / self.total.sum(axis=1)
        squares = cells / (cells - 1) * ((self.bad - rate[:, None] * self.total) ** 2).sum(axis=1)
        ratio, weight = _ratio(squares, known), known / (known + FEW_BAD_EVENTS)
        self.inflation = np.maximum(1, small_sample_factor(cells, self.alpha) * ratio)
        safe = weight * small_sample_factor(cells, ALPHA_OF_SAFETY) * ratio + (1 - weight) * UNKNOWN
        self.safe_inflation = np.maximum(1, safe)

    def shows_harm(self, horizon: float) -> Truths:
        """Runs in which a rate above the bound is shown."""
        start = log_mean_exp(self.start / self.inflation) >= math.log(2 / self.alpha)
        return start | (log_mean_exp(self.recent) >= math.log(2 * horizon / self.alpha))

    def shows_safety(self) -> Truths:
        """Runs in which a rate below the bound is shown."""
        return log_mean_exp(self.safe / np.maximum(self.safe_inflation, self.largest)) >= math.log(1 / ALPHA_OF_PASS)


class Oracle:
    """Wald's sequential probability ratio test in each run, which knows the rates with the feature and without it."""

    def __init__(self, runs: int, on: float, off: float, alpha: float) -> None:
        self.on, self.off, self.alpha, self.logs = on, off, alpha, np.zeros(runs)

    def add(self, counts: Counts) -> None:
        """One more block in every run."""
        bad, total = counts.on_bad.sum(axis=1), counts.on_total.sum(axis=1)
        self.logs += bad * math.log(self.on / self.off) - total * (self.on - self.off)

    def shows_harm(self) -> Truths:
        """Runs in which harm is shown."""
        return self.logs >= math.log(1 / self.alpha)


class Ratios:
    """One test of the ratio in each run, by cells of users."""

    def __init__(self, runs: int, percent: float) -> None:
        self.odds = percent / (100 - percent)
        self.more, self.fewer = np.zeros((len(MORE), runs)), np.zeros((len(FEWER), runs))
        self.on, self.off = np.zeros((runs, CELLS)), np.zeros((runs, CELLS))

    def add(self, on: Array, off: Array) -> None:
        """One more block in every run."""
        ones, with_it, without = np.ones(len(on)), on.sum(axis=1), off.sum(axis=1)

        def evidence(bound: float, multiples: tuple[float, ...]) -> Array:
            tolerance = Tolerance(bound, 0.0)
            stakes = optimal_stakes(ones, ones, tolerance, np.array(multiples)[:, None] * bound, ones)
            return log_e(with_it, ones, without, ones, tolerance, stakes)

        self.more += evidence(self.odds * (1 + TOLERATED), MORE)
        self.fewer += evidence(self.odds * (1 - TOLERATED), FEWER)
        self.on += on
        self.off += off

    def rejects(self) -> Truths:
        """Runs in which another ratio is shown."""
        on, off = self.on.sum(axis=1), self.off.sum(axis=1)
        odds = on / off
        squares = CELLS / (CELLS - 1) * ((self.on - odds[:, None] * self.off) ** 2).sum(axis=1)
        inflation = np.maximum(1, small_sample_factor(CELLS, ALPHA) * _ratio(squares, on + odds**2 * off))
        logs = np.maximum(log_mean_exp(self.more / inflation), log_mean_exp(self.fewer / inflation))
        return logs >= math.log(2 / ALPHA)


def optimal_stakes(on_total: Array, off_total: Array, tolerance: Tolerance, on: Array, off: Array) -> Array:
    """`rates.optimal_stake` over arrays."""
    times, plus = tolerance.times, tolerance.plus
    square = times * (on_total * times + off_total)
    linear = (on_total * times + off_total) * plus - on_total * on * times - off_total * off * times
    nearest = (np.sqrt(linear**2 + 4 * square * off_total * off * plus) - linear) / (2 * square)
    stakes = on_total * (on / (times * nearest + plus) - 1)
    return np.clip(stakes, -LARGEST_STAKE * on_total, LARGEST_STAKE * off_total / times)


def log_e(x1: Array, n1: Array, x0: Array, n0: Array, tolerance: Tolerance, stakes: Array) -> Array:
    """`rates.log_e` over arrays."""
    return x1 * np.log1p(stakes / n1) + x0 * np.log1p(-stakes * tolerance.times / n0) - stakes * tolerance.plus


def log_mean_exp(logs: Array) -> Array:
    """`rates.log_mean_exp` over the first axis."""
    largest = logs.max(axis=0)
    base = np.where(np.isfinite(largest), largest, 0)
    with np.errstate(divide="ignore"):
        mean: Array = base + np.log(np.exp(logs - base).mean(axis=0))
    return mean


def _ratio(variance: Array, independent: Array) -> Array:
    return np.divide(variance, independent, out=np.ones_like(variance), where=independent > 0)
