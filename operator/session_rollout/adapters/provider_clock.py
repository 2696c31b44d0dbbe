"""How old the answers of a provider are: by the progress of its clock, which may differ from ours.

A cache that keeps `Date`, as RFC 9111 demands, returns answers that agree with themselves. What gives them away is that their
`Date` does not advance while our monotonic clock does. So the provider's clock is known by how far it is ahead of the monotonic
one, at first by the operator's own time, and an answer that is behind is as old as it is behind.

A clock that is behind, or was set back, is told apart from a cache by two answers to one query: a clock advances between them.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from session_rollout.adapters.provider_client import Response
from session_rollout.ports import Clock

RESOLUTION: Final = 1.0  # `Date` has whole seconds
TOLERANCE: Final = 3.0  # clocks of one network differ by less, and an answer of that age is new
APART: Final = 5.0  # seconds between two answers that show whether a clock runs
DRIFT: Final = 0.5  # what a clock may gain or lose between them
MOST_QUERIES: Final = 1_000
OLDEST: Final = timedelta(days=36_500).total_seconds()


@dataclass(frozen=True)
class Seen:
    """How far an answer says the provider's clock to be ahead of the monotonic one: at least and at most, in seconds."""

    least: float
    most: float
    received: float  # by the monotonic clock

    def agrees(self, other: "Seen") -> bool:
        """Whether one running clock can have given both answers."""
        return self.least <= other.most + DRIFT and other.least <= self.most + DRIFT


class ProviderClock:
    """The clock of one provider, as its answers show it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead: float | None = None  # the most that is known
        self._behind: dict[str, Seen] = {}  # by query: an answer that is behind, if no newer one was as it should be

    def aged(self, query: str, response: Response, sent: float) -> Response:
        """The response with its age: by `Age`, or by how far its `Date` is behind. `sent` is by the monotonic clock."""
        if response.date is None:
            return response
        received = self._clock.monotonic()
        if self._ahead is None:
            self._ahead = self._clock.now().timestamp() - received
        date = response.date.timestamp()
        lag = timedelta(seconds=self._lag(query, Seen(date - received, date + RESOLUTION - sent, received), sent))
        return replace(response, cached=max(response.cached, lag))

    def _lag(self, query: str, seen: Seen, sent: float) -> float:
        assert self._ahead is not None
        lag = min(self._ahead - seen.most, OLDEST)
        before = self._behind.get(query)
        if lag <= TOLERANCE:
            self._know(max(self._ahead, seen.least))
        elif before is None or not before.agrees(seen):
            self._remember(query, seen)
            return lag
        elif sent - before.received < APART:
            return lag  # too soon to tell
        else:
            self._know(seen.least)
        return 0.0

    def _know(self, ahead: float) -> None:
        self._ahead = ahead
        self._behind.clear()

    def _remember(self, query: str, seen: Seen) -> None:
        if len(self._behind) >= MOST_QUERIES:
            self._behind.clear()
        self._behind[query] = seen
