"""A provider that counts by cohort, rollouts that ask for its blocks, and the clock of both."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

from adapters.clocks import START, Clock
from adapters.providers import FOREVER, MADE, Answers, Handler, answering, run, success
from session_rollout.adapters.prometheus import PrometheusSource
from session_rollout.api.metrics import Control, Metric
from session_rollout.core.blocks import CohortBlock
from session_rollout.core.observed import Measurement
from session_rollout.settings import Provider

BLOCK, LAG, SCRAPE = timedelta(seconds=10), timedelta(seconds=2), timedelta(seconds=1)
CONTROL = Control(block="10s", lag="2s")


def counted(name: str = "failures", **cohorts: str) -> Metric:
    fields = cohorts or {"bad": "bad_total", "total": "all_total"}
    return Metric.model_validate({"name": name, "cohorts": {"feature": "checkout", **fields}})


METRIC = counted()


class Counts(Handler):
    """Answers every range query: 2 bad of 50 events with the feature, 9 bad of 450 without it, in each block."""

    def do_GET(self) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        start, end, step = (float(asked[name]) for name in ("start", "end", "step"))
        moments = [start + number * step for number in range(int((end - start) / step) + 1)]
        result = [
            {"metric": {"variant": variant, "part": part}, "values": [[moment, value] for moment in moments]}
            for part, variant, value in (
                ("bad", "on", "2"),
                ("bad", "off", "9"),
                ("total", "on", "50"),
                ("total", "off", "450"),
            )
        ]
        self.server.bodies = {} if self.server.body else {asked["query"]: success({"resultType": "matrix", "result": result})}
        super().do_GET()


class Rollout:
    """One that asks for blocks: `woken` counts, and `blocks` waits as a rollout does, which comes again when it is woken."""

    def __init__(self, source: PrometheusSource, metric: Metric = METRIC, control: Control = CONTROL) -> None:
        self.source, self.metric, self.control = source, metric, control
        self.woken, self.event = 0, asyncio.Event()

    def wake(self) -> None:
        self.woken += 1
        self.event.set()

    def latest(self, since: datetime) -> Measurement | None:
        return self.source.blocks("default", self.metric, self.control, since, self.wake)

    async def result(self, since: datetime) -> Measurement:
        """The result once the refreshes that are due have ended."""
        while True:
            result = self.latest(since)
            if result is not None and not self.source._blocks._cache._tasks:
                return result
            await asyncio.wait_for(self.event.wait(), 60)
            self.event.clear()

    async def blocks(self, since: datetime) -> tuple[CohortBlock, ...]:
        series = (await self.result(since)).series
        assert series is not None
        assert (series.length, series.scrape) == (BLOCK, SCRAPE)
        return series.blocks


class Lab:
    """A provider, a source that asks it, and the clock of both."""

    def __init__(self, server: Answers) -> None:
        self.server, self.clock = server, Clock()
        provider = Provider(url=f"http://127.0.0.1:{server.server_port}", timeout=FOREVER, scrape_interval="1s")
        self.source = PrometheusSource({"default": provider}, self.clock, 4)
        MADE.append(self.source)

    def rollout(self, metric: Metric = METRIC, control: Control = CONTROL) -> Rollout:
        return Rollout(self.source, metric, control)

    def asked(self) -> list[tuple[int, int]]:
        """The periods that were asked for since the last call: the first and the last end, as numbers of blocks after START."""
        periods = []
        for target in self.server.targets:
            asked = parse_qs(urlsplit(target).query)
            ends = [datetime.fromtimestamp(float(asked[name][0]), UTC) for name in ("start", "end")]
            periods.append(((ends[0] - START) // BLOCK, (ends[1] - START) // BLOCK))
        self.server.targets.clear()
        return periods


def on_lab(test: Callable[[Lab], Awaitable[None]]) -> None:
    """Run a test with a provider whose answers have no `Date`, because its time is not that of our clock."""
    with answering(handler=Counts) as server:
        server.date = None

        async def body() -> None:
            await test(Lab(server))

        run(body())


def ends(blocks: tuple[CohortBlock, ...]) -> list[int]:
    return [(block.end - START) // BLOCK for block in blocks]


def numbers_of(result: Measurement | None) -> list[int]:
    """The blocks of a result."""
    assert result is not None
    assert result.series is not None
    return ends(result.series.blocks)
