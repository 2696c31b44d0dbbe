"""The interval of a share that was counted (Wilson 1927). It has a width also where every event is alike."""

import math


def wilson(share: float, total: float, z: float) -> tuple[float, float]:
    """The interval of a share of so many events, above 0; `z` is the normal quantile of its confidence."""
    weight = z**2 / total
    middle = (share + weight / 2) / (1 + weight)
    spread = z * math.sqrt(share * (1 - share) / total + weight / (4 * total)) / (1 + weight)
    return middle - spread, middle + spread
