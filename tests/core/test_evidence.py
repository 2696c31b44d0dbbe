"""What counts as evidence for a hold: a verdict of every criterion and guard, about the audience that is held.

Covered: guards (D1, D2), the meaning of no data, warm-up by range, window and propagation (D4), `minimum`, `dryRun`, and
for how long guards are judged (D5, D15). Not here: what the timer does meanwhile (test_hold), how long a failure must last
(test_failures).
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.collecting import SIGNED, verified
from core.world import World, at, edited, ended, spec
from session_rollout.api.enums import CheckKind, CheckReason, DecisionReason, EventReason, Outcome, Stage, Verdict
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.inputs import guards_are_judged
from session_rollout.core.observed import Measurement

MINUTE = timedelta(minutes=1)
CANNOT_TELL = (Verdict.NO_DATA, Verdict.INCONCLUSIVE, Verdict.PROVIDER_ERROR)
GUARD = {"name": "load", "metric": "load", "below": "5"}


def guarded(guard: dict[str, Any] | None = None, **changes: Any) -> RolloutSpec:
    """Three steps of a phase without criteria, with one guard on `load`."""
    steps = [{"percent": percent, "hold": "60s"} for percent in (10, 50, 100)]

    def change(data: dict[str, Any]) -> None:
        data["phases"] = [{"name": "one", "features": ["alpha", "beta"], "steps": steps}]

    return edited(change, guards=[{**GUARD, **(guard or {})}], **changes)


# --- guards count


def test_a_hold_is_longer_than_the_range_of_a_guard() -> None:
    """D1: a guard over an hour, three steps of a minute: each step waits for the hour, and the breach is seen in the first."""
    world = World(guarded(), ranges={"load": 60 * MINUTE})
    world.until(at("one", 1))
    world.run(3000, tick=20)
    assert (world.where, world.reason) == (("one", 1, 0, "10"), DecisionReason.AWAITING_EVIDENCE)
    world.values["load"] = Decimal(9)
    world.until(ended, seconds=3600, tick=20)
    assert world.status.outcome is Outcome.ROLLED_BACK


@pytest.mark.parametrize("problem", CANNOT_TELL)
@pytest.mark.parametrize("stage", [Stage.STEP, Stage.BAKE])
def test_a_guard_that_cannot_be_judged_pauses_the_hold(problem: Verdict, stage: Stage) -> None:
    """D1, D2: in a step and in the bake, whatever the reason; then the hold continues where it was."""
    world = World(guarded(bake="60s"))
    world.until(lambda world: world.status.current.stage is stage)
    world.run(20)
    until = world.status.current.hold_until
    world.values["load"] = problem
    world.run(1800, tick=20)
    assert (world.status.current.stage, world.status.outcome) == (stage, None)
    assert world.status.current.hold_paused_reason is DecisionReason.AWAITING_EVIDENCE
    assert (world.condition("EvidenceAvailable"), world.condition_reason("EvidenceAvailable")) == ("False", "Missing")
    world.values["load"] = Decimal(1)
    world.run(10)
    assert until is not None
    assert world.status.current.hold_until is not None
    assert world.status.current.hold_until >= until + timedelta(seconds=1800)
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_a_series_that_does_not_exist_never_promotes() -> None:
    """D2: from the first decision on; status says what to do, and the condition is the alert's."""
    world = World(guarded(), values={"errors": Decimal(0), "load": Verdict.NO_DATA})
    world.run(1800, tick=20)
    assert (world.where[1], world.status.current.hold_until) == (1, None)
    assert world.check(CheckKind.GUARD, "load").reason is CheckReason.EMPTY_RESULT
    assert world.condition("EvidenceAvailable") == "False"


def test_guards_act_while_they_warm_up_for_a_new_audience() -> None:
    """D1: the second step does not count a guard yet, and a breach in that time rolls back all the same."""
    world = World(guarded(), ranges={"load": 5 * MINUTE})
    world.until(at("one", 2))
    world.run(60)
    assert world.status.current.hold_until is None
    world.values["load"] = Decimal(9)
    world.run(10)
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_every_audience_is_judged_again() -> None:
    """D4: with a range of five minutes each of three steps takes at least five minutes and its hold."""
    world = World(guarded(), ranges={"load": 5 * MINUTE})
    world.until(ended, seconds=3 * 600)
    times = [entry.time for entry in world.entries(EventReason.STEP_PUBLISHED)]
    ends = [*times[1:], world.entries(EventReason.STEP_PASSED)[-1].time]
    assert [end - time >= 6 * MINUTE for time, end in zip(times, ends, strict=True)] == [True, True, True]


def test_propagation_comes_before_the_warm_up() -> None:
    """D4: Pods learn of a document later than the API server does; results from before then are about the old one."""
    world = World(guarded(propagation="2m"), ranges={"load": MINUTE})
    world.until(at("one", 1))
    world.run(170)
    assert (world.status.current.hold_until, world.reason) == (None, DecisionReason.AWAITING_EVIDENCE)
    world.run(10)
    assert world.status.current.hold_until == world.now + MINUTE


def test_propagation_is_two_minutes_by_default() -> None:
    """D4: an instant selector over a recording rule, and nothing said: no step in less than the propagation."""
    data = {key: value for key, value in spec().to_wire().items() if key != "propagation"}
    world = World(RolloutSpec.model_validate(data))
    world.until(at("one", 1))
    start = world.now
    world.until(at("one", 2, 1))
    assert world.now - start >= timedelta(minutes=3)


@pytest.mark.parametrize("check", ["criterion", "guard"])
def test_an_emergency_makes_evidence_older(check: str) -> None:
    """D4: after an emergency, queries still cover the time without the feature, which says nothing about it."""
    whole = spec(guards=[]) if check == "criterion" else guarded()
    world = World(whole, ranges={"load": 2 * MINUTE})
    world.until(at("one", 1))
    world.run(150)
    assert world.status.current.hold_until is not None
    for action in ("EmergencyDisable", "EmergencyEnable"):
        world.request(action)
        world.run(10)
    until = world.status.current.hold_until
    world.run(100)
    assert world.status.current.hold_paused_reason is DecisionReason.AWAITING_EVIDENCE
    world.run(20)
    assert world.status.current.hold_until is not None
    assert until is not None
    assert world.status.current.hold_until >= until + 2 * MINUTE


# --- what no data means


@pytest.mark.parametrize(
    ("meaning", "reason", "outcome"),
    [
        ("Pause", CheckReason.EMPTY_RESULT, None),
        ("Pass", CheckReason.NO_DATA_PASSES, Outcome.PROMOTED),
        ("Fail", CheckReason.NO_DATA_FAILS, Outcome.ROLLED_BACK),
    ],
)
def test_no_data_means_what_the_guard_says(meaning: str, reason: CheckReason, outcome: Outcome | None) -> None:
    """D2: nothing by default; the record says by its reason which it was."""
    world = World(guarded({"onNoData": meaning, "for": "20s"}))
    world.until(at("one", 1))
    world.values["load"] = Verdict.NO_DATA
    world.run(10)
    assert (world.check(CheckKind.GUARD, "load").reason, world.status.outcome) == (reason, None)
    world.run(600)
    assert world.status.outcome is outcome


@pytest.mark.parametrize("problem", [Verdict.INCONCLUSIVE, Verdict.PROVIDER_ERROR])
@pytest.mark.parametrize("meaning", ["Pass", "Fail"])
def test_only_no_data_has_a_meaning(problem: Verdict, meaning: str) -> None:
    """D2: a provider that fails is no data for nobody, and never a verdict."""
    world = World(guarded({"onNoData": meaning}))
    world.until(at("one", 1))
    world.values["load"] = problem
    world.run(600)
    assert (world.check(CheckKind.GUARD, "load").verdict, world.status.outcome) == (problem, None)
    assert world.where[:2] == ("one", 1)


@pytest.mark.parametrize("meaning", ["Pass", "Fail"])
def test_a_provider_that_stops_responding_is_no_data_of_nobody(meaning: str) -> None:
    """D2: the last result grows old, and neither promotes nor rolls back."""

    class Frozen(World):
        frozen: datetime | None = None

        def measure(self, name: str) -> Measurement | None:
            measurement = super().measure(name)
            return measurement if measurement is None else replace(measurement, time=self.frozen or self.now)

    world = Frozen(guarded({"onNoData": meaning}))
    world.until(at("one", 1))
    world.frozen = world.now
    world.run(600)
    record = world.check(CheckKind.GUARD, "load")
    assert (record.verdict, record.reason, world.status.outcome) == (Verdict.NO_DATA, CheckReason.STALE_RESULT, None)


def test_a_criterion_says_what_no_data_means_too() -> None:
    """D2: `Fail` of a criterion keeps the step, with a failing verdict instead of a paused timer."""

    def change(data: dict[str, Any]) -> None:
        data["phases"][0]["criteria"] = [{"name": "errors", "metric": "errors", "below": "1%", "onNoData": "Fail"}]

    world = World(edited(change, guards=[]))
    world.until(at("one", 1))
    world.values["errors"] = Verdict.NO_DATA
    world.run(600)
    assert (world.where[:2], world.reason) == (("one", 1), DecisionReason.CRITERIA_NOT_MET)


# --- minimum and dry run


@dataclass(frozen=True)
class Counted:
    """What the metric in `minimum` returns, and what becomes of the verdict."""

    requests: Decimal | Verdict
    verdict: Verdict
    reason: CheckReason | None


COUNTED = {
    "enough": Counted(Decimal(501), Verdict.FAIL, CheckReason.OUT_OF_BOUND),
    "exactly as many": Counted(Decimal(500), Verdict.INCONCLUSIVE, CheckReason.BELOW_MINIMUM),
    "none": Counted(Decimal(0), Verdict.INCONCLUSIVE, CheckReason.BELOW_MINIMUM),
    "no series": Counted(Verdict.NO_DATA, Verdict.INCONCLUSIVE, CheckReason.BELOW_MINIMUM),
    "provider failed": Counted(Verdict.PROVIDER_ERROR, Verdict.PROVIDER_ERROR, CheckReason.EMPTY_RESULT),
}


@pytest.mark.parametrize("row", COUNTED.values(), ids=COUNTED)
def test_too_few_events_give_no_verdict(row: Counted) -> None:
    """A guard in breach with too few events neither rolls back nor lets the hold run."""
    metrics = [{"name": name, "query": name} for name in ("errors", "load", "requests")]
    world = World(guarded({"minimum": {"metric": "requests", "above": "500"}}, metrics=metrics))
    world.values |= {"requests": Decimal(1000)}
    world.until(at("one", 1))
    world.values |= {"load": Decimal(9), "requests": row.requests}
    world.run(600)
    record = world.check(CheckKind.GUARD, "load")
    assert (record.verdict, record.reason) == (row.verdict, row.reason)
    assert world.status.outcome is (Outcome.ROLLED_BACK if row.verdict is Verdict.FAIL else None)


@pytest.mark.parametrize("value", [Decimal(9), *CANNOT_TELL])
def test_a_guard_in_a_dry_run_never_counts(value: Decimal | Verdict) -> None:
    """It is judged and shown: neither a breach nor missing evidence changes anything."""
    world = World(guarded({"dryRun": True}), values={"errors": Decimal(0), "load": value})
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED
    assert "dry run" in world.check(CheckKind.GUARD, "load").message


@pytest.mark.parametrize("value", [Decimal("0.5"), *CANNOT_TELL])
def test_a_criterion_in_a_dry_run_never_counts(value: Decimal | Verdict) -> None:
    """Also one that is compared to a baseline that cannot be measured."""
    compared = {"name": "rise", "metric": "errors", "comparedTo": "Baseline", "maxIncrease": "1%", "dryRun": True}

    def change(data: dict[str, Any]) -> None:
        data["phases"][0]["criteria"] = [{"name": "errors", "metric": "errors", "below": "1%", "dryRun": True}, compared]

    world = World(edited(change, guards=[]), values={"errors": value, "load": Decimal(1)})
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


# --- how long guards are judged


def test_guards_are_judged_as_long_as_something_is_published() -> None:
    """D5: from the first phase until Promoted, also during and after a rollback, and in the preflight of a retry."""
    world = World(spec())
    judged = {Stage.PREFLIGHT: guards_are_judged(world.rollout())}
    world.until(at("two", 1))
    world.values["errors"] = Decimal("0.08")
    world.publishing = False
    world.until(lambda world: world.status.current.stage is Stage.ROLLING_BACK)
    judged[Stage.ROLLING_BACK] = guards_are_judged(world.rollout())
    world.publishing = True
    world.until(ended)
    judged[Stage.ENDED] = guards_are_judged(world.rollout())
    assert judged == {Stage.PREFLIGHT: False, Stage.ROLLING_BACK: True, Stage.ENDED: True}
    world.values["errors"] = Decimal("0.001")
    world.run(60)
    assert world.check(CheckKind.GUARD, "errors").verdict is Verdict.PASS
    world.request("Retry", generation=1)
    world.until(ended)
    assert (world.status.outcome, guards_are_judged(world.rollout())) == (Outcome.PROMOTED, False)


def test_nothing_is_judged_when_nothing_is_published() -> None:
    """D5: a rollback of everything leaves nothing to guard, so that the provider is not queried forever."""
    world = World(spec(rollback={"scope": "All"}))
    world.until(at("two", 1))
    world.values["errors"] = Decimal("0.08")
    world.until(ended)
    assert not guards_are_judged(world.rollout())


def test_before_the_first_publish_guards_judge_the_data_that_exists() -> None:
    """D15: no warm-up while nobody has a feature, so that a breach is known before the first publish."""
    values: dict[str, Decimal | Verdict] = {"errors": Decimal("0.08"), "load": Verdict.NO_DATA}
    world = World(spec(guards=[{"name": "errors", "metric": "errors", "below": "5%", "for": "1h"}]), values=values)
    world.ranges = {"errors": 60 * MINUTE}
    world.run(20)
    assert world.status.current.stage is Stage.BASELINE
    assert world.check(CheckKind.GUARD, "errors").verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("value", "condition"), [(Verdict.NO_DATA, "False"), (Verdict.PROVIDER_ERROR, "False"), (None, "True")]
)
def test_lost_evidence_of_guards_is_shown_in_every_stage(value: Verdict | None, condition: str) -> None:
    """Everybody has the phase while somebody is asked to approve it."""
    plan = edited(verified(SIGNED))
    world = World(plan)
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    world.run(60)
    if value is not None:
        world.values["errors"] = value
    world.run(60)
    assert world.condition("EvidenceAvailable") == condition
