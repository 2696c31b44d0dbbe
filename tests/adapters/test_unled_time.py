"""What the Lease tells the next leader: since when nobody led, and for which rollouts that is unknown.

Not here: who leads (test_lease.py), what becomes of a rollout then (tests/controller/test_takeover.py).
"""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from adapters.api import Api
from adapters.leasing import PATH, Clock, acquires, led, moved, replica, spec
from session_rollout.adapters.lease import (
    RENEW_DEADLINE,
    ROLLOUTS_LENGTH,
    UNACCOUNTED,
    UNACCOUNTED_ROLLOUTS,
    Lease,
    UnledTime,
)
from session_rollout.errors import Unavailable
from session_rollout.ports import Key


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that tests move."""
    return moved(monkeypatch)


@pytest.fixture
def api() -> Api:
    """An empty API server."""
    return Api()


def test_new_leader_knows_since_when_nobody_led(api: Api, clock: Clock) -> None:
    led(api, clock)
    renewed = clock.now()
    clock.seconds += 60
    restarted = replica(api, clock)
    assert acquires(restarted)
    assert restarted.unled.since == renewed
    assert api.objects[PATH]["metadata"]["annotations"][UNACCOUNTED] == renewed.isoformat()


def test_second_crash_does_not_lose_the_downtime(api: Api, clock: Clock) -> None:
    """It is kept on the Lease until every rollout has taken it into account."""
    led(api, clock)
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
    led(api, clock)
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
    led(api, clock)
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
    first = led(api, clock)
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
    first = led(api, clock)
    first.unled.unaccounted.add(Key("default", "refused"))
    asyncio.run(first.release())
    after = replica(api, clock)
    assert acquires(after)
    assert after.unled.lost == {Key("default", "refused")}


def test_so_many_decisions_that_no_status_has_make_the_time_of_all_unknown(api: Api, clock: Clock) -> None:
    """The annotations of an object are limited; this process itself still knows since when nobody led."""
    first = led(api, clock)
    first.unled.unaccounted.update(Key("n" * 63, f"{'r' * 240}-{number}") for number in range(ROLLOUTS_LENGTH))
    assert acquires(first)
    assert len(str(api.objects[PATH]["metadata"]["annotations"])) < 200_000
    first.unled.unaccounted.add(Key("default", "one-more"))
    assert acquires(first)
    after = replica(api, clock)
    assert acquires(after)
    assert after.unled.unknown
    assert not first.unled.unknown


@pytest.mark.parametrize("text", ["shop", "a/b/c", ",", "/", " a/b", "a/b; c/d", '["a/b"]', "a/b,"])
def test_names_that_cannot_be_read_are_an_unknown_time(api: Api, clock: Clock, text: str) -> None:
    """Nobody knows which rollouts they are; the next process still does not, if this one crashes."""
    led(api, clock)
    api.objects[PATH]["metadata"]["annotations"][UNACCOUNTED_ROLLOUTS] = text
    for _ in range(2):
        after = replica(api, clock)
        assert acquires(after)
        assert after.unled.since_for(Key("default", "shop")) is None


def test_names_of_rollouts_that_do_not_exist_change_nothing(api: Api, clock: Clock) -> None:
    led(api, clock)
    api.objects[PATH]["metadata"]["annotations"][UNACCOUNTED_ROLLOUTS] = "default/other"
    after = replica(api, clock)
    assert acquires(after)
    assert after.unled.since_for(Key("default", "shop")) is not None


@pytest.mark.parametrize("how", ["it leads", "crash", "release", "the answer is lost"])
def test_lease_that_was_deleted_is_an_unknown_time(api: Api, clock: Clock, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """What the Lease said is gone with it, also for the process after the one that creates it again."""
    led(api, clock)
    api.objects.clear()
    clock.seconds += 600
    leader = replica(api, clock)
    if how == "the answer is lost":
        created = api._post

        def lost(*request: Any) -> Any:
            created(*request)
            raise Unavailable("the answer is lost")

        with monkeypatch.context() as patched:
            patched.setattr(api, "_post", lost)
            assert not acquires(leader)
        clock.seconds += 2
    assert acquires(leader)
    if how == "release":
        asyncio.run(leader.release())
    if how in {"crash", "release"}:
        leader = replica(api, clock)
        assert acquires(leader)
    assert leader.unled.since_for(Key("default", "shop")) is None


def test_lease_that_nobody_has_renewed_is_an_unknown_time(api: Api, clock: Clock) -> None:
    """A part of what is installed creates it."""
    api.put(PATH, {"metadata": {}, "spec": {}})
    leader = replica(api, clock)
    assert acquires(leader)
    assert leader.unled.since_for(Key("default", "shop")) is None


def test_leader_whose_lease_was_deleted_goes_on(api: Api, clock: Clock) -> None:
    """It knows what it has evaluated, and writes it again."""
    leader = led(api, clock)
    leader.unled.unaccounted.add(Key("default", "refused"))
    api.objects.clear()
    assert acquires(leader)
    after = replica(api, clock)
    assert acquires(after)
    assert after.unled.since_for(Key("default", "shop")) is not None
    assert after.unled.since_for(Key("default", "refused")) is None


def test_leader_that_renews_late_has_not_been_away(api: Api, clock: Clock) -> None:
    """Nobody else has led: its own last renewal says nothing about an absence."""
    leader = led(api, clock)
    clock.seconds += RENEW_DEADLINE + 3
    assert acquires(leader)
    assert UNACCOUNTED not in api.objects[PATH]["metadata"]["annotations"]


def test_leader_that_sees_another_one_writes_no_more(api: Api, clock: Clock) -> None:
    """Its monotonic clock may have stood still while its node slept: by that, its last renewal is a moment ago."""
    old = led(api, clock)
    api.put(PATH, {**api.objects[PATH], "spec": {**api.objects[PATH]["spec"], "holderIdentity": "b"}})
    assert not acquires(old)
    with pytest.raises(Unavailable):
        old.confirm()


def test_rollout_that_is_not_evaluated_in_time_is_named(api: Api, clock: Clock) -> None:
    """At each renewal, as it is then."""
    late = [Key("default", "late")]
    leader = led(api, clock)
    leader.unled.behind = lambda: late
    assert acquires(leader)
    after = replica(api, clock)
    assert acquires(after)
    assert after.unled.since_for(Key("default", "late")) is None
    assert after.unled.since_for(Key("default", "shop")) is not None
    late.clear()
    assert acquires(leader)
    assert UNACCOUNTED_ROLLOUTS not in api.objects[PATH]["metadata"]["annotations"]


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
    led(api, clock)
    api.objects[PATH]["metadata"]["annotations"] = {}
    upgraded = Lease(api, "ops", "session-rollout", "a", clock, ("a",))
    assert acquires(upgraded)
    assert upgraded.unled.since_for(Key("a", "shop")) is not None


def test_what_the_last_leader_has_evaluated_was_evaluated_until_its_last_renewal(api: Api, clock: Clock) -> None:
    """Though it has not evaluated every rollout, and the Lease still has the time from before it."""
    led(api, clock)
    before, shop = clock.now(), Key("default", "shop")
    clock.seconds += 60
    process = replica(api, clock)
    assert acquires(process)
    began = clock.now()
    clock.seconds += 60
    assert acquires(process)
    renewed = clock.now()
    clock.seconds += 60
    after = replica(api, clock)
    assert acquires(after)
    since = after.unled.since_for
    assert since(shop) == before
    assert since(shop, began - timedelta(seconds=1)) == began - timedelta(seconds=1), "by the leader before, which wrote later"
    assert since(shop, began) == renewed
    assert since(shop, renewed + timedelta(seconds=3)) == renewed + timedelta(seconds=3)
    assert since(shop, renewed + timedelta(hours=2)) == before, "by a clock that was ahead"


def test_unknown_time_is_known_for_what_was_evaluated_since(api: Api, clock: Clock) -> None:
    """A rollout that is never evaluated must not have the holds of all others start again with each leader."""
    process = replica(api, clock)
    assert acquires(process)
    began = clock.now()
    clock.seconds += 60
    assert acquires(process)
    renewed = clock.now()
    after = replica(api, clock)
    assert acquires(after)
    assert after.unled.since_for(Key("default", "other")) is None
    assert after.unled.since_for(Key("default", "shop"), began + timedelta(seconds=5)) == renewed


def test_term_of_a_container_that_was_started_again_begins_with_it(api: Api, clock: Clock) -> None:
    """Its identity is that of the process before."""
    led(api, clock)
    clock.seconds += 60
    assert acquires(replica(api, clock))
    assert spec(api)["acquireTime"] == spec(api)["renewTime"]
