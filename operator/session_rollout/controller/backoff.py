"""How long to wait after failures: exponential with full jitter, so that loops which failed together do not return together."""

import random
from datetime import timedelta
from typing import Final

FIRST_SECONDS: Final = 0.2
EARLY_SECONDS: Final = 5.0  # longest wait after each of the first failures: most outages are short
EARLY_FAILURES: Final = 5
LONGEST_SECONDS: Final = 30.0


def delay(failures: int, retry_after: timedelta | None = None) -> float:
    """Seconds until the next attempt after so many failures in a row; never less than the server asked for."""
    longest = EARLY_SECONDS if failures <= EARLY_FAILURES else LONGEST_SECONDS
    bound = min(longest, FIRST_SECONDS * 2.0 ** min(failures, 16))
    wait = random.uniform(FIRST_SECONDS / 2, bound)  # noqa: S311 - no secret
    return max(wait, retry_after.total_seconds() if retry_after is not None else 0.0)
