"""The one error tree; everything the operator raises on purpose is in it.

    RolloutError
    +-- SpecError      a person must act: the object or the operator's configuration is wrong
    +-- Unavailable    something outside does not answer: try again later
    |   +-- Forbidden  the API server refuses us a verb on a resource: an admin must grant it
    +-- Conflict       somebody else wrote first: read again, decide again, never re-send
    +-- ActionRefused  an action is not carried out; its reason and message are the answer

"Could not measure" is not here: it is a verdict (`api.reasons.Verdict`), not an exception.
"""

from session_rollout.api.enums import ActionReason


class RolloutError(Exception):
    """Root of the tree; the message is one sentence fit for a status or an event."""


class SpecError(RolloutError):
    """The object or the configuration asks for something that cannot be done."""


class Unavailable(RolloutError):
    """A server did not answer, or answered that it cannot now; later it may."""


class Forbidden(Unavailable):
    """The API server refuses (HTTP 403); its sentence names the verb and the resource."""


class Conflict(RolloutError):
    """The object changed since it was read (HTTP 409)."""


class ActionRefused(RolloutError):
    """An action is not carried out: `reason` is for programs, the message is for people; both are the answer."""

    def __init__(self, reason: ActionReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
