"""Flag documents as ConfigMaps (port `FlagPublisher`). flagd's own evaluator checks a document before it is published."""

from contextlib import suppress
from typing import Any, Final

from session_rollout.adapters.api_server import FIELD_MANAGER, MERGE, REQUEST_SECONDS, URGENT_SECONDS, ApiServer
from session_rollout.adapters.flag_evaluator import validate
from session_rollout.adapters.labels import NAME, recommended
from session_rollout.api import GROUP
from session_rollout.api.protection import ANNOTATION, PROTECTIONS, Protection
from session_rollout.api.rollout import SessionRollout
from session_rollout.core.documents import PublishedDocument, read_document
from session_rollout.core.flags import KEY, flag_set_of
from session_rollout.core.observed import Publish
from session_rollout.errors import Conflict, Forbidden, NotFound, RolloutError, SpecError, Unavailable

LABEL: Final = f"{GROUP}/rollout"
COMPONENT: Final = "flags"
LONGEST_SECONDS: Final = 35.0  # more than the 30 s that an admission webhook may take
MOST_DOUBLINGS: Final = 4
ANNOTATION_BYTES: Final = 200 * 2**10  # the API server allows 256 KiB for all annotations of an object


class ConfigMapPublisher:
    """Publishes by merge patches and reads back.

    A merge patch removes what it says, whoever wrote it. A server-side apply leaves what another operation of the same field manager
    has written, such as the creation, so that a document would keep the label of its rollout for ever.

    A document has no owner reference: whatever happens to its rollout, garbage collection must not take users' features.
    """

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self._late: dict[str, int] = {}  # attempts in vain, by path

    async def publish(self, rollout: SessionRollout, document: Publish, *, urgent: bool = False) -> PublishedDocument:
        """See `FlagPublisher.publish`."""
        validate(document.text)
        path = _path(rollout.namespace, document.config_map)
        seconds = URGENT_SECONDS if urgent else REQUEST_SECONDS
        protections = _dumped(document.protections) if document.protections else None
        body = _body(document.text, rollout.name, {ANNOTATION: protections})
        try:
            return document_of(await self._write_in_time(path, document.version, body, seconds))
        except (SpecError, Forbidden):
            if not (urgent and protections):
                raise
        # Whatever is wrong with the annotation: it explains, and the text protects.
        bare = _body(document.text, rollout.name, {ANNOTATION: None})
        written = document_of(await self._write_in_time(path, document.version, bare, seconds))
        with suppress(RolloutError):  # a refusal may be over: another leader must not find a document that nothing explains
            written = document_of(await self._write_in_time(path, written.version, body, seconds))
        return written

    async def _write_in_time(self, path: str, version: int | None, body: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Twice as long as the last attempt that was in vain: an admission webhook may take up to half a minute."""
        patience = min(seconds * float(2 ** self._late.get(path, 0)), LONGEST_SECONDS)
        try:
            written = await self._write(path, version, body, patience)
        except Forbidden:
            raise
        except Unavailable:
            self._late[path] = min(self._late.get(path, 0) + 1, MOST_DOUBLINGS)
            raise
        self._late.pop(path, None)
        return written

    async def _write(self, path: str, version: int | None, body: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Create the ConfigMap, or replace the version that the decision saw: a late write must not replace a newer document."""
        query = {"fieldManager": FIELD_MANAGER}
        if version is None:
            collection, _, name = path.rpartition("/")
            return await self._api.request("POST", collection, _created(name, body), query=query, seconds=seconds)
        patch = {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}}
        try:
            return await self._api.request("PATCH", path, patch, content=MERGE, query=query, seconds=seconds)
        except NotFound as error:
            raise Conflict(f"the flag document was deleted: {error}") from error

    async def read(self, namespace: str, config_map: str) -> PublishedDocument | None:
        """See `FlagPublisher.read`."""
        current = await self._api.find(_path(namespace, config_map))
        return None if current is None else document_of(current)

    async def release(self, rollout: SessionRollout, config_map: str, document: PublishedDocument, text: str | None) -> None:
        """See `FlagPublisher.release`. Its annotation stays: a rollout that is created again must not turn on what was rolled back."""
        await self._write_in_time(
            _path(rollout.namespace, config_map), document.version, _body(text, None, {}), REQUEST_SECONDS
        )


def document_of(config_map: Any) -> PublishedDocument:
    """The document in a ConfigMap object."""
    metadata = config_map["metadata"]
    labels = metadata.get("labels") or {}
    return read_document(
        str((config_map.get("data") or {}).get(KEY, "")),
        flag_set=flag_set_of(metadata.get("name", "")),
        version=int(metadata["resourceVersion"]),
        owner=labels.get(LABEL),
        labelled=LABEL in labels,
        managed=LABEL in labels or labels.get("app.kubernetes.io/managed-by") == NAME,
        protections=_protections(metadata),
        editor=_editor(metadata),
    )


def _dumped(protections: tuple[Protection, ...]) -> str:
    """The newest protections that an annotation can hold. An earlier version reads those without a field that it does not know."""
    while len(text := PROTECTIONS.dump_json(protections, by_alias=True, exclude_none=True)) > ANNOTATION_BYTES:
        protections = protections[1:]
    return text.decode()


def _protections(metadata: Any) -> tuple[Protection, ...]:
    try:
        return PROTECTIONS.validate_json((metadata.get("annotations") or {}).get(ANNOTATION, "[]"))
    except ValueError:
        return ()  # somebody has edited the annotation; without it nothing is adopted


def _editor(metadata: Any) -> str | None:
    """The newest field manager other than the operator that wrote the text of the document."""
    writers = [
        (entry.get("time", ""), str(entry.get("manager", "")))
        for entry in metadata.get("managedFields") or ()
        if f"f:{KEY}" in (entry.get("fieldsV1") or {}).get("f:data", {}) and entry.get("manager") != FIELD_MANAGER
    ]
    return max(writers)[1] if writers else None


def _path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps/{name}"


def _body(text: str | None, owner: str | None, annotations: dict[str, str | None]) -> dict[str, Any]:
    """A merge patch: None removes a label or an annotation; without a text, it stays as it is."""
    metadata = {"labels": {LABEL: owner, **recommended(COMPONENT)}, "annotations": annotations}
    return {"metadata": metadata} if text is None else {"metadata": metadata, "data": {KEY: text}}


def _created(name: str, body: dict[str, Any]) -> dict[str, Any]:
    """The object that the merge patch is about, without what it removes."""
    metadata = {
        field: {key: value for key, value in known.items() if value is not None} for field, known in body["metadata"].items()
    }
    return {**body, "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}
