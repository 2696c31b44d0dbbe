"""Deletion on a real API server while policies and missing rights are in its way: R4 and R9."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from integration.rollouts import LONG, answer, decided, flags, holding, rollout
from lab import rights
from lab.kube import ApiError, Object
from lab.lab import Lab

ROOT = "/apis/admissionregistration.k8s.io/v1"
FINALIZER = "sessionrollout.dev/finalizer"


@contextmanager
def policy(lab: Lab, name: str, expression: str) -> Iterator[None]:
    """A policy about the rollout of this name, in force within the block."""
    scope = {"apiGroups": ["sessionrollout.dev"], "apiVersions": ["*"], "resources": ["sessionrollouts"]}
    rules = [{**scope, "operations": ["CREATE", "UPDATE"]}]
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": rules},
        "matchConditions": [{"name": "this", "expression": f"object.metadata.name == '{name}'"}],
        "validations": [{"expression": expression, "message": "refused for a test"}],
    }
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    lab.apply({**kind, "kind": "ValidatingAdmissionPolicy", "spec": spec})
    binding = {"policyName": name, "validationActions": ["Deny"]}
    lab.apply({**kind, "kind": "ValidatingAdmissionPolicyBinding", "spec": binding})
    try:
        yield
    finally:
        lab.kube.delete(f"{ROOT}/validatingadmissionpolicybindings/{name}")
        lab.kube.delete(f"{ROOT}/validatingadmissionpolicies/{name}")


def refused(lab: Lab, name: str) -> bool:
    """Whether the API server has refused a change of the rollout to the operator."""
    return any(
        (line["verb"], line["objectRef"].get("name")) == ("patch", name) and line["responseStatus"]["code"] == 422
        for line in rights.audit(lab)
    )


def admitted(lab: Lab, body: Object) -> bool:
    """Whether the API server would create the rollout; it learns of a policy after a moment."""
    try:
        lab.kube.create(path("").rstrip("/"), body, dryRun="All")
    except ApiError:
        return False
    return True


def path(name: str, namespace: str = "default") -> str:
    return f"/apis/sessionrollout.dev/v1alpha1/namespaces/{namespace}/sessionrollouts/{name}"


@contextmanager
def finalizer_kept(lab: Lab, name: str) -> Iterator[None]:
    """A policy refuses the removal of the finalizer within the block."""

    def in_force() -> bool:
        """The API server learns of a policy after a moment."""
        patch = '{"metadata":{"finalizers":null}}'
        return lab.kubectl("patch", "sro", name, "--type=merge", "--dry-run=server", "-p", patch, check=False).returncode != 0

    with policy(lab, name, f"has(object.metadata.finalizers) && '{FINALIZER}' in object.metadata.finalizers"):
        lab.until(in_force, 20, "the policy in force")
        yield


def test_finalizer_whose_removal_a_policy_refused_is_removed_when_the_policy_is_gone(operator: Lab) -> None:
    """R9: without a restart."""
    operator.apply(rollout("stuck", LONG, deletionPolicy="Off"))
    holding(operator, "stuck")
    process = operator.operator
    assert process is not None
    with finalizer_kept(operator, "stuck"):
        operator.kubectl("delete", "sro", "stuck", "--wait=false")
        operator.until(lambda: refused(operator, "stuck"), 20, "a refusal")
        assert operator.kube.find(path("stuck")) is not None
    operator.kubectl("wait", "--for=delete", "sro/stuck", "--timeout=180s")
    assert flags(operator, "stuck")["alpha"]["targeting"]["if"][-1] == "off-chosen"
    assert process.alive, "it was not restarted"


def test_emergency_works_while_a_policy_refuses_the_removal_of_the_finalizer(operator: Lab) -> None:
    """R9: users have the features for as long as the object is there, whose status says what is in the way."""
    body = rollout("held", LONG)
    body["spec"]["phases"][0]["verification"] = [{"name": "smoke", "job": {"profile": "smoke"}}]
    operator.apply(body)
    assert FINALIZER in holding(operator, "held")["metadata"]["finalizers"]
    with finalizer_kept(operator, "held"):
        operator.kubectl("delete", "sro", "held", "--wait=false")
        [refusal] = operator.until(lambda: operator.rollout("held")["status"].get("refusals"), 20, "the refusal")
        assert (refusal["effect"], refusal["verb"], refusal["resource"]) == ("Finalizer", "patch", "sessionrollouts")
        assert operator.rollout("held")["status"]["decision"]["reason"] == "Deleting"
        operator.act("EmergencyDisable", "held", reason="drill")
        operator.until(lambda: flags(operator, "held")["alpha"].get("metadata", {}).get("emergencyDisabled"), 10, "alpha off")
    operator.kubectl("wait", "--for=delete", "sro/held", "--timeout=180s")
    assert flags(operator, "held")["alpha"]["metadata"]["emergencyDisabled"] is True


def test_policy_off_turns_off_what_is_restored_while_the_deletion_waits(operator: Lab) -> None:
    """A restore of the ConfigMap, with its label and without: nobody has the features for the rest of the wait."""
    operator.apply(rollout("restored", LONG, deletionPolicy="Off"))
    holding(operator, "restored")
    operator.kube.merge(path("restored"), {"metadata": {"finalizers": [FINALIZER, "example.org/wait"]}})
    config_map = "/api/v1/namespaces/default/configmaps/restored-flags"
    before = operator.kube.get(config_map)
    operator.kubectl("delete", "sro", "restored", "--wait=false")

    def off() -> bool:
        return bool(flags(operator, "restored")["alpha"]["targeting"]["if"][-1] == "off-chosen")

    operator.until(off, 10, "alpha off")
    for labels in ({"labels": before["metadata"]["labels"]}, {}):
        restored = operator.kube.merge(config_map, {"metadata": labels, "data": before["data"]})
        assert restored["data"] == before["data"]
        operator.until(off, 10, "alpha off again")
    operator.until(lambda: decided(operator, "restored", "Deleting"), 10, "the wait")
    operator.kube.merge(path("restored"), {"metadata": {"finalizers": None}})
    operator.until(lambda: operator.kube.find(path("restored")) is None, 20, "the end")
    assert off()


def test_policy_off_begins_when_its_finalizer_is_admitted(operator: Lab) -> None:
    """Without it, a deletion while the operator is away would leave features on: nobody gets any, and the status says why."""
    with policy(operator, "bare", f"!has(object.metadata.finalizers) || !('{FINALIZER}' in object.metadata.finalizers)"):
        probe = rollout("bare", LONG)
        probe["metadata"]["finalizers"] = [FINALIZER]
        operator.until(lambda: not admitted(operator, probe), 20, "the policy in force")
        operator.apply(rollout("bare", LONG, deletionPolicy="Off"))
        [refusal] = decided(operator, "bare", "RequestRefused")["refusals"]
        assert (refusal["effect"], refusal["verb"], refusal["resource"]) == ("Finalizer", "patch", "sessionrollouts")
        operator.until(lambda: operator.document("bare").get("flags"), 20, "the document, which may come after the status")
        assert flags(operator, "bare")["alpha"]["targeting"]["if"][-1] == "off-chosen"
    assert FINALIZER in holding(operator, "bare", 60)["metadata"]["finalizers"]
    assert not operator.rollout("bare")["status"].get("refusals")
    operator.kubectl("delete", "sro", "bare", "--timeout=180s")


def test_rollout_that_keeps_its_flags_has_no_finalizer(operator: Lab) -> None:
    """R4: its deletion, and that of its namespace, waits for nothing."""
    operator.apply(rollout("kept", LONG))
    assert "finalizers" not in holding(operator, "kept")["metadata"]
    operator.kubectl("delete", "sro", "kept", "--wait=false")
    assert operator.kube.find(path("kept")) is None
    assert "targeting" in flags(operator, "kept")["alpha"]


@pytest.mark.parametrize("away", [False, True], ids=["released", "deleted while the operator was away"])
def test_rollout_of_another_name_turns_off_what_a_deleted_one_left(operator: Lab, *, away: bool) -> None:
    """Users keep the features of a deleted rollout; somebody must be able to take them away."""
    flag_set = f"left-{away}".lower()
    earlier, later = f"{flag_set}-1", f"{flag_set}-2"
    operator.apply(rollout(earlier, LONG, flagSet=flag_set))
    holding(operator, earlier)
    if away:
        assert operator.operator is not None
        operator.operator.stop()
    operator.kubectl("delete", "sro", earlier, "--timeout=180s")
    if away:
        operator.start_operator()
    operator.apply(rollout(later, LONG, flagSet=flag_set))
    decided(operator, later, "AdoptionRequired")
    action = operator.act("EmergencyDisable", later, reason="drill")
    assert answer(operator, action)["accepted"] is True
    assert flags(operator, flag_set)["alpha"]["metadata"]["emergencyDisabled"] is True


def test_policy_off_turns_off_a_document_whose_label_was_removed(operator: Lab) -> None:
    """While the operator was away."""
    operator.apply(rollout("bared", LONG, deletionPolicy="Off"))
    holding(operator, "bared")
    assert operator.operator is not None
    operator.operator.stop()
    label = {"metadata": {"labels": {"sessionrollout.dev/rollout": None}}}
    operator.kube.merge("/api/v1/namespaces/default/configmaps/bared-flags", label)
    operator.kubectl("delete", "sro", "bared", "--wait=false")
    operator.start_operator()
    operator.kubectl("wait", "--for=delete", "sro/bared", "--timeout=180s")
    assert flags(operator, "bared")["alpha"]["targeting"]["if"][-1] == "off-chosen"
