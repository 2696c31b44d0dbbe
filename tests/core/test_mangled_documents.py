"""A flag document that an edit has damaged: each flag in it is judged for itself.

Covered: values of any type in any place, for features of the rollout and beside a feature that the same edit turned off.
Not here: flags that applications can read (test_edited_documents, test_published_text), other edits by hand (test_documents).
"""

import copy
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.world import World, at, spec
from session_rollout.adapters.flags import document_of
from session_rollout.api.enums import DecisionReason, EventReason
from session_rollout.api.protection import ANNOTATION
from session_rollout.core.documents import audience_of, read_document
from session_rollout.core.flags import KEY, NOBODY, PROBE

Edit = Callable[[dict[str, Any]], Any]  # of the parsed document
EDITOR: Final = "kubectl-edit"
NO_FLAGS: Final[tuple[Any, ...]] = (None, False, True, 0, 3, "", "off", [], ["a"], {})
ODD: Final[tuple[Any, ...]] = (None, False, 3, "maybe", ["a"], [[]])
HUGE: Final = "9" * 5000  # more digits than Python reads as an integer
OFF: Final[dict[str, Any]] = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}


@functools.cache
def _holding() -> World:
    world = World(spec())
    world.until(at("two", 1))  # alpha and beta for all users, gamma for half of them
    return world


def holding() -> World:
    """A rollout that gives all its features, in a world of its own."""
    return copy.deepcopy(_holding())


def edited_text(world: World, *edits: Edit) -> str:
    """The text of the published document after these edits."""
    document = json.loads(world.documents[-1])
    for edit in edits:
        edit(document)
    return json.dumps(document).replace(f'"{HUGE}"', HUGE)


def write(world: World, text: str) -> None:
    """Another client has written this text."""
    before = world.document
    assert before is not None
    known: dict[str, Any] = {
        "version": before.version + 1,
        "owner": world.name,
        "editor": EDITOR,
        "protections": before.protections,
    }
    world.document = read_document(text, **known)
    world.run(30)


def emergencies(world: World) -> dict[str, str]:
    """The features that are off, each with who turned it off."""
    return {record.feature: record.by for record in world.status.flags.disabled}


def put(*path: str | int, value: Any) -> Edit:
    """Put a value there."""

    def edit(document: dict[str, Any]) -> None:
        node: Any = document
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value

    return edit


def each(*path: str, values: Sequence[Any]) -> dict[str, Edit]:
    """An edit for each value that is put there."""
    return {f"{' '.join(path)} is {value!r}": put(*path, value=value) for value in values}


def each_of(flag: dict[str, Any], field: str, values: Sequence[Any]) -> dict[str, Edit]:
    """The same for a field of gamma, which is this flag otherwise."""
    default, flags = flag["defaultVariant"], [{**flag, field: value} for value in values]
    return {f"{default} with {field} {changed[field]!r}": put("flags", "gamma", value=changed) for changed in flags}


def nested(depth: int) -> Any:
    """Rules that are nested as deeply."""
    rule: Any = "off"
    for _ in range(depth):
        rule = {"if": [{}, rule]}
    return rule


KILL: Final = put("flags", "gamma", value=OFF)
BESIDES: Final[dict[str, Edit]] = {
    **each("flags", "zeta", values=NO_FLAGS),
    **each("flags", "alpha", values=NO_FLAGS),
    **each("flags", "alpha", "state", values=ODD),
    **each("flags", "alpha", "variants", values=ODD),
    **each("flags", "alpha", "defaultVariant", values=ODD),
    **each("flags", "alpha", "targeting", values=ODD),
    **each("flags", "alpha", "metadata", values=ODD),
    "a flag without a state": put("flags", "zeta", value={"variants": {"on": True}, "defaultVariant": "on"}),
    "variants that are objects": put("flags", "zeta", value={**OFF, "variants": {"on": {"x": 1}, "off": {}}}),
    "rules that are nested deeply": put("flags", "alpha", "targeting", value=nested(200)),
    "a huge weight": put("flags", "alpha", "targeting", "if", 4, value={"fractional": ["", ["on", HUGE], ["off", HUGE]]}),
    "a huge revision": put("metadata", "revision", value=HUGE),
    "rules that are no rules": put("flags", "alpha", "targeting", value={"if": [[], {"fractional": [{}, 1]}]}),
    "an infinite revision": put("metadata", "revision", value=float("inf")),
    "the probe is null": put("flags", PROBE, value=None),
    "no evaluators": put("$evaluators", value=None),
    "no metadata": lambda document: document.pop("metadata"),
    **each("metadata", values=ODD),
    **each("metadata", "revision", values=(*ODD, True, -1, 1.5, "9")),
    **each("metadata", "rollout", values=ODD),
}


@pytest.mark.parametrize("besides", BESIDES.values(), ids=BESIDES)
def test_kill_by_hand_is_an_emergency_whatever_else_the_edit_damaged(besides: Edit) -> None:
    """One flag that could not be read hid all others: the operator turned a feature on again that a person had turned off."""
    world = holding()
    assert "targeting" in world.flag("gamma")
    write(world, edited_text(world, KILL, besides))
    assert emergencies(world)["gamma"] == EDITOR
    assert "targeting" not in world.flag("gamma")
    assert world.condition("EmergencyActive") == "True"


KILLS: Final[dict[str, Edit]] = {
    **each("flags", "gamma", values=NO_FLAGS),
    **each("flags", "gamma", "state", values=("DISABLED", "disabled", "Disabled", "OFF", "", *ODD)),
    "no state": lambda document: document["flags"]["gamma"].pop("state"),
    **each("flags", "gamma", "variants", values=(*ODD, {}, {"off": False}, {"on": None, "off": None}, {"on": {}, "off": []})),
    "no variants": lambda document: document["flags"]["gamma"].pop("variants"),
    "off in lower case": put("flags", "gamma", value={**OFF, "state": "enabled"}),
    **each_of(OFF, "targeting", (None, "", 0, [], {}, False)),
    **each_of(OFF, "metadata", ODD),
    "on by default, with rules that give an unknown variant": put(
        "flags", "gamma", value={**OFF, "defaultVariant": "on", "targeting": "maybe"}
    ),
    "an emergency without a reason": put("flags", "gamma", value={**OFF, "metadata": {"emergencyDisabled": True}}),
    "an emergency with an odd reason": put(
        "flags", "gamma", value={**OFF, "metadata": {"emergencyDisabled": True, "reason": [[HUGE]]}}
    ),
}


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS)
def test_flag_that_applications_cannot_read_is_a_kill(kill: Edit) -> None:
    """They use the default in their code, so users have lost the feature. All other features stay as they were."""
    world = holding()
    assert world.document is not None
    before = world.document.audiences
    write(world, edited_text(world, kill))
    assert emergencies(world) == {"gamma": EDITOR}
    assert "targeting" not in world.flag("gamma")
    assert read_document(world.documents[-1]).audiences == {**before, "gamma": NOBODY}


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS)
def test_feature_that_nobody_has_yet_is_killed_in_the_same_ways(kill: Edit) -> None:
    """Also if its rules are still those of a feature that nobody has: the phase that gives it comes later, and must not."""
    world = World(spec())
    world.until(at("one", 1))
    write(world, edited_text(world, kill))
    assert emergencies(world) == {"gamma": EDITOR}


DRIFT: Final[dict[str, Edit]] = {
    "on by default, and rules that fail": lambda document: document["flags"]["gamma"].update(
        defaultVariant="on", targeting={"==": [1]}
    ),
    **each_of(
        {**OFF, "defaultVariant": "on"},
        "targeting",
        (None, False, 0, 3, "", "on", [], ["a"], {}, {"if": None}, {"fractional": "on"}),
    ),
    "in lower case, with its rules": put("flags", "gamma", "state", value="enabled"),
    "variants that are numbers": put("flags", "gamma", "variants", value={"on": 1, "off": 0}),
    "variants that are texts": put("flags", "gamma", "variants", value={"on": "on", "off": "off"}),
    "a variant more": put("flags", "gamma", "variants", "more", value={"x": []}),
    **each("flags", "gamma", "metadata", values=ODD),
    **each("flags", "gamma", "defaultVariant", values=ODD),
    "a huge weight": put("flags", "gamma", "targeting", "if", 5, "fractional", 1, 1, value=HUGE),
    "missing": lambda document: document["flags"].pop("gamma"),
    "no flags": put("flags", value={}),
    "another flag with variants that are texts": put(
        "flags", "zeta", value={**OFF, "variants": {"a": "x", "b": "y"}, "defaultVariant": "a"}
    ),
    **each("flags", values=(None, False, 3, "", [])),
    "without flags": lambda document: document.pop("flags"),
}


@pytest.mark.parametrize("drift", DRIFT.values(), ids=DRIFT)
def test_other_damage_is_corrected(drift: Edit) -> None:
    """Users may have more, or a flag is not there, or the text is not a flag document."""
    world = holding()
    assert world.document is not None
    before = world.document.audiences
    write(world, edited_text(world, drift))
    assert emergencies(world) == {}
    assert len(world.entries(EventReason.FLAG_DRIFT)) == 1
    assert read_document(world.documents[-1]).audiences == before


@pytest.mark.parametrize("text", ["", "null", "[]", '"flags"', "{", "[" * 100_000], ids=range(6))
def test_text_that_is_not_an_object_is_corrected(text: str) -> None:
    """Applications keep the last document that they could read."""
    world = holding()
    before = world.documents[-1]
    write(world, text)
    assert emergencies(world) == {}
    assert json.loads(world.documents[-1])["flags"] == json.loads(before)["flags"]


def test_rules_that_are_nested_too_deeply_to_be_read_are_rules_of_somebody_else() -> None:
    """They raised in the middle of the document."""
    assert audience_of({**OFF, "targeting": nested(5000)}, "shop") is None


@pytest.mark.parametrize("last", [None, OFF], ids=["kept", "killed"])
def test_last_of_several_flags_with_the_same_name_counts(last: dict[str, Any] | None) -> None:
    """As for the parsers of applications."""
    world = holding()
    kept = world.flag("gamma")
    first, second = (kept, last) if last else (OFF, kept)
    text = edited_text(world, lambda document: document["flags"].update(gamma="first"))
    write(world, text.replace('"gamma": "first"', f'"gamma": {json.dumps(first)}, "gamma": {json.dumps(second)}'))
    assert emergencies(world) == ({"gamma": EDITOR} if last else {})


def test_flags_that_cannot_be_read_are_kept_off_when_the_rollout_is_created_again() -> None:
    """The new rollout took a document of such flags for an empty one, and began to give the features."""
    world = World(spec())
    text = json.dumps({"metadata": None, "flags": {"alpha": None, "gamma": {**OFF, "state": "disabled"}}})
    world.document = read_document(text, version=1, owner=world.name)
    world.run(60)
    assert world.reason is DecisionReason.ADOPTION_REQUIRED
    assert set(emergencies(world)) == {"alpha", "gamma"}


@pytest.mark.parametrize("annotation", ["", "null", "{}", "[3]", '[{"kind": "Novel"}]', "[" * 1000])
def test_annotation_that_cannot_be_parsed_hides_no_kill(annotation: str) -> None:
    """The annotation is ignored, and the text is read."""
    metadata = {"resourceVersion": "7", "annotations": {ANNOTATION: annotation}}
    document = document_of({"metadata": metadata, "data": {KEY: edited_text(holding(), KILL)}})
    assert document.taken_away == {"gamma"}
    assert document.protections == ()


KEYS = st.sampled_from(
    ["state", "variants", "on", "off", "targeting", "if", "fractional", "$ref", "metadata", "emergencyDisabled"]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["on", "off", "ENABLED", HUGE])
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def places(node: Any, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    """The path of each value of a document, without those of gamma, and without the object of all flags."""
    if path == ("flags", "gamma"):
        return
    if path and path != ("flags",):
        yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from places(child, *path, key)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_nothing_else_in_an_edited_document_undoes_a_kill(data: st.DataObject) -> None:
    """Whatever value any other part of it has, the feature stays off, and no other feature is given to more users."""
    world = holding()
    assert world.document is not None
    before = world.document.audiences
    place = data.draw(st.sampled_from(list(places(json.loads(world.documents[-1])))))
    kill = data.draw(st.sampled_from(list(KILLS.values())))
    write(world, edited_text(world, kill, put(*place, value=data.draw(JSON))))
    off = emergencies(world)
    assert off["gamma"] == EDITOR
    assert "targeting" not in world.flag("gamma")
    published = read_document(world.documents[-1])
    assert {name: published.audiences[name] for name in before if name not in published.disabled} == {
        name: audience for name, audience in before.items() if name not in published.disabled
    }
    assert set(off) <= set(published.disabled)
