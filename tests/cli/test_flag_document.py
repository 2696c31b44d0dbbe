"""The published flag document as the plugin reads it: which rule decides a flag, and documents that nobody can read.

Not here: that applications get the same values (tests/integration, tests/docs).
"""

from decimal import Decimal

import pytest

from session_rollout.cli.command import Failure
from session_rollout.cli.flag_document import Evaluator, RuleKind, User
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


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null", "{", '{"flags": []}', '{"flags": {"alpha": {"state": 7}}}'])
def test_document_that_cannot_be_read_gets_one_sentence(text: str) -> None:
    """It was edited by hand while no operator runs."""
    with pytest.raises(Failure):
        Evaluator(text, "shop")
