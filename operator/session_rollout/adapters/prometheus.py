"""Metrics from Prometheus (port `MetricSource`).

Rollouts do not wait for queries: a slow query does not delay an emergency. Equal queries of many rollouts are one query. Every
result is a `Measurement`, with a number or with the verdict and the reason why there is none.
"""

import asyncio
import math
import re
from collections.abc import Callable, Hashable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final

from session_rollout.adapters.cohort_blocks import CohortBlocks
from session_rollout.adapters.cohort_metrics import uncounted
from session_rollout.adapters.fresh_cache import FreshCache
from session_rollout.adapters.promql import Intervals, effective_range, problem_of, queries_of, spelled
from session_rollout.adapters.promql_seasons import LABEL, NOW, query_of_seasons
from session_rollout.adapters.provider_client import ProviderClient, Response, invalid
from session_rollout.adapters.provider_clock import ProviderClock
from session_rollout.adapters.provider_results import UNKNOWN, internal_error, measured, no_value, unknown_provider
from session_rollout.adapters.telemetry import QUERIES_REQUESTED
from session_rollout.api.enums import CheckReason, Verdict
from session_rollout.api.metrics import DEFAULT_CONTROL, Control, Metric
from session_rollout.api.quantities import duration, format_duration
from session_rollout.core.observed import Counts, Measurement, Seasons
from session_rollout.errors import ProviderFailed
from session_rollout.ports import Clock, Queries
from session_rollout.settings import Dialect, Provider

Query = tuple[str, str]  # provider, PromQL
Reader = Callable[[Response, datetime, Provider], Measurement]
NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?|inf)|nan", re.IGNORECASE | re.ASCII)
LONGEST_KIND: Final = 20
RULES: Final = ""  # stands for the request for all rules, where others are known by their query
UNREACHABLE: Final = frozenset(
    {
        CheckReason.NAME_NOT_RESOLVED,
        CheckReason.CERTIFICATE_REJECTED,
        CheckReason.TLS_FAILED,
        CheckReason.CONNECTION_FAILED,
        CheckReason.CREDENTIALS_UNREADABLE,
    }
)
AGES: Final = timedelta(days=36_500)  # a time further away is said to be as far
EMPTY: Final = (
    "the query returns no series: its metrics are not exported, or no event has had its labels. For a ratio of which only the upper"
    " half may be absent, write `(... or vector(0)) / ...`; after a whole query, it would hide an exporter that is down"
)
IMPOSSIBLE: Final = "a cohort has more good events than events; select the good ones from the series that `total` counts"
NO_TRAFFIC: Final = "the result is NaN, such as 0/0: there is no traffic; wait for traffic, or set `onNoData`"


class PrometheusSource:
    """All providers of the configuration."""

    def __init__(self, providers: dict[str, Provider], clock: Clock, workers: int) -> None:
        self._providers = providers
        self._clock = clock
        self._clients = {name: ProviderClient(provider, workers) for name, provider in providers.items()}
        self._clocks = {name: ProviderClock(clock) for name in providers}
        self._cache: FreshCache[Query, Measurement] = FreshCache(clock, internal_error)
        self._blocks = CohortBlocks(self._clients, self._clocks, clock)

    def measurements(
        self, provider: str, metrics: tuple[Metric, ...], max_age: timedelta, wake: Callable[[], None]
    ) -> dict[str, Measurement]:
        """See `MetricSource.measurements`. What is counted in blocks has none."""
        results = {}
        for metric in metrics:
            if metric.counted is not None:
                continue
            parts = [self._latest(provider, query, max_age, wake) for query in queries_of(metric)]
            known = [part for part in parts if part is not None]
            if len(known) == len(parts):
                results[metric.name] = known[0] if metric.query is not None else _compared(known)
        return results

    def _latest(
        self, provider: str, query: str, max_age: timedelta, wake: Callable[[], None], reader: Reader | None = None
    ) -> Measurement | None:
        QUERIES_REQUESTED.labels(provider).inc()
        fetch = partial(self._query, provider, query, wake, reader or read)  # there is one `wake` for each rollout
        return self._cache.get((provider, query), fetch, max_age, wake)

    def blocks(
        self, provider: str, metric: Metric, control: Control, since: datetime, wake: Callable[[], None]
    ) -> Measurement | None:
        """See `MetricSource.blocks`."""
        return self._blocks.latest(provider, metric, control, since, wake)

    def seasons(
        self, provider: str, metric: Metric, ago: tuple[timedelta, ...], max_age: timedelta, wake: Callable[[], None]
    ) -> Seasons | None:
        """See `MetricSource.seasons`."""
        query = query_of_seasons(metric, ago)
        if query is None:
            return Seasons(self._clock.now())
        measurement = self._latest(provider, query, max_age, wake, read_seasons)
        return None if measurement is None else seasons_of(measurement)

    async def read_queries(self, provider: str, metrics: tuple[Metric, ...], control: Control = DEFAULT_CONTROL) -> Queries:
        """See `MetricSource.read_queries`."""
        allowed = ", ".join(sorted(self._providers)) or "none"
        known = self._providers.get(provider)
        intervals, dialect = Intervals(), Dialect.PROMETHEUS
        unknown = f"`prometheus` is {provider}, which is not in the operator's configuration; allowed: {allowed}"
        if known is not None:
            intervals, dialect = Intervals.of(known), known.dialect
        problems, ranges, texts = [unknown] if metrics and known is None else [], dict[str, timedelta](), dict[str, str]()
        for metric in metrics:
            await asyncio.sleep(0)
            bad = (problem_of(query, dialect) for query in queries_of(metric))
            problems += [f"`metrics` {metric.name}: invalid PromQL: {problem}" for problem in bad if problem is not None]
            if problem := uncounted(metric, control, intervals):
                problems.append(f"`metrics` {metric.name}: {problem}")
            ranges[metric.name], texts[metric.name] = effective_range(metric, intervals, control), spelled(metric)
        return Queries(ranges, texts, tuple(problems))

    async def query(self, provider: str, query: str) -> Measurement:
        """See `MetricSource.query`."""
        return await self._query(provider, query, query, read)

    async def _query(self, provider: str, query: str, caller: Hashable, reader: Reader) -> Measurement:
        client = self._clients.get(provider)
        if client is None:
            return unknown_provider(self._clock.now(), provider)
        measure = partial(self._measure, client, provider, query, reader)
        return await client.slots.run(query, caller, partial(measured, self._clock, provider, measure))

    async def _measure(self, client: ProviderClient, name: str, query: str, reader: Reader, start: datetime) -> Measurement:
        sent = self._clock.monotonic()
        response = self._clocks[name].aged(query, await client.query(query), sent)
        return reader(response, start, client.provider)

    async def alert_rules(self, provider: str) -> frozenset[str]:
        """See `MetricSource.alert_rules`. Raises ProviderFailed."""
        client = self._clients.get(provider)
        if client is None:
            raise ProviderFailed(CheckReason.UNKNOWN_PROVIDER, UNKNOWN)
        response = await client.slots.run(RULES, RULES, partial(self._rules, client, provider))
        if response.cached > _oldest(client.provider):
            raise ProviderFailed(CheckReason.STALE_SAMPLE, _old(response.cached))
        try:
            return frozenset(rule["name"] for group in response.data["groups"] for rule in group["rules"])
        except (LookupError, TypeError) as error:
            raise invalid(error) from error

    async def _rules(self, client: ProviderClient, provider: str) -> Response:
        sent = self._clock.monotonic()
        return self._clocks[provider].aged(RULES, await client.alert_rules(), sent)

    def close(self) -> None:
        """Start no new query, and end those that run; waits for nothing."""
        self._cache.close()
        self._blocks.close()
        for client in self._clients.values():
            client.close()


def read_seasons(response: Response, start: datetime, provider: Provider) -> Measurement:
    """The means of a response to a query of `promql_seasons`. A season without a number has no data. Raises ProviderFailed."""
    try:
        time = _came(response, start) - response.cached
        if response.cached > _oldest(provider):
            return no_value(start, Verdict.NO_DATA, CheckReason.STALE_SAMPLE, _old(response.cached))
        samples = {each["metric"][LABEL]: _sample(each["value"], response, start, provider) for each in response.data["result"]}
        means = {number: sample.value for number, sample in samples.items() if sample.value is not None}
        earlier = tuple(means[number] for number in sorted(means) if number != NOW)
        oldest = min([start, time, *(sample.time for sample in samples.values())])
        return Measurement(oldest, seasons=Seasons(oldest, means.get(NOW), earlier))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise invalid(error) from error


def seasons_of(measurement: Measurement) -> Seasons:
    """What a result of `read_seasons`, or a failure of its query, says."""
    if measurement.seasons is not None:
        return replace(measurement.seasons, time=measurement.time)
    return Seasons(
        measurement.time,
        problem=measurement.problem,
        reason=measurement.reason,
        message=measurement.message,
        unreachable=measurement.reason in UNREACHABLE,
    )


def read(response: Response, start: datetime, provider: Provider) -> Measurement:
    """The single number of a response to a query that was sent at `start`, or why there is none. Raises ProviderFailed."""
    try:
        measurement = _single(response, start, provider)
        return replace(measurement, time=min(measurement.time, _came(response, start) - response.cached))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise invalid(error) from error


def _oldest(provider: Provider) -> timedelta:
    """The age from which a sample is no evidence about now."""
    return duration(provider.lookback_delta) + duration(provider.timeout)


def _old(age: timedelta) -> str:
    return f"the response is {format_duration(age)} old by its `Age` or `Date`, as from a cache"


def _came(response: Response, start: datetime) -> datetime:
    """When the response came, by our clock."""
    return start + timedelta(seconds=response.seconds)


def _single(response: Response, start: datetime, provider: Provider) -> Measurement:
    if response.cached > _oldest(provider):
        return no_value(start, Verdict.NO_DATA, CheckReason.STALE_SAMPLE, _old(response.cached))
    kind, result = response.data["resultType"], response.data["result"]
    if kind == "scalar":
        return _sample(result, response, start, provider)
    if kind != "vector":
        message = f"the result is a {str(kind)[:LONGEST_KIND]}; a scalar or an instant vector is required"
        return no_value(start, Verdict.INCONCLUSIVE, CheckReason.NOT_A_SAMPLE, message)
    if not isinstance(result, list):
        raise TypeError("a vector is a list")
    if not result:
        return no_value(start, Verdict.NO_DATA, CheckReason.EMPTY_RESULT, EMPTY)
    if len(result) > 1:
        message = f"the result has {len(result)} series; exactly one is required"
        return no_value(start, Verdict.INCONCLUSIVE, CheckReason.MULTIPLE_SERIES, message)
    if "value" not in result[0]:
        message = "the result is a histogram; a single number is required"
        return no_value(start, Verdict.INCONCLUSIVE, CheckReason.NOT_A_SAMPLE, message)
    return _sample(result[0]["value"], response, start, provider)


def _sample(sample: list[Any], response: Response, start: datetime, provider: Provider) -> Measurement:
    """The measurement of a pair of time and value."""
    moment, value = sample
    age = _age(float(moment), response, start)
    if abs(age) > _oldest(provider):
        relation = "older" if age > timedelta(0) else "newer"
        message = f"the sample is {format_duration(abs(age))} {relation} than the response"
        return no_value(start, Verdict.NO_DATA, CheckReason.STALE_SAMPLE, message)
    return _number(value, min(start, _came(response, start) - age))


def _age(sample: float, response: Response, start: datetime) -> timedelta:
    """How old a sample was when its response came: by the provider's own clock if it says its time, else by ours."""
    if not math.isfinite(sample):
        raise ValueError("the time of the sample is not finite")
    came = response.date or _came(response, start)
    seconds = came.timestamp() - sample + response.cached.total_seconds()
    most = AGES.total_seconds()
    return timedelta(seconds=min(max(seconds, -most), most))


def _number(text: Any, time: datetime) -> Measurement:
    if not isinstance(text, str) or not NUMBER.fullmatch(text):
        raise ValueError("not a number of the API")
    value = float(text)
    if math.isnan(value):
        return no_value(time, Verdict.NO_DATA, CheckReason.NOT_A_NUMBER, NO_TRAFFIC)
    if math.isinf(value):
        return no_value(time, Verdict.INCONCLUSIVE, CheckReason.INFINITE_VALUE, f"the result is {value:+}")
    return Measurement(time, value=Decimal(repr(value).removesuffix(".0")))  # bounded, whatever the text was


_GRAVITY: Final = (Verdict.NO_DATA, Verdict.INCONCLUSIVE, Verdict.PROVIDER_ERROR)


def _gravity(part: Measurement) -> tuple[bool, int]:
    """Which problem stands for both cohorts: the gravest. An absent result is the least, because `onNoData` gives it a meaning."""
    return not part.is_absent, _GRAVITY.index(part.problem or Verdict.NO_DATA)


def _compared(parts: list[Measurement]) -> Measurement:
    """Good and total events of both cohorts as one measurement: the good share of users who have the feature."""
    oldest = min(part.time for part in parts)
    if problems := [part for part in parts if part.value is None]:
        return replace(max(problems, key=_gravity), time=oldest)
    values = [part.value or Decimal(0) for part in parts]
    on, off = Counts(*values[:2]), Counts(*values[2:])
    if on.total <= 0 or off.total <= 0:
        return no_value(oldest, Verdict.NO_DATA, CheckReason.NO_EVENTS, "a cohort has no events")
    if not (on.is_possible and off.is_possible):
        return no_value(oldest, Verdict.INCONCLUSIVE, CheckReason.IMPOSSIBLE_COUNTS, IMPOSSIBLE)
    return Measurement(oldest, value=on.good / on.total, on=on, off=off)
