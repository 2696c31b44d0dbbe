"""A world whose application counts events by cohort, in blocks that `decide` is given as from Prometheus."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from core import world as tests
from core.collecting import World
from session_rollout.api.enums import CheckKind, CheckReason, Verdict
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.blocks import BlockProblem, BlockSeries, CohortBlock
from session_rollout.core.observed import Measurement
from session_rollout.core.statistics.rates import Block

BLOCK = timedelta(seconds=10)
COHORTS = {"feature": "alpha", "bad": 'sessions_total{result="failure"}', "total": "sessions_total"}
COMPARED = {"name": "failures", "metric": "failures", "comparedTo": "Control"}
CELLS = tuple(str(number) for number in range(16))


def spec(**changes: Any) -> RolloutSpec:
    """Two phases of one feature each; the first is compared."""
    return RolloutSpec.model_validate(
        {
            "flagSet": "shop",
            "checkInterval": "10s",
            "propagation": "20s",
            "control": {"block": "10s", "lag": "0s"},
            "features": [{"name": "alpha"}, {"name": "beta"}],
            "metrics": [{"name": "failures", "cohorts": COHORTS}],
            "phases": [
                {
                    "name": "one",
                    "features": ["alpha"],
                    "steps": [{"percent": 20, "hold": "60s"}, {"percent": 50, "hold": "60s"}, {"percent": 100, "hold": "60s"}],
                    "criteria": [COMPARED],
                },
                {"name": "two", "features": ["beta"], "steps": [{"percent": 100, "hold": "60s"}]},
            ],
            "guards": [COMPARED],
            **changes,
        }
    )


COUNTS = {"bad": 'sessions_total{result="failure"}', "total": "sessions_total"}
BELOW = {"name": "failures", "metric": "failures", "below": "1%"}
STEPS = [{"percent": 20, "hold": "60s"}, {"percent": 100, "hold": "60s"}]


def bounded(*, guards: tuple[dict[str, Any], ...] = (BELOW,), criteria: tuple[dict[str, Any], ...] = (BELOW,)) -> RolloutSpec:
    """Two phases of one feature each; both are judged by the events of all users."""
    phases = [
        {"name": name, "features": [feature], "steps": STEPS, "criteria": list(criteria)}
        for name, feature in (("one", "alpha"), ("two", "beta"))
    ]
    return spec(metrics=[{"name": "failures", "counts": COUNTS}], guards=list(guards), phases=phases)


def of_means(**changes: Any) -> RolloutSpec:
    """The same as `spec`, of the mean of a latency."""
    latency = {"feature": "alpha", "sum": "page_load_seconds_sum", "count": "page_load_seconds_count"}
    return spec(**{"metrics": [{"name": "failures", "cohorts": latency}], **changes})


@dataclass
class Counting(World):
    """A world whose application counts events: `rates` are those of bad events with the feature and without it."""

    traffic: float = 100_000.0  # of all users in a block
    rates: tuple[float, float] = (0.001, 0.001)
    spread: float = 0.0  # by which these differ between cells
    problem: BlockProblem | None = None
    cells: tuple[str, ...] = CELLS
    applied: float | None = None  # percent of users to whom the application gives the feature, whatever is published
    feature: str = "alpha"  # whose users are counted
    of_all: bool = False  # the counters have no label `variant`
    counted: dict[datetime, CohortBlock] = field(default_factory=dict)
    counts_bad: bool = True  # whether it exports a counter of bad events
    read_until: datetime | None = None  # later blocks are still to be read from the provider

    def __post_init__(self) -> None:
        self.ranges = dict.fromkeys((metric.name for metric in self.spec.metrics), timedelta(seconds=20))

    def measure(self, name: str) -> Measurement | None:
        metric = self.spec.metric(name)
        if metric is None or metric.counted is None:
            return super().measure(name)
        if not self.answering:
            return None
        known = self.values.get(name)
        if isinstance(known, Verdict):
            return Measurement(self.now, problem=known, reason=CheckReason.CONNECTION_FAILED, message="unreachable")
        end = datetime.fromtimestamp(self.now.timestamp() // BLOCK.total_seconds() * BLOCK.total_seconds(), UTC)
        if end not in self.counted:
            self.counted[end] = self._block(end)
        read = [self.counted[key] for key in sorted(self.counted) if key <= (self.read_until or end)]
        time = self.now if self.read_until is None else min(self.now, self.read_until + BLOCK)
        return Measurement(time, series=BlockSeries(BLOCK, tuple(read)))

    def leave(self, blocks: int) -> None:
        """As many blocks without the operator: the application counts all the same."""
        last = max(self.counted)
        self.counted |= {end: self._block(end) for end in (last + number * BLOCK for number in range(1, blocks + 1))}
        self.now = last + blocks * BLOCK

    def _block(self, end: datetime) -> CohortBlock:
        if self.problem is not None:
            return CohortBlock(end, problem=self.problem)
        given = self.document.audiences.get(self.feature) if self.document is not None else None
        percent = float(given.placebo or given.share) if given is not None else 0.0
        percent = 100.0 if self.of_all else percent if self.applied is None else self.applied
        with_it, without = self.traffic * percent / 100, self.traffic * (100 - percent) / 100
        share = len(self.cells)
        on, off = (rate / share for rate in self.rates)
        cells = {
            name: Block(with_it * on * (1 + vary), with_it / share, without * off * (1 - vary), without / share)
            for name, vary in zip(self.cells, itertools.cycle((self.spread, -self.spread)), strict=False)
        }
        problem = None if with_it and (without or self.of_all) else BlockProblem.NO_EVENTS
        return CohortBlock(end, cells, problem=problem, counts_bad=self.counts_bad)

    def verdict(self, kind: CheckKind) -> tuple[Verdict, CheckReason | None]:
        """That of the comparison."""
        record = next(each for each in self.status.checks if (each.kind, each.name) == (kind, "failures"))
        return record.verdict, record.reason


def in_step(percent: str) -> Callable[[tests.World], bool]:
    """The audience of this percentage is published."""
    return lambda world: world.status.current.percent == percent and world.status.current.published_time is not None
