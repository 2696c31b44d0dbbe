"""Objects made from a good one by changing one place at a time, in every way a hurried author might: a corpus that nobody wrote."""

import copy
from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]
Path = tuple[str | int, ...]


def paths(node: Any, path: Path = ()) -> Iterator[Path]:
    """Every place of an object."""
    if path:
        yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from paths(child, (*path, key))


def changed(spec: Object, path: Path, value: Any, *, drop: bool = False) -> Object:
    """The object with another value at a place, or without it."""
    made = copy.deepcopy(spec)
    node: Any = made
    for part in path[:-1]:
        node = node[part]
    if drop:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return made


def at(spec: Object, path: Path) -> Any:
    """The value at a place."""
    node: Any = spec
    for part in path:
        node = node[part]
    return node


def ways(value: Any) -> Iterator[tuple[str, Any]]:
    """Other values for one: of another type, empty, too much, nearly right."""
    yield "null", None
    match value:
        case bool():
            yield from (("text for truth", "true"), ("number for truth", 1))
        case int():
            yield from (("text for number", str(value)), ("negative", -1), ("huge", 10**12), ("fraction", value + 0.5))
        case str():
            yield from (("number for text", 7), ("empty text", ""), ("long text", value * 400), ("spaces", f" {value} "))
            yield from (("upper case", value.upper()), ("list for text", [value]), ("odd signs", f"{value}/$"))
        case list():
            yield from (("empty list", []), ("text for list", "x"), ("twice", [*value, *value]), ("object for list", {}))
        case dict():
            yield from (("empty object", {}), ("text for object", "x"), ("unknown field", {**value, "whatElse": 1}))


def mutations(spec: Object) -> Iterator[tuple[str, Object]]:
    """(name, object) for every change of every place."""
    for path in paths(spec):
        where = ".".join(map(str, path))
        yield f"{where}: dropped", changed(spec, path, None, drop=True)
        for name, value in ways(at(spec, path)):
            yield f"{where}: {name}", changed(spec, path, value)
