"""A rehearsed rollout: healthy surroundings, and each thing that a scenario can break.

Covered: outcomes, times on the virtual clock, approvals, records of its decisions, transitions. Not here: the same rollout on
the lab, and the command's options (tests/cli).
"""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import yaml

from core.counting import bounded
from core.world import edited, rollout_data, spec
from lab.lab import ROOT
from session_rollout.api.enums import DecisionReason, EventReason, Outcome, Stage
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.observed import Decision
from session_rollout.records.record import Record
from session_rollout.simulation.rehearsal import Fault, RehearsedWorld, Scenario, rehearse

MIGRATED: dict[str, Any] = {
    "database": {"secretKeyRef": {"name": "db"}},
    "migrations": [{"name": "tables", "bundle": "a/b"}],
}


def migrated(**changes: Any) -> RolloutSpec:
    """The rollout with a migration before its first phase."""
    return edited(lambda data: data["phases"][0].update(migrations={"before": ["tables"]}), **MIGRATED, **changes)


LOAD = {"name": "load", "metric": "load", "comparedTo": "Baseline", "maxIncrease": "20%", "for": "20s"}
RISE = {"name": "rise", "metric": "load", "comparedTo": "Baseline", "minIncrease": "4%"}
RISING = [{**phase, "criteria": [RISE]} for phase in rollout_data()["phases"]]


@dataclass(frozen=True)
class Case:
    """A scenario for the rollout of the core's tests, and how it ends."""

    scenario: Scenario
    outcome: Outcome | None
    reason: DecisionReason
    changes: dict[str, Any] | None = None


CASES = {
    "healthy": Case(Scenario(), Outcome.PROMOTED, DecisionReason.PROMOTED),
    "a metric fails": Case(Scenario(faults=(Fault("two", 1, "errors"),)), Outcome.ROLLED_BACK, DecisionReason.ROLLED_BACK),
    "a metric fails for a moment": Case(
        Scenario(faults=(Fault("two", 1, "errors", lasts=timedelta(seconds=5)),)), Outcome.PROMOTED, DecisionReason.PROMOTED
    ),
    "a value that only the criterion refuses": Case(
        Scenario(faults=(Fault("one", 1, "errors", value=Decimal("0.02")),)), None, DecisionReason.CRITERIA_NOT_MET
    ),
    "a metric with earlier seasons fails": Case(
        Scenario(faults=(Fault("two", 1, "load"),)), Outcome.ROLLED_BACK, DecisionReason.ROLLED_BACK, {"guards": [LOAD]}
    ),
    "a metric must rise above its earlier seasons in each phase": Case(
        Scenario(), Outcome.PROMOTED, DecisionReason.PROMOTED, {"guards": [LOAD], "phases": RISING}
    ),
    "an outage": Case(Scenario(faults=(Fault("one", 1, lasts=timedelta(hours=2)),)), Outcome.PROMOTED, DecisionReason.PROMOTED),
    "an outage without an end": Case(Scenario(faults=(Fault("one", 1),)), None, DecisionReason.AWAITING_EVIDENCE),
    "no approval": Case(
        Scenario(approve_after=None),
        None,
        DecisionReason.AWAITING_APPROVAL,
        {"preflight": [{"name": "signed", "approval": {}}]},
    ),
    "a late approval": Case(
        Scenario(approve_after=timedelta(days=3)),
        Outcome.PROMOTED,
        DecisionReason.PROMOTED,
        {"preflight": [{"name": "signed", "approval": {}}]},
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_scenarios(case: Case) -> None:
    """The outcome, or what it waits for at last."""
    result = rehearse(spec(**(case.changes or {})), case.scenario)
    assert (result.status.outcome, result.status.decision.reason) == (case.outcome, case.reason)
    assert result.ended is (case.outcome is not None)


def test_outage_extends_the_rollout_by_its_length() -> None:
    """Evidence that is missing for two hours makes the rollout two hours longer, to a check interval.

    The outage begins with the step, so its first 35 minutes are those of the warm-up, and cost nothing: the range of a query, and the
    window of a baseline.
    """
    healthy = rehearse(spec(), Scenario())
    outage = rehearse(spec(), Scenario(faults=(Fault("one", 1, lasts=timedelta(hours=2)),)))
    longer = (outage.end - outage.scenario.start) - (healthy.end - healthy.scenario.start)
    assert abs(longer - timedelta(hours=2, minutes=-35)) <= timedelta(seconds=20)


@pytest.mark.parametrize(
    ("load", "longer"),
    [
        ({}, 6),
        ({"baseline": {"window": "10m"}}, 2),
        ({"baseline": {"count": 0}}, 0),
        ({"query": "load or vector(0)"}, 0),
    ],
    ids=str,
)
def test_each_audience_waits_for_the_window_of_a_baseline(load: dict[str, Any], longer: int) -> None:
    """D17: as on a server that has the earlier seasons, if the query has a past: half an hour for each of six audiences."""

    def lasts(load: dict[str, Any]) -> timedelta:
        metrics = [{"name": "errors", "query": "errors"}, {"name": "load", "query": "load", **load}]
        result = rehearse(spec(metrics=metrics), Scenario())
        return result.end - result.scenario.start

    assert lasts(load) - lasts({"baseline": {"count": 0}}) == longer * timedelta(minutes=30)


def test_late_approval_extends_the_rollout_by_its_delay() -> None:
    """The clock jumps over three days in one step."""
    signed = spec(preflight=[{"name": "signed", "approval": {}}])
    at_once = rehearse(signed, Scenario())
    late = rehearse(signed, Scenario(approve_after=timedelta(days=3)))
    assert late.end - at_once.end == timedelta(days=3)


def test_migration_takes_its_time_and_its_failure_stalls() -> None:
    """As the scenario has it, by the migration's name."""
    slow = rehearse(migrated(), Scenario(migrations={"tables": timedelta(hours=5)}))
    started, succeeded = (
        next(entry.time for entry in slow.history if entry.event is event)
        for event in (EventReason.MIGRATION_STARTED, EventReason.MIGRATION_SUCCEEDED)
    )
    assert succeeded - started == timedelta(hours=5)
    failing = rehearse(migrated(), Scenario(failing=frozenset({"tables"})))
    assert (failing.ended, failing.status.decision.reason) == (False, DecisionReason.MIGRATION_FAILED)


def test_history_of_a_long_rollout_is_whole() -> None:
    """The status keeps 20 entries, the rehearsal all of them: the first is the start."""
    document = yaml.safe_load((ROOT / "examples" / "session-persistence.yaml").read_text())
    result = rehearse(RolloutSpec.model_validate(document["spec"]), Scenario())
    assert result.status.outcome is Outcome.PROMOTED
    assert len(result.history) > len(result.status.history)
    assert (result.history[0].event, result.history[-1].event) == (EventReason.STARTED, EventReason.PROMOTED)
    assert [entry.time for entry in result.history] == sorted(entry.time for entry in result.history)


def test_transitions_are_those_that_happened() -> None:
    """From the first stage to the last, each beginning where the one before ended."""
    result = rehearse(migrated(), Scenario())
    assert result.transitions[0] == (Stage.PREFLIGHT, Stage.PREFLIGHT)
    assert result.transitions[-1] == (Stage.BAKE, Stage.ENDED)
    assert all(before[1] is after[0] for before, after in zip(result.transitions, result.transitions[1:], strict=False))
    assert (Stage.BEFORE, Stage.BASELINE) in result.transitions


@dataclass
class RecordingWorld(RehearsedWorld):
    """Also keeps a record of each decision that changed the status."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.records: list[Record] = []

    def reconcile(self, *, crash_before_effects: bool = False) -> Decision:
        self.last_reconcile = self.now  # as RehearsedWorld has it: it was never away
        observed, before = self.observed(), self.status
        decision = super().reconcile(crash_before_effects=crash_before_effects)
        if self.status != before:
            self.records.append(Record.of(observed, self.now, decision))
        return decision


@pytest.mark.parametrize(("faults", "outcome"), [((), Outcome.PROMOTED), ((Fault("two", 1, "failures"),), Outcome.ROLLED_BACK)])
def test_events_of_all_users_are_rehearsed(faults: tuple[Fault, ...], outcome: Outcome) -> None:
    assert rehearse(bounded(), Scenario(faults=faults)).status.outcome is outcome


def test_decisions_of_a_rehearsal_agree_with_their_records() -> None:
    """`explain` and `rehearse` use one `decide`: what one decides, the other decides again."""
    scenario = Scenario(faults=(Fault("two", 1, "errors"),))
    world = RecordingWorld(spec(), scenario.start, scenario=scenario)
    result = world.play()
    assert result.status.outcome is Outcome.ROLLED_BACK
    assert len(world.records) > 12
    assert all(record.agrees() for record in world.records)


def test_two_rehearsals_are_equal() -> None:
    """Nothing depends on the machine's clock or on chance."""
    changed = RolloutSpec.model_validate(rollout_data())
    assert rehearse(changed, Scenario()) == rehearse(changed, Scenario())


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_placebo_step_is_rehearsed(is_broken: bool) -> None:
    """Healthy, it is followed by the steps with users; a fault of it is a broken comparison, and no harm."""
    example = yaml.safe_load((ROOT / "examples" / "features" / "placebo.yaml").read_text())
    faults = (Fault("checkout", 1, "failures"),) if is_broken else ()
    rehearsal = rehearse(RolloutSpec.model_validate(example["spec"]), Scenario(faults=faults))
    if is_broken:
        assert (rehearsal.status.outcome, rehearsal.status.decision.reason) == (None, DecisionReason.COMPARISON_BROKEN)
        return
    assert rehearsal.status.outcome is Outcome.PROMOTED
    published = [entry.audience for entry in rehearsal.history if entry.event is EventReason.STEP_PUBLISHED]
    assert published == ["5% placebo", "5%", "20%", "100%"]


@pytest.mark.parametrize("is_harmful", [False, True])
def test_users_who_are_held_back_are_rehearsed(is_harmful: bool) -> None:
    """To the release; and harm of the last step is seen, although all others have the feature."""
    example = yaml.safe_load((ROOT / "examples" / "features" / "holdback.yaml").read_text())
    faults = (Fault("checkout", 3, "failures"),) if is_harmful else ()
    rehearsal = rehearse(RolloutSpec.model_validate(example["spec"]), Scenario(faults=faults))
    known = {entry.event: entry for entry in rehearsal.history}
    assert known[EventReason.STEP_PUBLISHED].audience == "100%+beta (2% held back)"
    if is_harmful:
        assert (rehearsal.status.outcome, rehearsal.status.current.rollback_guard) == (Outcome.ROLLED_BACK, "failures")
        return
    assert rehearsal.status.outcome is Outcome.PROMOTED
    assert known[EventReason.HOLDBACK_RELEASED].audience == "100%+beta"
