"""Blocks of metrics that are counted by cohort, for `PrometheusSource`: in memory, shared by rollouts, each read once.

A block does not change after it was read, so that a refresh asks for those that are missing, the oldest first. What a rollout
gets has no gaps: a block that could not be read yet comes before any later one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import dropwhile, islice, takewhile
from typing import Final

from session_rollout.adapters.cohort_metrics import counting_of
from session_rollout.adapters.fresh_cache import FORGET_AFTER, FreshCache
from session_rollout.adapters.prometheus_blocks import MOST_BLOCKS, ends_of_blocks, fetch_blocks, last_end
from session_rollout.adapters.promql import Intervals, lag_of
from session_rollout.adapters.promql_blocks import CohortQueries
from session_rollout.adapters.provider_client import ProviderClient
from session_rollout.adapters.provider_clock import ProviderClock
from session_rollout.adapters.provider_results import internal_error, measured, no_value, unknown_provider
from session_rollout.adapters.telemetry import QUERIES_REQUESTED
from session_rollout.api.enums import CheckReason, Verdict
from session_rollout.api.metrics import Control, Metric
from session_rollout.core.blocks import BlockSeries, CohortBlock
from session_rollout.core.observed import Measurement
from session_rollout.ports import Clock

MOST_CHUNKS: Final = 20  # of one refresh; the next one continues
MOST_KNOWN: Final = 2_000  # a day and a half of minutes; who wants older ones gets these
RETRY_AFTER: Final = timedelta(seconds=30)  # at most, and less for short blocks
RETRY_SHARE: Final = 0.9
MOMENT: Final = timedelta(milliseconds=1)  # resolution of the clock
Wake = Callable[[], None]


@dataclass(frozen=True)
class Question:
    """What rollouts share: counters in one spelling, in blocks of one length that are read after one lag."""

    provider: str
    queries: CohortQueries
    lag: timedelta


class KnownBlocks:
    """The blocks of one question that were read, and which of them rollouts want."""

    def __init__(self, queries: CohortQueries, now: datetime) -> None:
        self._length, self._scrape = queries.block, queries.scrape
        self._blocks: dict[datetime, CohortBlock] = {}  # by end
        self._wanted: dict[datetime, float] = {}  # the times since when blocks were asked for, and when that was
        self._failed: tuple[datetime, datetime] | None = None  # the period that the last refresh did not read in full
        self._answered = now

    def want(self, since: datetime, at: float) -> None:
        """Rollouts want the blocks since then; `at` is by the monotonic clock."""
        self._wanted[since] = at

    def forget(self, at: float) -> bool:
        """Whether nobody has asked for FORGET_AFTER. What was not asked for in that time is not wanted any more."""
        self._wanted = {since: asked for since, asked in self._wanted.items() if at - asked < FORGET_AFTER.total_seconds()}
        return not self._wanted

    def missing(self, since: datetime, until: datetime) -> tuple[datetime, ...]:
        """The ends of the first blocks that were not read, one after the other: as many as one request may have."""
        unread = dropwhile(self._blocks.__contains__, self._ends(since, until))
        return tuple(takewhile(lambda end: end not in self._blocks, islice(unread, MOST_BLOCKS)))

    def max_age(self, since: datetime, until: datetime) -> timedelta:
        """How old the last result may be. A block that is complete is read immediately, and after a failure in a while.

        While no block is missing there is no news: the next one is complete when this result is as old as a block at most.
        """
        if self._failed is None:
            return timedelta(0) if self.missing(since, until) else timedelta.max
        tried = self._failed[0] <= self._start(since, until) and until <= self._failed[1]
        return min(self._length * RETRY_SHARE, RETRY_AFTER) if tried else timedelta(0)

    def next(self, until: datetime) -> tuple[datetime, ...]:
        """The ends of the blocks to read next. Until `settle`, the refresh counts as failed."""
        since = min(self._wanted, default=until)
        self._failed = self._start(since, until), until
        return self.missing(since, until)

    def add(self, blocks: tuple[CohortBlock, ...], asked: datetime) -> None:
        """Blocks that were read."""
        self._blocks |= {block.end: block for block in blocks}
        self._answered = asked

    def settle(self, until: datetime) -> Measurement:
        """The result of a refresh without a failure: when the provider was last asked. Drops what nobody wants."""
        self._failed = None
        since = self._start(min(self._wanted, default=until), until)
        self._blocks = {end: block for end, block in self._blocks.items() if end - self._length >= since}
        return Measurement(self._answered)

    def series(self, since: datetime, until: datetime) -> BlockSeries | None:
        """The known blocks since then, up to the first one that is missing; None if the first is, unless it is news."""
        known = tuple(takewhile(self._blocks.__contains__, self._ends(since, until)))
        first = next(self._ends(since, until), until)
        if not known and max(self._blocks, default=first) >= first:
            return None
        return BlockSeries(self._length, tuple(self._blocks[end] for end in known), self._scrape)

    def next_end(self, since: datetime, until: datetime) -> datetime:
        """The end of the first block since then that is not known: it is to be read, or not complete yet."""
        return next((end for end in self._ends(since, until) if end not in self._blocks), until + self._length)

    def _start(self, since: datetime, until: datetime) -> datetime:
        """The earliest time since when blocks are kept, if they are wanted since then and read until `until`."""
        return max(since, until - MOST_KNOWN * self._length)

    def _ends(self, since: datetime, until: datetime) -> Iterator[datetime]:
        begin = self._start(since, until)
        while ends := ends_of_blocks(begin, until, self._length):
            yield from ends
            begin = ends[-1]


class CohortBlocks:
    """The blocks of all metrics of all providers."""

    def __init__(self, clients: dict[str, ProviderClient], clocks: dict[str, ProviderClock], clock: Clock) -> None:
        self._clients, self._clocks, self._clock = clients, clocks, clock
        self._known: dict[Question, KnownBlocks] = {}
        self._cache: FreshCache[Question, Measurement] = FreshCache(clock, internal_error)

    def latest(self, provider: str, metric: Metric, control: Control, since: datetime, wake: Wake) -> Measurement | None:
        """See `MetricSource.blocks`."""
        QUERIES_REQUESTED.labels(provider).inc()
        client, now = self._clients.get(provider), self._clock.now()
        if client is None:
            return unknown_provider(now, provider)
        intervals = Intervals.of(client.provider)
        try:
            question = Question(provider, counting_of(metric, control, intervals), lag_of(control, intervals))
        except ValueError as error:  # `read_queries` has it as a problem, too
            return no_value(now, Verdict.PROVIDER_ERROR, CheckReason.QUERY_REJECTED, f"`metrics` {metric.name}: {error}")
        return self._latest(client, question, since, wake)

    def _latest(self, client: ProviderClient, question: Question, since: datetime, wake: Wake) -> Measurement | None:
        now, queries = self._clock.now(), question.queries
        until = last_end(now - question.lag, queries.block)
        if not ends_of_blocks(since, until, queries.block):
            return Measurement(now, series=BlockSeries(queries.block, scrape=queries.scrape))  # none is complete yet
        known = self._known.setdefault(question, KnownBlocks(queries, now))
        known.want(since, self._clock.monotonic())
        refresh = partial(self._refresh, client, question, known, wake)
        result = self._cache.get(question, refresh, known.max_age(since, until), wake)
        if result is None or result.problem is not None:
            return result
        series = known.series(since, until)
        if series is None:
            return None
        # Once the next block is complete, there is more to know: while blocks of an outage are missing, this is no result of now.
        complete = known.next_end(since, until) + question.lag - MOMENT
        return replace(result, time=min(result.time, complete), series=series)

    async def _refresh(self, client: ProviderClient, question: Question, known: KnownBlocks, wake: Wake) -> Measurement:
        """Read what is missing. Blocks that came before a failure are known."""
        until, queries = last_end(self._clock.now() - question.lag, question.queries.block), question.queries
        for _ in range(MOST_CHUNKS):
            if not (ends := known.next(until)):
                break
            read = partial(self._read, client, question, known, ends)
            result = await client.slots.run(queries.both, wake, partial(measured, self._clock, question.provider, read))
            if result.problem is not None:
                return result
        now = self._clock.monotonic()
        self._known = {each: blocks for each, blocks in self._known.items() if not blocks.forget(now)}
        return known.settle(until)

    async def _read(
        self, client: ProviderClient, question: Question, known: KnownBlocks, ends: tuple[datetime, ...], start: datetime
    ) -> Measurement:
        """One request."""
        blocks = await fetch_blocks(client, self._clocks[question.provider], self._clock, question.queries, ends)
        known.add(blocks, start)
        return Measurement(start)

    def close(self) -> None:
        """Start no new request, and cancel those that run."""
        self._cache.close()
