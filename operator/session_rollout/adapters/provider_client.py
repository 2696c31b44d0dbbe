"""One metric provider over HTTP: a time limit for the whole answer, its own bound on queries, and a reason for each failure."""

import secrets
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

import requests
from prometheus_api_client import PrometheusConnect

from session_rollout.adapters.blocking import Call, PlainSession
from session_rollout.adapters.provider_slots import Slots
from session_rollout.api.enums import CheckReason
from session_rollout.api.quantities import duration, format_duration
from session_rollout.errors import PartialResponse, ProviderFailed, Unavailable
from session_rollout.settings import Provider, credential

CHUNK: Final = 16 * 1024
LONGEST_WORDS: Final = 200
INFO: Final = "PromQL info:"  # Prometheus 2.4x and 2.5x list these annotations among the warnings


@dataclass(frozen=True)
class Response:
    """A success of the Prometheus API, with what tells how old it is."""

    data: Any  # the field `data`
    seconds: float  # from the request to the headers of the response, by the monotonic clock
    date: datetime | None  # the header `Date`: the provider's clock
    cached: timedelta  # how old the response is: by the header `Age`, and by its provider's clock (`ProviderClock`)


class ProviderClient:
    """A provider of the configuration. Each query raises ProviderFailed and nothing else."""

    def __init__(self, provider: Provider, workers: int) -> None:
        self.provider = provider
        self.slots = Slots(workers)  # of this provider alone: a slow one delays no other
        self._timeout = duration(provider.timeout)
        self._idle: list[Session] = []  # the latest last: a session is for one thread at a time
        self._calls: set[Call[Response]] = set()

    async def query(self, query: str) -> Response:
        """The result of an instant query."""
        return await self._call(lambda session: session.query(query))

    async def query_range(self, query: str, start: datetime, end: datetime, step: timedelta) -> Response:
        """The results at `start` and every `step` until `end`, all of them whole seconds."""
        return await self._call(lambda session: session.query_range(query, start, end, step))

    async def alert_rules(self) -> Response:
        """All groups of alerting rules."""
        return await self._call(Session.alert_rules)

    async def runtime_information(self) -> Response:
        """What a Prometheus server says about itself."""
        return await self._call(Session.runtime_information)

    def close(self) -> None:
        """End all queries and close all connections, without waiting for the provider."""
        for call in self._calls:
            call.end()
        self._close_idle()

    async def _call(self, function: Callable[["Session"], Response]) -> Response:
        session = self._idle.pop() if self._idle else Session(self.provider)
        try:
            response = await self._response(partial(function, session))
        except BaseException:
            session.close()
            self._close_idle()  # what ended this connection may have ended those, and nothing else would tell
            raise
        self._idle.append(session)
        return response

    async def _response(self, function: Callable[[], Response]) -> Response:
        """One request. `timeout` bounds all of it: files, name resolution, connection, TLS, headers and body."""
        call = Call(function, f"query {self.provider.url}")
        self._calls.add(call)
        try:
            return await call.result(self._timeout.total_seconds())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise invalid(error) from error
        except OSError as error:  # including the errors of requests
            raise _failure(error, self._timeout) from error
        finally:
            self._calls.discard(call)

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()


class Session(PlainSession):
    """Reads no more than its limit, and returns only full successes."""

    def __init__(self, provider: Provider) -> None:
        super().__init__()
        self.headers["Cache-Control"] = "no-cache"  # an answer of an earlier time is no evidence
        self.verify = str(provider.ca_file or "") or True
        self._provider = provider
        self._trusted: tuple[int, int] | None = None
        self._seconds = duration(provider.timeout).total_seconds()
        self._api = PrometheusConnect(provider.url.rstrip("/"), session=self, timeout=self._seconds)
        self.mount(self._api.url, self.get_adapter("http://"))  # instead of the one that the library mounts

    def query(self, query: str) -> Response:
        """The result of an instant query."""
        self._api.custom_query(query, self._unique())
        return self._dated()

    def query_range(self, query: str, start: datetime, end: datetime, step: timedelta) -> Response:
        """The results of a range query."""
        self._api.custom_query_range(query, start, end, str(step // timedelta(seconds=1)), self._unique())
        return self._dated()

    def _unique(self) -> dict[str, str]:
        """Parameters. No two requests are equal, so that a cache that ignores `no-cache` has no response."""
        return {"timeout": f"{self._seconds + secrets.randbelow(10**9) / 10**9:.9f}"}

    def alert_rules(self) -> Response:
        """All groups of alerting rules, for which the library has no call."""
        self.get(f"{self._api.url}/api/v1/rules", params={"type": "alert"}, timeout=self._seconds)
        return self._dated()

    def runtime_information(self) -> Response:
        """What a Prometheus server says about itself, for which the library has no call."""
        self.get(f"{self._api.url}/api/v1/status/runtimeinfo", timeout=self._seconds)
        return self._dated()

    def request(self, *arguments: Any, **options: Any) -> requests.Response:
        """One request. Raises ProviderFailed for a response that is too large, an error or partial.

        An error is read here, where the response is at hand: the client library keeps only its text in an exception.
        """
        self._read_token()
        self._read_authorities()
        response = super().request(*arguments, **options)
        response._content = self._body(response)  # noqa: SLF001 - what requests itself does when it reads the content
        if response.status_code != requests.codes.ok:
            raise ProviderFailed(CheckReason.QUERY_REJECTED, _refusal(response))
        self._answer = _succeeded(response)
        if missing := _missing_data(self._answer):
            raise PartialResponse(f"partial response: {missing}")
        self._latest = response
        return response

    def _dated(self) -> Response:
        """The latest answer: its data, of which the client library keeps only a part, and its time."""
        headers, seconds = self._latest.headers, self._latest.elapsed.total_seconds()
        return Response(self._answer["data"], seconds, _date(headers.get("Date")), _cached(headers.get("Age")))

    def _body(self, response: requests.Response) -> bytes:
        body, most = bytearray(), self._provider.max_response_bytes
        for part in response.iter_content(CHUNK):
            body += part
            if len(body) > most:
                response.close()
                raise ProviderFailed(CheckReason.RESPONSE_TOO_LARGE, f"the response is larger than {most} bytes")
        return bytes(body)

    def _read_token(self) -> None:
        if self._provider.bearer_token_file is not None:
            try:
                self.headers["Authorization"] = f"Bearer {credential(self._provider.bearer_token_file)}"
            except Unavailable as error:
                raise ProviderFailed(CheckReason.CREDENTIALS_UNREADABLE, str(error)) from error

    def _read_authorities(self) -> None:
        """Trust what `caFile` has now, because it may be rotated: a new connection reads it."""
        path = self._provider.ca_file
        if path is None or not self._provider.url.startswith("https:"):
            return
        try:
            changed = path.stat()
            if self._trusted != (changed.st_mtime_ns, changed.st_ino):
                ssl.create_default_context(cafile=str(path))
                self.close()  # only its connections
        except OSError as error:  # SSLError, too: a file without a certificate
            raise ProviderFailed(CheckReason.CREDENTIALS_UNREADABLE, _unreadable(path, error)) from error
        self._trusted = (changed.st_mtime_ns, changed.st_ino)


def invalid(error: Exception) -> ProviderFailed:
    """A response that is none of the Prometheus API."""
    return ProviderFailed(CheckReason.INVALID_RESPONSE, f"returned an invalid response: {type(error).__name__}")


def _failure(error: OSError, timeout: timedelta) -> ProviderFailed:
    """What an error of a connection means, with the words of the system or of OpenSSL."""
    if isinstance(error, requests.RequestException) and not isinstance(error, requests.ConnectionError | requests.Timeout):
        return invalid(error)
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                return ProviderFailed(CheckReason.CERTIFICATE_REJECTED, f"its certificate is rejected: {cause.verify_message}")
            case ssl.SSLError():
                return ProviderFailed(CheckReason.TLS_FAILED, f"TLS failed: {_words(cause)}")
            case socket.gaierror():
                return ProviderFailed(CheckReason.NAME_NOT_RESOLVED, f"the host name cannot be resolved: {_words(cause)}")
            case HTTPException() if not isinstance(cause, OSError):  # not the one of a connection that was closed
                return invalid(cause)
            case TimeoutError():
                return ProviderFailed(CheckReason.TIMED_OUT, f"did not respond within {format_duration(timeout)}")
    return ProviderFailed(CheckReason.CONNECTION_FAILED, f"cannot be reached: {_words(error)}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it comes from: requests and urllib3 wrap each other's and the system's."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _words(error: BaseException) -> str:
    causes = tuple(_causes(error))
    for cause in causes:
        match cause:
            case ssl.SSLError(reason=str(reason)):
                return reason.replace("_", " ").lower()
            case OSError(strerror=str(text)):
                return text[:LONGEST_WORDS]
    return type(causes[-1]).__name__


def _unreadable(path: Path, error: OSError) -> str:
    reason = "it has no certificate in PEM format" if isinstance(error, ssl.SSLError) else error.strerror
    return f"{path} cannot be read: {reason}"


def _succeeded(response: requests.Response) -> dict[str, Any]:
    """The answer, if it says that it is a success. Proxies and query front ends also send errors with HTTP status 200."""
    answer: dict[str, Any] = response.json()
    if answer["status"] == "error":
        raise ProviderFailed(CheckReason.QUERY_REJECTED, _refusal(response))
    if answer["status"] != "success":
        raise ProviderFailed(CheckReason.INVALID_RESPONSE, "returned an invalid response: its `status` is not `success`")
    return answer


def _refusal(response: requests.Response) -> str:
    """Status code, and Prometheus' own error where the body has one."""
    try:
        return f"HTTP status {response.status_code}: {response.json()['error']}"[:LONGEST_WORDS]
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"HTTP status {response.status_code}"


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
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def _cached(text: str | None) -> timedelta:
    """The time in a header `Age`, which is a whole number of seconds."""
    return timedelta(seconds=int(text)) if text is not None and text.isdecimal() and len(text) < 10 else timedelta(0)  # noqa: PLR2004
