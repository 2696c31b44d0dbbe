"""The UNTIL column: empty, or a time that is ahead; whatever the rollout waits for (D23).

Not here: how the plugin prints it (tests/cli), when a hold ends (test_hold).
"""

import functools
from datetime import datetime
from typing import Any

import pytest

from core.scenarios import played
from core.world import World, at, edited, spec
from session_rollout.api.crds import rollout_definition
from session_rollout.api.enums import DecisionReason, Verdict
from session_rollout.api.status import RolloutStatus

NOBODY_KNOWS = {
    DecisionReason.PAUSED,
    DecisionReason.SUSPENDED,
    DecisionReason.AWAITING_APPROVAL,
    DecisionReason.FEATURE_DISABLED,
    DecisionReason.DEADLINE_EXCEEDED,
    DecisionReason.INVALID_SPEC,
    DecisionReason.MIGRATION_FAILED,
    DecisionReason.PROMOTED,
    DecisionReason.ROLLED_BACK,
    DecisionReason.ABORTED,
}
KNOWN = {DecisionReason.HOLDING, DecisionReason.AWAITING_WINDOW, DecisionReason.BAKING, DecisionReason.CONFIRMING_CRITERIA}


@functools.cache
def _path() -> tuple[str, ...]:
    [version] = rollout_definition()["spec"]["versions"]
    [path] = [column["jsonPath"] for column in version["additionalPrinterColumns"] if column["name"] == "Until"]
    return tuple(path.split(".")[1:])


def until(status: RolloutStatus) -> str | None:
    """What kubectl prints in the column, which is a JSONPath into the object; None when it is empty."""
    node: Any = {"status": status.to_wire()}
    for key in _path():
        node = node.get(key, {})
    return node or None


@pytest.fixture(scope="module")
def shown() -> dict[DecisionReason, set[str | None]]:
    """The column after each decision of every scenario, by reason: `None`, or whether the time is ahead."""
    by_reason: dict[DecisionReason, set[str | None]] = {}
    for world in played().values():
        for now, status in world.decided:
            text = until(status)
            answer = None if text is None else "ahead" if datetime.fromisoformat(text) > now else "over"
            by_reason.setdefault(status.decision.reason, set()).add(answer)
    return by_reason


def test_no_decision_names_a_time_that_is_over(shown: dict[DecisionReason, set[str | None]]) -> None:
    """D23: in no scenario of the core."""
    assert {reason for reason, answers in shown.items() if "over" in answers} == set()


@pytest.mark.parametrize("reason", NOBODY_KNOWS)
def test_column_is_empty_while_nobody_knows(reason: DecisionReason, shown: dict[DecisionReason, set[str | None]]) -> None:
    """D23: an approval or the end of a pause may come at any time."""
    assert shown[reason] == {None}


@pytest.mark.parametrize("reason", KNOWN)
def test_column_shows_what_is_known(reason: DecisionReason, shown: dict[DecisionReason, set[str | None]]) -> None:
    """D23: the end of the hold or the bake, the opening of a window."""
    assert "ahead" in shown[reason]


def test_approval_comes_after_the_hold() -> None:
    """D23: the end of the hold is over then, and was shown before."""
    world = World(edited(lambda data: data["phases"][0]["steps"][0].update(approval="Required")))
    world.until(at("one", 1))
    world.run(20)
    assert until(world.status) is not None
    world.run(600)
    assert world.reason is DecisionReason.AWAITING_APPROVAL
    assert until(world.status) is None


def test_timer_that_is_paused() -> None:
    """D23: evidence is missing, then the provider does not answer at all when the hold would have ended."""
    world = World(spec())
    world.until(at("one", 1))
    world.run(20)
    world.answering = False
    world.run(3600)
    assert until(world.status) is None
    world.answering = True
    world.values["errors"] = Verdict.NO_DATA
    world.run(3600)
    assert until(world.status) is None
