"""Files with objects: read with the place of every field, so that what is wrong can be found by line and column."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Final

import yaml

from session_rollout.cli.command import refusal, wrong
from session_rollout.cli.validation import Path

LARGEST_BYTES: Final = 1_500_000  # what etcd takes by default, about


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
        """Where a field is; where it would be, when it is missing."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places.get(path, Place(1, 1))

    @property
    def kind(self) -> str:
        """Its kind."""
        return str(self.data.get("kind", ""))

    @property
    def name(self) -> str:
        """Its name."""
        metadata = self.data.get("metadata")
        return str(metadata.get("name", "")) if isinstance(metadata, dict) else ""


def read(source: str) -> tuple[Document, ...]:
    """Every object of a file; `-` is the standard input. Raises Failure with the place of what is wrong."""
    text = _text(source)
    loader = yaml.SafeLoader(text)
    try:
        documents = []
        while loader.check_node():
            node = loader.get_node()
            assert node is not None, "check_node() said so"
            places: dict[Path, Place] = {}
            _walk(node, (), places, source)
            documents.append(Document(source, _mapping(loader.construct_document(node), source, node), places))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise refusal(f"{source}{where}: is no YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise refusal(f"{source}: is no YAML: {' '.join(str(error).split())[:200]}") from error
    finally:
        loader.dispose()
    if not documents:
        raise refusal(f"{source}: holds no object")
    return tuple(documents)


def _text(source: str) -> str:
    try:
        data = sys.stdin.buffer.read(LARGEST_BYTES + 1) if source == "-" else _bytes(FilePath(source))
    except OSError as error:
        raise wrong(f"{source}: {error.strerror}") from error
    if len(data) > LARGEST_BYTES:
        raise refusal(f"{source}: is larger than {LARGEST_BYTES / 1e6:g} MB, more than an API server takes for one object")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise refusal(f"{source}: is no text: byte {error.start + 1} is no UTF-8") from error


def _bytes(path: FilePath) -> bytes:
    with path.open("rb") as file:
        return file.read(LARGEST_BYTES + 1)


def _mapping(data: Any, source: str, node: yaml.Node) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise refusal(
            f"{source}:{node.start_mark.line + 1}:{node.start_mark.column + 1}: is no object, but {type(data).__name__}"
        )
    return data


def _walk(node: yaml.Node, path: Path, places: dict[Path, Place], source: str) -> None:
    """Remember where each field is; a key that comes twice is refused, for one of the two would be lost."""
    places.setdefault(path, Place(node.start_mark.line + 1, node.start_mark.column + 1))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*path, index), places, source)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            name, mark = str(key.value), key.start_mark
            if name in seen:
                raise refusal(f"{source}:{mark.line + 1}:{mark.column + 1}: `{name}` is given twice")
            seen.add(name)
            places[*path, name] = Place(mark.line + 1, mark.column + 1)
            _walk(value, (*path, name), places, source)
