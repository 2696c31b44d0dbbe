"""A reverse proxy between operators and the API server that numbers every write and makes a planned one fail.

Each operator gets a port of its own, with plain HTTP; the proxy passes the operator's token to the real API server by TLS.
Writes are numbered from `arm` on, for each operator, namespace and kind of write. A `Fault` names one of them and what
happens to it, a `Refusal` refuses all of a kind, and `Turns` decides in which order the writes of two operators pass.
Watches pass through as streams; `disturb` ends or garbles the ones that are open.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Self

import aiohttp
from aiohttp import web

from lab.kube import Kube
from lab.processes import free_port

READS: Final = {"GET", "HEAD", "OPTIONS"}
HOP: Final = {"host", "connection", "transfer-encoding", "content-length", "keep-alive"}
HANG_SECONDS: Final = 30.0  # longer than any time limit of the operator
HANGS: Final = 0  # instead of a code: no answer comes
LATE_SECONDS: Final = 3.0
CLOSING_TURNS: Final = 10
TURN_SECONDS: Final = 8.0  # an operator that does not write in this time has nothing to write
REASONS: Final = {400: "BadRequest", 403: "Forbidden", 409: "Conflict", 422: "Invalid", 429: "TooManyRequests"}
HTML: Final = "<html><body><h1>Please sign in</h1></body></html>"
KINDS: Final = (
    ("lease", re.compile(r"/leases(/|$)")),
    ("status", re.compile(r"/sessionrollouts/[^/]+/status$")),
    ("finalizer", re.compile(r"/sessionrollouts/[^/]+$")),
    ("answer", re.compile(r"/sessionrolloutactions/[^/]+/status$")),
    ("action", re.compile(r"/sessionrolloutactions/[^/]+$")),
    ("document", re.compile(r"/configmaps/[^/]+-flags$")),
    ("record", re.compile(r"/configmaps")),
    ("event", re.compile(r"/events$")),
    ("job", re.compile(r"/jobs(/|$)")),
)
TURN_KINDS: Final = {"status", "document", "answer", "finalizer"}  # the kinds of writes whose order matters to users
Handler = Callable[[], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Fault:
    """What happens to one write: `do` is an HTTP code, or one of kill, reset, hang, html, late and freeze.

    Before: the API server does not get the write. After: it does, and the operator never sees the answer.
    """

    kind: str
    number: int
    when: str
    do: str

    def __str__(self) -> str:
        return f"{self.do} {self.when} {self.kind} {self.number}"


@dataclass
class Refusal:
    """Refuses every write of these kinds; an empty namespace means all of them."""

    kinds: frozenset[str]
    code: int
    namespace: str = ""
    count: int = 0

    def __call__(self, write: "Write") -> bool:
        return write.kind in self.kinds and self.namespace in {"", write.namespace}


@dataclass(frozen=True)
class Write:
    """One write as the log has it."""

    time: float
    operator: str
    namespace: str
    kind: str
    number: int
    method: str
    path: str


@dataclass
class Turns:
    """The order in which the writes of operators pass, one letter each. Who has nothing to write loses its turn."""

    order: deque[str]

    async def wait(self, operator: str) -> None:
        """Wait for the operator's turn, and take it."""
        deadline = time.monotonic() + TURN_SECONDS
        while self.order and self.order[0] != operator:
            if time.monotonic() > deadline:
                while self.order and self.order[0] != operator:
                    self.order.popleft()
            await asyncio.sleep(0.01)

    def done(self, operator: str) -> None:
        """The write has been answered."""
        if self.order and self.order[0] == operator:
            self.order.popleft()


@dataclass
class Place:
    """What is planned and counted for one operator in one namespace."""

    faults: list[Fault] = field(default_factory=list)
    fired: list[Fault] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class FaultProxy:
    """Runs in a thread of its own; use as a context manager."""

    def __init__(self, kube: Kube, log: Path) -> None:
        self._kube, self._log = kube, log
        self.pids: dict[str, int] = {}  # of each operator's process
        self.requests: Counter[tuple[str, str]] = Counter()  # by method and HTTP code
        self.late: list[int] = []  # answers to the writes that arrived late
        self._tasks: list[asyncio.Future[None]] = []
        self._places: dict[tuple[str, str], Place] = {}
        self._turns: dict[str, Turns] = {}
        self._refusals: list[Refusal] = []
        self._disturbances: dict[asyncio.Future[str], str] = {}  # open watches, and what they watch
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._sink: IO[str] = self._log.open("a")
        self._thread.start()
        self._runners: list[web.AppRunner] = []
        self._session: aiohttp.ClientSession = self._call(self._connect())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._sink.close()

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    async def _connect(self) -> aiohttp.ClientSession:
        trusted = ssl.create_default_context(cafile=str(self._kube.session.verify))
        connector = aiohttp.TCPConnector(ssl=trusted, limit=0)
        return aiohttp.ClientSession(connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None))

    async def _close(self) -> None:
        if self._session.connector is not None:
            await self._session.connector.close(abort_ssl=True)  # before the watches end: a handshake outlasts the loop
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for runner in self._runners:
            for connection in runner.server.connections if runner.server is not None else ():
                if connection.transport is not None:
                    connection.transport.abort()  # an operator that was frozen reads nothing any more
            await runner.cleanup()
        await self._session.close()
        for _ in range(CLOSING_TURNS):
            await asyncio.sleep(0)  # a transport is closed in a later turn of the loop than it was told to

    # --- what a test plans

    def listen(self, operator: str) -> str:
        """A URL for one more operator."""
        port = free_port()
        self._call(self._listen(operator, port))
        return f"http://127.0.0.1:{port}"

    async def _listen(self, operator: str, port: int) -> None:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._handle(operator, request)

        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self._runners.append(runner)

    def arm(self, operator: str, namespace: str, faults: Iterable[Fault] = (), order: str = "") -> None:
        """Number the writes from now on, and plan what happens to them."""
        self._places[operator, namespace] = Place(list(faults))
        if order:
            self._turns.setdefault(namespace, Turns(deque(order)))

    def counts(self, operator: str, namespace: str) -> Counter[str]:
        """Writes by kind since `arm`."""
        return self._place(operator, namespace).counts

    def fired(self, operator: str, namespace: str) -> list[Fault]:
        """Faults that happened since `arm`."""
        return self._place(operator, namespace).fired

    @contextlib.contextmanager
    def refuse(self, *kinds: str, code: int = 403, namespace: str = "") -> Iterator[Refusal]:
        """Refuse all writes of these kinds meanwhile, or with HANGS let them hang."""
        refusal = Refusal(frozenset(kinds), code, namespace)
        self._refusals.append(refusal)
        try:
            yield refusal
        finally:
            self._refusals.remove(refusal)

    def disturb(self, plural: str, do: str) -> int:
        """Do this to each open watch of a kind: cut, error or garbage, each of which ends it, or freeze; how many there were."""
        return int(self._call(self._disturb(plural, do)))

    async def _disturb(self, plural: str, do: str) -> int:
        chosen = [future for future, watched in self._disturbances.items() if watched == plural and not future.done()]
        for future in chosen:
            future.set_result(do)
        return len(chosen)

    # --- requests

    def _place(self, operator: str, namespace: str) -> Place:
        return self._places.setdefault((operator, namespace), Place())

    async def _handle(self, operator: str, request: web.Request) -> web.StreamResponse:
        if request.method in READS:
            return await (self._watch(request) if request.query.get("watch") in {"1", "true"} else self._forward(request, b""))
        pid = self.pids.get(operator, 0)  # of the process that sends it: it may be another one when the fault happens
        write, body = self._numbered(operator, request), await request.read()
        turns = self._turns.get(write.namespace) if write.kind in TURN_KINDS else None
        if turns is not None:
            await turns.wait(operator)
        try:
            return await self._write(write, pid, request, body)
        finally:
            if turns is not None:
                turns.done(operator)

    def _numbered(self, operator: str, request: web.Request) -> Write:
        kind = next((name for name, pattern in KINDS if pattern.search(request.path)), "other")
        match = re.search(r"/namespaces/([^/]+)/", request.path)
        namespace = match[1] if match else ""
        counts = self._place(operator, namespace).counts
        counts[kind] += 1
        return Write(time.time(), operator, namespace, kind, counts[kind], request.method, request.path)

    async def _write(self, write: Write, pid: int, request: web.Request, body: bytes) -> web.StreamResponse:
        for refusal in self._refusals:
            if refusal(write):
                refusal.count += 1
                self._record(write, refusal.code, "refused")
                if refusal.code == HANGS:
                    await asyncio.sleep(HANG_SECONDS)
                    return _closed(request)
                return _refused(refusal.code)
        place = self._place(write.operator, write.namespace)
        fault = next((each for each in place.faults if (each.kind, each.number) == (write.kind, write.number)), None)
        if fault is None:
            answer = await self._forward(request, body)
            self._record(write, answer.status, "")
            return answer
        place.faults.remove(fault)
        place.fired.append(fault)
        if write.namespace in self._turns:
            self._turns[write.namespace].order.clear()  # whoever waited for this fault continues
        code = 0 if fault.when == "before" else (await self._forward(request, body)).status
        self._record(write, code, str(fault))
        return await self._do(fault, pid, request, lambda: self._forward(request, body))

    async def _do(self, fault: Fault, pid: int, request: web.Request, forward: Handler) -> web.StreamResponse:
        match fault.do:
            case "kill":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            case "hang":
                await asyncio.sleep(HANG_SECONDS)
            case "html":
                return web.Response(text=HTML, content_type="text/html")
            case "late":
                self._tasks.append(asyncio.ensure_future(self._forward_late(forward)))
            case "freeze":
                return await self._freeze(pid, forward)
            case code if code.isdecimal():
                return _refused(int(code))
        return _closed(request)

    async def _forward_late(self, forward: Handler) -> None:
        await asyncio.sleep(LATE_SECONDS)
        self.late.append((await forward()).status)

    async def _freeze(self, pid: int, forward: Handler) -> web.StreamResponse:
        """The process stands still in the middle of its write; the answer waits for it."""
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(LATE_SECONDS)
            return await forward()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        async with self._upstream(request, body) as answer:
            self.requests[request.method, str(answer.status)] += 1
            return web.Response(body=await answer.read(), status=answer.status, headers=_kept(answer.headers))

    def _upstream(self, request: web.Request, body: bytes) -> Any:
        headers = _kept(request.headers)
        return self._session.request(request.method, self._kube.url + request.raw_path, headers=headers, data=body or None)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        disturbance = self._loop.create_future()
        self._disturbances[disturbance] = request.path.rsplit("/", 1)[-1]
        try:
            async with self._upstream(request, b"") as answer:
                response = web.StreamResponse(status=answer.status, headers=_kept(answer.headers))
                await response.prepare(request)
                with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                    await _stream(answer, response, disturbance)
                return response
        finally:
            del self._disturbances[disturbance]

    def _record(self, write: Write, code: int, fault: str) -> None:
        self._sink.write(json.dumps({**asdict(write), "code": code, "fault": fault}) + "\n")
        self._sink.flush()


async def _stream(answer: aiohttp.ClientResponse, response: web.StreamResponse, disturbance: asyncio.Future[str]) -> None:
    """Pass events on until the watch ends or is disturbed."""
    while not disturbance.done():
        chunk: asyncio.Future[Any] = asyncio.ensure_future(answer.content.readany())
        pair: list[asyncio.Future[Any]] = [chunk, disturbance]
        try:
            await asyncio.wait(pair, return_when=asyncio.FIRST_COMPLETED)
            if chunk.done():
                if not chunk.result():
                    return
                await response.write(chunk.result())
        finally:
            chunk.cancel()
    match disturbance.result():
        case "freeze":
            await asyncio.sleep(3600)
        case "garbage":
            await response.write(HTML.encode() + b"\n")
        case "error":
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500, "message": "a planned fault"}
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")


def _refused(code: int) -> web.Response:
    """As the API server refuses."""
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": REASONS.get(code, "InternalError"),
        "message": "a planned refusal",
    }
    return web.json_response(status, status=code, headers={"Retry-After": "1"} if code == 429 else {})


def _closed(request: web.Request) -> web.Response:
    """End the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _kept(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in HOP}
