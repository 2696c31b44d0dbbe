"""The API server of the model: objects with versions, writes that are refused, lost or late, and the CRD's own schema.

It stands where HTTP would be: reading, deciding, writing and publishing are the operator's own code. A write that carries a
resourceVersion is refused when the object has changed; one without is not, as on a real server.
"""

import functools
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from session_rollout.adapters.api_server import FIELD_MANAGER, JSON, JSON_PATCH, REQUEST_SECONDS, ApiServer
from session_rollout.api.crds import rollout_definition
from session_rollout.errors import Conflict, NotFound, RolloutError, SpecError, Unavailable

Object = dict[str, Any]
Problems = Callable[[Any], str | None]
COLLECTIONS = {"configmaps", "sessionrollouts", "sessionrolloutactions"}
TYPES: dict[str, type | tuple[type, ...]] = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


@functools.cache
def status_problems() -> Problems:
    """What the API server says about a status: the schema of the CRD, compiled once because every life writes many."""
    [version] = rollout_definition()["spec"]["versions"]
    return compiled(version["schema"]["openAPIV3Schema"]["properties"]["status"], "status")


def compiled(schema: Mapping[str, Any], path: str) -> Problems:
    """A function that returns the first problem of a value, or None."""
    children = {name: compiled(child, f"{path}.{name}") for name, child in schema.get("properties", {}).items()}
    items = compiled(schema["items"], f"{path}[]") if "items" in schema else None
    kind, required = TYPES.get(schema.get("type", ""), object), schema.get("required", ())
    keys = schema.get("x-kubernetes-list-map-keys", ())
    bounds = _bounds(schema)

    def problems(value: Any) -> str | None:
        if not isinstance(value, kind):
            return f"{path} is {value!r}"
        if broken := next((text for text, holds in bounds if not holds(value)), None):
            return f"{path}: {broken}"
        if isinstance(value, dict):
            if missing := [name for name in required if name not in value]:
                return f"{path}.{missing[0]} is missing"
            found = (
                children[name](child) if name in children else f"{path}.{name} is unknown" for name, child in value.items()
            )
            return next(filter(None, found), None)
        if isinstance(value, list) and items is not None:
            names = [tuple(item[key] for key in keys) for item in value] if keys else []
            return f"{path} has an entry twice" if len(set(names)) < len(names) else next(filter(None, map(items, value)), None)
        return None

    return problems


def _bounds(schema: Mapping[str, Any]) -> list[tuple[str, Callable[[Any], bool]]]:
    """The bounds of one value, each with its text."""
    tests: dict[str, Callable[[Any, Any], Any]] = {
        "maxLength": lambda value, bound: len(value) <= bound,
        "minLength": lambda value, bound: len(value) >= bound,
        "maxItems": lambda value, bound: len(value) <= bound,
        "minimum": lambda value, bound: value >= bound,
        "maximum": lambda value, bound: value <= bound,
        "enum": lambda value, bound: value in bound,
        "pattern": lambda value, bound: re.search(bound, value),
    }
    return [
        (f"{name} {bound}", functools.partial(lambda value, test, bound: bool(test(value, bound)), test=test, bound=bound))
        for name, test in tests.items()
        if (bound := schema.get(name)) is not None
    ]


def kind_of(method: str, path: str) -> str:
    """What a request is about: a read, or a write of the `status`, the `finalizer`, the `document`, an `answer` or anything else."""
    if method == "GET":
        return "read"
    plural = path.rpartition("/namespaces/")[2].split("/")[1]
    if plural == "sessionrollouts" and not path.endswith("/status"):
        return "finalizer"
    return {"configmaps": "document", "sessionrolloutactions": "answer", "sessionrollouts": "status"}.get(plural, plural)


class Frozen(BaseException):
    """The process stops here, between its read and its write; the write arrives later."""


@dataclass
class Server(ApiServer):
    """Keeps objects by path. Nothing that it hands out is ever changed in place, so nothing is copied."""

    objects: dict[str, Object] = field(default_factory=dict)
    version: int = 0
    refused: dict[str, RolloutError] = field(default_factory=dict)  # by kind of write, until it is taken away
    refused_once: dict[str, list[RolloutError]] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)  # the next write of this kind is done, and its response is lost
    held: dict[str, bool] = field(default_factory=dict)  # the next write of this kind is late; whether the process freezes
    overtaken: list[tuple[str, Callable[[], Awaitable[None]]]] = field(
        default_factory=list
    )  # what comes before writes of a kind, in order
    unread: bool = False  # rollouts cannot be read; lists are answered
    late: list[Callable[[], Object]] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)  # kinds of write that did not go well since somebody cleared this
    invalid: list[str] = field(default_factory=list)  # why a status was refused by the schema
    on_document: list[Callable[[], None]] = field(default_factory=list)

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: str = JSON,
        query: Mapping[str, Any] | None = None,
        seconds: float = REQUEST_SECONDS,  # noqa: ARG002 - nothing takes time here
        accept: str = JSON,  # noqa: ARG002 - whole objects are metadata, too
    ) -> Object:
        """As the API server does it."""
        kind = kind_of(method, path)
        if kind == "read":
            if self.unread and path in self.objects and "/sessionrollouts/" in path:
                raise Unavailable("reading the rollout timed out")
            return self._get(path, query or {})
        if self.overtaken and self.overtaken[0][0] == kind:
            (_, come_first), *later = self.overtaken
            self.overtaken = []  # nobody overtakes the one that comes first
            await come_first()
            self.overtaken = later
        write = functools.partial(self._write, method, path, body, content)
        if problem := self._fault(kind, write):
            self.failed.add(kind)
            raise problem
        return write()

    def _fault(self, kind: str, write: Callable[[], Object]) -> BaseException | None:
        """What becomes of a write that does not go well; None when it does."""
        if self.refused_once.get(kind):
            return self.refused_once[kind].pop(0)
        if kind in self.refused:
            return self.refused[kind]
        if kind in self.held:
            self.late.append(write)
            return Frozen() if self.held.pop(kind) else Unavailable(f"writing the {kind} timed out")
        if kind in self.lost:
            self.lost.discard(kind)
            write()
            return Unavailable(f"the response about the {kind} was lost")
        return None

    def land(self) -> None:
        """The late writes arrive, each with its own precondition."""
        for write in self.late:
            try:
                write()
            except (Conflict, NotFound, SpecError):
                continue
        self.late = []

    def _get(self, path: str, query: Mapping[str, Any]) -> Object:
        if path in self.objects:
            return self.objects[path]
        if path.rsplit("/", 1)[-1] not in COLLECTIONS:
            raise NotFound(path)
        name = str(query.get("fieldSelector", "")).removeprefix("metadata.name=")
        plural = path.rpartition("/")[2]
        items = [item for key, item in self.objects.items() if key.split("/")[-2] == plural]
        label = query.get("labelSelector")
        labelled = [item for item in items if label is None or label in (item["metadata"].get("labels") or {})]
        return {"metadata": {}, "items": [item for item in labelled if not name or item["metadata"]["name"] == name]}

    # --- writes

    def _write(self, method: str, path: str, body: Any, content: str) -> Object:
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            if path in self.objects:
                raise Conflict(f"AlreadyExists: {path}")
            return self.put(path, body)
        if method == "DELETE":
            return self.remove(path)
        status, path = path.endswith("/status"), path.removesuffix("/status")
        old = self.objects.get(path)
        if old is None:
            raise NotFound(f"NotFound: {path}")
        if method == "PATCH":
            if content != JSON_PATCH:
                self._check_version(old, body)
            return self._put_patched(path, _patched(old, body, content))
        self._check_version(old, body)
        return self._put_status(path, old, body) if status else self.put(path, body)

    def _put_patched(self, path: str, patched: Object) -> Object:
        """An object that is being deleted is gone with its last finalizer."""
        metadata = patched["metadata"]
        stored = self.put(path, patched)
        return self.remove(path) if "deletionTimestamp" in metadata and not metadata.get("finalizers") else stored

    def _check_version(self, old: Object | None, body: Any) -> None:
        wanted = body["metadata"].get("resourceVersion")
        if wanted is not None and (old is None or wanted != old["metadata"]["resourceVersion"]):
            raise Conflict("Conflict: the object has been modified")

    def _put_status(self, path: str, old: Object, body: Object) -> Object:
        before = old.get("status", {})
        fresh = {name: value for name, value in body["status"].items() if name not in before or before[name] != value}
        if problem := status_problems()(fresh):  # the rest was valid before, and no field of a status is required
            self.invalid.append(problem)
            raise SpecError(f"Invalid: {problem}")
        return self.put(path, {**old, "status": body["status"]})

    def put(self, path: str, value: Object, *, manager: str = FIELD_MANAGER) -> Object:
        """Store an object; the watch of documents hears of it."""
        self.version += 1
        *_, namespace, _plural, name = path.split("/")
        metadata = {**value["metadata"], "namespace": namespace, "name": name, "resourceVersion": str(self.version)}
        if "/configmaps/" in path:
            metadata["namespace"] = path.split("/")[4]
            metadata["managedFields"] = [
                {
                    "manager": manager,
                    "operation": "Update",
                    "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:data": {"f:flags.flagd.json": {}}},
                }
            ]
        stored = self.objects[path] = {**value, "metadata": metadata}
        self._tell(path)
        return stored

    def remove(self, path: str) -> Object:
        """Delete an object."""
        if path not in self.objects:
            raise NotFound(f"NotFound: {path}")
        gone = self.objects.pop(path)
        self._tell(path)
        return gone

    def _tell(self, path: str) -> None:
        if "/configmaps/" in path:
            for listener in self.on_document:
                listener()


def merged(old: Object, patch: Object) -> Object:
    """A JSON merge patch: null removes."""
    kept = {name: value for name, value in old.items() if patch.get(name, value) is not None}
    inner = {name: merged(kept.get(name) or {}, value) for name, value in patch.items() if isinstance(value, dict)}
    return {**kept, **{name: value for name, value in patch.items() if value is not None}, **inner}


def _patched(old: Object, body: Any, content: str) -> Object:
    """A merge patch, or the JSON patches that the operator sends: `test` of metadata, and `add` of a whole field."""
    if content != JSON_PATCH:
        return merged(old, body)
    result = old
    for operation in body:
        *parents, last = operation["path"].strip("/").split("/")
        target = functools.reduce(lambda value, name: value[name], parents, result)
        if operation["op"] == "test" and target.get(last) != operation["value"]:
            raise SpecError(f"Invalid: {operation['path']}")
        if operation["op"] in {"add", "replace"}:
            assert not parents, "only whole fields"
            result = {**result, last: operation["value"]}
    return result
