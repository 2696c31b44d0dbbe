"""The error rates and the speed of the tests, by simulations with fixed seeds: a part of `make evidence`.

The simulations have the formulas once more, over arrays. Here they also get the blocks that the tests of the operator get.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce

import numpy as np
import pytest

from bench.evidence.baselines import BEFORE, MINUTES, PHASE, WEEK, WINDOW, Metric, breaches, is_allowed, noise_in, readings_of
from bench.evidence.means import Latencies, Latency, Means
from bench.evidence.runs import Bounds, Ratios, Runs, WithoutCells
from bench.evidence.scenarios import ALPHA, CLUSTERED, DEFAULT, DEFAULT_OF_MEANS, SCENARIOS
from bench.evidence.traffic import CELLS, Counts, Traffic, Users
from session_rollout.api.checks import Guard
from session_rollout.api.metrics import SeasonalBaseline
from session_rollout.core.evaluation import Direction
from session_rollout.core.statistics.inflation import ALPHA_OF_SAFETY, InformationBlocks, inflation_of, inflation_of_safety
from session_rollout.core.statistics.means import means_of
from session_rollout.core.statistics.rates import NOTHING, Block, RateTest, Tolerance
from session_rollout.core.statistics.ratio import RatioTest, inflation_of_ratio
from session_rollout.simulation.history import History, SeasonalHistory
from session_rollout.simulation.noise import noise_of, too_small
from session_rollout.simulation.seasonal_replay import replay_of

# The part of the runs that is simulated here, of each scenario.
PARTS = {
    "false-rollbacks": 0.1,
    "clustered-rollbacks": 0.1,
    "detection": 1.0,
    "passes": 0.5,
    "exposures": 0.1,
    "baselines": 0.25,
    "bounds": 0.1,
    "means": 0.05,
}
HORIZON = 10_080
BLOCKS = 600
RUNS = 6  # of metrics with a baseline


def test_every_scenario_has_a_part() -> None:
    assert PARTS.keys() == SCENARIOS.keys()


@pytest.mark.parametrize("scenario", PARTS)
def test_figures_are_within_their_limits(scenario: str) -> None:
    exceeded = [figure for figure in SCENARIOS[scenario](PARTS[scenario]) if figure.ratio > 1]
    assert not exceeded


def cells_of(counts: Counts, run: int) -> list[Block]:
    """The counts of one run."""
    columns = (counts.on_bad, counts.on_total, counts.off_bad, counts.off_total)
    return [Block(*(float(column[run, cell]) for column in columns)) for cell in range(counts.on_bad.shape[1])]


def together(cells: list[Block]) -> Block:
    """All cells of one block."""
    return sum(cells, NOTHING)


def test_simulated_means_are_those_of_the_operator() -> None:
    """Same sums, same evidence."""
    latencies = Latencies(Traffic(users=20_000, variation=2), Latency(factor=1.3), 3, np.random.default_rng(8))
    runs, sums = Means(3, DEFAULT_OF_MEANS, ALPHA), [[NOTHING] * CELLS] * 3
    for number in range(BLOCKS):
        counts = latencies.block(number)
        runs.add(counts)
        for run in range(3):
            sums[run] = [before + more for before, more in zip(sums[run], cells_of(counts, run), strict=True)]
        for safe, alpha in ((False, ALPHA), (True, ALPHA_OF_SAFETY)):
            known = [means_of(cells, DEFAULT_OF_MEANS, alpha, safe=safe) for cells in sums]
            logs = [each.log_evidence(Tolerance(DEFAULT_OF_MEANS, 0), safe=safe) if each is not None else 0.0 for each in known]
            assert runs.log_evidence(alpha, safe=safe) == pytest.approx(logs, rel=1e-9)


def test_simulated_tests_are_those_of_the_operator() -> None:
    """Same blocks, same evidence, same inflation, with cells."""
    users = Users(replace(CLUSTERED, harm=0.002), 3, np.random.default_rng(9))
    runs = Runs(3, users.cells, DEFAULT, ALPHA)
    tests, cells, inflation = [RateTest()] * 3, [[NOTHING] * CELLS] * 3, [1.0] * 3
    for number in range(BLOCKS):
        counts = users.block(number)
        runs.add(counts)
        for run in range(3):
            block = cells_of(counts, run)
            cells[run] = [before + more for before, more in zip(cells[run], block, strict=True)]
            after = inflation_of(cells[run], DEFAULT.times, ALPHA)
            inflation[run] = max(inflation[run], after)
            tests[run] = tests[run].add(together(block), DEFAULT, inflation[run])
            assert runs.shows_harm(HORIZON)[run] == tests[run].shows_harm(ALPHA, HORIZON, after)
    for run, test in enumerate(tests):
        assert runs.start[:, run] == pytest.approx(test.start, rel=1e-9)
        assert runs.recent[:, run] == pytest.approx(test.recent, rel=1e-9)
        assert runs.safe[:, run] == pytest.approx(test.safe, rel=1e-9)
        assert runs.largest[run] == pytest.approx(inflation[run])
        assert runs.inflation[run] == pytest.approx(inflation_of(cells[run], DEFAULT.times, ALPHA))
        assert runs.safe_inflation[run] == pytest.approx(inflation_of_safety(cells[run], DEFAULT.times))


def test_simulated_tests_of_a_bound_are_those_of_the_operator() -> None:
    """Of all users, against a fixed rate."""
    users, bound = Users(CLUSTERED, 2, np.random.default_rng(12)), Tolerance(0.0, 0.004)
    runs = Bounds(2, users.cells, bound.plus, ALPHA)
    tests, cells, largest = [RateTest()] * 2, [[NOTHING] * CELLS] * 2, [1.0] * 2
    for number in range(BLOCKS):
        counts = users.block(number)
        runs.add(counts)
        for run in range(2):
            block = [Block(each.on_bad + each.off_bad, each.on_total + each.off_total, 0, 0) for each in cells_of(counts, run)]
            cells[run] = [before + more for before, more in zip(cells[run], block, strict=True)]
            largest[run] = max(largest[run], inflation_of(cells[run], 0, ALPHA))
            tests[run] = tests[run].add(together(block), bound, largest[run])
    for run, test in enumerate(tests):
        assert runs.start[:, run] == pytest.approx(test.start, rel=1e-9)
        assert runs.recent[:, run] == pytest.approx(test.recent, rel=1e-9)
        assert runs.safe[:, run] == pytest.approx(test.safe, rel=1e-9)
        assert runs.safe_inflation[run] == pytest.approx(inflation_of_safety(cells[run], 0))


def test_simulated_tests_without_cells_are_those_of_the_operator() -> None:
    users = Users(CLUSTERED, 2, np.random.default_rng(10))
    runs = WithoutCells(2, DEFAULT, ALPHA)
    tests, known = [RateTest()] * 2, [InformationBlocks()] * 2
    for number in range(BLOCKS):
        counts = users.block(number)
        runs.add(counts)
        for run in range(2):
            block, before = together(cells_of(counts, run)), known[run].inflation(ALPHA)
            known[run] = known[run].add(block, tests[run].events.on_bad, tests[run].expected)
            tests[run] = tests[run].add(block, DEFAULT, max(before, known[run].inflation(ALPHA)))
    for run in range(2):
        assert runs.inflation[run] == pytest.approx(known[run].inflation(ALPHA))
        assert runs.recent[:, run] == pytest.approx(tests[run].recent, rel=1e-9)


def test_simulated_ratios_are_those_of_the_operator() -> None:
    users = Users(Traffic(per_hour=1_667, users=20_000, variation=2), 2, np.random.default_rng(11))
    runs = Ratios(2, 5.0)
    blocks = [users.sessions(number, wired=True) for number in range(200)]
    for on, off in blocks:
        runs.add(on, off)
    for run in range(2):
        counts = [(float(on[run].sum()), float(off[run].sum())) for on, off in blocks]
        test = reduce(lambda test, block: test.add(*block, 5.0), counts, RatioTest())
        assert runs.more[:, run] == pytest.approx(test.more, rel=1e-9)
        assert runs.fewer[:, run] == pytest.approx(test.fewer, rel=1e-9)
        cells = [(sum(on[run, cell] for on, _ in blocks), sum(off[run, cell] for _, off in blocks)) for cell in range(CELLS)]
        assert runs.rejects()[run] == test.rejects(inflation_of_ratio(cells))


def test_simulated_baselines_are_those_of_the_operator() -> None:
    """D17: same readings, same noise, same breaches; some runs have one, by noise that the tolerance is too small for."""
    readings = readings_of(Metric(noise=0.1), RUNS, np.random.default_rng(12))
    interval, start = timedelta(minutes=MINUTES), datetime(2026, 1, 5, tzinfo=UTC)
    fields = {"name": "load", "metric": "load", "comparedTo": "Baseline", "maxIncrease": "20%", "for": "5m"}
    guard, breached = Guard.model_validate(fields), []
    for run in range(RUNS):
        seasons = SeasonalHistory(History.of(start, interval, readings[run]), SeasonalBaseline())
        before = replace(seasons, means=History.of(start, interval, readings[run, :BEFORE]))
        noise = noise_of(before, start + (BEFORE - WEEK + WINDOW) * interval)
        assert noise.beyond(Direction.MAX_INCREASE) == pytest.approx(noise_in(readings)[run], rel=1e-9)
        assert (too_small(guard, noise) is None) == is_allowed(readings)[run]
        history = History.of(start + BEFORE * interval, interval, readings[run, BEFORE:], seasons)
        breached.append(replay_of(guard, {"load": history}).breach(0, PHASE) is not None)
    assert breached == list(breaches(readings))
    assert len(set(breached)) == 2
