"""Checks that are not metrics (port `GateChecker`): HTTP requests to Services, built-in checks, configured diagnostics.

A gate names a Service of its own namespace, and the configuration says at which address Services are reached. The Service
must exist and select Pods; redirects are not followed and bodies are not read. No rollout waits for any of this.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import aiohttp

from session_rollout.adapters.api_server import ApiServer
from session_rollout.adapters.flag_evaluator import require_flags, validate
from session_rollout.adapters.fresh_cache import FreshCache
from session_rollout.api.action import Result
from session_rollout.api.base import sha256_of
from session_rollout.api.checks import Builtin, Gate, HttpCheck
from session_rollout.api.enums import CheckReason, Verdict
from session_rollout.api.metrics import Metric
from session_rollout.api.migration_enums import MigrationState
from session_rollout.api.quantities import show
from session_rollout.api.rollback import OnRollback, OnWorkload
from session_rollout.api.rollout import SessionRollout
from session_rollout.core.evaluation import compare
from session_rollout.core.flags import KEY, config_map_name
from session_rollout.core.observed import CheckResult, Measurement
from session_rollout.errors import Forbidden, ProviderFailed, RolloutError, SpecError
from session_rollout.ports import Clock, MetricSource, Workloads
from session_rollout.settings import Diagnostic, Settings

HTTP_SECONDS: Final = 5.0
Question = tuple[str, str]  # UID of the rollout, and the gate as JSON


class GateChecks:
    """All gate checks of this process; results are remembered by rollout and gate."""

    def __init__(self, api: ApiServer, settings: Settings, metrics: MetricSource, workloads: Workloads, clock: Clock) -> None:
        self._api, self._settings, self._metrics, self._workloads, self._clock = api, settings, metrics, workloads, clock
        self._cache: FreshCache[Question, CheckResult] = FreshCache(clock, _internal_error)

    def results(
        self, rollout: SessionRollout, gates: tuple[Gate, ...], max_age: timedelta, wake: Callable[[], None]
    ) -> dict[str, CheckResult]:
        """See `GateChecker.results`."""
        results = {}
        for gate in gates:
            question = (rollout.uid, gate.model_dump_json())
            result = self._cache.get(question, partial(self.check, rollout, gate), max_age, wake)
            if result is not None:
                results[gate.name] = result
        return results

    def close(self) -> None:
        """Start no new check."""
        self._cache.close()

    async def check(self, rollout: SessionRollout, gate: Gate) -> CheckResult:
        """See `GateChecker.check`."""
        start = self._clock.now()
        try:
            if gate.http is not None:
                return await self._request(rollout, gate.http, start)
            if gate.metric is not None:
                return await self._measure(rollout, gate, start)
            if gate.builtin is not None:
                return await self._builtins[gate.builtin](self, rollout, start)
        except RolloutError as error:
            return CheckResult(start, Verdict.PROVIDER_ERROR, _reason(error), str(error))
        # An approval or a Job: an action and the decision have their results.
        return CheckResult(
            start, Verdict.NOT_EVALUATED, CheckReason.AWAITING_RESULT, "has no result before its stage is reached"
        )

    # --- HTTP and metrics

    async def _request(self, rollout: SessionRollout, check: HttpCheck, start: datetime) -> CheckResult:
        service = f"/api/v1/namespaces/{rollout.namespace}/services/{check.service}"
        if unusable_reason := _unusable_reason(await self._api.find(service)):
            return _failed(start, f"Service {check.service} in namespace {rollout.namespace} {unusable_reason}")
        address = self._settings.service_address.format(service=check.service, namespace=rollout.namespace, port=check.port)
        title = f"GET {check.service}:{check.port}{check.path}"
        try:
            status = await _status(f"http://{address}{check.path}")
        except TimeoutError:
            return _failed(start, f"{title}: no response within {HTTP_SECONDS:g} s", CheckReason.TIMED_OUT)
        except (aiohttp.ClientError, OSError) as error:
            return _failed(start, f"{title}: {type(error).__name__}", CheckReason.CONNECTION_FAILED)
        passes = status == check.expect_status
        verdict = Verdict.PASS if passes else Verdict.FAIL
        reason = CheckReason.CHECK_SUCCEEDED if passes else CheckReason.CHECK_FAILED
        message = f"{title}: status {status}, expected {check.expect_status}"
        return CheckResult(start, verdict, reason, message, value=str(status), bound=str(check.expect_status))

    async def _measure(self, rollout: SessionRollout, gate: Gate, start: datetime) -> CheckResult:
        metric = rollout.spec.metric(gate.metric or "")
        if metric is None or metric.query is None:
            message = f"metric {gate.metric} does not have a single query"
            return CheckResult(start, Verdict.INCONCLUSIVE, CheckReason.NOT_A_SAMPLE, message)
        measurement = await self._metrics.query(rollout.spec.prometheus, metric.query)
        return _evaluated(measurement, gate.above, gate.below, start, gate.between)

    # --- diagnostics

    async def diagnose(self, topic: str) -> tuple[Result, ...] | None:
        """See `GateChecker.diagnose`."""
        results = await self._diagnosed(topic)
        if results is None:
            return None
        return tuple(
            Result(
                name=name, verdict=each.verdict, reason=each.reason, value=each.value, bound=each.bound, message=each.message
            )
            for name, each in results
        )

    async def _diagnosed(self, topic: str) -> tuple[tuple[str, CheckResult], ...] | None:
        """The result of each query of a topic, by its name; None when there is no such topic."""
        diagnostics = self._settings.diagnostics.get(topic)
        if diagnostics is None:
            return None
        results = await asyncio.gather(*(self._diagnose(diagnostic) for diagnostic in diagnostics))
        return tuple(zip((diagnostic.name for diagnostic in diagnostics), results, strict=True))

    async def _diagnose(self, diagnostic: Diagnostic) -> CheckResult:
        metric = Metric(name="diagnostic", query=diagnostic.query, window=diagnostic.window)
        read = await self._metrics.read_queries(diagnostic.provider, (metric,))
        for problem in read.problems:
            return _not_configured(self._clock.now(), problem)  # such as a range that cannot be read
        measurement = await self._metrics.query(diagnostic.provider, diagnostic.query)
        result = _evaluated(measurement, diagnostic.above, diagnostic.below, measurement.time)
        advice = f"; {diagnostic.advice}" if diagnostic.advice and result.verdict is Verdict.FAIL else ""
        return replace(result, message=f"{result.message}{advice}", reach=read.ranges[metric.name])

    def topics(self) -> tuple[str, ...]:
        """See `GateChecker.topics`."""
        return tuple(sorted(self._settings.diagnostics))

    # --- built-in checks

    async def _flag_store(self, rollout: SessionRollout, start: datetime) -> CheckResult:
        """A dry run of the write that publishes; then the document is read, and evaluated if the operator wrote it."""
        name = config_map_name(rollout.spec.flag_set)
        path = f"/api/v1/namespaces/{rollout.namespace}/configmaps/{name}"
        probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {}}
        await self._api.apply(path, probe, dry_run=True)
        config_map = await self._api.find(path)
        if config_map is None:
            return _passed(start, f"ConfigMap {name} can be written; nothing is published yet")
        text = str((config_map.get("data") or {}).get(KEY, "{}"))
        if sha256_of(text) != rollout.status.flags.sha256:
            require_flags(text)
            return _passed(
                start, f"ConfigMap {name} can be written and read; it is not evaluated, because others have edited it"
            )
        validate(text)
        return _passed(start, f"ConfigMap {name} can be written, read and evaluated")

    async def _migrations(self, rollout: SessionRollout, start: datetime) -> CheckResult:
        states = {record.name: record.state for record in rollout.status.migrations}
        if failed := [name for name, state in states.items() if state is MigrationState.FAILED]:
            return _failed(start, f"failed: {', '.join(failed)}")
        for migration in rollout.spec.migrations:
            reference = migration.config_map_ref
            if reference and not await self._config_map_exists(rollout, reference.name):
                return _failed(start, f"{migration.name}: ConfigMap {reference.name} does not exist")
        pending = [known.name for known in rollout.spec.migrations if states.get(known.name) is not MigrationState.SUCCEEDED]
        return _passed(start, f"no migration has failed; pending: {', '.join(pending) or 'none'}")

    async def _config_map_exists(self, rollout: SessionRollout, name: str) -> bool:
        return await self._api.find(f"/api/v1/namespaces/{rollout.namespace}/configmaps/{name}") is not None

    async def _metrics_present(self, rollout: SessionRollout, start: datetime) -> CheckResult:
        metrics = [metric for metric in rollout.spec.metrics if metric.query is not None]
        if not metrics:
            return _not_configured(start, "no metric of the spec has a `query`; remove the gate")
        queries = (self._metrics.query(rollout.spec.prometheus, metric.query or "") for metric in metrics)
        results = zip(metrics, await asyncio.gather(*queries), strict=True)
        missing = [f"{metric.name}: {result.message}" for metric, result in results if result.value is None]
        if missing:
            return _failed(start, f"{len(missing)} of {len(metrics)} metrics return no number: {'; '.join(missing)}")
        cohorts = len(rollout.spec.metrics) - len(metrics)
        others = f"; {cohorts} of cohorts are not queried before they have users" if cohorts else ""
        return _passed(start, f"all {len(metrics)} metrics that have a `query` return a number{others}")

    async def _alerts(self, rollout: SessionRollout, start: datetime) -> CheckResult:
        expected = self._settings.alerts
        if not expected:
            return _not_configured(start, "`alerts` is empty in the operator's configuration")
        loaded = await self._metrics.alert_rules(rollout.spec.prometheus)
        if missing := [name for name in expected if name not in loaded]:
            return _failed(start, f"alert rules not loaded: {', '.join(missing)}")
        return _passed(start, f"alert rules loaded: {', '.join(expected)}")

    async def _rollback(self, rollout: SessionRollout, start: datetime) -> CheckResult:
        """Whether what `rollback` requests can be done."""
        rollback, workload = rollout.spec.rollback, rollout.spec.workload
        if rollback.migrations is OnRollback.DOWN and rollout.spec.database is None:
            return _failed(start, "`rollback.migrations: Down` requires `database`")
        if rollback.workload is OnWorkload.UNDO and workload is not None:
            revisions = await self._workloads.revisions(rollout.namespace, workload)
            if revisions is None:
                return _failed(start, f"Deployment {workload.name} does not exist")
            if revisions.blocked_reason is not None:
                return _failed(start, f"Deployment {workload.name} cannot be rolled back: {revisions.blocked_reason}")
            if revisions.earlier is None:
                return _failed(start, f"Deployment {workload.name} has no previous revision")
        return _passed(start, "the flags and everything else that `rollback` names can be rolled back")

    async def _health(self, rollout: SessionRollout, start: datetime) -> CheckResult:
        workload = rollout.spec.workload
        if workload is None:
            return _not_configured(start, "`workload` is not set in the spec")
        unavailable_reason = await self._workloads.unavailable_reason(rollout.namespace, workload)
        if unavailable_reason is not None:
            return _failed(start, unavailable_reason)
        return _passed(start, f"Deployment {workload.name} is available")

    async def _topic(self, topic: str, start: datetime) -> CheckResult:
        results = await self._diagnosed(topic)
        if results is None:
            return _not_configured(start, f"`diagnostics` of the operator's configuration has no topic {topic}")
        if not results:
            return _not_configured(start, f"topic {topic} in `diagnostics` of the operator's configuration has no query")
        oldest = min(result.time for _, result in results)
        reach = max(result.reach for _, result in results)
        return replace(_of_topic(results, oldest), reach=reach)

    async def _capacity(self, _: SessionRollout, start: datetime) -> CheckResult:
        return await self._topic("capacity", start)

    async def _cache_topic(self, _: SessionRollout, start: datetime) -> CheckResult:
        return await self._topic("cache", start)

    _builtins: Final[dict[Builtin, Callable[["GateChecks", SessionRollout, datetime], Awaitable[CheckResult]]]] = {
        Builtin.FLAG_STORE: _flag_store,
        Builtin.MIGRATIONS: _migrations,
        Builtin.METRICS: _metrics_present,
        Builtin.ALERTS: _alerts,
        Builtin.ROLLBACK: _rollback,
        Builtin.HEALTH: _health,
        Builtin.CAPACITY: _capacity,
        Builtin.CACHE: _cache_topic,
    }


def _of_topic(results: tuple[tuple[str, CheckResult], ...], time: datetime) -> CheckResult:
    """All results of a topic as one."""
    if all(result.verdict is Verdict.PASS for _, result in results):
        return _passed(time, f"{len(results)} results are within their bounds")
    message = "; ".join(f"{name}: {result.message}" for name, result in results if result.verdict is not Verdict.PASS)
    if any(result.verdict is Verdict.FAIL for _, result in results):
        return _failed(time, message)
    return CheckResult(time, Verdict.NO_DATA, CheckReason.EMPTY_RESULT, message)


def _unusable_reason(service: Mapping[str, Any] | None) -> str | None:
    """Why a gate must not send a request to this Service; None when it may.

    The author of a rollout may be allowed to create Services. One of type ExternalName, or without a selector, would make the
    operator send a request to an address outside of the namespace, which the author may not be able to reach.
    """
    if service is None:
        return "does not exist"
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return "has the type ExternalName, which may refer to another namespace; use a Service with a `selector`"
    if not spec.get("selector"):
        return "has no `selector`, so it may refer to any address; use a Service with a `selector`"
    return None


async def _status(url: str) -> int:
    """The status code of a GET. Raises TimeoutError, aiohttp.ClientError or OSError."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=HTTP_SECONDS)) as session,
        session.get(url, allow_redirects=False) as response,
    ):
        return response.status


def _evaluated(
    measurement: Measurement, above: str | None, below: str | None, start: datetime, between: tuple[str, ...] | None = None
) -> CheckResult:
    """A measurement compared with at most one bound; without a bound, every number passes."""
    if measurement.value is None:
        reason = measurement.reason or CheckReason.EMPTY_RESULT
        return CheckResult(start, measurement.problem or Verdict.NO_DATA, reason, measurement.message)
    if above is None and below is None and between is None:
        value = show(measurement.value, "")
        return CheckResult(start, Verdict.PASS, CheckReason.WITHIN_BOUND, f"is {value}", value=value)
    holds, value, bound = compare(measurement.value, above, below, between)
    verdict = Verdict.PASS if holds else Verdict.FAIL
    reason = CheckReason.WITHIN_BOUND if holds else CheckReason.OUT_OF_BOUND
    return CheckResult(start, verdict, reason, f"{value} is {'' if holds else 'not '}{bound}", value=value, bound=bound)


def _passed(start: datetime, message: str) -> CheckResult:
    return CheckResult(start, Verdict.PASS, CheckReason.CHECK_SUCCEEDED, message)


def _failed(start: datetime, message: str, reason: CheckReason = CheckReason.CHECK_FAILED) -> CheckResult:
    return CheckResult(start, Verdict.FAIL, reason, message)


def _not_configured(start: datetime, message: str) -> CheckResult:
    return CheckResult(start, Verdict.INCONCLUSIVE, CheckReason.NOT_CONFIGURED, message)


def _internal_error(start: datetime) -> CheckResult:
    message = "the check failed because of an error in the operator; see its log"
    return CheckResult(start, Verdict.PROVIDER_ERROR, CheckReason.INTERNAL_ERROR, message)


def _reason(error: RolloutError) -> CheckReason:
    match error:
        case ProviderFailed(reason=reason):
            return reason
        case Forbidden():
            return CheckReason.QUERY_REJECTED
        case SpecError():
            return CheckReason.INVALID_RESPONSE
    return CheckReason.CONNECTION_FAILED
