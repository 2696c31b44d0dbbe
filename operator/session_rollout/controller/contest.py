"""Statuses that this process has not written: of a backup, and of another operator while this one leads.

Another operator is a second release that watches the same namespace. Two that are configured alike agree with what they read. Two that
are not write over each other's status for ever: each write wakes the other, and with each the failure of a guard with `for` is lost.
A leader that has lost its Lease writes for a few seconds only.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from session_rollout.api.enums import CheckKind
from session_rollout.api.status import RolloutStatus
from session_rollout.api.status_records import EARLIEST, CheckRecord

RECENT: Final = timedelta(minutes=1)
CONTESTED: Final = 15  # seconds of a minute in which it was written over: longer than a leader writes that has lost its Lease
CONTESTED_TEXT: Final = "another operator, configured differently, watches this rollout and keeps writing over its status"
WAKE_SECONDS: Final = 10.0  # until a status that the other operator has written is answered


@dataclass(frozen=True)
class Decided:
    """What is remembered of a decision: whole statuses of a thousand rollouts would fill the memory."""

    place: tuple[Any, ...]
    gist: tuple[Any, ...]
    guards: tuple[CheckRecord, ...]


@dataclass
class Contest:
    """What this process has decided about one rollout, and how often another one has written something else over it."""

    contested: bool = False
    _foreign: bool = False  # the status was written by another process since this one has
    _decided: Decided | None = None  # the last one, also if it was not written
    _seconds: deque[datetime] = field(default_factory=deque)  # in which the status had to be written again
    _timer: asyncio.TimerHandle | None = None

    @property
    def suspected(self) -> bool:
        """Whether the status was written over within the last minute."""
        return bool(self._seconds)

    def read(self, stored: RolloutStatus, known: RolloutStatus | None) -> None:
        """The status was read; `known` is the one that this process has written or read before."""
        self._foreign |= known is not None and known_part(stored) != known

    def wrote(self) -> None:
        """This process has written the status."""
        self._foreign = False

    def wake(self, loop: asyncio.Event) -> None:
        """The status was written. While it is contested, the loop is not woken at once: each write wakes both operators."""
        if not self.contested:
            loop.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WAKE_SECONDS, self._wake_now, loop)

    def _wake_now(self, loop: asyncio.Event) -> None:
        self._timer = None
        loop.set()

    def base(self, stored: RolloutStatus) -> RolloutStatus:
        """The status that the next decision starts from: how long guards have failed is known to this process."""
        own = self._decided
        if own is None or not (self._foreign and self._seconds and own.place == _place(stored)):
            return stored
        others = (record for record in stored.checks if record.kind is not CheckKind.GUARD)
        return stored.updated(checks=tuple(sorted((*others, *own.guards), key=lambda record: (record.kind, record.name))))

    def decided(self, stored: RolloutStatus, status: RolloutStatus, now: datetime) -> None:
        """Note a decision. One that another process has written over is made again, as if nothing had happened."""
        own, second = self._decided, now.replace(microsecond=0)
        while self._seconds and now - self._seconds[0] >= RECENT:
            self._seconds.popleft()
        again = self._foreign and own is not None and own.gist == _gist(status) != _gist(stored)
        if again and (not self._seconds or self._seconds[-1] != second):
            self._seconds.append(second)
        self.contested = len(self._seconds) >= (1 if self.contested else CONTESTED)
        guards = tuple(record for record in status.checks if record.kind is CheckKind.GUARD)
        self._decided = Decided(_place(status), _gist(status), guards)


def known_part(status: RolloutStatus) -> RolloutStatus:
    """What is remembered of a status to recognize a backup of it."""
    return RolloutStatus(current=status.current, last_update_time=status.last_update_time)


def is_before(stored: RolloutStatus, known: RolloutStatus) -> bool:
    """Whether a status was written before another, or is edited to an earlier stage, or to a hold that ends earlier."""
    if known.last_update_time is not None and (stored.last_update_time or EARLIEST) < known.last_update_time:
        return True
    current, other = stored.current, known.current
    if current.stage_start_time is None or other.stage_start_time is None:
        return other.stage_start_time is not None
    if current.stage_start_time != other.stage_start_time or current.hold_until is None or other.hold_until is None:
        return current.stage_start_time < other.stage_start_time
    return current.hold_until < other.hold_until


def _place(status: RolloutStatus) -> tuple[Any, ...]:
    """Where a rollout is: at another place, guards may have been started again."""
    current = status.current
    return (
        status.observed_generation,
        current.stage,
        current.stage_start_time,
        current.published_time,
        current.guards_start_time,
    )


def _gist(status: RolloutStatus) -> tuple[Any, ...]:
    """What a status says, without times and numbers, in which two operators may always differ."""
    return (
        frozenset((condition.type, condition.status, condition.reason) for condition in status.conditions),
        frozenset((check.kind, check.name, check.verdict, check.reason) for check in status.checks),
        frozenset(refusal.effect for refusal in status.refusals),
    )
