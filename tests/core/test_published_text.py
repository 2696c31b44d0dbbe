"""What a document in the cluster gives: read back as it was compiled, or after a person has edited it.

Not here: what the rollout does then (test_documents).
"""

import json
from decimal import Decimal
from typing import Any

import pytest

from session_rollout.core.audiences import gives_less, lesser
from session_rollout.core.documents import read_document
from session_rollout.core.flags import NOBODY, Audience, FlagSource, compile_document

AUDIENCES = [
    NOBODY,
    Audience(Decimal(0), ("beta",)),
    Audience(Decimal("0.1")),
    Audience(Decimal(50), ("beta", "staff")),
    Audience(Decimal(100)),
    Audience(Decimal(100), ("beta",)),
]


@pytest.mark.parametrize("audience", AUDIENCES, ids=str)
def test_document_is_read_back_as_it_was_compiled(audience: Audience) -> None:
    """For every kind of audience."""
    document = read_document(compile_document(FlagSource("shop", "default", {"alpha": audience})).text)
    assert document.audiences == {"alpha": audience}
    assert document.gives_something is (audience != NOBODY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "not json",
        '{"flags": 3}',
        '{"flags": {"alpha": 3}}',
        '{"flags": {"alpha": {"variants": {}}}}',
        "[" * 100_000,
    ],
    ids=range(8),
)
def test_text_that_is_no_document_gives_nobody_anything(text: str) -> None:
    """Whoever may edit the ConfigMap may write anything."""
    document = read_document(text)
    assert not document.gives_something or document.audiences == {"alpha": None}


@pytest.mark.parametrize("one", AUDIENCES, ids=str)
@pytest.mark.parametrize("other", AUDIENCES, ids=str)
def test_lesser_audience_gives_no_more_than_both(one: Audience, other: Audience) -> None:
    """And an audience gives less than another exactly when the lesser one of both is not the other."""
    least = lesser(one, other)
    assert not gives_less(one, least)
    assert not gives_less(other, least)
    assert gives_less(one, one) is False


FORCED = [{"$ref": "forcedOff"}, "off", {"$ref": "forcedOn"}, "on"]
BUCKET = {"cat": ["shop:", {"var": "targetingKey"}]}


@pytest.mark.parametrize(
    "edit",
    [
        {"state": "DISABLED"},
        {"targeting": {}},
        {"targeting": None},
        {"targeting": "off"},
        {"targeting": {"if": [False, "on", "off"]}},
        {"targeting": {"if": [True, "off", "on"]}},
        {"targeting": {"if": ["off", "off", "on"]}},
        {"targeting": {"if": [1, "off", "on"]}},
        {"targeting": {"if": [0, "on", "", "on", None, "on", "off"]}},
        {"targeting": {"if": [*FORCED, {"$ref": "identified"}, {"fractional": [BUCKET, ["on", 0], ["off", 1000]]}, "off"]}},
        {"targeting": {"if": FORCED}},
        {"targeting": {"fractional": [["on", 0], ["off", 100]]}},
        {"variants": {"on": False, "off": False}},
        {"variants": {"on": 0, "off": False}},
        {"variants": {"off": False}},
        {"targeting": {}, "defaultVariant": None},  # applications use the default in their code, as of a disabled flag
        {"targeting": {"if": [False, "on"]}, "defaultVariant": None},
    ],
    ids=str,
)
def test_every_way_to_turn_a_feature_off_by_hand_is_recognized(edit: dict[str, Any]) -> None:
    """FAQ: what an edit takes from all users is an emergency, however it is written."""
    source = FlagSource("shop", "default", {"alpha": Audience(Decimal(50), ("beta",)), "gamma": Audience(Decimal(50))})
    document = json.loads(compile_document(source).text)
    document["flags"]["alpha"].update(edit)
    published = read_document(json.dumps(document))
    assert published.taken_away == {"alpha"}
    assert published.audiences["gamma"] == Audience(Decimal(50))


@pytest.mark.parametrize("name", ["forcedOff", "group-beta"])
@pytest.mark.parametrize("value", [True, False])
def test_shared_rule_that_is_replaced_by_its_value_counts_for_each_flag(name: str, *, value: bool) -> None:
    """`forcedOff: true` is the one edit that turns everything off; a group that nobody is in leaves the share."""
    source = FlagSource("shop", "default", {"alpha": Audience(Decimal(50), ("beta",)), "gamma": Audience(Decimal(50))})
    document = json.loads(compile_document(source).text)
    document["$evaluators"][name] = value
    off = {"alpha", "gamma"} if (name, value) == ("forcedOff", True) else set()
    assert read_document(json.dumps(document)).taken_away == off


@pytest.mark.parametrize(
    "edit",
    [
        {},
        {"targeting": {"if": [*FORCED, "off"]}},
        {"targeting": {"if": [{"var": "x"}, "on", "off"]}},
        {"targeting": {"if": [0, "off", "on"]}},
        {"targeting": {"if": ["no", "on", "off"]}},
        {"targeting": {"if": [*FORCED, {"$ref": "group-beta"}, "on"]}},
        {"targeting": {"fractional": [BUCKET, ["on", 1], ["off", 999]]}},
        {"targeting": {"fractional": []}},
        {"targeting": {"fractional": ["on"]}},
        {"targeting": {"if": []}, "defaultVariant": "on"},
        {"targeting": {"unknown": ["off"]}},
    ],
    ids=str,
)
def test_edit_that_leaves_a_user_the_feature_is_no_emergency(edit: dict[str, Any]) -> None:
    """Nor is what the compiler writes for nobody."""
    source = FlagSource("shop", "default", {"alpha": Audience(Decimal(50), ("beta",))})
    document = json.loads(compile_document(source).text)
    document["flags"]["alpha"].update(edit)
    assert read_document(json.dumps(document)).taken_away == frozenset()
