"""Which blocks are requested, and answers from which no block is made.

The counts of a real Prometheus are in tests/integration/test_blocks.py.
"""

import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.providers import FOREVER, Answers, answering, run, success
from session_rollout.adapters.clock import WallClock
from session_rollout.adapters.prometheus_blocks import MOST_BLOCKS, ends_of_blocks, fetch_blocks
from session_rollout.adapters.promql_blocks import CohortQueries
from session_rollout.adapters.provider_client import ProviderClient
from session_rollout.adapters.provider_clock import ProviderClock
from session_rollout.api.enums import CheckReason
from session_rollout.core.blocks import BlockProblem, CohortBlock
from session_rollout.core.statistics.rates import Block
from session_rollout.errors import ProviderFailed
from session_rollout.settings import Provider

START = datetime(2026, 1, 5, tzinfo=UTC)
QUERIES = CohortQueries.of_counters("bad_total", "all_total", timedelta(minutes=5), timedelta(seconds=30))
NOW = datetime.now(UTC)
ENDS = ends_of_blocks(NOW - timedelta(minutes=14), NOW - timedelta(minutes=4), QUERIES.block)[:1]  # one block, minutes ago
BLOCKS = st.integers(5, 3_600).map(lambda seconds: timedelta(seconds=seconds))
TIMES = st.integers(0, 10**6).map(lambda milliseconds: START + timedelta(milliseconds=milliseconds))


@given(TIMES, TIMES, BLOCKS)
def test_blocks_lie_between_two_times(since: datetime, until: datetime, block: timedelta) -> None:
    """Each follows the one before, whatever the times are; more than a hundred come with the next request."""
    ends = ends_of_blocks(since, until, block)
    assert len(ends) <= MOST_BLOCKS
    assert all(since <= end - block and end <= until for end in ends)
    assert all(end.timestamp() % block.total_seconds() == 0 for end in ends)
    assert [later - earlier for earlier, later in itertools.pairwise(ends)] == [block] * (len(ends) - 1 if ends else 0)
    if ends:
        assert ends[0] - block < since + block
        assert len(ends) == MOST_BLOCKS or until < ends[-1] + block
        assert ends_of_blocks(ends[0], until, block)[: MOST_BLOCKS - 1] == ends[1:]


def matrix(**values: str) -> bytes:
    """A success with one series for each part and variant, such as `bad_on`, at the end of one block."""
    moment = ENDS[0].timestamp()
    labels = [dict(zip(("part", "variant"), name.split("_"), strict=True)) for name in values]
    series = [{"metric": each, "values": [[moment, value]]} for each, value in zip(labels, values.values(), strict=True)]
    return success({"resultType": "matrix", "result": series})


def fetched(server: Answers) -> tuple[CohortBlock, ...]:
    """The block that is made of the answers."""
    client = ProviderClient(Provider(url=f"http://127.0.0.1:{server.server_port}", timeout=FOREVER), 2)

    async def fetch() -> tuple[CohortBlock, ...]:
        try:
            return await fetch_blocks(client, ProviderClock(WallClock()), WallClock(), QUERIES, ENDS)
        finally:
            client.close()

    return run(fetch())


def test_bad_and_all_events_come_in_one_answer() -> None:
    """Of two servers behind one address, one may have a gap: bad events of the one and all events of the other look harmless."""
    with answering() as server:
        server.body = matrix(bad_on="2", total_on="50", total_off="950")
        assert fetched(server) == (CohortBlock(ENDS[0], {"": Block(2, 50, 0, 950)}),)
        assert server.asked == [QUERIES.both]
        assert all("/api/v1/query_range?" in target and "step=300&" in target for target in server.targets)


def test_an_empty_answer_is_no_evidence() -> None:
    with answering() as server:
        server.body = matrix()
        assert fetched(server) == (CohortBlock(ENDS[0], problem=BlockProblem.NO_EVENTS),)


PARTIAL: dict[str, Any] = {"status": "success", "data": {"resultType": "matrix", "result": []}, "warnings": ["a store failed"]}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (json.dumps(PARTIAL).encode(), CheckReason.PARTIAL_RESULT),
        (success({"resultType": "vector", "result": []}), CheckReason.INVALID_RESPONSE),
        (success({"resultType": "matrix", "result": [{"metric": {}, "values": [[1, "1"]]}]}), CheckReason.INVALID_RESPONSE),
        (success([]), CheckReason.INVALID_RESPONSE),
        (success({"resultType": "matrix", "result": [{"metric": {}, "values": []}]}), CheckReason.INVALID_RESPONSE),
        (success({"resultType": "matrix", "result": [None]}), CheckReason.INVALID_RESPONSE),
        (b"no JSON", CheckReason.INVALID_RESPONSE),
    ],
)
def test_no_block_from_another_answer(body: bytes, reason: CheckReason) -> None:
    with answering() as server:
        server.body = body
        with pytest.raises(ProviderFailed) as failed:
            fetched(server)
    assert failed.value.reason is reason


def test_no_block_from_an_old_answer() -> None:
    """Of the day before, from a cache: it may have been given in the middle of the block."""
    with answering() as server:
        server.body = matrix(bad_on="2", total_on="50", total_off="950")
        server.fields = {"Age": "86400"}
        with pytest.raises(ProviderFailed) as failed:
            fetched(server)
        assert failed.value.reason is CheckReason.STALE_SAMPLE
        server.fields = {"Age": "30"}
        assert fetched(server)[0].whole == Block(2, 50, 0, 950)
