"""Refused requests, as `status.refusals` shows them."""

from datetime import datetime
from typing import Final

from session_rollout.api.status_records import Refusal
from session_rollout.errors import FieldDropped, Forbidden, Request, SpecError, StatusContested

UNKNOWN_REQUEST: Final = Request("", "")


def refusal_of(effect: str, error: Exception, since: datetime, default: Request = UNKNOWN_REQUEST) -> Refusal:
    """The refusal of an effect; `default` is the request of an error that names none."""
    request = getattr(error, "request", None) or default
    return Refusal(
        effect=effect,
        verb=request.verb,
        resource=request.resource,
        namespace=request.namespace,
        message=str(error) or type(error).__name__,
        since=since,
        remedy=_remedy(error, request),
    )


def _remedy(error: Exception, request: Request) -> str:
    if isinstance(error, Forbidden):
        where = f" in namespace {request.namespace}" if request.namespace else ""
        return f"allow the operator to {request.verb} {request.resource}{where}: a right, a quota or an admission policy is in the way"
    if isinstance(error, FieldDropped):
        return "apply the CRDs of the version of the operator"
    if isinstance(error, StatusContested):
        return "give each release of the operator its own `namespaces`, or remove one of them"
    return "correct what the message names" if isinstance(error, SpecError) else ""
