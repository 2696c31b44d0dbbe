"""Earlier weeks from a real Prometheus that has them. Not here: what is made of them (core/test_seasons)."""

import asyncio
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.past import remembering
from session_rollout.adapters.clock import WallClock
from session_rollout.adapters.prometheus import PrometheusSource
from session_rollout.adapters.recorded import Place, Recorder
from session_rollout.api.metrics import Metric
from session_rollout.core.observed import Seasons
from session_rollout.settings import Provider

DAY, STEP = timedelta(days=1), timedelta(minutes=5)
NOW = datetime.fromtimestamp(datetime.now(UTC).timestamp() // 300 * 300, UTC)
START = NOW - 15 * DAY


def load(time: datetime) -> float:
    """A wave of a day, and half as much again in each week; no week begins near the times that are read."""
    week = (NOW - time + 3 * DAY) // (7 * DAY)
    return (2 + math.sin((NOW - time) / DAY * 2 * math.pi)) * 1.5 ** (-week)


async def read(url: str, metric: Metric) -> Seasons:
    source, woken = PrometheusSource({"default": Provider(url=url)}, WallClock(), 1), asyncio.Event()
    ago = (7 * DAY, 14 * DAY, 21 * DAY)
    try:
        seasons = source.seasons("default", metric, ago, timedelta(minutes=1), woken.set)
        assert seasons is None
        await asyncio.wait_for(woken.wait(), 20)
        seasons = source.seasons("default", metric, ago, timedelta(minutes=1), woken.set)
    finally:
        source.close()
    assert seasons is not None
    return seasons


async def retention_of(url: str) -> timedelta | None:
    recorder = Recorder(Place(url), None, NOW)
    try:
        return await recorder.retention()
    finally:
        recorder.close()


@pytest.mark.lab
def test_weeks_of_a_real_server(tmp_path: Path) -> None:
    """D17: of three weeks, two are in its retention; each has the mean of this half hour."""
    metric = Metric(name="load", query="max(load) # the largest")
    with remembering(tmp_path, {"load": load}, START, NOW + DAY, STEP) as server:
        seasons, now = asyncio.run(read(server.url, metric)), datetime.now(UTC)
        retention = asyncio.run(retention_of(server.url))
    expected = [sum(load(now - age - number * STEP) for number in range(7)) / 7 for age in (timedelta(0), 7 * DAY, 14 * DAY)]
    assert retention == timedelta(days=365)  # as the lab starts it
    assert seasons.problem is None
    assert [float(each) for each in (seasons.mean or 0, *seasons.earlier)] == pytest.approx(expected, rel=0.05)
