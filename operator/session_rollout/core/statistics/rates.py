"""Sequential test of two rates of bad events: it may be read after every block, and its error rates hold for all reads together.

A block has x1 bad of n1 events with the feature and x0 bad of n0 events without it. With a stake c, its e-value is

    e = (1 + c / n1) ** x1 * (1 - c * times / n0) ** x0 * exp(-c * plus)

For Poisson counts its expectation is exp(c * (rate_on - times * rate_off - plus)), and for Bernoulli counts it is smaller. It
is thus at most 1 for each pair of rates of the null hypothesis: of "no harm" (rate_on <= times * rate_off + plus) for a
positive stake, of "harm" (rate_on >= times * rate_off + plus) for a negative one. The rates may change from block to block.
Products of e-values are test supermartingales, which exceed 1 / alpha with a probability of at most alpha (Ville 1939). With
`plus` 0 this is the conditional test of Lindon and Malek (2022), and otherwise the e-variable of Turner, Ly and Grünwald (2024).

Harm has two processes. `start` adds up all blocks. `recent` is a Shiryaev-Roberts e-detector (Shin, Ramdas and Rinaldo 2023),
which notices harm that begins late.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from session_rollout.core.statistics.alternatives import BELOW, HARM, LARGEST_STAKE, safe_rates

ALPHA_OF_PASS: Final = 0.05
PRIOR_RATE: Final = 0.0001  # of bad events without the feature, as half an event, before there are any


@dataclass(frozen=True)
class Tolerance:
    """The largest rate of bad events that is tolerated with the feature: `times` that without it, `plus` a rate."""

    times: float
    plus: float

    def limit(self, rate: float) -> float:
        """The tolerated rate, if this is the one without the feature."""
        return self.times * rate + self.plus

    def safe_rates(self, rate: float) -> tuple[float, ...]:
        """Rates with the feature that are harmless, if this is the one without it; a fixed limit needs no such rate."""
        limit = self.limit(rate)
        return safe_rates(rate, limit) if self.times else tuple(multiple * limit for multiple in BELOW)


@dataclass(frozen=True)
class Block:
    """Events of one period: bad and all of them, with the feature and without it. Estimates, so not whole numbers."""

    on_bad: float
    on_total: float
    off_bad: float
    off_total: float

    def __add__(self, other: "Block") -> "Block":
        return Block(
            self.on_bad + other.on_bad,
            self.on_total + other.on_total,
            self.off_bad + other.off_bad,
            self.off_total + other.off_total,
        )

    def is_comparable(self, tolerance: Tolerance) -> bool:
        """Whether it has events of each cohort that the tolerance is about."""
        return self.on_total > 0 and (self.off_total > 0 or tolerance.times == 0)

    @property
    def expected(self) -> float:
        """Bad events that the users with the feature would have had without it."""
        return self.on_total * self.off_bad / self.off_total if self.off_total > 0 else 0.0


NOTHING: Final = Block(0.0, 0.0, 0.0, 0.0)


def log_e(block: Block, tolerance: Tolerance, stake: float) -> float:
    """The logarithm of the e-value of a block that `is_comparable`. The stake lies within the bounds of `optimal_stake`."""
    value = block.on_bad * math.log1p(stake / block.on_total) - stake * tolerance.plus
    if tolerance.times:
        value += block.off_bad * math.log1p(-stake * tolerance.times / block.off_total)
    return value


def optimal_stake(on_total: float, off_total: float, tolerance: Tolerance, rates: tuple[float, float]) -> float:
    """The stake whose e-value grows fastest if these are the rates with the feature and without it.

    It bets against the point of the null hypothesis that is nearest to the rates, of which the rate without the feature solves
    a quadratic equation. It is clipped so that no factor of the e-value reaches zero.
    """
    on, off = rates
    times, plus = tolerance.times, tolerance.plus
    if times == 0:
        return max(on_total * (on / plus - 1), -LARGEST_STAKE * on_total)
    square = times * (on_total * times + off_total)
    linear = (on_total * times + off_total) * plus - on_total * on * times - off_total * off * times
    root = math.sqrt(linear * linear + 4 * square * off_total * off * plus)
    nearest = (root - linear) / (2 * square)
    stake = on_total * (on / tolerance.limit(nearest) - 1)
    return min(max(stake, -LARGEST_STAKE * on_total), LARGEST_STAKE * off_total / times)


def log_mean_exp(values: Iterable[float]) -> float:
    """The logarithm of the mean of exp(value): a mixture of equal weights."""
    logs = tuple(values)
    largest = max(logs)
    if largest == -math.inf:
        return largest
    return largest + math.log(math.fsum(math.exp(value - largest) for value in logs) / len(logs))


@dataclass(frozen=True)
class RateTest:
    """What the test knows after some blocks. Adding the same blocks in the same order gives the same test."""

    start: tuple[float, ...] = (0.0,) * len(HARM)
    recent: tuple[float, ...] = (-math.inf,) * len(HARM)
    safe: tuple[float, ...] = (0.0,) * len(safe_rates(0.0, 0.0))
    blocks: int = 0
    events: Block = NOTHING
    expected: float = 0.0  # bad events that the users with the feature would have had without it
    prior: float = PRIOR_RATE

    def rate_without(self) -> float:
        """The rate of bad events without the feature in the blocks so far."""
        return (self.events.off_bad + 0.5) / self.known_events

    def add(self, block: Block, tolerance: Tolerance, inflation: float = 1.0) -> "RateTest":
        """The test after one more block; a block that cannot be compared changes nothing.

        `inflation` is that of `recent`: the largest so far, with the block. A burst would otherwise pay for itself, and an inflation
        that is measured too small for some time would add up. The stakes depend on earlier blocks only.
        """
        if not block.is_comparable(tolerance):
            return self
        off = self.rate_without()
        limit = tolerance.limit(off)

        def evidence(on: float) -> float:
            return log_e(block, tolerance, optimal_stake(block.on_total, block.off_total, tolerance, (on, off)))

        harm = tuple(evidence(multiple * limit) for multiple in HARM)
        return RateTest(
            start=tuple(before + more for before, more in zip(self.start, harm, strict=True)),
            recent=tuple(_restarted(before) + more / inflation for before, more in zip(self.recent, harm, strict=True)),
            safe=tuple(before + evidence(on) for before, on in zip(self.safe, tolerance.safe_rates(off), strict=True)),
            blocks=self.blocks + 1,
            events=self.events + block,
            expected=self.expected + block.expected,
            prior=self.prior,
        )

    def learn(self, block: Block) -> "RateTest":
        """The test after events that it does not bet on: it knows the rate without the feature from them."""
        return replace(self, events=self.events + block, expected=self.expected + block.expected)

    @property
    def known_events(self) -> float:
        """The events without the feature that the rate without it rests on."""
        return self.events.off_total + 0.5 / self.prior

    def log_harm(self, inflation: float = 1.0) -> float:
        """Evidence of harm since the start."""
        return log_mean_exp(value / inflation for value in self.start)

    def log_recent(self) -> float:
        """Evidence of harm that began at some block."""
        return log_mean_exp(self.recent)

    def log_safe(self, inflation: float = 1.0) -> float:
        """Evidence that the rate with the feature is below the limit."""
        return log_mean_exp(value / inflation for value in self.safe)

    def shows_harm(self, alpha: float, horizon: float, inflation: float = 1.0) -> bool:
        """Whether a rate above the limit is shown, with `alpha` as the probability of an error within `horizon` blocks."""
        return self.log_harm(inflation) >= math.log(2 / alpha) or self.log_recent() >= math.log(2 * horizon / alpha)

    def shows_safety(self, inflation: float = 1.0, alpha: float = ALPHA_OF_PASS) -> bool:
        """Whether a rate below the limit is shown."""
        return self.log_safe(inflation) >= math.log(1 / alpha)


def _restarted(log: float) -> float:
    """log(1 + exp(log)): the process continues, and begins once more."""
    return max(log, 0.0) + math.log1p(math.exp(-abs(log)))
