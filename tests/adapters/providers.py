"""Providers as tests need them: one that says what it is told, one that never finishes, and a source that asks them.

Fakes on purpose: these are the edge cases of one HTTP client. A real Prometheus is queried in the integration tests.
"""

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from session_rollout.adapters.clock import WallClock
from session_rollout.adapters.prometheus import PrometheusSource
from session_rollout.api.metrics import Metric
from session_rollout.core.observed import Measurement
from session_rollout.settings import Provider

MINUTE = timedelta(minutes=1)
FOREVER = "60s"  # a time limit that no test reaches


def vector(*values: str, at: float = 0.0, **beside: Any) -> bytes:
    """A success of Prometheus with one series a value; `at` is how far the time of its samples is from now."""
    result = [{"metric": {"n": str(n)}, "value": [time.time() + at, value]} for n, value in enumerate(values)]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}, **beside}).encode()


def bad(text: str) -> bytes:
    """A refusal of Prometheus."""
    return json.dumps({"status": "error", "errorType": "bad_data", "error": text}).encode()


class Answers(ThreadingHTTPServer):
    """Says what it is told, and counts."""

    code, body = 200, b""
    date: float | None = 0.0  # how far the provider's clock is ahead of ours; None without the header
    cached: str | None = None  # a `Date` that a cache keeps

    def __init__(self, handler: type["Handler"]) -> None:
        self.released = threading.Event()
        self.released.set()
        self.fast = threading.Event()  # otherwise the body takes 20 ms a byte
        self.fast.set()
        self.prompt: set[str] = set()  # queries that do not wait for `released`
        self.asked: list[str] = []
        self.bodies: dict[str, bytes] = {}  # by query; `body` for others
        self.sent: list[dict[str, str]] = []
        self.targets: list[str] = []  # path and parameters of each request
        self.clients: list[tuple[str, int]] = []  # of each request
        self.fields: dict[str, str] = {}
        super().__init__(("127.0.0.1", 0), handler)


class Handler(BaseHTTPRequestHandler):
    server: Answers

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        query = parse_qs(urlsplit(self.path).query).get("query", [""])[0]
        body = server.bodies.get(query, server.body)
        server.asked.append(query)
        server.sent.append(dict(self.headers))
        server.targets.append(self.path)
        server.clients.append(self.client_address)
        if query not in server.prompt:
            server.released.wait(30)
        self.send_response_only(server.code)
        if server.date is not None:
            self.send_header("Date", server.cached or formatdate(time.time() + server.date, usegmt=True))
        for name, value in server.fields.items():
            self.send_header(name, value)
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        parts = [body] if server.fast.is_set() else [bytes([byte]) for byte in body]
        with suppress(OSError):  # nobody waits for it any more
            for part in parts:
                self.wfile.write(part)
                server.fast.wait(0.02)


@contextmanager
def answering(context: ssl.SSLContext | None = None, handler: type[Handler] = Handler) -> Iterator[Answers]:
    """A running provider, with TLS if there is a context."""
    server = Answers(handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.fast.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Trickle:
    """Accepts, reads the request, sends a beginning, and then one byte every 20 ms, without end."""

    def __init__(self, beginning: bytes, byte: bytes) -> None:
        self.beginning, self.byte = beginning, byte
        self.ended, self.accepted = threading.Event(), threading.Semaphore(0)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listening.getsockname()[1])
        self.threads = [threading.Thread(target=self.accept)]

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listening.accept()
                self.threads.append(threading.Thread(target=self.send, args=(connection,)))
                self.threads[-1].start()

    def send(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(4096)
            self.accepted.release()
            connection.sendall(self.beginning)
            while not self.ended.wait(0.02):
                connection.sendall(self.byte)


@contextmanager
def trickling(beginning: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", byte: bytes = b" ") -> Iterator[Trickle]:
    """A running provider that never finishes."""
    server = Trickle(beginning, byte)
    server.threads[0].start()
    try:
        yield server
    finally:
        server.ended.set()
        server.listening.shutdown(socket.SHUT_RDWR)
        server.listening.close()
        for thread in server.threads:
            thread.join()


MADE: list[PrometheusSource] = []
Result = TypeVar("Result")


def source(port: int, scheme: str = "http", host: str = "127.0.0.1", **fields: Any) -> PrometheusSource:
    """A source with one provider called `default`; `run` closes it."""
    provider = Provider(url=f"{scheme}://{host}:{port}", **{"timeout": FOREVER, **fields})
    MADE.append(PrometheusSource({"default": provider}, WallClock(), 4))
    return MADE[-1]


def run(body: Coroutine[Any, Any, Result]) -> Result:
    """Run a test's coroutine, and close the sources that it made."""

    async def closed() -> Result:
        try:
            return await body
        finally:
            while MADE:
                MADE.pop().close()

    return asyncio.run(closed())


async def measured(metrics: PrometheusSource, metric: Metric | None = None) -> Measurement:
    """Query, wait to be woken, and take the result."""
    metric, woken = metric or Metric(name="m", query="up"), asyncio.Event()
    while "m" not in (results := metrics.measurements("default", (metric,), MINUTE, woken.set)):
        await asyncio.wait_for(woken.wait(), 60)
        woken.clear()
    return results["m"]


def measure(port: int, metric: Metric | None = None, scheme: str = "http", **fields: Any) -> Measurement:
    """The first result of a new source."""

    async def first() -> Measurement:
        return await measured(source(port, scheme, **fields), metric)

    return run(first())


def success(data: Any) -> bytes:
    return json.dumps({"status": "success", "data": data}).encode()
