"""YAML files with objects, read with line and column of every field."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Final

import yaml

from session_rollout.cli.admission import Path
from session_rollout.cli.command import refusal, usage_error

# What no field of a Kubernetes object can be. `kubectl` reads a time as the text that it is.
_FOREIGN: Final = ("binary", "omap", "pairs", "set", "timestamp")
_UNREADABLE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)  # of a scalar, by the YAML library
LARGEST_BYTES: Final = 1_500_000  # about the default limit of etcd
MOST_FIELDS: Final = 200_000  # a few aliases of aliases are more than any machine can hold


@dataclass(frozen=True)
class Place:
    """Line and column, counted from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Document:
    """One object of a file."""

    source: str
    data: Mapping[str, Any]
    places: Mapping[Path, Place]

    def place(self, path: Path) -> Place:
        """Place of a field; place of its parent if it is missing."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places.get(path, Place(1, 1))

    @property
    def kind(self) -> str:
        """Kind of the object."""
        return str(self.data.get("kind", ""))

    @property
    def name(self) -> str:
        """Name of the object."""
        metadata = self.data.get("metadata")
        return str(metadata.get("name", "")) if isinstance(metadata, dict) else ""


class _Loader(yaml.SafeLoader):
    """Reads only what JSON can hold; every error has a place."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class has it
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012 - the same
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rsplit(":", 1)[-1] not in _FOREIGN
    }

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - as the base class has it
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int | float) and not math.isfinite(value):  # an OverflowError for more than 308 digits
                raise ValueError
        except _UNREADABLE:
            raise _problem(node, f"cannot be read as {node.tag.rsplit(':', 1)[-1]}") from None
        return value

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        return _characters(value, node) if isinstance(value, str) else value


def _characters(text: str, node: yaml.Node) -> str:
    """The characters of a text: JSON writes one beyond U+FFFF as two escapes, which belong together."""
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise _problem(node, "contains half of a surrogate pair, which is not a character") from None


def _problem(node: yaml.Node, message: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=message, problem_mark=node.start_mark)


def read(source: str) -> tuple[Document, ...]:
    """Every object of a file; `-` means standard input. Raises Failure with the place of the problem."""
    text = _text(source)
    try:
        loader, documents = _Loader(text), []
        while loader.check_node():
            node = loader.get_node()
            assert node is not None, "check_node() was true"
            places: dict[Path, Place] = {}
            _walk(node, (), places, source)
            documents.append(Document(source, _mapping(loader.construct_document(node), source, node), places))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise refusal(f"{source}{where}: invalid YAML: {error.problem}") from error
    except (yaml.YAMLError, ArithmeticError, ValueError, RecursionError) as error:
        raise refusal(f"{source}: invalid YAML: {' '.join(str(error).split())[:200]}") from error
    if not documents:
        raise refusal(f"{source}: the file does not contain an object")
    return tuple(documents)


def _text(source: str) -> str:
    try:
        data = sys.stdin.buffer.read(LARGEST_BYTES + 1) if source == "-" else _bytes(FilePath(source))
    except OSError as error:
        raise usage_error(f"{source}: {error.strerror}") from error
    if len(data) > LARGEST_BYTES:
        raise refusal(
            f"{source}: the file is larger than {LARGEST_BYTES / 1e6:g} MB, which is more than the API server accepts"
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise refusal(f"{source}: not a text file: byte {error.start + 1} is not valid UTF-8") from error


def _bytes(path: FilePath) -> bytes:
    with path.open("rb") as file:
        return file.read(LARGEST_BYTES + 1)


_KINDS: Final = {list: "a list", str: "a string", type(None): "nothing"}


def _mapping(data: Any, source: str, node: yaml.Node) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        place = f"{source}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
        raise refusal(f"{place}: expected a mapping, found {_KINDS.get(type(data), type(data).__name__)}")
    return data


def _walk(node: yaml.Node, path: Path, places: dict[Path, Place], source: str) -> None:
    """Remember the place of each field. Rejects a duplicate key, because YAML would silently drop one of the values."""
    places.setdefault(path, Place(node.start_mark.line + 1, node.start_mark.column + 1))
    if len(places) > MOST_FIELDS:
        raise refusal(f"{source}: the file has more than {MOST_FIELDS:,} fields, aliases included")
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*path, index), places, source)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            name, mark = _characters(str(key.value), key), key.start_mark
            if name in seen:
                raise refusal(f"{source}:{mark.line + 1}:{mark.column + 1}: duplicate key `{name}`")
            seen.add(name)
            places[*path, name] = Place(mark.line + 1, mark.column + 1)
            _walk(value, (*path, name), places, source)
