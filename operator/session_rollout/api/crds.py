"""The two CustomResourceDefinitions, built from the models. `tools.crds` writes the files, `cli.admission` uses the schemas.

The JSON schema of pydantic is nearly a structural schema. What Kubernetes does not know (references, titles, `anyOf` with
null, `additionalProperties: false`) is resolved or removed here.
"""

from dataclasses import dataclass
from typing import Any, Final

from session_rollout.api import ACTIONS, GROUP, ROLLOUTS, VERSION
from session_rollout.api.action import ActionSpec, ActionStatus
from session_rollout.api.base import NAME_PATTERN, Model, rules
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status import RolloutStatus

Schema = dict[str, Any]
DROPPED: Final = ("title", "additionalProperties", "$defs")


def structural(model: type[Model], *, defaults: bool = True) -> Schema:
    """The model as a structural OpenAPI v3 schema. A status has no defaults, because the operator writes every value of it."""
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
    """A default object without the empty lists in it, and without what is unset."""
    return (
        {key: value for key, value in default.items() if value is not None and not _empty(value)}
        if isinstance(default, dict)
        else default
    )


def _empty(default: Any) -> bool:
    """An empty list is not written as a default, because the rules test with `has()` if the author wrote one."""
    return default == [] or (isinstance(default, dict) and all(_empty(value) for value in default.values()))


@dataclass(frozen=True)
class Kind:
    """What one CustomResourceDefinition is made of."""

    plural: str
    name: str
    short: str
    description: str
    spec: type[Model]
    status: type[Model]
    columns: tuple[Schema, ...]
    rules: tuple[tuple[str, str], ...] = ()  # about the whole object
    object_name: Schema | None = None  # what the API server requires of the name of an object, beyond a subdomain


def definition(kind: Kind) -> Schema:
    """One CustomResourceDefinition."""
    schema = {
        "type": "object",
        "description": kind.description,
        "required": ["spec"],
        **(rules(*kind.rules) if kind.rules else {}),
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", **({"properties": {"name": kind.object_name}} if kind.object_name else {})},
            "spec": structural(kind.spec),
            "status": structural(kind.status, defaults=False),
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short],
                "categories": ["sessionrollout"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": list(kind.columns),
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def _column(name: str, path: str, *, kind: str = "string", wide: bool = False) -> Schema:
    return {"name": name, "type": kind, "jsonPath": path, **({"priority": 1} if wide else {})}


_AGE: Final = _column("Age", ".metadata.creationTimestamp", kind="date")
_ROLLOUT: Final = Kind(
    plural=ROLLOUTS,
    name="SessionRollout",
    short="sro",
    description="SessionRollout is a progressive rollout of feature flags with their database migrations.",
    spec=RolloutSpec,
    status=RolloutStatus,
    rules=(
        (
            "self.spec.flagSet == oldSelf.spec.flagSet || !has(oldSelf.status) || !has(oldSelf.status.flags)"
            " || !has(oldSelf.status.flags.sha256)",
            "`spec.flagSet` is immutable once the rollout has published, because changing it would assign users to different buckets",
        ),
    ),
    object_name={"type": "string", "pattern": NAME_PATTERN, "maxLength": 63},  # it is a label value, and actions name it
    columns=(
        _column("Status", ".status.state"),
        _column("Phase", ".status.current.phase"),
        _column("Step", ".status.current.step", kind="integer"),
        _column("Audience", ".status.current.audience"),
        _column("Message", ".status.decision.message"),
        _AGE,
        _column("Until", ".status.decision.nextTime", wide=True),
        _column("Progress", ".status.progress", wide=True),
        _column("Outcome", ".status.outcome", wide=True),
        _column("Generation", ".status.observedGeneration", kind="integer", wide=True),
    ),
)
_ACTION: Final = Kind(
    plural=ACTIONS,
    name="SessionRolloutAction",
    short="sroa",
    description="SessionRolloutAction is a request of a Kubernetes user to one SessionRollout. Actions are immutable. They record the"
    " request, but not the Kubernetes user who made it.",
    spec=ActionSpec,
    status=ActionStatus,
    columns=(
        _column("Rollout", ".spec.rollout"),
        _column("Action", ".spec.action"),
        _column("Accepted", ".status.accepted", kind="boolean"),
        _column("Message", ".status.message"),
        _AGE,
        _column("Reason", ".spec.reason", wide=True),
    ),
)


def rollout_definition() -> Schema:
    """The CustomResourceDefinition of SessionRollout."""
    return definition(_ROLLOUT)


def action_definition() -> Schema:
    """The CustomResourceDefinition of SessionRolloutAction."""
    return definition(_ACTION)
