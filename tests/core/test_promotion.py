"""The way forward: which audiences are published in which order, and what a step needs before it is promoted.

Covered: order, criteria, baselines, deadlines, reading back, drift. Not here: the hold timer (test_hold), approvals and
windows (their own files), single comparisons (test_rules).
"""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.world import World, at, edited, ended, spec
from session_rollout.api.enums import (
    ActionReason,
    CheckKind,
    CheckReason,
    DecisionAction,
    DecisionReason,
    EventReason,
    Outcome,
    Stage,
    State,
    Verdict,
)
from session_rollout.api.status_records import Refusal
from session_rollout.core.documents import read_document
from session_rollout.core.flags import NOBODY, Audience

AUDIENCES = [
    ("one", "10%+staff"),
    ("one", "30%+staff"),
    ("one", "50%+staff"),
    ("one", "100%+staff"),
    ("two", "50%"),
    ("two", "100%"),
]


def test_promotes_through_every_audience_in_order() -> None:
    """All audiences of the YAML are published and passed, in order, and nothing else."""
    world = World(spec())
    world.until(ended)
    for event in (EventReason.STEP_PUBLISHED, EventReason.STEP_PASSED):
        assert [(entry.phase, entry.audience) for entry in world.entries(event)] == AUDIENCES
    revisions = [entry.revision for entry in world.entries(EventReason.STEP_PUBLISHED)]
    assert revisions == sorted({revision for revision in revisions if revision is not None})
    assert (world.status.outcome, world.status.state, world.reason) == (
        Outcome.PROMOTED,
        State.PROMOTED,
        DecisionReason.PROMOTED,
    )
    assert world.status.decision.action is DecisionAction.NONE
    assert (world.condition("Ready"), world.condition("Reconciling"), world.condition("Stalled")) == ("True", "False", "False")


def test_failing_criterion_keeps_the_step() -> None:
    """No promotion and no rollback; status says which criterion and with which numbers."""
    world = World(spec())
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.02")
    world.run(600)
    record = world.check(CheckKind.CRITERION, "errors")
    assert world.where[:2] == ("one", 1)
    assert (world.status.decision.action, world.reason) == (DecisionAction.WAIT, DecisionReason.CRITERIA_NOT_MET)
    assert (record.verdict, record.value, record.bound) == (Verdict.FAIL, "2%", "below 1%")
    world.values["errors"] = Decimal("0.001")
    world.until(ended)


def test_promotion_needs_passing_evaluations() -> None:
    """A criterion that passed only just now is not enough: the last ten intervals must pass, here the whole hold."""
    world = World(spec())
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.02")
    world.run(100)
    world.values["errors"] = Decimal("0.001")
    world.now += timedelta(seconds=5)
    world.settle()
    assert world.where[:2] == ("one", 1)
    assert (world.status.decision.action, world.reason) == (DecisionAction.HOLD, DecisionReason.CONFIRMING_CRITERIA)
    world.run(50)
    assert world.where[:2] == ("one", 1)
    world.run(10)
    assert world.where[:2] == ("one", 2)


def test_baseline_is_measured_before_each_phase() -> None:
    """A load that rose between the phases is the new baseline; a rise within a phase is not."""
    world = World(spec())
    world.until(at("one", 3))
    assert world.check(CheckKind.CRITERION, "load").baseline == "1.0"
    world.until(at("two", 1))
    world.values["load"] = Decimal("1.2")
    world.run(120)
    record = world.check(CheckKind.CRITERION, "load")
    assert world.where[:2] == ("two", 1)
    assert world.reason is DecisionReason.CRITERIA_NOT_MET
    assert (record.reason, record.value, record.bound) == (
        CheckReason.OUT_OF_TOLERANCE,
        "1.2",
        "increase of at most 10%",
    )


def test_rise_between_two_phases_is_the_next_baseline() -> None:
    """The value that counts is the one before the phase's first publish."""
    world = World(edited(lambda data: data["phases"][0].update(verification=[{"name": "signed", "approval": {}}])))
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    world.values["load"] = Decimal("1.5")
    world.request("Approve", generation=1, check="signed")
    world.until(at("two", 1))
    assert world.check(CheckKind.CRITERION, "load").baseline == "1.5"


def test_baseline_that_cannot_be_measured_keeps_the_phase_from_starting() -> None:
    """No baseline, no publish."""
    world = World(spec(), values={"errors": Decimal("0.001"), "load": Verdict.NO_DATA})
    world.run(120)
    assert world.status.current.stage is Stage.BASELINE
    assert world.reason is DecisionReason.MEASURING_BASELINE
    assert world.percents()["one"] == "0"
    world.values["load"] = Decimal(1)
    world.until(ended)


def test_audience_must_be_read_back_before_the_hold() -> None:
    """While the document is not in the cluster nothing is held and nothing promoted."""
    world = World(spec(), publishing=False)
    world.run(600)
    assert (world.status.decision.action, world.reason) == (DecisionAction.PUBLISH, DecisionReason.PUBLISHING)
    assert world.status.current.hold_until is None
    world.publishing = True
    world.until(ended)


def test_drift_is_corrected() -> None:
    """The document was modified externally: it is published again, under the same revision, with an event."""
    world = World(spec())
    world.until(at("one", 1))
    right = world.published_sha256
    world.tamper()
    world.settle()
    assert world.published_sha256 == right
    assert [entry.revision for entry in world.entries(EventReason.FLAG_DRIFT)] == [world.status.flags.revision]


@pytest.mark.parametrize(
    ("on_deadline", "outcome", "reason"),
    [
        ("Stall", None, DecisionReason.DEADLINE_EXCEEDED),
        ("Rollback", Outcome.ROLLED_BACK, DecisionReason.ROLLED_BACK),
    ],
)
def test_deadline(on_deadline: str, outcome: Outcome | None, reason: DecisionReason) -> None:
    """Criteria may delay a step only so long beyond its hold."""

    def limit(data: dict[str, Any]) -> None:
        data["phases"][0] |= {"deadline": "120s", "onDeadline": on_deadline}

    world = World(edited(limit))
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.02")
    world.run(160)
    assert world.status.decision.action is DecisionAction.WAIT
    world.run(60)
    assert (world.status.outcome, world.reason) == (outcome, reason)
    assert world.status.current.rollback_guard is None
    if outcome is None:
        assert (world.condition("Stalled"), world.status.state) == ("True", State.STALLED)
        world.values["errors"] = Decimal("0.001")
        world.until(ended)
        assert world.status.outcome is Outcome.PROMOTED


def test_promote_waits_for_the_first_results_after_a_restart() -> None:
    """A guard has failed while the operator was away."""
    world = World(spec())
    world.until(at("one", 1))
    world.now += timedelta(hours=1)
    world.values["errors"], world.answering = Decimal("0.9"), False
    world.request("Promote", generation=1, phase="one", step=1)
    world.settle()
    assert world.percents()["one"] == "10"
    world.answering = True
    world.run(60)
    assert world.status.outcome is Outcome.ROLLED_BACK
    given = {read_document(text).audiences["alpha"] for text in world.documents}
    assert given == {NOBODY, Audience(Decimal(10), ("staff",))}


@pytest.mark.parametrize("end", ["pause", "guard", "emergency"])
def test_promote_that_waits_is_void_when_somebody_stops_the_rollout(end: str) -> None:
    """Days later, a Resume must not publish what somebody wanted who did not know of the stop."""
    slow = {"name": "errors", "metric": "errors", "below": "5%", "for": "60s", "onBreach": "Pause"}
    world = World(spec(guards=[slow]))
    world.until(at("one", 1))
    before = world.percents()
    world.values |= {"errors": Decimal("0.08"), "load": Decimal(100)}
    world.run(10)
    world.request("Promote", "skip", generation=1, phase="one", step=1)
    world.run(10)
    assert world.answer("skip")[0]
    match end:
        case "pause":
            world.request("Pause")
        case "guard":
            world.run(60)
        case "emergency":
            world.request("EmergencyDisable", features=["gamma"])
            world.request("EmergencyEnable", features=["gamma"], after=timedelta(seconds=10))
    world.run(10)
    world.values["errors"] = Decimal("0.001")
    world.run(60)
    if end != "emergency":
        world.request("Resume")
    world.run(600)
    assert (world.percents(), world.reason) == (before, DecisionReason.CRITERIA_NOT_MET)


@pytest.mark.parametrize(("minutes", "accepted"), [(4, True), (6, False)])
def test_promote_from_before_an_outage_of_the_operator_is_rejected(minutes: int, *, accepted: bool) -> None:
    """Its author has looked at the application of then, and was told that nobody responded."""
    world = World(spec())
    world.until(at("one", 1))
    world.values["load"] = Decimal(100)
    world.request("Promote", "skip", generation=1, phase="one", step=1)
    world.now += timedelta(minutes=minutes)
    world.settle()
    assert world.answer("skip")[0] is accepted
    assert accepted or world.answer("skip")[1] is ActionReason.EXPIRED
    assert world.percents()["one"] == ("30" if accepted else "10")


@pytest.mark.parametrize("wait", ["guard", "request", "operator"])
def test_promote_that_waits_for_too_long_is_void(wait: str) -> None:
    """Its author has seen the application of then: the checks of the step apply again."""
    world = World(spec(guards=[{"name": "errors", "metric": "errors", "below": "5%", "for": "1h"}]))
    world.until(at("one", 1))
    world.values["load"] = Decimal(100)  # the criterion fails
    if wait == "request":
        refusal = {"effect": "Publish", "verb": "patch", "resource": "configmaps", "message": "denied", "since": world.now}
        world.refusals = (Refusal.model_validate(refusal),)
    else:
        world.values["errors"] = Decimal("0.08")
    world.request("Promote", "skip", generation=1, phase="one", step=1)
    world.run(10)
    assert world.answer("skip")[0]
    if wait == "operator":
        world.now += timedelta(minutes=6)
    else:
        world.run(360)
    world.refusals = ()
    world.values["errors"] = Decimal("0.001")
    world.run(600)
    assert (world.percents()["one"], world.reason) == ("10", DecisionReason.CRITERIA_NOT_MET)
    assert [entry.by for entry in world.entries(EventReason.ACTION_REJECTED)] == ["skip"]
