"""The application's Deployment (port `Workloads`): whether it is available, its revisions, undo and restart.

An undo does what `kubectl rollout undo` does: the template of an earlier ReplicaSet becomes the Deployment's. It is a JSON
patch that the API server applies only while the Deployment has the revision that was observed.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from session_rollout.adapters.api_server import JSON_PATCH, MERGE, ApiServer, owner_uids
from session_rollout.api import GROUP
from session_rollout.api.rollout import Workload
from session_rollout.core.observed import Revisions
from session_rollout.errors import SpecError, Unavailable

REVISION: Final = "deployment.kubernetes.io/revision"
REVISION_DIGITS: Final = 15  # what a status can have
RESTARTED: Final = f"{GROUP}/restarted-at"
POD_HASH: Final = "pod-template-hash"
GRANT: Final = "the chart's value `rbac.workloads`"
REVIEWS: Final = "authorization.k8s.io/v1"


def _path(namespace: str, name: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"


class ApiWorkloads:
    """Deployments in the API server."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api

    async def unavailable_reason(self, namespace: str, workload: Workload) -> str | None:
        """See `Workloads.unavailable_reason`."""
        deployment = await self._api.find(_path(namespace, workload.name))
        if deployment is None:
            return f"{workload.kind} {workload.name} does not exist"
        conditions = {condition["type"]: condition for condition in deployment.get("status", {}).get("conditions", [])}
        available = conditions.get("Available", {})
        if available.get("status") == "True":
            return None
        message = available.get("message", "it does not have the `Available` condition yet")
        return f"{workload.kind} {workload.name} is not available: {message}"

    async def revisions(self, namespace: str, workload: Workload) -> Revisions | None:
        """See `Workloads.revisions`."""
        deployment = await self._api.find(_path(namespace, workload.name))
        if deployment is None:
            return None
        current = _revision(deployment)
        if (missing := await self._missing_permission(namespace)) is not None:
            return Revisions(current, blocked_reason=missing)
        revisions = [_revision(replica_set) for replica_set in await self._replica_sets(namespace, deployment)]
        earlier = [revision for revision in revisions if revision < current]
        return Revisions(current, max(earlier, default=None), _restarted(deployment))

    async def _missing_permission(self, namespace: str) -> str | None:
        """The permission to change workloads that the operator lacks; None when it has all of them."""
        for verb, resource in (("list", "replicasets"), ("patch", "deployments")):
            attributes = {"namespace": namespace, "verb": verb, "group": "apps", "resource": resource}
            review = {"apiVersion": REVIEWS, "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes}}
            reviewed = await self._api.request("POST", f"/apis/{REVIEWS}/selfsubjectaccessreviews", review)
            if not reviewed["status"]["allowed"]:
                return f"the operator does not have the permission to {verb} {resource}; {GRANT} grants it"
        return None

    async def _replica_sets(self, namespace: str, deployment: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Its ReplicaSets."""
        labels = deployment["spec"]["selector"].get("matchLabels", {})
        query = {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())}
        listed = await self._api.request("GET", f"/apis/apps/v1/namespaces/{namespace}/replicasets", query=query)
        uid = deployment["metadata"]["uid"]
        return [item for item in listed["items"] if uid in owner_uids(item)]

    async def undo(self, namespace: str, workload: Workload, *, revision: int, earlier: int) -> None:
        """See `Workloads.undo`."""
        deployment = await self._api.find(_path(namespace, workload.name))
        if deployment is None:
            raise Unavailable(f"Deployment {workload.name} does not exist")
        replica_sets = await self._replica_sets(namespace, deployment)
        template = next((item["spec"]["template"] for item in replica_sets if _revision(item) == earlier), None)
        if template is None:
            raise SpecError(f"revision {earlier} of Deployment {workload.name} no longer exists")
        template["metadata"].get("labels", {}).pop(POD_HASH, None)
        patch = [
            {"op": "test", "path": f"/metadata/annotations/{REVISION.replace('/', '~1')}", "value": str(revision)},
            {"op": "replace", "path": "/spec/template", "value": template},
        ]
        await self._api.request("PATCH", _path(namespace, workload.name), patch, content=JSON_PATCH)

    async def restart(self, namespace: str, workload: Workload, at: datetime) -> None:
        """See `Workloads.restart`."""
        patch = {"spec": {"template": {"metadata": {"annotations": {RESTARTED: at.isoformat()}}}}}
        await self._api.request("PATCH", _path(namespace, workload.name), patch, content=MERGE)


def _revision(item: Mapping[str, Any]) -> int:
    """The number that the Deployment controller gives; 0 if somebody has written something else."""
    text = item["metadata"].get("annotations", {}).get(REVISION, "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= REVISION_DIGITS else 0


def _restarted(deployment: Mapping[str, Any]) -> datetime | None:
    """Time of the last requested restart; None if somebody has written no time."""
    text = deployment["spec"]["template"]["metadata"].get("annotations", {}).get(RESTARTED, "")
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
