"""Which query is sent next: how long a fast one may wait for slow ones of other rollouts. The time is simulated.

Not here: real requests (test_provider_client.py).
"""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.simulated import passes, run
from session_rollout.adapters.provider_slots import KEPT_SHARE, SLOW_SECONDS, Slots

LIMIT = 5.0  # seconds after which a query that hangs ends
QUICK = 0.005


class Server:
    """A provider behind slots: how long each query takes, and what runs."""

    def __init__(self, workers: int) -> None:
        self.workers, self.slots = workers, Slots(workers)
        self.seconds: dict[str, float] = {}  # by query; the others are quick
        self.sent: list[str] = []
        self.answered: list[str] = []
        self.running = self.most = 0

    async def ask(self, rollout: str, query: str) -> float:
        """Send a query when it is its turn, and return how many seconds passed until it was sent for the last time."""
        loop = asyncio.get_running_loop()
        begun = loop.time()

        async def send() -> float:
            waited = loop.time() - begun
            self.sent.append(query)
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await passes(self.seconds.get(query, QUICK))
            finally:
                self.running -= 1
            self.answered.append(query)
            return waited

        return await self.slots.run(query, rollout, send)

    def ask_all(self, queries: list[tuple[str, str]]) -> list[asyncio.Task[float]]:
        return [asyncio.create_task(self.ask(*each)) for each in queries]

    async def after(
        self, queries: list[tuple[str, str]], seconds: float, until: float = 0.0, known: str | None = None
    ) -> float:
        """How long a fast query of another rollout waits when these, all known as fast, take so many seconds from now on.

        `known` is a rollout whose queries are known as slow, and hang in all slots that such ones may have.
        """
        await asyncio.gather(*self.ask_all([*queries, ("fast", "up")]))
        hanging = [(known, f"hangs_{number}") for number in range(self.workers) if known is not None]
        self.seconds = dict.fromkeys((query for _, query in queries), seconds) | {query: 600.0 for _, query in hanging}
        self.forget()
        slow = [*self.ask_all(hanging), *self.ask_all(queries)]
        await passes(until)
        waited = await self.ask("fast", "up")
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        return waited

    def forget(self) -> None:
        """Forget what was sent."""
        self.sent.clear()
        self.answered.clear()


def fleet(rollouts: int, queries: int) -> list[tuple[str, str]]:
    """So many queries of each of so many rollouts, those of one rollout after those of the other."""
    return [(f"r{rollout}", f"r{rollout}_{query}") for rollout in range(rollouts) for query in range(queries)]


def bound(rollouts: int, workers: int) -> float:
    """The longest wait of a fast query while those of so many other rollouts are slow."""
    return SLOW_SECONDS * (rollouts // -(-workers // KEPT_SHARE) + 1)


@pytest.mark.parametrize("seconds", [2.8, LIMIT, 60.0])
def test_fast_query_waits_for_one_query_of_each_other_rollout_at_most(seconds: float) -> None:
    """R6: 250 queries of 25 rollouts, all known as fast, become slow at once; the fast one is sent after 25 of them at most."""
    server = Server(8)
    waited = run(server.after(fleet(25, 10), seconds))
    ahead = server.sent[: server.sent.index("up")]
    assert len(ahead) - len(set(ahead)) <= 6, "as many as were sent again in a slot for slow ones"
    assert len(set(ahead)) <= 25 + server.workers
    assert waited <= bound(25, 8) == 6.5
    assert server.most == 8


def test_bound_does_not_depend_on_the_number_of_queries() -> None:
    """R6: a rollout with ten times as many queries takes no more turns."""
    few, many = (run(Server(8).after(fleet(25, queries), 60.0)) for queries in (10, 100))
    assert many == few


WORKERS, KNOWN = st.sampled_from([2, 3, 4, 8, 16]), st.sampled_from([None, "known", "fast"])


@given(WORKERS, st.integers(0, 20), st.integers(1, 6), st.floats(0.6, 30), st.floats(0.0, 10), KNOWN)
def test_bound_holds_whenever_it_is_asked(
    workers: int, rollouts: int, queries: int, seconds: float, until: float, known: str | None
) -> None:
    """R6: also when all slots for slow queries are taken for minutes, even by queries of the same rollout."""
    server = Server(workers)
    assert run(server.after(fleet(rollouts, queries), seconds, until, known)) <= bound(rollouts, workers) + QUICK
    assert server.most <= workers


def test_query_that_turns_slow_is_sent_once_more_at_most() -> None:
    """It is ended only where it holds a slot that is kept for fast ones, and all get their answers."""
    server = Server(8)

    async def body() -> None:
        queries = fleet(4, 5)
        await asyncio.gather(*server.ask_all(queries))
        server.forget()
        server.seconds = {query: 2.0 for _, query in queries}
        await asyncio.gather(*server.ask_all(queries))
        assert sorted(server.answered) == sorted(query for _, query in queries)
        assert max(server.sent.count(query) for _, query in queries) == 2
        server.forget()
        await asyncio.gather(*server.ask_all(queries))
        assert sorted(server.sent) == sorted(query for _, query in queries), "known as slow: each is sent once"

    run(body())


def test_query_that_turns_slow_alone_is_not_sent_again() -> None:
    """Where no slow query needs its slot, it stays."""
    server = Server(8)

    async def body() -> None:
        await server.ask("a", "q")
        server.seconds = {"q": 3.0}
        await server.ask("a", "q")

    run(body())
    assert server.sent == ["q", "q"]


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_many_fast_queries_do_not_stop_a_slow_one(workers: int) -> None:
    """More fast ones than the slots can take: a query that is not known yet has its turn all the same."""
    server = Server(workers)

    async def always(number: int) -> None:
        while asyncio.get_running_loop().time() < 60:
            await server.ask(f"busy{number}", f"busy{number}")

    async def body() -> float:
        busy = [asyncio.create_task(always(number)) for number in range(4 * workers)]
        await passes(1)
        server.seconds = {"new": 2.0}
        waited = await server.ask("other", "new")
        for task in busy:
            task.cancel()
        return waited

    assert run(body()) <= 2 * QUICK


def test_slow_queries_have_every_second_turn_of_a_single_slot() -> None:
    """With one worker, nothing is kept for anybody, and the fast query waits for one slow query beside the one that runs."""
    server = Server(1)
    server.seconds = {f"slow_{number}": 1.0 for number in range(20)}

    async def body() -> None:
        await server.ask("fast", "up")
        server.forget()
        slow = server.ask_all([(query, query) for query in server.seconds])
        await passes(0.1)
        await server.ask("fast", "up")
        for task in slow:
            task.cancel()

    run(body())
    assert server.sent.index("up") <= 2


def test_slow_queries_of_rollouts_have_turns() -> None:
    """A new rollout waits for one query of each other one, and not for all of a large one."""
    server = Server(4)

    async def body() -> None:
        large = [("large", f"large_{number}") for number in range(50)]
        server.seconds = {query: 1.0 for _, query in [*large, ("new", "new")]}
        tasks = server.ask_all(large)
        await passes(0.1)
        await server.ask("new", "new")
        for task in tasks:
            task.cancel()

    run(body())
    assert server.sent.index("new") <= 4


def test_queries_that_are_cancelled_leave_no_slot_taken() -> None:
    """Those that run, those that wait, and one that has just been given its slot."""
    server = Server(2)

    async def body() -> None:
        server.seconds = {"a": 60.0}
        tasks = server.ask_all([("r", query) for query in ("a", "b", "c")])
        await passes(0)
        tasks[0].cancel()
        await passes(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        server.most = 0
        await asyncio.gather(*server.ask_all([("r", query) for query in "defg"]))
        await asyncio.gather(*server.ask_all([("r", query) for query in "defg"]))

    run(body())
    assert server.most == 2
