"""The operator's HTTP port: `/metrics` for Prometheus, `/healthz` and `/readyz` for the kubelet."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


@dataclass(frozen=True)
class Health:
    """The response to a probe."""

    healthy: bool
    message: str


Probe = Callable[[], Health]
UNHEALTHY: Final = 503


CLOSE_SECONDS: Final = 0.5  # for responses that are under way when the process ends


class HttpServer:
    """The HTTP server of the operator. It runs even while this replica waits for the Lease, because probes must succeed then."""

    def __init__(self, live: Probe, ready: Probe) -> None:
        application = web.Application()
        application.router.add_get("/metrics", _metrics)
        application.router.add_get("/healthz", _answers(live))
        application.router.add_get("/readyz", _answers(ready))
        self._runner = web.AppRunner(application, shutdown_timeout=CLOSE_SECONDS)

    async def start(self, host: str | None, port: int) -> None:
        """Listen on `host`, or on every address if it is None."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()

    async def close(self) -> None:
        """Stop listening and close open connections."""
        await self._runner.cleanup()


def _answers(probe: Probe) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(_: web.Request) -> web.Response:
        health = probe()
        return web.Response(text=health.message, status=200 if health.healthy else UNHEALTHY)

    return handle


async def _metrics(_: web.Request) -> web.Response:
    # In a thread: a thousand rollouts have so many series that rendering them would delay decisions.
    text = await asyncio.to_thread(generate_latest)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})
