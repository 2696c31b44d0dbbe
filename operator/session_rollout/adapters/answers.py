"""What the API server answered: the object that was requested, or the error that stands for it."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

from session_rollout.errors import AlreadyExists, Conflict, Forbidden, NotFound, RolloutError, SpecError, Unavailable

Answer = tuple[bytes, datetime | None]  # the body, and the time of the server
Headers = Mapping[str, str]
MESSAGE_LENGTH: Final = 300
LONGEST_WAIT: Final = timedelta(minutes=5)  # a longer `Retry-After` is taken as this
# After the group and version: namespaces/NAMESPACE, the plural, and for one object its name and perhaps a subresource.
_PATH: Final = re.compile(r"^/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/[^/]+)?/[^/]+(?:/(?P<name>[^/]+)(?:/[^/]+)?)?$")


def checked(text: bytes, method: str, path: str) -> dict[str, Any]:
    """The answer as an object. Raises Unavailable when it is not what was requested: a named object, or a list of objects."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unavailable(f"API server: the answer to {method} {path} is not JSON") from error
    if isinstance(parsed, dict) and parsed.get("items", ()) is None and str(parsed.get("kind")).endswith("List"):
        parsed["items"] = []  # so Go writes an empty list in some places
    if not _is_object(parsed) or not _is_requested(parsed, method, path):
        raise Unavailable(f"API server: the answer to {method} {path} is not the object that was requested")
    return dict(parsed)


def _is_object(parsed: Any) -> bool:
    return isinstance(parsed, dict) and isinstance(parsed.get("metadata"), dict)


def _is_requested(parsed: dict[str, Any], method: str, path: str) -> bool:
    match = _PATH.match(path)
    if match is None or method not in {"GET", "PUT", "PATCH"}:
        return True
    if match["name"] is None:
        return isinstance(parsed.get("items"), list) and all(_is_object(item) and _is_named(item) for item in parsed["items"])
    return _is_named(parsed) and parsed["metadata"]["name"] == match["name"]


def _is_named(parsed: dict[str, Any]) -> bool:
    metadata = parsed["metadata"]
    return isinstance(metadata.get("name"), str) and str(metadata.get("resourceVersion", "0")).isdecimal()


def date_of(headers: Headers) -> datetime | None:
    """The server's time; None when it gives none."""
    try:
        return parsedate_to_datetime(headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return None


def error_of(code: int | None, body: Any, headers: Headers | None) -> RolloutError:
    """The error that stands for a status code of 400 and above."""
    reason, text = _reason(body)
    match code:
        case 404:
            return NotFound(text)
        case 403:
            return Forbidden(text)
        case 409:
            return AlreadyExists(text) if reason == "AlreadyExists" else Conflict(text)
        case 400 | 422:
            return SpecError(text)
    return Unavailable(f"API server: HTTP status {code}: {text}", _retry_after(headers or {}))


def _reason(body: Any) -> tuple[str, str]:
    """Reason of a Status object, and what it says."""
    try:
        status = json.loads(body)
        reason = str(status.get("reason", ""))
        return reason, f"{reason}: {status.get('message', '')}"[:MESSAGE_LENGTH]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return "", "the response is not a Status object"


def _retry_after(headers: Headers) -> timedelta | None:
    """How long the server asks to wait: seconds, or a date."""
    text = headers.get("Retry-After", "")
    if text.isdecimal():
        return min(timedelta(seconds=int(text[:9])), LONGEST_WAIT)
    until, now = date_of({"Date": text}), date_of(headers)
    return min(max(until - now, timedelta(0)), LONGEST_WAIT) if until and now else None
