"""What Kopf gets instead of answers that would end it. The process with Kopf in it is in tests/test_process.py."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import kopf
import pytest
from aiohttp import web

from session_rollout.adapters import answers, watching
from session_rollout.adapters.heartbeats import Heartbeats, watch_name
from session_rollout.adapters.watching import TOO_OLD, Interrupted, OnWatch, Refused, Sessions
from session_rollout.errors import Forbidden, RolloutError, Unavailable

JOBS = "/apis/batch/v1/jobs"
DEEP = b"[" * 200_000
EVENT = b'{"type":"ADDED","object":{"metadata":{"name":"shop"}}}\n'
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PAUSES", (0.0,))


def unheard(_: str, __: RolloutError | None) -> None:
    """Nobody asks how watches fare."""


@asynccontextmanager
async def session(
    handle: Handler, hearts: Heartbeats, prefix: str = "", on_watch: OnWatch = unheard
) -> AsyncIterator[Callable[[str], Any]]:
    """GET, as Kopf sends it."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = f"http://127.0.0.1:{runner.addresses[0][1]}{prefix}"
    opened = Sessions(hearts, on_watch).open(kopf.ConnectionInfo(server=server)).aiohttp_session
    try:
        yield lambda path: opened.get(server + path, timeout=aiohttp.ClientTimeout(total=10))
    finally:
        await opened.close()
        await runner.cleanup()


def always(status: int, body: bytes, content: str = "application/json") -> Handler:
    """The same answer to every request."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, content_type=content)

    return handle


async def watched(handle: Handler) -> bytes:
    """What Kopf reads of a watch."""
    async with session(handle, Heartbeats()) as get, await get(f"{JOBS}?watch=true") as response:
        assert response.status == 200
        return b"".join([part async for part in response.content.iter_chunked(1)])


async def listed(handle: Handler, path: str = JOBS) -> Any:
    """What Kopf reads of a list."""
    async with session(handle, Heartbeats()) as get, await get(path) as response:
        return await response.json()


@pytest.mark.parametrize(
    "body",
    [
        b'{"type": "ERROR", "object": {"kind": "Status", "code": 500}}',
        b'{"type": "ERROR", "object": {}}',
        b'{"type": "ADDED", "object": []}',
        b'{"type": "ADDED", "object": {"metadata": null}}',
        b'{"type": "ADDED", "object": {"metadata": {}}}',
        b'{"object": {"metadata": {"name": "shop"}}}',
        b"<html>Please log in</html>",
        b"[]",
        b"7",
        b"\xff\xfe",
        DEEP,
        b"x" * 5000,
    ],
    ids=lambda body: repr(body[:40]),
)
@pytest.mark.parametrize("end", [b"\n", b""])
def test_what_is_no_event_makes_kopf_list_again(body: bytes, end: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """R15: it would end the process. What came before it is delivered."""
    monkeypatch.setattr(answers, "ANSWER_BYTES", 400_000)
    assert asyncio.run(watched(always(200, EVENT + body + end))) == EVENT + TOO_OLD


@pytest.mark.parametrize("code", [201, 302, 400, 403, 404, 410, 422, 429, 500, 503, 504])
@pytest.mark.parametrize("body", [b"<html>", b"", b"\xff\xfe", DEEP, b'{"kind": "Status", "code": 404}'], ids=len)
def test_watch_that_is_refused_makes_kopf_list_again(code: int, body: bytes) -> None:
    """R15: also with a version that the API server does not have yet, after it was restored."""
    assert asyncio.run(watched(always(code, body))) == TOO_OLD


def test_it_is_told_how_each_request_for_a_watch_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """R11: the right may be missing alone. Also when the reason is too long, or does not come."""
    monkeypatch.setattr(watching, "REFUSAL_SECONDS", 0.05)
    monkeypatch.setattr(answers, "ANSWER_BYTES", 1000)
    ended, seen = asyncio.Event(), list[tuple[str, RolloutError | None]]()
    forbidden = json.dumps({"kind": "Status", "reason": "Forbidden", "message": "cannot watch jobs"}).encode()
    bodies = iter([forbidden, b"x" * 2000, None, b""])

    async def handle(request: web.Request) -> web.StreamResponse:
        body = next(bodies)
        response = web.StreamResponse(status=200 if body == b"" else 403)
        await response.prepare(request)
        await response.write(body or b" ")
        if body is None:
            await ended.wait()
        return response

    async def body() -> None:
        async with session(handle, Heartbeats(), on_watch=lambda *told: seen.append(told)) as get:
            for _ in range(4):
                async with get(f"{JOBS}?watch=true") as response:
                    await response.read()
            ended.set()

    asyncio.run(body())
    assert [path for path, _ in seen] == [JOBS] * 4
    assert [type(error) for _, error in seen] == [Forbidden, Unavailable, Unavailable, type(None)]
    assert "cannot watch jobs" in str(seen[0][1])


def test_event_without_an_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "ANSWER_BYTES", 2**20)

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 2**16)

    assert asyncio.run(watched(handle)) == TOO_OLD


def test_events_come_as_they_are() -> None:
    """Whatever their size is, and bookmarks."""
    large = json.dumps({"type": "MODIFIED", "object": {"metadata": {"name": "shop", "x": "x" * 300_000}}}).encode() + b"\n"
    bookmark = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}\n'
    events = EVENT + large + bookmark + large
    assert asyncio.run(watched(always(200, events))) == events


@pytest.mark.parametrize(
    "body", [b"<html>", b"", b"\xff\xfe", b"[]", b"{}", b"null", DEEP, b'{"metadata": {}, "items": [1]}'], ids=len
)
@pytest.mark.parametrize("path", [JOBS, "/api", "/apis", "/apis/batch/v1"])
def test_what_is_no_list_is_requested_again(body: bytes, path: str) -> None:
    """R15: as if the connection had broken; from the beginning if it was to be continued."""
    codes = iter((200, 302, 404, 410, 429, 503, 410))

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=next(codes), body=body, content_type="application/json")

    async def requested() -> None:
        async with session(handle, Heartbeats()) as get:
            for _ in range(6):
                with pytest.raises(Refused):
                    await get(path)
            with pytest.raises(Interrupted):
                await get(f"{path}?limit=7&continue=x")

    asyncio.run(requested())
    with pytest.raises(Refused):
        asyncio.run(listed(always(200, b'{"metadata": {}, "items": [], "versions": []}', "text/html"), path))


def test_what_is_not_http_is_requested_again() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        writer.close()

    async def body() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        opened = Sessions(Heartbeats(), unheard).open(kopf.ConnectionInfo(server=address)).aiohttp_session
        for path in (JOBS, f"{JOBS}?watch=true"):
            with pytest.raises(Refused):
                await opened.get(address + path)
        await opened.close()
        server.close()

    asyncio.run(body())


def test_refused_login_can_be_read() -> None:
    """Kopf logs in again: a token was rotated."""

    async def body() -> None:
        async with session(always(401, b"\xff\xfe"), Heartbeats()) as get:
            for path in (JOBS, f"{JOBS}?watch=true"):
                async with await get(path) as response:
                    assert (response.status, await response.json()) == (401, None)

    asyncio.run(body())


class Pages:
    """A list of objects that are as large as annotations allow."""

    def __init__(self, objects: int) -> None:
        self.objects, self.limits = objects, list[int]()

    async def handle(self, request: web.Request) -> web.Response:
        start, limit = int(request.query.get("continue", 0)), int(request.query["limit"])
        self.limits.append(limit)
        end = min(start + limit, self.objects)
        items = [{"metadata": {"name": f"r{number}", "annotations": {"x": "x" * 10_000}}} for number in range(start, end)]
        metadata = {"continue": str(end)} if end < self.objects else {}
        return web.json_response({"metadata": metadata, "items": items})


def test_page_that_is_too_large_is_requested_with_fewer_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tenant with large annotations keeps nobody from being watched, and memory is bounded."""
    monkeypatch.setattr(answers, "ANSWER_BYTES", 25_000)
    pages = Pages(20)

    async def body() -> list[str]:
        names, token = [], ""
        async with session(pages.handle, Heartbeats()) as get:
            while True:
                async with await get(f"{JOBS}?limit=16{token and f'&continue={token}'}") as response:
                    page = await response.json()
                names += [item["metadata"]["name"] for item in page["items"]]
                if not (token := page["metadata"].get("continue", "")):
                    return names

    assert asyncio.run(body()) == [f"r{number}" for number in range(20)]
    assert set(pages.limits) == {16, 8, 4, 2}


def test_each_request_is_a_sign_of_life_of_its_watches() -> None:
    """Also a list, and the discovery before it: an API server that refuses them is no reason for a restart."""
    seconds = [0.0]

    async def body() -> None:
        hearts = Heartbeats(lambda: seconds[0])
        names = [watch_name(path) for path in (JOBS, "/api/v1/configmaps")]
        for name in names:
            hearts.expect(name, 5)
        async with session(always(404, b""), hearts, "/clusters/one") as get:
            for path, late in ((JOBS, 1), (f"{JOBS}?watch=true", 1), ("/apis/batch/v1", 1), ("/apis", 1), ("/api", 0)):
                seconds[0] += 10
                assert len(hearts.late()) == 2
                with suppress(Refused):
                    await get(path)
                assert len(hearts.late()) == late, path

    asyncio.run(body())
