"""Guards and criteria that compare users with a feature and users without it: from blocks of events to a rollback or a promotion.

What the test itself knows is for tests/core/statistics; which blocks are read from Prometheus is for tests/adapters.
"""

import json
from datetime import timedelta
from decimal import Decimal

import pytest

from core.counting import BLOCK, COHORTS, COMPARED, Counting, in_step, spec
from core.world import ended
from session_rollout.api.enums import CheckKind, CheckReason, DecisionReason, Outcome, Stage, Verdict
from session_rollout.core.blocks import BlockProblem
from session_rollout.core.status_budget import LIMIT_BYTES
from session_rollout.records.record import Record


def test_a_harmless_feature_is_promoted() -> None:
    """D16: on shown harmlessness, and the step at 100 % on what the steps before have shown."""
    world = Counting(spec())
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED
    assert (world.status.evidence, world.status.false_rollback_spent) == ((), None)


def test_harm_to_users_with_the_feature_is_rolled_back() -> None:
    """Though of all users it is a fraction that a guard on everybody would not see."""
    world = Counting(spec(), traffic=2000, rates=(0.05, 0.001))
    world.until(ended)
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert world.status.current.rollback_guard == "failures"
    (record,) = (each for each in world.status.evidence if each.kind is CheckKind.GUARD)
    assert record.blocks == 0, "nobody has the feature any more: the next attempt starts anew"
    assert Decimal(record.alpha) == Decimal("0.01")


def test_too_few_events_promote_nothing_and_stop_no_clock() -> None:
    """The hold goes on, the step waits for evidence at its end, and the message says how much is missing."""
    world = Counting(spec(), traffic=100)
    world.until(in_step("20"))
    world.run(600)
    assert world.status.current.percent == "20"
    assert world.verdict(CheckKind.CRITERION) == (Verdict.INCONCLUSIVE, CheckReason.COMPARISON_OPEN)
    assert world.status.current.hold_paused_time is None
    assert world.status.current.hold_until is not None
    assert world.status.current.hold_until < world.now
    assert world.status.decision.reason is DecisionReason.CRITERIA_NOT_MET
    (record,) = (each for each in world.status.checks if each.kind is CheckKind.CRITERION)
    assert record.value is not None


def test_waiting_for_evidence_counts_for_the_deadline() -> None:
    """It never was Stalled before, however long a comparison stayed open."""
    phases = json.loads(spec().model_dump_json(by_alias=True, exclude_none=True))["phases"]
    phases[0] |= {"deadline": "5m", "onDeadline": "Stall"}
    world = Counting(spec(phases=phases), traffic=100)
    world.until(in_step("20"))
    world.run(900)
    assert world.status.decision.reason is DecisionReason.DEADLINE_EXCEEDED
    assert world.status.current.percent == "20"


def test_blocks_of_another_audience_do_not_count() -> None:
    """Those before the publish, and those in which Pods may still have the document before."""
    world = Counting(spec())
    world.until(in_step("20"))
    published = world.status.current.published_time
    assert published is not None
    world.until(lambda world: any(record.blocks for record in world.status.evidence))
    assert world.now >= published + timedelta(seconds=20) + BLOCK
    assert [record.blocks for record in world.status.evidence] == [1, 1]


@pytest.mark.parametrize("problem", list(BlockProblem))
def test_blocks_that_say_nothing_pause_the_hold(problem: BlockProblem) -> None:
    """Their cause is the reason of the verdict; nothing is promoted and nothing rolled back."""
    world = Counting(spec(), problem=problem)
    world.until(in_step("20"))
    world.run(300)
    assert world.verdict(CheckKind.GUARD) == (Verdict.NO_DATA, CheckReason(problem.value))
    assert world.status.decision.reason is DecisionReason.AWAITING_EVIDENCE
    assert world.status.current.percent == "20"
    world.problem = None
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_an_outage_of_the_provider_loses_no_evidence() -> None:
    """The blocks of that time are read afterwards, and harm in it is seen."""
    world = Counting(spec(), traffic=2000, rates=(0.001, 0.001))
    world.until(lambda world: any(record.blocks for record in world.status.evidence))
    world.rates = (0.05, 0.001)
    hidden = []
    for _ in range(6):
        world.now += BLOCK
        hidden.append(world.measure("failures"))
        world.values = {"failures": Verdict.PROVIDER_ERROR}
        world.settle()
        world.values = {}
    assert world.status.outcome is None
    world.rates = (0.001, 0.001)
    world.settle()
    assert world.status.current.rollback_guard == "failures"


def test_evidence_of_a_step_counts_in_the_next() -> None:
    """One test runs through the steps of a phase; only the blocks around a publish are dropped."""
    world = Counting(spec())
    world.until(in_step("50"))
    before = {record.kind: record.blocks for record in world.status.evidence}
    world.run(60)
    after = {record.kind: record.blocks for record in world.status.evidence}
    assert all(after[kind] > count > 0 for kind, count in before.items())


def test_a_steady_hold_writes_nothing() -> None:
    """Evidence grows with each block, and is written every ten minutes; what is younger is read again."""
    phases = json.loads(spec().model_dump_json(by_alias=True, exclude_none=True))["phases"]
    phases[0]["steps"][0]["hold"] = "1h"
    world = Counting(spec(phases=phases))
    world.until(in_step("20"))
    world.run(300)
    before = world.writes
    world.run(3000)
    assert world.writes - before <= 3000 / 500 + 1
    assert world.verdict(CheckKind.GUARD) == (Verdict.PASS, CheckReason.HARMLESSNESS_SHOWN)


def test_the_state_of_a_check_is_small() -> None:
    """With 16 cells, whose sums are most of it."""
    world = Counting(spec(), traffic=123_456.7, rates=(0.001234, 0.000987))
    world.until(in_step("50"))
    world.run(100)
    sizes = [len(json.dumps(record.to_wire(), separators=(",", ":"))) for record in world.status.evidence]
    assert len(sizes) == 2
    assert max(sizes) <= 750


def test_a_decision_is_decided_again_from_its_record() -> None:
    world = Counting(spec(), traffic=1000, rates=(0.02, 0.001))
    world.until(lambda world: world.status.current.stage is Stage.STEP)
    with_blocks = 0
    while world.status.outcome is None:
        observed, decision = world.observed(), world.decide()
        record = Record.model_validate_json(Record.of(observed, world.now, decision).model_dump_json())
        assert record.decide_again() == decision
        with_blocks += any(each.blocks for each in decision.status.evidence)
        world.settle()
        world.now += BLOCK
    assert with_blocks


def test_an_edit_of_what_is_tolerated_starts_the_evidence_again_and_spends_nothing() -> None:
    world = Counting(spec(), traffic=1000)
    world.until(lambda world: any(record.blocks >= 3 for record in world.status.evidence))
    before = {record.kind: record for record in world.status.evidence}
    world.edit(spec(guards=[{**COMPARED, "tolerate": {"times": "2"}}]))
    world.settle()
    after = {record.kind: record for record in world.status.evidence}
    assert after[CheckKind.GUARD].blocks == 0
    assert after[CheckKind.GUARD].alpha == before[CheckKind.GUARD].alpha
    assert after[CheckKind.CRITERION].blocks >= before[CheckKind.CRITERION].blocks
    assert world.status.false_rollback_spent == "0.01"


def test_guards_share_the_probability_of_a_false_rollback() -> None:
    """Equal parts of what is left; one that comes later, when nothing is left, has a hundredth."""
    guards = [{**COMPARED, "name": name} for name in ("a", "b", "c", "d")]
    world = Counting(spec(guards=guards, control={"block": "10s", "lag": "0s", "falseRollback": "2%"}))
    world.until(in_step("20"))
    world.run(30)
    alphas = {record.name: Decimal(record.alpha) for record in world.status.evidence if record.kind is CheckKind.GUARD}
    assert alphas == dict.fromkeys("abcd", Decimal("0.005"))
    world.edit(spec(guards=[*guards, {**COMPARED, "name": "e"}], control={"block": "10s", "lag": "0s", "falseRollback": "2%"}))
    world.run(30)
    later = next(record for record in world.status.evidence if record.name == "e")
    assert Decimal(later.alpha) == Decimal("0.0002")


def test_harm_of_an_earlier_phase_takes_its_own_feature_away() -> None:
    """A guard names the feature that it compares: the running phase alone would be the wrong one."""
    phases = json.loads(spec().model_dump_json(by_alias=True, exclude_none=True))["phases"]
    phases[0]["steps"] = phases[0]["steps"][:2]
    phases[1]["steps"] = [{"percent": 10, "hold": "10m"}]
    world = Counting(spec(phases=phases))
    world.until(lambda world: world.status.current.phase == "two" and world.status.current.published_time is not None)
    world.rates = (0.1, 0.001)
    world.until(ended)
    assert world.status.current.rollback_guard == "failures"
    assert [record.percent for record in world.status.phases] == ["0", "0"]


@pytest.mark.parametrize("names", [("b", "a"), ("b", "c")], ids=["swapped", "a chain"])
def test_renamed_checks_continue_whatever_their_names_were(names: tuple[str, str]) -> None:
    """Each has the evidence, and the share of `falseRollback`, of the check that compares the same."""
    first, second = {**COMPARED, "name": "a"}, {**COMPARED, "name": "b", "tolerate": {"times": "3"}}
    phases = spec().to_wire()["phases"]
    phases[0] |= {"criteria": [], "steps": [{"percent": 20, "hold": "1h"}, {"percent": 100, "hold": "60s"}]}
    world = Counting(spec(guards=[first, second], phases=phases), traffic=2_000)
    world.until(in_step("20"))
    world.run(300)
    before = {record.source: record for record in world.status.evidence}
    renamed = [{**first, "name": names[0]}, {**second, "name": names[1]}]
    world.edit(spec(guards=renamed, phases=phases))
    world.settle()
    after = {record.source: record for record in world.status.evidence}
    assert {source: record.updated(name="same") for source, record in after.items()} == {
        source: record.updated(name="same") for source, record in before.items()
    }
    assert {record.name for record in after.values()} == set(names)


def test_a_renamed_check_continues() -> None:
    """It is the same comparison, with the same probability; only its name is another one."""
    world = Counting(spec(), traffic=1000)
    world.until(lambda world: any(record.blocks >= 3 for record in world.status.evidence))
    before = {record.kind: record for record in world.status.evidence}
    world.edit(spec(guards=[{**COMPARED, "name": "other"}]))
    world.settle()
    after = {record.kind: record for record in world.status.evidence}
    assert after[CheckKind.GUARD].name == "other"
    assert after[CheckKind.GUARD].blocks >= before[CheckKind.GUARD].blocks
    assert world.status.false_rollback_spent == "0.01"


def test_a_check_that_is_removed_leaves_no_evidence() -> None:
    world = Counting(spec(), traffic=1000)
    world.until(lambda world: any(record.blocks >= 3 for record in world.status.evidence))
    world.edit(spec(guards=[]))
    world.settle()
    assert {record.kind for record in world.status.evidence} == {CheckKind.CRITERION}


def test_a_phase_that_was_promoted_below_everybody_is_not_compared_again() -> None:
    """A later generation of the rollout is about its own phases."""
    phases = json.loads(spec().model_dump_json(by_alias=True, exclude_none=True))["phases"]
    phases[0]["steps"] = phases[0]["steps"][:2]
    world = Counting(spec(phases=phases))
    world.until(ended)
    later = {"name": "three", "features": ["gamma"], "steps": [{"percent": 50, "hold": "60s"}]}
    features = [{"name": name} for name in ("alpha", "beta", "gamma")]
    world.edit(spec(phases=[*phases, later], features=features))
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED
    assert (world.status.evidence, world.status.false_rollback_spent) == ((), None)


def test_a_retry_starts_the_evidence_again() -> None:
    """The harm of the attempt before must not end the next one."""
    world = Counting(spec(), traffic=2000, rates=(0.05, 0.001))
    world.until(ended)
    world.rates, world.traffic = (0.001, 0.001), 100_000.0
    world.request("Retry", generation=1)
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_after_a_clock_was_set_back_the_evidence_starts_again() -> None:
    """No block counts twice, and no guard is blind until the clock has caught up."""
    world = Counting(spec(), traffic=1000)
    world.until(lambda world: any(record.blocks >= 5 for record in world.status.evidence))
    world.now -= timedelta(seconds=600)
    world.counted = {end: block for end, block in world.counted.items() if end <= world.now}
    world.run(30)
    assert all(record.blocks < 5 for record in world.status.evidence)
    world.rates = (0.1, 0.001)
    world.run(120)
    assert world.status.current.rollback_guard == "failures"


@pytest.mark.parametrize("number", ["0", "-1", "1", "7", "1E9999", "1E-9999"])
def test_evidence_that_somebody_has_garbled_starts_again(number: str) -> None:
    """It is no reason to raise, least of all in a decision that protects users."""
    world = Counting(spec(), traffic=1000)
    world.until(lambda world: any(record.blocks >= 3 for record in world.status.evidence))
    garbled = tuple(record.updated(harm="1 2", cells="c0;c1 x", events="1 2", alpha=number) for record in world.status.evidence)
    world.status = world.status.updated(evidence=garbled[:1], false_rollback_spent=number)
    world.run(60)
    assert all(len(record.harm.split()) == 8 for record in world.status.evidence)
    assert {record.kind for record in world.status.evidence} == {CheckKind.CRITERION, CheckKind.GUARD}


def test_a_promotion_by_hand_to_everybody_without_evidence_waits_there() -> None:
    """No step at 100 % ends on a comparison that never passed."""
    world = Counting(spec(), traffic=100)
    world.until(in_step("20"))
    for percent, step in (("20", 1), ("50", 2)):
        world.until(in_step(percent))
        world.request("Promote", generation=1, phase="one", step=step, percent=percent)
        world.settle()
    world.until(in_step("100"))
    world.run(300)
    assert world.status.current.percent == "100"
    assert world.status.outcome is None
    assert world.verdict(CheckKind.CRITERION) == (Verdict.INCONCLUSIVE, CheckReason.NO_CONTROL)
    assert world.verdict(CheckKind.GUARD) == (Verdict.PASS, CheckReason.NO_CONTROL)


def test_the_status_of_a_large_rollout_is_small() -> None:
    """Twenty phases, of which each has sixteen criteria that compare, beside four guards that do."""
    names = [f"feature{number}" for number in range(20)]
    metrics = [{"name": name, "cohorts": {**COHORTS, "feature": name}} for name in names]
    steps = [{"percent": 50, "hold": "60s"}, {"percent": 100, "hold": "10s"}]
    phases = [
        {
            "name": f"phase-{number:02}",
            "features": [name],
            "steps": steps,
            "criteria": [{**COMPARED, "name": f"criterion-{index}", "metric": name} for index in range(16)],
        }
        for number, name in enumerate(names)
    ]
    guards = [{**COMPARED, "name": f"guard-{index}", "metric": "feature0"} for index in range(4)]
    wanted = spec(features=[{"name": name} for name in names], metrics=metrics, phases=phases, guards=guards)
    world = Counting(wanted, traffic=123_456.7, feature="feature0")
    world.until(lambda world: world.status.current.phase == "phase-01")
    world.feature = "feature1"
    world.until(lambda world: len([record for record in world.status.evidence if record.blocks > 5]) == 20)
    assert len(json.dumps(world.status.to_wire())) <= LIMIT_BYTES
