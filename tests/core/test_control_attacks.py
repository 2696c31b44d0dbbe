"""Attempts to make a comparison promote harm, lose evidence, spend its probability twice, or raise.

What comparisons do when nobody attacks them: test_control.
"""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.counting import BLOCK, COMPARED, Counting, in_step, spec
from core.world import ended
from session_rollout.api.enums import CheckKind, CheckReason, DecisionReason, EventReason, Outcome, Verdict
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.blocks import BlockProblem

HARM, NONE = (0.5, 0.001), (0.001, 0.001)


def phases() -> Any:
    """Those of the rollout, as data."""
    return [phase.to_wire() for phase in spec().phases]


def guard(world: Counting) -> Any:
    """The evidence of the guard."""
    return next(record for record in world.status.evidence if record.kind is CheckKind.GUARD)


@pytest.mark.parametrize("traffic", [200, 2_000, 20_000])
def test_where_every_event_is_bad_nothing_passes(traffic: int) -> None:
    """A histogram without the bucket that was named counts all of them."""
    world = Counting(spec(), traffic=traffic, rates=(1.0, 1.0))
    world.until(in_step("20"))
    world.run(600)
    assert world.status.current.percent == "20"
    assert not any(record.passed for record in world.status.evidence)
    assert world.verdict(CheckKind.CRITERION) == (Verdict.INCONCLUSIVE, CheckReason.ANY_RATE_TOLERATED)


BUDGET = {"harmBudget": 5}


@pytest.mark.parametrize(
    "fields", [{}, {"tolerate": {"times": "1", "plus": "100%"}}, BUDGET], ids=["default", "100%", "budget"]
)
def test_no_hold_counts_with_a_guard_that_cannot_fail(fields: dict[str, Any]) -> None:
    """It protects nobody, so that the phase is not promoted on it."""
    below = phases()[0] | {"steps": phases()[0]["steps"][:2], "criteria": []}
    rates = (0.001, 0.001) if "tolerate" in fields else (1.0, 1.0)
    world = Counting(spec(guards=[{**COMPARED, **fields}], phases=[below, phases()[1]]), rates=rates)
    world.until(in_step("20"))
    world.run(600)
    assert world.status.current.percent == "20"
    assert world.status.current.hold_until is None
    assert world.verdict(CheckKind.GUARD) == (Verdict.INCONCLUSIVE, CheckReason.ANY_RATE_TOLERATED)


@pytest.mark.parametrize("problem", list(BlockProblem))
def test_harm_that_was_shown_is_not_hidden_by_blocks_that_say_nothing(problem: BlockProblem) -> None:
    """A feature that ends its own sessions has no events any more when Prometheus is back."""
    world = Counting(spec(), traffic=2_000)
    world.until(lambda world: any(record.blocks >= 2 for record in world.status.evidence))
    world.rates = HARM
    for _ in range(6):
        world.now += BLOCK
        world.measure("failures")
        world.values = {"failures": Verdict.PROVIDER_ERROR}
        world.settle()
        world.values = {}
    world.problem = problem
    for _ in range(4):
        world.now += BLOCK
        world.measure("failures")
    world.settle()
    assert world.status.current.rollback_guard == "failures"


def test_guards_see_harm_while_a_larger_audience_is_not_published_yet() -> None:
    """Users have the audience before it."""
    world = Counting(spec())
    world.until(lambda world: world.status.evidence and world.status.evidence[0].blocks >= 3)
    world.publishing = False
    world.run(200)
    assert world.status.outcome is None
    world.rates = HARM
    world.run(120)
    assert world.status.current.rollback_guard == "failures"


@pytest.mark.parametrize("name", ["uno", None])
def test_a_phase_that_left_the_spec_is_compared_for_as_long_as_users_have_it(name: str | None) -> None:
    """The rollout stalls, and its guards do not say that nobody has the feature."""
    world = Counting(spec())
    world.until(lambda world: world.status.evidence and world.status.evidence[0].blocks >= 3)
    first, second = phases()
    left = [{**first, "name": name}, second] if name else [{**second, "features": ["alpha", "beta"]}]
    world.edit(spec(phases=left))
    world.settle()
    assert world.status.decision.reason is DecisionReason.INVALID_SPEC
    world.rates = HARM
    world.run(200)
    assert world.status.current.rollback_guard == "failures"


def test_a_pass_of_another_tolerance_is_none_at_everybody() -> None:
    lenient = phases()
    lenient[0]["criteria"] = [{**COMPARED, "tolerate": {"times": "50"}}]
    world = Counting(spec(phases=lenient, guards=[]), rates=(0.004, 0.001))
    world.until(in_step("100"))
    world.edit(spec(guards=[]))
    world.run(600)
    assert world.status.current.percent == "100"
    assert world.verdict(CheckKind.CRITERION) == (Verdict.INCONCLUSIVE, CheckReason.NO_CONTROL)


NEVER_PASSED: dict[str, dict[str, Any]] = {
    "NotApplied": {"applied": 60.0},
    "NotExposed": {"known": spec(guards=[], control={"block": "10s", "lag": "0s", "exposure": {"minEvents": 1_000_000}})},
    "ImpossibleCounts": {"problem": BlockProblem.IMPOSSIBLE_COUNTS},
}


@pytest.mark.parametrize("reason", NEVER_PASSED)
@pytest.mark.parametrize("way", ["Promote", "edit"])
def test_a_criterion_that_never_passed_does_not_pass_at_everybody(reason: str, way: str) -> None:
    """The events look harmless, and are about other users, too few of them, or a part of the time."""
    fields = dict(NEVER_PASSED[reason])
    rollout, problem = fields.pop("known", spec(guards=[])), fields.pop("problem", None)
    world = Counting(rollout, **fields)
    world.until(in_step("20"))
    for number in range(9):
        world.problem = problem if number % 2 == 0 else None
        world.run(10)
        assert world.verdict(CheckKind.CRITERION)[0] is not Verdict.PASS
    assert world.verdict(CheckKind.CRITERION)[1] == reason
    first, *others = rollout.to_wire()["phases"]
    if way == "Promote":
        for percent, step in (("20", 1), ("50", 2)):
            world.until(in_step(percent))
            world.request("Promote", generation=1, phase="one", step=step, percent=percent)
            world.settle()
    else:
        world.edit(
            RolloutSpec.model_validate({**rollout.to_wire(), "phases": [{**first, "steps": first["steps"][2:]}, *others]})
        )
    world.run(600)
    assert (world.status.current.phase, world.status.current.percent) == ("one", "100")
    assert world.verdict(CheckKind.CRITERION) == (Verdict.INCONCLUSIVE, CheckReason.NO_CONTROL)


def test_a_criterion_that_is_renamed_at_everybody_keeps_its_pass() -> None:
    named = phases()
    named[0]["criteria"] = [{**COMPARED, "name": "other"}]
    world = Counting(spec())
    world.until(in_step("100"))
    world.edit(spec(phases=named))
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


@pytest.mark.parametrize("away", ["outage", "restart"])
def test_a_guard_that_is_renamed_while_nothing_is_known_keeps_its_evidence(away: str) -> None:
    world = Counting(spec(), traffic=1_000)
    world.until(lambda world: any(record.blocks >= 3 for record in world.status.evidence))
    before = guard(world)
    world.values, world.answering = ({"failures": Verdict.PROVIDER_ERROR} if away == "outage" else {}), away == "outage"
    world.edit(spec(guards=[{**COMPARED, "name": "other"}]))
    world.run(20)
    world.values, world.answering = {}, True
    world.settle()
    assert (guard(world).name, guard(world).alpha) == ("other", before.alpha)
    assert guard(world).blocks >= before.blocks
    assert world.status.false_rollback_spent == "0.01"


def test_a_guard_without_a_result_spends_its_probability_once() -> None:
    """In an outage there is no block, in no decision."""
    world = Counting(spec(), traffic=1_000)
    world.until(lambda world: any(record.blocks >= 3 for record in world.status.evidence))
    world.values = {"failures": Verdict.PROVIDER_ERROR}
    world.edit(spec(guards=[COMPARED, {**COMPARED, "name": "another"}]))
    world.settle()
    spent, writes = world.status.false_rollback_spent, world.writes
    world.run(100)
    assert world.status.false_rollback_spent == spent
    assert world.writes - writes <= 3


def test_cells_of_each_block_that_are_others_do_not_grow_the_status() -> None:
    """A user id in the label."""
    world = Counting(spec(), traffic=1_000)
    world.until(in_step("20"))
    for number in range(60):
        world.cells = tuple(f"user-{number * 7 + each}" for each in range(7))
        world.run(10)
    assert all(len((record.cells or "").split(";")) <= 64 for record in world.status.evidence)


@pytest.mark.parametrize("traffic", [1e9, 1e11, 1e13])
def test_much_traffic_raises_nothing(traffic: float) -> None:
    world = Counting(spec(), traffic=traffic, rates=(0.5, 0.5))
    world.until(in_step("20"))
    world.run(200)
    assert world.status.decision.reason is not DecisionReason.INTERNAL_ERROR
    assert any(record.blocks for record in world.status.evidence)


def test_a_document_that_is_written_late_is_no_reason_to_hold_again() -> None:
    """The comparison has passed, and says so also while the larger audience is on its way."""
    world = Counting(spec())
    world.until(lambda world: world.status.evidence and all(record.passed for record in world.status.evidence))
    world.until(lambda world: world.status.current.hold_until is not None)
    world.publishing = False
    world.until(lambda world: world.status.current.percent == "50")
    world.reconcile()
    world.publishing = True
    world.until(in_step("50"))
    assert EventReason.AUDIENCE_LAPSED not in [entry.event for entry in world.history]


def test_a_step_that_was_rolled_back_leaves_the_step_before_it() -> None:
    """The evidence was about what was taken away."""
    world = Counting(spec(rollback={"scope": "Step"}))
    world.until(in_step("50"))
    world.rates = HARM
    world.until(lambda world: world.status.current.rollback_guard is not None)
    world.rates = NONE
    world.run(300)
    assert world.status.phases[0].percent == "20"
    assert guard(world).alpha == "0.01"


def test_a_label_that_comes_later_starts_the_evidence_again() -> None:
    """Sums without cells say nothing about clustering between cells."""
    world = Counting(spec(), traffic=1_000, cells=("",))
    world.until(lambda world: any(record.blocks >= 5 for record in world.status.evidence))
    world.cells = tuple(f"c{number}" for number in range(16))
    world.run(20)
    assert all(record.blocks <= 3 for record in world.status.evidence)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("events", "0 0 0 -5000 0"),
        ("events", "- - - - -"),
        ("information", "0 0 0 - 0"),
        ("cells", "c0 1e308 1e308 1e308 1e308"),
        ("cells", "c0 -1 -1 -1 -1"),
    ],
)
def test_nothing_that_stands_in_a_status_makes_a_decision_raise(field: str, value: str) -> None:
    world = Counting(spec(), traffic=1_000)
    world.until(lambda world: any(record.blocks >= 3 for record in world.status.evidence))
    evidence = tuple(record.__class__.model_construct(**{**record.__dict__, field: value}) for record in world.status.evidence)
    world.status = world.status.__class__.model_construct(**{**world.status.__dict__, "evidence": evidence})
    world.now += BLOCK
    world.decide()


def test_criteria_of_a_phase_that_is_complete_are_dropped() -> None:
    short = phases()
    short[0]["steps"] = short[0]["steps"][:2]
    world = Counting(spec(phases=short))
    world.until(lambda world: world.status.current.phase == "two")
    assert {record.kind for record in world.status.evidence} == {CheckKind.GUARD}


def test_a_failure_voids_an_earlier_pass() -> None:
    """Everybody gets the feature by hand: that it once looked harmless does not count."""
    world = Counting(spec(guards=[]))
    world.until(in_step("50"))
    world.run(50)
    world.rates = HARM
    world.run(50)
    assert [record.passed for record in world.status.evidence] == [None]


def test_a_block_is_not_counted_again_in_a_longer_one() -> None:
    world = Counting(spec(), traffic=1_000)
    world.until(lambda world: any(record.blocks >= 3 for record in world.status.evidence))
    measured = world.measure("failures")
    assert measured is not None
    assert measured.series is not None
    until = guard(world).until
    longer = type(measured.series)(timedelta(minutes=5), measured.series.blocks)
    assert longer.after(until - BLOCK, until - timedelta(hours=1)) == ()
    assert Decimal(guard(world).alpha) > 0
