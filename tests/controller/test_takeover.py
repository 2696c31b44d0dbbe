"""What becomes of holds and failures when another process leads: time that nobody evaluated never counts, and is left out once.

Not here: who leads, and what the Lease says (tests/adapters). Random lives with crashes are in tests/core/model.
"""

import copy
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import pytest

from controller.cluster import KEY, Cluster, run
from controller.leading import Leader, leading
from session_rollout.adapters import lease as lease_module
from session_rollout.api.enums import CheckReason, Verdict
from session_rollout.controller import state as state_module
from session_rollout.core.observed import Measurement
from session_rollout.errors import Forbidden, Unavailable
from session_rollout.ports import Key

OTHER: Final = Key("default", "other")
LASTING: Final = {"name": "errors", "metric": "errors", "below": "5%", "for": "10m"}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """One rollout, whose first step is held for a minute. The Lease goes by the time of the cluster."""
    cluster = Cluster()
    cluster.add_rollout()
    for module in (lease_module, state_module):
        monkeypatch.setattr(module, "time", cluster)
    monkeypatch.setattr(lease_module, "RETRY_SECONDS", 0)
    return cluster


def is_held(cluster: Cluster) -> bool:
    """Whether users still have what the first step gave them."""
    return cluster.status.current.percent == "10"


@pytest.mark.parametrize("what", ["its document", "the rollout", "an exception"])
@pytest.mark.parametrize("crash", [True, False], ids=["another leader", "the same leader"])
def test_time_in_which_a_rollout_could_not_be_evaluated(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, what: str, *, crash: bool
) -> None:
    """The leader renews the Lease all the while, and evaluates others."""

    async def fails(*_: Any) -> None:
        raise ValueError("nobody foresaw it") if what == "an exception" else Unavailable("down")

    async def body() -> None:
        leader = await leading(cluster)
        with monkeypatch.context() as broken:
            if what == "its document":
                broken.setattr(leader.process.reconciler._decisions._gatherer._documents, "read", fails)
                leader.process.state.forget_document()
            else:
                broken.setattr(cluster, "read", fails)
            await leader.run(600)
        leader = await leader.crash() if crash else leader
        await leader.settle()
        assert is_held(cluster)

    run(body)


def test_loop_that_hung(cluster: Cluster) -> None:
    """For less than what is reported as overdue, and for longer than the hold."""

    async def body() -> None:
        leader = await leading(cluster)
        cluster.time += timedelta(seconds=70)
        await leader.renew()
        await (await leader.crash(2)).settle()
        assert is_held(cluster)

    run(body)


def test_leader_that_cannot_list_accounts_for_nothing(cluster: Cluster) -> None:
    """It starts no loop, and the next leader knows since when nobody evaluated anything."""

    async def body() -> None:
        leader = await leading(cluster)
        blind = await leader.crash(existing=None)
        await blind.run(600)
        await (await blind.crash()).settle()
        assert is_held(cluster)

    run(body)


@pytest.mark.parametrize("crashes", [0, 1, 3])
def test_an_absence_is_left_out_once(cluster: Cluster, crashes: int) -> None:
    """Each process writes the status, and ends before the Lease says so."""
    cluster.add_rollout(guards=[LASTING])

    async def body() -> None:
        leader = await leading(cluster)
        began, cluster.values["errors"] = cluster.time, Decimal("0.5")
        await leader.run(550)
        cluster.time += timedelta(minutes=5)
        for _ in range(crashes):
            leader = await leader.crash()
            for _ in range(3):
                await leader.process.reconcile()
            cluster.time += timedelta(seconds=10)
        leader = await leader.crash()
        await leader.settle()
        while cluster.status.current.stage == "Step":
            await leader.run(10)
        assert timedelta(minutes=15) <= cluster.time - began <= timedelta(minutes=15, seconds=40)

    run(body)


@pytest.mark.parametrize("refused", [True, False])
def test_rollout_whose_status_is_refused_blinds_no_other(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, *, refused: bool
) -> None:
    """A leader changes every five minutes, and one rollout never takes an absence into account."""
    cluster.add_rollout(guards=[LASTING])
    other = copy.deepcopy(cluster.rollouts[KEY])
    other["metadata"] |= {"name": OTHER.name, "uid": "uid-2"}
    other["spec"]["flagSet"] = OTHER.name
    cluster.rollouts[OTHER] = other
    write = cluster.write_status

    async def write_status(stored: Any, status: Any, **more: Any) -> Any:
        if refused and stored.key == OTHER:
            raise Forbidden("a policy of that team refuses it")
        return await write(stored, status, **more)

    monkeypatch.setattr(cluster, "write_status", write_status)

    async def body() -> None:
        leader = await leading(cluster, (KEY, OTHER))
        began, cluster.values["errors"] = cluster.time, Decimal("0.5")
        for _ in range(3):
            await leader.run(290)
            if cluster.status.current.stage != "Step":
                break
            leader = await leader.crash(5, (KEY, OTHER))
        assert cluster.status.current.stage != "Step", cluster.time - began

    run(body)


def test_deadline_counts_an_absence_once(cluster: Cluster) -> None:
    """What a Lease says of a time before the last write of the status was taken into account by it."""
    phases = copy.deepcopy(cluster.rollouts[KEY]["spec"]["phases"])
    cluster.add_rollout(phases=[{**phase, "deadline": "10m", "onDeadline": "Rollback"} for phase in phases], guards=[])

    async def body() -> None:
        leader = await leading(cluster)
        cluster.values["errors"] = Decimal("0.03")
        await leader.run(550)
        leader.lease.unled.since = cluster.time - timedelta(minutes=12)
        await leader.renew()
        leader = await leader.crash()
        await leader.run(600)
        assert cluster.status.outcome is not None

    run(body)


@pytest.mark.parametrize("crash", [True, False])
def test_unknown_time_after_a_pause_that_is_stored(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, *, crash: bool) -> None:
    """A guard and a criterion fail while the timer is paused and no status can be written."""
    cluster.add_rollout(guards=[LASTING])
    measurements = cluster.measurements

    def without_load(*arguments: Any) -> dict[str, Measurement]:
        empty = Measurement(cluster.time, problem=Verdict.NO_DATA, reason=CheckReason.EMPTY_RESULT, message="no data")
        return {**measurements(*arguments), "load": empty}

    async def body() -> None:
        leader = await leading(cluster)
        await leader.run(40)
        with monkeypatch.context() as lacking:
            lacking.setattr(cluster, "measurements", without_load)
            await leader.run(5, 5)
        assert cluster.status.current.hold_paused_time is not None
        cluster.failures["write_status"] = [Unavailable("down")] * 100
        cluster.values["errors"] = Decimal("0.5")
        await leader.run(30)
        failed, cluster.values["errors"] = cluster.time, Decimal("0.001")
        await leader.run(10)
        cluster.failures.clear()
        leader = await leader.crash() if crash else leader
        await leader.settle()
        while is_held(cluster):
            await leader.run(5, 5)
        assert cluster.time - failed >= timedelta(minutes=1)

    run(body)


@pytest.mark.parametrize("refused", [True, False])
def test_object_that_cannot_be_parsed_and_whose_status_is_refused(cluster: Cluster, *, refused: bool) -> None:
    """Nothing has paused its hold."""

    async def body() -> None:
        leader = await leading(cluster)
        spec = copy.deepcopy(cluster.rollouts[KEY]["spec"])
        cluster.rollouts[KEY]["spec"]["newField"] = 1
        cluster.failures["write_status"] = [Unavailable("down")] * (1000 if refused else 0)
        leader = await leader.crash()
        await leader.run(600)
        cluster.failures.clear()
        cluster.rollouts[KEY]["spec"] = spec
        await (await leader.crash()).settle()
        assert is_held(cluster)

    run(body)


@pytest.mark.parametrize("when", ["it leads", "results are on their way", "nobody leads"])
def test_status_of_a_backup(cluster: Cluster, when: str) -> None:
    """It was paused since: the hold of the backup would be over."""

    async def body() -> None:
        leader = await leading(cluster)
        backup = copy.deepcopy(cluster.rollouts[KEY]["status"])
        cluster.add_action("u1", "Pause", reason="drill")
        leader.process.watch_actions()
        await leader.run(600)
        assert cluster.status.paused_by
        cluster.action_objects.clear()
        raw, values = cluster.rollouts[KEY], dict(cluster.values)
        raw["status"], raw["metadata"]["resourceVersion"] = backup, str(int(raw["metadata"]["resourceVersion"]) + 1)
        raw["metadata"]["managedFields"] = [
            {"manager": "session-rollout", "subresource": "status", "time": "2026-01-05T10:00:00Z"},
            {"manager": "kubectl-replace", "subresource": "status", "time": "2026-01-05T10:00:00Z"},
        ]
        if when == "results are on their way":
            cluster.values.clear()
            await leader.run(2, 1)
            cluster.values |= values
        leader = leader if when == "it leads" else await leader.crash()
        await leader.settle()
        assert is_held(cluster)

    run(body)


def test_clock_that_was_ahead_for_one_leader(cluster: Cluster) -> None:
    """Its hold began two hours later than it should, and would end as much later."""
    steps = [{"percent": 10, "hold": "600s"}, {"percent": 100, "hold": "600s"}]
    criterion = {"name": "errors", "metric": "errors", "below": "1%"}
    phase = {"name": "one", "features": ["alpha"], "steps": steps, "criteria": [criterion]}
    cluster.add_rollout(phases=[phase], features=[{"name": "alpha"}])

    async def body() -> None:
        leader = await leading(cluster)
        await leader.run(200)
        for hours in (2, -2):
            leader = await leader.crash(3600 * hours)
            await leader.settle()
            await leader.run(100)
        assert cluster.status.current.hold_until is not None
        assert cluster.status.current.hold_until - cluster.time <= timedelta(seconds=600)

    run(body)


def test_leader_that_slept_while_another_one_led(cluster: Cluster) -> None:
    """The clock by which it holds the Lease stood still: it writes nothing once it has seen who leads."""

    async def body() -> None:
        old = await leading(cluster)
        slept = cluster.time
        new = Leader(cluster, old.lease._api, "b")  # type: ignore[arg-type]
        assert not await new.lease._try()
        cluster.time += timedelta(seconds=16)
        await new.lead()
        await new.run(60)
        now, cluster.time = cluster.time, slept + timedelta(seconds=2)
        assert not await old.lease._try()
        with pytest.raises(Unavailable):
            old.lease.confirm()
        cluster.time = now

    run(body)


def test_the_first_evaluation_of_a_leader_is_written(cluster: Cluster) -> None:
    """Once, although nothing has changed: the next leader then knows what it takes into account."""

    async def body() -> None:
        leader = await leading(cluster)
        writes = cluster.calls.count("write_status")
        leader = await leader.crash()
        await leader.settle()
        assert cluster.status.evaluation_time == cluster.now()
        assert cluster.calls.count("write_status") == writes + 1
        await leader.run(20)
        assert cluster.calls.count("write_status") == writes + 1

    run(body)
