"""One metric provider over HTTP: a time limit for the whole answer, its own bound on queries, and a reason for each failure.

Not with a client library of Prometheus: those wait for each byte as long as for the whole answer, so that a server which sends
one byte a second holds a query for ever.
"""

import asyncio
import contextlib
import json
import socket
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from session_rollout.api.enums import CheckReason
from session_rollout.api.quantities import duration, format_duration
from session_rollout.errors import PartialResponse, ProviderFailed, Unavailable
from session_rollout.settings import Provider, credential

CHUNK: Final = 16 * 1024
OK: Final = 200
CLOSE_SECONDS: Final = 1.0
LONGEST_WORDS: Final = 200
INFO: Final = "PromQL info:"  # Prometheus 2.4x and 2.5x list these annotations among the warnings
NO_LIMIT: Final = aiohttp.ClientTimeout(total=None, sock_connect=None)  # one limit for everything, see `get`


@dataclass(frozen=True)
class Response:
    """A success of the Prometheus API, with what tells how old it is."""

    data: Any
    seconds: float  # from the request to the headers of the response, by the monotonic clock
    date: datetime | None  # the header `Date`: the provider's clock
    cached: timedelta  # the header `Age`: how long a cache on the way had the response


class ProviderClient:
    """A provider of the configuration. Each method raises ProviderFailed and nothing else."""

    def __init__(self, provider: Provider, workers: int) -> None:
        self.provider = provider
        self.slots = asyncio.Semaphore(workers)  # of this provider alone: a slow one delays no other
        self._timeout = duration(provider.timeout)
        self._session: aiohttp.ClientSession | None = None
        self._trust: tuple[tuple[int, int], ssl.SSLContext] | None = None

    async def get(self, path: str, **parameters: str) -> Response:
        """One request. `timeout` bounds all of it: name resolution, connection, TLS, headers and body."""
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                return await self._request(f"{self.provider.url.rstrip('/')}{path}", parameters)
        except TimeoutError:
            message = f"did not respond within {format_duration(self._timeout)}"
            raise ProviderFailed(CheckReason.TIMED_OUT, message) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _failure(error) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise invalid(error) from error

    async def close(self) -> None:
        """Close all connections without waiting for the provider."""
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await session.close()

    async def _request(self, url: str, parameters: dict[str, str]) -> Response:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, resolver=Resolver())
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=NO_LIMIT, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
            )
        begun, headers, trust = asyncio.get_running_loop().time(), self._headers(), self._context()
        request = self._session.get(url, params=parameters, headers=headers, ssl=trust, allow_redirects=False)
        async with request as response:
            seconds = asyncio.get_running_loop().time() - begun
            body = await self._body(response)
        if response.status != OK:
            raise ProviderFailed(CheckReason.QUERY_REJECTED, _refusal(response.status, body))
        answer = json.loads(body)
        if missing := _missing_data(answer):
            raise PartialResponse(f"partial response: {missing}")
        return Response(answer["data"], seconds, _date(response.headers.get("Date")), _cached(response.headers.get("Age")))

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        body, most = bytearray(), self.provider.max_response_bytes
        async for part in response.content.iter_chunked(CHUNK):
            body += part
            if len(body) > most:
                response.close()
                raise ProviderFailed(CheckReason.RESPONSE_TOO_LARGE, f"the response is larger than {most} bytes")
        return bytes(body)

    def _headers(self) -> dict[str, str]:
        headers = {"Cache-Control": "no-cache"}  # an answer of an earlier time is no evidence
        if self.provider.bearer_token_file is not None:
            try:
                headers["Authorization"] = f"Bearer {credential(self.provider.bearer_token_file)}"
            except Unavailable as error:
                raise ProviderFailed(CheckReason.CREDENTIALS_UNREADABLE, str(error)) from error
        return headers

    def _context(self) -> ssl.SSLContext | bool:
        """The authorities to trust; read again when the file has changed, because it may be rotated."""
        path = self.provider.ca_file
        if path is None or not self.provider.url.startswith("https:"):
            return True
        try:
            changed = path.stat()
            version = (changed.st_mtime_ns, changed.st_ino)
            if self._trust is None or self._trust[0] != version:
                self._trust = (version, ssl.create_default_context(cafile=str(path)))
        except OSError as error:  # SSLError, too: a file without a certificate
            raise ProviderFailed(CheckReason.CREDENTIALS_UNREADABLE, _unreadable(path, error)) from error
        return self._trust[1]


class Resolver(AbstractResolver):
    """Resolves names in daemon threads: one that hangs delays neither a query beyond its time limit nor the process's exit.

    The threads of asyncio's own resolver are joined at exit, whatever they wait for.
    """

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        """Every address of a host. Raises OSError."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Any]] = loop.create_future()

        def settle(addresses: list[Any], error: OSError | None) -> None:
            if not done.done():
                done.set_result(addresses) if error is None else done.set_exception(error)

        def look_up() -> None:
            addresses, problem = [], None
            try:
                addresses = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                problem = error if isinstance(error, OSError) else OSError(0, "not a host name")
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(partial(settle, addresses, problem))

        threading.Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=address[0], port=address[1], family=kind, proto=protocol, flags=flags)
            for kind, _, protocol, _, address in await done
        ]

    async def close(self) -> None:
        """Nothing is kept."""


def invalid(error: Exception) -> ProviderFailed:
    """A response that is none of the Prometheus API."""
    return ProviderFailed(CheckReason.INVALID_RESPONSE, f"returned an invalid response: {type(error).__name__}")


def _failure(error: Exception) -> ProviderFailed:
    """What an error of a connection means, with the words of the system or of OpenSSL."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return ProviderFailed(CheckReason.NAME_NOT_RESOLVED, f"the host name cannot be resolved: {_words(error.os_error)}")
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError() | aiohttp.InvalidURL():
            return invalid(error)
    cause = _tls_error(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ProviderFailed(CheckReason.CERTIFICATE_REJECTED, f"its certificate is rejected: {cause.verify_message}")
    if cause is not None:
        return ProviderFailed(CheckReason.TLS_FAILED, f"TLS failed: {_words(cause)}")
    return ProviderFailed(CheckReason.CONNECTION_FAILED, f"cannot be reached: {_words(error)}")


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """The error of OpenSSL that an error is, or comes from; those of aiohttp are subclasses of it without its fields."""
    while error is not None and (isinstance(error, aiohttp.ClientError) or not isinstance(error, ssl.SSLError)):
        error = error.__cause__ or error.__context__
    return error


def _words(error: BaseException) -> str:
    match error:
        case ssl.SSLError(reason=str(reason)):
            return reason.replace("_", " ").lower()
        case OSError(strerror=str(text)):
            return text[:LONGEST_WORDS]
    return type(error).__name__


def _unreadable(path: Path, error: OSError) -> str:
    reason = "it has no certificate in PEM format" if isinstance(error, ssl.SSLError) else error.strerror
    return f"{path} cannot be read: {reason}"


def _refusal(status: int, body: bytes) -> str:
    """Status code, and Prometheus' own error where the body has one."""
    try:
        return f"HTTP status {status}: {json.loads(body)['error']}"[:LONGEST_WORDS]
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"HTTP status {status}"


def _missing_data(answer: dict[str, Any]) -> str | None:
    """What the provider says is missing: `isPartial` of VictoriaMetrics, warnings of Prometheus and Thanos; None otherwise.

    Annotations of level info are about the query and not about its data, as the field `infos` is.
    """
    warnings = [str(each) for each in answer.get("warnings") or () if not str(each).startswith(INFO)]
    if warnings:
        return "; ".join(warnings)[:LONGEST_WORDS]
    return "a part of the storage did not respond" if answer.get("isPartial") else None


def _date(text: str | None) -> datetime | None:
    """The time in a header `Date`; None when there is none, or it is none."""
    try:
        date = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def _cached(text: str | None) -> timedelta:
    """The time in a header `Age`, which is a whole number of seconds."""
    return timedelta(seconds=int(text)) if text is not None and text.isdecimal() and len(text) < 10 else timedelta(0)  # noqa: PLR2004
