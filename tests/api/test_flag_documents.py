"""Flag documents in a real API server: what the operator no longer writes is gone, whichever of its versions wrote it.

Not here: what a rollout does with a document (tests/core), and protections that are difficult to write (test_protections).
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import pytest

from api.connection import connected
from api.corpus import GOOD
from lab.kube import Object
from lab.lab import Lab
from session_rollout.adapters.api_server import FIELD_MANAGER
from session_rollout.adapters.flags import LABEL, ConfigMapPublisher
from session_rollout.api.parsing import rollout_of
from session_rollout.api.protection import ANNOTATION, Protection, ProtectionKind
from session_rollout.core.documents import PublishedDocument
from session_rollout.core.flags import FlagDocument, FlagSource, compile_document
from session_rollout.core.observed import Publish
from session_rollout.errors import Conflict

T = TypeVar("T")
ROLLOUT = rollout_of({"metadata": {"name": "shop", "namespace": "default", "uid": "u", "generation": 1}, "spec": GOOD})
COLLECTION = "/api/v1/namespaces/default/configmaps"
EMERGENCY = Protection(kind=ProtectionKind.EMERGENCY, uid="u", time=datetime(2026, 1, 1, tzinfo=UTC), features=("alpha",))


def document(name: str, revision: int = 1) -> FlagDocument:
    """A flag document of the real compiler."""
    return compile_document(FlagSource(name, "default", {}, metadata={"rollout": "shop", "revision": revision}))


def run(lab: Lab, work: Callable[[ConfigMapPublisher], Awaitable[T]]) -> T:
    """What a publisher on the real API server does."""
    return connected(lab, lambda api: work(ConfigMapPublisher(api)))


def publish(lab: Lab, written: FlagDocument, version: int | None, *protections: Protection) -> PublishedDocument:
    """Publish it, as a decision that saw this version requests it."""
    wanted = Publish(written.config_map, written.text, written.sha256, version, protections)
    return run(lab, lambda publisher: publisher.publish(ROLLOUT, wanted))


def by_earlier_version(lab: Lab, name: str) -> None:
    """A document that was created by POST and then applied, as earlier versions did: two operations of one field manager own it."""
    made = document(name)
    metadata = {"name": made.config_map, "labels": {LABEL: "shop"}, "annotations": {ANNOTATION: "[]"}}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"flags.flagd.json": made.text}}
    lab.kube.request("POST", COLLECTION, body, fieldManager=FIELD_MANAGER)
    lab.kube.apply(f"{COLLECTION}/{made.config_map}", body, manager=FIELD_MANAGER)


def stored(lab: Lab, name: str) -> Object:
    """Metadata of the ConfigMap."""
    return dict(lab.kube.get(f"{COLLECTION}/{document(name).config_map}")["metadata"])


@pytest.mark.parametrize("earlier", [False, True], ids=["this version", "an earlier version"])
def test_released_document_belongs_to_no_rollout(lab: Lab, *, earlier: bool) -> None:
    """A rollout of another name that has its `flagSet` gets it, and can turn its features off."""
    name = f"released-{earlier}".lower()
    if earlier:
        by_earlier_version(lab, name)
    else:
        publish(lab, document(name, 2), publish(lab, document(name), None).version)
    current = run(lab, lambda publisher: publisher.read("default", document(name).config_map))
    assert current is not None
    assert current.owner == "shop"
    run(lab, lambda publisher: publisher.release(ROLLOUT, document(name).config_map, current, None))
    assert LABEL not in stored(lab, name)["labels"]
    assert stored(lab, name)["labels"]["app.kubernetes.io/managed-by"] == "session-rollout"


@pytest.mark.parametrize("earlier", [False, True], ids=["this version", "an earlier version"])
def test_annotation_of_the_next_document_lacks_what_the_status_has(lab: Lab, *, earlier: bool) -> None:
    """Else a process would adopt an emergency again that was lifted."""
    name = f"annotated-{earlier}".lower()
    if earlier:
        by_earlier_version(lab, name)
    else:
        publish(lab, document(name), None, EMERGENCY)
    assert ANNOTATION in stored(lab, name)["annotations"]
    current = int(stored(lab, name)["resourceVersion"])
    assert publish(lab, document(name, 2), current).protections == ()
    assert ANNOTATION not in stored(lab, name).get("annotations", {})


def test_labels_of_others_stay(lab: Lab) -> None:
    """GitOps tools and people label objects, too."""
    first = publish(lab, document("shared"), None)
    lab.kube.merge(f"{COLLECTION}/shared-flags", {"metadata": {"labels": {"team": "web"}}})
    with pytest.raises(Conflict):
        publish(lab, document("shared", 2), first.version)
    publish(lab, document("shared", 2), int(stored(lab, "shared")["resourceVersion"]))
    assert stored(lab, "shared")["labels"]["team"] == "web"


def test_late_write_does_not_create_a_document_that_was_deleted(lab: Lab) -> None:
    """It says which version it replaces, and that one is gone."""
    first = publish(lab, document("deleted"), None)
    lab.kube.delete(f"{COLLECTION}/deleted-flags")
    with pytest.raises(Conflict):
        publish(lab, document("deleted", 2), first.version)
