"""The rates that the test of rates bets on: a mixture of equal weights, because nobody knows the true one."""

from typing import Final

HARM: Final = (1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)  # multiples of the tolerated rate
BELOW: Final = (0.9, 0.75, 0.5, 0.25)  # multiples of a tolerated rate that is fixed: each of them is harmless
LARGEST_STAKE: Final = 0.99  # share of the stake at which a factor of the e-value would be zero


def safe_rates(rate: float, limit: float) -> tuple[float, ...]:
    """Rates with the feature that are harmless, from the rate without it and the tolerated one."""
    return rate, (rate + limit) / 2, 0.75 * rate, 0.5 * rate
