"""SessionRollouts and SessionRolloutActions in the API server (port `RolloutStore`)."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from session_rollout.adapters.api_server import FIELD_MANAGER, JSON, JSON_PATCH, MERGE, URGENT_SECONDS, ApiServer
from session_rollout.adapters.flags import LABEL
from session_rollout.adapters.jobs import MIGRATION_LABEL
from session_rollout.adapters.telemetry import STATUS_WRITES, answered
from session_rollout.api import ACTIONS, API_VERSION, ROLLOUTS
from session_rollout.api.action import ActionStatus
from session_rollout.api.parsing import first_missing, merged, readable_rollout_of, rollout_of, sentence
from session_rollout.api.status import RolloutStatus
from session_rollout.errors import Conflict, Forbidden, NotFound, RolloutError, SpecError, TooLarge
from session_rollout.ports import Incomplete, Key, Listed, ListedDocuments, Stored

PAGE = 200
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
BEHIND_SECONDS: Final = 10.0  # that a server may be behind; what is older for longer is a cluster that was restored
NO_QUERY: Mapping[str, str] = {}


def parse(raw: Mapping[str, Any]) -> Stored:
    """An object of the API server as a model, or with the problem that keeps it from being one."""
    key = Key(raw["metadata"]["namespace"], raw["metadata"]["name"])
    by_others = _status_by_others(raw["metadata"])
    try:
        return Stored(key, raw, rollout_of(raw), status_by_others=by_others)
    except ValidationError as error:
        return Stored(key, raw, readable_rollout_of(raw), sentence(error), by_others)


def _status_by_others(metadata: Mapping[str, Any]) -> bool:
    """Whether the newest write of the status, in whole seconds, is of another field manager than the operator."""
    writes = [
        (str(entry.get("time", "")), entry.get("manager") != FIELD_MANAGER)
        for entry in metadata.get("managedFields") or ()
        if entry.get("subresource") == "status"
    ]
    return bool(writes) and max(writes)[1]


def slim(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """An object to remember, without what anybody may add to it: annotations alone may have 256 KiB."""
    metadata = {name: value for name, value in raw["metadata"].items() if name not in {"annotations", "managedFields"}}
    return {**raw, "metadata": metadata}


def status_to_write(stored: Stored, status: RolloutStatus) -> dict[str, Any]:
    """A status as it is written: what could not be parsed in the stored one is not lost."""
    after = status.to_wire()
    return dict(merged(stored.raw.get("status", {}), stored.rollout.status.to_wire(), after)) if stored.problem else after


def _path(namespace: str, plural: str, name: str = "") -> str:
    """The path of an object or of a collection; in all namespaces if `namespace` is empty."""
    place = f"namespaces/{namespace}/" if namespace else ""
    return f"/apis/{API_VERSION}/{place}{plural}" + (f"/{name}" if name else "")


def _in_namespace(path: str, namespace: str) -> str:
    """The part of a collection that is in a namespace."""
    version, _, plural = path.rpartition("/")
    return f"{version}/namespaces/{namespace}/{plural}"


class ApiRolloutStore:
    """The store. It remembers the version of its last write for a while, so that a stale read is not taken for the present."""

    def __init__(
        self, api: ApiServer, namespaces: tuple[str, ...] = (), monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._namespaces = namespaces
        self._monotonic = monotonic
        self._written: dict[Key, tuple[int, float]] = {}  # the version, and when it was written

    async def read(self, key: Key) -> Stored | None:
        """See `RolloutStore.read`. Raises Conflict when the object is older than what was written a moment ago."""
        raw = await self._find(key)
        if raw is None:
            self._written.pop(key, None)
            return None
        version, written = self._written.get(key, (0, 0.0))
        if int(raw["metadata"]["resourceVersion"]) < version and self._monotonic() - written < BEHIND_SECONDS:
            raise Conflict(f"{key.namespace}/{key.name}: the object is older than the last write")
        return parse(raw)

    async def _find(self, key: Key) -> Mapping[str, Any] | None:
        """The object; from a list when only the right to get it is missing: guards and emergencies must not depend on that."""
        try:
            return await self._api.find(_path(key.namespace, ROLLOUTS, key.name))
        except Forbidden:
            query = {"fieldSelector": f"metadata.name={key.name}"}
            listed = await self._api.request("GET", _path(key.namespace, ROLLOUTS), query=query)
            return next(iter(listed["items"]), None)

    async def write_status(self, stored: Stored, status: RolloutStatus, *, dry_run: bool = False) -> Incomplete | None:
        """See `RolloutStore.write_status`."""
        key = stored.key
        body = {**stored.raw, "status": status_to_write(stored, status)}
        path, query = _path(key.namespace, ROLLOUTS, key.name) + "/status", {"dryRun": "All"} if dry_run else None
        written = await self._api.request("PUT", path, body, query=query)
        if not dry_run:
            self._wrote(key, written)
            STATUS_WRITES.inc()
        field = first_missing(body["status"], written.get("status", {}), "status")
        return Incomplete(field, parse(written)) if field else None

    def _wrote(self, key: Key, written: Mapping[str, Any]) -> None:
        self._written[key] = int(written["metadata"]["resourceVersion"]), self._monotonic()

    async def set_finalizer(self, stored: Stored, finalizer: str, *, present: bool) -> Stored:
        """See `RolloutStore.set_finalizer`."""
        metadata, key = stored.raw["metadata"], stored.key
        others = [name for name in metadata.get("finalizers", []) if name != finalizer]
        patch = {
            "metadata": {
                "resourceVersion": metadata["resourceVersion"],
                "finalizers": [*others, finalizer] if present else others,
            }
        }
        path = _path(key.namespace, ROLLOUTS, key.name)
        written = await self._api.request("PATCH", path, patch, content=MERGE, seconds=URGENT_SECONDS)
        self._wrote(key, written)
        return parse(written)

    async def listed(self) -> Listed:
        """See `RolloutStore.listed`."""
        return await self._list(_path("", ROLLOUTS), METADATA)

    async def actions(self) -> Listed:
        """See `RolloutStore.actions`."""
        return await self._list(_path("", ACTIONS))

    async def documents(self) -> ListedDocuments:
        """See `RolloutStore.documents`."""
        listed = await self._list("/api/v1/configmaps", METADATA, {"labelSelector": LABEL})
        labelled = (item["metadata"] for item in listed.items)
        versions = {Key(each["namespace"], each["name"]): int(each["resourceVersion"]) for each in labelled}
        return ListedDocuments(versions, listed.problems)

    async def migration_jobs(self) -> Listed:
        """See `RolloutStore.migration_jobs`."""
        return await self._list("/apis/batch/v1/jobs", METADATA, {"labelSelector": MIGRATION_LABEL})

    async def _list(self, path: str, accept: str = JSON, query: Mapping[str, str] = NO_QUERY) -> Listed:
        """Each namespace by itself: one without rights, gone or slow must not keep the others from being listed."""
        if not self._namespaces:
            return Listed(await self._pages(path, accept, query))
        results = await asyncio.gather(*(self._pages_or_problem(path, name, accept, query) for name in self._namespaces))
        problems = {
            name: result for name, result in zip(self._namespaces, results, strict=True) if isinstance(result, RolloutError)
        }
        if len(problems) == len(self._namespaces):
            error = problems[self._namespaces[-1]]
            error.problems = problems
            raise error
        items = tuple(item for result in results if not isinstance(result, RolloutError) for item in result)
        return Listed(items, problems)

    async def _pages_or_problem(
        self, path: str, namespace: str, accept: str, query: Mapping[str, str]
    ) -> tuple[Mapping[str, Any], ...] | RolloutError:
        try:
            return await self._pages(_in_namespace(path, namespace), accept, query)
        except RolloutError as error:
            return error

    async def _pages(self, path: str, accept: str, query: Mapping[str, str]) -> tuple[Mapping[str, Any], ...]:
        items: list[Mapping[str, Any]] = []
        asked: dict[str, str | int] = {**query}
        limit = PAGE
        while True:
            try:
                page = await self._api.request("GET", path, query={**asked, "limit": limit}, accept=accept)
            except TooLarge:  # 16 MiB; the API server accepts no object that is as large
                if limit == 1:
                    raise
                limit //= 2
                continue
            items += map(slim, page["items"])
            if not (token := page["metadata"].get("continue")):
                return tuple(items)
            asked["continue"] = token

    async def answer(self, namespace: str, name: str, answer: ActionStatus, *, uid: str) -> None:
        """See `RolloutStore.answer`."""
        # The tests keep the response from an action of the same name that was created after this one was deleted, which would
        # appear to be carried out, and from one that another leader has answered. The API server ignores a UID in a merge
        # patch of a status, and takes a field that is not there as null.
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "test", "path": "/status", "value": None},
            {"op": "add", "path": "/status", "value": answer.to_wire()},
        ]
        path = _path(namespace, ACTIONS, name) + "/status"
        try:
            await self._api.request("PATCH", path, patch, content=JSON_PATCH)
        except NotFound:
            return  # deleted before the response: nobody waits for it
        except SpecError:
            known = await self._action(namespace, name, uid)
            if known is None or "accepted" in (known.get("status") or {}):
                return  # deleted and created again, or answered: the first answer stays
            if "status" not in known:
                raise
            patch[1] = {
                "op": "test",
                "path": "/status",
                "value": known["status"],
            }  # somebody else has written it, and it is none
            await self._api.request("PATCH", path, patch, content=JSON_PATCH)
        answered(answer)

    async def _action(self, namespace: str, name: str, uid: str) -> Mapping[str, Any] | None:
        """This very action, if it exists; the operator has the permission to list actions, but not to get one."""
        query = {"fieldSelector": f"metadata.name={name}"}
        listed = await self._api.request("GET", _path(namespace, ACTIONS), query=query)
        return next((item for item in listed["items"] if item["metadata"]["uid"] == uid), None)

    async def delete_action(self, namespace: str, name: str, *, uid: str) -> None:
        """See `RolloutStore.delete_action`."""
        try:
            await self._api.request("DELETE", _path(namespace, ACTIONS, name), {"preconditions": {"uid": uid}})
        except (NotFound, Conflict):  # deleted, and perhaps created again
            return
