"""What a test of rates would see: events that it needs, and the smallest rate with the feature that it finds.

The evidence of a mixture grows by `gain` with each event, with a variance of `variance`. A test has four chances in five to reach its
threshold after N events if N * gain - z * sqrt(N * variance) reaches it, with z = 0.84. The inflation that cells measure is larger than
that of the events, as if there were few of them: of 16 by chance, and of a fixed rate as long as few bad events are known.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from session_rollout.core.statistics.alternatives import HARM
from session_rollout.core.statistics.rates import ALPHA_OF_PASS, Tolerance, optimal_stake

QUANTILE: Final = 0.84  # of the normal distribution at four chances in five
_STEPS: Final = 40  # of the bisection
_LARGEST_RATE: Final = 1.0


@dataclass(frozen=True)
class Design:
    """What a comparison is about: the share of events with the feature, the rate of bad ones without it, and the tolerance."""

    share: float
    rate: float
    tolerance: Tolerance
    inflation: float = 1.0

    def events_to_see(self, rate: float, alpha: float) -> float:
        """Events of all users until harm of this rate with the feature is seen with four chances in five; infinite if it is tolerated."""
        limit = self.tolerance.limit(self.rate)
        bets = (multiple * limit for multiple in HARM)
        return self._events(rate, bets, math.log(2 * len(HARM) / alpha))

    def events_to_pass(self, alpha: float = ALPHA_OF_PASS) -> float:
        """Events of all users until a feature without effect is shown to be harmless with four chances in five."""
        bets = self.tolerance.safe_rates(self.rate)
        return self._events(self.rate, bets, math.log(len(bets) / alpha))

    def smallest_rate(self, events: float, alpha: float) -> float | None:
        """The smallest rate with the feature that so many events of all users show; None if not even one of 1."""
        low, high = self.tolerance.limit(self.rate), _LARGEST_RATE
        if low >= high or self.events_to_see(high, alpha) > events:
            return None
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.events_to_see(middle, alpha) <= events else (middle, high)
        return high

    def _events(self, rate: float, bets: Iterable[float], threshold: float) -> float:
        return min(self._events_of(rate, bet, threshold) for bet in bets)

    def _events_of(self, rate: float, bet: float, threshold: float) -> float:
        """Events until the evidence of one bet reaches the threshold, of which the square root solves a quadratic equation."""
        share, rest = self.share, 1 - self.share
        stake = optimal_stake(share, rest, self.tolerance, (bet, self.rate))
        on = math.log1p(stake / share)
        off = math.log1p(-stake * self.tolerance.times / rest) if self.tolerance.times else 0.0
        gain = (share * rate * on + rest * self.rate * off - stake * self.tolerance.plus) / self.inflation
        if gain <= 0:
            return math.inf
        spread = QUANTILE * math.sqrt((share * rate * on * on + rest * self.rate * off * off) / self.inflation)
        return ((spread + math.sqrt(spread * spread + 4 * gain * threshold)) / (2 * gain)) ** 2
