"""The application's Deployment (port `Workloads`): whether it is available, its revisions, undo and restart.

An undo does what `kubectl rollout undo` does: the template of an earlier ReplicaSet becomes the Deployment's, by a JSON
patch that the API server applies only while the revision is the one that was seen.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from session_rollout.adapters.api_server import JSON_PATCH, MERGE, ApiServer
from session_rollout.api import GROUP
from session_rollout.api.rollout import Workload
from session_rollout.core.observed import Revisions
from session_rollout.errors import SpecError, Unavailable

REVISION: Final = "deployment.kubernetes.io/revision"
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

    async def problem(self, namespace: str, workload: Workload) -> str:
        """See `Workloads.problem`."""
        found = await self._api.find(_path(namespace, workload.name))
        if found is None:
            return f"{workload.kind} {workload.name} does not exist"
        conditions = {one["type"]: one for one in found.get("status", {}).get("conditions", [])}
        available = conditions.get("Available", {})
        if available.get("status") == "True":
            return ""
        message = available.get("message", "no condition Available yet")
        return f"{workload.kind} {workload.name} is not available: {message}"[:400]

    async def revisions(self, namespace: str, workload: Workload) -> Revisions | None:
        """See `Workloads.revisions`."""
        found = await self._api.find(_path(namespace, workload.name))
        if found is None:
            return None
        if problem := await self._missing_right(namespace):
            return Revisions(_revision(found), problem=problem)
        current, sets = _revision(found), await self._sets(namespace, found)
        earlier = [number for one in sets if (number := _revision(one)) < current]
        restarted = found["spec"]["template"]["metadata"].get("annotations", {}).get(RESTARTED)
        return Revisions(current, max(earlier, default=None), datetime.fromisoformat(restarted) if restarted else None)

    async def _missing_right(self, namespace: str) -> str:
        """Which right to change workloads is not granted; empty when none is missing."""
        for verb, resource in (("list", "replicasets"), ("patch", "deployments")):
            wish = {"namespace": namespace, "verb": verb, "group": "apps", "resource": resource}
            review = {"apiVersion": REVIEWS, "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": wish}}
            answer = await self._api.request("POST", f"/apis/{REVIEWS}/selfsubjectaccessreviews", review)
            if not answer["status"]["allowed"]:
                return f"the operator may not {verb} {resource}, {GRANT} grants it"
        return ""

    async def _sets(self, namespace: str, deployment: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Its ReplicaSets."""
        labels = deployment["spec"]["selector"].get("matchLabels", {})
        query = {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())}
        listed = await self._api.request("GET", f"/apis/apps/v1/namespaces/{namespace}/replicasets", query=query)
        uid = deployment["metadata"]["uid"]
        return [one for one in listed["items"] if any(own["uid"] == uid for own in one["metadata"].get("ownerReferences", []))]

    async def undo(self, namespace: str, workload: Workload, *, revision: int, earlier: int) -> None:
        """See `Workloads.undo`."""
        found = await self._api.find(_path(namespace, workload.name))
        if found is None:
            raise Unavailable(f"Deployment {workload.name} does not exist")
        template = next(
            (one["spec"]["template"] for one in await self._sets(namespace, found) if _revision(one) == earlier), None
        )
        if template is None:
            raise SpecError(f"revision {earlier} of Deployment {workload.name} is gone")
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


def _revision(thing: Mapping[str, Any]) -> int:
    return int(thing["metadata"].get("annotations", {}).get(REVISION, "0"))
