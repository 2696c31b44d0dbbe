"""What is simulated: each scenario ends in figures against the limits of the comparison with users without the feature."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from bench.evidence.baselines import Metric, breaches, is_allowed, readings_of
from bench.evidence.means import Latencies, Latency, Means
from bench.evidence.runs import Bounds, Oracle, Ratios, Runs, WithoutCells
from bench.evidence.traffic import CELLS, Array, Step, Traffic, Truths, Users
from bench.figures import Figure
from session_rollout.core.statistics.rates import Tolerance

EDGE: Final = Tolerance(times=1.0, plus=0.0)  # without an effect, the rates are at the edge of the null hypothesis
DEFAULT: Final = Tolerance(times=1.25, plus=0.001)
FALSE_ROLLBACKS: Final = 0.01  # of a rollout
TESTS: Final = 12  # three phases with four guards
ALPHA: Final = FALSE_ROLLBACKS / TESTS
LONGEST_HOURS: Final = 35 * 24
CLUSTERED: Final = Traffic(rate=0.005, users=20_000, variation=3, burst=5)
EARLY: Final = (Step(0.05, 3),)
BLOCK_MINUTES: Final = 1.0
LAG_MINUTES: Final = 1.0
TESTS_BY_RATE: Final = {0.0005: 3, 0.005: 6, 0.02: 3}  # bad events without the feature


@dataclass(frozen=True)
class Result:
    """What happened in each run: the block that showed it, or -1, and the bad sessions that the feature caused until then."""

    block: Array
    harmed: Array

    @property
    def share(self) -> float:
        """Share of runs in which it was shown."""
        return float((self.block >= 0).mean())

    def median_hours(self, traffic: Traffic) -> float:
        """Median of the time from the beginning of the harm, with the lag of the blocks; infinite if it was not shown in half of the runs."""
        hours = np.where(self.block < 0, np.inf, (self.block + 1) * traffic.minutes / 60)
        return float(np.median(hours)) - traffic.harm_from_hour + LAG_MINUTES / 60


def follow(traffic: Traffic, tests: Runs | Oracle, users: Users, shown: Callable[[], Truths]) -> Result:
    """Add one block after the other, and read the tests after each."""
    runs = users.runs
    block, harmed, sofar = np.full(runs, -1.0), np.zeros(runs), np.zeros(runs)
    for number in range(traffic.blocks):
        counts = users.block(number)
        if (number + 0.5) * traffic.minutes / 60 >= traffic.harm_from_hour:
            sofar += counts.on_bad.sum(axis=1)
        tests.add(counts)
        now = shown() & (block < 0)
        block[now], harmed[now] = number, sofar[now]
        if (block >= 0).all():
            break
    harmed[block < 0] = sofar[block < 0]
    return Result(block, harmed + harmed_in_lag(traffic))


def harmed_in_lag(traffic: Traffic) -> float:
    """Bad sessions with the feature until the block that shows them can be queried."""
    return traffic.per_hour * LAG_MINUTES / 60 * traffic.share_at(traffic.harm_from_hour) * (traffic.rate + traffic.harm)


def harm(
    traffic: Traffic, runs: int, tolerance: Tolerance, alpha: float = ALPHA, *, seed: int = 1, start_only: bool = False
) -> Result:
    """When a guard would have acted."""
    users = Users(traffic, runs, np.random.default_rng(seed))
    horizon = max(LONGEST_HOURS * 60 / traffic.minutes, traffic.blocks)
    tests = Runs(runs, users.cells, tolerance, alpha, start_only=start_only)
    return follow(traffic, tests, users, lambda: tests.shows_harm(horizon))


def safety(traffic: Traffic, runs: int, *, seed: int = 2) -> Result:
    """When a criterion would have passed."""
    users = Users(traffic, runs, np.random.default_rng(seed))
    tests = Runs(runs, users.cells, DEFAULT, ALPHA)
    return follow(traffic, tests, users, tests.shows_safety)


def false_rollbacks(scale: float) -> Iterator[Figure]:
    """Harmless features that are rolled back."""
    runs = some(1_000, scale)
    wrong = np.zeros(runs, dtype=bool)
    for rate, tests in TESTS_BY_RATE.items():
        result = harm(Traffic(rate=rate), runs * tests, EDGE, seed=10)
        wrong |= (result.block.reshape(tests, runs) >= 0).any(axis=0)
    yield Figure(f"a rollout with {TESTS} tests at the edge, {runs} runs", 100 * float(wrong.mean()), "%", 1)
    for alpha in (0.05, 0.01):
        for name, traffic in {
            "5 m": Traffic(rate=0.005),
            "5 m, wave of users": Traffic(rate=0.005, wave=0.8, share_wave=0.3),
            "5 m, rate 0.01%": Traffic(rate=0.0001, wave=0.8),
            "30 s": Traffic(rate=0.005, minutes=0.5),
        }.items():
            runs = some(400 if traffic.minutes < 1 else 2_000, scale)
            result = harm(traffic, runs, EDGE, alpha, seed=30)
            yield Figure(f"one test, alpha {alpha:.0%}, {name}, {runs} runs", 100 * result.share, "%", 100 * alpha)


def clustered_rollbacks(scale: float) -> Iterator[Figure]:
    """The same if users differ and bad sessions come in bursts."""
    for name, tolerance, burst, limit in (
        ("edge, bursts of 5", EDGE, 5.0, 0.2),
        ("edge, bursts of 3", EDGE, 3.0, 0.2),
        ("default, bursts of 5", DEFAULT, 5.0, 0.2),
    ):
        runs = some(2_000, scale)
        result = harm(replace(CLUSTERED, burst=burst), runs, tolerance, seed=40, start_only=True)
        yield Figure(f"users differ, {name}, start, {runs} runs", 100 * result.share, "%", limit)
    for name, tolerance in (("edge", EDGE), ("default", DEFAULT)):
        runs = some(400, scale)
        result = harm(CLUSTERED, runs, tolerance, seed=41)
        yield Figure(f"users differ, {name}, start and recent, {runs} runs", 100 * result.share, "%", 1)
    runs = max(some(1_000, scale), 500)  # one of fewer would be more than the limit
    dense = replace(CLUSTERED, per_hour=200_000, rate=0.01, variation=0, steps=(Step(0.05, 7),))
    result = harm(dense, runs, EDGE, seed=46)
    yield Figure(f"edge, many bursts in each block, start and recent, {runs} runs", 100 * result.share, "%", 0.2)
    runs = some(1_600, scale)
    users = Users(CLUSTERED, runs, np.random.default_rng(42))
    tests = WithoutCells(runs, EDGE, ALPHA)
    result = follow(CLUSTERED, tests, users, lambda: tests.shows_harm(LONGEST_HOURS * 12))
    yield Figure(f"users differ, without cells, {runs} runs", 100 * result.share, "%", 1)


DETECTED: Final = ((0.01, 5.0, 15), (0.05, 0.75, 10), (0.15, 0.25, 10), (0.5, 5 / 60, 15))


def detection(scale: float) -> Iterator[Figure]:
    """Harm that is found at 5 % of users, 10,000 sessions an hour, of which 0.05 % are bad without the feature."""
    runs = some(4_000, scale)
    for more, hours, harmed in DETECTED:
        traffic = Traffic(harm=more, steps=EARLY, minutes=BLOCK_MINUTES)
        result = harm(traffic, runs, DEFAULT, seed=50)
        yield Figure(f"+{100 * more:g} points: median time, {runs} runs", 60 * result.median_hours(traffic), "min", 60 * hours)
        yield Figure(f"+{100 * more:g} points: harmed", float(result.harmed.mean()), "sessions", harmed)
        known = oracle(traffic, runs)
        guessed = harm(traffic, runs, EDGE, seed=50, start_only=True)
        ratio = float(guessed.harmed.mean() / known.harmed.mean())
        yield Figure(f"+{100 * more:g} points: harmed, against a test that knows the rates", ratio, "x", 1.6)
    late = Traffic(harm=0.01, harm_from_hour=240, minutes=BLOCK_MINUTES)
    result = harm(late, some(100, scale), DEFAULT, seed=51)
    yield Figure("+1 point from hour 240 on: median time", result.median_hours(late), "h", 4)


def oracle(traffic: Traffic, runs: int, *, seed: int = 50) -> Result:
    """When a test that knows the rates would have acted."""
    users = Users(traffic, runs, np.random.default_rng(seed))
    test = Oracle(runs, traffic.rate + traffic.harm, traffic.rate, ALPHA)
    return follow(traffic, test, users, test.shows_harm)


def passes(scale: float) -> Iterator[Figure]:
    """Features that are shown to be harmless, rightly and wrongly."""
    runs = some(400, scale)
    for rate in (0.0005, 0.005):
        edge = DEFAULT.limit(rate) / rate
        result = safety(Traffic(rate=rate, factor=edge), runs)
        yield Figure(f"at the edge, rate {100 * rate:g}%: false passes, {runs} runs", 100 * result.share, "%", 6)
        result = safety(Traffic(rate=rate, factor=2 * edge), runs)
        yield Figure(f"at twice the edge, rate {100 * rate:g}%: false passes", 100 * result.share, "%", 0.1)
        result = safety(Traffic(rate=rate, steps=EARLY), runs)
        yield Figure(f"no effect, rate {100 * rate:g}%: passes within 3 d", 100 * result.share, "%", 95, at_least=True)
    runs = some(1_600, scale)
    for users, burst, rate in ((20_000, 3.0, 0.005), (120_000, 3.0, 0.005), (20_000, 3.0, 0.0005), (20_000, 5.0, 0.005)):
        edge = DEFAULT.limit(rate) / rate
        traffic = replace(CLUSTERED, users=users, burst=burst, rate=rate, factor=edge)
        result = safety(traffic, runs)
        name = f"{users:,} users differ, bursts of {burst:g}, rate {100 * rate:g}%"
        yield Figure(f"at the edge, {name}: false passes, {runs} runs", 100 * result.share, "%", 6)


BOUND: Final = 0.01
OF_ALL: Final = Traffic(rate=BOUND, users=20_000, burst=5, steps=(Step(0.5, 7),))


def bounds(scale: float) -> Iterator[Figure]:
    """Events of all users against a fixed rate, if bad sessions come in bursts."""
    runs = some(1_500, scale)
    for name, traffic in (("bursts of 5", OF_ALL), ("bursts of 5, 1,000/h", replace(OF_ALL, per_hour=1_000))):
        rollbacks, passed = bounded(traffic, runs)
        yield Figure(f"at the bound, {name}: false rollbacks, {runs} runs", 100 * rollbacks.share, "%", 0.2)
        yield Figure(f"at the bound, {name}: false passes", 100 * passed.share, "%", 6)
    rollbacks, passed = bounded(replace(OF_ALL, rate=2 * BOUND), some(400, scale))
    yield Figure("at twice the bound: median time", 60 * rollbacks.median_hours(OF_ALL), "min", 300)
    rollbacks, passed = bounded(replace(OF_ALL, rate=BOUND / 2), some(400, scale))
    yield Figure("at half of the bound: median time until it passes", 60 * passed.median_hours(OF_ALL), "min", 300)


def bounded(traffic: Traffic, runs: int) -> tuple[Result, Result]:
    """When a guard would have acted, and when a criterion would have passed."""
    users, tests = Users(traffic, runs, np.random.default_rng(70)), Bounds(runs, CELLS, BOUND, ALPHA)
    failed, passed = np.full(runs, -1.0), np.full(runs, -1.0)
    for number in range(traffic.blocks):
        tests.add(users.block(number))
        failed[tests.shows_harm(LONGEST_HOURS * 60 / traffic.minutes) & (failed < 0)] = number
        passed[tests.shows_safety() & (passed < 0)] = number
    return Result(failed, failed), Result(passed, passed)


DEFAULT_OF_MEANS: Final = 1.251
LATENCIES: Final = {
    "users differ": Latency(),
    "users differ much, long tail": Latency(variation=4, between_users=2),
    "users are alike": Latency(variation=1, between_users=0),
}
SLOW_USERS: Final = Traffic(users=20_000, variation=2)


def means(scale: float) -> Iterator[Figure]:
    """Means of latencies, by 16 cells."""
    runs = some(1_600, scale)
    for name, latency in LATENCIES.items():
        edge = replace(latency, factor=DEFAULT_OF_MEANS)
        rollbacks, passed = compared_means(SLOW_USERS, edge, runs)
        yield Figure(f"mean at the edge, {name}: false rollbacks, {runs} runs", 100 * rollbacks.share, "%", 0.2)
        yield Figure(f"mean at the edge, {name}: false passes", 100 * passed.share, "%", 6)
    rollbacks, _ = compared_means(SLOW_USERS, Latency(), runs)
    yield Figure(f"mean without an effect: false rollbacks, {runs} runs", 100 * rollbacks.share, "%", 0.1)
    early = replace(SLOW_USERS, steps=EARLY)
    _, passed = compared_means(early, Latency(), some(400, scale))
    yield Figure("mean without an effect: passes within 3 d", 100 * passed.share, "%", 95, at_least=True)
    rollbacks, _ = compared_means(early, Latency(factor=2), some(400, scale))
    yield Figure("twice the mean: median time", 60 * rollbacks.median_hours(early), "min", 300)


def compared_means(traffic: Traffic, latency: Latency, runs: int) -> tuple[Result, Result]:
    """When a guard would have acted, and when a criterion would have passed."""
    values, tests = Latencies(traffic, latency, runs, np.random.default_rng(80)), Means(runs, DEFAULT_OF_MEANS, ALPHA)
    failed, passed = np.full(runs, -1.0), np.full(runs, -1.0)
    for number in range(traffic.blocks):
        tests.add(values.block(number))
        failed[tests.shows_harm() & (failed < 0)] = number
        passed[tests.shows_safety() & (passed < 0)] = number
    return Result(failed, failed), Result(passed, passed)


WIRED: Final = {"as published": 0.05, "on nine Pods of ten": 0.045, "for nobody": 0.0}
PUBLISHED: Final = 5.0


def exposures(scale: float) -> Iterator[Figure]:
    """Rollouts of 5 % whose users have the feature, or have not, at 1,667 sessions an hour."""
    runs = some(600, scale)
    traffic = Traffic(per_hour=1_667, minutes=BLOCK_MINUTES, users=20_000, variation=2)
    for name, share in WIRED.items():
        users = Users(replace(traffic, steps=(Step(share or 0.05, 3),)), runs, np.random.default_rng(60))
        tests, block = Ratios(runs, PUBLISHED), np.full(runs, -1.0)
        for number in range(traffic.blocks if share else 60):
            tests.add(*users.sessions(number, wired=share > 0))
            block[tests.rejects() & (block < 0)] = number
        result = Result(block, block)
        if share:
            yield Figure(f"feature {name}: refuted, {runs} runs", 100 * result.share, "%", 0.1)
        else:
            yield Figure(f"feature {name}: median time until refuted", 60 * result.median_hours(traffic), "min", 60)


QUIET: Final = {
    "noise 3%, weeks differ by 3%": Metric(noise=0.03),
    "noise 5%, weeks differ by 3%": Metric(noise=0.05),
    "noise 3% that lasts for an hour, weeks differ by 2%": Metric(noise=0.03, memory=0.9, weeks=0.02),
    "noise 8%": Metric(noise=0.08, weeks=0.0),
}
BATCH: Final = 400


def baselines(scale: float) -> Iterator[Figure]:
    """Guards with a tolerance of 20 % against the median of three weeks, where the noise of a week allows it."""
    runs = some(4_000, scale)
    for name, metric in QUIET.items():
        allowed, breached, seen = _with_baseline(metric, runs)
        what = f"20% above three weeks, {name}"
        yield Figure(f"{what}: breaches in 8 d, {allowed.sum()} runs", 100 * float(breached[allowed].mean()), "%", 1)
        yield Figure(f"{what}: a rise of 30% is seen in a day", 100 * float(seen[allowed].mean()), "%", 99, at_least=True)
        if name == next(iter(QUIET)):
            yield Figure(f"{what}: tolerances that are accepted", 100 * float(allowed.mean()), "%", 90, at_least=True)
    allowed, _, _ = _with_baseline(Metric(noise=0.1), some(runs, 0.2))
    yield Figure("20% above three weeks, noise 10%: tolerances that are accepted", 100 * float(allowed.mean()), "%", 1)


def _with_baseline(metric: Metric, runs: int) -> tuple[Truths, Truths, Truths]:
    """Runs in which the tolerance is accepted, in which it is breached by chance, and in which a rise of 30 % is seen in a day."""
    rng, parts = np.random.default_rng(70), list[tuple[Truths, Truths, Truths]]()
    for first in range(0, runs, BATCH):
        readings = readings_of(metric, min(BATCH, runs - first), rng)
        parts.append((is_allowed(readings), breaches(readings), breaches(readings, rise=0.3, days=1)))
    allowed, breached, seen = (np.concatenate(each) for each in zip(*parts, strict=True))
    return allowed, breached, seen


def some(runs: int, scale: float) -> int:
    """A number of runs, for a part of the whole simulation."""
    return max(round(runs * scale), 20)


SCENARIOS: Final[dict[str, Callable[[float], Iterator[Figure]]]] = {
    "false-rollbacks": false_rollbacks,
    "clustered-rollbacks": clustered_rollbacks,
    "detection": detection,
    "passes": passes,
    "exposures": exposures,
    "bounds": bounds,
    "means": means,
    "baselines": baselines,
}
