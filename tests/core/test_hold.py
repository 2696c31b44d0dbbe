"""The hold timer: what it counts, what pauses it, and what an absence of the operator does to it.

Covered: steps and the bake, missing evidence of every kind, warm-up, results on their way, absences. Not here: what pauses
the timer by an action (test_actions) or an emergency (test_emergency), and what promotion needs besides (test_promotion).
"""

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.world import World, at, edited, ended, spec
from session_rollout.api.enums import CheckKind, CheckReason, DecisionReason, EventReason, Outcome, Stage, Verdict
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.observed import Measurement

SECOND = timedelta(seconds=1)


def test_hold_is_never_shorter_than_declared() -> None:
    """From the time when 10 % was read back to the next audience at least its 60 s pass."""
    world = World(spec())
    world.until(at("one", 1))
    start = world.now
    assert world.reason is DecisionReason.HOLDING
    world.until(at("one", 2, 1), tick=1)
    assert world.now - start >= timedelta(seconds=60)


def test_steady_hold_writes_nothing() -> None:
    """A check that repeats its verdict is no change."""
    world = World(spec())
    world.until(at("one", 1))
    world.run(10)
    writes = world.writes
    world.values["errors"] = Decimal("0.0031")  # another value, the same verdict
    world.run(30)
    assert world.writes == writes


@pytest.mark.parametrize("problem", [Verdict.NO_DATA, Verdict.PROVIDER_ERROR, Verdict.INCONCLUSIVE])
def test_missing_evidence_pauses_the_timer(problem: Verdict) -> None:
    """Neither promotion nor rollback, a hold that is longer by as much, and the verdict in status."""
    world = World(spec())
    world.until(at("one", 1))
    world.run(20)
    until = world.status.current.hold_until
    world.values["errors"] = problem
    world.run(600)
    assert world.where[:2] == ("one", 1)
    assert world.reason is DecisionReason.AWAITING_EVIDENCE
    assert world.check(CheckKind.CRITERION, "errors").verdict is problem
    assert world.status.current.hold_paused_time is not None
    assert world.condition("EvidenceAvailable") == "False"
    world.values["errors"] = Decimal("0.001")
    world.run(10)
    assert until is not None
    assert world.status.current.hold_until == until + timedelta(seconds=600)
    assert (len(world.entries(EventReason.EVIDENCE_LOST)), len(world.entries(EventReason.EVIDENCE_BACK))) == (1, 1)
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


@pytest.mark.parametrize("tick", [1, 5, 10, 20])
def test_only_time_between_two_evaluations_with_evidence_counts(tick: int) -> None:
    """What was measured at the end of the time says nothing: it does not count, however often is looked."""
    world = World(edited(lambda data: data["phases"][0].update(steps=[{"percent": 10, "hold": "200s"}, {"percent": 100}])))
    world.until(lambda world: world.status.current.hold_until is not None)
    for good in (True, False, True, False, False, True, False):
        world.now += timedelta(seconds=tick)
        world.values["errors"] = Decimal("0.001") if good else Verdict.NO_DATA
        world.settle()
    current = world.status.current
    assert current.hold_until is not None
    assert current.hold_paused_time is not None
    assert current.hold_until - current.hold_paused_time == timedelta(seconds=200 - tick)


def test_a_pause_by_a_user_is_not_told_as_lost_evidence() -> None:
    """The timer says why it is paused, and events speak of evidence only when evidence was lost and came back."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("Pause")
    world.run(60)
    paused = world.status.current
    assert paused.hold_paused_reason is DecisionReason.PAUSED
    world.request("Resume")
    world.settle()
    resumed = world.status.current
    assert (resumed.hold_paused_reason, resumed.hold_paused_time) == (None, None)
    assert world.entries(EventReason.EVIDENCE_LOST) == world.entries(EventReason.EVIDENCE_BACK) == []


def test_evidence_that_is_lost_during_a_pause_is_told_when_the_pause_ends() -> None:
    """The timer stays paused, for another reason, and the time of both pauses extends the hold."""
    world = World(spec())
    world.until(at("one", 1))
    until = world.status.current.hold_until
    world.request("Pause")
    world.settle()
    world.values["errors"] = Verdict.NO_DATA
    world.run(60)
    world.request("Resume")
    world.run(60)
    assert world.status.current.hold_paused_reason is DecisionReason.AWAITING_EVIDENCE
    assert len(world.entries(EventReason.EVIDENCE_LOST)) == 1
    world.values["errors"] = Decimal("0.001")
    world.run(10)
    assert until is not None
    assert world.status.current.hold_until == until + timedelta(seconds=120)
    assert len(world.entries(EventReason.EVIDENCE_BACK)) == 1


def test_time_without_reconciles_does_not_count() -> None:
    """The operator was away for ten minutes in a hold: the hold is ten minutes longer."""
    world = World(spec())
    world.until(at("one", 1))
    world.run(20)
    until = world.status.current.hold_until
    world.now += timedelta(seconds=600)
    world.settle()
    assert until is not None
    assert world.where[:2] == ("one", 1)
    assert world.status.current.hold_until == until + timedelta(seconds=600)


def test_absence_from_before_the_hold_restarts_it_and_no_more() -> None:
    """The Lease may still tell of an absence of a day that another rollout could not account for."""
    world = World(spec())
    world.until(at("one", 1))
    world.run(30)
    world.last_reconcile = world.now - timedelta(days=1)
    world.settle()
    assert world.status.current.hold_until == world.now + timedelta(seconds=60)


def test_results_on_their_way_change_nothing_and_promote_nothing() -> None:
    """The last verdicts stand until the results are here, and the wait for them does not count: another process must know that, too."""
    world = World(spec())
    world.until(at("one", 1))
    world.run(40)
    writes, world.answering = world.writes, False
    world.run(300)
    assert world.writes == writes + 2, "the pause, and that the time by which the hold would have ended is over"
    assert world.status.current.hold_paused_reason is DecisionReason.AWAITING_EVIDENCE
    assert world.where[:2] == ("one", 1)
    world.answering = True
    world.run(10)
    assert world.where[:2] == ("one", 1)
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_unknown_absence_restarts_the_hold() -> None:
    """Nobody knows since when the rollout was not reconciled: the hold is counted from now."""
    world = World(spec())
    world.until(at("one", 1))
    world.run(30)
    world.last_reconcile = None
    world.settle()
    assert world.status.current.hold_until == world.now + timedelta(seconds=60)


def test_warm_up_comes_before_the_hold() -> None:
    """Until the range of the PromQL covers no older data the verdict is NotEvaluated, and the hold has not begun."""
    world = World(spec(), ranges={"errors": timedelta(seconds=50)})
    world.until(at("one", 1))
    world.run(40)
    record = world.check(CheckKind.CRITERION, "errors")
    assert world.status.current.hold_until is None
    assert (record.verdict, record.reason) == (Verdict.NOT_EVALUATED, CheckReason.WARMING_UP)
    assert world.condition_reason("EvidenceAvailable") == "WarmingUp"
    world.run(20)
    assert world.status.current.hold_until is not None


def guarded() -> RolloutSpec:
    """The phase has one criterion, on errors; the guard has another metric."""
    guard = {"name": "load", "metric": "load", "below": "100"}
    return edited(lambda data: data["phases"][0].update(criteria=data["phases"][0]["criteria"][:1]), guards=[guard])


def test_a_guard_that_warms_up_is_no_alarm() -> None:
    """During the warm-up, EvidenceAvailable is Unknown, although the query of a guard returns nothing yet."""
    world = World(guarded(), ranges={"errors": timedelta(seconds=50), "load": timedelta(seconds=50)})
    world.until(at("one", 1))
    world.values["load"] = Verdict.NO_DATA
    world.run(40)
    assert (world.condition("EvidenceAvailable"), world.condition_reason("EvidenceAvailable")) == ("Unknown", "WarmingUp")
    world.values["load"] = Decimal(1)
    world.run(30)
    assert (world.condition("EvidenceAvailable"), world.condition_reason("EvidenceAvailable")) == ("True", "Available")


def test_a_guard_that_cannot_be_queried_is_missing_evidence() -> None:
    """In a phase whose criterion has a verdict, too."""
    world = World(guarded())
    world.until(at("one", 1))
    world.run(20)
    world.values["load"] = Verdict.PROVIDER_ERROR
    world.run(20)
    assert world.check(CheckKind.CRITERION, "errors").verdict is Verdict.PASS
    assert world.status.current.hold_paused_reason is DecisionReason.AWAITING_EVIDENCE
    assert (world.condition("EvidenceAvailable"), world.condition_reason("EvidenceAvailable")) == ("False", "Missing")


def test_bake_evaluates_guards_before_the_rollout_is_promoted() -> None:
    """The rollout is not Promoted before its bake is over, and a breach in it rolls back."""
    world = World(spec(bake="300s"))
    world.until(lambda world: world.status.current.stage is Stage.BAKE)
    world.run(200)
    assert (world.status.outcome, world.reason) == (None, DecisionReason.BAKING)
    world.values["errors"] = Decimal("0.08")
    world.until(ended)
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_bake_pauses_while_guards_cannot_be_queried() -> None:
    """ProviderError of a guard is no evidence either."""
    world = World(spec(bake="100s"))
    world.until(lambda world: world.status.current.stage is Stage.BAKE)
    world.values["errors"] = Verdict.PROVIDER_ERROR
    world.run(600)
    assert (world.status.outcome, world.reason) == (None, DecisionReason.AWAITING_EVIDENCE)
    assert world.check(CheckKind.GUARD, "errors").verdict is Verdict.PROVIDER_ERROR
    world.values["errors"] = Decimal("0.001")
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


SLOW = [{"name": "errors", "query": "errors", "interval": "90s"}, {"name": "load", "query": "load"}]


class Sampled(World):
    """The errors are measured every 90 seconds only."""

    sampled: datetime | None = None

    def measure(self, name: str) -> Measurement | None:
        measurement = super().measure(name)
        if name != "errors" or measurement is None:
            return measurement
        if self.sampled is None or self.now - self.sampled >= timedelta(seconds=90):
            self.sampled = self.now
        return replace(measurement, time=self.sampled)


@pytest.mark.parametrize("check", ["criterion", "guard"])
def test_no_single_result_ends_a_hold(check: str) -> None:
    """A hold that is shorter than the interval of a metric: it began with this result, and so it says nothing about the hold."""

    def change(data: dict[str, Any]) -> None:
        data["phases"][0]["criteria"] = [{"name": "errors", "metric": "errors", "below": "1%"}] if check == "criterion" else []

    guards = [] if check == "criterion" else [{"name": "errors", "metric": "errors", "below": "5%"}]
    world = Sampled(edited(change, metrics=SLOW, guards=guards))
    world.until(at("one", 1))
    results = set()
    while world.where[:2] == ("one", 1):
        results.add(world.sampled)
        world.run(10)
    results.add(world.sampled)
    assert len(results) >= 2
    assert world.entries(EventReason.STEP_PASSED)[0].time - world.entries(EventReason.STEP_PUBLISHED)[0].time >= 90 * SECOND


@pytest.mark.parametrize(("bake", "least"), [("0s", 0), ("10s", 90)])
def test_no_single_result_ends_a_bake(bake: str, least: int) -> None:
    """A bake of no length needs none: the last step was judged."""
    guards = [{"name": "errors", "metric": "errors", "below": "5%"}]
    world = Sampled(edited(lambda data: data["phases"][1].pop("criteria"), metrics=SLOW, guards=guards, bake=bake))
    world.until(lambda world: world.status.current.stage is Stage.BAKE or ended(world))
    start = world.entries(EventReason.BAKE_STARTED)[0].time
    world.until(ended)
    assert (world.now - start) >= least * SECOND
    assert world.now - start <= (least + 100) * SECOND


TWO = {
    "errors": {"name": "errors", "metric": "errors", "below": "1%"},
    "load": {"name": "load", "metric": "load", "below": "5"},
}


@pytest.mark.parametrize("rule", [{}, {"outOf": "2/3"}, {"for": "10s"}], ids=["plain", "outOf", "for"])
@pytest.mark.parametrize("paused_by", ["another criterion", "a guard"])
def test_no_pause_hides_a_failure(rule: dict[str, str], paused_by: str) -> None:
    """A crash: the error rate is up and the latency has no data. The timer pauses, and what was measured meanwhile counts."""
    checks = [TWO["errors"] | rule, *([TWO["load"]] if paused_by == "another criterion" else [])]

    def change(data: dict[str, Any]) -> None:
        data["phases"][0]["criteria"] = checks

    world = World(edited(change, guards=[TWO["load"]] if paused_by == "a guard" else []))
    world.until(at("one", 1))
    world.run(20)
    for _ in range(3):
        world.values |= {"errors": Decimal("0.9"), "load": Verdict.NO_DATA}
        world.run(60)
        world.values |= {"errors": Decimal("0.001"), "load": Decimal(1)}
        world.run(20)
    end = world.now
    assert world.where[:2] == ("one", 1)
    world.until(at("one", 2, 1))
    assert world.now - end >= timedelta(seconds=40)
    assert world.status.outcome is None


def test_pause_without_a_failure_costs_nothing() -> None:
    """What passed while another check had no data ends no later for it."""
    checks = [TWO["errors"], TWO["load"]]
    world = World(edited(lambda data: data["phases"][0].update(criteria=checks), guards=[]))
    world.until(at("one", 1))
    world.run(30)
    world.values["load"] = Verdict.NO_DATA
    world.run(60)
    world.values["load"] = Decimal(1)
    assert world.until(at("one", 2, 1)) == 30


@pytest.mark.parametrize("breach", [False, True], ids=["the hold ends", "a guard acts"])
def test_clock_that_was_set_back_blinds_nobody(*, breach: bool) -> None:
    """R14: a new process adopts it while a hold runs; what the status says is an hour ahead."""
    world = World(spec())
    world.until(at("one", 1))
    world.run(30)
    world.now -= timedelta(hours=1)
    world.last_reconcile = None
    if breach:
        world.values["errors"] = Decimal("0.08")
        assert world.until(ended, tick=10) <= 60
        assert world.status.outcome is Outcome.ROLLED_BACK
    else:
        assert 60 <= world.until(at("one", 2, 1)) <= 120


def test_time_that_another_leader_has_counted_extends_a_hold_by_no_more_than_itself() -> None:
    """R13: its results are late, and it pauses the hold since its own last evaluation, again and again."""
    world = World(spec())
    world.until(at("one", 1))
    world.until(lambda world: world.status.current.hold_until is not None)
    late = world.now
    for _ in range(20):
        world.now += timedelta(seconds=10)
        world.answering, world.last_reconcile = False, late
        world.reconcile()
        world.answering, world.last_reconcile = True, world.now
        world.reconcile()
    left = world.status.current.hold_until
    assert left is not None
    assert left <= world.now + timedelta(seconds=60)
