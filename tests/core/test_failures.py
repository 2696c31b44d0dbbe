"""How long and how often a check must fail to count: `for` and `outOf` over gaps and absences (D10).

Not here: a plain breach (test_guards), for how much of its hold a criterion must pass (test_pass_share), the deadline of a step
that waits (test_deadline).
"""

import itertools
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.failing import BREACH, GAPS, GOOD, feed, guarded
from core.world import World, at, edited, ended
from session_rollout.api.enums import CheckKind, EventReason, Outcome, Verdict
from session_rollout.api.rollout import RolloutSpec

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
