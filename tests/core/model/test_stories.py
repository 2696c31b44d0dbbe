"""Each row of the cases as a life: the smallest one that broke a promise before it was fixed, and the rows that need more."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from core.model.cluster import Cluster
from core.model.documents import audiences
from core.model.fault_stories import STORIES
from core.model.lives import GOOD, Life
from core.model.replica import NAMESPACE, Reading, known
from core.model.server import kind_of
from core.model.shapes import SHAPES
from core.model.stories import Story
from session_rollout.adapters.api_server import REQUEST_SECONDS
from session_rollout.api.rollout import FeatureSpec, RolloutSpec
from session_rollout.errors import Unavailable
from session_rollout.ports import Key


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """An operator whose writes are refused logs each of them."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: f"{story.row} {story.sentence}")
def test_story(story: Story) -> None:
    """Every promise holds in the life that a row tells."""
    Life(story.shape).live(list(story.events))


class Neighbours(Cluster):
    """Two rollouts of one namespace under one operator."""

    def look(self, name: str) -> tuple[str, dict[str, str]]:
        """What a rollout says it has published, and its conditions."""
        status = self.server.objects[self.path.replace("/shop", f"/{name}")]["status"]
        return status["current"]["percent"], {condition["type"]: condition["status"] for condition in status["conditions"]}

    def share(self, **changes: Any) -> "Neighbours":
        """Both have the features of one shape; let a minute pass."""
        self.readings = {name: Reading(GOOD) for name in ("errors", "slow")}
        self.create(RolloutSpec.model_validate(SHAPES["plain"]))
        self.reconcile()
        self.keys = (*self.keys, Key(NAMESPACE, "second"))
        self.create(RolloutSpec.model_validate({**SHAPES["plain"], **changes}), "second")
        self.take_over()
        self.reconcile()
        return self


def test_two_rollouts_with_one_flag_set() -> None:
    """D18: the second publishes nothing, and says so."""
    cluster = Neighbours().share()
    before = cluster.document
    percent, conditions = cluster.look("second")
    assert cluster.document == before
    assert (percent, conditions["Stalled"]) == ("0", "True")


def test_one_feature_in_two_rollouts() -> None:
    """D19: two documents with one feature give it to different users; the one that came later says so."""
    cluster = Neighbours().share(flagSet="other")
    raw = cluster.server.objects[cluster.path.replace("/shop", "/second")]
    assert "FeatureShared" in [entry["event"] for entry in raw["status"]["history"]]


@pytest.mark.parametrize("change", ["off", "more"])
def test_a_copy_of_the_document_changes_nothing(change: str) -> None:
    """Somebody prepares the edit for an emergency under another name: users keep what they have, and the operator writes nothing."""
    life = Life("plain").live([("proceed", "step"), ("wait", 10)])
    before = life.cluster.document_object
    assert any(given.percent for given in audiences(life.cluster.document).values())
    life.live([("copy", change), ("copy", change)])
    assert life.cluster.document_object == before
    assert life.cluster.status.flags.disabled == ()


def test_a_jump_of_the_clock_is_in_the_status() -> None:
    """R14: and the next process, which has adopted the time, does not forget it."""
    life = Life("plain").live([("wait", 10), ("jump", -3600), ("wait", 10)])
    record = life.cluster.status.clock_jump
    assert record is not None
    assert record.milliseconds == -3_600_000
    life.live([("crash", "known"), ("wait", 10)])
    assert life.cluster.status.clock_jump == record


def test_a_shipped_feature_is_retired() -> None:
    """D20: a retired feature leaves the plan, and users keep it."""
    life = Life("plain").live([("proceed", "end")])
    data = life.spec.to_wire()
    features = [{"name": "alpha", **known(FeatureSpec, retired=True)}, {"name": "beta"}]
    life.cluster.edit(RolloutSpec.model_validate({**data, "features": features, "phases": data["phases"][1:]}))
    life.cluster.reconcile()
    assert life.cluster.condition("Stalled") == "False"
    assert audiences(life.cluster.document)["alpha"].percent == 60


@pytest.mark.parametrize("takes", [12.0, 30.0])
def test_release_waits_for_a_slow_webhook(monkeypatch: pytest.MonkeyPatch, takes: float) -> None:
    """R3: it admits each write, after a while. `deletionPolicy: Off` leaves nothing on."""
    life = Life("turned off", frozenset())
    life.live([("proceed", "step"), ("wait", 10)])
    cluster = life.cluster
    assert any(given.percent for given in audiences(cluster.document).values())
    request = cluster.server.request

    async def slow(method: str, path: str, *arguments: Any, seconds: float = REQUEST_SECONDS, **known: Any) -> Any:
        if kind_of(method, path) == "document":
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), min(seconds, takes))
            if seconds < takes:
                raise Unavailable("API server: TimeoutError")
        return await request(method, path, *arguments, seconds=seconds, **known)

    monkeypatch.setattr(cluster.server, "request", slow)
    cluster.delete()
    assert cluster.raw is None
    assert not any(given.percent for given in audiences(cluster.document).values())
