"""The chart: what it is written from, what it renders to, what it refuses; and that `manifests/` says the same."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import validate

from charts.value_sets import REFUSED, VALUE_SETS
from lab import sources
from session_rollout.settings import load
from tools.chart import build

pytestmark = pytest.mark.lab  # helm is built once
GOLDEN = Path(__file__).parent / "golden"
KUBERNETES = ("1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
OWN_KINDS = {"CustomResourceDefinition", "ServiceMonitor", "PodMonitor", "PrometheusRule"}
Object = dict[str, Any]


def rendered(name: str) -> list[Object]:
    return build.render(VALUE_SETS[name])


def pods(documents: list[Object]) -> Iterator[Object]:
    for one in documents:
        if one["kind"] == "Deployment":
            yield one["spec"]["template"]["spec"]
        elif one["kind"] == "Pod":
            yield one["spec"]


def test_what_is_derived_is_up_to_date() -> None:
    stale = [path.name for path, text in build.derived().items() if path.read_text() != text]
    assert stale == [], "make chart"


def test_manifests_are_the_chart_rendered() -> None:
    wanted = build.manifests()
    there = {str(path.relative_to(build.ROOT / "manifests")) for path in (build.ROOT / "manifests").rglob("*.yaml")}
    assert there == set(wanted)
    assert [path for path, text in wanted.items() if (build.ROOT / "manifests" / path).read_text() != text] == []


@pytest.mark.parametrize("overlay", build.OVERLAYS)
def test_kustomize_gives_the_same_objects_as_helm(overlay: str) -> None:
    """Apart from helm's own labels, the Namespace, and the hash that Kustomize has in the name of the configuration."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(build.ROOT / "manifests" / "overlays" / overlay)],
        capture_output=True,
        text=True,
        check=True,
    )
    ours = {}
    for one in yaml.safe_load_all(done.stdout):
        kind, namespace, name = build.identity(one)
        if kind == "ConfigMap" and name.startswith(build.CONFIGURATION):
            done_name, name = name, build.CONFIGURATION
            one["metadata"]["name"] = name
        ours[kind, namespace, name] = one
    ours.pop(("Namespace", "", build.NAMESPACE))
    deployment = ours["Deployment", build.NAMESPACE, "session-rollout"]
    volume = next(one for one in deployment["spec"]["template"]["spec"]["volumes"] if one["name"] == "configuration")
    assert volume["configMap"]["name"] == done_name
    volume["configMap"]["name"] = build.CONFIGURATION
    theirs = {
        build.identity(one): build.without_helm(one)
        for one in build.render(build.OVERLAYS[overlay])
        if "helm.sh/hook" not in one["metadata"].get("annotations", {})
    }
    for one in theirs.values():
        if one["kind"] == "CustomResourceDefinition":
            one["metadata"] = {"name": one["metadata"]["name"]}
    assert ours == theirs


def test_lint_is_strict() -> None:
    for values in VALUE_SETS.values():
        done = subprocess.run(
            [sources.helm(), "lint", "--strict", build.CHART, "--values", "-"],
            input=yaml.safe_dump(values),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", VALUE_SETS)
def test_golden(name: str, request: pytest.FixtureRequest) -> None:
    """What is rendered, reviewed by a person: `pytest --golden` writes it anew. The kinds are in crds/ and are left out."""
    path = GOLDEN / f"{name}.yaml"
    documents = [one for one in rendered(name) if one["kind"] != "CustomResourceDefinition"]
    for one in documents:
        if "-dashboard-" in one["metadata"]["name"]:
            one["data"] = sorted(one["data"])
    text = "---\n".join(build.dumped(one) for one in documents)
    if request.config.getoption("golden"):
        path.write_text(text)
    assert path.read_text() == text


@pytest.mark.parametrize("name", VALUE_SETS)
def test_the_configuration_is_what_the_operator_reads(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = rendered(name)
    configuration = next(one for one in documents if one["metadata"]["name"].endswith("-configuration"))
    monkeypatch.setenv("SESSION_ROLLOUT_IMAGE", "session-rollout:test")
    (tmp_path / "operator.yaml").write_text(configuration["data"]["operator.yaml"])
    settings = load(tmp_path / "operator.yaml")
    assert settings.namespaces == tuple(VALUE_SETS[name].get("namespaces", ()))
    assert settings.profiles["default"].image == "session-rollout:test"


@pytest.mark.parametrize("version", KUBERNETES)
def test_valid_for_kubernetes(version: str) -> None:
    seen = set()
    for name in VALUE_SETS:
        for one in rendered(name):
            if one["kind"] not in OWN_KINDS:
                validate(one, version, strict=True)
                seen.add(one["kind"])
    assert {"Deployment", "NetworkPolicy", "PodDisruptionBudget", "ValidatingAdmissionPolicy", "Pod"} <= seen


def test_names_that_yaml_reads_as_something_else() -> None:
    """A release called `y`, a namespace called `42`: what is a name stays one, everywhere."""
    values = {
        **VALUE_SETS["monitoring"],
        "fullnameOverride": "1",
        "nameOverride": "on",
        "namespaces": ["7"],
        "replicas": 2,
        "image": {"repository": "1", "tag": "2", "pullSecrets": ["5"]},
        "serviceAccount": {"name": "0"},
        "priorityClassName": "null",
        "credentialsSecret": "3",
        "commonLabels": {"tier": "1"},
    }
    values["dashboards"] = {**values["dashboards"], "label": "y", "folder": "off"}
    documents = build.render(values, namespace="42", release="y")
    for one in documents:
        metadata = one["metadata"]
        texts = [metadata["name"], *metadata.get("labels", {}).items(), *metadata.get("annotations", {}).items()]
        assert all(isinstance(text, str) for pair in texts for text in ((pair,) if isinstance(pair, str) else pair)), metadata
        if one["kind"] not in OWN_KINDS:
            validate(one, KUBERNETES[-1], strict=True)
    assert {one["metadata"]["namespace"] for one in documents if "namespace" in one["metadata"]} == {"42", "7"}
    monitors = [one for one in documents if one["kind"] in {"ServiceMonitor", "PodMonitor"}]
    assert [one["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"] for one in monitors] == ["y", "y"]


@pytest.mark.parametrize(("values", "words"), REFUSED, ids=[str(values)[:60] for values, _ in REFUSED])
def test_bad_values_are_refused(values: Object, words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="values don't meet the specifications") as refusal:
        build.render(values)
    missing = [word for word in words if word not in str(refusal.value)]
    assert missing == [], str(refusal.value)


def test_forty_bad_values_files() -> None:
    assert len(REFUSED) >= 40


@pytest.mark.parametrize("name", VALUE_SETS)
def test_pods_are_restricted(name: str) -> None:
    """The Pod Security Standard `restricted`, and more: a read-only root, an own user, a limit of memory."""
    for pod in pods(rendered(name)):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] >= 10_000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not any("hostPath" in volume for volume in pod["volumes"])
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]


def test_where_the_cluster_gives_the_uid(tmp_path: Path) -> None:
    """OpenShift refuses a Pod that names one outside of its namespace's range; a Job's Pod, too."""
    documents = build.render({"runAsUser": None, "config": {"profiles": {"default": {"image": "x"}}}})
    named = {"runAsUser", "runAsGroup", "fsGroup"}
    assert [named & set(pod["securityContext"]) for pod in pods(documents)] == [set(), set()]
    configuration = next(one for one in documents if one["metadata"]["name"].endswith("-configuration"))
    (tmp_path / "operator.yaml").write_text(configuration["data"]["operator.yaml"])
    assert load(tmp_path / "operator.yaml").run_as_user is None


def test_namespaced_means_no_role_of_the_operator_in_the_cluster() -> None:
    documents = rendered("namespaced")
    assert [one for one in documents if one["kind"] == "ClusterRoleBinding"] == []
    people = [one["metadata"]["name"] for one in documents if one["kind"] == "ClusterRole"]
    assert sorted(people) == [
        f"session-rollout-{name}"
        for name in ("aggregate-admin", "aggregate-edit", "aggregate-view", "approver", "operator-on-call", "viewer")
    ]
    roles = [one for one in documents if one["kind"] == "Role" and one["metadata"]["name"] == "session-rollout"]
    assert [one["metadata"]["namespace"] for one in roles] == ["shop", "desk"]


def test_minimum_is_only_the_operator() -> None:
    assert sorted(one["kind"] for one in rendered("minimum")) == ["ConfigMap", "Deployment"]


@pytest.mark.parametrize("name", VALUE_SETS)
def test_rights_are_exact(name: str) -> None:
    """No wildcard, no Secret, nothing that would make more of itself."""
    for one in rendered(name):
        for rule in one.get("rules", []) if one["kind"] in {"Role", "ClusterRole"} else []:
            words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert not words & {"*", "secrets", "pods/exec", "escalate", "bind", "impersonate"}


@pytest.mark.parametrize("name", VALUE_SETS)
def test_labels(name: str) -> None:
    for one in rendered(name):
        if one["metadata"]["name"] == "beside":
            continue
        labels = one["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "session-rollout"
        assert labels["app.kubernetes.io/instance"] == "session-rollout"
        assert labels["helm.sh/chart"].startswith("session-rollout-")


def test_kinds_are_kept_on_removal() -> None:
    kinds = [one for one in rendered("defaults") if one["kind"] == "CustomResourceDefinition"]
    assert len(kinds) == 2
    assert all(one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for one in kinds)
    bare = build.render({"crds": {"keep": False}})
    assert not any("annotations" in one["metadata"] for one in bare if one["kind"] == "CustomResourceDefinition")


def test_egress_holds_the_ports_of_providers_and_sinks() -> None:
    policy = next(one for one in rendered("production") if one["kind"] == "NetworkPolicy")
    outside = next(rule for rule in policy["spec"]["egress"] if "ipBlock" in rule.get("to", [{}])[0])
    assert [one["port"] for one in outside["ports"]] == [443, 6443, 9091, 8443]
    assert outside["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"]  # where clouds keep credentials
    names = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    assert {"ports": names} in policy["spec"]["egress"], "anywhere: a resolver on the node has such an address, too"


def test_a_change_of_the_configuration_replaces_the_pods() -> None:
    def checksum(values: Object) -> str:
        deployment = next(one for one in build.render(values) if one["kind"] == "Deployment")
        return str(deployment["spec"]["template"]["metadata"]["annotations"]["checksum/configuration"])

    assert checksum({}) == checksum({"replicas": 2}) != checksum({"config": {"metricWorkers": 4}})


def test_the_image_by_digest_wins() -> None:
    values = {"image": {"tag": "1", "digest": "sha256:" + "0" * 64}}
    images = {container["image"] for pod in pods(build.render(values)) for container in pod["containers"]}
    assert images == {"session-rollout@sha256:" + "0" * 64}
