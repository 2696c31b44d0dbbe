"""Baselines by season: the same time in earlier weeks, read at each evaluation. Not here: their query (adapters/test_seasons).

D17: a value from one odd moment before the phase let noise and the time of day decide.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.world import GOOD, START, World, at, ended, spec
from session_rollout.api.enums import CheckKind, CheckReason, DecisionReason, Outcome, Stage, Verdict
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.observed import Measurement, Seasons
from session_rollout.core.seasons import seasons_read
from session_rollout.records.record import Record

WEEK, MINUTE = timedelta(days=7), timedelta(minutes=1)
HALF_HOUR = 30 * MINUTE
GUARD = {"name": "load", "metric": "load", "comparedTo": "Baseline", "maxIncrease": "20%", "for": "5m"}


def day(time: datetime) -> Decimal:
    """A wave of a day: most at 15:00, half as much at 03:00."""
    hours = (time - START).total_seconds() / 3600 + START.hour
    return Decimal(repr(round(1 + math.cos((hours - 15) / 12 * math.pi) / 3, 6)))


def flat(_: datetime) -> Decimal:
    return Decimal(1)


def slow(hold: str = "12h", **changes: Any) -> RolloutSpec:
    """One phase with a long step, a criterion and a guard on the same metric."""
    phase = {
        "name": "one",
        "features": ["alpha", "beta", "gamma"],
        "steps": [{"percent": 10, "hold": hold}, {"percent": 100, "hold": "60s"}],
        "criteria": [{"name": "load", "metric": "load", "comparedTo": "Baseline", "maxIncrease": "10%"}],
    }
    return spec(checkInterval="1m", phases=[phase], **{"guards": [GUARD], **changes})


def seasoned(rollout: RolloutSpec | None = None, wave: Callable[[datetime], Decimal] = day, **fields: Any) -> World:
    return World(rollout or slow(), waves={"load": wave}, **fields)


def run(world: World, hours: float) -> None:
    world.run(hours * 3600, tick=60)


def criterion(world: World) -> Any:
    return world.check(CheckKind.CRITERION, "load")


def test_time_of_day_decides_nothing() -> None:
    """D17: the phase begins at night, and the load of the day is no breach."""
    world = seasoned(now=START - timedelta(hours=7))
    world.until(ended, seconds=2 * 86_400, tick=60)
    assert world.status.outcome is Outcome.PROMOTED
    record = world.check(CheckKind.GUARD, "load")
    assert (record.seasons, record.reason) == (3, CheckReason.WITHIN_TOLERANCE)
    assert "the median of 3 earlier seasons" in record.message


def test_without_seasons_the_time_of_day_decides() -> None:
    """D17: the same load is a breach if one value from the night is its baseline."""
    metrics = [{"name": "load", "query": "load", "baseline": {"count": 0}}, *errors()]
    world = seasoned(slow(metrics=metrics), now=START - timedelta(hours=7))
    world.until(ended, seconds=86_400, tick=60)
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_without_history_it_is_the_value_of_before_the_phase() -> None:
    """D17: one week is not enough; what is compared, and when, is as it was without seasons. Status says so."""
    recent, plain = seasoned(slow("2h"), oldest=START - WEEK - 2 * HALF_HOUR), seasoned(slow("2h"))
    plain.edit(slow("2h", metrics=[{"name": "load", "query": "load", "baseline": {"count": 0}}, *errors()]))
    for world in (recent, plain):
        world.until(at("one", 1))
        run(world, 1)
    known, reference = criterion(recent), criterion(plain)
    assert (known.seasons, reference.seasons) == (1, None)
    fields = ("verdict", "reason", "value", "bound", "baseline", "time", "seasonal_baseline")
    assert [getattr(known, name) for name in fields] == [getattr(reference, name) for name in fields]
    assert "Unseasoned: 1 of at least 2" in known.message
    assert "Unseasoned" not in reference.message
    assert recent.status.current.hold_until == plain.status.current.hold_until


def errors() -> list[dict[str, str]]:
    return [{"name": "errors", "query": "errors"}]


def test_shift_in_load_is_seen_at_any_hour() -> None:
    """D17: what the baseline was at another hour hides no regression."""
    world = seasoned()
    world.until(at("one", 1), tick=60)
    run(world, 8)
    world.values["load"] = Decimal("1.3")
    run(world, 0.5)
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_warm_up_covers_the_mean() -> None:
    """D17: until the whole window is about the audience, a mean is a mixture."""
    world = seasoned(slow(guards=[]), ranges={"load": 5 * MINUTE})
    world.until(at("one", 1), tick=60)
    published = world.now
    world.until(lambda world: criterion(world).verdict is Verdict.PASS, tick=60)
    assert world.now - published == HALF_HOUR + 5 * MINUTE
    assert world.status.current.hold_until == world.now + timedelta(hours=12)


class LateMean(World):
    """The query of the means is answered less often than that of the value."""

    mean: Seasons | None = None

    def measure(self, name: str) -> Measurement | None:
        measurement = super().measure(name)
        if measurement is None or measurement.seasons is None:
            return measurement
        if self.mean is None or self.now - self.mean.time >= 27 * MINUTE:
            self.mean = measurement.seasons
        return replace(measurement, seasons=self.mean)


def test_hold_waits_for_a_mean_of_the_warm_time() -> None:
    """D17: of a guard, too, whose value may be newer than its mean."""
    phase = {"name": "one", "features": ["alpha", "beta", "gamma"]}
    steps = [{"percent": 10, "hold": "31m"}, {"percent": 100, "hold": "31m"}]
    metrics = [{"name": "load", "query": "load", "interval": "30m"}, *errors()]
    rollout = spec(checkInterval="1m", metrics=metrics, guards=[GUARD], phases=[{**phase, "steps": steps}])
    world = LateMean(rollout, waves={"load": flat}, ranges={"load": 5 * MINUTE})
    for step in (1, 2):
        world.until(at("one", step), tick=60, seconds=4 * 3600)
        published = world.now
        world.until(lambda world: world.status.current.hold_until is not None, tick=60, seconds=7200)
        assert world.mean is not None
        assert world.mean.time >= published + 5 * MINUTE + HALF_HOUR


@pytest.mark.parametrize(("days", "weeks"), [(0, (1, 2, 3)), (6.9, (1, 2, 3)), (7.1, (2, 3, 4)), (14.1, (3, 4, 5))])
def test_weeks_lie_before_the_phase(days: float, weeks: tuple[int, ...]) -> None:
    """D17: from day 8 on, a week ago users had the feature: it would be its own baseline."""
    world = seasoned(slow("20d"), flat)
    world.until(at("one", 1), tick=60)
    now = world.now + timedelta(days=days)
    assert seasons_read(world.rollout(), now) == {"load": tuple(WEEK * week for week in weeks)}


def test_weeks_lie_before_an_earlier_attempt() -> None:
    """D17: a retry is compared with the time before users had the feature for the first time."""
    world = seasoned()
    world.until(at("one", 1), tick=60)
    first = world.status.phases[0].first_publish_time
    world.values["load"] = Decimal(2)
    world.until(ended, tick=60)
    world.values["load"] = Decimal(1)
    world.now += timedelta(days=8)
    world.request("Retry", generation=1)
    world.until(at("one", 1), tick=60)
    assert world.status.phases[0].first_publish_time == first
    assert seasons_read(world.rollout(), world.now)["load"][0] == 2 * WEEK


def test_seasons_that_leave_the_retention_leave_no_verdict() -> None:
    """D17: one value from an odd moment must not decide after all; the hold pauses, and the message says what to do."""
    world = seasoned(slow("20d"), flat)
    world.until(at("one", 1), tick=60)
    world.oldest = world.now
    world.values["load"] = Decimal(5)
    run(world, 2)
    record = criterion(world)
    assert (record.verdict, record.reason) == (Verdict.NO_DATA, CheckReason.NO_SEASONS)
    assert "count: 0" in record.message
    assert (world.reason, world.status.outcome) == (DecisionReason.AWAITING_EVIDENCE, None)
    metrics = [{"name": "load", "query": "load", "baseline": {"count": 0}}, *errors()]
    world.edit(slow("20d", metrics=metrics))
    run(world, 1)
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_weeks_without_history_for_an_hour_are_not_missed() -> None:
    """D17: a phase that is seasoned stays so with one week: an outage of Prometheus left a gap in the others."""
    world = seasoned(slow("2h"), flat)
    world.until(at("one", 1), tick=60)
    world.seasons = Seasons(world.now + timedelta(days=1), Decimal(1), (Decimal(1),))
    world.until(lambda world: criterion(world).verdict is Verdict.PASS, tick=60)
    assert "that of 1 earlier season" in criterion(world).message


@pytest.mark.parametrize(
    ("reason", "starts"),
    [(CheckReason.QUERY_REJECTED, True), (CheckReason.TIMED_OUT, True), (CheckReason.CONNECTION_FAILED, False)],
)
def test_provider_that_reads_no_seasons(reason: CheckReason, *, starts: bool) -> None:
    """D17: a provider that refuses the query gives what it gave before; one that is unreachable is asked again."""
    world = seasoned(slow("2h"), flat)
    world.seasons = Seasons(START + timedelta(days=1), problem=Verdict.PROVIDER_ERROR, reason=reason, unreachable=not starts)
    run(world, 0.5)
    assert (world.status.current.stage is Stage.STEP) is starts
    if starts:
        assert criterion(world).seasons == 0
    else:
        assert world.reason is DecisionReason.MEASURING_BASELINE


def test_provider_that_fails_later_pauses_the_hold() -> None:
    """D17: what could not be read is no verdict."""
    world = seasoned(slow("2h"), flat)
    world.until(at("one", 1), tick=60)
    run(world, 1)
    world.seasons = Seasons(
        world.now + timedelta(days=1), problem=Verdict.PROVIDER_ERROR, reason=CheckReason.TIMED_OUT, message="no"
    )
    run(world, 1)
    assert (criterion(world).verdict, criterion(world).reason) == (Verdict.PROVIDER_ERROR, CheckReason.TIMED_OUT)


def test_absent_value_is_absent_at_once() -> None:
    """D17: a mean has samples for half an hour after the last one; `onNoData` is about the value."""
    world = seasoned(slow(guards=[{**GUARD, "onNoData": "Fail"}]))
    world.until(at("one", 1), tick=60)
    run(world, 1)
    world.values["load"] = Verdict.NO_DATA
    run(world, 0.1)
    assert world.check(CheckKind.GUARD, "load").reason is CheckReason.NO_DATA_FAILS


def test_decision_is_made_again_from_its_record() -> None:
    """D17: the weeks are part of what a decision rests on."""
    world = seasoned(slow("2h"))
    world.until(at("one", 1), tick=60)
    run(world, 0.9)
    observed = world.observed()
    record = Record.model_validate_json(Record.of(observed, world.now, world.decide()).model_dump_json())
    assert record.measurements == observed.measurements
    assert record.measurements["load"].seasons is not None
    assert record.agrees()


def test_next_phase_reads_its_own_weeks() -> None:
    """D17: the earlier phase is part of what users have."""
    metrics = [{"name": "load", "query": "load", "baseline": {"window": "1m"}}, *errors()]
    world = World(spec(metrics=metrics), waves={"load": flat})
    world.until(at("two", 1))
    two = world.status.phase("two")
    assert two is not None
    assert two.first_publish_time == world.now
    assert criterion(world).seasons == 3


def test_error_after_a_baseline_of_zero_is_no_breach() -> None:
    """D17: each percentage of 0 is 0, so that a single error would roll back. The message says what to write."""
    world = World(spec(guards=[{**GUARD, "for": "0s"}]), values={**GOOD, "load": Decimal(0)})
    world.until(at("one", 1))
    world.run(20)
    assert criterion(world).verdict is Verdict.PASS
    world.values["load"] = Decimal("0.001")
    world.run(100)
    for kind in (CheckKind.CRITERION, CheckKind.GUARD):
        record = world.check(kind, "load")
        assert (record.verdict, record.reason) == (Verdict.INCONCLUSIVE, CheckReason.ZERO_BASELINE)
        assert "tolerance without %" in record.message
        assert "`minimum`" in record.message
    assert world.status.outcome is None
