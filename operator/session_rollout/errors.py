"""The one error tree: everything that this package raises deliberately is in it.

    RolloutError
    +-- SpecError            the object or the operator's configuration is wrong: the user must correct it
    |   +-- FieldDropped     the API server has stored an object without a field: its CRD is older than the operator
    |   +-- StatusContested  another operator writes the status of a rollout
    +-- ActionRejected        an action is not carried out; `reason` is that of its condition `Accepted`
    +-- Conflict             another client wrote first: read again, decide again, never re-send
    |   +-- AlreadyExists    another client created an object of this name first
    +-- Unavailable          a server does not respond: try again later, not before `retry_after`
    |   +-- Forbidden        the API server denies a verb on a resource: an administrator must grant it
    |   +-- NotFound         the API server has no such object
    |   +-- TooLarge         the response is larger than the memory for it: request less
    |   +-- ProviderFailed   a metric provider gave no usable response; `reason` is that of the check
    |       +-- PartialResponse   the provider warns that data is missing
    +-- MigrationError       a migration ends without success; `reason` says why in one CamelCase word
        +-- BundleError      the files of a bundle are invalid: correct them
        +-- MigrationFailed  the migration requires manual intervention
        +-- Interrupted      the attempt ended early: the next attempt resumes where it stopped

Two subclasses of RolloutError are defined with the tool that they describe: `KubectlFailed` in `adapters.kubectl` and `Failure`
in `cli.command`. "Could not measure" is not an error: it is a verdict (`api.enums.Verdict`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

from session_rollout.api.enums import ActionReason, CheckReason
from session_rollout.api.migration_enums import FailureReason


@dataclass(frozen=True)
class Request:
    """The request to the API server that failed, in the words of its authorization."""

    verb: str
    resource: str
    namespace: str = ""


class RolloutError(Exception):
    """Root of the tree; the message is one sentence fit for a status or an Event."""

    request: Request | None = None  # set by the adapter that made it
    problems: "Mapping[str, RolloutError]" = MappingProxyType(
        {}
    )  # of a list of namespaces, none of which could be listed, by namespace


class SpecError(RolloutError):
    """The object or the configuration requests something that cannot be done."""


class FieldDropped(SpecError):
    """The API server has stored an object without a field that was sent: its CRD is older than the operator."""


class StatusContested(SpecError):
    """Another operator that is configured differently writes the status of a rollout, too."""


class ActionRejected(RolloutError):
    """A SessionRolloutAction is rejected; the message becomes its response."""

    def __init__(self, reason: ActionReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Conflict(RolloutError):
    """The object changed since it was read (HTTP 409)."""


class AlreadyExists(Conflict):
    """An object of this name exists (HTTP 409 to a creation)."""


class Unavailable(RolloutError):
    """A server did not respond, or reported a temporary error: the request may succeed later.

    `retry_after` is the time that the server asked for, by `Retry-After` of a 429 or 503; None when it named none.
    """

    def __init__(self, message: str, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Forbidden(Unavailable):
    """The API server denies the request (HTTP 403); its sentence names the verb and the resource."""


class NotFound(Unavailable):
    """The API server says that there is no such object (HTTP 404)."""


class TooLarge(Unavailable):
    """The response is larger than the memory for it."""


class ProviderFailed(Unavailable):
    """A metric provider gave no usable response."""

    def __init__(self, reason: CheckReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class PartialResponse(ProviderFailed):
    """The response came with warnings: some of the data is missing, so its number must not be trusted."""

    def __init__(self, message: str) -> None:
        super().__init__(CheckReason.PARTIAL_RESULT, message)


class MigrationError(RolloutError):
    """A migration ends without success. The message is human-readable, the reason machine-readable."""

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
