"""The clocks: the only place that reads the wall clock.

Times in a status are compared with times that the API server set, so the operator uses the time of the API server: taken from
the `Date` header of its answers and carried from one answer to the next by the monotonic clock. Setting the clock of the node
back or forward changes nothing. A large difference is never adopted while this process leads: setting the time back would blind
guards, and setting it forward would shorten holds. It is logged, counted and exported; the next process adopts it.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from session_rollout.adapters.telemetry import CLOCK_JUMPS, CLOCK_SKEW
from session_rollout.core.observed import ClockJump

log = logging.getLogger(__name__)
JUMP_SECONDS: Final = 2.0  # a smaller difference is adopted; a larger change is a jump
DATE_SECONDS: Final = 1.0  # resolution of the `Date` header
Seconds = Callable[[], float]


def _datetime(seconds: float) -> datetime:
    """To the millisecond, as times are kept in status."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class WallClock:
    """The system's clock."""

    def now(self) -> datetime:
        """Now in UTC."""
        return _datetime(time.time())

    def monotonic(self) -> float:
        """Seconds of a clock that nobody sets, for waiting and for ages."""
        return time.monotonic()


class ServerClock:
    """The time of the API server. It never goes back, whatever happens to any clock.

    Before the first answer it is that of the system; then it is corrected by each answer. Once `hold_steady` is called, because
    times were written, only a small difference is adopted.
    """

    def __init__(self, wall: Seconds = time.time, monotonic: Seconds = time.monotonic) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._offset = wall() - monotonic()  # of this clock to the monotonic one
        self._wall_offset = self._offset
        self._skew = 0.0
        self._latest = 0.0
        self._steady = False
        self.jump: ClockJump | None = None  # the last one

    def now(self) -> datetime:
        """Now in UTC, by the clock of the API server."""
        self._latest = max(self._latest, self._monotonic() + self._offset)
        return _datetime(self._latest)

    def monotonic(self) -> float:
        """Seconds of a clock that nobody sets, for waiting and for ages."""
        return self._monotonic()

    def hold_steady(self) -> None:
        """From now on times are written: adopt no large difference any more."""
        self._steady = True

    def heard(self, date: datetime, sent: float, received: float) -> None:
        """An answer with this `Date` came to a request; both ends by the monotonic clock.

        The server took the time between both ends, and cut it to whole seconds: only what cannot be explained by these two is a
        difference of the clocks.
        """
        least = date.timestamp() - (received + self._offset)
        most = date.timestamp() + DATE_SECONDS - (sent + self._offset)
        skew = max(least, 0.0) or min(most, 0.0)
        if self._steady and abs(skew) > JUMP_SECONDS:
            self._keep(skew)
            return
        self._offset += skew
        self._skew = 0.0
        if self.jump is not None and self.jump.ahead:
            self.jump = replace(self.jump, ahead=timedelta(0))
        CLOCK_SKEW.set(0.0)
        if not self._steady:
            self._latest = 0.0

    def tick(self) -> None:
        """Notice a jump of the system's clock since the last call; slow corrections are none."""
        offset = self._wall() - self._monotonic()
        change, self._wall_offset = offset - self._wall_offset, offset
        if abs(change) > JUMP_SECONDS:
            self._jumped("operator", change)

    def _keep(self, skew: float) -> None:
        """The API server's clock differs by too much to be adopted: say so when that begins or changes."""
        CLOCK_SKEW.set(skew)
        change, self._skew = skew - self._skew, skew
        if abs(change) > JUMP_SECONDS:
            self._jumped("api-server", change)

    def _jumped(self, source: str, seconds: float) -> None:
        by, ahead = (timedelta(seconds=round(change, 3)) for change in (seconds, self._skew))
        self.jump = ClockJump(self.now(), by, source, ahead)
        CLOCK_JUMPS.labels(source).inc()
        log.warning("the clock of the %s jumped by %+.1f s; decisions use elapsed time", source, seconds)
