"""Backtests: which starts end in a false abort, at which hours, and when incidents are found. When a guard acts: test_replay."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from scipy.stats import binomtest

from core.world import spec
from session_rollout.api.metrics import Metric, SeasonalBaseline
from session_rollout.api.rollout import RolloutSpec
from session_rollout.simulation.backtest import Aborts, GuardBacktest, PhaseBacktest, backtest
from session_rollout.simulation.history import History, Incident, SeasonalHistory

START = datetime(2026, 1, 5, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
DAYS = 4
Hours = Sequence[tuple[float, float]]


def rollout(guards: list[dict[str, Any]], **phase: Any) -> RolloutSpec:
    """One phase of six hours."""
    steps = [{"percent": 50, "hold": "2h"}, {"percent": 100, "hold": "4h"}]
    return spec(
        checkInterval="1m",
        features=[{"name": "alpha"}],
        phases=[{"name": "one", "features": ["alpha"], "steps": steps, **phase}],
        guards=guards,
    )


def recorded(bad: Hours = (), missing: Hours = ()) -> dict[str, History]:
    """Errors of a minute each: 0.1 %, but 5 % between some hours, and none between others."""

    def value(hour: float) -> float:
        if any(begin <= hour < end for begin, end in missing):
            return math.nan
        return 0.05 if any(begin <= hour < end for begin, end in bad) else 0.001

    errors = [value(number / 60) for number in range(DAYS * 24 * 60)]
    return {"errors": History.of(START, MINUTE, errors), "load": History.of(START, MINUTE, [1.0] * len(errors))}


ERRORS: dict[str, Any] = {"name": "errors", "metric": "errors", "below": "1%", "for": "2m"}


def only(results: tuple[PhaseBacktest, ...]) -> GuardBacktest:
    """Of the only guard in the only phase."""
    (phase,) = results
    (guard,) = phase.guards
    return guard


def test_a_quiet_past_has_no_false_abort() -> None:
    """A phase of six hours fits into four days from 91 hours on."""
    (phase,) = backtest(rollout([ERRORS]), recorded())
    assert phase.length == 6 * HOUR
    (guard,) = phase.guards
    assert guard.aborts == Aborts(starts=DAYS * 24 - 6 + 1, aborted=0)
    assert sum(hour.starts for hour in guard.by_hour) == guard.aborts.starts


def test_what_was_no_incident_is_a_false_abort() -> None:
    """Three bad minutes a little after ten each day: every phase that runs then ends, and none starts within them."""
    bad = [(24 * day + 10.2, 24 * day + 10.25) for day in range(DAYS)]
    guard = only(backtest(rollout([ERRORS]), recorded(bad)))
    assert [hour for hour, aborts in enumerate(guard.by_hour) if aborts.aborted] == [5, 6, 7, 8, 9, 10]
    assert all(aborts.aborted == aborts.starts for hour, aborts in enumerate(guard.by_hour) if 5 <= hour <= 10)


def test_an_incident_is_detected() -> None:
    """After `for`, by the phases that run when it begins; that is no false abort."""
    incident = Incident(START + 30 * HOUR, START + 31 * HOUR)
    guard = only(backtest(rollout([ERRORS]), recorded([(30, 31)]), [incident]))
    assert guard.aborts.aborted == 0
    (detection,) = guard.detections
    assert (detection.starts, detection.detected, detection.delay) == (5, 5, 2 * MINUTE)


def test_a_start_in_an_incident_is_none() -> None:
    """The guard fails, so that the operator does not publish."""
    guard = only(backtest(rollout([ERRORS]), recorded([(30, 31)])))
    assert guard.aborts.starts == DAYS * 24 - 6
    assert guard.by_hour[6].starts == DAYS - 1


def test_an_incident_that_is_not_seen() -> None:
    guard = only(
        backtest(rollout([{**ERRORS, "below": "10%"}]), recorded([(30, 31)]), [Incident(START + 30 * HOUR, START + 31 * HOUR)])
    )
    (detection,) = guard.detections
    assert (detection.starts, detection.detected, detection.delay) == (6, 0, None)


def test_all_guards_together() -> None:
    """The first that acts ends the rollout; what only warns or is in a dry run does not."""
    guards: list[dict[str, Any]] = [
        ERRORS,
        {"name": "load", "metric": "load", "below": "2"},
        {"name": "warns", "metric": "errors", "below": "0.2%", "onBreach": "Warn"},
        {"name": "dry", "metric": "errors", "below": "0.2%", "dryRun": True},
    ]
    (phase,) = backtest(rollout(guards), recorded([(10.2, 10.25)]))
    assert [guard.guard for guard in phase.guards] == ["errors", "load", None]
    errors, load, together = phase.guards
    assert errors.aborts == together.aborts
    assert errors.aborts.aborted == 6
    assert load.aborts.aborted == 0


def test_how_often_criteria_pass() -> None:
    """Times without a verdict do not count; a criterion with a baseline has no share of its own."""
    criteria = [
        {"name": "errors", "metric": "errors", "below": "1%"},
        {"name": "rise", "metric": "errors", "comparedTo": "Baseline", "maxIncrease": "10%"},
    ]
    (phase,) = backtest(rollout([], criteria=criteria), recorded([(0, 12)], [(12, 48)]))
    assert phase.passing == {"errors": pytest.approx(0.8)}
    assert phase.guards == ()


def test_guards_that_never_pass_are_named() -> None:
    """By the number of hours at which each of them passes."""
    guards = [ERRORS, {"name": "load", "metric": "load", "above": "2"}]
    (phase,) = backtest(rollout(guards), recorded([(30, 31)]))
    assert (phase.hours, phase.allowed) == (DAYS * 24 - 6 + 1, {"errors": DAYS * 24 - 6, "load": 0})
    assert all(guard.aborts.starts == 0 for guard in phase.guards)


def test_a_history_that_is_too_short_has_no_start() -> None:
    short = {name: History.of(START, MINUTE, history.values[: 5 * 60]) for name, history in recorded().items()}
    assert only(backtest(rollout([ERRORS]), short)).aborts == Aborts(0, 0)


@pytest.mark.parametrize(("starts", "aborted"), [(672, 0), (672, 5), (20, 20), (1, 0)])
def test_the_interval_is_that_of_wilson(starts: int, aborted: int) -> None:
    expected = binomtest(aborted, starts).proportion_ci(method="wilson")
    assert Aborts(starts, aborted).interval == pytest.approx((expected.low, expected.high))
    assert Aborts(0, 0).interval == (0, 1)


# --- earlier seasons


RISE: dict[str, Any] = {"name": "load", "metric": "load", "comparedTo": "Baseline", "maxIncrease": "30%", "for": "2m"}


def waves(days: int, *, more: Hours = ()) -> dict[str, History]:
    """A load with a wave of the day, twice as much between some hours, and as many earlier days as are recorded."""

    def value(hour: float) -> float:
        return (1 + 0.5 * math.sin(hour / 12 * math.pi)) * (2 if any(begin <= hour < end for begin, end in more) else 1)

    values = [value(number / 60) for number in range(-days * 24 * 60, DAYS * 24 * 60)]
    means = History.of(START - timedelta(days=days), MINUTE, values)
    seasons = SeasonalHistory(means, SeasonalBaseline(season="1d", count=2, window="1m"))
    return {"load": History.of(START, MINUTE, values[days * 24 * 60 :], seasons)}


def daily(**phase: Any) -> RolloutSpec:
    """With seasons of a day."""
    baseline = {"season": "1d", "count": 2, "window": "1m"}
    return rollout([RISE], **phase).updated(
        metrics=(Metric.model_validate({"name": "load", "query": "load", "baseline": baseline}),)
    )


def test_time_of_day_is_no_false_abort_with_seasons() -> None:
    """D17: with earlier days at each start. Without them, the starts of the night end in one."""
    assert only(backtest(daily(), waves(2))).aborts == Aborts(DAYS * 24 - 6 + 1, 0)
    without = {"load": replace(waves(2)["load"], seasons=None)}
    assert only(backtest(daily(), without)).aborts.aborted > 0


@pytest.mark.parametrize(("days", "unseasoned"), [(2, 0), (1, 24), (0, 48)])
def test_starts_without_seasons_are_counted(days: int, unseasoned: int) -> None:
    """D17: they are compared with the value at the start, as the operator does it, and that is said."""
    (phase,) = backtest(daily(), waves(days))
    assert phase.unseasoned == {"load": unseasoned}
    assert (phase.guards[0].aborts.aborted > 0) == (unseasoned > 0)


def test_noise_is_measured() -> None:
    """D17: of guards and criteria; an incident that is marked is none."""
    criteria = [{"name": "same", "metric": "load", "comparedTo": "Baseline", "maxIncrease": "1%"}]
    more = [(30.0, 31.0)]
    (phase,) = backtest(daily(criteria=criteria), waves(2, more=more))
    assert [(each.check.name, each.small is not None) for each in phase.noises] == [("load", True), ("same", True)]
    assert phase.noises[0].noise.quantile == pytest.approx(math.log(2))
    (phase,) = backtest(daily(criteria=criteria), waves(2, more=more), [Incident(START + 30 * HOUR, START + 31 * HOUR)])
    assert [each.small for each in phase.noises] == [None, None]
    assert phase.passing["same"] == pytest.approx(1 - 60 / (DAYS * 24 * 60))


def test_phase_longer_than_a_season_is_compared_with_the_days_before_it() -> None:
    """D17: as by the operator, a day in the phase is no baseline for another one."""
    steps = [{"percent": 100, "hold": "60h"}]
    guard = only(backtest(daily(steps=steps), waves(5, more=[(24, 96)])))
    assert guard.aborts.starts > 0
    assert all(aborts.aborted == aborts.starts for aborts in guard.by_hour)
