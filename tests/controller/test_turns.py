"""Turns: few rollouts at a time, in the order of what matters."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from controller.cluster import KEY, Cluster, Process, breathe, run, until
from session_rollout.controller import reconciler, turns
from session_rollout.controller import state as remembered
from session_rollout.controller.turns import TO_LONGEST, Priority, Turns
from session_rollout.ports import Reconciled


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with one rollout."""
    cluster = Cluster()
    cluster.add_rollout()
    return cluster


class Crowd:
    """Rollouts that take turns and hold them until they are told to end."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.began = turns, list[str]()
        self.ends: dict[str, asyncio.Event] = {}

    def come(self, name: str, priority: Callable[[], Priority], namespace: str = "") -> asyncio.Task[None]:
        """One more."""
        self.ends[name] = asyncio.Event()
        return asyncio.create_task(self._hold(name, priority, namespace))

    async def _hold(self, name: str, priority: Callable[[], Priority], namespace: str) -> None:
        async with self.turns.take(priority, namespace):
            self.began.append(name)
            await self.ends[name].wait()


def always(priority: Priority) -> Callable[[], Priority]:
    return lambda: priority


def test_only_so_many_at_once_and_the_most_urgent_next() -> None:
    async def body() -> None:
        crowd = Crowd(Turns(at_once=2, reserved=0))
        for name, priority in {"a": 2, "b": 2, "new": 2, "known": 1, "urgent": 0}.items():
            crowd.come(name, always(Priority(priority)))
        await breathe()
        assert crowd.began == ["a", "b"]
        for name in ("a", "b", "urgent", "known", "new"):
            crowd.ends[name].set()
            await breathe()
        assert crowd.began == ["a", "b", "urgent", "known", "new"]

    run(body)


def test_new_one_has_its_turn_where_there_is_always_more_to_do() -> None:
    """Known ones come back as soon as they have ended, so that one of them always waits."""

    async def body() -> None:
        turns, seen = Turns(at_once=1, reserved=0), list[str]()

        async def come_back(name: str) -> None:
            while "new" not in seen:
                async with turns.take(always(Priority.KNOWN)):
                    seen.append(name)
                    await breathe()

        async def come_once() -> None:
            async with turns.take(always(Priority.NEW)):
                seen.append("new")

        async with asyncio.timeout(20):
            await asyncio.gather(come_back("a"), come_back("b"), come_back("c"), come_once())
        assert seen.index("new") < 2 * TO_LONGEST

    run(body)


def test_urgent_ones_do_not_wait_for_requests_that_hang() -> None:
    """All ordinary places are taken by rollouts whose API server does not respond."""

    async def body() -> None:
        crowd = Crowd(Turns(at_once=2, reserved=1))
        for name in "abc":
            crowd.come(name, always(Priority.KNOWN))
        crowd.come("urgent", always(Priority.URGENT))
        await breathe()
        assert crowd.began == ["a", "b", "urgent"]

    run(body)


def test_priority_that_rises_while_waiting_counts() -> None:
    async def body() -> None:
        turns, priority = Turns(at_once=1, reserved=1), [Priority.NEW]
        crowd = Crowd(turns)
        crowd.come("a", always(Priority.KNOWN))
        crowd.come("b", lambda: priority[0])
        await breathe()
        assert crowd.began == ["a"]
        priority[0] = Priority.URGENT
        turns.call()
        await breathe()
        assert crowd.began == ["a", "b"]

    run(body)


def test_turn_that_is_passed_on_ends_after_those_that_wait() -> None:
    """What follows the protection of users waits for the protections of others."""

    async def body() -> None:
        turns, seen = Turns(at_once=1, reserved=0), list[str]()

        async def protect(name: str) -> None:
            async with turns.take(always(Priority.KNOWN)) as pass_on:
                seen.append(f"{name} protects")
                await breathe()  # the others arrive
                await pass_on()
                seen.append(f"{name} records")

        await asyncio.gather(*(protect(name) for name in "abc"))
        assert seen == [f"{name} {what}" for what in ("protects", "records") for name in "abc"]

    run(body)


def test_one_that_is_cancelled_while_its_turn_is_passed_on_takes_no_place() -> None:
    async def body() -> None:
        turns = Turns(at_once=1, reserved=0)
        crowd = Crowd(turns)

        async def pass_on_to_b() -> None:
            async with turns.take(always(Priority.KNOWN)) as pass_on:
                crowd.come("b", always(Priority.KNOWN))
                await breathe()
                await pass_on()

        task = asyncio.create_task(pass_on_to_b())
        await until(lambda: crowd.began == ["b"])
        task.cancel()
        crowd.ends["b"].set()
        await breathe()
        crowd.come("c", always(Priority.KNOWN))
        await breathe()
        assert crowd.began == ["b", "c"]

    run(body)


def test_turn_of_one_that_is_cancelled_is_given_to_the_next() -> None:
    """Before it was called, in the moment it is called, and while it holds its turn."""

    async def body() -> None:
        crowd = Crowd(Turns(at_once=1, reserved=0))
        tasks = {name: crowd.come(name, always(Priority.KNOWN)) for name in "abcd"}
        await breathe()
        tasks["b"].cancel()
        await breathe()
        tasks["a"].cancel()
        tasks["c"].cancel()
        await breathe()
        assert crowd.began == ["a", "d"]

    run(body)


def test_one_that_waits_for_a_request_gives_its_place_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes that take ten seconds in one namespace must not delay the guards of all others; at most so many hang at a time."""
    monkeypatch.setattr(turns, "LONG_SECONDS", 0.02)
    monkeypatch.setattr(turns, "MOST_LONG", 2)

    async def body() -> None:
        crowd = Crowd(Turns(at_once=1, reserved=0))
        for name in "abcde":
            crowd.come(name, always(Priority.KNOWN))
        await until(lambda: crowd.began == ["a", "b", "c"])
        crowd.ends["c"].set()
        await until(lambda: crowd.began == ["a", "b", "c", "d"])
        crowd.ends["a"].set()
        await until(lambda: crowd.began == ["a", "b", "c", "d", "e"])
        for name in "bde":
            crowd.ends[name].set()
        await until(lambda: not crowd.turns._running and not crowd.turns._long)

    run(body)


def test_one_that_could_not_give_its_place_does_when_another_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONG_SECONDS", 0.02)
    monkeypatch.setattr(turns, "MOST_LONG", 1)

    async def body() -> None:
        crowd = Crowd(Turns(at_once=1, reserved=0))
        for name in "abcd":
            crowd.come(name, always(Priority.KNOWN))
        await until(lambda: crowd.began == ["a", "b"] and crowd.turns._late)
        crowd.ends["a"].set()
        await until(lambda: crowd.began == ["a", "b", "c"])
        for name in "bcd":
            crowd.ends[name].set()
        await until(lambda: not crowd.turns._running and not crowd.turns._long and not crowd.turns._late)

    run(body)


@pytest.mark.parametrize("priority", [Priority.URGENT, Priority.KNOWN])
def test_namespaces_have_turns_alike(priority: Priority, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with hundreds of rollouts, whose requests take long, delays no rollback in another."""
    monkeypatch.setattr(turns, "TO_LONGEST", 100)

    async def body() -> None:
        crowd = Crowd(Turns(at_once=2, reserved=0))
        for name in ("slow-1", "slow-2", "slow-3", "slow-4"):
            crowd.come(name, always(priority), "slow")
        await breathe()
        crowd.come("other-1", always(priority), "other")
        crowd.come("other-2", always(priority), "other")
        await breathe()
        for name in ("slow-1", "other-1", "slow-2"):
            crowd.ends[name].set()
            await breathe()
        assert crowd.began[:4] == ["slow-1", "slow-2", "other-1", "other-2"]
        assert len(crowd.began) == 5

    run(body)


def test_no_namespace_has_all_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its requests hang, and each gives its place to the next: some are left for others, and for what is urgent in it."""
    monkeypatch.setattr(turns, "LONG_SECONDS", 0.02)
    monkeypatch.setattr(turns, "MOST_OF_NAMESPACE", 3)

    async def body() -> None:
        crowd = Crowd(Turns(at_once=2, reserved=0))
        for number in range(9):
            crowd.come(f"slow-{number}", always(Priority.KNOWN), "slow")
        await until(lambda: crowd.turns._long == 3)
        crowd.come("other", always(Priority.KNOWN), "other")
        crowd.come("urgent", always(Priority.URGENT), "slow")
        await breathe()
        assert crowd.began == ["slow-0", "slow-1", "slow-2", "other", "urgent"]
        for end in crowd.ends.values():
            end.set()
        await until(lambda: len(crowd.began) == 11 and not crowd.turns._running and not crowd.turns._long)
        assert not any(crowd.turns._held.values())

    run(body)


# --- with the loop of a rollout


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, which only the test sets."""
    now = [0.0]
    for module in (reconciler, remembered):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_wait_for_a_turn_is_no_part_of_the_reconciliation(cluster: Cluster, seconds: list[float]) -> None:
    """Both together are what its interval is compared with: where there is too much to do, each takes milliseconds."""

    async def body() -> None:
        process, stopped = Process(cluster), asyncio.Event()
        process.memory.turns = Turns(at_once=1, reserved=0)
        results = list[Reconciled]()
        process.reconciler._on_reconciled = lambda _, result: results.append(result)
        async with process.memory.turns.take(lambda: Priority.KNOWN):
            loop = asyncio.create_task(process.reconciler.run(KEY, stopped))
            await breathe()
            seconds[0] = 40.0
        await until(lambda: results)
        stopped.set()
        await asyncio.wait_for(loop, 60)
        assert (results[0].waited, results[0].seconds) == (40.0, 0.0)

    run(body)


def test_new_rollout_that_has_no_turn_is_overdue(cluster: Cluster, seconds: list[float]) -> None:
    async def body() -> None:
        process, stopped = Process(cluster), asyncio.Event()
        process.memory.turns = Turns(at_once=0, reserved=0)
        loop = asyncio.create_task(process.reconciler.run(KEY, stopped))
        await breathe()
        assert process.memory.overdue() == ()
        seconds[0] = 150.0
        assert process.memory.overdue() == (KEY,)
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)

    run(body)
