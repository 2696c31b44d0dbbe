"""How long to wait after failures: exponential with full jitter, so that loops which failed together do not return together."""

import random
from datetime import timedelta
from typing import Final

FIRST_SECONDS: Final = 0.2
EARLY_SECONDS: Final = 5.0  # longest wait after each of the first failures: most outages are short
EARLY_FAILURES: Final = 5
LONGEST_SECONDS: Final = 30.0
URGENT_SECONDS: Final = 1.5  # longest wait while users are not protected


def delay(failures: int, retry_after: timedelta | None = None) -> float:
    """Seconds until the next attempt after so many failures in a row; not less than the server asked for, within bounds."""
    longest = EARLY_SECONDS if failures <= EARLY_FAILURES else LONGEST_SECONDS
    bound = min(longest, FIRST_SECONDS * 2.0 ** min(failures, 16))
    wait = random.uniform(FIRST_SECONDS / 2, bound)  # noqa: S311 - no secret
    return max(wait, min(retry_after.total_seconds(), LONGEST_SECONDS) if retry_after is not None else 0.0)


def at_most_urgent(seconds: float) -> float:
    """No more than a moment, with jitter: what protects users is in force within seconds of the server accepting it again.

    Whatever the server asks for: its `Retry-After` is about the load of a whole cluster, and what is urgent is one small write.
    """
    return min(seconds, random.uniform(URGENT_SECONDS / 2, URGENT_SECONDS))  # noqa: S311 - no secret
