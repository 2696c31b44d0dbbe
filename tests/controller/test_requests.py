"""Reads that a decision can do without: they delay none, and their results are not lost.

Real here: the reconciler. The log of a Job whose node is gone hangs on a real API server for as long as a request may.
"""

import asyncio
from decimal import Decimal

import pytest

from controller.cluster import KEY, Cluster, Process, breathe, run, until
from session_rollout.controller import memory, requests
from session_rollout.controller.memory import Memory
from session_rollout.controller.requests import Requests, read_soon
from session_rollout.core.documents import read_document
from session_rollout.core.observed import JobObservation, JobState
from session_rollout.errors import Unavailable
from session_rollout.ports import Key


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "RESPONSE_SECONDS", 0.02)


def test_result_that_comes_later_is_taken_by_the_next_decision() -> None:
    async def body() -> None:
        state, woken, answers, started = Requests(), asyncio.Event(), asyncio.Event(), list[int]()

        async def read() -> str:
            started.append(1)
            await answers.wait()
            return "here"

        for _ in range(2):
            with pytest.raises(Unavailable):
                await state.take("log", read, woken.set)
        answers.set()
        await asyncio.wait_for(woken.wait(), 60)
        assert await state.take("log", read, woken.set) == "here"
        assert len(started) == 1
        assert await state.take("log", read, woken.set) == "here"
        assert len(started) == 2, "a result is taken once"

    run(body)


def test_error_that_nobody_takes_is_dropped() -> None:
    """It would end the process as an exception of a task that was never retrieved."""

    async def body() -> None:
        state, answers = Requests(), asyncio.Event()

        async def read() -> str:
            await answers.wait()
            raise Unavailable("down")

        with pytest.raises(Unavailable):
            await state.take("log", read, lambda: None)
        state.forget({"log"})
        answers.set()
        with pytest.raises(Unavailable, match="down"):
            await state.take("log", read, lambda: None)
        state.forget(set())

    run(body)


def test_job_that_cannot_be_read_delays_no_rollback(monkeypatch: pytest.MonkeyPatch) -> None:
    """README: an emergency and a breach are acted on at once, whatever hangs."""
    cluster = Cluster()
    cluster.add_rollout(guards=[{"name": "errors", "metric": "errors", "below": "5%"}])
    monkeypatch.setattr("session_rollout.controller.gather.running_jobs", lambda _: ("shop-smoke",))

    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        hanging = asyncio.Event()

        async def observe(*_: object) -> JobObservation:
            await hanging.wait()
            return JobObservation(JobState.ACTIVE)

        monkeypatch.setattr(process.reconciler._ports.jobs, "observe", observe)
        cluster.values["errors"] = Decimal("0.5")
        async with asyncio.timeout(20):
            await process.reconcile()
        assert not read_document(cluster.text).gives_something
        assert process.memory.of(KEY).refusals["ReadJob"].message
        hanging.set()
        await until(process.state.wake.is_set)
        await process.reconcile()
        assert "ReadJob" not in process.state.refusals

    run(body)


@pytest.mark.parametrize("first", ["late", "fails", "fails late"])
def test_first_response_to_a_read_counts(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second request is sent only if the first has no response."""
    monkeypatch.setattr(requests, "SECOND_SECONDS", 0.02)

    async def body() -> None:
        sent, failing = list[int](), asyncio.Event()

        async def read() -> int:
            sent.append(1)
            if len(sent) == 1:
                if first != "fails":
                    await failing.wait()
                raise Unavailable("down")
            failing.set()
            if first == "fails late":
                await breathe()
            return len(sent)

        if first == "fails":
            with pytest.raises(Unavailable):
                await read_soon(read)
            assert len(sent) == 1
        else:
            assert await read_soon(read) == 2

    run(body)


def test_requests_that_hang_in_one_namespace_leave_connections_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "AT_ONCE", 2)

    async def body() -> None:
        states, sent = Memory(), list[Key]()

        async def send(key: Key) -> None:
            for state in (states.of(key).writes, states.of(key).effects):

                async def hang() -> None:
                    sent.append(key)
                    await asyncio.Event().wait()

                with pytest.raises(Unavailable):
                    await state.take("a write", hang, lambda: None)

        for key in (Key("slow", "a"), Key("slow", "b"), Key("other", "c")):
            await send(key)
        assert sent == [Key("slow", "a")] * 2 + [Key("other", "c")] * 2

    run(body)
