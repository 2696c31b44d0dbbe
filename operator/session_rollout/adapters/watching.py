"""The sessions of Kopf: what the API server answers to its lists and watches becomes what Kopf repeats.

Kopf repeats a request that got no answer, or an error of the server. After any other answer that it does not expect, such as 404 for a
watch or the page of a proxy, it ends, and the process with it: no emergency would be carried out while the kubelet waits before it starts
the next one. So a list that is not one counts as a connection that broke, and a watch that is none as one whose version is too old,
after which Kopf lists again. Pauses grow. Lists are bounded in bytes: a page that is too large is requested again with fewer objects.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, cast
from urllib.parse import urlsplit

import aiohttp
import kopf
from aiohttp import ClientHandlerType

from session_rollout.adapters import answers
from session_rollout.adapters.heartbeats import Heartbeats, watch_name
from session_rollout.errors import RolloutError, TooLarge, Unavailable

log = logging.getLogger(__name__)
PAUSES: Final = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0)  # in addition to Kopf's own
PAGE: Final = 32  # objects in one answer; their JSON is parsed at once
REFUSAL_SECONDS: Final = 5.0  # to read why a watch was refused
SHORT_SECONDS: Final = 1.0  # a watch that ends earlier, without an event, is none
DISCOVERED: Final = ("versions", "groups", "resources")  # fields of which the answers of the discovery have one
TOO_OLD: Final = b'{"type":"ERROR","object":{"kind":"Status","code":410}}\n'  # Kopf lists again
LOGIN: Final = 401  # Kopf logs in again
OK: Final = 200
OnWatch = Callable[[str, RolloutError | None], None]  # the path of a watch, and why it was refused


class Refused(aiohttp.ClientConnectionError):
    """An answer that is no answer: Kopf sends the request again, with its own pauses."""


class Interrupted(aiohttp.ClientPayloadError):
    """A page that cannot be continued: Kopf lists from the beginning."""


class Sessions:
    """Opens sessions for Kopf, and remembers how their requests fare."""

    def __init__(self, hearts: Heartbeats, on_watch: OnWatch) -> None:
        self._hearts, self._on_watch = hearts, on_watch
        self._failures: dict[str, int] = {}  # in a row, by list or watch
        self._prefix = ""  # of all paths

    def open(self, info: kopf.ConnectionInfo) -> kopf.AiohttpSession:
        """A session with these credentials.

        Each request is a beat of the watches of its path: one that delivers nothing may be idle or dead, and Kopf does not tell, but
        it requests each watch again when the API server ends it or when it was silent for too long.
        """
        self._prefix = urlsplit(info.server).path.rstrip("/")
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(self._started)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers=info.as_http_headers(),
            trace_configs=[trace],
            middlewares=(self._answered,),
        )
        fields = {name: getattr(info, name) for name in ("server", "default_namespace", "priority", "expiration")}
        return kopf.AiohttpSession(aiohttp_session=session, **fields)

    def _relative(self, path: str) -> str:
        return path.removeprefix(self._prefix)

    async def _started(self, _: aiohttp.ClientSession, __: object, request: aiohttp.TraceRequestStartParams) -> None:
        self._hearts.beat_all(watch_name(self._relative(request.url.path)))  # discovery comes before all watches of its group

    async def _answered(self, request: aiohttp.ClientRequest, send: ClientHandlerType) -> aiohttp.ClientResponse:
        """The answer to a request, as Kopf expects it. Raises Refused or Interrupted."""
        path, is_watch = self._relative(request.url.path), "watch" in request.url.query
        name = watch_name(path) if is_watch else f"list of {path}"
        try:
            response = await send(request)
        except aiohttp.ClientResponseError as error:
            await self._pause(name, "not HTTP")
            raise Refused("not HTTP") from error
        if response.status == LOGIN:
            await self._pause(name, "HTTP status 401")
            return _with_body(response, b"")  # whatever it is, Kopf would read it
        if is_watch:
            return await self._watched(response, name, path)
        try:
            listed = await self._listed(request, response, send, path)
        except Refused as refusal:
            await self._pause(name, str(refusal))
            if "continue" in request.url.query:
                raise Interrupted(str(refusal)) from refusal
            raise
        self._failures.pop(name, None)
        return listed

    # --- lists

    async def _listed(
        self, request: aiohttp.ClientRequest, response: aiohttp.ClientResponse, send: ClientHandlerType, path: str
    ) -> aiohttp.ClientResponse:
        """A list or a part of the discovery, read and checked. Raises Refused."""
        limit = int(request.url.query.get("limit", "0"))
        while True:
            try:
                body = await _read(response)
                _check(response, body, path)
            except TooLarge as error:
                if limit <= 1:
                    raise Refused(str(error)) from error
                limit //= 2
                request.url = request.url.update_query(limit=str(limit))
                response = await send(request)
            else:
                return _with_body(response, body)

    # --- watches

    async def _watched(self, response: aiohttp.ClientResponse, name: str, path: str) -> aiohttp.ClientResponse:
        if response.status == OK:
            self._on_watch(path, None)
            return _with_content(response, _Events(response.content, self, name))
        self._on_watch(path, await _refusal(response, path))
        status, response.status = response.status, OK
        await self._pause(name, f"HTTP status {status}")
        return _with_content(response, _Body(response.content, TOO_OLD))

    async def events(self, content: aiohttp.StreamReader, name: str) -> AsyncIterator[bytes]:
        """The events of a watch, each with its end of line; the last one says that the version is too old if it is none."""
        begun, some = time.monotonic(), False
        async for line in _lines(content):
            if not _is_event(line):
                await self._pause(name, "no event")
                yield TOO_OLD
                return
            some = True
            self._failures.pop(name, None)
            yield line
        if not some and time.monotonic() - begun < SHORT_SECONDS:
            await self._pause(name, "an end")

    async def _pause(self, name: str, what: str) -> None:
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        if failures == 1:
            log.warning("the %s is repeated: the API server answered %s", name, what)
        await asyncio.sleep(PAUSES[min(failures, len(PAUSES)) - 1])


class _Content:
    """The content of an answer, but for what is read of it."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)


class _Body(_Content):
    """Content that was read."""

    def __init__(self, content: aiohttp.StreamReader, body: bytes) -> None:
        super().__init__(content)
        self._body = body

    async def read(self) -> bytes:
        """All of it."""
        return self._body

    async def iter_chunked(self, _: int) -> AsyncIterator[bytes]:
        """All of it."""
        yield self._body


class _Events(_Content):
    """The events of a watch."""

    def __init__(self, content: aiohttp.StreamReader, sessions: Sessions, name: str) -> None:
        super().__init__(content)
        self._sessions, self._name = sessions, name

    def iter_chunked(self, _: int) -> AsyncIterator[bytes]:
        """Line by line."""
        return self._sessions.events(self._content, self._name)


def _with_content(response: aiohttp.ClientResponse, content: _Content) -> aiohttp.ClientResponse:
    response.content = cast("aiohttp.StreamReader", content)
    return response


def _with_body(response: aiohttp.ClientResponse, body: bytes) -> aiohttp.ClientResponse:
    return _with_content(response, _Body(response.content, body))


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body. Raises TooLarge, and Refused when it ends early."""
    try:
        return await answers.read(response)
    except aiohttp.ClientError as error:
        raise Refused(type(error).__name__) from error


async def _refusal(response: aiohttp.ClientResponse, path: str) -> RolloutError:
    """Why there is no watch, as far as the server says it in time."""
    try:
        async with asyncio.timeout(REFUSAL_SECONDS):
            body = await _read(response)
    except (TooLarge, Refused, TimeoutError):
        body = b""
        response.close()
    return answers.error_of(response.status, body, response.headers, path)


def _check(response: aiohttp.ClientResponse, body: bytes, path: str) -> None:
    """Raise Refused for what Kopf cannot read."""
    if response.status != OK:
        raise Refused(f"HTTP status {response.status}")
    if response.content_type != "application/json":
        raise Refused("not JSON")
    try:
        known = _has_kinds(json.loads(body)) if answers.is_discovery(path) else bool(answers.checked(body, "GET", path))
    except (ValueError, RecursionError, Unavailable):
        known = False
    if not known:
        raise Refused("not a list")


def _has_kinds(parsed: Any) -> bool:
    return isinstance(parsed, dict) and any(isinstance(parsed.get(field), list) for field in DISCOVERED)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines, each with its end; one that is too long is returned without."""
    buffer = b""
    async for part in content.iter_chunked(answers.CHUNK_BYTES):
        *lines, buffer = (buffer + part).split(b"\n")
        for line in filter(None, lines):
            yield line + b"\n"
        if len(buffer) > answers.ANSWER_BYTES:
            break
    if buffer:
        yield buffer


def _is_event(line: bytes) -> bool:
    """Whether Kopf can read it as an event, and goes on afterwards."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not (isinstance(event, dict) and isinstance(event.get("type"), str) and isinstance(event.get("object"), dict)):
        return False
    metadata = event["object"].get("metadata")
    return isinstance(metadata, dict) and (event["type"] == "BOOKMARK" or isinstance(metadata.get("name"), str))
