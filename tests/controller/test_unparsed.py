"""A rollout that the operator cannot parse, because the CRD is newer: it says so, and what protects users still works.

What can be read of such an object is tested in tests/api/test_parsing.
"""

import json
import logging
from typing import Any

import pytest

from controller.cluster import KEY, Cluster, Process, run
from session_rollout.api.enums import ActionReason, DecisionReason, EventReason, State
from session_rollout.controller.loops import Loop
from session_rollout.core.documents import read_document
from session_rollout.core.flags import NOBODY, Audience
from session_rollout.errors import Unavailable

UNKNOWN: list[dict[str, Any]] = [
    {"novel": True},
    {"deletionPolicy": "Novel"},
    {"phases": "novel"},
    {"features": 1, "phases": 1},
]


@pytest.fixture(params=UNKNOWN, ids="+".join)
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """A cluster whose rollout has published a step, and has then got a spec of a newer CRD."""
    cluster = Cluster()
    cluster.add_rollout(guards=[{"name": "errors", "metric": "errors", "below": "5%"}])
    run(Process(cluster).settle)
    raw = cluster.rollouts[KEY]
    raw["spec"] |= request.param
    raw["metadata"] |= {"generation": 2, "resourceVersion": "1000"}
    raw["status"]["novel"] = {"kept": True}
    cluster.calls.clear()
    return cluster


def published(cluster: Cluster) -> dict[str, Audience | None]:
    return dict(read_document(cluster.text).audiences)


def test_status_says_so(cluster: Cluster) -> None:
    """Once, and with what was there before; a breach is not judged, and the condition says that, too."""
    before = published(cluster)

    async def body() -> None:
        process = Process(cluster)
        process.downtime.begin(lambda *_: cluster.time, [KEY])
        await process.settle()
        cluster.values["errors"] = next(iter(cluster.values.values())) + 1
        await process.settle()
        assert cluster.calls.count("write_status") == 1
        assert process.downtime.accounted.is_set()

    run(body)
    status = cluster.rollouts[KEY]["status"]
    assert status["novel"] == {"kept": True}
    assert (status["decision"]["reason"], status["state"]) == (DecisionReason.UNPARSABLE, State.STALLED)
    assert any("spec." in text for text in status["decision"]["details"])
    conditions = {each["type"]: (each["status"], each["observedGeneration"]) for each in status["conditions"]}
    assert conditions["Stalled"] == ("True", 2)
    assert (conditions["SpecValid"][0], conditions["Ready"][0], conditions["EvidenceAvailable"][0]) == (
        "False",
        "False",
        "Unknown",
    )
    assert status["observedGeneration"] == 1, "another operator adopts the generation"
    assert cluster.events.count(EventReason.STALLED) == 1
    assert published(cluster) == before


def test_change_is_logged_once(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        process = Process(cluster)
        for _ in range(5):
            await process.reconcile()

    with caplog.at_level(logging.INFO):
        run(body)
    assert len([record for record in caplog.records if "parse" in record.getMessage()]) == 1


def test_emergency_works_and_other_actions_are_answered(cluster: Cluster) -> None:
    before = published(cluster)

    async def body() -> None:
        process = Process(cluster)
        cluster.add_action("u1", "EmergencyDisable", reason="drill", features=["alpha"])
        for uid, kind in (("u2", "Abort"), ("u3", "Resume"), ("u4", "EmergencyEnable")):
            cluster.add_action(uid, kind, reason="drill")
        process.watch_actions()
        await process.settle()

    run(body)
    answers = {name: (answer.accepted, answer.reason) for name, answer in cluster.answers}
    assert answers == {
        "action-u1": (True, ActionReason.ACCEPTED),
        **{f"action-u{number}": (False, ActionReason.INVALID) for number in (2, 3, 4)},
    }
    off = read_document(cluster.text).disabled
    assert "alpha" in off
    assert published(cluster) == {name: NOBODY if name in off else audience for name, audience in before.items()}


def test_all_features_can_be_disabled_without_a_status_write(cluster: Cluster) -> None:
    """The document comes first, as always, and is answered by its annotation."""
    cluster.failures["write_status"] = [Unavailable("down")] * 10

    async def body() -> None:
        process = Process(cluster)
        cluster.add_action("u1", "EmergencyDisable", reason="drill")
        process.watch_actions()
        for _ in range(3):
            await process.reconcile()

    run(body)
    assert set(read_document(cluster.text).disabled) == {"alpha", "beta", "gamma"}
    assert [name for name, answer in cluster.answers if answer.accepted] == ["action-u1"]


def test_object_that_can_be_parsed_again_goes_on(cluster: Cluster) -> None:
    """The emergency stays in force, and the audience is what it was."""
    raw = cluster.rollouts[KEY]

    async def body() -> None:
        process = Process(cluster)
        cluster.add_action("u1", "EmergencyDisable", reason="drill", features=["gamma"])
        process.watch_actions()
        await process.settle()
        audience = published(cluster)["alpha"]
        fresh = Cluster()
        raw["spec"] = fresh.add_rollout()["spec"]
        del raw["status"]["novel"]
        await process.settle()
        assert published(cluster)["alpha"] == audience
        assert cluster.status.state is State.PROGRESSING
        assert cluster.status.observed_generation == 2
        assert list(read_document(cluster.text).disabled) == ["gamma"]

    run(body)


def test_deletion_turns_everything_off(cluster: Cluster) -> None:
    """Also what only the document has."""
    cluster.rollouts[KEY]["spec"]["deletionPolicy"] = "Off"
    process = Process(cluster)
    run(lambda: process.loops._end(KEY, Loop(cluster.rollouts.pop(KEY))))
    [text] = cluster.released
    assert text is not None
    assert set(published(cluster)) <= set(json.loads(text)["flags"])
    assert not read_document(text).gives_something


@pytest.mark.parametrize("policy", ["Off", "Retain"])
def test_new_object_that_cannot_be_parsed_publishes_nothing(policy: str) -> None:
    cluster = Cluster()
    cluster.add_rollout(deletionPolicy=policy)
    cluster.rollouts[KEY]["spec"]["novel"] = 1
    run(Process(cluster).settle)
    assert cluster.document is None
    assert cluster.status.decision.reason is DecisionReason.UNPARSABLE
