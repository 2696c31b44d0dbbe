"""Heartbeats: what must happen again and again in this process, and whether it does.

The liveness probe reads them: a loop that hangs raises nothing. A loop whose work fails still beats, because a restart would not
help it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import aiohttp
import kopf

SILENT_SECONDS: Final = 70.0  # after which Kopf requests a silent watch again
WATCH_SECONDS: Final = 240  # after which the API server ends a watch, and Kopf requests it again
WATCH_LIMIT: Final = WATCH_SECONDS + 2 * SILENT_SECONDS


@dataclass
class Heart:
    """One activity."""

    limit: float
    last: float


class Heartbeats:
    """All activities of the process, by name."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._hearts: dict[str, Heart] = {}

    def expect(self, name: str, limit: float) -> None:
        """From now on this activity beats at least every `limit` seconds."""
        self._hearts[name] = Heart(limit, self._monotonic())

    def end(self, name: str) -> None:
        """The activity is over."""
        self._hearts.pop(name, None)

    def beat(self, name: str) -> None:
        """The activity is alive."""
        if name in self._hearts:
            self._hearts[name].last = self._monotonic()

    def late(self) -> tuple[str, ...]:
        """Activities that did not beat in time, each with the seconds since it last did."""
        now = self._monotonic()
        ages = ((name, now - heart.last, heart.limit) for name, heart in self._hearts.items())
        return tuple(f"{name} ({age:.0f} s)" for name, age, limit in ages if age > limit)


def watch_name(path: str) -> str:
    """Name of the activity of a watch."""
    return f"watch of {path}"


def watching_session(info: kopf.ConnectionInfo, hearts: Heartbeats) -> kopf.AiohttpSession:
    """A session for Kopf in which each request of a watch is a beat.

    A watch that delivers nothing may be idle or dead, and Kopf does not tell. But it requests each watch again when the API server
    ends it or when it was silent for too long, so the age of the last request says whether its task is alive.
    """

    async def started(_: aiohttp.ClientSession, __: object, request: aiohttp.TraceRequestStartParams) -> None:
        if "watch" in request.url.query:
            hearts.beat(watch_name(request.url.path))

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(started)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers=info.as_http_headers(),
        trace_configs=[trace],
    )
    fields = {name: getattr(info, name) for name in ("server", "default_namespace", "priority", "expiration")}
    return kopf.AiohttpSession(aiohttp_session=session, **fields)
