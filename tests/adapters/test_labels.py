"""The recommended labels on everything that the operator creates, beside the labels it finds its objects by."""

import asyncio
import re
from typing import Any

import pytest

from adapters.api import merged
from core.world import World, spec
from session_rollout.adapters import labels
from session_rollout.adapters.flags import LABEL, ConfigMapPublisher
from session_rollout.adapters.jobs import check_body, job_body
from session_rollout.adapters.records import ConfigMapRecorder
from session_rollout.api.migration_enums import Operation
from session_rollout.core.decide import decide
from session_rollout.core.observed import Publish, StartCheck, StartJob
from session_rollout.records.codec import RECORD_LABEL
from session_rollout.settings import CheckProfile, Profile

RECOMMENDED = {f"app.kubernetes.io/{name}" for name in ("name", "part-of", "component", "version", "managed-by")}
MIGRATING: dict[str, Any] = {
    "database": {"secretKeyRef": {"name": "database"}},
    "migrations": [{"name": "tables", "bundle": "session-persistence/schema"}],
}


class Api:
    """An API server that keeps what is written."""

    def __init__(self) -> None:
        self.objects: list[Any] = []

    async def request(self, method: str, _path: str, body: Any = None, **_: Any) -> Any:
        if method == "GET":
            return {"items": []}
        self.objects.append(merged(self.objects[-1], body) if method == "PATCH" else body)
        return await self.find(_path)

    async def find(self, _path: str) -> Any:
        if not self.objects:
            return None
        return {**self.objects[-1], "metadata": {**self.objects[-1]["metadata"], "resourceVersion": "1"}}


def written(world: World, what: str) -> Any:
    """The labels of an object of each kind."""
    api: Any = Api()
    rollout = world.rollout()
    match what:
        case "migration":
            return job_body(rollout, StartJob("shop-tables", "tables", Operation.UP, 0), Profile(image="x"))
        case "check":
            return check_body(rollout, StartCheck("shop-smoke", "smoke"), CheckProfile(image="x"))
        case "flags":
            world.settle()
            asyncio.run(ConfigMapPublisher(api).publish(rollout, Publish("shop-flags", world.documents[-1], "", None)))
        case "released flags":
            world.settle()
            publisher = ConfigMapPublisher(api)
            document = asyncio.run(publisher.publish(rollout, Publish("shop-flags", world.documents[-1], "", None)))
            asyncio.run(publisher.release(rollout, "shop-flags", document, None))
        case "record":
            asyncio.run(ConfigMapRecorder(api).keep(world.observed(), world.now, decide(world.observed(), world.now)))
    return api.objects[-1]


@pytest.mark.parametrize(
    ("what", "component", "own"),
    [
        ("migration", "migration", {LABEL}),
        ("check", "check", {LABEL}),
        ("flags", "flags", {LABEL}),
        ("released flags", "flags", set()),
        ("record", "record", {RECORD_LABEL}),
    ],
)
def test_every_object_has_the_recommended_labels(what: str, component: str, own: set[str]) -> None:
    created = written(World(spec(**(MIGRATING if what == "migration" else {}))), what)
    given = created["metadata"]["labels"]
    assert set(given) >= RECOMMENDED | own
    assert given["app.kubernetes.io/component"] == component
    if created["kind"] == "Job":
        assert created["spec"]["template"]["metadata"]["labels"] == given


def test_a_version_of_a_commit_is_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "version", lambda _: "0.2.0.dev3+g1f620c3")
    for value in labels.recommended("flags").values():
        assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", value), value
