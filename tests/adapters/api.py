"""An API server in memory for the adapters: objects by path, with resourceVersions and the patches that the operator sends."""

import copy
from collections.abc import Mapping
from typing import Any

from session_rollout.adapters.api_server import APPLY, JSON, JSON_PATCH, MERGE, ApiServer
from session_rollout.errors import Conflict, NotFound, SpecError

Object = dict[str, Any]
COLLECTIONS = {"configmaps", "jobs", "pods", "replicasets", "sessionrolloutactions", "sessionrollouts"}


class Api(ApiServer):
    """Keeps objects; a test says which request fails."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.texts: dict[str, str] = {}  # responses that are not objects, by path
        self.requests: list[tuple[str, str]] = []
        self.failures: dict[str, list[Exception]] = {}  # by method; each is raised once
        self.version = 0

    def put(self, path: str, value: Mapping[str, Any]) -> Object:
        """Store an object."""
        self.version += 1
        stored: Object = copy.deepcopy({**value})
        stored.setdefault("metadata", {}).setdefault("name", path.rsplit("/", 1)[-1])
        stored["metadata"]["resourceVersion"] = str(self.version)
        self.objects[path] = stored
        return stored

    async def request(
        self, method: str, path: str, body: Any = None, *, content: str = JSON, query: Mapping[str, Any] | None = None, **_: Any
    ) -> Object:
        """As the API server does it."""
        self.requests.append((method, path))
        if self.failures.get(method):
            raise self.failures[method].pop(0)
        return copy.deepcopy(getattr(self, f"_{method.lower()}")(path, body, content, query or {}))

    async def text(self, method: str, path: str, body: Any = None, **_: Any) -> str:
        self.requests.append((method, path))
        if path not in self.texts:
            raise NotFound(f"{path} {body}")
        return self.texts[path]

    def _get(self, path: str, _body: Any, _content: str, _query: Mapping[str, Any]) -> Object:
        if path in self.objects:
            return self.objects[path]
        if path.rsplit("/", 1)[-1] not in COLLECTIONS:
            raise NotFound(path)
        return {"metadata": {}, "items": [item for name, item in self.objects.items() if name.rsplit("/", 1)[0] == path]}

    def _post(self, path: str, body: Any, _content: str, _query: Mapping[str, Any]) -> Object:
        if path.endswith("selfsubjectaccessreviews"):
            return self.objects[path]
        name = f"{path}/{body['metadata']['name']}"
        if name in self.objects:
            raise Conflict(name)
        return self.put(name, body)

    def _put(self, path: str, body: Any, _content: str, query: Mapping[str, Any]) -> Object:
        path = path.removesuffix("/status")
        if path not in self.objects:
            raise NotFound(path)
        if body["metadata"]["resourceVersion"] != self.objects[path]["metadata"]["resourceVersion"]:
            raise Conflict(path)
        return {**body} if "dryRun" in query else self.put(path, body)

    def _patch(self, path: str, body: Any, content: str, query: Mapping[str, Any]) -> Object:
        path = path.removesuffix("/status")
        if content == APPLY:
            assert "dryRun" in query, "what else is written is a merge patch"
            return {**body}
        if path not in self.objects:
            raise NotFound(path)
        if content == MERGE:
            return self._merge(path, body)
        assert content == JSON_PATCH
        return self.put(path, _json_patched(self.objects[path], body))

    def _merge(self, path: str, body: Any) -> Object:
        before = self.objects[path]
        version = body.get("metadata", {}).get("resourceVersion")
        if version is not None and version != before["metadata"]["resourceVersion"]:
            raise Conflict(path)
        return self.put(path, merged(before, body))

    def _delete(self, path: str, body: Any, _content: str, _query: Mapping[str, Any]) -> Object:
        if path not in self.objects:
            raise NotFound(path)
        if body["preconditions"]["uid"] != self.objects[path]["metadata"]["uid"]:
            raise Conflict(path)
        return self.objects.pop(path)


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> Object:
    """A JSON merge patch: null removes."""
    result = {**old}
    for key, value in new.items():
        result[key] = merged(result.get(key) or {}, value) if isinstance(value, Mapping) else value
    return {key: value for key, value in result.items() if value is not None}


def _json_patched(old: Object, operations: list[Object]) -> Object:
    result = copy.deepcopy(old)
    for operation in operations:
        *parents, last = (part.replace("~1", "/") for part in operation["path"].strip("/").split("/"))
        target = result
        for parent in parents:
            target = target[parent]
        if operation["op"] == "test":
            if target.get(last) != operation["value"]:
                raise SpecError(operation["path"])
        else:
            target[last] = operation["value"]
    return result
