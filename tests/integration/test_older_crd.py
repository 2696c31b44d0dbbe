"""A CRD that is older than the operator, on a real API server: guards act in spite of it, and the rollout says so until it is updated."""

import contextlib
from collections.abc import Iterator

from integration.rollouts import LONG, decided, events, flags, holding, rollout
from lab.kube import Object
from lab.lab import Lab

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/sessionrollouts.sessionrollout.dev"
PATH = "/apis/sessionrollout.dev/v1alpha1/namespaces/default/sessionrollouts"
MERGE = "application/merge-patch+json"


@contextlib.contextmanager
def older_crd(lab: Lab, probed: str) -> Iterator[None]:
    """The CRD without some properties of the status, one of which only the start of a rollback writes."""
    before = lab.kube.get(CRD)["spec"]["versions"]
    [version] = lab.kube.get(CRD)["spec"]["versions"]
    status = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    del status["checks"]["items"]["properties"]["failingTime"]
    del status["current"]["properties"]["rollbackUid"]
    del status["flags"]["properties"]["settled"]
    lab.kube.merge(CRD, {"spec": {"versions": [version]}})
    try:
        lab.until(lambda: "rollbackUid" not in dry_run(lab, probed), 20, "the older CRD")
        yield
    finally:
        lab.kube.merge(CRD, {"spec": {"versions": before}})


def dry_run(lab: Lab, name: str) -> Object:
    """`status.current` as the API server would store it with one more field."""
    body = {"status": {"current": {"rollbackUid": "probe"}}}
    answer = lab.kube.request("PATCH", f"{PATH}/{name}/status", body, content=MERGE, dryRun="All")
    return dict(answer["status"]["current"])


def test_guard_acts_and_the_stall_ends_with_the_crd(operator: Lab) -> None:
    """Its `for` counts in memory. The other rollout, which has no guard, waits."""
    guard = {"name": "errors", "metric": "errors", "below": "5%", "for": "4s"}
    operator.apply(rollout("guarded", LONG, guards=[guard]))
    operator.apply(rollout("waiting", LONG))
    audience = holding(operator, "waiting")["status"]["current"]["audience"]
    holding(operator, "guarded")
    with older_crd(operator, "waiting"):
        operator.gauge.value = "0.2"  # type: ignore[attr-defined]
        stalled = decided(operator, "waiting", "InvalidSpec")
        assert (stalled["state"], stalled["current"]["audience"]) == ("Stalled", audience)
        assert "is older than the operator" in stalled["decision"]["message"]
        assert [refusal["effect"] for refusal in stalled["refusals"]] == ["StatusFields"]
        operator.until(lambda: operator.rollout("guarded")["status"].get("outcome") == "RolledBack", 15, "a rollback")
        assert flags(operator, "guarded")["alpha"]["targeting"]["if"][-1] == "off-chosen"
        operator.gauge.value = "0.001"  # type: ignore[attr-defined]
        operator.reconciles("waiting", 3)
        assert events(operator, "guarded").count("RollbackStarted") == 1
        assert operator.rollout("guarded")["status"]["state"] == "RolledBack"
        assert operator.rollout("waiting")["status"]["state"] == "Stalled"
    operator.until(lambda: operator.rollout("waiting")["status"]["state"] == "Progressing", 30, "the end of the stall")
    status = operator.rollout("waiting")["status"]
    assert (status["current"]["audience"], status["refusals"]) == (audience, [])
