"""Objects of a CRD of another version: what can be read of a newer one and is written back, and what an older one drops."""

import copy
from typing import Any

import pytest

from core.world import World, at, spec
from session_rollout.api.parsing import first_missing, merged, readable, readable_rollout_of
from session_rollout.api.rollout import DeletionPolicy, RolloutSpec
from session_rollout.api.status import RolloutStatus


def raw(**changes: Any) -> dict[str, Any]:
    """A rollout with a published step, with parts of its spec changed."""
    world = World(spec())
    world.until(at("one", 1))
    metadata = {"namespace": "default", "name": "shop", "uid": "uid-1", "generation": 2}
    return {"metadata": metadata, "spec": {**spec().to_wire(), **changes}, "status": world.status.to_wire()}


@pytest.mark.parametrize(
    "changes",
    [
        {"novel": True},
        {"deletionPolicy": "Novel"},
        {"guards": [{"name": "errors", "metric": "errors", "below": "5%", "onBreach": "Novel"}]},
        {"features": [{"name": "alpha", "novel": {"a": [1]}}, {"name": "beta"}, {"name": "gamma"}]},
        {"phases": [{"name": "one", "features": ["alpha"], "steps": [{"novel": 1}]}]},
        {"checkInterval": 5},
        {"phases": "novel"},
        {"features": None, "flagSet": 1},
    ],
    ids="+".join,
)
def test_what_is_published_can_be_read(changes: dict[str, Any]) -> None:
    rollout = readable_rollout_of(raw(**changes))
    assert [record.features for record in rollout.status.phases] == [("alpha", "beta"), ()]
    assert rollout.spec.flag_set == "shop"
    if "features" not in changes or changes["features"]:
        assert [feature.name for feature in rollout.spec.features] == ["alpha", "beta", "gamma"]


def test_deletion_policy_is_read_whatever_else_is_unknown() -> None:
    assert readable_rollout_of(raw(phases=1, deletionPolicy="Off")).spec.deletion_policy is DeletionPolicy.OFF
    assert readable_rollout_of(raw(phases=1, deletionPolicy="Novel")).spec.deletion_policy is DeletionPolicy.RETAIN


def test_status_with_unknown_parts_can_be_read() -> None:
    data = raw()["status"]
    data["current"]["stage"] = "Novel"
    data["flags"]["novel"] = 1
    data["history"][0]["event"] = "Novel"
    status = readable(RolloutStatus, data)
    assert status is not None
    assert status.phases[0].percent == "10"
    assert len(status.history) == len(data["history"]) - 1


def test_nothing_can_be_read_of_something_else() -> None:
    assert readable(RolloutSpec, "novel") is None
    assert readable(RolloutSpec, {}) is None


def test_reading_changes_nothing() -> None:
    data = raw(novel=1)
    before = copy.deepcopy(data)
    readable_rollout_of(data)
    assert data == before


def test_change_is_merged_into_what_was_not_read() -> None:
    stored = {
        "a": {"x": 1, "novel": 2},
        "gone": 1,
        "novel": 3,
        "same": [1, "novel"],
        "list": [{"name": "n", "v": 1, "novel": 4}, {"name": "m"}],
    }
    before = {"a": {"x": 1}, "gone": 1, "same": [1], "list": [{"name": "n", "v": 1}]}
    after = {"a": {"x": 2}, "same": [1], "list": [{"name": "n", "v": 2}], "new": 5}
    assert merged(stored, before, after) == {
        "a": {"x": 2, "novel": 2},
        "novel": 3,
        "same": [1, "novel"],
        "list": [{"name": "m"}, {"name": "n", "v": 2, "novel": 4}],
        "new": 5,
    }


def test_list_becomes_no_longer_than_it_may_be() -> None:
    """Of a full history, an entry that was not read makes room for the new one."""
    assert merged([{"event": "Novel"}, {"event": "A"}], [{"event": "A"}], [{"event": "A"}, {"event": "B"}]) == [
        {"event": "A"},
        {"event": "B"},
    ]


@pytest.mark.parametrize(
    ("sent", "stored", "field"),
    [
        ({}, {}, ""),
        ({"a": 1, "b": {"c": ""}}, {"b": {"c": ""}, "a": 1, "default": 2}, ""),
        ({"time": "10:00:00Z"}, {"time": "10:00:00.000Z"}, ""),
        ({"a": {"b": []}}, {"a": {}}, "status.a.b"),
        ({"a": [{"b": 1}, {"b": 1, "c": 2}]}, {"a": [{"b": 1}, {"b": 1}]}, "status.a[].c"),
        ({"a": [[{"b": 1}]]}, {"a": [[{}]]}, "status.a[][].b"),
        ({"a": None}, {}, "status.a"),
        ({"first": 1, "second": 2}, {}, "status.first"),
        ({"a": {"b": 1}}, {"a": "text"}, ""),
    ],
)
def test_first_field_that_the_api_server_dropped(sent: Any, stored: Any, field: str) -> None:
    """Only what is missing counts: values may be written in another way, and fields may get their defaults."""
    assert first_missing(sent, stored, "status") == field
