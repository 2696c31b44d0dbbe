"""Leader election against an API server in memory. Two real replicas are in tests/integration/test_replicas.py."""

import asyncio
from typing import Any

import pytest

from adapters.api import Api
from adapters.leasing import PATH, Clock, acquires, moved, replica, spec
from session_rollout.adapters import lease as lease_module
from session_rollout.adapters.lease import RENEW_DEADLINE
from session_rollout.cli.operator_lease import LABEL
from session_rollout.errors import Conflict, Unavailable


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that tests move."""
    return moved(monkeypatch)


@pytest.fixture
def api() -> Api:
    """An empty API server."""
    return Api()


def test_lease_has_the_label_that_the_plugin_looks_for(api: Api, clock: Clock) -> None:
    """D24: also one that an earlier version has created, which keeps its other labels."""
    assert acquires(replica(api, clock))
    key, _, value = LABEL.partition("=")
    assert api.objects[PATH]["metadata"]["labels"][key] == value
    api.objects[PATH]["metadata"]["labels"] = {"team": "ops"}
    assert acquires(replica(api, clock))
    labels = api.objects[PATH]["metadata"]["labels"]
    assert (labels[key], labels["team"]) == (value, "ops")


def test_first_replica_creates_the_lease(api: Api, clock: Clock) -> None:
    leader = replica(api, clock)
    with pytest.raises(Unavailable):
        leader.confirm()
    assert acquires(leader)
    leader.confirm()
    assert leader.unled.since is None
    assert (spec(api)["holderIdentity"], spec(api)["leaseTransitions"]) == ("a", 0)


def test_other_replica_stands_by_and_knows_the_leader(api: Api, clock: Clock) -> None:
    assert acquires(replica(api, clock))
    other = replica(api, clock, "b")
    assert not acquires(other)
    assert other.leader == "a"
    with pytest.raises(Unavailable):
        other.confirm()


def test_renewal_is_not_an_acquisition(api: Api, clock: Clock) -> None:
    leader = replica(api, clock)
    assert acquires(leader)
    first = spec(api)
    clock.seconds += 2
    assert acquires(leader)
    assert spec(api)["renewTime"] > first["renewTime"]
    assert (spec(api)["acquireTime"], spec(api)["leaseTransitions"]) == (first["acquireTime"], 0)


def test_silent_leader_is_replaced_after_the_whole_lease_by_the_own_clock(api: Api, clock: Clock) -> None:
    """The time in the Lease may be wrong: what counts is how long this process has seen no renewal."""
    assert acquires(replica(api, clock))
    other = replica(api, clock, "b")
    clock.seconds += 100
    assert not acquires(other), "the first time that it sees the Lease"
    clock.seconds += 15
    assert not acquires(other)
    clock.seconds += 0.1
    assert acquires(other)
    assert (spec(api)["holderIdentity"], spec(api)["leaseTransitions"]) == ("b", 1)


def test_leader_that_cannot_renew_may_not_write(api: Api, clock: Clock) -> None:
    leader = replica(api, clock)
    assert acquires(leader)
    clock.seconds += 10
    leader.confirm()
    api.failures["PUT"] = [Unavailable("down")]
    assert not acquires(leader)
    clock.seconds += 0.1
    with pytest.raises(Unavailable):
        leader.confirm()


def test_loser_of_a_race_stands_by(api: Api, clock: Clock) -> None:
    """Both read the released Lease; the API server takes one of the writes."""
    leader = replica(api, clock)
    assert acquires(leader)
    asyncio.run(leader.release())
    api.failures["PUT"] = [Conflict("another replica wrote first")]
    assert not acquires(replica(api, clock, "b"))


def test_released_lease_is_taken_at_once(api: Api, clock: Clock) -> None:
    leader = replica(api, clock)
    assert acquires(leader)
    asyncio.run(leader.release())
    assert acquires(replica(api, clock, "b"))
    asyncio.run(leader.release())
    assert spec(api)["holderIdentity"] == "b", "only the holder can release it"


def test_acquire_waits_until_it_holds_the_lease(api: Api, clock: Clock) -> None:
    tries: list[None] = []
    api.failures["GET"] = [Unavailable("down")] * 3
    asyncio.run(replica(api, clock).acquire(lambda: tries.append(None)))
    assert len(tries) == 3
    assert spec(api)["holderIdentity"] == "a"


def test_renewal_takes_one_request(api: Api, clock: Clock) -> None:
    """A slow API server answers each within its time, and two of them not within that of the Lease."""
    leader = replica(api, clock)
    assert acquires(leader)
    api.requests.clear()
    assert acquires(leader)
    assert [method for method, _ in api.requests] == ["PUT"]


def test_renewal_reads_what_another_client_has_changed(api: Api, clock: Clock) -> None:
    leader = replica(api, clock)
    assert acquires(leader)
    assert acquires(leader)
    metadata = {**api.objects[PATH]["metadata"], "annotations": {"team": "ops"}}
    api.put(PATH, {**api.objects[PATH], "metadata": metadata})
    assert acquires(leader)
    assert api.objects[PATH]["metadata"]["annotations"]["team"] == "ops"


def test_lease_that_was_deleted_is_created_again(api: Api, clock: Clock) -> None:
    leader = replica(api, clock)
    assert acquires(leader)
    assert acquires(leader)
    del api.objects[PATH]
    assert acquires(leader)
    assert spec(api)["holderIdentity"] == "a"


class Enough(Exception):
    """The test has seen enough renewals."""


def test_leader_of_a_slow_api_server_may_write(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request takes almost as long as it may: the leader keeps the Lease, and so it must be able to protect users."""
    clock, ages = moved(monkeypatch), list[float]()
    monkeypatch.setattr(lease_module, "RETRY_SECONDS", 2.0)
    leader, request = replica(api, clock), api.request

    async def slow(*args: Any, **options: Any) -> Any:
        clock.seconds += 4.6
        ages.append(leader.age)
        return await request(*args, **options)

    async def pause(seconds: float) -> None:
        clock.seconds += seconds
        if len(ages) > 20:
            raise Enough

    async def body() -> None:
        assert await leader._try()
        monkeypatch.setattr(api, "request", slow)
        monkeypatch.setattr(asyncio, "sleep", pause)
        await leader.keep(lambda: None)

    with pytest.raises(Enough):
        asyncio.run(body())
    assert max(ages) < RENEW_DEADLINE


@pytest.mark.parametrize(
    "lease",
    [
        {"spec": []},
        {"spec": None},
        {"spec": {"holderIdentity": "", "renewTime": "yesterday"}},
        {"spec": {"holderIdentity": "", "renewTime": 7}},
    ],
)
def test_lease_that_is_garbage_is_read_again(api: Api, clock: Clock, lease: dict[str, Any]) -> None:
    """R2: an answer of the wrong shape neither ends the renewal nor is believed."""
    leader = replica(api, clock)
    assert acquires(leader)
    kept = api.objects[PATH]
    api.put(PATH, lease)
    assert not acquires(replica(api, clock, "b"))
    api.objects[PATH] = kept
    assert acquires(leader)


def test_lost_lease_ends_the_process(api: Api, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> list[str]:
        leader, lost = replica(api, clock), list[str]()
        await leader.acquire(lambda: None)
        api.put(PATH, {"spec": {**spec(api), "holderIdentity": "b"}})
        monkeypatch.setattr(leader, "_claim", slow(leader._claim))
        await asyncio.wait_for(leader.keep(lambda: lost.append("lost")), 60)
        return lost

    def slow(claim: Any) -> Any:
        async def later() -> bool:
            clock.seconds += 2
            return bool(await claim())

        return later

    assert asyncio.run(body()) == ["lost"]
