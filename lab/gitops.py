"""What Argo CD and Flux see of a rollout: whether Git and the cluster agree, and the health of every status."""

import json
from typing import Any, Final

from lab.kube import ApiError, Object
from lab.lab import ROOT, Lab
from lab.proofs import Proof
from lab.recorder import Recorder

STATUSES: Final = ROOT / "tests" / "gitops" / "statuses"
# What the health of an object is decided by.
DECISIVE: Final = ("observedGeneration", "state", "conditions", "outcome", "current", "decision")


class GitSide:
    """Applies the version of Git again after each phase, without writing: nothing may differ."""

    def __init__(self, lab: Lab, document: Object, recorder: Recorder) -> None:
        self.lab, self.document, self.recorder = lab, document, recorder
        self.differences: dict[str, str] = {}

    def watch(self) -> None:
        """Until the last phase is over."""
        for phase in self.document["spec"]["phases"]:
            self.lab.until(lambda name=phase["name"]: self._over(name), 600, f"the end of {phase['name']}")
            self.differences[phase["name"]] = self._difference()

    def _over(self, name: str) -> bool:
        states = {phase["name"]: phase["state"] for phase in self.recorder.last.get("phases", [])}
        return states.get(name) in {"Completed", "RolledBack"}

    def _difference(self) -> str:
        """By the manager that applied it, and by one that takes every conflict, as Argo CD does."""
        path, text = self.lab.path_of(self.document), ""
        for manager, force in (("lab", "false"), ("argocd-controller", "true")):
            content = "application/apply-patch+yaml"
            try:
                applied = self.lab.kube.request(
                    "PATCH", path, self.document, content=content, fieldManager=manager, force=force, dryRun="All"
                )
            except ApiError as error:
                return str(error)
            before, after = (_declared(document) for document in (self.lab.kube.get(path), applied))
            text += "".join(
                f"{manager}: {key} {before.get(key)} {after[key]}; " for key in after if before.get(key) != after[key]
            )
        return text

    def prove(self, proof: Proof) -> None:
        """Every phase was compared, and none differed."""
        clean = [name for name, text in self.differences.items() if not text]
        proof.check(
            clean == [phase["name"] for phase in self.document["spec"]["phases"]],
            f"server-side dry-run apply of the version of Git after {len(clean)} phases: {'; '.join(self.differences.values()).strip('; ') or 'no difference'}",
        )


def _declared(document: Object) -> Object:
    """What Git can declare of an object: no status, and nothing that the API server maintains."""
    kept = {key: value for key, value in document["metadata"].items() if key not in {"managedFields", "resourceVersion"}}
    return {"metadata": kept, "spec": document["spec"]}


def keep(scenario: str, document: Object, recorder: Recorder) -> int:
    """Write the statuses of a run for the tests of health: one of each kind that differs in more than times and numbers."""
    kept: dict[str, Any] = {}
    for seen in recorder.statuses:
        status = {key: seen.status[key] for key in DECISIVE if key in seen.status}
        conditions = [
            (condition["type"], condition["status"], condition["reason"]) for condition in status.get("conditions", [])
        ]
        awaited = status.get("decision", {}).get("approvals")
        phase = status.get("current", {}).get("phase")
        kept.setdefault(json.dumps([conditions, status.get("outcome"), bool(awaited), phase]), status)
    metadata = {"name": document["metadata"]["name"], "namespace": document["metadata"]["namespace"], "generation": 1}
    objects = [{"metadata": metadata, "status": status} for status in kept.values()]
    STATUSES.mkdir(parents=True, exist_ok=True)
    (STATUSES / f"{scenario}.json").write_text(json.dumps(objects, indent=1) + "\n")
    return len(objects)
