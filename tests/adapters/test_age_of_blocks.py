"""Of what time a result of blocks is: of the time that all of its blocks tell, however late its requests came.

Which blocks are asked for is in test_prometheus_cohorts.py.
"""

import asyncio
from datetime import timedelta
from email.utils import format_datetime

import pytest

from adapters.clocks import START
from adapters.counting import BLOCK, LAG, Lab, counted, numbers_of, on_lab
from adapters.providers import MADE
from session_rollout.adapters import cohort_blocks
from session_rollout.adapters.prometheus import PrometheusSource
from session_rollout.api.enums import CheckReason


def test_a_result_without_all_blocks_is_none_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is of the time until which its blocks were all there were: half of an outage says nothing about the other half."""
    monkeypatch.setattr(cohort_blocks, "MOST_CHUNKS", 2)

    async def test(lab: Lab) -> None:
        rollout = lab.rollout()
        lab.clock.advance(125 * BLOCK + LAG)
        assert rollout.latest(START) is None
        await asyncio.wait_for(rollout.event.wait(), 60)
        half = rollout.latest(START)
        assert half is not None
        assert START + 100 * BLOCK + LAG <= half.time < START + 101 * BLOCK + LAG
        assert (await rollout.result(START)).time == lab.clock.now()

    on_lab(test)


def test_a_request_that_waited_for_its_turn_does_not_make_its_blocks_newer() -> None:
    async def test(lab: Lab) -> None:
        lab.source = PrometheusSource(lab.source._providers, lab.clock, 1)
        MADE.append(lab.source)
        rollout, other = lab.rollout(), lab.rollout(counted("other", bad="bad_total", total="others_total"))
        lab.clock.advance(2 * BLOCK + LAG)
        lab.server.released.clear()
        assert other.latest(START) is None, "it has the only slot"
        assert rollout.latest(START) is None
        await asyncio.to_thread(lab.server.released.is_set)  # both have begun
        lab.clock.advance(3 * BLOCK)
        lab.server.released.set()
        while (result := rollout.latest(START)) is None:
            await asyncio.wait_for(rollout.event.wait(), 60)
            rollout.event.clear()
        assert numbers_of(result) == [1, 2]
        assert START + 2 * BLOCK + LAG <= result.time < START + 3 * BLOCK + LAG

    on_lab(test)


@pytest.mark.parametrize(("seconds", "is_read"), [(2, True), (5, False), (600, False)])
def test_a_clock_of_the_provider_that_is_ahead(seconds: float, *, is_read: bool) -> None:
    """There, a block has ended before it began here: its events are from before the audience that it seems to be about."""

    async def test(lab: Lab) -> None:
        rollout, ahead = lab.rollout(), timedelta(seconds=seconds)
        for _ in range(3):
            lab.clock.advance(BLOCK + LAG)
            lab.server.fields = {"Date": format_datetime(lab.clock.now() + ahead, usegmt=True)}
            result = await rollout.result(START)
            assert (result.reason is None) is is_read
            assert result.reason in {None, CheckReason.STALE_SAMPLE}
        lab.clock.advance(BLOCK)
        lab.server.fields = {"Date": format_datetime(lab.clock.now(), usegmt=True)}
        assert len(await rollout.blocks(START)) == 4

    on_lab(test)


def test_older_blocks_for_another_rollout_make_no_result_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refresh reads them first. Whoever waits for the newest block has no result without it."""
    monkeypatch.setattr(cohort_blocks, "MOST_CHUNKS", 2)

    async def test(lab: Lab) -> None:
        mine, other = lab.rollout(), lab.rollout()
        lab.clock.advance(500 * BLOCK + LAG)
        await mine.blocks(START + 490 * BLOCK)
        published = START + 500 * BLOCK
        lab.clock.advance(BLOCK)
        assert other.latest(START) is None
        while (result := mine.latest(published)) is None or numbers_of(result) != [501]:
            assert result is None or result.time < lab.clock.now()
            await asyncio.wait_for(mine.event.wait(), 60)
            mine.event.clear()
        assert result.time == lab.clock.now()

    on_lab(test)
