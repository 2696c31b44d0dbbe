"""Decision records: each can be decided again, they are small, and unreadable ones are an error of their own.

Covered: record, codec and reader. Not here: how they are written to ConfigMaps (tests/integration), `explain` (tests/cli).
"""

import base64
import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.world import START, World, at, ended, spec
from session_rollout.api.enums import DecisionAction, DecisionReason, Verdict
from session_rollout.core.observed import Revisions
from session_rollout.records import reader
from session_rollout.records.codec import BASE, RECORD_LABEL, SEQUENCE, SLOTS, entry_name, lines_in, pack, unpack
from session_rollout.records.record import Record, line_of, records_in

EVERYTHING: dict[str, Any] = {
    "workload": {"kind": "Deployment", "name": "web"},
    "preflight": [{"name": "health", "http": {"service": "web", "path": "/health"}}],
    "notifications": [{"sink": "chat", "events": ["PhaseStarted", "Promoted"]}],
}


def record_of(world: World) -> Record:
    """The record of the next decision."""
    observed = world.observed()
    return Record.of(observed, world.now, world.reconcile())


def packed(lines: list[bytes]) -> dict[str, bytes]:
    """One slot with these lines, the first as the dictionary of the others."""
    return {BASE: pack(lines[0]), **{entry_name(number): pack(line, lines[0]) for number, line in enumerate(lines[1:])}}


@pytest.fixture(scope="module")
def whole_run() -> tuple[World, list[bytes]]:
    """A run with every kind of input in it, to its end, and a line for each decision that changed the status."""
    world = World(spec(**EVERYTHING), revisions=Revisions(7, 6))
    world.gates["health"] = Verdict.PASS
    lines: list[bytes] = []
    requested = False
    while not ended(world) and world.now < START + timedelta(hours=1):
        before = world.writes
        record = record_of(world)
        if world.writes > before:
            lines.append(line_of(record))
        world.now += timedelta(seconds=5)
        if world.where[:2] == ("two", 1) and not requested:
            requested = True
            for seconds, action in enumerate(("RestartWorkload", "Pause", "Resume")):
                world.request(action, after=timedelta(seconds=5 * seconds))
    return world, lines


def test_every_decision_can_be_decided_again(whole_run: tuple[World, list[bytes]]) -> None:
    """The record, as a line, packed and unpacked, gives the same action, reason and place."""
    world, lines = whole_run
    records = records_in(packed(lines))
    assert len(records) == len(lines) > 12
    assert all(record.agrees() for record in records)
    assert records[-1].decide_again().status == world.status


CHANGES: dict[str, dict[str, Any]] = {
    "action": {"action": DecisionAction.STALL},
    "reason": {"reason": DecisionReason.PAUSED},
    "place": {"step": 7},
    "audience": {"percent": "1"},
}


@pytest.mark.parametrize("changed", CHANGES.values(), ids=CHANGES)
def test_record_that_differs_in_a_field_does_not_agree(whole_run: tuple[World, list[bytes]], changed: dict[str, Any]) -> None:
    """A core that decides otherwise is noticed."""
    record = records_in(packed(whole_run[1]))[-1]
    if {"step", "percent"} & set(changed):
        changed = {"current": record.current.updated(**changed)}
    assert not record.model_copy(update=changed).agrees()


def test_record_that_differs_in_words_agrees(whole_run: tuple[World, list[bytes]]) -> None:
    """Messages may be reworded between two versions of the operator."""
    record = records_in(packed(whole_run[1]))[-1]
    assert record.model_copy(update={"message": "other words", "details": ("other words",)}).agrees()


def test_records_are_small() -> None:
    """Entries after the first cost a fraction of it."""
    world = World(spec())
    first = line_of(record_of(world))
    world.until(at("one", 1))
    later = line_of(record_of(world))
    assert len(pack(later, first)) < 0.2 * len(later)
    assert unpack(pack(later, first), first) == later
    assert json.loads(first)["observed"]["rollout"]["name"] == "shop"


@pytest.mark.parametrize("entries", [{BASE: b"rubbish"}, {}], ids=["not compressed", "no dictionary"])
def test_unreadable_records_are_an_error(entries: dict[str, bytes]) -> None:
    """ValueError, whatever is wrong with them."""
    with pytest.raises(ValueError):  # noqa: PT011 - the message is for people
        records_in(entries)


def test_newest_lines_of_a_slot() -> None:
    """Only as many as are wanted, oldest first; all when there are fewer."""
    entries = packed([b"one", b"two", b"three"])
    assert lines_in(entries) == [b"one", b"two", b"three"]
    assert lines_in(entries, 1) == [b"three"]
    assert lines_in(entries, 9) == [b"one", b"two", b"three"]


def slot(number: int, lines: list[bytes], name: str = "") -> dict[str, Any]:
    """A ConfigMap of the ring, as the API server has it."""
    data = {key: base64.b64encode(value).decode() for key, value in packed(lines).items()}
    metadata = {"name": name or f"shop-decisions-{number % SLOTS:02}", "labels": {RECORD_LABEL: "shop"}}
    return {"metadata": metadata, "data": {SEQUENCE: str(number)}, "binaryData": data}


def test_reader_orders_slots_and_reads_the_values(whole_run: tuple[World, list[bytes]]) -> None:
    """Slots come in any order; trends are the last values that decisions used."""
    lines = whole_run[1]
    half = len(lines) // 2
    slots = [slot(12, lines[half:]), slot(11, lines[:half])]
    assert [record.time for record in reader.records(slots)] == [Record.model_validate_json(line).time for line in lines]
    values = reader.trends(slots)
    assert values["load"][-1] == Decimal("1.0")
    assert len(values["load"]) <= reader.VALUES
    assert reader.trends([slot(1, lines) | {"binaryData": {BASE: "rubbish="}}]) == {}


def test_reader_ignores_copies_of_slots(whole_run: tuple[World, list[bytes]]) -> None:
    """A tool that mirrors ConfigMaps copies labels, too: each record would be there twice, and the last value an old one."""
    own, old = slot(11, whole_run[1]), whole_run[1][:1]
    foreign = slot(12, old, "shop-decisions-11-copy"), slot(13, old, "backup"), slot(27, old, "shop-decisions-27")
    assert reader.records([own, *foreign]) == reader.records([own])
    assert reader.trends([own, *foreign]) == reader.trends([own]) != {}
