"""What the next leader has to know from the Lease: since when no replica led, and of which rollouts no status says more.

When every rollout has taken the time into account, it is removed.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from session_rollout.ports import Key

# Of a rollout, from the `evaluationTime` of its status; None: unknown.
Since = Callable[[Key, datetime | None], datetime | None]


@dataclass
class Downtime:
    """The time before this process led, in which no replica watched any rollout; each rollout's hold timer leaves it out."""

    since: Since = lambda *_: None
    unaccounted: set[Key] = field(default_factory=set)  # rollouts of which no status says what this process knows
    accounted: asyncio.Event = field(default_factory=asyncio.Event)  # every rollout has it in its status
    _accounted: set[Key] = field(default_factory=set)
    _expected: frozenset[Key] | None = None  # not known yet

    def begin(self, since: Since, rollouts: Iterable[Key] | None = None) -> None:
        """This process leads. Rollouts that exist have yet to take the downtime into account; None: see `expect`."""
        self.since = since
        if rollouts is not None:
            self.expect(rollouts)

    def expect(self, rollouts: Iterable[Key]) -> None:
        """These are all rollouts; some may have taken the downtime into account by now."""
        self._expected = frozenset(rollouts)
        self._check()

    def account(self, key: Key) -> None:
        """This rollout has taken the downtime into account, or does not need to, and its status says so."""
        self.unaccounted.discard(key)
        if not self.accounted.is_set():
            self._accounted.add(key)
            self._check()

    def _check(self) -> None:
        if self._expected is not None and self._expected <= self._accounted:
            self.accounted.set()
            self._accounted.clear()
