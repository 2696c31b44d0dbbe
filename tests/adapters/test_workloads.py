"""The application's Deployment and the flag document against an API server in memory."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from adapters.api import Api
from core.world import World, spec
from session_rollout.adapters.flags import LABEL, ConfigMapPublisher, fingerprint_of
from session_rollout.adapters.workloads import REVISION, ApiWorkloads
from session_rollout.api.base import sha256_of
from session_rollout.api.rollout import Workload
from session_rollout.core.flags import KEY
from session_rollout.core.observed import Revisions
from session_rollout.errors import SpecError, Unavailable
from session_rollout.ports import Fingerprint

APPS = "/apis/apps/v1/namespaces/default"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
FLAGS = "/api/v1/namespaces/default/configmaps/shop-flags"
WEB = Workload(name="web")
NOW = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)


@pytest.fixture
def api() -> Api:
    """A Deployment at revision 3, with two earlier ReplicaSets and one of another Deployment."""
    api = Api()
    labels = {"matchLabels": {"app": "web"}}
    template: dict[str, Any] = {"metadata": {"labels": {"app": "web"}}, "spec": {"image": "web:3"}}
    metadata = {"uid": "deployment", "annotations": {REVISION: "3"}}
    api.put(f"{APPS}/deployments/web", {"metadata": metadata, "spec": {"selector": labels, "template": template}})
    for revision, owner in ((1, "deployment"), (2, "deployment"), (3, "deployment"), (2, "another")):
        replica_set = {
            "metadata": {"ownerReferences": [{"uid": owner}], "annotations": {REVISION: str(revision)}},
            "spec": {"template": {"metadata": {"labels": {"pod-template-hash": "x"}}, "spec": {"image": f"web:{revision}"}}},
        }
        api.put(f"{APPS}/replicasets/{owner}-{revision}", replica_set)
    api.put(REVIEWS, {"status": {"allowed": True}})
    return api


def image(api: Api) -> str:
    return str(api.objects[f"{APPS}/deployments/web"]["spec"]["template"]["spec"]["image"])


def revisions(api: Api) -> Revisions | None:
    return asyncio.run(ApiWorkloads(api).revisions("default", WEB))


def test_availability(api: Api) -> None:
    """None when it is available: the name says what a text means."""

    def reason() -> str | None:
        return asyncio.run(ApiWorkloads(api).unavailable_reason("default", WEB))

    assert reason() is not None, "no condition yet"
    for status in ("False", "True"):
        api.objects[f"{APPS}/deployments/web"]["status"] = {"conditions": [{"type": "Available", "status": status}]}
        assert (reason() is None) is (status == "True")
    api.objects.clear()
    assert reason() is not None


def test_revisions(api: Api) -> None:
    assert revisions(api) == Revisions(3, 2)
    asyncio.run(ApiWorkloads(api).restart("default", WEB, NOW))
    assert revisions(api) == Revisions(3, 2, restarted=NOW)


def test_missing_right_blocks_a_change(api: Api) -> None:
    api.objects[REVIEWS] = {"status": {"allowed": False}}
    observed = revisions(api)
    assert observed is not None
    assert observed.blocked_reason is not None


def test_missing_deployment() -> None:
    assert revisions(Api()) is None
    with pytest.raises(Unavailable):
        asyncio.run(ApiWorkloads(Api()).undo("default", WEB, revision=3, earlier=2))


def test_undo_restores_the_template_of_the_earlier_revision(api: Api) -> None:
    asyncio.run(ApiWorkloads(api).undo("default", WEB, revision=3, earlier=2))
    assert image(api) == "web:2"
    assert api.objects[f"{APPS}/deployments/web"]["spec"]["template"]["metadata"]["labels"] == {}


def test_undo_of_a_revision_that_is_no_longer_current_changes_nothing(api: Api) -> None:
    """Somebody deployed meanwhile."""
    with pytest.raises(SpecError):
        asyncio.run(ApiWorkloads(api).undo("default", WEB, revision=2, earlier=1))
    assert image(api) == "web:3"


def test_undo_to_a_revision_that_was_cleaned_up(api: Api) -> None:
    del api.objects[f"{APPS}/replicasets/deployment-2"]
    with pytest.raises(SpecError):
        asyncio.run(ApiWorkloads(api).undo("default", WEB, revision=3, earlier=2))


# --- the flag document


def document() -> str:
    """A document of the real compiler."""
    world = World(spec())
    world.settle()
    return world.documents[-1]


ROLLOUT, OTHER = World(spec()).rollout(), World(spec(), name="other").rollout()


def test_document_is_published_and_read_back() -> None:
    api, text = Api(), document()
    published = asyncio.run(ConfigMapPublisher(api).publish(ROLLOUT, "shop-flags", text))
    assert published == Fingerprint(sha256_of(text), api.version)
    assert asyncio.run(ConfigMapPublisher(api).fingerprint("default", "shop-flags")) == published
    assert "ownerReferences" not in api.objects[FLAGS]["metadata"], "garbage collection must not take it"


def test_malformed_document_is_never_published() -> None:
    api = Api()
    with pytest.raises(SpecError):
        asyncio.run(ConfigMapPublisher(api).publish(ROLLOUT, "shop-flags", '{"flags": {"alpha": {"state": "ON"}}}'))
    assert api.requests == []


def test_document_of_another_rollout_is_neither_overwritten_nor_released() -> None:
    api = Api()
    publisher = ConfigMapPublisher(api)
    asyncio.run(publisher.publish(OTHER, "shop-flags", document()))
    before = api.objects[FLAGS]
    with pytest.raises(SpecError):
        asyncio.run(publisher.publish(ROLLOUT, "shop-flags", document()))
    asyncio.run(publisher.release(ROLLOUT, "shop-flags", "{}"))
    assert api.objects[FLAGS] == before


@pytest.mark.parametrize("text", [None, "{}"])
def test_released_document_stays_with_the_given_text(text: str | None) -> None:
    api = Api()
    publisher = ConfigMapPublisher(api)
    asyncio.run(publisher.publish(ROLLOUT, "shop-flags", document()))
    asyncio.run(publisher.release(ROLLOUT, "shop-flags", text))
    assert api.objects[FLAGS]["data"][KEY] == (document() if text is None else text)


def test_release_that_fails_may_be_repeated() -> None:
    api = Api()
    publisher = ConfigMapPublisher(api)
    asyncio.run(publisher.publish(ROLLOUT, "shop-flags", document()))
    api.failures["PATCH"] = [SpecError("the namespace is being terminated")]
    with pytest.raises(Unavailable):
        asyncio.run(publisher.release(ROLLOUT, "shop-flags", None))


def test_config_map_without_a_document_has_no_fingerprint() -> None:
    metadata = {"resourceVersion": "7", "labels": {LABEL: "shop"}}
    assert fingerprint_of({"metadata": metadata}) == Fingerprint(None, 7)
