"""Flag documents as ConfigMaps (port `FlagPublisher`). flagd's own evaluator checks a document before it is published."""

from typing import Any, Final

from session_rollout.adapters.api_server import FIELD_MANAGER, REQUEST_SECONDS, URGENT_SECONDS, ApiServer
from session_rollout.adapters.flag_evaluator import validate
from session_rollout.adapters.labels import NAME, recommended
from session_rollout.api import GROUP
from session_rollout.api.protection import ANNOTATION, PROTECTIONS, Protection
from session_rollout.api.rollout import SessionRollout
from session_rollout.core.documents import PublishedDocument, read_document
from session_rollout.core.flags import KEY
from session_rollout.core.observed import Publish
from session_rollout.errors import Forbidden, SpecError, Unavailable
from session_rollout.ports import Successor

LABEL: Final = f"{GROUP}/rollout"
COMPONENT: Final = "flags"
LONGEST_SECONDS: Final = 35.0  # more than the 30 s that an admission webhook may take
MOST_DOUBLINGS: Final = 4
ANNOTATION_BYTES: Final = 200 * 2**10  # the API server allows 256 KiB for all annotations of an object


class ConfigMapPublisher:
    """Publishes by server-side apply and reads back.

    A document has no owner reference: whatever happens to its rollout, garbage collection must not take users' features.
    """

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self._late: dict[str, int] = {}  # attempts in vain, by path

    async def publish(self, rollout: SessionRollout, document: Publish, *, urgent: bool = False) -> PublishedDocument:
        """See `FlagPublisher.publish`."""
        validate(document.text)
        seconds = self._patience(rollout, document, URGENT_SECONDS if urgent else REQUEST_SECONDS)
        annotations = {ANNOTATION: _dumped(document.protections)} if document.protections else {}
        try:
            return document_of(await self._write_in_time(rollout, document, annotations, seconds))
        except (SpecError, Forbidden):
            if not (urgent and annotations):
                raise
            # Whatever is wrong with the annotation: it explains, and the text protects.
            return document_of(await self._write_in_time(rollout, document, {}, seconds))

    def _patience(self, rollout: SessionRollout, document: Publish, seconds: float) -> float:
        """Twice as long as the last attempt that was in vain: an admission webhook may take up to half a minute."""
        late = self._late.get(_path(rollout.namespace, document.config_map), 0)
        return min(seconds * float(2**late), LONGEST_SECONDS)

    async def _write_in_time(
        self, rollout: SessionRollout, document: Publish, annotations: dict[str, str], seconds: float
    ) -> dict[str, Any]:
        path = _path(rollout.namespace, document.config_map)
        try:
            written = await self._write(rollout, document, annotations, seconds)
        except Forbidden:
            raise
        except Unavailable:
            self._late[path] = min(self._late.get(path, 0) + 1, MOST_DOUBLINGS)
            raise
        self._late.pop(path, None)
        return written

    async def _write(
        self, rollout: SessionRollout, document: Publish, annotations: dict[str, str], seconds: float
    ) -> dict[str, Any]:
        """Create the ConfigMap, or replace the version that the decision saw: a late write must not replace a newer document."""
        path = _path(rollout.namespace, document.config_map)
        metadata: dict[str, Any] = {"labels": {LABEL: rollout.name, **recommended(COMPONENT)}, "annotations": annotations}
        if document.version is None:
            body = _body(document.config_map, document.text, metadata)
            query = {"fieldManager": FIELD_MANAGER}
            return await self._api.request("POST", path.rpartition("/")[0], body, query=query, seconds=seconds)
        metadata["resourceVersion"] = str(document.version)
        return await self._api.apply(path, _body(document.config_map, document.text, metadata), seconds=seconds)

    async def read(self, namespace: str, config_map: str) -> PublishedDocument | None:
        """See `FlagPublisher.read`."""
        current = await self._api.find(_path(namespace, config_map))
        return None if current is None else document_of(current)

    async def release(self, rollout: SessionRollout, config_map: str, text: Successor | None) -> bool:
        """See `FlagPublisher.release`."""
        path = _path(rollout.namespace, config_map)
        current = await self._api.find(path)
        if current is None:
            return True
        document = document_of(current)
        if not document.belongs_to(rollout.name) or (document.managed and document.owner is None):
            # That of another rollout with the same `flagSet`, whose users keep it; or it was released before.
            return document.managed
        kept = text(document) if text is not None else current.get("data", {}).get(KEY, "")
        metadata = {"labels": recommended(COMPONENT), "resourceVersion": current["metadata"]["resourceVersion"]}
        if document.protections:
            # A rollout that is created again must not turn on what was rolled back.
            metadata["annotations"] = {ANNOTATION: _dumped(document.protections)}
        await self._api.apply(path, _body(config_map, kept, metadata))
        return True


def document_of(config_map: Any) -> PublishedDocument:
    """The document in a ConfigMap object."""
    metadata = config_map["metadata"]
    labels = metadata.get("labels") or {}
    return read_document(
        str((config_map.get("data") or {}).get(KEY, "")),
        version=int(metadata["resourceVersion"]),
        owner=labels.get(LABEL),
        labelled=LABEL in labels,
        managed=LABEL in labels or labels.get("app.kubernetes.io/managed-by") == NAME,
        protections=_protections(metadata),
        editor=_editor(metadata),
    )


def _dumped(protections: tuple[Protection, ...]) -> str:
    """The newest protections that an annotation can hold."""
    while len(text := PROTECTIONS.dump_json(protections, by_alias=True)) > ANNOTATION_BYTES:
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


def _body(name: str, text: str, metadata: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": {KEY: text}}
