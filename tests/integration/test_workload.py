"""The application's Deployment: undone by a rollback, restarted by an action, and without the rights to either."""

from integration.receivers import PYTHON
from integration.rollouts import LONG, events, holding, rollout
from lab.kube import Object
from lab.lab import IMAGE, Lab

DEPLOYMENT = "/apis/apps/v1/namespaces/default/deployments/shop"


def deployment(text: str) -> Object:
    """A Deployment whose revisions differ in what they print."""
    labels = {"app": "shop"}
    program = f"print('{text}'); import time; time.sleep(3600)"
    container = {"name": "web", "image": IMAGE, "command": PYTHON, "args": [program]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop", "namespace": "default"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }


def revision(lab: Lab) -> str:
    """Of the Deployment."""
    return str(lab.kube.get(DEPLOYMENT)["metadata"].get("annotations", {}).get("deployment.kubernetes.io/revision"))


def test_rollback_undoes_the_workload_and_people_restart_it(configured_operator: Lab) -> None:
    """The earlier revision's template is back; what must hold after it is checked; a restart replaces Pods once."""
    configured_operator.apply(deployment("old"))
    configured_operator.until(lambda: revision(configured_operator) == "1", 20, "the first revision")
    configured_operator.apply(deployment("new"))
    configured_operator.until(lambda: revision(configured_operator) == "2", 20, "the second revision")
    workload = {"kind": "Deployment", "name": "shop"}
    checks = [{"name": "calm", "metric": "errors", "below": "1%"}, {"name": "up", "builtin": "Health"}]
    configured_operator.apply(rollout("undo", LONG, workload=workload, rollback={"workload": "Undo", "verification": checks}))
    holding(configured_operator, "undo")
    configured_operator.act("Abort", "undo", reason="the new version is slow")
    configured_operator.until(lambda: configured_operator.rollout("undo")["status"].get("outcome"), 30, "an outcome")
    program = configured_operator.kube.get(DEPLOYMENT)["spec"]["template"]["spec"]["containers"][0]["args"][0]
    assert program.startswith("print('old')")
    workload = configured_operator.rollout("undo")["status"]["workload"]
    assert (workload["undoFrom"], workload["undoTo"], "undoneTime" in workload) == (2, 1, True)
    assert revision(configured_operator) == "3"
    configured_operator.until(
        lambda: "RollbackVerified" in events(configured_operator, "undo"), 30, "the checks after the rollback"
    )
    configured_operator.act("RestartWorkload", "undo", reason="memory")
    configured_operator.until(
        lambda: configured_operator.rollout("undo")["status"]["workload"].get("restartedTime"), 20, "the restart"
    )
    annotations = configured_operator.kube.get(DEPLOYMENT)["spec"]["template"]["metadata"]["annotations"]
    assert list(annotations) == ["sessionrollout.dev/restarted-at"]


def test_undo_without_the_right_names_the_value_that_grants_it(configured_operator: Lab) -> None:
    """The chart's value `rbac.workloads` leaves two rules out; without them the rest works."""
    role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/session-rollout"
    rules = configured_operator.kube.get(role)["rules"]
    less = [
        one
        for one in rules
        if one["resources"] != ["replicasets"] and (one["resources"], one["verbs"]) != (["deployments"], ["patch"])
    ]
    assert len(less) == len(rules) - 2
    configured_operator.kube.merge(role, {"rules": less})
    try:
        workload = {"kind": "Deployment", "name": "shop"}
        configured_operator.apply(rollout("no-right", LONG, workload=workload, rollback={"workload": "Undo"}))
        holding(configured_operator, "no-right")
        configured_operator.act("Abort", "no-right", reason="drill")
        configured_operator.until(lambda: configured_operator.rollout("no-right")["status"].get("outcome"), 30, "an outcome")
        assert "rbac.workloads" in configured_operator.rollout("no-right")["status"]["workload"]["message"], (
            "the value that grants it"
        )
        assert "WorkloadKept" in events(configured_operator, "no-right")
    finally:
        configured_operator.kube.merge(role, {"rules": rules})
