"""Descriptions of the API, the configuration and copy.yaml: whole sentences, as `kubectl explain` and the reference show them.

Not here: if a description is true. The reference pages are generated from the same texts, and people review those.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from lab.lab import ROOT
from session_rollout.api.crds import action_definition, rollout_definition
from session_rollout.migrations.copy.spec import CopySpec
from session_rollout.settings import Settings

LEAST_WORDS = 5
FRAGMENTS = ("Of", "Which", "What", "Where", "When", "Who", "Whoever", "How", "Until", "From")
DEFINITIONS = {"SessionRollout": rollout_definition(), "SessionRolloutAction": action_definition()}
Field = tuple[str, dict[str, Any]]


def fields(node: dict[str, Any], path: str) -> Iterator[Field]:
    """Every field of a structural schema, with its path."""
    for name, child in node.get("properties", {}).items():
        yield f"{path}.{name}", child
        yield from fields(child, f"{path}.{name}")
    for inner in (node.get("items"), node.get("additionalProperties")):
        if isinstance(inner, dict):
            yield from fields(inner, f"{path}[]")


def described(kind: str) -> list[Field]:
    """The fields of a kind: the object itself, `spec`, `status` and everything in them."""
    [version] = DEFINITIONS[kind]["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    nested = [field for half in ("spec", "status") for field in fields(schema["properties"][half], half)]
    return [(kind, schema), ("spec", schema["properties"]["spec"]), ("status", schema["properties"]["status"]), *nested]


def sections(model: type[BaseModel]) -> list[Field]:
    """The fields of a file, section by section."""
    schema = model.model_json_schema(by_alias=True)
    nodes = {model.__name__: schema, **schema.get("$defs", {})}
    return [
        (f"{section}.{name}", field) for section, node in nodes.items() for name, field in node.get("properties", {}).items()
    ]


def faults(text: str) -> list[str]:
    """What is wrong with a description; nothing when it is at least one whole sentence."""
    problems = []
    words = text.split()
    if len(words) < LEAST_WORDS:
        problems.append(f"has {len(words)} words")
    if words and words[0] in FRAGMENTS:
        problems.append(f"begins with {words[0]}")
    if not text.endswith("."):
        problems.append("does not end with a period")
    if not text[:1].isupper() and not text.startswith("`"):
        problems.append("does not begin with a capital letter")
    return problems


def every_field() -> list[Field]:
    """Of both kinds, of the configuration and of copy.yaml."""
    return [(f"{kind} {path}", field) for kind in DEFINITIONS for path, field in described(kind)] + [
        *sections(Settings),
        *sections(CopySpec),
    ]


def test_every_description_is_a_sentence() -> None:
    """Also those of `status`, of nested objects and of enums."""
    listed = every_field()
    assert len(listed) > 300
    texts = {path: field.get("description", "") for path, field in listed}
    wrong = {path: (text, *faults(text)) for path, text in texts.items() if faults(text)}
    assert wrong == {}


def test_descriptions_use_plain_words() -> None:
    """No words of our own, no British spelling."""
    ours = (ROOT / "tests" / "data" / "own-words.txt").read_text().lower().split()
    banned = (*(f" {word}" for word in ours), "whoever", "anew", "the admin's", "a person", " is said", " told", "initialis")
    used = {(path, word) for path, field in every_field() for word in banned if word in field.get("description", "")}
    assert used == set()


def test_defaults_are_named() -> None:
    """A field of the spec with a default says so, for those who read `kubectl explain`."""
    silent = []
    for kind in DEFINITIONS:
        for path, field in described(kind):
            value = field.get("default")
            if path.startswith("spec.") and value not in (None, "") and not isinstance(value, dict | list):
                shown = str(value).lower() if isinstance(value, bool) else str(value)
                text = field["description"]
                if shown not in text or "efault" not in text:
                    silent.append((path, shown, text))
    assert silent == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Name of the Deployment of the application.", 0),
        ("`Keep` leaves the Deployment as it is.", 0),
        ("Of the application.", 2),
        ("Which phase is meant, for Approve and Promote.", 1),
        ("How long it takes in all", 2),
        ("", 3),
    ],
)
def test_fragments_are_noticed(text: str, count: int) -> None:
    """The measure itself."""
    assert len(faults(text)) == count
