"""The noise of a baseline: the deviations from the median of earlier seasons that 999 of 1,000 readings do not exceed.

Covers D17: a tolerance that noise exceeds by itself.
"""

import math
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import numpy as np
import pytest

from session_rollout.api.checks import Criterion
from session_rollout.api.metrics import SeasonalBaseline
from session_rollout.simulation.history import History, Incident, SeasonalHistory
from session_rollout.simulation.noise import MARGIN, Noise, noise_of, too_small

START, WEEK, STEP = datetime(2026, 1, 5, tzinfo=UTC), timedelta(days=7), timedelta(minutes=15)
READINGS = WEEK // STEP


def means(value: Callable[[int], float], weeks: float = 4) -> SeasonalHistory:
    """Four weeks of means; the last one is that of the noise."""
    history = History.of(START, STEP, [value(number) for number in range(round(weeks * READINGS))])
    return SeasonalHistory(history, SeasonalBaseline())


def last_week(history: SeasonalHistory) -> Noise:
    return noise_of(history, history.means.end - WEEK)


def test_it_is_the_quantile_of_the_deviations() -> None:
    """D17: from the median of the same time of three weeks; the last week alone counts."""
    rng = random.Random(5)
    values = [
        rng.lognormvariate(0, 0.05) * (1 + math.sin(number / READINGS * 14 * math.pi) / 2) for number in range(4 * READINGS)
    ]
    deviations = [
        abs(math.log(values[number] / median(values[number - week * READINGS] for week in (1, 2, 3))))
        for number in range(3 * READINGS, 4 * READINGS)
    ]
    expected = np.quantile(deviations, 0.999, method="inverted_cdf")
    assert last_week(means(values.__getitem__)).quantile == pytest.approx(expected)
    assert expected < 0.3  # the wave of the day is no noise


@pytest.mark.parametrize(
    ("value", "weeks"),
    [
        (lambda _: math.nan, 4),
        (lambda _: 1.0, 0),
        (lambda _: 1.0, 1),
        (lambda number: 1.0 if number < READINGS + 90 else math.nan, 4),
        (lambda number: 1.0 if number >= 4 * READINGS - 5 else math.nan, 4),
        (lambda _: 0.0, 4),
        (lambda number: float(number % 3), 4),
        (lambda number: (-1.0) ** (number // READINGS), 4),
    ],
    ids=["no data", "empty", "no season", "gone", "new", "zero", "often zero", "another sign"],
)
def test_without_ratios_it_is_not_measured(value: Callable[[int], float], weeks: float) -> None:
    """D17: which is said; nothing is made up, and nothing fails."""
    noise = last_week(means(value, weeks))
    assert noise.quantile is None
    assert noise.unmeasured
    assert too_small(check(maxIncrease="1%"), noise) is None


def test_negative_values_have_ratios() -> None:
    """D17: a difference that is always below 0 has a noise as others."""
    noise = last_week(means(lambda number: -1.0 if number % READINGS else -1.1))
    assert noise.quantile == 0


def test_single_zero_is_a_deviation_as_others() -> None:
    """D17: a restart in a week does not hide the noise of the others."""
    count = 7 * READINGS
    history = SeasonalHistory(
        History.of(START, STEP, [0.0 if number == count // 2 else 1.0 + number % 5 / 100 for number in range(count)]),
        SeasonalBaseline(),
    )
    quantile = noise_of(history, START).quantile
    assert quantile is not None
    assert 0.02 < quantile < 0.05


def test_incidents_are_no_noise() -> None:
    """D17: neither while they last, nor as long as a mean covers them, nor as a season."""
    begin = START + 3 * WEEK + timedelta(days=2)
    incident = Incident(begin, begin + timedelta(hours=2))

    def value(number: int) -> float:
        return 3.0 if incident.start <= START + number * STEP < incident.end + timedelta(minutes=30) else 1.0

    history = means(value, 5)
    for end in (4, 5):
        since = START + (end - 1) * WEEK
        assert noise_of(history, since, [incident]).quantile == 0
    assert noise_of(history, START + 3 * WEEK).quantile == pytest.approx(math.log(3))


def test_one_season_is_enough_to_refuse() -> None:
    """D17: with fewer than two the check is Unseasoned, and its one value has more noise still."""
    assert last_week(means(lambda number: 1.1 if number < READINGS else 1.0, 2)).quantile == pytest.approx(math.log(1.1))


def check(**tolerance: Any) -> Criterion:
    return Criterion.model_validate({"name": "load", "metric": "load", "comparedTo": "Baseline", **tolerance})


NOISE = Noise(math.log(1.1))  # 10% above, and 9.1% below


@pytest.mark.parametrize(
    ("tolerance", "smallest"),
    [
        ({"maxIncrease": "15%"}, None),
        ({"maxIncrease": "14.9%"}, "15%"),
        ({"minIncrease": "1%"}, "15%"),
        ({"maxDecrease": "13.7%"}, None),
        ({"maxDecrease": "13.5%"}, "14%"),
        ({"maxIncrease": "0.1"}, None),
        ({"maxIncrease": "0%"}, "15%"),
    ],
)
def test_tolerance_needs_a_margin(tolerance: dict[str, str], smallest: str | None) -> None:
    """D17: of 1.5, in its own direction; one without % depends on the metric."""
    small = too_small(check(**tolerance), Noise(math.log(1.1 - 1e-9)))
    assert (small.smallest if small is not None else None) == smallest


def test_what_is_advised_is_enough() -> None:
    """D17: however small or large the noise is."""
    for exponent in range(-38, 8):
        noise = Noise(1.37**exponent)
        for name in ("maxIncrease", "maxDecrease"):
            small = too_small(check(**{name: "0%"}), noise)
            assert small is not None
            if small.smallest is None:
                assert MARGIN * small.noise > 0.99
            else:
                assert too_small(check(**{name: small.smallest}), noise) is None


def test_fixed_bounds_have_no_baseline() -> None:
    """D17: the noise of the baseline says nothing of them."""
    bounded = Criterion.model_validate({"name": "load", "metric": "load", "below": "1%"})
    assert too_small(bounded, NOISE) is None
