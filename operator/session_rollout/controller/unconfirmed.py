"""Decisions whose status write failed, or whose response has not come: whether the status has them is not known yet.

Their Events, log lines and records are late, not lost: they follow when a status is read or written that the decisions led to.
"""

import json
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from session_rollout.api.base import sha256_of
from session_rollout.api.status import RolloutStatus
from session_rollout.core.observed import Decision, Emit, Observed

MOST: Final = 16  # decisions of one rollout
SENT: Final = frozenset({"lastUpdateTime", "evaluationTime"})  # fields that are set when a status is sent
NEWEST: Final = 2  # that are kept although nothing happened in them: the next decision may start from either


@dataclass(frozen=True)
class Made:
    """A decision, and what it rested on."""

    observed: Observed
    now: datetime
    decision: Decision
    replayable: bool = True  # `decide` itself made it, so that it can be decided again

    @property
    def evaluated(self) -> bool:
        """Whether the evidence of every check was evaluated for it."""
        return self.replayable and self.decision.complete

    @property
    def has_events(self) -> bool:
        """Whether something has happened in it."""
        return any(isinstance(effect, Emit) for effect in self.decision.effects)


@dataclass(frozen=True)
class Link:
    """A decision, with the fingerprints of its own status and of the one that it was made from. Links between them may be left out."""

    before: str
    after: str
    made: Made


@dataclass
class Unconfirmed:
    """The last decisions of one rollout that are not known to be in its status.

    Most were made from the status of the one before. Several may have been made from one status: a write whose response has not come
    may be stored after another decision about the same object was made.
    """

    links: list[Link] = field(default_factory=list)

    def add(self, made: Made) -> None:
        """The status of this decision could not be written, as far as is known."""
        before, after = _fingerprint(made.observed.rollout.status), _fingerprint(made.decision.status)
        if before != after:
            self.links.append(Link(before, after, made))
            if len(self.links) > NEWEST and not self.links[-NEWEST - 1].made.has_events:
                self._leave_out(self.links.pop(-NEWEST - 1))
            self.links = self.links[-MOST:]

    def confirmed(self, status: RolloutStatus) -> tuple[Made, ...]:
        """Those that led to this status, which is or was stored, oldest first. All are forgotten."""
        if not self.links:
            return ()
        path, wanted = list[Made](), _fingerprint(status)
        for link in reversed(self.links):
            if link.after == wanted:
                path.append(link.made)
                wanted = link.before
        self.links = []
        return tuple(reversed(path))

    def _leave_out(self, dropped: Link) -> None:
        """What was made from its status is as if made from the one before."""
        self.links = [replace(link, before=dropped.before) if link.before == dropped.after else link for link in self.links]


def _fingerprint(status: RolloutStatus) -> str:
    """Of the status as it is on the wire, but for the times that are set when it is sent."""
    content = {name: value for name, value in status.to_wire().items() if name not in SENT}
    return sha256_of(json.dumps(content, sort_keys=True))
