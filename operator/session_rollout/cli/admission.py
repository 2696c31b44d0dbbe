"""Validates objects as the API server does, without one: the same schema and the same CEL rules, in the same order.

The steps are those of the server: unknown fields (strict), pruned nulls and defaults, the structural schema, list sets and
maps, then the rules, which are skipped if the object is too broken for them. `tests/cli` compares both on over a thousand objects.
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final

import cel
from jsonschema import Draft202012Validator, FormatChecker, validators
from jsonschema.exceptions import ValidationError

from session_rollout.api import ACTIONS, API_VERSION, ROLLOUTS
from session_rollout.api.crds import action_definition, rollout_definition

Path = tuple[str | int, ...]
Schema = Mapping[str, Any]
KINDS: Final = {"SessionRollout": (ROLLOUTS, rollout_definition), "SessionRolloutAction": (ACTIONS, action_definition)}
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME_LENGTH: Final = 253
_JSON_TYPES: Final = (
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
)


@dataclass(frozen=True)
class Problem:
    """One problem, in the words of the API server."""

    path: Path
    message: str
    blocking: bool = False  # rules cannot be evaluated on this object
    rule: str = ""  # of a warning: what it is about

    @property
    def field(self) -> str:
        """`spec.phases[0].steps`."""
        return path_text(self.path)

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def path_text(path: Path) -> str:
    """A path as the API server writes it."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def check(document: Mapping[str, Any]) -> tuple[Problem, ...]:
    """All problems of an object; none if the API server would accept it."""
    if problems := tuple(_envelope(document)):
        return problems
    schema = _schema(str(document["kind"]))
    body = {key: value for key, value in document.items() if key != "metadata"}
    if unknown := tuple(_unknown(body, schema, ())):
        return unknown
    name = {key: value for key, value in document["metadata"].items() if key == "name"}
    whole = _defaulted({key: value for key, value in body.items() if key != "status"} | {"metadata": name}, schema)
    problems = (*_metadata(document), *_structure(whole, schema), *_lists(whole, schema, ()))
    if any(problem.blocking for problem in problems):
        return problems
    return (*problems, *_rules(whole, schema, ()))


def completed(document: Mapping[str, Any]) -> dict[str, Any]:
    """A valid object with the defaults that the API server would give it."""
    return dict(_defaulted(dict(document), _schema(str(document["kind"]))))


@cache
def _schema(kind: str) -> Schema:
    [version] = KINDS[kind][1]()["spec"]["versions"]
    schema: Schema = version["schema"]["openAPIV3Schema"]
    return schema


def _envelope(document: Mapping[str, Any]) -> Iterator[Problem]:
    kind, version = document.get("kind"), document.get("apiVersion")
    if not isinstance(kind, str) or kind not in KINDS:
        yield Problem(("kind",), f"Unsupported value: {json.dumps(kind)}: supported values: {', '.join(KINDS)}", blocking=True)
    elif version != API_VERSION:
        yield Problem(
            ("apiVersion",), f"Unsupported value: {json.dumps(version)}: supported values: {API_VERSION}", blocking=True
        )
    elif not isinstance(document.get("metadata"), dict):
        yield Problem(("metadata",), "Required value", blocking=True)


def _metadata(document: Mapping[str, Any]) -> Iterator[Problem]:
    metadata = document["metadata"]
    name = metadata.get("name")
    if name is None and not metadata.get("generateName"):
        yield Problem(("metadata", "name"), "Required value: name or generateName is required", blocking=True)
    elif name is not None and (not isinstance(name, str) or len(name) > _NAME_LENGTH or not _NAME.fullmatch(name)):
        rule = "a lowercase RFC 1123 subdomain: lower case letters, digits, '-' and '.', at most 253"
        yield Problem(("metadata", "name"), f"Invalid value: {json.dumps(name)}: must be {rule}", blocking=True)


# --- the schema


def _unknown(node: Any, schema: Schema, path: Path) -> Iterator[Problem]:
    if isinstance(node, dict) and "properties" in schema:
        for key, value in node.items():
            if key not in schema["properties"]:
                yield Problem((*path, key), f'unknown field "{path_text((*path, key))}"', blocking=True)
            else:
                yield from _unknown(value, schema["properties"][key], (*path, key))
    elif isinstance(node, list) and "items" in schema:
        for index, value in enumerate(node):
            yield from _unknown(value, schema["items"], (*path, index))


def _defaulted(node: Any, schema: Schema) -> Any:
    """The object with defaults and without nulls: the server treats a null as a missing field."""
    if isinstance(node, dict) and "properties" in schema:
        known = {key: _defaulted(value, schema["properties"].get(key, {})) for key, value in node.items() if value is not None}
        for key, child in schema["properties"].items():
            if key not in known and "default" in child:
                known[key] = _defaulted(json.loads(json.dumps(child["default"])), child)
        return known
    if isinstance(node, list) and "items" in schema:
        return [_defaulted(value, schema["items"]) for value in node]
    return node


def _structure(document: Mapping[str, Any], schema: Schema) -> Iterator[Problem]:
    for error in _Validator(schema, format_checker=_FORMATS).iter_errors(document):
        yield _problem(error)


def _pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[ValidationError]:
    """Unlike Python's, the `$` of the API server does not match before a newline at the end."""
    if isinstance(value, str) and not _compiled(pattern).search(value):
        yield ValidationError("does not match")


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\$$", r"\\Z", pattern))


_Validator: Final = validators.extend(Draft202012Validator, {"pattern": _pattern})  # type: ignore[no-untyped-call]


_FORMATS: Final = FormatChecker(formats=())


@_FORMATS.checks("date-time")
def _is_time(value: object) -> bool:
    try:
        return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _problem(error: ValidationError) -> Problem:
    """A finding of jsonschema in the words of the API server."""
    path, value = tuple(error.absolute_path), error.instance
    limit: Any = error.validator_value
    if error.validator == "required":
        missing = re.findall(r"'([^']*)' is a required property", error.message)[0]
        return Problem((*path, missing), "Required value", blocking=True)
    rule = str(error.validator)
    template, field = _TEMPLATES.get(rule), path_text(path)
    if template is not None:
        return Problem(
            path, template.format(field=field, value=_shown(value), limit=limit, size=_size(value)), rule in _BLOCKING
        )
    if rule == "enum":
        allowed = ", ".join(json.dumps(choice) for choice in limit)
        return Problem(path, f"Unsupported value: {_shown(value)}: supported values: {allowed}")
    wanted = "integer,string" if rule == "anyOf" else str(limit)
    given = _type_of(value)
    return Problem(path, f'Invalid value: "{given}": {field} in body must be of type {wanted}: "{given}"', blocking=True)


_BLOCKING: Final = frozenset({"maxItems", "maxLength"})
_TEMPLATES: Final[Mapping[str, str]] = {
    "pattern": "Invalid value: {value}: {field} in body should match '{limit}'",
    "format": "Invalid value: {value}: {field} in body must be of type {limit}: {value}",
    "minLength": "Invalid value: {value}: {field} in body should be at least {limit} chars long",
    "maxLength": "Too long: may not be more than {limit} bytes",
    "minItems": "Invalid value: {size}: {field} in body should have at least {limit} items",
    "maxItems": "Too many: {size}: must have at most {limit} items",
    "minimum": "Invalid value: {value}: {field} in body should be greater than or equal to {limit}",
    "maximum": "Invalid value: {value}: {field} in body should be less than or equal to {limit}",
}


def _shown(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _size(value: Any) -> int:
    return len(value) if isinstance(value, list | str) else 0


def _type_of(value: Any) -> str:
    return next((name for kind, name in _JSON_TYPES if isinstance(value, kind)), "null")


def _lists(node: Any, schema: Schema, path: Path) -> Iterator[Problem]:
    """Lists that are sets or maps must not have duplicates."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _lists(value, schema.get("properties", {}).get(key, {}), (*path, key))
    if not isinstance(node, list) or "items" not in schema:
        return
    keys, seen = schema.get("x-kubernetes-list-map-keys"), []
    for index, value in enumerate(node):
        if keys is not None:
            identity = {key: value[key] for key in keys if key in value} if isinstance(value, dict) else value
        else:
            identity = value
        if schema.get("x-kubernetes-list-type") in {"set", "map"} and identity in seen:
            yield Problem((*path, index), f"Duplicate value: {_shown(identity)}", blocking=True)
        seen.append(identity)
        yield from _lists(value, schema["items"], (*path, index))


# --- the rules


def _find(text: str, pattern: str) -> str:
    match = re.search(pattern, text)
    return match[0] if match else ""


def _find_all(text: str, pattern: str) -> list[str]:
    return [match[0] for match in re.finditer(pattern, text)]


def _sorted(values: list[Any]) -> bool:
    return all(left <= right for left, right in itertools.pairwise(values))


def _context(node: Any) -> Any:
    """Kubernetes' additions to CEL that our rules use."""
    context = cel.Context()
    context.add_variable("self", _escaped(node))
    context.add_function("find", _find)
    context.add_function("findAll", _find_all)
    context.add_function("isSorted", _sorted)
    context.add_function("sum", sum)
    return context


def _escaped(node: Any) -> Any:
    """A field with the name of a CEL keyword has underscores in rules, wherever it is in the object."""
    if isinstance(node, list):
        return [_escaped(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {f"__{name}__" if name == "for" else name: _escaped(value) for name, value in node.items()}


@cache
def _program(rule: str) -> Any:
    return cel.compile(rule)


def _message(validation: Mapping[str, str], node: Any) -> str:
    """The message of a rule, with the value found if the rule has an expression for it.

    As in the API server, it is the plain message when the expression cannot be evaluated.
    """
    if (expression := validation.get("messageExpression")) is None:
        return validation["message"]
    try:
        return str(_program(expression).execute(_context(node)))
    except (RuntimeError, ValueError, LookupError, TypeError, ArithmeticError):
        return validation["message"]


def _rules(node: Any, schema: Schema, path: Path) -> Iterator[Problem]:
    """Rules of this node and of those below; rules about a change do not apply to a new object."""
    validations = [known for known in schema.get("x-kubernetes-validations", ()) if "oldSelf" not in known["rule"]]
    context = _context(node) if validations else None  # one for all of them, because CEL copies the node into it
    for validation in validations:
        try:
            holds = _program(validation["rule"]).execute(context)
        except (RuntimeError, ValueError, LookupError, TypeError, ArithmeticError):  # the server also rejects the object
            yield Problem(path, "Invalid value: a rule cannot be evaluated on this object")
            continue
        if holds is not True:
            yield Problem(path, f"Invalid value: {_message(validation, node)}")
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _rules(value, schema.get("properties", {}).get(key, {}), (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _rules(value, schema.get("items", {}), (*path, index))
