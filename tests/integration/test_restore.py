"""What happens when objects come back from a backup without their status; docs/how-to/upgrade-and-remove.md says the same."""

from collections.abc import Iterator
from typing import Any

import pytest

from lab.decisions import decisions
from lab.gauge import operated
from lab.kube import Object
from lab.lab import Lab, percent_of

NAME = "restored"
ROLLOUT = f"/apis/sessionrollout.dev/v1alpha1/namespaces/default/sessionrollouts/{NAME}"
DOCUMENT = f"/api/v1/namespaces/default/configmaps/{NAME}-flags"
SPEC: dict[str, Any] = {
    "flagSet": NAME,
    "checkInterval": "1s",
    "propagation": "0s",
    "features": [{"name": "alpha"}],
    "metrics": [{"name": "errors", "query": "lab_errors"}],
    "phases": [
        {
            "name": "alpha",
            "features": ["alpha"],
            "steps": [{"percent": 10, "hold": "2s"}, {"percent": 50, "hold": "1h"}],
            "criteria": [{"name": "errors", "metric": "errors", "below": "1%"}],
        }
    ],
}


@pytest.fixture
def operator(lab: Lab) -> Iterator[Lab]:
    with operated(lab):
        yield lab
    if lab.kube.find(ROLLOUT):
        lab.kube.merge(ROLLOUT, {"metadata": {"finalizers": None}})
    lab.kube.delete(ROLLOUT)
    lab.kube.delete(DOCUMENT)


def applied(**more: Any) -> Object:
    metadata = {"name": NAME, "namespace": "default"}
    return {
        "apiVersion": "sessionrollout.dev/v1alpha1",
        "kind": "SessionRollout",
        "metadata": metadata,
        "spec": {**SPEC, **more},
    }


def published(lab: Lab, percent: float) -> None:
    """Wait until users have it: the status says so before the document does."""
    lab.published(NAME, lambda document: percent_of(document, "alpha") == percent, 40, f"alpha for {percent:g} %")


def back_from_a_backup(lab: Lab, **more: Any) -> str:
    """With the operator away: the object is made anew without status, the document as a backup has it. Its text."""
    assert lab.operator is not None
    lab.operator.stop()
    text = str(lab.kube.get(DOCUMENT)["data"]["flags.flagd.json"])
    labels = lab.kube.get(DOCUMENT)["metadata"]["labels"]
    lab.kube.merge(ROLLOUT, {"metadata": {"finalizers": None}})
    lab.kube.delete(ROLLOUT, propagationPolicy="Orphan")
    lab.until(lambda: lab.kube.find(ROLLOUT) is None, 20, "the object being gone")
    lab.kube.delete(DOCUMENT)
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{NAME}-flags", "labels": labels}}
    lab.kube.create("/api/v1/namespaces/default/configmaps", {**body, "data": {"flags.flagd.json": text}})
    lab.apply(applied(**more))
    lab.start_operator()
    return text


def test_a_document_belongs_to_nobody(operator: Lab) -> None:
    """Even a rollout that is torn out by force takes no feature from its users."""
    operator.apply(applied())
    published(operator, 50)
    before = operator.kube.get(DOCUMENT)
    # The garbage collector deletes by owner references alone: without one there is nothing to wait for.
    assert "ownerReferences" not in before["metadata"]
    assert operator.operator is not None
    operator.operator.stop()
    operator.kube.merge(ROLLOUT, {"metadata": {"finalizers": None}})
    operator.kube.delete(ROLLOUT)
    operator.until(lambda: operator.kube.find(ROLLOUT) is None, 20, "the object being gone")
    assert operator.kube.get(DOCUMENT)["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_without_its_status_a_rollout_keeps_the_document_until_adopt(operator: Lab) -> None:
    """D6: users keep what they have, and the rollout continues where it was."""
    operator.apply(applied())
    published(operator, 50)

    text = back_from_a_backup(operator)
    operator.until(lambda: operator.rollout(NAME).get("status", {}).get("state") == "Stalled", 20, "the stall")
    assert operator.rollout(NAME)["status"]["decision"]["reason"] == "AdoptionRequired"
    operator.reconciles(NAME, 3)  # the effects of a reconcile come after its status
    assert operator.kube.get(DOCUMENT)["data"]["flags.flagd.json"] == text
    operator.act("Adopt", NAME, reason="restored")
    operator.until(lambda: operator.rollout(NAME)["status"]["current"]["stage"] == "Step", 20, "the step that is published")
    assert operator.rollout(NAME)["status"]["current"]["percent"] == "50"
    published(operator, 50)
    uid = operator.rollout(NAME)["metadata"]["uid"]
    operator.until(lambda: decisions(operator, NAME)[-1].rollout.uid == uid, 20, "a record beside those of the object before")
