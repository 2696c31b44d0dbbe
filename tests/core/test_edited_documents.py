"""A flag document that somebody edited by hand is read as applications evaluate it.

Not here: what the operator then does (test_documents.py), what the plugin shows (tests/cli/test_flag_document.py).
"""

import json
import time
from decimal import Decimal
from typing import Any

import pytest
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import OpenFeatureError

from session_rollout.adapters.flag_evaluator import bucket
from session_rollout.core.documents import read_document
from session_rollout.core.flags import EVERYBODY, NOBODY, VARIANTS, Audience, FlagSource, compile_document

DEFAULT = {"targeting": None}


def variants(on: Any, off: Any) -> dict[str, Any]:
    """The values of all variants, whether chosen or not."""
    return {"variants": {"on": on, "off": off, "on-chosen": on, "off-chosen": off}}


EDITS: dict[str, tuple[dict[str, Any], Audience | None]] = {
    "as compiled": ({}, Audience(Decimal(50), ("beta",))),
    "without a default": ({"defaultVariant": None}, Audience(Decimal(50), ("beta",))),
    "disabled": ({"state": "DISABLED"}, NOBODY),
    "disabled, on by default": ({"state": "DISABLED", "defaultVariant": "on", **DEFAULT}, NOBODY),
    "off by default": (DEFAULT, NOBODY),
    "off by default, with empty rules": ({"targeting": {}}, NOBODY),
    "on by default": ({"defaultVariant": "on", **DEFAULT}, EVERYBODY),
    "on by default, with rules": ({"defaultVariant": "on"}, Audience(Decimal(50), ("beta",))),
    "no default": ({"defaultVariant": None, **DEFAULT}, None),
    "no default in any form": ({"targeting": {"if": [False, "on"]}, "defaultVariant": None}, None),
    "an unknown default": ({"defaultVariant": "maybe", **DEFAULT}, None),
    "all variants off": (variants(False, False), NOBODY),
    "off, but for users of groups": ({"variants": {**VARIANTS, "on": False}}, None),
    "on for those who were not chosen alone": ({"variants": {**VARIANTS, "on-chosen": False}}, None),
    "only the variants of older documents": ({"variants": {"on": True, "off": False}}, None),
    "all variants on": (variants(True, True), None),
    "exchanged variants": (variants(False, True), None),
    "exchanged variants, off by default": ({**variants(False, True), **DEFAULT}, EVERYBODY),
    "variants that are numbers": ({**variants(1, 0), "defaultVariant": "on", **DEFAULT}, None),
    "variants that are texts": (variants("on", "off"), None),
    "other rules": ({"targeting": {"if": [{"var": "vip"}, "on", "off"]}}, None),
    "rules that fail": ({"targeting": {"==": [1, 1]}}, None),
}


@pytest.mark.parametrize(("edit", "audience"), EDITS.values(), ids=EDITS)
def test_flag_that_was_edited_by_hand_is_read_as_applications_evaluate_it(
    edit: dict[str, Any], audience: Audience | None
) -> None:
    """D13: the evaluator of applications, whose own default is off, gives a feature to exactly the audience that is read."""
    document = json.loads(compile_document(FlagSource("shop", "default", {"alpha": Audience(Decimal(50), ("beta",))})).text)
    document["flags"]["alpha"] |= edit
    text = json.dumps(document)
    assert read_document(text).audiences == {"alpha": audience}
    core = FlagdCore()
    core.set_flags(text)
    evaluated = [(bucket("shop", user), groups, is_on(core, user, groups)) for user in USERS for groups in ([], ["beta"])]
    if audience is None:
        assert read_document(text).gives_something
    else:
        given = [(number, groups, gives(audience, number, groups)) for number, groups, _ in evaluated]
        assert evaluated == given


USERS = [f"user-{number}" for number in range(20)]


def is_on(core: FlagdCore, user: str, groups: list[str]) -> bool:
    """What an application gets; its own default when the flag has no value."""
    try:
        context = EvaluationContext(targeting_key=user, attributes={"groups": groups})
        return bool(core.resolve_boolean_value("alpha", default_value=False, ctx=context).value)
    except OpenFeatureError:
        return False


def gives(audience: Audience, number: int, groups: list[str]) -> bool:
    """Whether an audience has a user with this bucket."""
    return number < audience.percent * 10 or any(group in audience.groups for group in groups)


BRANCHES = [part for number in range(70_000) for part in (0, f"v{number}")]
NESTED = '{"if":[{"var":"a"},"v%d",' * 20_000 % tuple(range(20_000)) + '"on"' + "]}" * 20_000


@pytest.mark.parametrize(
    "targeting",
    [
        json.dumps({"if": BRANCHES}),
        json.dumps({"if": [0, {"if": BRANCHES[:200]}] * 100}),
        json.dumps({"fractional": [[name, 1] for name in BRANCHES[1::2]]}),
        '{"if":[0,' * 400 + json.dumps({"if": BRANCHES[:50_000]}) + "]}" * 400,
        NESTED,
    ],
    ids=["branches", "branches in branches", "shares", "levels", "too many levels"],
)
def test_document_of_others_is_read_in_a_moment(targeting: str) -> None:
    """R5: whoever may edit one document must not stop the event loop for the rollouts of all others."""
    flag = (
        f'{{"state": "ENABLED", "variants": {{"on": true, "off": false}}, "defaultVariant": "off", "targeting": {targeting}}}'
    )
    begun = time.process_time()
    document = read_document(f'{{"flags": {{"alpha": {flag}}}}}')
    assert time.process_time() - begun < 1
    assert set(document.audiences) <= {"alpha"}
