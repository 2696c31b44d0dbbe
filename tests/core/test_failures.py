"""How long and how often a check must fail to count, and for how much of its hold a criterion must pass.

Covered: `for` and `outOf` of guards and criteria over gaps and absences (D10), `passShare` and the last evaluations (D9),
what is kept of it in status. Not here: a plain breach (test_guards), the deadline of a step that waits (test_deadline).
"""

import itertools
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.world import World, at, edited, ended, spec
from session_rollout.api.checks import Criterion
from session_rollout.api.enums import CheckKind, DecisionReason, EventReason, Outcome, Verdict
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status_records import CheckRecord, FailedTime
from session_rollout.core.context import DecisionContext
from session_rollout.core.failures import MOST_FAILURES, Hold, note_failure

GOOD, BAD, BREACH = Decimal("0.001"), Decimal("0.02"), Decimal("0.08")
GAPS = (Verdict.NO_DATA, Verdict.INCONCLUSIVE, Verdict.PROVIDER_ERROR)


def guarded(interval: str = "10s", **guard: Any) -> RolloutSpec:
    """A rollout with one long step and one guard on errors."""
    return edited(
        lambda data: data["phases"][0]["steps"][0].update(hold="2h"),
        guards=[{"name": "errors", "metric": "errors", "below": "5%", **guard}],
        checkInterval=interval,
    )


def judged(hold: str = "10m", **criterion: Any) -> RolloutSpec:
    """A rollout whose first step has this hold and one criterion on errors."""

    def change(data: dict[str, Any]) -> None:
        data["phases"][0]["steps"][0]["hold"] = hold
        data["phases"][0]["criteria"] = [{"name": "errors", "metric": "errors", "below": "1%", **criterion}]

    return edited(change, guards=[])


def feed(world: World, values: Sequence[Decimal | Verdict], tick: float = 10) -> None:
    """One result after the other, at one interval each."""
    for value in values:
        world.values["errors"] = value
        world.now += timedelta(seconds=tick)
        world.settle()


# --- `for` of a guard


@pytest.mark.parametrize("gap", GAPS)
def test_a_gap_neither_counts_for_nor_resets_a_breach(gap: Verdict) -> None:
    """D10: every fourth answer is missing; a breach of two minutes takes two minutes and the gaps."""
    world = World(guarded(**{"for": "2m"}))
    world.until(at("one", 1))
    start = world.now
    answers: list[Decimal | Verdict] = [BREACH, BREACH, BREACH, gap]
    values = itertools.cycle(answers)
    while world.status.outcome is None:
        feed(world, [next(values)])
        assert world.now - start < timedelta(minutes=5)
    assert timedelta(minutes=2) < world.now - start <= timedelta(minutes=3)
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_short_gaps_count_as_long_as_they_are() -> None:
    """Two servers behind one address, one of which has no data: half of the time is observed, whatever part of a second a gap has."""
    world = World(guarded("1s", **{"for": "10s"}))
    world.until(at("one", 1))
    answers: list[Decimal | Verdict] = [BREACH, Verdict.NO_DATA]
    start, values = world.now, itertools.cycle(answers)
    while world.status.outcome is None:
        feed(world, [next(values)], tick=1.04)
        assert world.now - start < timedelta(seconds=25)
    assert world.now - start >= timedelta(seconds=20)


@pytest.mark.parametrize("gap", GAPS)
def test_a_long_gap_is_no_breach(gap: Verdict) -> None:
    """D10: ten seconds of breach, an hour without data, ten seconds of breach: that is no two minutes."""
    world = World(guarded(**{"for": "2m"}))
    world.until(at("one", 1))
    feed(world, [BREACH])
    feed(world, [gap] * 360)
    feed(world, [BREACH, GOOD])
    assert world.status.outcome is None
    assert world.check(CheckKind.GUARD, "errors").failing_time is None


def test_a_pass_resets_a_breach() -> None:
    """D10: also behind a gap."""
    world = World(guarded(**{"for": "1m"}))
    world.until(at("one", 1))
    feed(world, [BREACH, BREACH, Verdict.NO_DATA, GOOD] * 20)
    assert world.status.outcome is None


@pytest.mark.parametrize("before", [BREACH, Verdict.NO_DATA], ids=["in breach", "in a gap"])
def test_time_that_nobody_observed_is_a_gap(before: Decimal | Verdict) -> None:
    """D10: 90 s of a breach of two minutes were observed; ten minutes of absence add nothing and take nothing away."""
    world = World(guarded(**{"for": "2m"}))
    world.until(at("one", 1))
    feed(world, [BREACH] * 9)
    world.values["errors"] = before
    world.settle()
    world.now += timedelta(minutes=10)
    world.values["errors"] = BREACH
    world.settle()
    for _ in range(2):
        assert world.status.outcome is None
        feed(world, [BREACH] * 2)
    assert world.status.outcome is Outcome.ROLLED_BACK


@pytest.mark.parametrize("before", [BREACH, Verdict.NO_DATA], ids=["in breach", "in a gap"])
def test_absence_is_no_longer_than_the_failure(before: Decimal | Verdict) -> None:
    """D10: the Lease may tell of an absence of a day that another rollout could not account for."""
    world = World(guarded(**{"for": "2m"}))
    world.until(at("one", 1))
    feed(world, [BREACH] * 3)
    world.values["errors"] = before
    world.last_reconcile = world.now - timedelta(days=1)
    world.settle()
    feed(world, [BREACH] * 14)
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_unknown_absence_starts_a_breach_again() -> None:
    """D10: how much of it was observed is not known, and a rollback needs what was."""
    world = World(guarded(**{"for": "2m"}))
    world.until(at("one", 1))
    feed(world, [BREACH] * 9)
    world.last_reconcile = None
    world.settle()
    feed(world, [BREACH] * 11)
    assert world.status.outcome is None
    feed(world, [BREACH] * 2)
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_a_warning_is_one_event_over_its_gaps() -> None:
    """D10: the breach is the same, so it is not told again."""
    world = World(guarded(onBreach="Warn"))
    world.until(at("one", 1))
    feed(world, [BREACH, Verdict.NO_DATA, BREACH, Verdict.INCONCLUSIVE, BREACH])
    assert len(world.entries(EventReason.GUARD_BREACHED)) == 1


def test_a_steady_breach_writes_nothing() -> None:
    """D10: what `for` needs is written when the verdict changes."""
    world = World(guarded(**{"for": "1h"}))
    world.until(at("one", 1))
    feed(world, [BREACH])
    writes = world.writes
    feed(world, [BREACH] * 60)
    assert world.writes == writes


# --- `outOf`


def test_out_of_counts_evaluations() -> None:
    """Three of the last five results; a gap is no evaluation, and the third failure acts."""
    world = World(guarded(outOf="3/5"))
    world.until(at("one", 1))
    feed(world, [GOOD, BREACH, GOOD, GOOD, BREACH, GOOD, GOOD, BREACH, GOOD, BREACH, Verdict.NO_DATA, GOOD])
    assert world.status.outcome is None
    assert world.check(CheckKind.GUARD, "errors").results == "PFPFP"
    feed(world, [BREACH])
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert "in 3 of 5 evaluations" in world.status.current.rollback_reasons[0]


def test_an_evaluation_is_a_measurement_not_a_decision() -> None:
    """Decisions between two results of a slow metric add nothing."""
    metrics = [{"name": "errors", "query": "errors", "interval": "10m"}, {"name": "load", "query": "load"}]

    class Slow(World):
        def measure(self, name: str) -> Any:
            measurement = super().measure(name)
            asked = self.now.replace(minute=self.now.minute // 10 * 10, second=0)
            return measurement and type(measurement)(asked, value=measurement.value)

    world = Slow(edited(lambda data: data.update(metrics=metrics), guards=[], phases=guarded().to_wire()["phases"]))
    world.edit(RolloutSpec.model_validate({**world.spec.to_wire(), "guards": [guard_out_of()]}))
    world.until(at("one", 1))
    feed(world, [BREACH] * 119)
    assert (world.status.outcome, world.check(CheckKind.GUARD, "errors").results) == (None, "PF")
    world.until(ended)
    assert world.status.outcome is Outcome.ROLLED_BACK


def guard_out_of() -> dict[str, Any]:
    """Two of three results."""
    return {"name": "errors", "metric": "errors", "below": "5%", "outOf": "2/3"}


def test_out_of_writes_nothing_while_results_are_equal() -> None:
    """As many equal results as are kept: another one changes nothing."""
    world = World(guarded(outOf="3/5"))
    world.until(at("one", 1))
    feed(world, [GOOD] * 6)
    writes = world.writes
    feed(world, [GOOD] * 60)
    assert world.writes == writes


# --- the share of the hold


def test_a_criterion_that_fails_much_of_its_hold_does_not_end_it() -> None:
    """D9: 40 % of the hold failed, and the end passes: the step waits until 95 % of the last ten minutes passed."""
    world = World(judged())
    world.until(at("one", 1))
    start = world.now
    feed(world, [BAD] * 24)
    world.values["errors"] = GOOD
    world.until(lambda world: world.where[1] == 2)
    assert (world.now - start).total_seconds() == 240 + 600 - 30


def test_failures_all_over_the_hold_count() -> None:
    """D9: two of five results fail, for ever: never promoted, however often the end passes."""
    world = World(judged())
    world.until(at("one", 1))
    feed(world, [BAD, GOOD, BAD, GOOD, GOOD] * 60)
    assert world.where[:2] == ("one", 1)
    assert world.reason in {DecisionReason.CRITERIA_NOT_MET, DecisionReason.CONFIRMING_CRITERIA}


def test_a_share_that_is_reached_lets_the_step_end_on_time() -> None:
    """D9: 20 s of ten minutes are less than 5 %."""
    world = World(judged())
    world.until(at("one", 1))
    start = world.now
    feed(world, [GOOD, BAD, GOOD, BAD])
    world.values["errors"] = GOOD
    world.until(lambda world: world.where[1] == 2)
    assert (world.now - start).total_seconds() == 600


def test_the_last_evaluations_must_pass() -> None:
    """D9: one failure at the end of a long hold: ten more intervals, though the share is reached."""
    world = World(judged("1h"))
    world.until(at("one", 1))
    start = world.now
    feed(world, [*[GOOD] * 359, BAD, GOOD])
    assert world.reason is DecisionReason.CONFIRMING_CRITERIA
    world.until(lambda world: world.where[1] == 2)
    assert (world.now - start).total_seconds() == 3610 + 100


def test_the_interval_of_a_metric_says_how_long_ten_evaluations_are() -> None:
    """D9: a metric that is asked every minute must pass for ten minutes."""
    metrics = [{"name": "errors", "query": "errors", "interval": "1m"}, {"name": "load", "query": "load"}]
    world = World(RolloutSpec.model_validate({**judged("1h").to_wire(), "metrics": metrics}))
    world.until(at("one", 1))
    start = world.now
    feed(world, [GOOD] * 359)
    feed(world, [BAD, GOOD])
    world.until(lambda world: world.where[1] == 2)
    assert (world.now - start).total_seconds() == 3610 + 600


def test_only_counted_time_is_in_the_share() -> None:
    """D9: an hour without data in the hold is no time that passed: the failures before it stay in the last ten minutes."""
    world = World(judged())
    world.until(at("one", 1))
    feed(world, [BAD] * 24)
    feed(world, [Verdict.NO_DATA] * 360)
    resumed = world.now
    world.values["errors"] = GOOD
    world.until(lambda world: world.where[1] == 2)
    assert (world.now - resumed).total_seconds() >= 600 - 30


def test_what_fails_while_another_check_has_no_data_has_failed() -> None:
    """D9: metrics fail together, when a feature is bad; the pause of the timer for one hides no failure of the other."""
    world = World(
        edited(lambda data: data["phases"][0].update(steps=[{"percent": 10, "hold": "300s"}, {"percent": 100, "hold": "60s"}]))
    )
    world.until(at("one", 1))
    start = world.now
    for _ in range(5):
        world.run(20)
        world.values.update({"errors": Decimal("0.03"), "load": Verdict.NO_DATA})
        world.run(60)
        world.values.update({"errors": Decimal("0.001"), "load": Decimal(1)})
    assert world.where[:2] == ("one", 1)
    failed = sum(60 for _ in range(5))
    world.until(at("one", 2))
    assert (world.now - start).total_seconds() >= 300 + failed


def test_a_share_of_its_own() -> None:
    """`passShare: 50%` lets half of the hold fail, but not its last ten evaluations."""
    world = World(judged(passShare="50%"))
    world.until(at("one", 1))
    start = world.now
    feed(world, [BAD] * 28)
    world.values["errors"] = GOOD
    world.until(lambda world: world.where[1] == 2)
    assert (world.now - start).total_seconds() == 600


def test_a_shorter_failure_of_a_criterion_is_tolerated() -> None:
    """D9: `for: 1m` as on guards; half a minute is nothing, and yet no step ends during it."""
    world = World(judged(**{"for": "1m"}))
    world.until(at("one", 1))
    start = world.now
    feed(world, [GOOD, GOOD, BAD, BAD, BAD] * 11)
    feed(world, [GOOD, GOOD, BAD, BAD, BAD, BAD])
    assert world.where[:2] == ("one", 1)
    assert (world.now - start).total_seconds() == 610
    feed(world, [GOOD])
    assert world.where[:2] == ("one", 2)


def test_a_longer_failure_of_a_criterion_counts_from_its_beginning() -> None:
    """D9: two minutes with `for: 1m` are two minutes of the hold."""
    world = World(judged(**{"for": "1m"}))
    world.until(at("one", 1))
    start = world.now
    feed(world, [BAD] * 12)
    world.values["errors"] = GOOD
    world.until(lambda world: world.where[1] == 2)
    assert (world.now - start).total_seconds() == 120 + 600 - 30


def test_out_of_is_a_filter_of_a_criterion() -> None:
    """D9: one failure in five is tolerated for ever; three in five are not."""
    world = World(judged(outOf="3/5"))
    world.until(at("one", 1))
    start = world.now
    feed(world, [BAD, GOOD, GOOD, GOOD, GOOD] * 13)
    assert (world.where[1], (world.now - start).total_seconds()) == (2, 650)
    other = World(judged(outOf="3/5"))
    other.until(at("one", 1))
    feed(other, [BAD, BAD, BAD, GOOD, GOOD] * 40)
    assert other.where[:2] == ("one", 1)


def test_an_unknown_absence_forgets_the_failures_of_the_hold() -> None:
    """The hold starts again, and so does its share; what fails now still fails."""
    world = World(judged())
    world.until(at("one", 1))
    feed(world, [BAD] * 6)
    world.last_reconcile = None
    world.settle()
    assert world.check(CheckKind.CRITERION, "errors").failures == (FailedTime(start=0),)
    feed(world, [GOOD])
    world.last_reconcile = None
    world.settle()
    assert world.check(CheckKind.CRITERION, "errors").failures is None


# --- what is kept


def test_failures_are_bounded_and_joined_to_the_worse() -> None:
    """D9: hundreds of short failures leave at most eight entries, which count at least as much as the failures did."""
    world = World(judged("2h", passShare="0%"))
    world.until(at("one", 1))
    feed(world, [BAD, *[GOOD] * 5] * 60)
    failures = world.check(CheckKind.CRITERION, "errors").failures
    assert failures is not None
    assert len(failures) <= MOST_FAILURES
    assert sum((failure.end or 0) - failure.start for failure in failures) >= 60 * 10_000


def test_failures_that_left_the_hold_are_forgotten() -> None:
    """With the next change of the verdict."""
    world = World(judged("2m"))
    world.until(at("one", 1))
    feed(world, [BAD, GOOD, BAD, GOOD])
    feed(world, [Verdict.NO_DATA, *[GOOD] * 5, BAD, *[GOOD] * 9, BAD])
    failures = world.check(CheckKind.CRITERION, "errors").failures
    assert failures is not None
    assert all(failure.end is None or failure.end > 0 for failure in failures)
    assert failures[0].start >= 40_000


CONTEXT = DecisionContext(World(spec()).observed(), World(spec()).now, World(spec()).status)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 90)), min_size=1, max_size=60))
def test_what_is_kept_never_says_more_passed_than_did(life: list[tuple[bool, int]]) -> None:
    """D9: against every second of any life of a criterion: the share and the last evaluations are right or stricter."""
    criterion, hold = Criterion(name="errors", metric="errors", below="1%"), timedelta(seconds=600)
    record, seconds = CheckRecord(name="errors", kind=CheckKind.CRITERION), list[bool]()
    for passes, length in life:
        before, verdict = record, Verdict.PASS if passes else Verdict.FAIL
        failing = None if passes else before.failing_time or CONTEXT.now
        record = before.updated(verdict=verdict, failing_time=failing)
        record = note_failure(CONTEXT, criterion, before, record, timedelta(seconds=len(seconds)))
        seconds += [passes] * length
    kept = Hold(CONTEXT, criterion, record, hold, timedelta(seconds=len(seconds)))
    assert len(record.failures or ()) <= MOST_FAILURES
    assert kept.failed >= 1000 * sum(not passed for passed in seconds[-600:])
    if not all(seconds[-100:]):
        assert kept.steady > kept.now or not seconds[-1]
    later = Hold(CONTEXT, criterion, record, hold, timedelta(milliseconds=max(kept.enough, kept.now)))
    if seconds[-1]:
        assert later.failed <= later.allowed
