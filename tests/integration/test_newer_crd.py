"""A CRD that is newer than the operator, on a real API server: the rollout says so, and its users can still be protected.

What can be read of such an object, and each decision about it, are tested without a cluster.
"""

from collections.abc import Iterator

import pytest

from integration.rollouts import LONG, answer, decided, flags, holding, rollout
from lab.gauge import scraped
from lab.kube import Object
from lab.lab import Lab

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/sessionrollouts.sessionrollout.dev"
PATH = "/apis/sessionrollout.dev/v1alpha1/namespaces/default/sessionrollouts/novel"


@pytest.fixture(scope="module")
def operator(lab: Lab) -> Iterator[Lab]:
    """The lab with the operator running, one metric scraped, and a CRD with a field that it does not know."""
    before = lab.kube.get(CRD)["spec"]["versions"]
    [version] = lab.kube.get(CRD)["spec"]["versions"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    properties["spec"]["properties"]["novel"] = {"type": "string"}
    properties["status"]["properties"]["novel"] = {"type": "string"}
    lab.kube.merge(CRD, {"spec": {"versions": [version]}})
    with scraped(lab):
        process = lab.start_operator()
        yield lab
        process.stop()
    lab.kube.merge(CRD, {"spec": {"versions": before}})


def invalid(found: Object) -> int | None:
    """The generation of the spec that the condition `SpecValid` calls invalid, if it does."""
    conditions = [each for each in found["status"]["conditions"] if (each["type"], each["status"]) == ("SpecValid", "False")]
    return conditions[0]["observedGeneration"] if conditions else None


def test_users_are_protected_and_nothing_is_lost(operator: Lab) -> None:
    operator.apply(rollout("novel", LONG, deletionPolicy="Off"))
    audience = holding(operator, "novel")["status"]["current"]["audience"]
    operator.until(lambda: operator.kube.merge(f"{PATH}/status", {"status": {"novel": "kept"}})["status"].get("novel"), 20)
    operator.until(lambda: operator.kube.merge(PATH, {"spec": {"novel": "x"}})["spec"].get("novel"), 20, "the field")
    generation = operator.rollout("novel")["metadata"]["generation"]
    operator.until(lambda: invalid(operator.rollout("novel")) == generation, 30, "the edit to be judged")
    status = decided(operator, "novel", "Unparsable")
    assert (status["state"], status["current"]["audience"], status["novel"]) == ("Stalled", audience, "kept")
    off = operator.act("EmergencyDisable", "novel", reason="drill")
    pause = operator.act("Pause", "novel")
    assert answer(operator, off)["accepted"] is True
    assert answer(operator, pause)["reason"] == "Invalid"
    assert "targeting" not in flags(operator, "novel")["alpha"]
    assert operator.rollout("novel")["status"]["novel"] == "kept"
    operator.kubectl("delete", "sro", "novel", "--timeout=180s")
    assert flags(operator, "novel")["alpha"]["defaultVariant"] == "off-chosen"
