"""Leader election against an API server in memory. Two real replicas are in tests/integration/test_replicas.py."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.api import Api
from session_rollout.adapters import lease as module
from session_rollout.adapters.lease import ROLLOUTS_LENGTH, UNACCOUNTED, UNACCOUNTED_ROLLOUTS, Lease, UnledTime
from session_rollout.cli.operator_lease import LABEL
from session_rollout.errors import Conflict, Unavailable
from session_rollout.ports import Key

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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that tests move; retries come at once."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0)
    return clock


@pytest.fixture
def api() -> Api:
    """An empty API server."""
    return Api()


def replica(api: Api, clock: Clock, name: str = "a") -> Lease:
    return Lease(api, "ops", "session-rollout", name, clock)


def spec(api: Api) -> dict[str, Any]:
    return dict(api.objects[PATH]["spec"])


def acquires(lease: Lease) -> bool:
    """Whether it gets the Lease at its first attempt."""
    return asyncio.run(lease._try())


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
    api.failures["GET"] = [Unavailable("down")]
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


# --- the time in which nobody led


def test_new_leader_knows_since_when_nobody_led(api: Api, clock: Clock) -> None:
    assert acquires(replica(api, clock))
    renewed = clock.now()
    clock.seconds += 60
    restarted = replica(api, clock)
    assert acquires(restarted)
    assert restarted.unled.since == renewed
    assert api.objects[PATH]["metadata"]["annotations"][UNACCOUNTED] == renewed.isoformat()


def test_second_crash_does_not_lose_the_downtime(api: Api, clock: Clock) -> None:
    """It is kept on the Lease until every rollout has taken it into account."""
    assert acquires(replica(api, clock))
    renewed = clock.now()
    for _ in range(2):
        clock.seconds += 60
        restarted = replica(api, clock)
        assert acquires(restarted)
    assert restarted.unled.since == renewed
    asyncio.run(restarted.accounted())
    assert UNACCOUNTED not in api.objects[PATH]["metadata"]["annotations"]


@pytest.mark.parametrize("text", ["2026-11-26 10:00", "yesterday", "unknown", "2026-11-26", "7", "\x00"])
def test_annotation_that_is_no_time_is_an_unknown_time_until_it_is_accounted_for(api: Api, clock: Clock, text: str) -> None:
    """It is no reason not to lead: holds start again, also in the next process if this one crashes."""
    assert acquires(replica(api, clock))
    api.objects[PATH]["metadata"]["annotations"][UNACCOUNTED] = text
    for _ in range(2):
        clock.seconds += 60
        restarted = replica(api, clock)
        assert acquires(restarted)
        assert restarted.unled.since_for(Key("default", "shop")) is None
    asyncio.run(restarted.accounted())
    renewed = clock.now()
    clock.seconds += 60
    after = replica(api, clock)
    assert acquires(after)
    assert after.unled.since_for(Key("default", "shop")) == renewed


def test_annotations_of_others_stay(api: Api, clock: Clock) -> None:
    assert acquires(replica(api, clock))
    api.put(PATH, {**api.objects[PATH], "metadata": {"annotations": {"team": "shop"}}})
    assert acquires(replica(api, clock))
    assert api.objects[PATH]["metadata"]["annotations"]["team"] == "shop"


@pytest.mark.parametrize(
    ("watched", "known", "unknown"),
    [
        ([(), ("a", "b")], "a", None),
        ([(), ("a",), ()], "a", "b"),
        ([("a", "b"), ("b", "c")], "b", "a"),
        ([("b",), ("a",), ("b",)], None, "b"),
    ],
)
def test_lease_proves_nothing_about_namespaces_that_were_not_watched(
    api: Api, clock: Clock, watched: list[tuple[str, ...]], known: str | None, unknown: str | None
) -> None:
    """Each of these processes crashes before it has reconciled every rollout; the last one has to know."""
    for namespaces in watched:
        process = Lease(api, "ops", "session-rollout", "a", clock, namespaces)
        assert acquires(process)
        clock.seconds += 60
    last = replica(api, clock)
    assert acquires(last)
    assert known is None or last.unled.since_for(Key(known, "shop")) is not None
    assert unknown is None or last.unled.since_for(Key(unknown, "shop")) is None
    asyncio.run(last.accounted())
    clock.seconds += 60
    after = replica(api, clock)
    assert acquires(after)
    assert after.unled.since_for(Key("z", "shop")) is not None


def test_decision_that_no_status_has_makes_the_time_of_its_rollout_unknown(api: Api, clock: Clock) -> None:
    """Until its status has one: each process after it has to know, and holds of other rollouts go on."""
    refused, other = Key("default", "refused"), Key("default", "other")
    first = replica(api, clock)
    assert acquires(first)
    first.unled.unaccounted.add(refused)
    assert acquires(first)
    for _ in range(2):
        clock.seconds += 60
        after = replica(api, clock)
        assert acquires(after)
        assert (after.unled.since_for(refused) is None, after.unled.since_for(other) is None) == (True, False)
    after.unled.unaccounted.discard(refused)
    asyncio.run(after.accounted())
    assert UNACCOUNTED_ROLLOUTS not in api.objects[PATH]["metadata"]["annotations"]
    last = replica(api, clock)
    assert acquires(last)
    assert last.unled.since_for(refused) is not None


def test_release_says_what_no_status_has(api: Api, clock: Clock) -> None:
    """A status that was refused since the last renewal."""
    first = replica(api, clock)
    assert acquires(first)
    first.unled.unaccounted.add(Key("default", "refused"))
    asyncio.run(first.release())
    after = replica(api, clock)
    assert acquires(after)
    assert after.unled.lost == {Key("default", "refused")}


def test_so_many_decisions_that_no_status_has_make_the_time_of_all_unknown(api: Api, clock: Clock) -> None:
    """The annotations of an object are limited; this process itself still knows since when nobody led."""
    first = replica(api, clock)
    assert acquires(first)
    first.unled.unaccounted.update(Key("n" * 63, f"{'r' * 240}-{number}") for number in range(ROLLOUTS_LENGTH))
    assert acquires(first)
    assert len(str(api.objects[PATH]["metadata"]["annotations"])) < 200_000
    first.unled.unaccounted.add(Key("default", "one-more"))
    assert acquires(first)
    after = replica(api, clock)
    assert acquires(after)
    assert after.unled.unknown
    assert not first.unled.unknown


@pytest.mark.parametrize("text", ["shop", "a/b/c", ",", "/"])
def test_names_of_somebody_else_in_the_annotation_are_ignored(api: Api, clock: Clock, text: str) -> None:
    assert acquires(replica(api, clock))
    api.objects[PATH]["metadata"]["annotations"][UNACCOUNTED_ROLLOUTS] = text
    after = replica(api, clock)
    assert acquires(after)
    assert after.unled.since_for(Key("default", "shop")) is not None


@pytest.mark.parametrize(
    ("namespaces", "lacking", "left"),
    [((), "", set()), ((), "b", {"b"}), (("a",), "", {"b"}), (("a", "b"), "a", {"a"})],
)
def test_decision_of_a_deleted_rollout_is_forgotten(namespaces: tuple[str, ...], lacking: str, left: set[str]) -> None:
    """Unless its namespace could not be listed, or belongs to another replica."""
    unled = UnledTime(frozenset(namespaces), unaccounted={Key("a", "gone"), Key("b", "gone"), Key("a", "here")})
    unled.forget_deleted([Key("a", "here")], lambda namespace: namespace == lacking)
    assert unled.unaccounted == {Key("a", "here")} | {Key(namespace, "gone") for namespace in left}


def test_lease_of_an_earlier_version_is_about_every_namespace(api: Api, clock: Clock) -> None:
    """An upgrade restarts no hold."""
    assert acquires(replica(api, clock))
    api.objects[PATH]["metadata"]["annotations"] = {}
    upgraded = Lease(api, "ops", "session-rollout", "a", clock, ("a",))
    assert acquires(upgraded)
    assert upgraded.unled.since_for(Key("a", "shop")) is not None


def test_namespace_that_could_not_be_listed_was_not_watched(api: Api, clock: Clock) -> None:
    """Its rights were gone, although the process was to watch it."""
    process = Lease(api, "ops", "session-rollout", "a", clock, ("a", "b"))
    assert acquires(process)
    process.unled.unlisted.add("b")
    assert acquires(process)
    after = Lease(api, "ops", "session-rollout", "a", clock, ("a", "b"))
    assert acquires(after)
    assert (after.unled.since_for(Key("a", "shop")) is None, after.unled.since_for(Key("b", "shop")) is None) == (False, True)
