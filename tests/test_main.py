"""How the parts of the operator are connected: what the liveness probe names, and where a jump of a clock goes."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from adapters.api import Api
from controller.cluster import breathe
from session_rollout import main
from session_rollout.adapters.clock import ServerClock
from session_rollout.adapters.heartbeats import WATCH_LIMIT
from session_rollout.adapters.lease import Lease
from session_rollout.controller.state import HUNG_SECONDS
from session_rollout.errors import Forbidden, TooLarge, Unavailable
from session_rollout.main import LEASE_LIMIT, NAMED, SWEEP_LIMIT, Backoffs, Operator, watched_paths
from session_rollout.ports import Key
from session_rollout.settings import load


class Times:
    """The monotonic clock, and the wall clock beside it."""

    def __init__(self) -> None:
        self.seconds, self.wall = time.monotonic(), 1e9

    def monotonic(self) -> float:
        return self.seconds


@contextmanager
def operator(times: Times, tmp_path: Path) -> Iterator[Operator]:
    """One that is not running; on an API server in memory."""
    config = tmp_path / "operator.yaml"
    config.write_text(json.dumps({"prometheus": {"default": {"url": "http://127.0.0.1:9"}}}))
    clock = ServerClock(lambda: times.wall + times.seconds, times.monotonic)
    made = Operator(load(config), Api(), Api(), clock)
    made.hearts._monotonic = times.monotonic
    try:
        yield made
    finally:
        made.gates.close()
        made.metrics.close()
        made.notifier.close()


def test_liveness_names_what_is_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R2: the age of the Lease, of the loops and of each watch."""
    times = Times()
    with operator(times, tmp_path) as leader:
        monkeypatch.setattr(Lease, "age", property(lambda _: times.seconds - begun))
        begun = times.seconds
        leader.ready.set()
        leader._expect_beats()
        assert (leader._live().healthy, leader._live().message) == (True, "ok")
        times.seconds += LEASE_LIMIT + 1
        assert leader._live().message == f"late: Lease ({LEASE_LIMIT + 1:.0f} s)"
        times.seconds += SWEEP_LIMIT
        assert "sweep (" in leader._live().message
        leader.hearts.beat(main.SWEEP)
        assert "sweep" not in leader._live().message
        times.seconds += WATCH_LIMIT
        assert {"sessionrollouts", "sessionrolloutactions", "jobs", "configmaps"} == {
            part.split("/")[-1].split(" ")[0] for part in leader._live().message.split(", ") if "watch of" in part
        }
        for number in range(NAMED + 2):
            leader.memory.of(Key("default", f"r{number}")).expect_next(-1000)
        assert "reconciliation" not in leader._live().message, "it is late, as a slow API server makes it"
        for number in range(NAMED + 2):
            leader.memory.of(Key("default", f"r{number}"))._began = -HUNG_SECONDS
        assert leader._live().message.endswith("reconciliation of default/r2, 2 more rollouts")
        assert not leader._live().healthy


def test_watchdog_hands_a_jump_of_the_clock_to_the_reconciler(tmp_path: Path) -> None:
    """R14."""
    times = Times()

    async def body() -> None:
        with operator(times, tmp_path) as leader:
            times.wall -= 3600
            watchdog = asyncio.create_task(leader._watch())
            await breathe()
            assert leader.memory.clock_jump is not None
            assert leader.memory.clock_jump.by.total_seconds() == -3600
            watchdog.cancel()

    asyncio.run(body())


def test_next_leader_is_told_of_a_rollout_that_is_behind(tmp_path: Path) -> None:
    """This process renews the Lease, and still had no evidence for it."""
    with operator(Times(), tmp_path) as leader:
        state, now = leader.memory.of(Key("default", "shop")), leader.clock.now()
        state.has_loop, state.interval = True, timedelta(seconds=10)
        state.reconciled(now - timedelta(minutes=2))
        state.rested = 120.0
        assert tuple(leader._behind()) == (Key("default", "shop"),)
        state.reconciled(now)
        assert tuple(leader._behind()) == ()


@pytest.mark.parametrize(("known", "all_began"), [(True, False), (True, True), (False, True)])
def test_next_leader_is_told_of_a_rollout_that_was_never_evaluated(tmp_path: Path, *, known: bool, all_began: bool) -> None:
    """Unless it is new. Before all of them were evaluated once, the Lease has the time since when they were not."""
    with operator(Times(), tmp_path) as leader:
        state = leader.memory.of(Key("default", "shop"))
        state.has_loop, state.known = True, known
        if all_began:
            leader.downtime.expect(())
        assert bool(leader._behind()) is (known and all_began)


def test_nothing_is_written_before_the_lease_is_held(tmp_path: Path) -> None:
    """The session of all adapters asks the Lease before each write; that of the Lease does not."""
    with operator(Times(), tmp_path) as other:
        store = other.store._api
        with pytest.raises(Unavailable):
            store.confirm()
        other.lease._api.confirm()
        assert store is not other.lease._api


def test_rights_that_are_gone_leave_the_downtime_on_the_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R4: rollouts that nobody can list have not taken it into account. Once they are listed, it is known which these are."""
    monkeypatch.setattr(main, "delay", lambda _: 0)

    async def body() -> None:
        with operator(Times(), tmp_path) as leader:
            assert isinstance(leader.store._api, Api)
            failures = leader.store._api.failures["GET"] = [Forbidden("sessionrollouts")] * 5
            accounting = asyncio.create_task(leader._account())
            while failures:
                assert not leader.downtime.accounted.is_set()
                await breathe()
            await asyncio.wait_for(accounting, 60)

    asyncio.run(body())


def test_list_that_fails_does_not_keep_the_operator_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rollout is watched all the same; which of them have yet to take the downtime into account is found out later."""
    monkeypatch.setattr(main, "delay", lambda _: 0)

    async def body() -> None:
        with operator(Times(), tmp_path) as leader:
            api = leader.store._api
            assert isinstance(api, Api)
            api.put(
                "/apis/sessionrollout.dev/v1alpha1/sessionrollouts/shop", {"metadata": {"namespace": "default", "name": "shop"}}
            )
            api.failures["GET"] = [TooLarge("an answer is larger"), Unavailable("down")]
            accounted = asyncio.create_task(leader._account())
            leader.downtime.account(Key("default", "early"))
            while api.failures["GET"] or not leader.downtime._expected:
                await breathe()
            assert not leader.downtime.accounted.is_set()
            leader.downtime.account(Key("default", "shop"))
            await asyncio.wait_for(accounted, 60)

    asyncio.run(body())


def test_each_namespace_has_its_watches() -> None:
    assert len(watched_paths(())) == 4
    assert "/apis/batch/v1/namespaces/blue/jobs" in watched_paths(("blue", "green"))
    assert len(watched_paths(("blue", "green"))) == 8


def test_kopf_never_gives_up() -> None:
    pauses = iter(Backoffs())
    assert [next(pauses) for _ in range(100)][-1] == 13
    assert next(iter(Backoffs())) == 1, "each request begins again"
