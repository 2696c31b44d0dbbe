"""Blocks that rollouts get from a `PrometheusSource`: which are asked for, when, and what becomes of failures.

What the queries count is in test_promql_blocks.py, and how answers are read in test_block_reader.py.
"""

import asyncio
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from adapters.clocks import START, Clock
from adapters.counting import BLOCK, CONTROL, LAG, METRIC, SCRAPE, Lab, counted, ends, numbers_of, on_lab
from adapters.providers import bad, success
from session_rollout.adapters import cohort_blocks
from session_rollout.adapters.cohort_blocks import KnownBlocks
from session_rollout.adapters.prometheus import PrometheusSource
from session_rollout.adapters.prometheus_blocks import MOST_BLOCKS
from session_rollout.adapters.promql_blocks import CohortQueries
from session_rollout.api.enums import CheckReason, Verdict
from session_rollout.api.metrics import Control, Metric
from session_rollout.core.blocks import CohortBlock
from session_rollout.core.statistics.rates import Block


def test_only_new_blocks_are_asked_for() -> None:
    """And a block is asked for as soon as it is complete, not before."""

    async def test(lab: Lab) -> None:
        rollout = lab.rollout()
        lab.clock.advance(3 * BLOCK + LAG)
        blocks = await rollout.blocks(START)
        assert ends(blocks) == [1, 2, 3]
        assert {block.whole for block in blocks} == {Block(2, 50, 9, 450)}
        assert lab.asked() == [(1, 3)]
        lab.clock.advance(BLOCK - timedelta(milliseconds=1))
        assert ends(await rollout.blocks(START)) == [1, 2, 3]
        assert lab.asked() == [], "the fourth is not complete"
        lab.clock.advance(timedelta(milliseconds=1))
        assert numbers_of(rollout.latest(START)) == [1, 2, 3], "the latest result during the refresh"
        assert ends(await rollout.blocks(START)) == [1, 2, 3, 4]
        assert ends(await rollout.blocks(START + BLOCK)) == [2, 3, 4]
        assert ends(await rollout.blocks(START + timedelta(seconds=1))) == [2, 3, 4]
        assert lab.asked() == [(4, 4)]

    on_lab(test)


def test_the_time_is_that_of_the_request() -> None:
    """It becomes older until the next block, as the knowledge does."""

    async def test(lab: Lab) -> None:
        rollout = lab.rollout()
        lab.clock.advance(2 * BLOCK + LAG)
        asked = lab.clock.now()
        assert (await rollout.result(START)).time == asked
        lab.clock.advance(BLOCK / 2)
        assert (await rollout.result(START)).time == asked
        lab.clock.advance(BLOCK / 2)
        assert (await rollout.result(START)).time == lab.clock.now()

    on_lab(test)


def test_nothing_is_asked_before_a_block_is_complete() -> None:
    async def test(lab: Lab) -> None:
        rollout = lab.rollout()
        lab.clock.advance(2 * BLOCK + LAG - timedelta(milliseconds=1))
        assert await rollout.blocks(START + BLOCK) == ()
        assert (await rollout.result(START + BLOCK)).time == lab.clock.now()
        assert (lab.asked(), rollout.woken) == ([], 0)

    on_lab(test)


def test_after_an_outage_blocks_come_in_chunks() -> None:
    """Of fifty at most; the oldest first, so that none is skipped."""

    async def test(lab: Lab) -> None:
        rollout = lab.rollout()
        lab.clock.advance(BLOCK + LAG)
        await rollout.blocks(START)
        lab.asked()
        lab.clock.advance(125 * BLOCK)
        assert ends(await rollout.blocks(START)) == list(range(1, 127))
        assert lab.asked() == [(2, 51), (52, 101), (102, 126)]

    on_lab(test)


def test_one_refresh_has_so_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one continues immediately, and what a rollout gets until then has no gaps."""
    monkeypatch.setattr(cohort_blocks, "MOST_CHUNKS", 2)

    async def test(lab: Lab) -> None:
        rollout = lab.rollout()
        lab.clock.advance(125 * BLOCK + LAG)
        assert rollout.latest(START) is None
        await asyncio.wait_for(rollout.event.wait(), 60)
        assert numbers_of(rollout.latest(START)) == list(range(1, 101))
        assert ends(await rollout.blocks(START)) == list(range(1, 126))
        assert lab.asked() == [(1, 50), (51, 100), (101, 125)]
        assert rollout.woken == 2

    on_lab(test)


def test_a_failure_is_a_result_and_loses_no_block() -> None:
    """Retried after 0.9 of a block, or when the next block is complete."""

    async def test(lab: Lab) -> None:
        rollout = lab.rollout()
        lab.clock.advance(2 * BLOCK + LAG)
        assert ends(await rollout.blocks(START)) == [1, 2]
        lab.asked()
        lab.server.code, lab.server.body = 503, bad("too busy")
        lab.clock.advance(BLOCK)
        failed = await rollout.result(START)
        assert (failed.problem, failed.reason) == (Verdict.PROVIDER_ERROR, CheckReason.QUERY_REJECTED)
        assert (failed.time, failed.series) == (lab.clock.now(), None)
        assert lab.asked() == [(3, 3)]
        lab.clock.advance(0.8 * BLOCK)
        await rollout.result(START)
        assert lab.asked() == [], "not yet"
        lab.clock.advance(0.1 * BLOCK)
        assert (await rollout.result(START)).time == lab.clock.now()
        assert lab.asked() == [(3, 3)]
        lab.clock.advance(0.1 * BLOCK)
        assert (await rollout.result(START)).problem is Verdict.PROVIDER_ERROR
        assert lab.asked() == [(3, 4)], "the next block is complete"
        lab.server.code, lab.server.body = 200, b""
        lab.clock.advance(BLOCK)
        assert ends(await rollout.blocks(START)) == [1, 2, 3, 4, 5]
        assert lab.asked() == [(3, 5)], "known blocks are not asked again"

    on_lab(test)


def test_a_long_block_is_retried_after_30_seconds() -> None:
    queries = CohortQueries.of_counters("bad_total", "all_total", timedelta(minutes=10), SCRAPE)
    known = KnownBlocks(queries, START)
    known.want(START, 0.0)
    until = START + timedelta(minutes=10)
    assert known.max_age(START, until) == timedelta(0)
    assert known.next(until) == (until,)
    assert known.max_age(START, until) == timedelta(seconds=30)
    assert known.max_age(START - timedelta(minutes=10), until) == timedelta(0), "older blocks were not tried"
    assert known.max_age(START, until + timedelta(minutes=10)) == timedelta(0), "nor was the next one"


def test_a_failure_in_the_middle_keeps_what_came_before() -> None:
    async def test(lab: Lab) -> None:
        rollout = lab.rollout()
        lab.clock.advance(75 * BLOCK + LAG)
        add = KnownBlocks.add

        def then_fail(known: KnownBlocks, blocks: tuple[CohortBlock, ...], asked: datetime) -> None:
            add(known, blocks, asked)
            lab.server.code, lab.server.body = 503, bad("too busy")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(KnownBlocks, "add", then_fail)
            assert (await rollout.result(START)).problem is Verdict.PROVIDER_ERROR
        assert lab.asked() == [(1, 50), (51, 75)]
        lab.server.code, lab.server.body = 200, b""
        lab.clock.advance(BLOCK)
        assert ends(await rollout.blocks(START)) == list(range(1, 77))
        assert lab.asked() == [(51, 76)]

    on_lab(test)


def test_a_partial_response_is_inconclusive() -> None:
    async def test(lab: Lab) -> None:
        rollout = lab.rollout()
        lab.server.body = success({}).replace(
            b'"data": {}', b'"data": {"resultType": "matrix", "result": []}, "isPartial": true'
        )
        lab.clock.advance(BLOCK + LAG)
        result = await rollout.result(START)
        assert (result.problem, result.reason) == (Verdict.INCONCLUSIVE, CheckReason.PARTIAL_RESULT)
        lab.server.body = b""
        lab.clock.advance(BLOCK)
        assert ends(await rollout.blocks(START)) == [1, 2]

    on_lab(test)


def test_a_bug_is_a_result() -> None:
    """And it is not repeated without end."""

    async def test(lab: Lab) -> None:
        rollout, calls = lab.rollout(), 0

        async def broken(*_: Any) -> None:
            nonlocal calls
            calls += 1
            raise ZeroDivisionError

        lab.clock.advance(BLOCK + LAG)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cohort_blocks, "fetch_blocks", broken)
            for _ in range(3):
                assert (await rollout.result(START)).reason is CheckReason.INTERNAL_ERROR
        assert (calls, rollout.woken) == (1, 1)

    on_lab(test)


def test_an_unknown_provider() -> None:
    result = PrometheusSource({}, Clock(), 1).blocks("other", METRIC, CONTROL, START, lambda: None)
    assert result is not None
    assert (result.time, result.problem, result.reason) == (START, Verdict.PROVIDER_ERROR, CheckReason.UNKNOWN_PROVIDER)


def test_two_rollouts_share_a_query() -> None:
    """However they write the counters, and whatever they call the metric; each is woken once."""

    async def test(lab: Lab) -> None:
        first = lab.rollout()
        second = lab.rollout(counted("errors", bad='{__name__="bad_total"}', total="all_total{}"))
        lab.clock.advance(3 * BLOCK + LAG)
        assert first.latest(START) is None
        assert second.latest(START + BLOCK) is None
        assert first.latest(START) is None
        assert ends(await first.blocks(START)) == [1, 2, 3]
        assert ends(await second.blocks(START + BLOCK)) == [2, 3]
        assert lab.asked() == [(1, 3)]
        assert (first.woken, second.woken) == (1, 1)
        assert lab.asked() == []

    on_lab(test)


@pytest.mark.parametrize(
    ("metric", "control"),
    [
        (counted(bad="bad_total", total="other_total"), CONTROL),
        (METRIC, Control(block="20s", lag="2s")),
        (METRIC, Control(block="10s", lag="3s")),
    ],
)
def test_other_questions_share_nothing(metric: Metric, control: Control) -> None:
    async def test(lab: Lab) -> None:
        first, second = lab.rollout(), lab.rollout(metric, control)
        lab.clock.advance(4 * BLOCK + LAG + LAG)
        await first.result(START)
        await second.result(START)
        assert len(lab.server.targets) == 2

    on_lab(test)


def test_older_blocks_for_a_new_rollout() -> None:
    """It has nothing until they are there; the other rollout keeps what it has, and the known blocks are not asked again."""

    async def test(lab: Lab) -> None:
        first, second = lab.rollout(), lab.rollout()
        lab.clock.advance(6 * BLOCK + LAG)
        assert ends(await first.blocks(START + 3 * BLOCK)) == [4, 5, 6]
        assert lab.asked() == [(4, 6)]
        assert second.latest(START) is None
        assert numbers_of(first.latest(START + 3 * BLOCK)) == [4, 5, 6]
        assert ends(await second.blocks(START)) == [1, 2, 3, 4, 5, 6]
        assert lab.asked() == [(1, 3)]

    on_lab(test)


def test_older_and_new_blocks_around_known_ones() -> None:
    async def test(lab: Lab) -> None:
        rollout = lab.rollout()
        lab.clock.advance(6 * BLOCK + LAG)
        await rollout.blocks(START + 3 * BLOCK)
        lab.asked()
        lab.clock.advance(2 * BLOCK)
        assert ends(await rollout.blocks(START)) == list(range(1, 9))
        assert lab.asked() == [(1, 3), (7, 8)]

    on_lab(test)


def test_memory_is_bounded() -> None:
    """Who wants older blocks gets the latest 2,000."""

    async def test(lab: Lab) -> None:
        rollout = lab.rollout()
        lab.clock.advance(2_500 * BLOCK + LAG)
        assert ends(await rollout.blocks(START)) == list(range(501, 2_501))
        assert len(lab.asked()) == 2_000 / MOST_BLOCKS
        lab.clock.advance(3 * BLOCK)
        assert ends(await rollout.blocks(START)) == list(range(504, 2_504))
        assert lab.asked() == [(2_501, 2_503)]
        [memory] = lab.source._blocks._known.values()
        assert len(memory._blocks) == 2_000

    on_lab(test)


def test_blocks_that_nobody_wants_are_forgotten() -> None:
    """Ten minutes after a rollout has wanted them for the last time; and so is a metric that nobody has."""

    async def test(lab: Lab) -> None:
        rollout, gone = lab.rollout(), lab.rollout(counted(bad="bad_total", total="other_total"))
        lab.clock.advance(10 * BLOCK + LAG)
        await rollout.blocks(START)
        await gone.blocks(START)
        lab.clock.advance(timedelta(minutes=9))
        await rollout.blocks(START + 9 * BLOCK)
        assert [len(known._blocks) for known in lab.source._blocks._known.values()] == [64, 10]
        lab.clock.advance(timedelta(minutes=9))
        await rollout.blocks(START + 9 * BLOCK)
        [known] = lab.source._blocks._known.values()
        assert ends((min(known._blocks.values(), key=lambda block: block.end),)) == [10]
        lab.asked()
        assert ends(await rollout.blocks(START))[0] == 1
        assert lab.asked() == [(1, 9)]

    on_lab(test)


def test_a_rollout_that_comes_back_has_nothing_at_first() -> None:
    """Its blocks were forgotten while another rollout asked for others."""

    async def test(lab: Lab) -> None:
        rollout, other = lab.rollout(), lab.rollout(counted(bad="bad_total", total="other_total"))
        lab.clock.advance(3 * BLOCK + LAG)
        assert ends(await rollout.blocks(START)) == [1, 2, 3]
        lab.clock.advance(timedelta(minutes=11))
        await other.blocks(START)
        assert rollout.latest(START) is None
        assert len(await rollout.blocks(START)) == 69

    on_lab(test)


def test_the_next_block_is_news() -> None:
    """A rollout that has used all known blocks has an empty result while the next one is asked for, not none."""

    async def test(lab: Lab) -> None:
        rollout = lab.rollout()
        lab.clock.advance(3 * BLOCK + LAG)
        before = await rollout.result(START)
        lab.clock.advance(BLOCK)
        during = rollout.latest(START + 3 * BLOCK)
        assert during is not None
        assert (during.time, numbers_of(during)) == (before.time, [])
        assert ends(await rollout.blocks(START + 3 * BLOCK)) == [4]

    on_lab(test)


@pytest.mark.usefixtures("prose")
def test_a_clock_of_the_provider_that_is_behind() -> None:
    """By more than the lag: it has not seen the block, which would have no events forever."""

    async def test(lab: Lab) -> None:
        rollout, behind = lab.rollout(), timedelta(seconds=15)
        lab.clock.advance(BLOCK + LAG)
        for message in (
            "the response is 14 s old by its `Age` or `Date`",
            "its clock is 15 s behind",
            "its clock is 15 s behind",
        ):
            lab.server.fields = {"Date": format_datetime(lab.clock.now() - behind, usegmt=True)}
            result = await rollout.result(START)
            assert result.reason is CheckReason.STALE_SAMPLE
            assert result.message.startswith(f"provider default: {message}")
            lab.clock.advance(0.9 * BLOCK)
        lab.server.fields = {"Date": format_datetime(lab.clock.now(), usegmt=True)}
        assert ends(await rollout.blocks(START)) == [1, 2, 3]

    on_lab(test)


def test_closing_ends_a_refresh() -> None:
    async def test(lab: Lab) -> None:
        rollout = lab.rollout()
        lab.server.released.clear()
        lab.clock.advance(BLOCK + LAG)
        assert rollout.latest(START) is None
        [task] = lab.source._blocks._cache._tasks.values()
        lab.source.close()
        lab.server.released.set()
        await asyncio.wait({task}, timeout=60)
        assert task.cancelled()

    on_lab(test)


def test_counted_metrics_are_not_queried() -> None:
    async def test(lab: Lab) -> None:
        wanted = (METRIC, Metric(name="m", query="up"))
        assert lab.source.measurements("default", (METRIC,), BLOCK, lambda: None) == {}
        assert lab.source._cache._tasks == {}
        assert lab.source.measurements("default", wanted, BLOCK, lambda: None) == {}
        assert [query for _, query in lab.source._cache._tasks] == ["up"]

    on_lab(test)
