"""For how much of its hold a criterion must pass (D9): `passShare`, the last evaluations, and what is kept of it in status.

Not here: how long and how often a check must fail to count (test_failures).
"""

from datetime import timedelta
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from core.failing import BAD, GOOD, feed, judged
from core.world import World, at, edited, spec
from session_rollout.api.checks import Criterion
from session_rollout.api.enums import CheckKind, DecisionReason, Verdict
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status_records import CheckRecord, FailedTime
from session_rollout.core.context import DecisionContext
from session_rollout.core.failures import MOST_FAILURES, Hold, note_failure


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
