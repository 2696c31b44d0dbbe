"""The sweep comes in time, whatever hangs: the liveness probe hears of each."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from controller.cluster import KEY, NOW, Cluster, Process, run, until
from session_rollout.api.action import answer
from session_rollout.api.enums import ActionReason
from session_rollout.controller import inbox

DONE = answer(accepted=True, reason=ActionReason.ACCEPTED, message="done", now=NOW).to_wire()


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with one rollout."""
    cluster = Cluster()
    cluster.add_rollout()
    return cluster


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(inbox, "TIDY_SECONDS", 0.01)


def expired(cluster: Cluster, namespace: str, count: int) -> None:
    """Actions with a response, whose `ttl` is over."""
    for number in range(count):
        raw = cluster.add_action(f"{namespace}-{number}", "Pause", ttl="1m")
        raw["metadata"]["namespace"], raw["status"] = namespace, DONE


class Sweeps:
    """Counts the sweeps that were reported."""

    count = 0

    def swept(self) -> None:
        self.count += 1

    async def others(self) -> None:
        """Wait until a sweep began and ended after now."""
        before = self.count
        await until(lambda: self.count >= before + 2)


def test_deletions_that_hang_delay_neither_the_sweep_nor_another_namespace(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor are they requested again while they hang."""
    expired(cluster, "slow", 14)
    expired(cluster, KEY.namespace, 3)
    cluster.time += timedelta(hours=1)
    hanging: list[str] = []
    delete = cluster.delete_action

    async def body() -> None:
        released = asyncio.Event()

        async def hang(namespace: str, name: str, *, uid: str) -> None:
            if namespace == "slow":
                hanging.append(uid)
                await released.wait()
            await delete(namespace, name, uid=uid)

        monkeypatch.setattr(cluster, "delete_action", hang)
        sweeps = Sweeps()
        task = asyncio.create_task(Process(cluster).inbox.run(sweeps.swept))
        await sweeps.others()
        await until(lambda: len(cluster.action_objects) == 14)
        await sweeps.others()
        assert hanging == ["slow-0"]
        released.set()
        await until(lambda: not cluster.action_objects)
        task.cancel()

    run(body)


@pytest.mark.parametrize("call", ["actions", "listed", "documents"])
def test_list_that_hangs_is_given_up_and_the_sweep_is_reported(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A restart of the process would not help it."""
    monkeypatch.setattr(inbox, "LONGEST_SECONDS", 0.05)

    async def hang() -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(cluster, call, hang)

    async def body() -> None:
        sweeps = Sweeps()
        task = asyncio.create_task(Process(cluster).inbox.run(sweeps.swept))
        await sweeps.others()
        assert not task.done()
        task.cancel()

    run(body)


def test_late_rejection_does_not_reach_an_action_whose_rollout_exists_by_now(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would replace the response of its rollout."""
    raw = cluster.rollouts.pop(KEY)
    expired(cluster, KEY.namespace, 1)
    cluster.time += timedelta(hours=1)
    cluster.add_action("u1", "Pause")
    delete = cluster.delete_action

    async def body() -> None:
        released, process = asyncio.Event(), Process(cluster)

        async def hang(namespace: str, name: str, *, uid: str) -> None:
            await released.wait()
            await delete(namespace, name, uid=uid)

        monkeypatch.setattr(cluster, "delete_action", hang)
        await process.inbox.sweep()
        cluster.rollouts[KEY] = raw
        process.loops.rollout_changed(KEY, raw)
        await until(lambda: cluster.answers)
        released.set()
        await until(lambda: not process.inbox._tidying._tasks)
        assert [status.reason for _, status in cluster.answers] == [ActionReason.ACCEPTED]
        await process.loops.close()

    run(body)
