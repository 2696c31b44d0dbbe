"""Variants say who can be compared, and the cell says in which sixteenth of all users somebody is; by the evaluator of applications.

Not here: the order of the rules (test_rules.py), what is counted by variant and cell (tests/docs/test_instrumentation.py).
"""

from collections import Counter
from decimal import Decimal
from typing import Any, Final

import mmh3
import pytest
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext

from session_rollout.adapters.flag_evaluator import bucket
from session_rollout.core.flags import CELL, CELL_NAMES, EVERYBODY, NO_CELL, NOBODY, Audience, FlagSource, compile_document

SOME: Final = Audience(Decimal(20), ("beta",))
PLACEBO: Final = Audience(placebo=Decimal(20))
USERS: Final = [f"user-{number}" for number in range(4_000)]


def evaluator(audience: Audience, **fields: Any) -> FlagdCore:
    """With a document that gives `alpha` to this audience."""
    core = FlagdCore()
    core.set_flags(compile_document(FlagSource("shop", "default", {"alpha": audience}, **fields)).text)
    return core


def context(user: str | None, **attributes: Any) -> EvaluationContext:
    """What an application passes."""
    return EvaluationContext(targeting_key=user, attributes=attributes)


def variant(core: FlagdCore, user: str | None, **attributes: Any) -> str | None:
    """Of `alpha`."""
    known: str | None = core.resolve_boolean_value("alpha", False, context(user, **attributes)).variant
    return known


def cell(core: FlagdCore, user: str | None) -> str:
    """Of a user."""
    return str(core.resolve_string_value(CELL, "", context(user)).value)


CHOSEN: Final = {
    "in a group": (SOME, {"groups": ["beta"]}, "on-chosen"),
    "forced on": (SOME, {"overridesOn": ["alpha"]}, "on-chosen"),
    "forced off": (SOME, {"overridesOff": ["alpha"]}, "off-chosen"),
    "forced off in a group": (SOME, {"groups": ["beta"], "overridesOff": ["alpha"]}, "off-chosen"),
    "before the first step": (NOBODY, {}, "off-chosen"),
    "without the group, where only groups have it": (Audience(groups=("beta",)), {}, "off-chosen"),
    "everybody": (EVERYBODY, {}, "on"),
    "forced on in a placebo": (PLACEBO, {"overridesOn": ["alpha"]}, "on-chosen"),
    "forced off in a placebo": (PLACEBO, {"overridesOff": ["alpha"]}, "off-chosen"),
}


@pytest.mark.parametrize(("audience", "attributes", "expected"), CHOSEN.values(), ids=CHOSEN)
def test_who_was_chosen(audience: Audience, attributes: dict[str, Any], expected: str) -> None:
    """Whatever their bucket is."""
    core = evaluator(audience)
    assert {variant(core, user, **attributes) for user in USERS[:200]} == {expected}


def test_the_percentage_alone_divides_at_random() -> None:
    """`on` and `off` are the buckets, and nothing else."""
    core = evaluator(SOME)
    for user in USERS:
        assert variant(core, user) == ("on" if bucket("shop", user) < 200 else "off")


def test_a_placebo_divides_as_the_next_step_and_gives_nothing() -> None:
    """Only who is forced on has the feature. Users without a targeting key and in an emergency are as in any other step."""
    placebo, real = evaluator(PLACEBO), evaluator(Audience(Decimal(20)))
    for user in USERS:
        assert variant(placebo, user) == variant(real, user)
        assert placebo.resolve_boolean_value("alpha", True, context(user)).value is False
    assert placebo.resolve_boolean_value("alpha", False, context("user-1", overridesOn=["alpha"])).value is True
    assert variant(placebo, None) == "off-chosen"
    assert {variant(evaluator(PLACEBO, disabled={"alpha": "hot"}), user) for user in USERS[:200]} == {"off-chosen"}


@pytest.mark.parametrize("user", [None, ""])
def test_users_without_a_targeting_key_are_in_no_bucket_and_no_cell(user: str | None) -> None:
    core = evaluator(SOME)
    assert variant(core, user) == "off-chosen"
    assert cell(core, user) == NO_CELL


def test_an_emergency_compares_nobody() -> None:
    core = evaluator(SOME, disabled={"alpha": "hot"})
    assert {variant(core, user) for user in USERS[:200]} == {"off-chosen"}


def test_cells_are_of_one_size_and_say_nothing_about_the_percentage() -> None:
    """Each has its share of the users with the feature."""
    core = evaluator(SOME)
    sizes, on = Counter[str](), Counter[str]()
    for user in USERS:
        name = cell(core, user)
        sizes[name] += 1
        on[name] += variant(core, user) == "on"
    assert set(sizes) == set(CELL_NAMES)
    expected = len(USERS) / len(CELL_NAMES)
    assert sum((size - expected) ** 2 / expected for size in sizes.values()) < 37.7, "chi-square, 15 degrees, 0.1%"
    assert sum((on[name] - size / 5) ** 2 / (size * 0.16) for name, size in sizes.items()) < 39.3, "16 degrees"


def test_cells_stay_when_the_audience_grows() -> None:
    before, after = evaluator(SOME), evaluator(Audience(Decimal(60)))
    assert all(cell(before, user) == cell(after, user) for user in USERS[:200])


def test_another_bucketing_generation_gives_the_percentage_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other users would have the feature than those who are compared; groups and overrides do not depend on a hash."""
    core, hash32 = evaluator(SOME), mmh3.hash
    monkeypatch.setattr(mmh3, "hash", lambda text, *rest, **named: hash32(f"{text}!", *rest, **named))
    assert {variant(core, user) for user in USERS[:200]} == {"off-chosen"}
    assert {cell(core, user) for user in USERS[:200]} == {NO_CELL}
    assert variant(core, "user-1", groups=["beta"]) == "on-chosen"
