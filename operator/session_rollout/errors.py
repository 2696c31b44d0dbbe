"""The one error tree: everything that this package raises on purpose is in it.

    RolloutError
    +-- SpecError            the object or the operator's configuration is wrong: the user must correct it
    +-- Unavailable          a server does not answer: try again later
    |   +-- Forbidden        the API server denies a verb on a resource: an administrator must grant it
    +-- Conflict             another client wrote first: read again, decide again, never re-send
    +-- ActionRefused        an action is not carried out; its reason and message are the answer
    +-- MigrationError       a migration ends without success; `reason` says why in one CamelCase word
        +-- BundleError      the files of a bundle are invalid: correct them
        +-- MigrationFailed  the migration requires manual intervention
        +-- Interrupted      the attempt ended early: the next attempt resumes where it stopped

"Could not measure" is not here: it is a verdict (`api.enums.Verdict`), not an exception.
"""

from session_rollout.api.enums import ActionReason
from session_rollout.api.progress import FailureReason


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


class MigrationError(RolloutError):
    """A migration ends without success. The message is for people, the reason for programs."""

    def __init__(self, message: str, reason: FailureReason) -> None:
        super().__init__(message)
        self.reason = reason


class BundleError(MigrationError):
    """The files of a bundle are invalid; the message names the file or field and what is allowed."""

    def __init__(self, message: str, reason: FailureReason = FailureReason.INVALID_BUNDLE) -> None:
        super().__init__(message, reason)


class MigrationFailed(MigrationError):
    """The migration requires manual intervention; the message has the database's own error and the line of the SQL file."""


class Interrupted(MigrationError):
    """The attempt ended before the migration was complete; the next attempt resumes where it stopped."""
