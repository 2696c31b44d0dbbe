"""Metrics from Prometheus (port `MetricSource`).

Questions are asked in a bounded pool of threads and never awaited by a rollout: an emergency does not queue behind a slow
query. Equal questions of many rollouts are one question. Whatever comes back is a `Measurement` with a number or with a
verdict that says why there is none; nothing here raises past `look`.
"""

import asyncio
import json
import logging
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import requests
from prometheus_api_client import PrometheusApiClientException, PrometheusConnect
from urllib3.util.retry import Retry

from session_rollout.adapters.promql import largest_range, parse, queries_of
from session_rollout.adapters.telemetry import PROVIDER_REQUESTS, PROVIDER_SECONDS, QUERIES_ASKED
from session_rollout.adapters.tracing import span
from session_rollout.api.enums import Verdict
from session_rollout.api.quantities import duration
from session_rollout.api.rollout import Metric
from session_rollout.core.observed import Counts, Measurement
from session_rollout.errors import Unavailable
from session_rollout.ports import Clock
from session_rollout.settings import Provider, credential

log = logging.getLogger(__name__)
Question = tuple[str, str]  # provider, PromQL
FORGET_AFTER: Final = timedelta(minutes=10)


class AnswerTooLarge(Exception):
    """The answer is beyond the provider's cap."""


class PartialAnswer(Exception):
    """The answer came with warnings: some of the data is missing."""


class CappedSession(requests.Session):
    """A session that follows no redirect, trusts no environment, reads no more than the cap and takes no partial answer."""

    def __init__(self, cap: int) -> None:
        super().__init__()
        self.trust_env = False
        self._cap = cap

    def request(self, *arguments: Any, **options: Any) -> requests.Response:
        """One capped request."""
        answer = super().request(*arguments, **{**options, "stream": True, "allow_redirects": False})
        body = bytearray()
        for part in answer.iter_content(16 * 1024):
            body += part
            if len(body) > self._cap:
                answer.close()
                raise AnswerTooLarge(f"the answer is larger than {self._cap} bytes")
        answer._content = bytes(body)  # noqa: SLF001 - what requests itself does when it reads the content
        if answer.status_code == requests.codes.ok:
            _refuse_partial(answer)
        return answer


def _refuse_partial(answer: requests.Response) -> None:
    warnings = answer.json().get("warnings")
    if warnings:
        raise PartialAnswer(f"a partial answer: {'; '.join(map(str, warnings))[:200]}")


class PrometheusSource:
    """All providers of the configuration."""

    def __init__(self, providers: dict[str, Provider], clock: Clock, workers: int) -> None:
        self._providers = providers
        self._clock = clock
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="metrics")
        self._lock = threading.Lock()
        self._answers: dict[Question, Measurement] = {}
        self._waiting: dict[Question, list[Callable[[], None]]] = {}
        self._local = threading.local()
        self._ranges: dict[str, timedelta | None] = {}

    def look(
        self, provider: str, metrics: tuple[Metric, ...], max_age: timedelta, wake: Callable[[], None]
    ) -> dict[str, Measurement]:
        """See `MetricSource.look`."""
        oldest = self._clock.now() - max_age
        found = {}
        for metric in metrics:
            parts = [self._one((provider, query), oldest, wake) for query in queries_of(metric)]
            known = [part for part in parts if part is not None]
            if len(known) == len(parts):
                found[metric.name] = known[0] if metric.query is not None else _compared(known)
        return found

    def _one(self, question: Question, oldest: datetime, wake: Callable[[], None]) -> Measurement | None:
        QUERIES_ASKED.labels(question[0]).inc()
        with self._lock:
            answer = self._answers.get(question)
            if answer is not None and answer.time > oldest:
                return answer
            if question in self._waiting:
                self._waiting[question].append(wake)
            else:
                self._waiting[question] = [wake]
                self._pool.submit(self._ask, question)
            return answer

    def problems(self, provider: str, metrics: tuple[Metric, ...]) -> tuple[str, ...]:
        """See `MetricSource.problems`."""
        unknown = metrics and provider not in self._providers
        allowed = ", ".join(sorted(self._providers)) or "none"
        first = (
            (f"`prometheus` is {provider}, which is no provider of the configuration; allowed are {allowed}",)
            if unknown
            else ()
        )
        bad = (
            f"`metrics` {metric.name}: its PromQL must parse: {error}"[:400]
            for metric in metrics
            for query in queries_of(metric)
            if (error := self._error(query))
        )
        return (*first, *bad)

    def _error(self, query: str) -> str | None:
        if self._range(query) is not None:
            return None
        try:
            parse(query)
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

    async def ask(self, provider: str, query: str) -> Measurement:
        """See `MetricSource.ask`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._measure, (provider, query), self._clock.now())

    async def alert_rules(self, provider: str) -> frozenset[str]:
        """See `MetricSource.alert_rules`. Raises Unavailable."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._alert_rules, provider)

    def _alert_rules(self, provider: str) -> frozenset[str]:
        try:
            known = self._providers[provider]
            client, seconds = self._client(provider, known), duration(known.timeout).total_seconds()
            answer = client._session.get(  # noqa: SLF001 - the library has no call for rules
                f"{client.url}/api/v1/rules", params={"type": "alert"}, headers=client.headers, timeout=seconds
            )
            answer.raise_for_status()
            groups = answer.json()["data"]["groups"]
        except (requests.RequestException, AnswerTooLarge, PartialAnswer, KeyError, ValueError, OSError) as error:
            raise Unavailable(f"alert rules of {provider}: {type(error).__name__}") from error
        return frozenset(rule["name"] for group in groups for rule in group["rules"])

    def close(self) -> None:
        """Let no new question start."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, question: Question) -> None:
        """Ask one question in a thread, keep the answer and wake who waits for it."""
        start = self._clock.now()
        try:
            with span("query", {"sessionrollout.provider": question[0]}):
                measurement = self._measure(question, start)
        except Exception:  # the last line of a thread: a bug here must not leave rollouts waiting for ever
            log.exception("metric source")
            measurement = Measurement(start, problem=Verdict.PROVIDER_ERROR, message="the metric source failed; see the log")
        result = measurement.problem or "Value"
        PROVIDER_REQUESTS.labels(question[0], result).inc()
        PROVIDER_SECONDS.labels(question[0]).observe(max((self._clock.now() - start).total_seconds(), 0))
        with self._lock:
            self._answers[question] = measurement
            waiting = self._waiting.pop(question, [])
            self._forget(start)
        for wake in waiting:
            wake()

    def _forget(self, now: datetime) -> None:
        if len(self._answers) % 64 == 0:
            old = [question for question, answer in self._answers.items() if now - answer.time > FORGET_AFTER]
            for question in old:
                del self._answers[question]

    def _measure(self, question: Question, start: datetime) -> Measurement:
        name, query = question
        provider = self._providers.get(name)
        if provider is None:
            return Measurement(start, problem=Verdict.PROVIDER_ERROR, message=f"no provider {name} in the configuration")
        seconds = duration(provider.timeout).total_seconds()
        try:
            return read(self._client(name, provider).custom_query(query, {"timeout": f"{seconds:g}s"}, timeout=seconds), start)
        except PartialAnswer as reason:
            return Measurement(start, problem=Verdict.INCONCLUSIVE, message=f"provider {name} gave {reason}")
        except (AnswerTooLarge, Unavailable) as reason:
            return Measurement(start, problem=Verdict.PROVIDER_ERROR, message=f"provider {name}: {reason}")
        except PrometheusApiClientException as error:
            return Measurement(start, problem=Verdict.PROVIDER_ERROR, message=f"provider {name}: {_refusal(error)}")
        except requests.Timeout:
            message = f"provider {name} did not answer within {provider.timeout}"
            return Measurement(start, problem=Verdict.PROVIDER_ERROR, message=message)
        except requests.ConnectionError:
            return Measurement(start, problem=Verdict.PROVIDER_ERROR, message=f"provider {name} cannot be reached")
        except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"provider {name} gave an answer that is not Prometheus': {type(error).__name__}"
            return Measurement(start, problem=Verdict.PROVIDER_ERROR, message=message)
        except OSError as error:  # of `caFile`: requests looks for it when it connects
            return Measurement(start, problem=Verdict.PROVIDER_ERROR, message=f"provider {name}: {error}"[:200])

    def _client(self, name: str, provider: Provider) -> PrometheusConnect:
        """A client of this thread; `requests` sessions are not shared between threads."""
        clients: dict[str, PrometheusConnect] = self._local.__dict__.setdefault("clients", {})
        if name not in clients:
            session = CappedSession(provider.max_answer_bytes)
            session.verify = str(provider.ca_file) if provider.ca_file else True
            retry = Retry(total=1, connect=1, read=False, redirect=0, status=0, other=0, backoff_factor=0.1)
            clients[name] = PrometheusConnect(provider.url, session=session, retry=retry)
        if provider.bearer_token_file:
            clients[name].headers = {"Authorization": f"Bearer {credential(provider.bearer_token_file)}"}
        return clients[name]


def _refusal(error: PrometheusApiClientException) -> str:
    text = str(error)
    try:
        code, body = text.split(" (b", 1)
        return f"{code}: {json.loads(body[1:-2])['error']}"[:200]
    except (ValueError, KeyError, TypeError):
        return text[:200]


def read(result: Any, time: datetime) -> Measurement:
    """The one number of an answer, or why there is none."""
    if isinstance(result, list) and len(result) == 2 and not isinstance(result[0], dict):  # noqa: PLR2004 - a scalar
        return _number(result[1], time)
    if not result:
        return Measurement(time, problem=Verdict.NO_DATA, message="the answer is empty")
    if len(result) > 1:
        message = f"the answer has {len(result)} series, and it must have one"
        return Measurement(time, problem=Verdict.INCONCLUSIVE, message=message)
    if "value" not in result[0]:
        return Measurement(time, problem=Verdict.INCONCLUSIVE, message="the answer is a histogram or a range, not one number")
    return _number(result[0]["value"][1], time)


def _number(text: str, time: datetime) -> Measurement:
    value = float(text)
    if math.isnan(value):
        return Measurement(
            time, problem=Verdict.NO_DATA, message="the answer is NaN: nothing to divide by, or nothing measured"
        )
    if math.isinf(value):
        return Measurement(time, problem=Verdict.INCONCLUSIVE, message=f"the answer is {text}")
    return Measurement(time, value=Decimal(text))


def _compared(parts: list[Measurement]) -> Measurement:
    """Good and total of both cohorts as one measurement: the good share of those who have the feature."""
    oldest = min(part.time for part in parts)
    trouble = next((part for part in parts if part.value is None), None)
    if trouble is not None:
        return Measurement(oldest, problem=trouble.problem, message=trouble.message)
    good_on, total_on, good_off, total_off = (part.value or Decimal(0) for part in parts)
    if total_on <= 0 or total_off <= 0:
        return Measurement(oldest, problem=Verdict.NO_DATA, message="a cohort has no events")
    return Measurement(oldest, value=good_on / total_on, on=Counts(good_on, total_on), off=Counts(good_off, total_off))
