"""Whether a value is valid by a structural schema, without pydantic and without the plugin's own validator.

A second reading of the same schema: types, bounds, patterns, formats, and the list types of Kubernetes. Lengths are counted
in code points, `$` is only the end, unknown fields are errors, as with strict field validation. Not here: CEL.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any

Schema = Mapping[str, Any]
RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "boolean": (bool,), "array": (list,), "object": (dict,)}
INTEGERS = {"int32": 2**31, "int64": 2**63}


def problems(value: Any, schema: Schema, path: str = "") -> Iterator[str]:
    """What is wrong, each with its place."""
    if schema.get("x-kubernetes-int-or-string"):
        kinds: tuple[type, ...] = (int, str)
    else:
        kinds = TYPES.get(schema.get("type", ""), (int,))
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        yield f"{path}: {value!r} is no {schema.get('type')}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is not allowed"
    match value:
        case bool():
            return
        case int():
            yield from _number(value, schema, path)
        case str():
            yield from _text(value, schema, path)
        case list():
            yield from _list(value, schema, path)
        case dict():
            yield from _object(value, schema, path)


def _number(value: int, schema: Schema, path: str) -> Iterator[str]:
    limit = INTEGERS[schema.get("format", "int64")]
    if not max(schema.get("minimum", -limit), -limit) <= value <= min(schema.get("maximum", limit), limit - 1):
        yield f"{path}: {value} is out of range"


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\$$", r"\\Z", text), re.ASCII)


def _text(value: str, schema: Schema, path: str) -> Iterator[str]:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{path}: {len(value)} characters"
    if "pattern" in schema and not _pattern(schema["pattern"]).search(value):
        yield f"{path}: {value!r} does not match {schema['pattern']}"
    if schema.get("format") == "date-time":
        try:
            assert RFC3339.fullmatch(value)
            datetime.fromisoformat(value)
        except (AssertionError, ValueError):
            yield f"{path}: {value!r} is no time"
    if not value.isascii() and value.encode(errors="replace").decode() != value:
        yield f"{path}: {value!r} has no UTF-8"


def _list(value: list[Any], schema: Schema, path: str) -> Iterator[str]:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        yield f"{path}: {len(value)} entries"
    keys = schema.get("x-kubernetes-list-map-keys", ())
    if keys or schema.get("x-kubernetes-list-type") == "set":
        identities = [tuple(entry.get(key) for key in keys) if keys else entry for entry in value]
        if len(set(identities)) < len(identities):
            yield f"{path}: an entry twice: {identities}"
    for index, entry in enumerate(value):
        yield from problems(entry, schema["items"], f"{path}[{index}]")


def _object(value: dict[str, Any], schema: Schema, path: str) -> Iterator[str]:
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{path}.{name} is missing"
    for name, entry in value.items():
        if name in known:
            yield from problems(entry, known[name], f"{path}.{name}")
        else:
            yield f"{path}.{name} is unknown"
