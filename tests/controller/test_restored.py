"""A status that this process has not written: from a backup, or from another object."""

import copy
from datetime import timedelta
from decimal import Decimal

import pytest

from controller.cluster import KEY, Cluster, Process, run


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with one rollout."""
    cluster = Cluster()
    cluster.add_rollout()
    return cluster


def test_status_from_a_backup_restarts_the_hold(cluster: Cluster) -> None:
    """Nobody knows what was evaluated since the backup, and the hold of then would be over."""

    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        before = cluster.status.current.hold_until
        assert before is not None
        cluster.rollouts[KEY]["status"]["current"]["holdUntil"] = (before - timedelta(hours=1)).isoformat()
        await process.settle()
        assert cluster.status.current.hold_until == before  # a whole hold from now
        cluster.time += timedelta(seconds=50)
        process.state.last_reconcile = cluster.now() - timedelta(seconds=45)
        await process.settle()
        after = cluster.status.current.hold_until
        assert after == before + timedelta(seconds=45), "a restored status is over once it was evaluated"

    run(body)


def test_status_of_another_object_restarts_the_hold(cluster: Cluster) -> None:
    """A backup is restored with its status into a new object, as Velero can: it was written before this object existed."""

    async def body() -> None:
        await Process(cluster).settle()
        cluster.time += timedelta(minutes=5)
        cluster.rollouts[KEY]["metadata"] |= {"uid": "uid-2", "creationTimestamp": cluster.time.isoformat()}
        process = Process(cluster)
        process.downtime.begin(lambda *_: cluster.time, [KEY])
        await process.settle()
        assert cluster.status.current.hold_until == cluster.time + timedelta(minutes=1)

    run(body)


def test_status_of_another_leader_is_no_backup(cluster: Cluster) -> None:
    """It is newer. Two leaders for a moment must not restart each other's hold for ever."""

    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        before = cluster.status.current.hold_until
        assert before is not None
        after = before + timedelta(seconds=30)
        cluster.time += timedelta(seconds=30)
        process.state.last_reconcile = cluster.now()
        status = cluster.rollouts[KEY]["status"]
        status["current"]["holdUntil"] = status["lastUpdateTime"] = after.isoformat()
        await process.settle()
        assert cluster.status.current.hold_until == after

    run(body)


def test_pause_that_a_backup_has_not_restarts_the_hold(cluster: Cluster) -> None:
    """The time of the pause would count."""

    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        backup = copy.deepcopy(cluster.rollouts[KEY]["status"])
        cluster.add_action("u1", "Pause", reason="drill")
        process.watch_actions()
        await process.settle()
        assert cluster.status.current.hold_paused_time is not None
        cluster.time += timedelta(seconds=50)
        cluster.rollouts[KEY]["status"] = backup
        cluster.action_objects.clear()
        await process.settle()
        assert cluster.status.current.hold_until == cluster.time + timedelta(minutes=1)

    run(body)


def test_backup_of_the_same_hold_restarts_it(cluster: Cluster) -> None:
    """What failed since the backup is not in it."""

    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        before, backup = cluster.status.current.hold_until, copy.deepcopy(cluster.rollouts[KEY]["status"])
        assert before is not None
        cluster.values["errors"] = Decimal("0.03")
        cluster.time += timedelta(seconds=40)
        process.state.last_reconcile = cluster.now()
        await process.settle()
        cluster.rollouts[KEY]["status"] = backup
        cluster.values["errors"] = Decimal("0.001")
        await process.settle()
        assert cluster.status.current.hold_until == cluster.time + timedelta(minutes=1)

    run(body)
