"""Replicas that want the Lease of an API server in memory, on a clock that tests move."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.api import Api
from session_rollout.adapters import lease
from session_rollout.adapters.lease import Lease

PATH = "/apis/coordination.k8s.io/v1/namespaces/ops/leases/session-rollout"
NOW = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)


class Clock:
    """The wall clock of all nodes, and the monotonic one of this process."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


def moved(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that tests move, by which the Lease goes; retries come at once."""
    clock = Clock()
    monkeypatch.setattr(lease, "time", clock)
    monkeypatch.setattr(lease, "RETRY_SECONDS", 0)
    return clock


def replica(api: Api, clock: Clock, name: str = "a") -> Lease:
    return Lease(api, "ops", "session-rollout", name, clock)


def spec(api: Api) -> dict[str, Any]:
    return dict(api.objects[PATH]["spec"])


def acquires(process: Lease) -> bool:
    """Whether it gets the Lease at its first attempt."""
    return asyncio.run(process._try())


def led(api: Api, clock: Clock, namespaces: tuple[str, ...] = ()) -> Lease:
    """A replica that leads, and has evaluated every rollout."""
    leader = Lease(api, "ops", "session-rollout", "a", clock, namespaces)
    assert acquires(leader)
    asyncio.run(leader.accounted())
    return leader
