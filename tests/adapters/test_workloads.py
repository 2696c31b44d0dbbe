"""The application's Deployment and the flag document against an API server in memory."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from adapters.api import Api
from core.world import World, spec
from session_rollout.adapters.flags import LABEL, ConfigMapPublisher, document_of
from session_rollout.adapters.workloads import RESTARTED, REVISION, ApiWorkloads
from session_rollout.api.base import sha256_of
from session_rollout.api.protection import ANNOTATION, Protection, ProtectionKind
from session_rollout.api.rollout import Workload
from session_rollout.core.flags import KEY
from session_rollout.core.observed import Publish, Revisions
from session_rollout.errors import Conflict, Forbidden, SpecError, Unavailable

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


@pytest.mark.parametrize("text", ["", "x", "-1", "9" * 16, "\u0663"])
def test_annotations_that_somebody_has_edited(api: Api, text: str) -> None:
    """They name no revision and no restart; nothing fails."""
    deployment = api.objects[f"{APPS}/deployments/web"]
    deployment["metadata"]["annotations"][REVISION] = text
    deployment["spec"]["template"]["metadata"]["annotations"] = {RESTARTED: text}
    assert revisions(api) == Revisions(0)


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


def effect(text: str, version: int | None = None, **fields: Any) -> Publish:
    """What `decide` requests."""
    return Publish("shop-flags", text, sha256_of(text), version, **fields)


def test_document_is_published_and_read_back() -> None:
    api, text = Api(), document()
    published = asyncio.run(ConfigMapPublisher(api).publish(ROLLOUT, effect(text)))
    assert (published.sha256, published.version, published.owner) == (sha256_of(text), api.version, "shop")
    assert asyncio.run(ConfigMapPublisher(api).read("default", "shop-flags")) == published
    assert "ownerReferences" not in api.objects[FLAGS]["metadata"], "garbage collection must not take it"


def test_protections_are_an_annotation() -> None:
    """The next decision adopts them, if no status has them."""
    api = Api()
    time = datetime(2026, 1, 5, 10, tzinfo=UTC)
    emergency = Protection(kind=ProtectionKind.EMERGENCY, uid="u1", time=time, revision=7, features=("alpha",))
    published = asyncio.run(ConfigMapPublisher(api).publish(ROLLOUT, effect(document(), protections=(emergency,))))
    assert published.protections == (emergency,)
    again = asyncio.run(ConfigMapPublisher(api).publish(ROLLOUT, effect(document(), published.version)))
    assert again.protections == ()


@pytest.mark.parametrize("refused", [1, 2], ids=["once", "with its annotation"])
def test_refused_annotation_keeps_no_feature_on(refused: int) -> None:
    """The text protects. A refusal that is over leaves no document that nothing explains: another leader would stall."""
    api = Api()
    time = datetime(2026, 1, 5, 10, tzinfo=UTC)
    emergency = Protection(kind=ProtectionKind.EMERGENCY, uid="u1", time=time, revision=7, features=("alpha",))
    publisher = ConfigMapPublisher(api)
    first = asyncio.run(publisher.publish(ROLLOUT, effect(document())))
    refuse_annotations(api, refused)
    published = asyncio.run(
        publisher.publish(ROLLOUT, effect(document(), first.version, protections=(emergency,)), urgent=True)
    )
    assert published == asyncio.run(publisher.read("default", "shop-flags"))
    assert published.protections == ((emergency,) if refused == 1 else ())


def refuse_annotations(api: Api, times: int) -> None:
    """So many writes with an annotation are refused, as by a policy."""
    request, left = api.request, [times]

    async def policy(method: str, path: str, body: Any = None, **options: Any) -> Any:
        if body is not None and left[0] and (body["metadata"].get("annotations") or {}).get(ANNOTATION):
            left[0] -= 1
            raise Forbidden("annotations are forbidden")
        return await request(method, path, body, **options)

    api.request = policy  # type: ignore[method-assign]


def test_edited_annotation_is_ignored() -> None:
    metadata = {"resourceVersion": "7", "labels": {LABEL: "shop"}, "annotations": {ANNOTATION: "{"}}
    assert document_of({"metadata": metadata}).protections == ()


def test_late_write_replaces_no_newer_document() -> None:
    """R8: the write carries the version that the decision saw."""
    api = Api()
    publisher = ConfigMapPublisher(api)
    first = asyncio.run(publisher.publish(ROLLOUT, effect(document())))
    asyncio.run(publisher.publish(ROLLOUT, effect(document(), first.version)))
    with pytest.raises(Conflict):
        asyncio.run(publisher.publish(ROLLOUT, effect(document(), first.version)))
    with pytest.raises(Conflict):
        asyncio.run(publisher.publish(ROLLOUT, effect(document())))


def test_malformed_document_is_never_published() -> None:
    api = Api()
    with pytest.raises(SpecError):
        asyncio.run(ConfigMapPublisher(api).publish(ROLLOUT, effect('{"flags": {"alpha": {"state": "ON"}}}')))
    assert api.requests == []


def test_document_belongs_to_the_rollout_of_its_label() -> None:
    published = asyncio.run(ConfigMapPublisher(Api()).publish(OTHER, effect(document())))
    assert (published.owner, published.belongs_to("shop"), published.belongs_to("other")) == ("other", False, True)


@pytest.mark.parametrize("text", [None, "{}"])
def test_released_document_stays_with_the_given_text(text: str | None) -> None:
    api = Api()
    publisher = ConfigMapPublisher(api)
    published = asyncio.run(publisher.publish(ROLLOUT, effect(document())))
    asyncio.run(publisher.release(ROLLOUT, "shop-flags", published, text))
    assert api.objects[FLAGS]["data"][KEY] == (document() if text is None else text)
    released = asyncio.run(publisher.read("default", "shop-flags"))
    assert released is not None
    assert (released.owner, released.belongs_to("shop")) == (None, True)


def test_config_map_of_somebody_else_belongs_to_nobody() -> None:
    foreign = document_of({"metadata": {"resourceVersion": "7"}, "data": {"a": "b"}})
    assert not foreign.belongs_to("shop")


def test_editor_is_the_newest_other_manager_of_the_text() -> None:
    """Managers of other fields are none."""
    text: dict[str, Any] = {"f:data": {f"f:{KEY}": {}}}
    managed = [
        {"manager": "session-rollout", "time": "2026-01-05T10:00:00Z", "fieldsV1": text},
        {"manager": "kubectl-label", "time": "2026-01-05T12:00:00Z", "fieldsV1": {"f:metadata": {}}},
        {"manager": "kubectl-edit", "time": "2026-01-05T11:00:00Z", "fieldsV1": text},
    ]
    metadata = {"resourceVersion": "7", "managedFields": managed}
    assert document_of({"metadata": metadata}).editor == "kubectl-edit"
    assert document_of({"metadata": {**metadata, "managedFields": managed[:2]}}).editor is None
