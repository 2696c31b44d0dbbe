"""What happens when objects come back from a backup without their status; docs/how-to/upgrade-and-remove.md says the same."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from cli.test_commands import one_sentence, run
from lab.gauge import scraped
from lab.kube import Object
from lab.lab import Lab

NAME = "restored"
ROLLOUT = f"/apis/sessionrollout.dev/v1alpha1/namespaces/default/sessionrollouts/{NAME}"
DOCUMENT = f"/api/v1/namespaces/default/configmaps/{NAME}-flags"
SPEC: dict[str, Any] = {
    "flagSet": NAME,
    "checkInterval": "1s",
    "features": [{"name": "alpha"}],
    "metrics": [{"name": "errors", "query": "lab_errors"}],
    "phases": [
        {
            "name": "alpha",
            "features": ["alpha"],
            "steps": [{"percent": 10, "hold": "1s"}, {"percent": 50, "hold": "1h"}],
            "criteria": [{"name": "errors", "metric": "errors", "below": "1%"}],
        }
    ],
}


@pytest.fixture
def operator(lab: Lab) -> Iterator[Lab]:
    with scraped(lab):
        lab.start_operator()
        yield lab
        assert lab.operator is not None
        lab.operator.stop()
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


def percent(lab: Lab) -> str:
    return str(lab.rollout(NAME).get("status", {}).get("current", {}).get("percent", ""))


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
    operator.until(lambda: percent(operator) == "50", 40, "the second step")
    assert "ownerReferences" not in operator.kube.get(DOCUMENT)["metadata"]
    before = operator.kube.get(DOCUMENT)["data"]
    assert operator.operator is not None
    operator.operator.stop()
    operator.kube.merge(ROLLOUT, {"metadata": {"finalizers": None}})
    operator.kube.delete(ROLLOUT)
    time.sleep(3)  # garbage collection would have come by now
    assert operator.kube.get(DOCUMENT)["data"] == before


def test_without_its_status_a_rollout_begins_anew_and_suspend_keeps_the_document(operator: Lab) -> None:
    operator.apply(applied())
    operator.until(lambda: percent(operator) == "50", 40, "the second step")

    text = back_from_a_backup(operator, suspend=True)
    operator.until(lambda: operator.rollout(NAME).get("status", {}).get("observedGeneration"), 20, "a look at it")
    operator.until(lambda: "suspend" in operator.rollout(NAME)["status"]["decision"]["message"], 20, "being suspended")
    time.sleep(3)  # several looks: an effect of the first one comes after its status
    assert operator.kube.get(DOCUMENT)["data"]["flags.flagd.json"] == text, "suspended: users keep what they have"
    verified = run(operator, "flags", "verify", "--in", NAME)
    one_sentence(verified, 1)
    assert "has published nothing yet" in verified.err

    operator.apply(applied())
    operator.until(lambda: percent(operator) == "10", 30, "the first step")
    operator.until(lambda: percent(operator) == "50", 40, "the second step again")
