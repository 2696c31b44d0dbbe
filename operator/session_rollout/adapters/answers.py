"""What the API server answered: the object that was requested, or the error that stands for it."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp

from session_rollout.errors import AlreadyExists, Conflict, Forbidden, NotFound, RolloutError, SpecError, TooLarge, Unavailable

Answer = tuple[bytes, datetime | None]  # the body, and the time of the server
Headers = Mapping[str, str]
ANSWER_BYTES: Final = 16 * 2**20  # more than any object that etcd can hold
CHUNK_BYTES: Final = 2**16
MESSAGE_LENGTH: Final = 300
YEARS: Final = range(2000, 3000)
LONGEST_WAIT: Final = timedelta(minutes=5)  # a longer `Retry-After` is taken as this
# After the group and version: namespaces/NAMESPACE, the plural, and for one object its name and perhaps a subresource.
_PATH: Final = re.compile(
    r"^/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/[^/]+)?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/[^/]+)?)?$"
)


async def read(response: aiohttp.ClientResponse) -> bytes:
    """The body. Raises TooLarge; the connection goes then."""
    parts, size = [], 0
    async for part in response.content.iter_chunked(CHUNK_BYTES):
        parts.append(part)
        size += len(part)
        if size > ANSWER_BYTES:
            response.close()
            raise TooLarge(f"API server: an answer is larger than {ANSWER_BYTES} bytes")
    return b"".join(parts)


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


def is_discovery(path: str) -> bool:
    """Whether the path is none of objects, but of what kinds there are."""
    return _PATH.match(path) is None


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
    """The server's time; None when it gives none, or one with which no calendar can reckon."""
    try:
        date = parsedate_to_datetime(headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError, OverflowError):
        return None
    return date if date.year in YEARS else None


def error_of(code: int | None, body: Any, headers: Headers | None, path: str) -> RolloutError:
    """The error that stands for a status code of 400 and above.

    Only a Status object is from the API server. Whatever else it is, such as the page of a proxy, says nothing about objects or rights.
    """
    status = _status(body)
    if status is None:
        text = "the response is not a Status object"
        return Unavailable(f"API server: HTTP status {code}: {text}", _retry_after(headers or {}))
    reason = str(status.get("reason", ""))
    text = f"{reason}: {status.get('message', '')}"[:MESSAGE_LENGTH]
    match code:
        case 404 if reason == "NotFound" and _is_about(status.get("details"), path):
            return NotFound(text)
        case 403:
            return Forbidden(text)
        case 409:
            return AlreadyExists(text) if reason == "AlreadyExists" else Conflict(text)
        case 400 | 422:
            return SpecError(text)
    return Unavailable(f"API server: HTTP status {code}: {text}", _retry_after(headers or {}))


def _status(body: Any) -> dict[str, Any] | None:
    """The Status object in the body; None when there is none."""
    try:
        parsed = json.loads(body)
    except (ValueError, TypeError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) and parsed.get("kind") == "Status" else None


def _is_about(details: Any, path: str) -> bool:
    """Whether the details of a Status name the requested object. Those of a CRD or an API group that is missing name no object."""
    match = _PATH.match(path)
    return (
        match is not None
        and isinstance(details, dict)
        and (details.get("kind"), details.get("name")) == match.group("plural", "name")
    )


def _retry_after(headers: Headers) -> timedelta | None:
    """How long the server asks to wait: seconds, or a date."""
    text = headers.get("Retry-After", "")
    if text.isdecimal():
        return min(timedelta(seconds=int(text[:9])), LONGEST_WAIT)
    until, now = date_of({"Date": text}), date_of(headers)
    return min(max(until - now, timedelta(0)), LONGEST_WAIT) if until and now else None
