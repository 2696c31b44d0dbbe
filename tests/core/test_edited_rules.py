"""An edit by hand that gives the features to other users, though to as many: it is another audience, with a warm-up of its own.

Not here: edits that turn a feature off (test_published_text), damaged texts (test_mangled_documents).
"""

import copy
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import OpenFeatureError

from core.world import World, at, spec
from session_rollout.adapters.flags import document_of
from session_rollout.core.documents import read_document
from session_rollout.core.flags import KEY, Audience, FlagSource, compile_document

Edit = Callable[[dict[str, Any]], Any]  # of the parsed document
HOUR: Final = timedelta(hours=1)
OTHER_SALT: Final = {"cat": ["other:", {"var": "targetingKey"}]}
COMPILED: Final = json.loads(compile_document(FlagSource("shop", "default", {"alpha": Audience(Decimal(50), ("beta",))})).text)


def shared(name: str, rule: Any) -> Edit:
    """Replace a rule that all flags refer to."""
    return lambda document: document["$evaluators"].update({name: rule})


def last_rule(document: dict[str, Any]) -> list[Any]:
    """The branches of the rules of alpha."""
    branches: list[Any] = document["flags"]["alpha"]["targeting"]["if"]
    return branches


def other_salt(document: dict[str, Any]) -> None:
    last_rule(document)[-2]["fractional"][0] = OTHER_SALT


def other_salt_and_name(document: dict[str, Any]) -> None:
    other_salt(document)
    document["metadata"]["flagSetId"] = "default/other"


def forced_on_first(document: dict[str, Any]) -> None:
    branches = last_rule(document)
    branches[:4] = [*branches[2:4], *branches[:2]]


EDITS: Final[dict[str, Edit]] = {
    "everybody is forced off": shared("forcedOff", {"==": [1, 1]}),
    "everybody is forced on": shared("forcedOn", {"==": [1, 1]}),
    "nobody has a bucket": shared("bucketed", {"==": [1, 2]}),
    "the group has other users": shared("group-beta", {"in": ["staff", {"var": ["groups", []]}]}),
    "a shared rule is missing": lambda document: document["$evaluators"].pop("bucketed"),
    "a weight of a shared rule is no number": lambda document: document["$evaluators"]["bucketed"]["and"][0]["=="][0][
        "fractional"
    ].__setitem__(1, ["v3", True]),
    "the hash of the users has another salt": other_salt,
    "the flag set has another name, too": other_salt_and_name,
    "the hash has no salt": lambda document: last_rule(document)[-2]["fractional"].pop(0),
    "the buckets are exchanged": lambda document: last_rule(document)[-2]["fractional"].reverse(),
    "users without a bucket have it": lambda document: last_rule(document).__setitem__(-1, "on"),
    "who has a bucket is asked otherwise": lambda document: last_rule(document).__setitem__(-3, {"$ref": "forcedOn"}),
    "forced on comes before forced off": forced_on_first,
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_rules_for_other_users_are_no_audience_of_ours(edit: Edit) -> None:
    """The percentage and the groups are those of before, and other users have the feature."""
    document = copy.deepcopy(COMPILED)
    edit(document)
    metadata = {"name": "shop-flags", "resourceVersion": "7"}
    assert document_of({"metadata": metadata, "data": {KEY: json.dumps(document)}}).audiences == {"alpha": None}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_correction_begins_the_warm_up_again(edit: Edit) -> None:
    """The operator was away for an hour, which the query covers, and users had what the edit gave them."""
    phase = {
        "name": "one",
        "features": ["alpha", "beta", "gamma"],
        "steps": [{"percent": 10, "groups": ["beta"], "hold": "3h"}, {"percent": 100, "hold": "3h"}],
        "criteria": [{"name": "errors", "metric": "errors", "below": "5%"}],
    }
    world = World(spec(checkInterval="1m", phases=[phase], guards=[]), ranges={"errors": HOUR})
    world.until(at("one", 1), tick=60)
    world.until(lambda world: world.status.current.hold_until is not None, tick=60, seconds=7200)
    document = json.loads(world.documents[-1])
    edit(document)
    assert world.document is not None
    known = {"version": world.document.version + 1, "owner": world.name, "protections": world.document.protections}
    world.document = read_document(json.dumps(document), flag_set=world.spec.flag_set, editor="kubectl-edit", **known)
    world.now += HOUR
    world.settle()
    corrected, flags = world.now, world.status.flags
    assert world.document.sha256 == flags.sha256
    world.run(120, tick=60)
    assert world.status.flags.published_time == corrected
    assert world.status.current.hold_paused_time is not None


USERS: Final = [
    EvaluationContext(targeting_key=key, attributes={"groups": groups})
    for key in ("", *(f"user-{number}" for number in range(12)))
    for groups in ([], ["beta"])
]
VALUES: Final[st.SearchStrategy[Any]] = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        100,
        500,
        "",
        "on",
        "off",
        "on-chosen",
        "off-chosen",
        "beta",
        "shop:",
        "bucketed",
        "forcedOn",
        "groups",
        "group-beta",
        "DISABLED",
        [],
        {},
        {"==": [1, 1]},
        {"$ref": "group-beta"},
        {"var": "targetingKey"},
    ]
)


def places(node: Any, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    """The path of each value in a part of a document."""
    if path:
        yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from places(child, *path, key)


PLACES: Final = [place for place in places(COMPILED) if place[:2] == ("flags", "alpha") or place[0] == "$evaluators"]


def users_with(text: str) -> list[bool] | None:
    """Which users the evaluator of applications gives alpha to; None if it rejects the text."""
    core = FlagdCore()
    try:
        core.set_flags(text)
    except (OpenFeatureError, ValueError, TypeError, LookupError, AttributeError):
        return None
    return [_has(core, user) for user in USERS]


def _has(core: FlagdCore, user: EvaluationContext) -> bool:
    try:
        return bool(core.resolve_boolean_value("alpha", default_value=False, ctx=user).value)
    except OpenFeatureError:
        return False


@settings(max_examples=300, deadline=None)
@given(place=st.sampled_from(PLACES), value=VALUES)
def test_audience_that_is_read_has_just_the_users_whom_the_text_gives_it_to(place: tuple[str | int, ...], value: Any) -> None:
    """Whatever value is put anywhere in the rules of a flag, or in the rules that it refers to."""
    document = copy.deepcopy(COMPILED)
    node: Any = document
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    text = json.dumps(document)
    audience, users = read_document(text).audiences["alpha"], users_with(text)
    if audience is not None and users is not None:
        assert users == users_with(compile_document(FlagSource("shop", "default", {"alpha": audience})).text)
