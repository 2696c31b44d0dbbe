"""Writes to the object that hang, as with an admission webhook that does not respond: they delay nothing that protects users.

Not here: answers, Events and records that hang (test_apply, tests/integration/test_faults_protection.py).
"""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from controller.cluster import KEY, Cluster, Process, run, until
from session_rollout.api.enums import EventReason
from session_rollout.controller import requests, state
from session_rollout.core.observed import Decision, Effect, Emit
from session_rollout.errors import Conflict, Forbidden, RolloutError, Unavailable


def hang(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, call: str) -> asyncio.Event:
    """Calls of this name wait for the event from now on."""
    released, original = asyncio.Event(), getattr(cluster, call)

    async def wait(*args: Any, **options: Any) -> Any:
        await released.wait()
        return await original(*args, **options)

    monkeypatch.setattr(cluster, call, wait)
    return released


async def holding() -> tuple[Cluster, Process]:
    """A rollout whose first audience is published, and the process that reconciles it."""
    cluster = Cluster()
    process = Process(cluster)
    process.loops.rollout_changed(KEY, cluster.add_rollout())
    await until(lambda: cluster.status.current.published_time is not None)
    return cluster, process


def is_off(cluster: Cluster) -> bool:
    """Whether the emergency is in the document."""
    return cluster.document is not None and bool(cluster.document.disabled)


@pytest.mark.parametrize("call", ["write_status", "set_finalizer"])
def test_write_that_hangs_delays_no_emergency(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        cluster, process = await holding()
        released = hang(cluster, monkeypatch, call)
        if call == "set_finalizer":
            cluster.rollouts[KEY]["spec"]["deletionPolicy"] = "Off"
            cluster.rollouts[KEY]["metadata"]["generation"] += 1
        process.inbox.action_changed(cluster.add_action("pause", "Pause", reason="a write that hangs"))
        await until(lambda: process.state.writes.under_way("the status" if call == "write_status" else "the finalizer"))
        process.inbox.action_changed(cluster.add_action("emergency", "EmergencyDisable", reason="drill"))
        async with asyncio.timeout(20):
            await until(lambda: is_off(cluster))
        released.set()
        await until(lambda: cluster.status.flags.disabled and cluster.status.paused_by and not process.state.actions.waiting)
        await until(lambda: not process.state.refusals)
        await process.loops.close()

    run(body)


def test_statuses_are_written_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that comes late must not replace a newer one, nor be counted as the response to it."""

    async def body() -> None:
        cluster, process = await holding()
        released = hang(cluster, monkeypatch, "write_status")
        begun = cluster.calls.count("write_status")
        for number in range(3):
            process.inbox.action_changed(cluster.add_action(f"e{number}", "EmergencyDisable", reason=f"drill {number}"))
            await until(lambda: is_off(cluster))
        await until(lambda: process.state.writes.under_way("the status"))
        released.set()
        await until(lambda: cluster.status.flags.disabled and not process.state.actions.waiting)
        assert cluster.calls.count("write_status") > begun
        await process.loops.close()

    run(body)


async def disabled(cluster: Cluster, process: Process) -> None:
    """Carry out an emergency, until it is in the status and the loop rests."""
    process.inbox.action_changed(cluster.add_action("emergency", "EmergencyDisable", reason="drill"))
    await until(lambda: cluster.status.flags.disabled and not process.state.actions.waiting)


class Slow:
    """An API server that stores each status after the decision no longer waits for it."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self.cluster, self.process, self.original = cluster, process, cluster.write_status

    async def write(self, *args: Any, **options: Any) -> Any:
        await until(lambda: self.process.state.writes.under_way("the status"))
        return await self.original(*args, **options)


class Silent(Slow):
    """An API server that stores each status, and nobody is told."""

    async def write(self, *args: Any, **options: Any) -> Any:
        await self.original(*args, **options)
        raise Unavailable("no response")


class Refusing(Slow):
    """An API server that refuses the first statuses after the emergency."""

    refusals = 5
    error: RolloutError = Forbidden("sessionrollouts/status")

    async def write(self, *args: Any, **options: Any) -> Any:
        self.refusals -= 1
        if self.refusals >= 0:
            raise self.error
        return await self.original(*args, **options)


class Contested(Refusing):
    """Another client writes the object at the same moment."""

    refusals, error = 1, Conflict("another client was faster")


@pytest.mark.parametrize("server", [Slow, Silent])
def test_status_that_was_stored_is_not_shown_as_refused(server: type[Slow], monkeypatch: pytest.MonkeyPatch) -> None:
    """An overloaded API server answers each time after the decision no longer waits, or never: no refusal is left of it."""
    monkeypatch.setattr(requests, "RESPONSE_SECONDS", 0.01)
    monkeypatch.setattr(state, "OUTAGE_SHOWN", timedelta(0))

    async def body() -> None:
        cluster, process = await holding()
        monkeypatch.setattr(cluster, "write_status", server(cluster, process).write)
        await disabled(cluster, process)
        await until(lambda: not process.state.refusals and not cluster.status.refusals)
        await process.loops.close()

    run(body)


@pytest.mark.parametrize("server", [Slow, Silent, Refusing, Contested])
def test_what_happened_has_its_event_and_its_record(server: type[Slow], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once each, although the status was stored late, or after decisions that could not be written."""
    monkeypatch.setattr(requests, "RESPONSE_SECONDS", 0.01)

    async def body() -> None:
        cluster, process = await holding()
        monkeypatch.setattr(cluster, "write_status", server(cluster, process).write)
        await disabled(cluster, process)

        def recorded() -> list[Decision]:
            return [each for each in cluster.records if any(is_disabled(effect) for effect in each.effects)]

        await until(lambda: recorded() and not process.state.refusals)
        await until(lambda: not process.state.unconfirmed.links)
        assert len(recorded()) == 1
        assert cluster.events.count(EventReason.FLAGS_DISABLED) == 1
        await process.loops.close()

    run(body)


def is_disabled(effect: Effect) -> bool:
    return isinstance(effect, Emit) and effect.reason is EventReason.FLAGS_DISABLED


GATES = [{"name": f"smoke-{number}", "job": {"profile": "smoke-tests"}} for number in range(12)]
GUARD = {"name": "errors", "metric": "errors", "below": "5%"}
ONE_PHASE = [{"name": "one", "features": ["alpha"], "steps": [{"percent": 100, "hold": "1s"}], "verification": GATES}]


async def overtaken(cluster: Cluster, process: Process) -> None:
    """An emergency comes while something hangs, and is in force in a moment."""
    process.inbox.action_changed(cluster.add_action("emergency", "EmergencyDisable", reason="drill"))
    async with asyncio.timeout(5):
        await until(lambda: is_off(cluster))


@pytest.mark.parametrize(("call", "count"), [("publish", 1), ("start_check", len(GATES))])
def test_effect_that_hangs_delays_no_emergency(call: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook for ConfigMaps or Jobs takes half a minute, or a connection is dead. Each is sent once all the same."""
    monkeypatch.setattr(requests, "RESPONSE_SECONDS", 0.05)

    async def body() -> None:
        cluster = Cluster()
        cluster.add_rollout(guards=[GUARD], phases=ONE_PHASE, features=[{"name": "alpha"}])
        process, sent = Process(cluster), list[Effect]()
        port = process.reconciler._ports.flags if call == "publish" else process.reconciler._ports.jobs
        original = getattr(port, call)

        async def hang_then(rollout: Any, effect: Any, **options: Any) -> Any:
            if cluster.document is None or options.get("urgent"):
                return await original(rollout, effect, **options)
            sent.append(effect)
            return await asyncio.Event().wait()

        monkeypatch.setattr(port, call, hang_then)
        while len(sent) < count:
            await process.reconcile()
            cluster.time += timedelta(seconds=10)
        await process.reconcile()
        assert len(sent) == count
        assert len(set(sent)) == count
        process.inbox.action_changed(cluster.add_action("emergency", "EmergencyDisable", reason="drill"))
        async with asyncio.timeout(5):
            await process.reconcile()
        assert is_off(cluster)

    run(body)


@pytest.mark.parametrize("what", ["the rollout", "its document"])
def test_read_that_hangs_is_sent_again(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "SECOND_SECONDS", 0.05)

    async def body() -> None:
        cluster, process = await holding()
        port = process.reconciler._ports.store if what == "the rollout" else process.reconciler._ports.flags
        original, hangs = port.read, [True]

        async def read(*args: Any) -> Any:
            if hangs:
                hangs.pop()
                await asyncio.Event().wait()
            return await original(*args)

        if what == "its document":
            process.state.forget_document()
        monkeypatch.setattr(port, "read", read)
        await overtaken(cluster, process)
        assert not hangs
        await process.loops.close()

    run(body)


def test_many_jobs_of_a_slow_server_delay_no_emergency(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is read in less than the time that a decision waits for it."""
    monkeypatch.setattr(requests, "RESPONSE_SECONDS", 1.0)

    async def body() -> None:
        cluster = Cluster()
        cluster.add_rollout(guards=[], phases=ONE_PHASE, features=[{"name": "alpha"}])
        process = Process(cluster)
        while cluster.calls.count("start_check") < len(GATES):
            await process.reconcile()
            cluster.time += timedelta(seconds=10)
        observed, reading, most = asyncio.Event(), 0, 0
        original = process.reconciler._ports.jobs.observe

        async def observe(rollout: Any, name: str) -> Any:
            nonlocal reading, most
            reading += 1
            most = max(most, reading)
            if most == len(GATES):
                observed.set()
            await observed.wait()
            reading -= 1
            return await original(rollout, name)

        monkeypatch.setattr(process.reconciler._ports.jobs, "observe", observe)
        process.inbox.action_changed(cluster.add_action("emergency", "EmergencyDisable", reason="drill"))
        await process.reconcile()
        assert is_off(cluster)
        assert most == len(GATES)

    run(body)
