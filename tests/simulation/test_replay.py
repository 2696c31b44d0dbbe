"""A replay acts when the operator would have: each kind of guard, over recorded values with noise, gaps and incidents.

The reference is slow: a world whose metrics are the recorded ones, in which the operator decides at each value and at each timer.
"""

import math
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.world import spec
from session_rollout.api.checks import Guard
from session_rollout.api.enums import Outcome
from session_rollout.api.metrics import SeasonalBaseline
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.observed import Measurement, Seasons
from session_rollout.core.seasons import seasons_read
from session_rollout.simulation.history import STRETCH, History, SeasonalHistory
from session_rollout.simulation.seasonal_replay import replay_of
from session_rollout.simulation.world import World

START = datetime(2026, 1, 5, tzinfo=UTC)
INTERVAL = timedelta(seconds=30)
VALUES, LENGTH, STARTS = 3_000, 400, 10
GUARDS: dict[str, dict[str, Any]] = {
    "fixed": {"below": "1.3%"},
    "fixed for a time": {"below": "1%", "for": "2m"},
    "for a time between two values": {"below": "1%", "for": "75s"},
    "range": {"between": ["0.5%", "1.1%"], "for": "90s"},
    "often": {"below": "0.9%", "outOf": "4/6"},
    "baseline": {"comparedTo": "Baseline", "maxIncrease": "40%", "for": "1m"},
    "baseline, fall": {"comparedTo": "Baseline", "maxDecrease": "0.003", "outOf": "3/5"},
    "baseline, few events": {
        "comparedTo": "Baseline",
        "maxIncrease": "20%",
        "for": "1m",
        "minimum": {"metric": "load", "above": "30"},
    },
    "few events": {"below": "1%", "for": "1m", "minimum": {"metric": "load", "above": "30"}},
    "no data fails": {"below": "2%", "for": "1m", "onNoData": "Fail"},
    "no data passes": {"below": "1%", "for": "1m", "onNoData": "Pass"},
}
SEASONAL: dict[str, dict[str, Any]] = {
    "seasons": {"comparedTo": "Baseline", "maxIncrease": "20%", "for": "1m"},
    "seasons, fall": {"comparedTo": "Baseline", "maxDecrease": "12%", "outOf": "3/5"},
    "seasons, few events": {
        "comparedTo": "Baseline",
        "maxIncrease": "12%",
        "for": "2m",
        "minimum": {"metric": "load", "above": "30"},
    },
}
BASELINE = SeasonalBaseline(season="1h", count=3, window="5m")  # a phase has four seasons
HOUR, WINDOW = timedelta(hours=1) // INTERVAL, timedelta(minutes=5) // INTERVAL


def recorded(seed: int) -> dict[str, History]:
    """An error rate with a daily wave, incidents and gaps, and its traffic."""
    rng, errors, load = random.Random(seed), list[float](), list[float]()
    bad = gap = 0
    for number in range(VALUES):
        bad = max(bad - 1, 0) or (rng.randrange(2, 12) if rng.random() < 0.004 else 0)
        gap = max(gap - 1, 0) or (rng.randrange(1, 6) if rng.random() < 0.006 else 0)
        wave = 1 + 0.2 * math.sin(number / 400)
        value = 0.007 * wave * rng.lognormvariate(0, 0.12) * (2 if bad else 1)
        errors.append(math.nan if gap else math.inf if rng.random() < 0.001 else value)
        load.append(rng.uniform(20, 200))
    return {"errors": History.of(START, INTERVAL, errors), "load": History.of(START, INTERVAL, load)}


def mean(history: History, number: int) -> float:
    """The mean of the window until a value; NaN without one."""
    values = [value for value in history.values[max(number - WINDOW + 1, 0) : max(number + 1, 0)] if math.isfinite(value)]
    return math.fsum(values) / len(values) if values else math.nan


def with_seasons(histories: dict[str, History]) -> dict[str, History]:
    """The same, with the means of the errors. For the first ones, there are no earlier seasons."""
    errors = histories["errors"]
    means = History.of(START, INTERVAL, (mean(errors, number) for number in range(VALUES)))
    return {**histories, "errors": replace(errors, seasons=SeasonalHistory(means, BASELINE))}


@dataclass
class Recorded(World):
    """A world whose metrics are the recorded ones."""

    histories: dict[str, History] = field(default_factory=dict)

    def measure(self, name: str) -> Measurement | None:
        history = self.histories[name]
        number = history.number(self.now)
        measurement, ago = history.measurement(number), seasons_read(self.rollout(), history.time(number)).get(name)
        if history.seasons is None or ago is None:
            return measurement
        now, *earlier = (mean(history, number - length // INTERVAL) for length in (timedelta(0), *ago))
        known = tuple(Decimal(repr(value)) for value in earlier if not math.isnan(value))
        seasons = Seasons(measurement.time, None if math.isnan(now) else Decimal(repr(now)), known)
        return replace(measurement, seasons=seasons)


def rollout(guard: dict[str, Any]) -> RolloutSpec:
    """One step for everybody, as long as the part that is replayed."""
    return spec(
        checkInterval="30s",
        phases=[{"name": "one", "features": ["alpha"], "steps": [{"percent": 100, "hold": "10d"}]}],
        features=[{"name": "alpha"}],
        metrics=[{"name": "errors", "query": "errors", "baseline": BASELINE.to_wire()}, {"name": "load", "query": "load"}],
        guards=[{"name": "errors", "metric": "errors", **guard}],
    )


def decided(plan: RolloutSpec, histories: dict[str, History], first: int) -> tuple[bool, float | None]:
    """Whether the operator publishes at this value, and when it rolls back: in intervals from the first value."""
    begun = START + first * INTERVAL
    world = Recorded(plan, begun, last_reconcile=begun, histories=histories)
    decision = world.settle()
    if world.status.current.published_time is None:
        return False, None
    while world.status.current.rollback_outcome is not Outcome.ROLLED_BACK:
        following = START + ((world.now - START) // INTERVAL + 1) * INTERVAL
        world.now = min(following, world.now + decision.next_reconcile)
        if world.now >= START + (first + LENGTH) * INTERVAL:
            return True, None
        decision = world.settle()
    return True, (world.now - START) / INTERVAL


@pytest.mark.parametrize("kind", [*GUARDS, *SEASONAL])
def test_it_acts_when_the_operator_would_have(kind: str) -> None:
    """At ten starts; some act soon, some late and some never; at some the operator does not start.

    D17: with earlier seasons as well, and also where there are too few of them yet.
    """
    plan, histories = rollout({**GUARDS, **SEASONAL}[kind]), recorded(sum(map(ord, kind)))
    histories = with_seasons(histories) if kind in SEASONAL else histories
    guard: Guard = plan.guards[0]
    replay, rng = replay_of(guard, histories), random.Random(7)
    early = (HOUR - 1, 2 * HOUR, 2 * HOUR + 50) if kind in SEASONAL else ()
    starts = sorted({*rng.sample(range(VALUES - LENGTH), STARTS - len(early)), *early})
    expected = {first: decided(plan, histories, first) for first in starts}
    possible = [first for first in starts if replay.allows(first)]
    assert {first: (True, replay.breach(first, first + LENGTH)) for first in possible} == {
        first: expected[first] for first in possible
    }
    assert any(expected[first][1] is not None for first in possible)
    assert [first for first in starts if replay.is_unseasoned(first)] == [
        first for first in starts if kind in SEASONAL and first < 2 * HOUR
    ]
    failing = [first for first in starts if first not in possible and math.isfinite(histories["errors"].values[first])]
    assert not any(expected[first][0] for first in failing)


def test_a_history_has_the_newest_value_of_a_time() -> None:
    history = History.of(START, INTERVAL, [1.0, math.nan, 3.0])
    assert [history.number(START + timedelta(seconds=seconds)) for seconds in (-1, 0, 29, 30, 61, 500)] == [-1, 0, 0, 1, 2, 2]
    assert history.end == START + timedelta(seconds=90)
    assert history.measurement(-1).value is None
    assert [history.measurement(number).is_absent for number in (0, 1, 2)] == [False, True, False]


def test_stretches_have_bounds_only_if_they_are_complete() -> None:
    values = [float(number) for number in range(STRETCH)] * 2
    values[STRETCH + 3] = math.nan
    assert History.of(START, INTERVAL, values).stretches == ((0.0, STRETCH - 1.0), None)
