"""The published flag document as the plugin reads it: which rule decides a flag, and documents that nobody can read.

Not here: that applications get the same values (tests/integration, tests/docs).
"""

import json
import os
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from typing import Any, Final

import pytest

from session_rollout.cli.command import Failure
from session_rollout.cli.flag_document import Evaluator, RuleKind, User, published, text_of
from session_rollout.core.flags import Audience, FlagSource, compile_document, without_held_back

OTHER = "rules of somebody else"


def rules(percent: int, user: str) -> list[tuple[bool, RuleKind]]:
    """Value and rule of each flag for a user."""
    document = compile_document(FlagSource("shop", "default", {"alpha": Audience(percent=Decimal(percent))}))
    return [(found.on, found.rule.kind) for found in Evaluator(document.text, "shop").evaluate(User(user))]


def test_evaluation_needs_no_client_of_kubernetes() -> None:
    """Importing one takes longer than everything else that `flags who` does."""
    program = "import sys; from cli.test_flag_document import rules; rules(50, 'u'); print('kubernetes' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(("operator", "tests", "."))}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False\n"


def test_user_without_an_id_is_in_no_percentage_below_100() -> None:
    """The rule says so, and no bucket."""
    assert rules(50, "") == [(False, RuleKind.NO_USER_ID)]
    assert rules(100, "") == [(True, RuleKind.ALL_USERS)]
    assert rules(50, "alice")[0][1] is RuleKind.BUCKET


def test_nobody_has_the_feature_in_a_placebo_but_who_is_forced() -> None:
    """The bucket decides the variant alone, and the rule says whose it is."""
    text = compile_document(FlagSource("shop", "default", {"alpha": Audience(placebo=Decimal(50))})).text
    evaluator = Evaluator(text, "shop")
    for user in ("alice", "bob", "carol", ""):
        (evaluation,) = evaluator.evaluate(User(user))
        assert (evaluation.on, evaluation.rule.on, evaluation.rule.kind) == (False, False, RuleKind.PLACEBO)
        assert evaluation.as_data()["weight"] == 500
    (forced,) = evaluator.evaluate(User("alice", overrides_on=("alpha",)))
    assert (forced.on, forced.rule.on, forced.rule.kind) == (True, True, RuleKind.OVERRIDE)
    assert text_of(published(text), "alpha") == "50% placebo"


HELD: Final = without_held_back(Audience(Decimal(20), ("beta",)), Decimal(2))
WHOLE: Final = without_held_back(Audience(Decimal(100)), Decimal(2))


@pytest.mark.parametrize(("audience", "text"), [(HELD, "20%+beta (2% held back)"), (WHOLE, "100% (2% held back)")], ids=str)
def test_the_rule_names_users_who_are_held_back(audience: Audience, text: str) -> None:
    """It gives each user what the evaluator gives, and says why."""
    document = compile_document(FlagSource("shop", "default", {"alpha": audience})).text
    evaluator, kinds = Evaluator(document, "shop"), Counter[str]()
    assert text_of(published(document), "alpha") == text
    for user in ("", *(f"user-{number}" for number in range(400))):
        for groups in ((), ("beta",)):
            (evaluation,) = evaluator.evaluate(User(user, groups))
            assert evaluation.on is evaluation.rule.on, (user, groups)
            kinds[str(evaluation.rule.kind)] += 1
            if evaluation.rule.kind is RuleKind.HELD_BACK:
                assert str(evaluation.rule) == f"held back: bucket {evaluation.rule.bucket} is not below 980"
    assert set(kinds) == ({"Bucket", "Group", "HeldBack", "NoUserId"} if audience is HELD else {"Bucket", "AllUsers"})


BY_HAND: dict[str, Any] = {
    "an emergency": ({}, (False, RuleKind.EMERGENCY), "off for all users"),
    "disabled, with its rules": ({"state": "DISABLED"}, (False, RuleKind.FOREIGN), "0%"),
    "off": ({"targeting": {}}, (False, RuleKind.FOREIGN), "0%"),
    "on": ({"targeting": {}, "defaultVariant": "on"}, (True, RuleKind.FOREIGN), "100%"),
    "other rules": (
        {"targeting": {"if": [{"in": ["u", {"var": "targetingKey"}]}, "on", "off"]}},
        (True, RuleKind.FOREIGN),
        OTHER,
    ),
    "rules that fail": ({"targeting": {"==": [1, 1]}}, (False, RuleKind.FOREIGN), OTHER),
    "no such variant": ({"targeting": {}, "defaultVariant": "maybe"}, (False, RuleKind.FOREIGN), OTHER),
    "variants that are texts": ({"variants": {"on": "yes", "off": "no"}}, (False, RuleKind.FOREIGN), OTHER),
}


@pytest.mark.parametrize(("edit", "evaluated", "words"), BY_HAND.values(), ids=BY_HAND)
def test_flag_that_was_edited_by_hand(edit: dict[str, Any], evaluated: tuple[bool, RuleKind], words: str) -> None:
    """D13: `flags who` gives the value of the evaluator, and `flags status` what the flag gives; neither takes it for our rules."""
    disabled = {"alpha": "payments fail"} if not edit else {}
    given = FlagSource("shop", "default", {"alpha": Audience(Decimal(50))}, disabled)
    document = json.loads(compile_document(given).text)
    document["flags"]["alpha"] |= edit
    text = json.dumps(document)
    [shown] = Evaluator(text, "shop").evaluate(User("u"))
    assert (shown.on, shown.rule.kind) == evaluated
    assert shown.rule.on is shown.on
    assert str(shown.rule)
    assert text_of(published(text), "alpha") == words


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null", "{", '{"flags": []}', '{"flags": {"alpha": {"state": 7}}}'])
def test_document_that_cannot_be_read_gets_one_sentence(text: str) -> None:
    """It was edited by hand while no operator runs."""
    with pytest.raises(Failure):
        Evaluator(text, "shop")
    if "state" not in text:
        with pytest.raises(Failure):
            published(text)
