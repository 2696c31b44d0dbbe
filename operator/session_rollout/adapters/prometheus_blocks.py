"""Blocks of evidence from Prometheus: one range query for bad and all events, also after an outage."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from session_rollout.adapters.block_reader import read_blocks
from session_rollout.adapters.promql_blocks import BAD, OF_ALL, PART, TOTAL, CohortQueries
from session_rollout.adapters.provider_client import ProviderClient, Response, invalid
from session_rollout.adapters.provider_clock import ProviderClock
from session_rollout.api.enums import CheckReason
from session_rollout.api.quantities import format_duration
from session_rollout.core.blocks import CohortBlock
from session_rollout.errors import ProviderFailed
from session_rollout.ports import Clock

MOST_BLOCKS: Final = 50  # of one answer, which is then below a megabyte for bad and all events of four cohorts of 64 cells

RESOLUTION: Final = timedelta(seconds=1)  # of a `Date`
AHEAD: Final = timedelta(seconds=3)  # clocks of one network differ by less


def ends_of_blocks(since: datetime, until: datetime, block: timedelta) -> tuple[datetime, ...]:
    """The ends of the blocks that lie between two times, the oldest first: at most MOST_BLOCKS, at whole multiples of the block."""
    seconds = block.total_seconds()
    first, last = math.ceil(since.timestamp() / seconds) + 1, math.floor(until.timestamp() / seconds)
    numbers = range(first, last + 1)[:MOST_BLOCKS]
    return tuple(datetime.fromtimestamp(number * seconds, UTC) for number in numbers)


def last_end(until: datetime, block: timedelta) -> datetime:
    """The end of the last block that has ended until then."""
    seconds = block.total_seconds()
    return datetime.fromtimestamp(math.floor(until.timestamp() / seconds) * seconds, UTC)


async def fetch_blocks(
    client: ProviderClient, provider_clock: ProviderClock, clock: Clock, queries: CohortQueries, ends: tuple[datetime, ...]
) -> tuple[CohortBlock, ...]:
    """The blocks with these ends, of which there is at least one. Raises ProviderFailed.

    An answer from before the end of the last block would have only a part of its events.
    """
    sent, asked = clock.monotonic(), clock.now()
    answer = await client.query_range(queries.both, ends[0], ends[-1], queries.block)
    _refuse_ahead(answer, clock.now())
    data = _current(provider_clock.aged(queries.both, answer, sent), asked, ends[-1], queries.scrape)
    try:
        bad, total = _part(data, BAD), _part(data, TOTAL)
        return read_blocks(bad, total, ends, of_all=queries.labels == OF_ALL, of_values=queries.of_values)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise invalid(error) from error


def _part(data: Any, part: str) -> Any:
    """The bad or all events of an answer to both."""
    return {**data, "result": [series for series in data["result"] if series["metric"][PART] == part]}


def _refuse_ahead(response: Response, came: datetime) -> None:
    """Where the provider's clock is ahead, a block has ended there before it began here: it has events of an earlier audience."""
    if response.date is not None and response.date - came > AHEAD:
        ahead = format_duration(response.date - came)
        message = f"its clock is {ahead} ahead, so that its blocks are about an earlier time"
        raise ProviderFailed(CheckReason.STALE_SAMPLE, message)


def _current(response: Response, asked: datetime, end: datetime, scrape: timedelta) -> Any:
    """The data of a response that knows all scrapes of a block.

    Where the provider's clock is behind, the block may not have ended yet: it would have no events, and never get any.
    """
    if asked - response.cached < end + scrape and response.cached > timedelta(0):
        age = format_duration(response.cached)
        raise ProviderFailed(CheckReason.STALE_SAMPLE, f"the response is {age} old by its `Age` or `Date`, as from a cache")
    if response.date is not None and response.date + RESOLUTION <= end:
        behind = format_duration(asked - response.date)
        raise ProviderFailed(CheckReason.STALE_SAMPLE, f"its clock is {behind} behind, so that the block has not ended there")
    return response.data
