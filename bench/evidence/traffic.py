"""Simulated users of both cohorts: how many sessions a block has, and how many of them are bad.

Bad sessions of a cell are a compound Poisson process: bursts of geometric length, at a rate that is the sum of the propensities
of its users. Propensities are gamma distributed, so that this sum is drawn at once, whatever the number of users. Users stay
in their cell, and in the slice of the hash space which decides when they get the feature.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

CELLS: Final = 16
HOURS_OF_DAY: Final = 24
Array = NDArray[np.float64]
Truths = NDArray[np.bool_]


@dataclass(frozen=True)
class Step:
    """A share of users for a time."""

    share: float
    days: float


@dataclass(frozen=True)
class Traffic:
    """The users of one simulated rollout, and what the feature does to them."""

    per_hour: float = 10_000
    rate: float = 0.0005  # of bad sessions without the feature
    harm: float = 0.0  # added to the rate with the feature
    factor: float = 1.0  # multiplies the rate with the feature
    harm_from_hour: float = 0.0
    steps: tuple[Step, ...] = (Step(0.05, 3), Step(0.2, 4), Step(0.5, 7))
    minutes: float = 5.0  # length of a block
    wave: float = 0.0  # relative amplitude of the traffic over the day
    share_wave: float = 0.0  # the same of the share of sessions that have the feature
    users: int = 0  # 0: users do not differ
    variation: float = 0.0  # coefficient of variation of their propensity for bad sessions
    burst: float = 1.0  # mean number of bad sessions that come at once

    @property
    def blocks(self) -> int:
        """Number of blocks in all steps."""
        return round(sum(step.days for step in self.steps) * HOURS_OF_DAY * 60 / self.minutes)

    def share_at(self, hour: float) -> float:
        """Share of users who have the feature in the step of this hour."""
        for step in self.steps:
            if hour < step.days * HOURS_OF_DAY:
                return step.share
            hour -= step.days * HOURS_OF_DAY
        return self.steps[-1].share


@dataclass(frozen=True)
class Counts:
    """One block of all runs: an array of runs by cells for each count, or of one column if users do not differ."""

    on_bad: Array
    on_total: Array
    off_bad: Array
    off_total: Array


class Users:
    """The users of many runs."""

    def __init__(self, traffic: Traffic, runs: int, rng: np.random.Generator) -> None:
        self.traffic, self.runs, self.rng = traffic, runs, rng
        self.cells = CELLS if traffic.users else 1
        self.shares = sorted({step.share for step in traffic.steps})
        edges = [0.0, *self.shares, 1.0]
        self.slices = [(low, high, self._propensity(high - low)) for low, high in pairwise(edges) if high > low]

    def _propensity(self, width: float) -> Array:
        """Sum of the propensities of the users in one slice, by cell; its mean is the width of the slice by cells."""
        shape = (self.runs, self.cells)
        mean = width / self.cells
        if not self.traffic.users or not self.traffic.variation:
            return np.full(shape, mean)
        users = self.traffic.users * mean / self.traffic.variation**2
        propensity: Array = self.rng.gamma(users, mean / users, shape)
        return propensity

    def block(self, number: int) -> Counts:
        """The counts of one block of every run."""
        traffic = self.traffic
        hour = (number + 0.5) * traffic.minutes / 60
        share, turn = traffic.share_at(hour), 2 * math.pi * hour / HOURS_OF_DAY
        sessions = traffic.per_hour * traffic.minutes / 60 * (1 + traffic.wave * math.sin(turn))
        skew = 1 + traffic.share_wave * math.sin(turn + 1)
        on, off = self.weights(share)
        on, off = on * skew, off * (1 - share * skew) / (1 - share) if share < 1 else off
        harmed = hour >= traffic.harm_from_hour
        factor, harm = (traffic.factor, traffic.harm) if harmed else (1.0, 0.0)
        shape = (self.runs, self.cells)
        on_total = np.full(shape, sessions * share * skew / self.cells)
        off_total = np.full(shape, sessions * (1 - share * skew) / self.cells)
        on_bad = self._bad(sessions * traffic.rate * factor * on)
        if harm:
            on_bad = on_bad + self.rng.poisson(harm * on_total)
        return Counts(on_bad, on_total, self._bad(sessions * traffic.rate * off), off_total)

    def sessions(self, number: int, *, wired: bool) -> tuple[Array, Array]:
        """Sessions of one block with the feature and without it, by run and cell, of users whose activity differs."""
        traffic = self.traffic
        sessions = traffic.per_hour * traffic.minutes / 60
        on, off = self.weights(traffic.share_at((number + 0.5) * traffic.minutes / 60))
        if not wired:
            on, off = np.zeros_like(on), on + off
        return self.rng.poisson(sessions * on).astype(float), self.rng.poisson(sessions * off).astype(float)

    def weights(self, share: float) -> tuple[Array, Array]:
        """Propensities with the feature and without it, by run and cell."""
        zero = np.zeros((self.runs, self.cells))
        on = sum((weight for low, high, weight in self.slices if high <= share + 1e-9), zero)
        off = sum((weight for low, high, weight in self.slices if high > share + 1e-9), zero)
        return on, off

    def _bad(self, mean: Array) -> Array:
        """Bad sessions: bursts of geometric length whose number is Poisson distributed."""
        bursts: Array = self.rng.poisson(mean / self.traffic.burst).astype(float)
        if self.traffic.burst == 1:
            return bursts
        more = np.zeros_like(bursts)
        some = bursts > 0
        more[some] = self.rng.negative_binomial(bursts[some], 1 / self.traffic.burst)
        return bursts + more
