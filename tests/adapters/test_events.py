"""Events are best effort: in order, in the background, and they delay nobody."""

import asyncio
from typing import Any

import pytest

from adapters.api import Api
from controller.cluster import until
from core.world import World, spec
from session_rollout.adapters.api_server import URGENT_SECONDS
from session_rollout.adapters.clock import WallClock
from session_rollout.adapters.events import MOST_WAITING, ApiEventSink
from session_rollout.api.enums import EventReason
from session_rollout.api.rollout import SessionRollout
from session_rollout.errors import Unavailable

ROLLOUT = World(spec()).rollout()
ELSEWHERE = ROLLOUT.updated(namespace="elsewhere")


class HangingApi(Api):
    """Requests about one namespace hang, or fail as they do after their time limit."""

    hanging = "nowhere"
    release: asyncio.Event
    limits: tuple[float, ...] = ()

    async def request(self, method: str, path: str, body: Any = None, **fields: Any) -> dict[str, Any]:
        self.limits += (fields["seconds"],)
        if f"/namespaces/{self.hanging}/" in path:
            await self.release.wait()
            raise Unavailable("no response in time")
        return await super().request(method, path, body, **fields)

    def sent(self) -> list[tuple[str, str]]:
        """Namespace and message of each Event."""
        return [(item["metadata"]["namespace"], item["message"]) for item in self.objects.values()]


@pytest.fixture
def api() -> HangingApi:
    return HangingApi()


def emit(sink: ApiEventSink, *messages: str, rollout: SessionRollout = ROLLOUT) -> None:
    for message in messages:
        sink.emit(rollout, EventReason.STARTED, message)


@pytest.mark.parametrize(("reason", "kind"), [(EventReason.STARTED, "Normal"), (EventReason.STALLED, "Warning")])
def test_event(api: HangingApi, reason: EventReason, kind: str) -> None:
    async def body() -> None:
        ApiEventSink(api, WallClock(), "operator-0").emit(ROLLOUT, reason, "x" * 2000)
        await until(lambda: api.objects)

    asyncio.run(body())
    [event] = api.objects.values()
    assert (event["type"], event["reason"], event["involvedObject"]["uid"]) == (kind, reason, ROLLOUT.uid)
    assert len(event["message"]) == 1024


def test_event_that_cannot_be_sent_keeps_no_other_from_it(api: HangingApi, caplog: pytest.LogCaptureFixture) -> None:
    """Neither by a refusal, nor by an exception that nobody foresaw."""
    api.failures["POST"] = [Unavailable("down"), KeyError("metadata")]

    async def body() -> None:
        sink = ApiEventSink(api, WallClock(), "operator-0")
        emit(sink, "1", "2")
        await until(lambda: not api.failures["POST"])
        emit(sink, "3", "4")
        await until(lambda: len(api.objects) == 2)

    asyncio.run(body())
    assert [message for _, message in api.sent()] == ["3", "4"]
    assert [vars(record)["class"] for record in caplog.records] == ["KeyError"]


def test_events_that_hang_delay_neither_the_caller_nor_another_namespace(api: HangingApi) -> None:
    """An admission webhook of one namespace times out. The others keep their order."""
    api.hanging = ROLLOUT.namespace

    async def body() -> None:
        api.release = asyncio.Event()
        sink = ApiEventSink(api, WallClock(), "operator-0")
        emit(sink, "1", "2", "3")
        emit(sink, *"abc", rollout=ELSEWHERE)
        await until(lambda: len(api.objects) == 3)
        assert api.sent() == [("elsewhere", message) for message in "abc"]
        assert set(api.limits) == {URGENT_SECONDS}
        api.release.set()
        await until(lambda: not sink._waiting)

    asyncio.run(body())


def test_queue_of_events_is_bounded_and_what_it_drops_is_logged(api: HangingApi, caplog: pytest.LogCaptureFixture) -> None:
    api.hanging = ROLLOUT.namespace

    async def body() -> None:
        api.release = asyncio.Event()
        sink = ApiEventSink(api, WallClock(), "operator-0")
        emit(sink, *(str(number) for number in range(MOST_WAITING + 2)))
        assert len(sink._waiting[ROLLOUT.namespace]) == MOST_WAITING
        await sink.close()

    asyncio.run(body())
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_process_ends_without_waiting_for_events_that_hang_and_sends_the_others(api: HangingApi) -> None:
    api.hanging = ROLLOUT.namespace

    async def body() -> None:
        api.release = asyncio.Event()
        sink = ApiEventSink(api, WallClock(), "operator-0")
        emit(sink, "1")
        emit(sink, "a", rollout=ELSEWHERE)
        await asyncio.wait_for(sink.close(), 60)
        assert api.sent() == [("elsewhere", "a")]

    asyncio.run(body())
