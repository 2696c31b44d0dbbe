"""Random lives of a rollout: results, edits, actions, faults of the cluster, crashes and clock jumps in any order.

The promises are stated against what the test itself fed in, not against the operator's records: see `core.model.promises` for
all of them, `core.model.lives` for what happens, and `core.model.cluster` for how much of the operator is the real one.
"""

import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings

from core.model.cluster import Broken
from core.model.lives import Event, Life
from core.model.server import status_problems
from core.model.strategies import LIVES
from session_rollout.api.enums import DecisionAction, Outcome
from session_rollout.controller import decisions
from session_rollout.core.decide import decide
from session_rollout.core.flags import KEY
from session_rollout.core.observed import Decision

RUNS = int(os.environ.get("MODEL_RUNS", "1000"))
SEED = int(os.environ.get("MODEL_SEED", "0"))  # other lives: so a run of many can be made in parts
SETTINGS: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """An operator whose writes are refused logs each of them."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@seed(SEED)
@settings(max_examples=RUNS, **SETTINGS)
@given(life=LIVES)
def test_promises_hold_in_random_lives(life: tuple[str, list[Event]]) -> None:
    """See the module."""
    shape, events = life
    Life(shape).live(events)


@seed(SEED)
@settings(max_examples=max(RUNS // 50, 10), **SETTINGS)
@given(life=LIVES)
def test_decision_made_twice_is_the_same(life: tuple[str, list[Event]]) -> None:
    """Deciding again on the same facts gives the same status and the same effects."""

    def twice(*facts: Any) -> Decision:
        first = decide(*facts)
        assert decide(*facts) == first
        return first

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decisions, "decide", twice)
        shape, events = life
        Life(shape, frozenset()).live(events)


def test_a_healthy_life_ends() -> None:
    """With results, an approval and a working cluster a life ends Promoted: the promises are no standstill."""
    life = Life("plain").live([("proceed", "end")])
    assert life.cluster.status.outcome is Outcome.PROMOTED
    assert life.cluster.status.decision.action is DecisionAction.NONE
    assert {name: given.percent for name, given in life.witness.known.items()} == {"alpha": 60, "beta": 100}
    assert [answer["accepted"] for answer in life.witness.answers.values()] == [True]


# --- the witness itself


def alter(life: Life, **current: Any) -> None:
    """Somebody damages the stored status: its responses are lost, and fields of `current` are others."""
    cluster = life.cluster
    assert cluster.raw is not None
    status = {**cluster.raw["status"], "processedActions": []}
    status["current"] = {**status["current"], **current}
    cluster.server.put(cluster.path, {**cluster.raw, "status": status})
    cluster.replica.memory.of(cluster.keys[0]).stored = None  # as if the operator had written it itself


def test_witness_objects_to_an_audience_that_grows_too_soon() -> None:
    """An operator that loses count of its hold is caught."""
    life = Life("plain").live([("wait", 10)])
    alter(life, holdUntil="2026-01-05T10:00:15Z")
    with pytest.raises(Broken, match="judged"):
        life.tick()


def test_witness_objects_to_a_fall_without_a_reason() -> None:
    """An operator that publishes less than it has, for no reason, is caught."""
    life = Life("plain")
    before = life.cluster.document_object
    assert before is not None
    life.live([("proceed", "step")])
    nothing = {**before, "data": {KEY: before["data"][KEY].replace('"on"', '"off"').replace('"revision": 2', '"revision": 9')}}
    with pytest.raises(Broken, match="no-fall"):
        life.cluster.server.put(life.cluster.document_path, nothing)


def test_witness_objects_to_an_action_that_is_carried_out_twice() -> None:
    """An operator that forgets its answers is caught."""
    life = Life("plain", frozenset({"answer"})).live([("wait", 10), ("act", "Pause")])
    alter(life)
    server = life.cluster.server
    [path] = [path for path in server.objects if "/pause-" in path]
    server.put(path, {key: value for key, value in server.objects[path].items() if key != "status"})
    with pytest.raises(Broken, match="has two answers"):
        life.live([("crash", "known")])


def test_witness_objects_to_a_status_that_the_schema_refuses() -> None:
    """The schema of the CRD is applied to every status that is written."""
    status = Life("plain").cluster.status.to_wire()
    assert status_problems()(status) is None
    condition = status["conditions"][0]
    assert status_problems()({**status, "conditions": [{**condition, "message": "x" * 600}]}) is not None
    assert status_problems()({**status, "conditions": [condition, condition]}) == "status.conditions has an entry twice"
    assert status_problems()({**status, "outcome": "Nothing"}) is not None
