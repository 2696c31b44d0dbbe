"""Users who are held back: what the document gives them, by the evaluator of applications, and how it is read back and compared.

Not here: when they are held back and released (test_holdback.py).
"""

import copy
import json
from decimal import Decimal
from itertools import combinations
from typing import Any, Final

import mmh3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext

from core.test_edited_rules import VALUES, places
from session_rollout.adapters.flag_evaluator import bucket
from session_rollout.core.audiences import gives_less, lesser
from session_rollout.core.documents import read_document
from session_rollout.core.flags import (
    EVERYBODY,
    NOBODY,
    Audience,
    FlagSource,
    compile_document,
    held_back_named,
    without_held_back,
)

HELD: Final = Decimal(2)
STEPS: Final = [Audience(), *(Audience(Decimal(percent)) for percent in ("0.1", 5, 50, 97, 98, "98.5", 99, 100))]
GROUPS: Final = [Audience(step.percent, ("beta", "staff")) for step in STEPS]
USERS: Final = [f"user-{number}" for number in range(3_000)]
LAST: Final = [user for user in USERS if bucket("shop", user) >= 980]
FIRST: Final = [user for user in USERS if bucket("shop", user) < 980]


def text_of(audience: Audience) -> str:
    """Of the document that gives alpha to this audience."""
    return compile_document(FlagSource("shop", "default", {"alpha": audience})).text


def evaluator(audience: Audience) -> FlagdCore:
    core = FlagdCore()
    core.set_flags(text_of(audience))
    return core


def variant(core: FlagdCore, user: str | None, *groups: str) -> str | None:
    known: str | None = core.resolve_boolean_value(
        "alpha", False, EvaluationContext(targeting_key=user, attributes={"groups": list(groups)})
    ).variant
    return known


def held(audience: Audience, percent: Decimal = HELD) -> Audience:
    return without_held_back(audience, percent)


# --- what users have


@pytest.mark.parametrize("step", STEPS[1:], ids=str)
def test_the_last_users_of_the_hash_have_no_step(step: Audience) -> None:
    """They are the control of each: the share that a step gives ends before them."""
    core = evaluator(held(step))
    assert LAST
    assert {variant(core, user) for user in LAST} == {"off"}
    for user in FIRST:
        assert variant(core, user) == ("on" if bucket("shop", user) < step.percent * 10 else "off")


@pytest.mark.parametrize("step", GROUPS, ids=str)
def test_no_group_gives_them_the_feature(step: Audience) -> None:
    """A member is not compared: `on` has none either. Others in the group have the feature in each step."""
    core = evaluator(held(step))
    for group in ("beta", "staff"):
        assert {variant(core, user, group) for user in LAST} == {"off-chosen"}
        assert {variant(core, user, group) for user in FIRST[:300]} == {"on-chosen"}
    assert {variant(core, user, "other") for user in LAST} <= {"off", "off-chosen"}


def test_they_are_the_same_users_in_each_step_and_have_it_after_the_release() -> None:
    users = {*USERS[:200], *LAST[:20]}
    never = set(users)
    for step in (*STEPS, *GROUPS):
        core = evaluator(held(step))
        never -= {user for user in users for groups in ((), ("beta",)) if str(variant(core, user, *groups)).startswith("on")}
    assert never == users & set(LAST)
    core = evaluator(EVERYBODY)
    assert {variant(core, user) for user in USERS} == {"on"}


def test_forced_users_come_first() -> None:
    core = evaluator(held(GROUPS[-1]))
    for user in LAST[:20]:
        forced = EvaluationContext(targeting_key=user, attributes={"overridesOn": ["alpha"]})
        assert core.resolve_boolean_value("alpha", False, forced).variant == "on-chosen"


def test_a_placebo_divides_the_same_users() -> None:
    """In its share, and with the others as the control."""
    core = evaluator(held(Audience(placebo=Decimal(99))))
    assert {variant(core, user) for user in LAST} == {"off"}
    assert {variant(core, user) for user in FIRST} == {"on"}
    assert not core.resolve_boolean_value("alpha", True, EvaluationContext(targeting_key=FIRST[0])).value


@pytest.mark.parametrize("user", [None, ""])
def test_users_without_a_bucket_are_not_held_back(user: str | None) -> None:
    """They have the feature where all others have it: else the release would be their first step."""
    assert variant(evaluator(held(EVERYBODY)), user) == "on-chosen"
    assert variant(evaluator(held(Audience(Decimal(99)))), user) == "off-chosen"
    assert variant(evaluator(held(GROUPS[2])), user, "beta") == "on-chosen"


def test_another_bucketing_generation_holds_nobody_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last users are others, who have the features elsewhere."""
    whole, part, hash32 = evaluator(held(EVERYBODY)), evaluator(held(GROUPS[2])), mmh3.hash
    monkeypatch.setattr(mmh3, "hash", lambda text, *rest, **named: hash32(f"{text}!", *rest, **named))
    assert {variant(whole, user) for user in USERS[:200]} == {"on-chosen"}
    assert {variant(part, user, "beta") for user in USERS[:200]} == {"on-chosen"}


# --- the document


@pytest.mark.parametrize("audience", [*STEPS[:6], Audience(placebo=Decimal(5)), NOBODY], ids=str)
def test_a_document_that_gives_them_nothing_anyway_is_the_same(audience: Audience) -> None:
    """Byte for byte: no application reads a rule that it does not need."""
    assert text_of(held(audience)) == text_of(audience)


def test_the_shared_rule_names_its_share() -> None:
    """And refers to no other rule: flagd does not resolve a reference there."""
    document = json.loads(text_of(held(GROUPS[2])))
    rule = document["$evaluators"]["heldBack-20"]
    assert "$ref" not in json.dumps(rule)
    assert rule["and"][-1]["=="][0]["fractional"][1:] == [["others", 980], ["heldBack", 20]]
    assert "heldBack" not in text_of(held(EVERYBODY))
    assert [held_back_named(name) for name in ("heldBack-20", "heldBack-5", "heldBack-0", "heldBack-1000", "group-x")] == [
        Decimal(2),
        Decimal("0.5"),
        None,
        None,
        None,
    ]


AUDIENCES: Final = [held(step, Decimal(percent)) for percent in (0, "0.1", 2, 20) for step in (*STEPS, *GROUPS)]


@pytest.mark.parametrize("audience", list(dict.fromkeys(AUDIENCES)), ids=repr)
def test_the_document_is_read_back_as_it_was_compiled(audience: Audience) -> None:
    assert read_document(text_of(audience)).audiences == {"alpha": audience}


def test_several_phases_may_hold_back_others() -> None:
    """One was released, or promoted, before another began."""
    audiences = {"alpha": GROUPS[-1], "beta": held(GROUPS[-1]), "gamma": held(GROUPS[2], Decimal(5))}
    assert read_document(compile_document(FlagSource("shop", "default", audiences)).text).audiences == audiences


# --- audiences as sets of users

Somebody = tuple[int | None, frozenset[str]]  # the bucket, if there is one, and the groups
MEMBERS: Final = [frozenset(names) for count in range(3) for names in combinations(("beta", "staff"), count)]
EVERY_KIND: Final[list[Somebody]] = [
    (number, groups)
    for number in (None, 0, 1, 49, 50, 499, 500, 799, 800, 969, 979, 980, 984, 985, 989, 990, 998, 999)
    for groups in MEMBERS
]


def has(audience: Audience, somebody: Somebody) -> bool:
    """Whether an audience includes a user, as the document promises it."""
    number, groups = somebody
    if number is not None and number >= 1000 - audience.held_back * 10:
        return False
    by_bucket = audience.percent == 100 or (number is not None and number < audience.percent * 10)
    return by_bucket or not groups.isdisjoint(audience.groups)


@pytest.mark.parametrize("first", AUDIENCES, ids=repr)
def test_audiences_are_compared_as_sets_of_users(first: Audience) -> None:
    mine = {somebody for somebody in EVERY_KIND if has(first, somebody)}
    for other in AUDIENCES:
        theirs = {somebody for somebody in EVERY_KIND if has(other, somebody)}
        least = {somebody for somebody in EVERY_KIND if has(lesser(first, other), somebody)}
        assert least <= mine & theirs
        assert gives_less(first, other) is bool(theirs - mine), other
        if mine <= theirs:
            assert least == mine, other


# --- a document that somebody has edited

COMPILED: Final = json.loads(text_of(held(Audience(Decimal(50), ("beta",)))))
WHOLE: Final = json.loads(text_of(held(EVERYBODY)))
PLACES: Final = [
    (compiled, place)
    for compiled in (COMPILED, WHOLE)
    for place in places(compiled)
    if place[:2] == ("flags", "alpha") or place[0] == "$evaluators"
]
READERS: Final = [
    EvaluationContext(targeting_key=key, attributes={"groups": groups})
    for key in ("", *USERS[:8], *LAST[:4])
    for groups in ([], ["beta"])
]


def given_to(text: str) -> list[bool] | None:
    """Which of these users the evaluator gives alpha to; None if it rejects the text."""
    core = FlagdCore()
    try:
        core.set_flags(text)
        return [bool(core.resolve_boolean_value("alpha", default_value=False, ctx=user).value) for user in READERS]
    except Exception:  # noqa: BLE001 - whatever the evaluator does with a text that it cannot read
        return None


@settings(max_examples=300, deadline=None)
@given(
    place=st.sampled_from(PLACES), value=st.one_of(VALUES, st.sampled_from([{"$ref": "heldBack-20"}, {"if": [True]}, 980, 20]))
)
def test_audience_that_is_read_has_just_the_users_of_the_text(place: tuple[Any, tuple[str | int, ...]], value: Any) -> None:
    """Whatever value is put anywhere in the rules of the flag, or in those that it refers to; and nothing raises."""
    compiled, path = place
    document = copy.deepcopy(compiled)
    node: Any = document
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    text = json.dumps(document)
    audience, users = read_document(text).audiences["alpha"], given_to(text)
    if audience is not None and users is not None:
        assert users == given_to(text_of(audience))


@pytest.mark.parametrize(
    "rule",
    [
        {"$ref": "heldBack-" + "9" * 5_000},
        {"$ref": "heldBack-२०"},
        {"$ref": ["heldBack-20"]},
        {"$ref": "heldBack-20", "if": [{"$ref": "heldBack-20"}]},
        {"if": [{"$ref": "heldBack-30"}, "off-chosen", "on-chosen"]},
        {"if": [{"$ref": "heldBack-20"}, "on-chosen", "off-chosen"]},
        {"if": []},
        {"if": [{"if": [{"if": [{"if": []}]}]}]},
    ],
    ids=repr,
)
def test_rules_that_only_look_like_ours_are_no_audience(rule: Any) -> None:
    document = copy.deepcopy(COMPILED)
    document["flags"]["alpha"]["targeting"]["if"][5] = rule
    assert read_document(json.dumps(document)).audiences == {"alpha": None}
