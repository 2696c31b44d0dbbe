"""Simulated metrics with earlier weeks, and a guard with `maxIncrease: 20%, for: 5m` on each: how often nothing but noise breaches it.

A metric has a wave of the day, weekends, weeks that differ, and noise whose values may depend on those before. A reading is a mean over
half an hour. `tests/core/statistics/test_acceptance.py` compares guard and noise with those of the operator.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.evidence.traffic import Array, Truths
from session_rollout.simulation.noise import MARGIN, SHARE

MINUTES: Final = 5  # between two readings
DAY: Final = 24 * 60 // MINUTES
WEEK: Final = 7 * DAY
WINDOW: Final = 30 // MINUTES
WEEKS: Final = 3
BEFORE: Final = (WEEKS + 1) * WEEK  # the week of the noise, and those that it is compared with
PHASE: Final = 8 * DAY
TOLERANCE: Final = 0.2


@dataclass(frozen=True)
class Metric:
    """A metric that nothing happens to. Shares of its mean, as standard deviations of normal logarithms where they are random."""

    noise: float  # of five minutes
    memory: float = 0.0  # correlation of the noise of two readings
    weeks: float = 0.03  # how much weeks differ
    wave: float = 0.2  # amplitude of the day
    weekend: float = 0.1  # by how much less


def readings_of(metric: Metric, runs: int, rng: np.random.Generator) -> Array:
    """The means of five weeks and a day, by run and number; the first half hour has none."""
    numbers = np.arange(BEFORE + PHASE)
    wave = 1 + metric.wave * np.sin(2 * math.pi * numbers / DAY)
    shape = wave * np.where(numbers % WEEK >= 5 * DAY, 1 - metric.weekend, 1)
    weeks = metric.weeks * rng.standard_normal((runs, numbers[-1] // WEEK + 1))
    noise = rng.standard_normal((runs, len(numbers)))
    for number in range(1, len(numbers)) if metric.memory else ():
        noise[:, number] = metric.memory * noise[:, number - 1] + math.sqrt(1 - metric.memory**2) * noise[:, number]
    values = shape * np.exp(weeks[:, numbers // WEEK] + metric.noise * noise)
    sums = np.cumsum(values, axis=1)
    sums[:, WINDOW:] -= sums[:, :-WINDOW].copy()
    means: Array = sums / WINDOW
    means[:, : WINDOW - 1] = np.nan
    return means


def noise_in(readings: Array) -> Array:
    """The noise of the week before the phase, as a share of the baseline, by run."""
    numbers = np.arange(BEFORE - WEEK + WINDOW, BEFORE)  # three weeks before the first half hour, there is nothing
    deviations = np.abs(np.log(readings[:, numbers] / _baselines(readings, numbers, 1)))
    deviations.sort(axis=1)
    noise: Array = np.expm1(deviations[:, math.ceil(SHARE * len(numbers)) - 1])
    return noise


def is_allowed(readings: Array) -> Truths:
    """Runs in which `validate` accepts the tolerance."""
    allowed: Truths = MARGIN * noise_in(readings) <= TOLERANCE
    return allowed


def breaches(readings: Array, rise: float = 0.0, days: int = 8) -> Truths:
    """Runs in which the guard acts in the first days of a phase that raises the metric."""
    numbers = np.arange(BEFORE, BEFORE + days * DAY)
    within, after = numbers[: WEEK + 1], numbers[WEEK + 1 :]  # a week ago is then in the phase
    baselines = np.concatenate([_baselines(readings, within, 1), _baselines(readings, after, 2)], axis=1)
    failing: Truths = readings[:, numbers] * (1 + rise) > baselines * (1 + TOLERANCE)
    lasting: Truths = failing[:, 1:] & failing[:, :-1]  # two failures last five minutes
    return np.array(lasting.any(axis=1))


def _baselines(readings: Array, numbers: NDArray[np.int_], latest: int) -> Array:
    """The medians of three weeks, of which the latest is so many before."""
    newest, middle, oldest = (readings[:, numbers - week * WEEK] for week in range(latest, latest + WEEKS))
    median: Array = np.maximum(np.minimum(newest, middle), np.minimum(np.maximum(newest, middle), oldest))
    return median
