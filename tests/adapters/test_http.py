"""The operator's HTTP port: what the kubelet and Prometheus are answered."""

import asyncio

import aiohttp
import pytest

from session_rollout.adapters.http import Health, HttpServer

OK = Health(healthy=True, message="ok")


async def answers(live: Health, ready: Health) -> dict[str, tuple[int, str]]:
    server = HttpServer(lambda: live, lambda: ready)
    await server.start("127.0.0.1", 0)
    try:
        host, port = server._runner.addresses[0]
        async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
            responses = {}
            for path in ("healthz", "readyz", "metrics"):
                async with session.get(f"/{path}") as response:
                    responses[path] = response.status, await response.text()
            return responses
    finally:
        await server.close()


@pytest.mark.parametrize(("health", "status"), [(OK, 200), (Health(healthy=False, message="2 rollouts are overdue"), 503)])
def test_a_probe_answers_with_its_reason(health: Health, status: int) -> None:
    assert asyncio.run(answers(health, OK))["healthz"] == (status, health.message)
    assert asyncio.run(answers(OK, health))["readyz"] == (status, health.message)


def test_metrics_are_in_the_format_of_prometheus() -> None:
    status, text = asyncio.run(answers(OK, OK))["metrics"]
    assert status == 200
    assert "# TYPE process_resident_memory_bytes gauge" in text
