"""The age of results when the wall clock jumps: R14. Not here: what is fetched (test_prometheus.py, test_gate_checks.py)."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest

from adapters.clocks import START as NOW
from adapters.clocks import Clock
from session_rollout.adapters.fresh_cache import FORGET_AFTER, FreshCache
from session_rollout.core.observed import Measurement

INTERVAL = timedelta(seconds=30)
HOUR = timedelta(hours=1)


class Asked:
    """A cache with one question; `fetches` counts."""

    def __init__(self, takes: timedelta = timedelta(0), waits: timedelta = timedelta(0)) -> None:
        self.clock, self.fetches, self.takes, self.waits = Clock(), 0, takes, waits
        self.cache: FreshCache[str, Measurement] = FreshCache(self.clock, Measurement)

    async def fetch(self) -> Measurement:
        """A result that waits for its turn, and then takes its time."""
        self.clock.advance(self.waits)
        start, self.fetches = self.clock.now(), self.fetches + 1
        self.clock.advance(self.takes)
        return Measurement(start, value=Decimal(self.fetches))

    async def get(self, max_age: timedelta = INTERVAL) -> Measurement | None:
        """What the cache has, and then whatever it fetches."""
        result = self.cache.get("question", self.fetch, max_age, lambda: None)
        for task in tuple(self.cache._tasks.values()):
            await task
        return result


def run(test: Callable[[Asked], object], **fields: timedelta) -> Asked:
    """Run a test on a cache that has a first result."""
    asked = Asked(**fields)

    async def body() -> None:
        assert await asked.get() is None
        outcome = test(asked)
        if asyncio.iscoroutine(outcome):
            await outcome

    asyncio.run(body())
    return asked


def test_results_are_refreshed_while_the_clock_is_an_hour_behind() -> None:
    """R14: the wall clock is set back by an hour. A guard gets a new result after its interval, not after that hour."""

    async def test(asked: Asked) -> None:
        asked.clock.wall -= HOUR
        asked.clock.advance(INTERVAL)
        await asked.get()

    assert run(test).fetches == 2


def test_clock_that_is_set_forward_does_not_refresh_early_or_make_a_result_newer() -> None:
    """R14: a result from before a publish must not look as if it was requested after it."""

    async def test(asked: Asked) -> None:
        asked.clock.wall += HOUR
        asked.clock.advance(INTERVAL / 2)
        result = await asked.get()
        assert result is not None
        assert result.time == NOW

    assert run(test).fetches == 1


def test_old_result_is_not_from_the_future() -> None:
    """R14: the clock is set back while the provider is away; the age of the last result is what the monotonic clock says."""

    async def test(asked: Asked) -> None:
        asked.clock.wall -= HOUR
        asked.clock.advance(timedelta(minutes=5))
        result = await asked.get()
        assert result is not None
        assert asked.clock.now() - result.time == timedelta(minutes=5)

    run(test)


@pytest.mark.parametrize(("later", "fetches"), [(timedelta(seconds=19), 1), (timedelta(seconds=20), 2)])
def test_age_counts_from_the_request_and_not_from_the_wait_before_it(later: timedelta, fetches: int) -> None:
    """A query that waited a minute for its turn and then took 10 s is 10 s old."""

    async def test(asked: Asked) -> None:
        asked.clock.advance(later)
        await asked.get()

    assert run(test, waits=timedelta(minutes=1), takes=timedelta(seconds=10)).fetches == fetches


def test_results_that_nobody_requests_are_forgotten() -> None:
    """By the monotonic clock, too."""

    async def test(asked: Asked) -> None:
        asked.clock.wall -= HOUR
        asked.clock.advance(FORGET_AFTER + INTERVAL)
        asked.cache.get("other", asked.fetch, INTERVAL, lambda: None)
        for task in tuple(asked.cache._tasks.values()):
            await task
        assert set(asked.cache._entries) == {"other"}

    run(test)


def test_result_that_is_seldom_fetched_is_kept_while_it_is_requested() -> None:
    """A metric with an interval of an hour, requested every 30 s beside another one."""

    async def test(asked: Asked) -> None:
        for _ in range(2 * HOUR // INTERVAL):
            asked.clock.advance(INTERVAL)
            assert await asked.get(HOUR) is not None
            asked.cache.get("another", asked.fetch, INTERVAL, lambda: None)
            await asyncio.gather(*asked.cache._tasks.values())

    asked = run(test)
    assert asked.fetches == 1 + 2 + 2 * HOUR // INTERVAL
