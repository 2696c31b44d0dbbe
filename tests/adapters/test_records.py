"""The ring of ConfigMaps with decision records: what is written is read again, through crashes, deletions and outages."""

import asyncio
import base64
import copy
from typing import Any

import pytest

from adapters.api import Api
from controller.cluster import until
from core.world import World, spec
from session_rollout.adapters import records
from session_rollout.adapters.records import ConfigMapRecorder
from session_rollout.core.decide import decide
from session_rollout.errors import Unavailable
from session_rollout.records.codec import SEQUENCE, SLOTS, sequence_of
from session_rollout.records.reader import records as read
from session_rollout.records.record import Record

ROOT = "/api/v1/namespaces/default/configmaps/"


def keep(recorder: ConfigMapRecorder, world: World, count: int = 1) -> None:
    """Reconcile a world and keep each decision."""
    for _ in range(count):
        observed, now = world.observed(), world.now
        asyncio.run(recorder.keep(observed, now, decide(observed, now)))
        world.reconcile()
        world.run(10)


def kept(api: Api) -> list[Record]:
    """All records, oldest first."""
    return read([item for path, item in api.objects.items() if path.startswith(ROOT)])


def test_decisions_are_read_as_they_were_made() -> None:
    """Every one decides the same again."""
    api, world = Api(), World(spec())
    keep(ConfigMapRecorder(api), world, 5)
    times = [record.time for record in kept(api)]
    assert len(times) == 5
    assert times == sorted(times)
    assert all(record.agrees() for record in kept(api))
    assert len(api.objects) == 1, "one slot, with a small patch for each decision"


def test_next_process_continues_where_the_one_before_stopped() -> None:
    api, world = Api(), World(spec())
    keep(ConfigMapRecorder(api), world, 2)
    keep(ConfigMapRecorder(api), world, 2)
    assert len(kept(api)) == 4
    assert len(api.objects) == 1


def test_next_process_does_not_continue_a_copy() -> None:
    """A tool has mirrored an earlier state of the slot, with its label and its owner: what was kept since would be written over."""
    api, world = Api(), World(spec())
    keep(ConfigMapRecorder(api), world)
    [slot] = api.objects.values()
    api.objects = {f"{ROOT}copy": copy.deepcopy(slot), **api.objects}
    api.objects[f"{ROOT}copy"]["metadata"]["name"] = "copy"
    keep(ConfigMapRecorder(api), world, 3)
    keep(ConfigMapRecorder(api), world, 2)
    assert len(kept(api)) == 6


def test_ring_overwrites_its_oldest_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full slots: each decision begins another one."""
    monkeypatch.setattr(records, "SLOT_BYTES", 1)
    api, world = Api(), World(spec())
    keep(ConfigMapRecorder(api), world, SLOTS + 2)
    assert len(api.objects) == SLOTS
    sequences = sorted(int(item["data"][SEQUENCE]) for item in api.objects.values())
    assert sequences == list(range(2, SLOTS + 2))
    assert len(kept(api)) == SLOTS


def test_slot_that_was_deleted_is_started_again() -> None:
    api, world = Api(), World(spec())
    recorder = ConfigMapRecorder(api)
    keep(recorder, world)
    api.objects.clear()
    keep(recorder, world)
    assert len(kept(api)) == 1


def test_records_of_a_rollout_that_had_the_name_before_stay_and_are_older() -> None:
    """They belong to another UID, and are not continued; in the slots of both, the newest are one's own."""
    api = Api()
    keep(ConfigMapRecorder(api), World(spec(), uid="uid-0"), 2)
    keep(ConfigMapRecorder(api), World(spec()))
    keep(ConfigMapRecorder(api), World(spec()))
    assert [slot["metadata"]["ownerReferences"][0]["uid"] for slot in api.objects.values()] == ["uid-0", "uid-1"]
    assert [record.rollout.uid for record in kept(api)] == ["uid-0", "uid-0", "uid-1", "uid-1"]


def test_slot_keeps_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only who may delete an object may give it another owner, and the operator may not delete ConfigMaps."""
    monkeypatch.setattr(records, "SLOT_BYTES", 1)
    api = Api()
    keep(ConfigMapRecorder(api), World(spec(), uid="uid-0"), SLOTS)
    for slot in api.objects.values():
        del slot["metadata"]["ownerReferences"]  # deleted with `--cascade=orphan`
    keep(ConfigMapRecorder(api), World(spec()), 2)
    assert not any("ownerReferences" in slot["metadata"] for slot in api.objects.values())
    assert [record.rollout.uid for record in kept(api)][-2:] == ["uid-1", "uid-1"]


@pytest.mark.parametrize(
    "edit",
    [
        {"data": None},
        {"data": {SEQUENCE: "x"}},
        {"binaryData": None},
        {"binaryData": {"base": "x"}},
        {"binaryData": {"base": base64.b64encode(b"x").decode()}},
    ],
)
def test_slot_that_was_edited_stops_no_record(edit: dict[str, Any]) -> None:
    api = Api()
    keep(ConfigMapRecorder(api), World(spec()))
    [path] = api.objects
    api.objects[path] = api.objects[path] | edit
    keep(ConfigMapRecorder(api), World(spec()), 2)
    assert len(read([max(api.objects.values(), key=sequence_of)])) == 2


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_outage_delays_a_record_and_loses_none(method: str) -> None:
    """It is written with the next decision, and no caller fails."""
    api, world = Api(), World(spec())
    recorder = ConfigMapRecorder(api)
    if method == "PATCH":
        keep(recorder, world)
    api.failures[method] = [Unavailable("down")]
    keep(recorder, world, 2)
    assert len(kept(api)) == (3 if method == "PATCH" else 2)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_write_that_hangs_delays_no_decision_and_loses_no_record(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """An admission webhook times out. What waits is written in order when it responds."""
    monkeypatch.setattr(records, "WRITE_SECONDS", 0)
    api, world, request = Api(), World(spec()), Api.request

    async def body() -> None:
        recorder, released = ConfigMapRecorder(api), asyncio.Event()

        async def hang(api: Api, kind: str, *arguments: Any, **options: Any) -> Any:
            if kind == method:
                await released.wait()
            return await request(api, kind, *arguments, **options)

        monkeypatch.setattr(Api, "request", hang)
        for _ in range(3):
            observed, now = world.observed(), world.now
            await asyncio.wait_for(recorder.keep(observed, now, decide(observed, now)), 60)
            world.reconcile()
            world.run(10)
        assert kept(api) == []
        released.set()
        await until(lambda: len(kept(api)) == 3)

    asyncio.run(body())
    times = [record.time for record in kept(api)]
    assert times == sorted(times)


def test_deleted_rollout_is_forgotten() -> None:
    api: Any = Api()
    recorder, world = ConfigMapRecorder(api), World(spec())
    keep(recorder, world)
    recorder.forget(world.uid)
    assert recorder._rings == {}
    assert base64.b64decode(next(iter(api.objects.values()))["binaryData"]["base"])
