"""Decisions whose status write failed, or whose response has not come: whether the status has them is not known yet.

Their Events, log lines and records are late, not lost: they follow when a status is read or written that the decisions led to.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from session_rollout.api.status import RolloutStatus
from session_rollout.core.observed import Decision, Emit, Observed

MOST: Final = 16  # decisions of one rollout
NEWEST: Final = 2  # that are kept although nothing happened in them: the next decision may start from either


@dataclass(frozen=True)
class Made:
    """A decision, and what it rested on."""

    observed: Observed
    now: datetime
    decision: Decision
    replayable: bool = True  # `decide` itself made it, so that it can be decided again

    @property
    def has_events(self) -> bool:
        """Whether something has happened in it."""
        return any(isinstance(effect, Emit) for effect in self.decision.effects)


@dataclass
class Unconfirmed:
    """The last decisions of one rollout that are not known to be in its status, each made from the status of the one before."""

    made: list[Made] = field(default_factory=list)

    def add(self, made: Made) -> None:
        """The status of this decision could not be written, as far as is known. It replaces those that were made from the same status."""
        self._back_to(made.observed.rollout.status)
        if made.decision.status != made.observed.rollout.status:
            self.made.append(made)
        older = len(self.made) - NEWEST
        self.made = [each for place, each in enumerate(self.made) if place >= older or each.has_events][-MOST:]

    def confirmed(self, status: RolloutStatus) -> tuple[Made, ...]:
        """Those that led to this status, which is or was stored, oldest first. All are forgotten."""
        self._back_to(status)
        confirmed, self.made = tuple(self.made), []
        return confirmed

    def _back_to(self, status: RolloutStatus) -> None:
        content = _content(status) if self.made else None
        while self.made and _content(self.made[-1].decision.status) != content:
            self.made.pop()


def _content(status: RolloutStatus) -> dict[str, Any]:
    """As it is on the wire, but the time of the write."""
    return {name: value for name, value in status.to_wire().items() if name != "lastUpdateTime"}
