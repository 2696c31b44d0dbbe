"""Whether users have received a feature, by the events that are compared: the hold begins only then.

Not here: how often the test of the share errs (tests/core/statistics), which events are counted (tests/adapters).
"""

from datetime import timedelta

import pytest

from core.counting import COMPARED, Counting, in_step, spec
from core.world import ended
from session_rollout.api.enums import CheckKind, CheckReason, DecisionAction, DecisionReason, Outcome, Verdict

MINUTE = timedelta(minutes=1)


def in_first_step(**fields: float) -> Counting:
    """A world whose first step, for 20 percent, was just published."""
    world = Counting(spec(), **fields)  # type: ignore[arg-type]
    world.until(in_step("20"))
    return world


@pytest.mark.parametrize("applied", [0.0, 0.4, 50.0])
def test_an_application_that_does_not_apply_the_flag_is_a_stall(applied: float) -> None:
    """To nobody, as it is not wired, or to others than the published share; once it applies it, the rollout goes on."""
    world = in_first_step(applied=applied, traffic=10_000)
    world.run(120)
    decision = world.status.decision
    assert (decision.action, decision.reason) == (DecisionAction.STALL, DecisionReason.NOT_APPLIED)
    for kind in (CheckKind.GUARD, CheckKind.CRITERION):
        assert world.verdict(kind) == (Verdict.INCONCLUSIVE, CheckReason.NOT_APPLIED)
    assert world.status.current.hold_until is None
    world.applied = None
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_the_hold_begins_with_enough_events() -> None:
    """Of 20 events of all users in each block, four have the feature."""
    world = in_first_step(traffic=20)
    published = world.now
    world.until(lambda world: world.status.current.hold_until is not None)
    assert world.now - published >= 25 * timedelta(seconds=10)
    assert world.verdict(CheckKind.GUARD)[1] is CheckReason.COMPARISON_OPEN


def test_an_audience_that_nobody_joins_is_a_stall_after_the_deadline() -> None:
    """It is no rollback: nobody was harmed. Before that, the rollout waits."""
    world = Counting(
        spec(control={"block": "10s", "lag": "0s", "exposure": {"deadline": "10m", "minEvents": 1000}}), traffic=20
    )
    world.until(in_step("20"))
    world.run(500)
    assert world.status.decision.reason is DecisionReason.AWAITING_EVIDENCE
    assert world.verdict(CheckKind.GUARD) == (Verdict.INCONCLUSIVE, CheckReason.NOT_EXPOSED)
    world.run(150)
    assert (world.status.decision.action, world.status.decision.reason) == (DecisionAction.STALL, DecisionReason.NOT_EXPOSED)
    assert (world.condition("Stalled"), world.condition_reason("Stalled")) == ("True", "NotExposed")
    assert world.status.current.percent == "20"
    world.traffic = 20_000
    world.until(in_step("50"))


def test_each_audience_has_to_be_received() -> None:
    """The events of the step before do not count, and those of the first blocks of a step cannot."""
    world = in_first_step(traffic=100_000)
    world.until(in_step("50"))
    world.traffic = 20
    world.run(60)
    assert world.status.current.hold_until is None
    world.traffic = 100_000
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_harm_needs_no_hundred_events() -> None:
    """A guard acts as soon as harm is shown, whoever has received the feature."""
    world = Counting(spec(guards=[COMPARED]), traffic=100, rates=(0.9, 0.001))
    world.until(in_step("20"))
    world.until(ended, seconds=120)
    assert world.status.outcome is Outcome.ROLLED_BACK
