"""Writes the two CustomResourceDefinitions from the models: `make crds` runs this, a test compares the files.

pydantic's JSON schema is nearly a structural schema; what Kubernetes does not know (references, titles, `anyOf` with
null, `additionalProperties: false`) is folded away here.
"""

import sys
from pathlib import Path
from typing import Any, Final

import yaml

from session_rollout.api import ACTIONS, GROUP, ROLLOUTS, VERSION
from session_rollout.api.action import ActionSpec, ActionStatus
from session_rollout.api.base import Model
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status import RolloutStatus

Schema = dict[str, Any]
DROPPED: Final = ("title", "additionalProperties", "$defs")


def structural(model: type[Model], *, defaults: bool = True) -> Schema:
    """The model as a structural OpenAPI v3 schema; a status has no defaults, only its writer gives it values."""
    schema = model.model_json_schema(by_alias=True)
    folded: Schema = _fold(schema, schema.get("$defs", {}))
    return folded if defaults else _without_defaults(folded)


def _without_defaults(node: Any) -> Any:
    match node:
        case dict():
            return {key: _without_defaults(value) for key, value in node.items() if key != "default"}
        case list():
            return [_without_defaults(item) for item in node]
    return node


def _fold(node: Any, definitions: dict[str, Schema]) -> Any:
    match node:
        case {"$ref": str(reference), **beside}:
            target = definitions[reference.rsplit("/", 1)[-1]]
            return _fold({**target, **beside}, definitions)
        case {"anyOf": [inner, {"type": "null"}], **beside}:
            return _fold({**inner, **{key: value for key, value in beside.items() if key != "default"}}, definitions)
        case {"const": value, **beside}:
            return _fold({**beside, "enum": [value]}, definitions)
        case {"properties": properties, **beside}:
            folded = {name: _fold(value, definitions) for name, value in properties.items()}
            return {**_fold(beside, definitions), "properties": folded}
        case dict():
            return {
                key: _fold(_lean(value) if key == "default" else value, definitions)
                for key, value in node.items()
                if key not in DROPPED and not (key == "default" and _empty(value))
            }
        case list():
            return [_fold(item, definitions) for item in node]
    return node


def _lean(default: Any) -> Any:
    """A default object without the empty lists in it."""
    return {key: value for key, value in default.items() if not _empty(value)} if isinstance(default, dict) else default


def _empty(default: Any) -> bool:
    """An empty list is no default: rules ask with `has()` whether somebody wrote one."""
    return default == [] or (isinstance(default, dict) and all(_empty(value) for value in default.values()))


def definition(*, plural: str, kind: str, short: str, spec: type[Model], status: type[Model], columns: list[Schema]) -> Schema:
    """One CustomResourceDefinition."""
    schema = {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(spec),
            "status": structural(status, defaults=False),
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": ["sessionrollout"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def _column(name: str, path: str, *, kind: str = "string", wide: bool = False) -> Schema:
    return {"name": name, "type": kind, "jsonPath": path, **({"priority": 1} if wide else {})}


AGE: Final = _column("Age", ".metadata.creationTimestamp", kind="date")


def rollout_definition() -> Schema:
    """The CRD of SessionRollout."""
    columns = [
        _column("Phase", ".status.current.phase"),
        _column("Step", ".status.current.step", kind="integer"),
        _column("Percent", ".status.current.percent"),
        _column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        _column("Why", ".status.decision.message"),
        _column("Until", ".status.current.holdUntil"),
        AGE,
        _column("Migrating", ".status.progress", wide=True),
        _column("Outcome", ".status.outcome", wide=True),
        _column("Generation", ".status.observedGeneration", kind="integer", wide=True),
    ]
    return definition(
        plural=ROLLOUTS, kind="SessionRollout", short="sro", spec=RolloutSpec, status=RolloutStatus, columns=columns
    )


def action_definition() -> Schema:
    """The CRD of SessionRolloutAction."""
    columns = [
        _column("Rollout", ".spec.rollout"),
        _column("Action", ".spec.action"),
        _column("Accepted", ".status.accepted", kind="boolean"),
        _column("Message", ".status.message"),
        AGE,
        _column("Reason", ".spec.reason", wide=True),
    ]
    return definition(
        plural=ACTIONS, kind="SessionRolloutAction", short="sroa", spec=ActionSpec, status=ActionStatus, columns=columns
    )


def documents() -> dict[str, str]:
    """File name to text of every CRD."""
    return {
        f"{ROLLOUTS}.yaml": yaml.safe_dump(rollout_definition(), sort_keys=False, width=120, allow_unicode=True),
        f"{ACTIONS}.yaml": yaml.safe_dump(action_definition(), sort_keys=False, width=120, allow_unicode=True),
    }


if __name__ == "__main__":
    for file_name, text in documents().items():
        Path(sys.argv[1], file_name).write_text(text)
