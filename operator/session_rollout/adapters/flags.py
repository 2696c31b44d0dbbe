"""Flag documents as ConfigMaps (port `FlagPublisher`), and the reference implementation of flagd's bucketing.

flagd's own evaluator checks a document before it is published. One malformed flag would make every application reject the
whole document, and with it an emergency.
"""

import json
from typing import Any, Final

import mmh3
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import OpenFeatureError

from session_rollout.adapters.api_server import ApiServer
from session_rollout.adapters.labels import recommended
from session_rollout.api import GROUP
from session_rollout.api.base import sha256_of
from session_rollout.api.rollout import SessionRollout
from session_rollout.core.flags import BUCKETING, KEY, PROBE
from session_rollout.errors import RolloutError, SpecError, Unavailable
from session_rollout.ports import Fingerprint

LABEL: Final = f"{GROUP}/rollout"
COMPONENT: Final = "flags"


def bucket(flag_set: str, user: str, total: int = 1000) -> int:
    """Bucket of a user in bucketing generation v2; the user gets the feature when the bucket is below the weight."""
    return int(mmh3.hash(f"{flag_set}:{user}", signed=False) * total) >> 32


def validate(text: str) -> None:
    """Load the document into flagd's evaluator and evaluate every flag. Raises SpecError."""
    core = FlagdCore()
    context = EvaluationContext(targeting_key="validation", attributes={"groups": []})
    try:
        core.set_flags(text)
        for name in json.loads(text)["flags"]:
            if name == PROBE:
                _probe(core, context)
            elif core.resolve_boolean_value(name, default_value=False, ctx=context).variant not in {"on", "off"}:
                raise SpecError(f"flag document: {name} has no variant for a user")
    except OpenFeatureError as error:
        raise SpecError(f"flag document: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpecError("flag document: invalid JSON, or without a mapping `flags`") from error


def _probe(core: FlagdCore, context: EvaluationContext) -> None:
    generation = core.resolve_string_value(PROBE, default_value="", ctx=context).value
    if generation != BUCKETING:
        raise SpecError(f"flag document: the evaluator uses bucketing generation {generation}; {BUCKETING} is required")


class ConfigMapPublisher:
    """Publishes by server-side apply and reads back.

    A document has no owner reference: whatever happens to its rollout, garbage collection must not take users' features.
    """

    def __init__(self, api: ApiServer) -> None:
        self._api = api

    async def publish(self, rollout: SessionRollout, config_map: str, text: str) -> Fingerprint:
        """See `FlagPublisher.publish`."""
        validate(text)
        metadata = {"labels": {LABEL: rollout.name, **recommended(COMPONENT)}}
        await self._refuse_foreign(rollout, config_map)
        await self._api.apply(_path(rollout.namespace, config_map), _body(config_map, text, metadata))
        published = await self.fingerprint(rollout.namespace, config_map)
        if published.sha256 is None:
            raise Unavailable(f"ConfigMap {config_map} does not exist after it was applied")
        return published

    async def _refuse_foreign(self, rollout: SessionRollout, config_map: str) -> None:
        """Two rollouts with the same `flagSet` must not overwrite each other's document."""
        current = await self._api.find(_path(rollout.namespace, config_map))
        owner = current["metadata"].get("labels", {}).get(LABEL, rollout.name) if current else rollout.name
        if owner != rollout.name:
            raise SpecError(f"ConfigMap {config_map} belongs to rollout {owner}: `flagSet` must be unique in the namespace")

    async def fingerprint(self, namespace: str, config_map: str) -> Fingerprint:
        """See `FlagPublisher.fingerprint`."""
        current = await self._api.find(_path(namespace, config_map))
        return Fingerprint() if current is None else fingerprint_of(current)

    async def release(self, rollout: SessionRollout, config_map: str, text: str | None) -> None:
        """See `FlagPublisher.release`."""
        path = _path(rollout.namespace, config_map)
        current = await self._api.find(path)
        if current is None or current["metadata"].get("labels", {}).get(LABEL) != rollout.name:
            # Never published, or the document of another rollout with the same `flagSet`, whose users keep it.
            return
        kept = text if text is not None else current.get("data", {}).get(KEY, "")
        try:
            await self._api.apply(path, _body(config_map, kept, {"labels": recommended(COMPONENT)}))
        except RolloutError as error:
            raise Unavailable(f"flag document {config_map} cannot be released: {error}") from error


def fingerprint_of(config_map: Any) -> Fingerprint:
    """The document in a ConfigMap object."""
    text = (config_map.get("data") or {}).get(KEY)
    return Fingerprint(None if text is None else sha256_of(text), int(config_map["metadata"]["resourceVersion"]))


def _path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps/{name}"


def _body(name: str, text: str, metadata: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": {KEY: text}}
