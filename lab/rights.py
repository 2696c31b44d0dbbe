"""What the operator requested from the API server, by its audit log, against what the chart grants: nothing more, nothing less."""

import json
from typing import Any

import yaml

from lab.lab import ROOT, Lab
from lab.proofs import Proof

Right = tuple[str, str]
ROLES = {"session-rollout", "session-rollout-lease"}


def granted(lab: Lab) -> set[Right]:
    """Resource and verb of every rule of the operator's own roles."""
    shipped = yaml.safe_load_all(lab.kubectl("kustomize", str(ROOT / "manifests" / "overlays" / "cluster")).stdout)
    return {
        (resource, verb)
        for document in shipped
        if document["metadata"]["name"] in ROLES
        for rule in document.get("rules", [])
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def audit(lab: Lab) -> list[dict[str, Any]]:
    """The operator's requests about objects; of a line that is being written, nothing."""
    whole = lab.cluster.audit_log.read_text().rpartition("\n")[0]
    lines = (json.loads(line) for line in whole.splitlines())
    return [line for line in lines if "objectRef" in line]


def used(lines: list[dict[str, Any]]) -> set[Right]:
    """Resource and verb of each request; two rights are used inside of a request.

    An apply that makes an object needs `create` beside `patch`; an owner reference that blocks deletion needs `update` of the
    owner's finalizers, by the admission plug-in OwnerReferencesPermissionEnforcement, which the lab's API server runs.
    """
    used = set()
    for line in lines:
        about, code = line["objectRef"], line.get("responseStatus", {}).get("code")
        resource = about["resource"] + (f"/{about['subresource']}" if "subresource" in about else "")
        used.add((resource, line["verb"]))
        if line["verb"] == "patch" and code == 201:
            used.add((resource, "create"))
        if resource in {"jobs", "configmaps"} and code == 201:
            used.add(("sessionrollouts/finalizers", "update"))
    return used


def prove(lab: Lab, proof: Proof) -> None:
    """Nothing was refused, nothing is granted that was not used, and no right is a wildcard or about Secrets."""
    lines, rights = audit(lab), granted(lab)
    refused = {line["requestURI"] for line in lines if line.get("responseStatus", {}).get("code") == 403}
    proof.check(
        not refused,
        f"{len(lines)} requests of the operator, {len(refused)} refused{': ' + ', '.join(refused) if refused else ''}",
    )
    unused = sorted(" ".join(reversed(right)) for right in rights - used(lines))
    proof.check(
        not unused, f"{len(rights)} rights granted, {len(unused)} of them unused{': ' + ', '.join(unused) if unused else ''}"
    )
    loose = {word for right in rights for word in right} & {"*", "secrets"}
    proof.check(not loose, f"{len(loose)} wildcards or rights on Secrets")
