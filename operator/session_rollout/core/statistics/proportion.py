"""Intervals of shares that were counted. They have a width also where every event is alike: a hundred successes prove no certainty."""

import math
from typing import Final

CONFIDENCE_Z: Final = 1.96  # two-sided 95%


def wilson(share: float, total: float, z: float) -> tuple[float, float]:
    """The interval of a share of so many events, above 0 (Wilson 1927); `z` is the normal quantile of its confidence."""
    weight = z**2 / total
    middle = (share + weight / 2) / (1 + weight)
    spread = z * math.sqrt(share * (1 - share) / total + weight / (4 * total)) / (1 + weight)
    return middle - spread, middle + spread


def newcombe(on: tuple[float, float], off: tuple[float, float]) -> tuple[float, float]:
    """95% interval of the change of a share from `off` to `on`, a rise being positive (Newcombe's hybrid score interval, 1998).

    Both are the number of good events and of all, which is above 0.
    """
    rate_on, rate_off = (good / total for good, total in (on, off))
    (low_on, high_on), (low_off, high_off) = (wilson(good / total, total, CONFIDENCE_Z) for good, total in (on, off))
    change = rate_on - rate_off
    return (
        change - math.hypot(rate_on - low_on, high_off - rate_off),
        change + math.hypot(high_on - rate_on, rate_off - low_off),
    )
