"""Metrics from Prometheus (port `MetricSource`).

The client library blocks, so queries run in a bounded pool of threads and rollouts do not wait for them: a slow query does
not delay an emergency. Equal queries of many rollouts are one query. Every result is a `Measurement`, with a number or
with the verdict and the reason why there is none.
"""

import asyncio
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final

import requests
from prometheus_api_client import PrometheusConnect
from urllib3.util.retry import Retry

from session_rollout.adapters.fresh_cache import FreshCache
from session_rollout.adapters.promql import largest_range, queries_of
from session_rollout.adapters.telemetry import PROVIDER_REQUESTS, PROVIDER_SECONDS, QUERIES_REQUESTED
from session_rollout.adapters.tracing import span
from session_rollout.api.enums import CheckReason, Verdict
from session_rollout.api.quantities import duration, format_duration
from session_rollout.api.rollout import Metric
from session_rollout.core.observed import Counts, Measurement
from session_rollout.errors import PartialResponse, ProviderFailed, Unavailable
from session_rollout.ports import Clock
from session_rollout.settings import Provider, credential

Query = tuple[str, str]  # provider, PromQL
SCALAR_LENGTH: Final = 2  # time and value
EMPTY: Final = "the query returns no series; write it so that it is 0 then, for example `... or vector(0)`"
NO_TRAFFIC: Final = "the result is NaN, such as 0/0: there is no traffic; wait for traffic, or set `onNoData`"


class CappedSession(requests.Session):
    """A session that follows no redirect, trusts no environment, reads no more than its cap, and returns only full successes."""

    def __init__(self, cap: int) -> None:
        super().__init__()
        self.trust_env = False
        self._cap = cap

    def request(self, *arguments: Any, **options: Any) -> requests.Response:
        """One request. Raises ProviderFailed for a response that is too large, an error or partial.

        An error response is read here, where the response is at hand: the client library keeps only its text in an exception.
        """
        response = super().request(*arguments, **{**options, "stream": True, "allow_redirects": False})
        body = bytearray()
        for part in response.iter_content(16 * 1024):
            body += part
            if len(body) > self._cap:
                response.close()
                message = f"the response is larger than {self._cap} bytes"
                raise ProviderFailed(CheckReason.RESPONSE_TOO_LARGE, message)
        response._content = bytes(body)  # noqa: SLF001 - what requests itself does when it reads the content
        if response.status_code != requests.codes.ok:
            raise ProviderFailed(CheckReason.QUERY_REJECTED, _refusal(response))
        if warnings := response.json().get("warnings"):
            raise PartialResponse(f"partial response: {'; '.join(map(str, warnings))[:200]}")
        return response


def _refusal(response: requests.Response) -> str:
    """Status code, and Prometheus' own error where the body has one."""
    try:
        return f"HTTP status {response.status_code}: {response.json()['error']}"[:200]
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {response.status_code}"


class PrometheusSource:
    """All providers of the configuration."""

    def __init__(self, providers: dict[str, Provider], clock: Clock, workers: int) -> None:
        self._providers = providers
        self._clock = clock
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="metrics")
        self._cache: FreshCache[Query, Measurement] = FreshCache(clock, _internal_error)
        self._clients = threading.local()  # sessions of `requests` must not be shared between threads
        self._ranges: dict[str, timedelta | None] = {}

    def measurements(
        self, provider: str, metrics: tuple[Metric, ...], max_age: timedelta, wake: Callable[[], None]
    ) -> dict[str, Measurement]:
        """See `MetricSource.measurements`."""
        results = {}
        for metric in metrics:
            parts = [self._latest(provider, query, max_age, wake) for query in queries_of(metric)]
            known = [part for part in parts if part is not None]
            if len(known) == len(parts):
                results[metric.name] = known[0] if metric.query is not None else _compared(known)
        return results

    def _latest(self, provider: str, query: str, max_age: timedelta, wake: Callable[[], None]) -> Measurement | None:
        QUERIES_REQUESTED.labels(provider).inc()
        return self._cache.get((provider, query), partial(self.query, provider, query), max_age, wake)

    def problems(self, provider: str, metrics: tuple[Metric, ...]) -> tuple[str, ...]:
        """See `MetricSource.problems`."""
        unknown = metrics and provider not in self._providers
        allowed = ", ".join(sorted(self._providers)) or "none"
        first = (f"`prometheus` is {provider}, which is not in the operator's configuration; allowed: {allowed}",)
        bad = (
            f"`metrics` {metric.name}: invalid PromQL: {error}"
            for metric in metrics
            for query in queries_of(metric)
            if (error := self._error(query))
        )
        return (*(first if unknown else ()), *bad)

    def _error(self, query: str) -> str | None:
        if self._range(query) is not None:
            return None
        try:
            largest_range(query)
        except ValueError as error:
            return str(error).splitlines()[0]
        return None

    def ranges(self, metrics: tuple[Metric, ...]) -> dict[str, timedelta]:
        """See `MetricSource.ranges`."""
        return {metric.name: max((self._range(query) or timedelta(0)) for query in queries_of(metric)) for metric in metrics}

    def _range(self, query: str) -> timedelta | None:
        if query not in self._ranges:
            try:
                self._ranges[query] = largest_range(query)
            except ValueError:
                self._ranges[query] = None
        return self._ranges[query]

    async def query(self, provider: str, query: str) -> Measurement:
        """See `MetricSource.query`."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._measure, provider, query)

    async def alert_rules(self, provider: str) -> frozenset[str]:
        """See `MetricSource.alert_rules`. Raises ProviderFailed."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._alert_rules, provider)

    def _alert_rules(self, provider: str) -> frozenset[str]:
        try:
            client, seconds = self._client(provider)
            # The library has no call for rules.
            response = client._session.get(  # noqa: SLF001
                f"{client.url}/api/v1/rules", params={"type": "alert"}, headers=client.headers, timeout=seconds
            )
            groups = response.json()["data"]["groups"]
        except (requests.RequestException, KeyError, ValueError, TypeError, AttributeError, OSError) as error:
            raise self._failure(provider, error) from error
        return frozenset(rule["name"] for group in groups for rule in group["rules"])

    def close(self) -> None:
        """Start no new query."""
        self._cache.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    # --- in a thread of the pool

    def _measure(self, provider: str, query: str) -> Measurement:
        start = self._clock.now()  # not earlier: a result that waited for a thread would be stale when it arrives
        with span("query", {"sessionrollout.provider": provider}):
            measurement = self._result(provider, query, start)
        PROVIDER_REQUESTS.labels(provider, measurement.problem or "Value").inc()
        PROVIDER_SECONDS.labels(provider).observe(max((self._clock.now() - start).total_seconds(), 0))
        return measurement

    def _result(self, provider: str, query: str, start: datetime) -> Measurement:
        try:
            return self._request(provider, query, start)
        except PartialResponse as failure:
            return _no_value(start, Verdict.INCONCLUSIVE, failure.reason, f"provider {provider}: {failure}")
        except ProviderFailed as failure:
            return _no_value(start, Verdict.PROVIDER_ERROR, failure.reason, f"provider {provider}: {failure}")

    def _request(self, provider: str, query: str, start: datetime) -> Measurement:
        try:
            client, seconds = self._client(provider)
            return read(client.custom_query(query, {"timeout": f"{seconds:g}s"}, timeout=seconds), start)
        except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise self._failure(provider, error) from error

    def _failure(self, provider: str, error: Exception) -> ProviderFailed:
        """What an error of the client library or of the response means."""
        match error:
            case requests.Timeout():
                timeout = duration(self._providers[provider].timeout)
                return ProviderFailed(CheckReason.TIMED_OUT, f"did not respond within {format_duration(timeout)}")
            case requests.ConnectionError():
                return ProviderFailed(CheckReason.CONNECTION_FAILED, "cannot be reached")
            case requests.RequestException() | ValueError() | KeyError() | TypeError() | AttributeError():
                return ProviderFailed(CheckReason.INVALID_RESPONSE, f"returned an invalid response: {type(error).__name__}")
            case _:  # OSError of `caFile`, which requests opens when it connects
                return ProviderFailed(CheckReason.CREDENTIALS_UNREADABLE, str(error)[:200])

    def _client(self, name: str) -> tuple[PrometheusConnect, float]:
        """This thread's client of a provider, and its timeout in seconds. Raises ProviderFailed."""
        provider = self._providers.get(name)
        if provider is None:
            raise ProviderFailed(CheckReason.UNKNOWN_PROVIDER, "not in `prometheus` of the operator's configuration")
        clients: dict[str, PrometheusConnect] = self._clients.__dict__
        if name not in clients:
            session = CappedSession(provider.max_response_bytes)
            session.verify = str(provider.ca_file) if provider.ca_file else True
            retry = Retry(total=1, connect=1, read=False, redirect=0, status=0, other=0, backoff_factor=0.1)
            clients[name] = PrometheusConnect(provider.url, session=session, retry=retry)
        if provider.bearer_token_file:
            clients[name].headers = {"Authorization": f"Bearer {_token(provider)}"}
        return clients[name], duration(provider.timeout).total_seconds()


def _token(provider: Provider) -> str:
    assert provider.bearer_token_file is not None
    try:
        return credential(provider.bearer_token_file)
    except Unavailable as error:
        raise ProviderFailed(CheckReason.CREDENTIALS_UNREADABLE, str(error)) from error


def _no_value(time: datetime, problem: Verdict, reason: CheckReason, message: str) -> Measurement:
    return Measurement(time, problem=problem, reason=reason, message=message)


def _internal_error(time: datetime) -> Measurement:
    message = "the query failed because of an error in the operator; see its log"
    return _no_value(time, Verdict.PROVIDER_ERROR, CheckReason.INTERNAL_ERROR, message)


def read(result: Any, time: datetime) -> Measurement:
    """The single number of a result, or why there is none."""
    if isinstance(result, list) and len(result) == SCALAR_LENGTH and not isinstance(result[0], dict):
        return _number(result[1], time)
    if not result:
        return _no_value(time, Verdict.NO_DATA, CheckReason.EMPTY_RESULT, EMPTY)
    if len(result) > 1:
        message = f"the result has {len(result)} series; exactly one is required"
        return _no_value(time, Verdict.INCONCLUSIVE, CheckReason.MULTIPLE_SERIES, message)
    if "value" not in result[0]:
        message = "the result is a histogram or a range; a single number is required"
        return _no_value(time, Verdict.INCONCLUSIVE, CheckReason.NOT_A_SAMPLE, message)
    return _number(result[0]["value"][1], time)


def _number(text: str, time: datetime) -> Measurement:
    value = float(text)
    if math.isnan(value):
        return _no_value(time, Verdict.NO_DATA, CheckReason.NOT_A_NUMBER, NO_TRAFFIC)
    if math.isinf(value):
        return _no_value(time, Verdict.INCONCLUSIVE, CheckReason.INFINITE_VALUE, f"the result is {text}")
    return Measurement(time, value=Decimal(text))


def _compared(parts: list[Measurement]) -> Measurement:
    """Good and total events of both cohorts as one measurement: the good share of users who have the feature."""
    oldest = min(part.time for part in parts)
    for part in parts:
        if part.value is None:
            return Measurement(oldest, problem=part.problem, reason=part.reason, message=part.message)
    good_on, total_on, good_off, total_off = (part.value or Decimal(0) for part in parts)
    if total_on <= 0 or total_off <= 0:
        return _no_value(oldest, Verdict.NO_DATA, CheckReason.NO_EVENTS, "a cohort has no events")
    return Measurement(oldest, value=good_on / total_on, on=Counts(good_on, total_on), off=Counts(good_off, total_off))
