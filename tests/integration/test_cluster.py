"""The chart on a real node: where the machine can have one. `make cluster-demo` does the whole rollout there."""

import os
import shutil
from collections.abc import Iterator

import pytest
from rich.console import Console

from lab import rights
from lab.cluster_demo import RELEASE, ClusterDemo
from lab.kube import Object
from lab.lab import OPERATOR_NAMESPACE, Lab
from lab.session_persistence import NAMESPACE, example, scaled

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(1800),  # the first time, packages are installed and images are built
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("apt-get") is None or "LAB_KUBECONFIG" in os.environ,
        reason="a real node needs root on Debian",
    ),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterDemo]:
    """A real node with our images."""
    with Lab(real_node=True, database=False) as lab:
        demo = ClusterDemo(lab, Console(quiet=True), seed=1)
        demo.prepare()
        yield demo


def current(lab: Lab) -> Object:
    """Where the rollout is."""
    return dict(lab.rollout("minimal", NAMESPACE)["status"]["current"])


def document(lab: Lab) -> Object:
    """What its users have."""
    return dict(lab.kube.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/minimal-flags")["data"])


def verdict_times(lab: Lab) -> dict[tuple[str, str], tuple[str, str]]:
    """Of each check, its verdict, and since when it has it."""
    checks = lab.rollout("minimal", NAMESPACE)["status"]["checks"]
    return {(check["kind"], check["name"]): (check["verdict"], check["time"]) for check in checks}


def test_install_test_upgrade_and_uninstall(cluster: ClusterDemo) -> None:
    """Helm installs, its test is green, a rollout is promoted through an upgrade by an operator that is a Pod, and flags stay.

    From the upgrade on its evidence needs a token that only a mounted Secret has.
    """
    demo, lab = cluster, cluster.lab
    demo.install()
    assert demo.proof.failures == []
    rollout = scaled(example("minimal.yaml"))
    rollout["metadata"]["namespace"] = NAMESPACE
    rollout["spec"] |= {"metrics": [{"name": "errors", "query": "vector(0)"}], "guards": []}
    rollout["spec"]["phases"][0]["criteria"] = [{"name": "errors", "metric": "errors", "below": "1%"}]
    rollout["spec"]["phases"][0]["steps"][0]["hold"] = "1h"
    lab.apply(rollout)
    lab.until(lambda: lab.rollout("minimal", NAMESPACE).get("status", {}).get("current", {}).get("holdUntil"), 40, "a hold")
    before, given, verdicts = current(lab), document(lab), verdict_times(lab)
    assert verdicts
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "credentials"}, "stringData": {"token": "t0ken"}}
    lab.apply(secret, OPERATOR_NAMESPACE)
    token = "config.prometheus.default.bearerTokenFile=/etc/session-rollout/credentials/token"
    values = f"replicaCount=2,credentialsSecret=credentials,{token}"
    demo.helm("upgrade", RELEASE, "charts/session-rollout", "--namespace", OPERATOR_NAMESPACE, "--set", values, "--wait")
    after = current(lab)
    assert (document(lab), verdict_times(lab)) == (given, verdicts)
    assert after["stageStartTime"] == before["stageStartTime"]
    assert after["holdUntil"] >= before["holdUntil"], "a hold is longer by what nobody looked at, and never shorter"
    rollout["spec"]["phases"][0]["steps"][0]["hold"] = "20s"
    lab.apply(rollout)
    lab.kubectl("-n", NAMESPACE, "wait", "--for=jsonpath={.status.outcome}=Promoted", "sro/minimal", "--timeout=180s")
    given = document(lab)
    assert "kept due to the resource policy" in demo.uninstall()
    assert document(lab) == given
    assert lab.rollout("minimal", NAMESPACE)["status"]["outcome"] == "Promoted"


def test_in_one_namespace_with_a_role(cluster: ClusterDemo) -> None:
    """No ClusterRole, and nothing is refused: `helm test` promotes its rollout in the namespace that the values name.

    Under another name, after a removal that left the kinds: `--take-ownership` takes them over.
    """
    before = len(rights.audit(cluster.lab))
    names = ("--namespace", OPERATOR_NAMESPACE)
    values = ("--set", f"namespaces={{{NAMESPACE}}},rbac.workloads=false")
    install = ("install", "second", "charts/session-rollout", *names, *values, "--wait", "--timeout", "120s")
    with pytest.raises(TimeoutError):
        cluster.helm(*install)
    cluster.helm(*install, "--take-ownership")
    assert "was promoted, and its flag document is there" in cluster.helm("test", "second", *names, "--logs")
    asked = rights.audit(cluster.lab)[before:]
    assert asked
    assert [line["requestURI"] for line in asked if line["responseStatus"].get("code") == 403] == []
    assert {line["objectRef"].get("namespace") for line in asked} == {OPERATOR_NAMESPACE, NAMESPACE}
    cluster.uninstall("second")
