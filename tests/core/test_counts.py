"""Guards and criteria that compare the events of all users with a fixed rate: few events say nothing, and many need no cohorts."""

from datetime import timedelta
from typing import Any

import pytest

from core.counting import BELOW, Counting, bounded, in_step
from core.world import World, ended
from session_rollout.api.enums import CheckKind, CheckReason, DecisionReason, Outcome, Stage, Verdict
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.blocks import BlockProblem
from session_rollout.core.flags import NOBODY
from session_rollout.records.record import Record


def counting(known: RolloutSpec | None = None, **fields: Any) -> Counting:
    """A world of which all users are counted."""
    return Counting(known or bounded(), of_all=True, **fields)


def test_a_low_rate_is_promoted() -> None:
    """Also of 100 % of all users, where no cohort is left."""
    world = counting(rates=(0.002, 0.0))
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


@pytest.mark.parametrize("cells", [tuple(map(str, range(16))), ("",)], ids=["cells", "no cells"])
def test_a_high_rate_is_rolled_back(cells: tuple[str, ...]) -> None:
    """Of all users, after few bad events: without cells it needs some more."""
    world = counting(bounded(criteria=()), traffic=1000, rates=(0.05, 0.0), cells=cells)
    world.until(ended)
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert world.status.current.rollback_guard == "failures"


def test_a_high_rate_at_100_percent_is_rolled_back() -> None:
    world = counting(bounded(criteria=()), traffic=1000, rates=(0.002, 0.0))
    world.until(in_step("100"))
    world.rates = (0.05, 0.0)
    world.until(ended)
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_one_bad_event_of_three_is_no_breach() -> None:
    """A share of 33 % that a query would show is above every bound."""
    world = counting(bounded(criteria=()), traffic=0.3, rates=(1 / 3, 0.0))
    world.until(in_step("20"))
    world.run(90)
    assert world.verdict(CheckKind.GUARD) == (Verdict.INCONCLUSIVE, CheckReason.COMPARISON_OPEN)


def test_few_events_promote_nothing() -> None:
    world = counting(traffic=20, rates=(0.0, 0.0))
    world.until(in_step("20"))
    world.run(200)
    assert world.status.current.percent == "20"
    assert world.verdict(CheckKind.CRITERION) == (Verdict.INCONCLUSIVE, CheckReason.COMPARISON_OPEN)
    assert world.status.decision.reason is DecisionReason.CRITERIA_NOT_MET


def test_each_audience_is_shown_to_be_harmless_by_its_own_events() -> None:
    """A rate of all users while a fifth of them have the feature says nothing about all of them having it."""
    world = counting(rates=(0.002, 0.0))
    world.until(in_step("100"))
    world.traffic = 20
    world.run(300)
    assert world.status.current.percent == "100"
    assert world.status.current.phase == "one"
    assert world.verdict(CheckKind.CRITERION) == (Verdict.INCONCLUSIVE, CheckReason.COMPARISON_OPEN)


def test_a_guard_continues_through_all_phases() -> None:
    """Its probability of an error is spent once, and what it knows is not lost with a step."""
    world = counting(bounded(criteria=()), traffic=1000, rates=(0.002, 0.0))
    world.until(in_step("20"))
    world.run(60)
    known = _guard(world)
    world.until(lambda world: world.status.current.phase == "two" and world.status.current.stage is Stage.STEP)
    assert _guard(world).blocks > known.blocks
    assert (_guard(world).phase, _guard(world).alpha) == ("one", known.alpha)


def _guard(world: World) -> Any:
    return next(each for each in world.status.evidence if each.kind is CheckKind.GUARD)


def test_nothing_is_counted_before_the_first_publish() -> None:
    """What failed before is no harm of this rollout."""
    world = counting(bounded(criteria=()), rates=(0.5, 0.0))
    world.until(lambda world: world.status.current.stage is Stage.STEP)
    assert not any(record.blocks for record in world.status.evidence)
    assert world.verdict(CheckKind.GUARD)[1] is not CheckReason.HARM_SHOWN


@pytest.mark.parametrize("problem", list(BlockProblem))
def test_blocks_that_cannot_be_read_promote_nothing(problem: BlockProblem) -> None:
    world = counting(problem=problem)
    world.until(in_step("20"))
    world.run(300)
    assert world.status.current.percent == "20"
    assert world.verdict(CheckKind.CRITERION)[0] is Verdict.NO_DATA


def test_a_guard_that_tolerates_every_rate_does_not_count() -> None:
    """It can never fail."""
    world = counting(bounded(criteria=(), guards=({**BELOW, "below": "100%"},)), rates=(0.9, 0.0))
    world.until(in_step("20"))
    world.run(300)
    assert world.status.current.hold_until is None
    assert world.verdict(CheckKind.GUARD) == (Verdict.INCONCLUSIVE, CheckReason.ANY_RATE_TOLERATED)


def test_a_record_gives_the_same_decision_again() -> None:
    world = counting(rates=(0.002, 0.0))
    world.until(in_step("100"))
    for _ in range(5):
        world.run(10)
        observed = world.observed()
        decision = world.reconcile()
        record = Record.model_validate_json(Record.of(observed, world.now, decision).model_dump_json())
        assert record.decide_again().status == decision.status


def test_a_guard_without_a_verdict_keeps_the_next_phase_back() -> None:
    """Users of the first phase are counted already, so that a guard that an edit adds has its verdict soon."""
    data = bounded(guards=(), criteria=()).to_wire()
    world = counting(RolloutSpec.model_validate({**data, "phases": data["phases"][:1], "bake": "1h"}), rates=(0.05, 0.05))
    world.until(lambda world: world.status.current.stage is Stage.BAKE)
    world.run(300)
    world.edit(bounded(criteria=()))
    world.settle()
    assert world.document is not None
    assert world.document.audiences["beta"] == NOBODY
    world.run(300)
    assert world.status.current.rollback_guard == "failures"


def test_a_retry_right_after_a_rollback_awaits_the_guard() -> None:
    world = counting(bounded(criteria=()))
    world.until(lambda world: world.where[:2] == ("two", 1) and world.status.current.published_time is not None)
    world.run(60)
    world.request("Abort")
    world.until(ended)
    world.now += timedelta(seconds=1)
    world.request("Retry", generation=1)
    world.settle()
    assert world.percents()["two"] == "0"
    world.until(lambda world: world.percents()["two"] == "20")
