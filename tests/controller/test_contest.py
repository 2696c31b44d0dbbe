"""Two operators that both lead, each with a Lease of its own: two releases that watch the same namespace.

Not here: what one leader does with the status of another for a moment (test_restored), and two that are configured alike
against a real API server (tests/integration/test_faults).
"""

import asyncio
import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from controller.cluster import KEY, NOW, Cluster, Process, run, until
from session_rollout.api.enums import CheckReason, DecisionReason, Outcome, State, Verdict
from session_rollout.api.metrics import Metric
from session_rollout.controller import contest
from session_rollout.core.documents import read_document
from session_rollout.core.observed import Measurement
from session_rollout.ports import Ports

GUARD = {"name": "errors", "metric": "errors", "below": "5%", "for": "30s"}
TURN = timedelta(milliseconds=250)  # two writes of each operator in a second, as measured


class Elsewhere:
    """The same cluster for an operator whose configuration lacks the provider, or answers otherwise."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)

    def ports(self) -> Ports:
        """Those of the cluster, with metrics of its own."""
        return replace(self._cluster.ports(), metrics=self)  # type: ignore[arg-type]

    def measurements(
        self, _provider: str, metrics: tuple[Metric, ...], _max_age: timedelta, _wake: Callable[[], None]
    ) -> Mapping[str, Measurement]:
        """No provider of this name."""
        known = {"problem": Verdict.PROVIDER_ERROR, "reason": CheckReason.UNKNOWN_PROVIDER, "message": "unknown"}
        return {metric.name: Measurement(self._cluster.time, **known) for metric in metrics}  # type: ignore[arg-type]


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with one rollout, whose guard needs half a minute to roll it back."""
    cluster = Cluster()
    cluster.add_rollout(guards=[GUARD])
    return cluster


async def turns(cluster: Cluster, seconds: float, *processes: Process) -> None:
    """Each process decides in turn, as the watch wakes it after the write of the other."""
    for _ in range(round(seconds / TURN.total_seconds())):
        for process in processes:
            await process.reconcile()
            cluster.time += TURN / len(processes)


def two(cluster: Cluster) -> tuple[Process, Process]:
    """The operator, and another one without the provider."""
    return Process(cluster), Process(Elsewhere(cluster))  # type: ignore[arg-type]


def refused(cluster: Cluster) -> list[str]:
    return [refusal.effect for refusal in cluster.status.refusals]


def test_other_operator_is_noticed(cluster: Cluster) -> None:
    """The rollout stalls, and its status says why, whoever of the two wrote it last."""

    async def body() -> None:
        one, other = two(cluster)
        await one.settle()
        await turns(cluster, 20, one, other)
        for process in (one, other):
            await process.reconcile()
            status = cluster.status
            assert refused(cluster) == ["StatusContested"]
            assert (status.state, status.decision.reason) == (State.STALLED, DecisionReason.INVALID_SPEC)
            assert "another operator" in status.decision.message
            assert "`namespaces`" in status.decision.next_actions[0]

    run(body)


def test_guard_rolls_back_after_its_time(cluster: Cluster) -> None:
    """The other operator has no verdict of it, and writes that each time."""

    async def body() -> None:
        one, other = two(cluster)
        await one.settle()
        await turns(cluster, 5, one, other)
        cluster.values["errors"] = Decimal("0.5")
        await turns(cluster, 28, one, other)
        assert cluster.status.outcome is None
        assert read_document(cluster.text).gives_something
        await turns(cluster, 6, one, other)
        assert not read_document(cluster.text).gives_something
        assert cluster.status.current.rollback_guard == "errors"
        await turns(cluster, 5, one, other)
        assert cluster.status.outcome is Outcome.ROLLED_BACK

    run(body)


def test_guard_rolls_back_although_the_clock_of_the_other_is_behind(cluster: Cluster) -> None:
    """Its status looks like a backup."""

    async def body() -> None:
        one, other = two(cluster)
        await one.settle()
        cluster.values["errors"] = Decimal("0.5")
        for _ in range(160):
            await one.reconcile()
            cluster.time -= TURN / 2
            await other.reconcile()
            cluster.time += TURN / 2 + TURN
        assert not read_document(cluster.text).gives_something

    run(body)


def test_it_ends_a_minute_after_the_last_write_of_the_other(cluster: Cluster) -> None:
    async def body() -> None:
        one, other = two(cluster)
        await one.settle()
        await turns(cluster, 20, one, other)
        await turns(cluster, 50, one)
        assert refused(cluster) == ["StatusContested"]
        await turns(cluster, 15, one)
        assert refused(cluster) == []
        assert cluster.status.state is not State.STALLED

    run(body)


def test_operators_that_are_configured_alike_agree(cluster: Cluster) -> None:
    """Each writes what the other would have: there is no contest, and the rollout advances."""

    async def body() -> None:
        one, other = Process(cluster), Process(cluster)
        await one.settle()
        for second in range(40):
            cluster.values["errors"] = Decimal("0.03") if second % 20 == 0 else Decimal("0.001")
            await turns(cluster, 1, one, other)
            assert refused(cluster) == []
        assert not one.state.contest.suspected

    run(body)


def test_takeover_is_no_contest(cluster: Cluster) -> None:
    """The earlier leader, also one that knows nothing of its end for as long as its Lease lasts."""

    async def body() -> None:
        earlier, later = two(cluster)
        await earlier.settle()
        await turns(cluster, 10, earlier, later)
        await turns(cluster, 30, later)
        assert refused(cluster) == []
        assert not later.state.contest.contested

    run(body)


def test_one_status_by_another_client_is_no_contest(cluster: Cluster) -> None:
    """A person who edits the status again and again is corrected each time."""

    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        before = copy.deepcopy(cluster.rollouts[KEY]["status"])
        cluster.values["errors"] = Decimal("0.03")
        for _ in range(10):
            cluster.time += timedelta(seconds=10)
            await process.settle()
            cluster.rollouts[KEY]["status"] = before | {"lastUpdateTime": cluster.time.isoformat()}
            await process.settle()
        assert refused(cluster) == []

    run(body)


def test_contested_status_does_not_wake_the_loop_at_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write would wake both, eight times in a second, for ever. A change of anything else does."""
    monkeypatch.setattr(contest, "WAKE_SECONDS", 0.05)

    async def body() -> None:
        process = Process(cluster)
        raw = cluster.rollouts[KEY]
        process.loops.rollout_changed(KEY, copy.deepcopy(raw))
        await until(lambda: cluster.status.current.hold_until)
        state = process.state
        state.contest.contested = True
        state.wake = asyncio.Event()  # of which the loop knows nothing
        for _ in range(3):
            process.loops.rollout_changed(KEY, copy.deepcopy(raw))
        assert not state.wake.is_set()
        await until(state.wake.is_set)
        for changes in ({"generation": 2}, {"deletionTimestamp": NOW.isoformat()}):
            state.wake.clear()
            raw["metadata"] |= changes
            process.loops.rollout_changed(KEY, copy.deepcopy(raw))
            assert state.wake.is_set()
        await process.loops.close()

    run(body)
