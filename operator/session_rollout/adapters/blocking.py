"""HTTP requests with `requests`, which blocks: what a session must not do by itself, and calls that end at their time limit.

`requests` limits each wait for a byte and not the whole answer, and nothing limits the wait for a name server. So a call runs in a
thread of its own, and its socket is shut down from outside. Threads are daemons: the exit of the process joins those of an executor.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Generic, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

Result = TypeVar("Result")


class Call(threading.Thread, Generic[Result]):
    """A function in a daemon thread. Anybody may end it; only a thread that waits for a name server does not end at once."""

    def __init__(self, function: Callable[[], Result], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._function = function
        self._future: Future[Result] = Future()
        self._lock = threading.Lock()  # a descriptor that is closed elsewhere could be that of another connection by now
        self._handle: socket.socket | None = None
        self._ended = False

    def run(self) -> None:
        """Call the function, and pass on what it returns or raises."""
        self._future.set_running_or_notify_cancel()
        try:
            result = self._released()
        except BaseException as error:  # noqa: BLE001 - raised again where the result is awaited
            self._future.set_exception(error)
        else:
            self._future.set_result(result)

    async def result(self, seconds: float) -> Result:
        """Start, and wait. Raises TimeoutError after so many seconds, and what the function raises."""
        self.start()
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(self._future)
        finally:
            self.end()

    def end(self) -> None:
        """Let the function fail, now or when it connects. Does not wait, and changes nothing after the function returned."""
        with self._lock:
            self._ended = True
            self._shut_down()

    def hold(self, connection: socket.socket) -> None:
        """Keep a handle on the connection that the function uses: a duplicate, because TLS takes the descriptor of a socket over."""
        with self._lock:
            if self._handle is None:
                self._handle = socket.fromfd(connection.fileno(), connection.family, connection.type)
            if self._ended:
                self._shut_down()

    def _released(self) -> Result:
        """What the function returns, when its connection is free for another call."""
        try:
            return self._function()
        finally:
            with self._lock:
                if self._handle is not None:
                    self._handle.close()

    def _shut_down(self) -> None:
        if self._handle is not None:
            with contextlib.suppress(OSError):  # closed, or not connected any more
                self._handle.shutdown(socket.SHUT_RDWR)


def _hold(connection: socket.socket) -> None:
    call = threading.current_thread()
    if isinstance(call, Call):
        call.hold(connection)


class _Connection(HTTPConnection):
    """Gives its socket to the call that uses it: before TLS when it is new, else before the request."""

    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        _hold(connection)
        return connection

    def putrequest(self, *arguments: Any, **options: Any) -> None:
        if self.sock is not None:
            _hold(self.sock)
        super().putrequest(*arguments, **options)


class _TlsConnection(_Connection, HTTPSConnection):
    """The same with TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class EndableAdapter(HTTPAdapter):
    """Connections of a session of `requests` that end with the call that uses them."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """See HTTPAdapter."""
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


class PlainSession(requests.Session):
    """Follows no redirect, trusts no environment, keeps no cookie, and reads no body by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        adapter = EndableAdapter()
        for prefix in ("http://", "https://"):
            self.mount(prefix, adapter)

    def request(self, *arguments: Any, **options: Any) -> requests.Response:
        """One request, whose body is read by the caller."""
        return super().request(*arguments, **{**options, "stream": True, "allow_redirects": False})

    def get_redirect_target(self, _: requests.Response) -> None:
        """None: even a redirect that is not followed would be prepared: its body is read, and its address may be anything."""
