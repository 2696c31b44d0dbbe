"""The published flag document as the plugin reads it: which rule decides a flag, and documents that nobody can read.

Not here: that applications get the same values (tests/integration, tests/docs).
"""

import json
from decimal import Decimal

import pytest

from session_rollout.cli.command import Failure
from session_rollout.cli.flag_document import Evaluator, Published, RuleKind, User, published
from session_rollout.core.flags import Audience, FlagSource, compile_document


def rules(percent: int, user: str) -> list[tuple[bool, RuleKind]]:
    """Value and rule of each flag for a user."""
    document = compile_document(FlagSource("shop", "default", {"alpha": Audience(percent=Decimal(percent))}))
    return [(found.on, found.rule.kind) for found in Evaluator(document.text, "shop").evaluate(User(user))]


def test_user_without_an_id_is_in_no_percentage_below_100() -> None:
    """The rule says so, and no bucket."""
    assert rules(50, "") == [(False, RuleKind.NO_USER_ID)]
    assert rules(100, "") == [(True, RuleKind.ALL_USERS)]
    assert rules(50, "alice")[0][1] is RuleKind.BUCKET


AUDIENCES = {
    "nobody": Audience(),
    "half a percent": Audience(percent=Decimal("0.5")),
    "groups": Audience(percent=Decimal(5), groups=("beta", "staff")),
    "groups only": Audience(groups=("beta",)),
    "everybody": Audience(percent=Decimal(100)),
    "everybody and groups": Audience(percent=Decimal(100), groups=("beta",)),
}


@pytest.mark.parametrize("audience", AUDIENCES.values(), ids=AUDIENCES)
def test_audience_is_read_back_from_its_rules(audience: Audience) -> None:
    """D13: what is published is in the document, whatever the spec says today."""
    document = compile_document(FlagSource("shop", "default", {"alpha": audience}))
    assert published(document.text) == {"alpha": Published(audience.percent, audience.groups)}


def test_emergency_and_edits_by_hand_are_read() -> None:
    """D13: an emergency has its reason; a flag without rules has its default; rules of somebody else are not taken for 0%."""
    given = FlagSource(
        "shop", "default", {name: Audience(percent=Decimal(50)) for name in "abcd"}, disabled={"a": "payments fail"}
    )
    document = json.loads(compile_document(given).text)
    del document["flags"]["b"]["targeting"]
    del document["flags"]["d"]["targeting"]
    document["flags"]["d"]["defaultVariant"] = "on"
    document["flags"]["c"]["targeting"] = {"if": [{"var": "vip"}, "on", "off"]}
    read = published(json.dumps(document))
    assert {name: (feature.percent, feature.emergency) for name, feature in read.items()} == {
        "a": (Decimal(0), "payments fail"),
        "b": (Decimal(0), None),
        "c": (None, None),
        "d": (Decimal(100), None),
    }


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null", "{", '{"flags": []}', '{"flags": {"alpha": {"state": 7}}}'])
def test_document_that_cannot_be_read_gets_one_sentence(text: str) -> None:
    """It was edited by hand while no operator runs."""
    with pytest.raises(Failure):
        Evaluator(text, "shop")
    if "state" not in text:
        with pytest.raises(Failure):
            published(text)
