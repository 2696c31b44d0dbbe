"""Placebo steps: users are divided as in the next step, nobody has the features, and what is shown counts for no other step.

Not here: what evaluators make of the document (test_variants.py), and which specs are allowed (tests/api).
"""

from datetime import timedelta
from decimal import Decimal

import pytest

from core.counting import COMPARED, Counting, in_step
from core.placebos import DIVIDED, PLACEBO, REAL, audience, held, in_placebo, placebo_document, placebo_spec, with_errors
from core.world import GOOD, ended
from session_rollout.api.enums import (
    ActionReason,
    CheckKind,
    CheckReason,
    DecisionAction,
    DecisionReason,
    EventReason,
    Outcome,
    PhaseState,
    Verdict,
)
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.flags import NOBODY, Audience

# --- what users have


def test_nobody_has_the_features_of_a_placebo_step() -> None:
    """The status has them at 0 percent, whoever reads it, and says what is divided."""
    world = held()
    current, record = world.status.current, world.status.phases[0]
    assert (current.percent, current.groups, current.audience) == ("0", (), "20% placebo")
    assert (record.percent, record.placebo, record.is_published, record.first_publish_time) == ("0", "20", False, None)
    assert audience(world) == DIVIDED
    assert not placebo_document(world).gives_something
    assert world.status.history[-1].audience == "20% placebo"


def test_a_rollout_with_a_placebo_is_promoted() -> None:
    """Users get the features in the step after it."""
    world = held()
    world.until(in_step("20"))
    assert audience(world) == Audience(Decimal(20))
    record = world.status.phases[0]
    assert (record.placebo, world.status.current.placebo, world.status.current.audience) == (None, None, "20%")
    assert record.first_publish_time is not None
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_users_are_the_first_of_a_phase_after_its_placebo() -> None:
    """No `Promote` action gives them the features while a guard cannot see them."""
    world = held(with_errors(), values={**GOOD})
    world.run(20)
    world.values["errors"] = Verdict.PROVIDER_ERROR
    world.run(10)
    world.request("Promote", generation=1, phase="one", step=1)
    world.run(60)
    assert world.status.current.placebo == "20"
    assert world.status.decision.reason is DecisionReason.AWAITING_EVIDENCE
    world.values["errors"] = GOOD["errors"]
    world.until(in_step("20"))


def test_migrations_run_before_a_placebo() -> None:
    """Its users meet the same database as those of the next step."""
    migrations = [{"name": "tables", "configMapRef": {"name": "shop-sql"}}]
    database = {"secretKeyRef": {"name": "shop-db", "key": "url"}}
    rollout = placebo_spec(migrations=migrations, database=database, phase={"migrations": {"before": ["tables"]}})
    world = Counting(rollout)
    world.until(in_placebo)
    assert world.migration("tables").is_applied


def test_steps_after_a_placebo_are_those_without_it() -> None:
    """A ramp begins at the percentage that users have, and a placebo may divide more of them than the next step."""
    ramp = {"ramp": {"to": 50, "over": "120s", "increments": 2}}
    world = held(placebo_spec([PLACEBO, {**PLACEBO, "percent": 50}, ramp, REAL[-1]]))
    world.until(ended)
    published = [entry.audience for entry in world.history if entry.event is EventReason.STEP_PUBLISHED]
    assert published == ["20% placebo", "50% placebo", "25%", "50%", "100%", "100%"]


# --- a comparison that fails


@pytest.mark.parametrize("on_breach", ["Rollback", "Pause"])
def test_harm_that_nobody_can_have_is_a_stall(on_breach: str) -> None:
    """By a guard, whatever it would do: nothing is rolled back, and nothing is paused."""
    world = held(placebo_spec(guards=[{**COMPARED, "onBreach": on_breach}], phase={"criteria": []}), rates=(0.05, 0.001))
    world.run(120)
    assert world.verdict(CheckKind.GUARD) == (Verdict.FAIL, CheckReason.HARM_SHOWN)
    decision = world.status.decision
    assert (decision.action, decision.reason) == (DecisionAction.STALL, DecisionReason.COMPARISON_BROKEN)
    assert (world.status.outcome, world.status.paused_by, world.status.current.placebo) == (None, None, "20")
    assert world.condition_reason("Stalled") == "ComparisonBroken"


def test_a_criterion_that_fails_is_the_same() -> None:
    """A `Promote` action skips it, as it skips every criterion, and not a guard."""
    world = held(placebo_spec(guards=[]), rates=(0.05, 0.001))
    world.run(120)
    assert world.status.decision.reason is DecisionReason.COMPARISON_BROKEN
    world.request("Promote", generation=1, phase="one", step=1)
    world.until(in_step("20"))


def test_no_promote_action_skips_a_guard_that_would_roll_back() -> None:
    world = held(rates=(0.05, 0.001))
    world.run(120)
    world.request("Promote", generation=1, phase="one", step=1)
    world.run(60)
    assert (world.status.current.placebo, world.status.decision.reason) == ("20", DecisionReason.COMPARISON_BROKEN)


def test_checks_that_do_not_count_stall_nothing() -> None:
    """One warns, and the other one is only shown."""
    guards = [{**COMPARED, "onBreach": "Warn"}, {**COMPARED, "name": "dry", "dryRun": True}]
    world = held(placebo_spec(guards=guards, phase={"criteria": []}), rates=(0.05, 0.001))
    world.until(in_step("20"))
    assert EventReason.GUARD_BREACHED in {entry.event for entry in world.history}


def test_a_retry_begins_a_placebo_again() -> None:
    """With an application that counts as it should, and without what the broken one has shown."""
    world = held(rates=(0.05, 0.001))
    world.run(120)
    before = {record.kind: record.alpha for record in world.status.evidence}
    world.rates = (0.001, 0.001)
    retry = world.request("Retry", generation=1)
    world.settle()
    assert world.answer(retry) == (True, ActionReason.ACCEPTED)
    assert {record.blocks for record in world.status.evidence} == {0}
    assert world.status.current.hold_until is None
    began = world.now
    world.until(in_step("20"))
    assert world.now - began >= timedelta(seconds=60)
    assert {record.kind: record.alpha for record in world.status.evidence} == before


def test_there_is_nothing_to_retry_in_another_step() -> None:
    """Users have the features: what harms them is evidence."""
    world = held()
    world.until(in_step("20"))
    retry = world.request("Retry", generation=1)
    world.settle()
    assert world.answer(retry) == (False, ActionReason.NOTHING_TO_RETRY)


def test_an_application_that_does_not_apply_the_flag_stalls_a_placebo() -> None:
    """As it stalls every step, before anybody has the feature."""
    world = held(applied=0.4, traffic=10_000)
    world.run(120)
    assert world.status.decision.reason is DecisionReason.NOT_APPLIED
    world.applied = None
    world.request("Retry", generation=1)
    world.until(in_step("20"))


# --- evidence


def test_a_placebo_is_no_evidence_of_the_feature() -> None:
    """Harm to the first users is weighed alone: hours without it, in which nobody had the feature, are no counterweight."""
    world = held(traffic=1_000)
    world.run(50)
    during = {record.kind: record for record in world.status.evidence}
    assert all(record.blocks for record in during.values())
    world.until(in_step("20"))
    after = {record.kind: record for record in world.status.evidence}
    assert {kind: (record.blocks, record.passed) for kind, record in after.items()} == dict.fromkeys(during, (0, None))
    assert {record.alpha for record in after.values()} == {record.alpha for record in during.values()}
    assert world.status.false_rollback_spent == "0.01"


def test_evidence_of_a_placebo_is_dropped_only_when_users_have_the_feature() -> None:
    """While the document of the next step cannot be written, the blocks are still those of the placebo."""
    world = held()
    world.publishing = False
    world.until(lambda world: world.status.current.placebo is None)
    world.run(5)
    assert any(record.blocks for record in world.status.evidence)
    world.publishing = True
    world.until(in_step("20"))
    assert not any(record.blocks for record in world.status.evidence)


def test_what_a_placebo_has_shown_ends_no_step_at_100_percent() -> None:
    """A criterion that compares has to pass in a step in which some users have the feature."""
    world = held(placebo_spec([PLACEBO, REAL[-1]]))
    world.run(50)
    assert world.verdict(CheckKind.CRITERION) == (Verdict.PASS, CheckReason.HARMLESSNESS_SHOWN)
    world.until(in_step("100"))
    world.run(300)
    assert world.verdict(CheckKind.CRITERION) == (Verdict.INCONCLUSIVE, CheckReason.NO_CONTROL)
    assert world.status.current.percent == "100"
    assert world.status.outcome is None


def test_a_placebo_needs_no_pass() -> None:
    """There is nothing to be shown harmless, so that few events do not keep it beyond its hold."""
    world = held(traffic=200)
    published = world.status.current.published_time
    world.until(in_step("20"), seconds=300)
    assert published is not None
    world.run(600)
    assert world.status.decision.reason is DecisionReason.CRITERIA_NOT_MET, "as soon as users have the feature"


# --- rollbacks


def test_a_guard_on_all_users_rolls_nothing_back_while_nobody_has_anything() -> None:
    """The step waits: its breach is not that of the rollout."""
    world = held(with_errors(), values={**GOOD, "errors": Decimal("0.001")})
    world.values["errors"] = Decimal("0.2")
    world.run(300)
    assert (world.status.outcome, world.status.current.placebo) == (None, "20")
    assert world.status.decision.reason is DecisionReason.GUARD_FAILING
    world.values["errors"] = GOOD["errors"]
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_a_breach_turns_off_the_phase_that_users_have() -> None:
    """As while the migrations of a phase run: the placebo ends with it."""
    data = with_errors().to_wire()
    data["phases"][0]["steps"] = REAL
    data["phases"][1]["steps"] = [PLACEBO, REAL[-1]]
    world = Counting(RolloutSpec.model_validate(data), values={**GOOD})
    world.until(in_placebo)
    assert world.status.current.phase == "two"
    world.values["errors"] = Decimal("0.2")
    world.until(ended)
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert [(record.state, record.percent) for record in world.status.phases] == [(PhaseState.ROLLED_BACK, "0")] * 2
    assert (audience(world), audience(world, "beta")) == (NOBODY, NOBODY)


@pytest.mark.parametrize("scope", ["Phase", "Step", "All"])
def test_an_abort_ends_a_placebo(scope: str) -> None:
    """Nobody loses anything; a `Retry` begins with it again."""
    world = held(placebo_spec(rollback={"scope": scope}))
    world.request("Abort", reason="no time")
    world.until(ended)
    assert (world.status.outcome, world.status.phases[0].placebo, audience(world)) == (Outcome.ABORTED, None, NOBODY)
    world.request("Retry", generation=1)
    world.until(in_placebo)


def test_harm_in_the_first_step_does_not_return_users_to_the_placebo() -> None:
    """With `scope: Step`, the preceding audience is nobody."""
    world = held(placebo_spec(rollback={"scope": "Step"}))
    world.until(in_step("20"))
    world.rates = (0.05, 0.001)
    world.until(ended)
    assert (world.status.outcome, audience(world)) == (Outcome.ROLLED_BACK, NOBODY)


def test_a_deadline_rolls_no_placebo_back() -> None:
    """There is nothing to roll back, and migrations stay applied."""
    world = held(placebo_spec(phase={"deadline": "60s", "onDeadline": "Rollback"}), traffic=1.0)
    world.run(600)
    assert (world.status.outcome, world.status.decision.reason) == (None, DecisionReason.DEADLINE_EXCEEDED)
