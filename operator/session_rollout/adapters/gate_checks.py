"""Checks that are no metric (port `Examiner`): HTTP requests to Services, the built-in checks, and the topics of the admin.

A gate names a Service of its own namespace; where a Service is reached is the configuration's to say, and only when it
exists is it asked. Redirects are not followed, bodies are not read. Nothing here waits for a rollout.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

import aiohttp

from session_rollout.adapters.api_server import ApiServer
from session_rollout.adapters.flags import validate
from session_rollout.api.action import Result
from session_rollout.api.checks import Builtin, Gate, HttpCheck
from session_rollout.api.enums import MigrationState, Verdict
from session_rollout.api.quantities import show
from session_rollout.api.rollout import OnRollback, OnWorkload, SessionRollout
from session_rollout.core.evaluation import held
from session_rollout.core.flags import KEY, config_map_name
from session_rollout.core.observed import CheckResult, Measurement
from session_rollout.errors import RolloutError
from session_rollout.ports import Clock, MetricSource, Workloads
from session_rollout.settings import Diagnostic, Settings

log = logging.getLogger(__name__)
HTTP_SECONDS: Final = 5.0
FORGET_AFTER: Final = timedelta(minutes=10)
Asked = tuple[str, str]  # uid of the rollout and the gate as JSON


class GateExaminer:
    """All checks of this process; results are remembered by rollout and gate."""

    def __init__(self, api: ApiServer, settings: Settings, metrics: MetricSource, workloads: Workloads, clock: Clock) -> None:
        self._api, self._settings, self._metrics, self._workloads, self._clock = api, settings, metrics, workloads, clock
        self._known: dict[Asked, CheckResult] = {}
        self._asking: dict[Asked, asyncio.Task[None]] = {}

    def look(
        self, rollout: SessionRollout, gates: tuple[Gate, ...], max_age: timedelta, wake: Callable[[], None]
    ) -> dict[str, CheckResult]:
        """See `Examiner.look`."""
        oldest, found = self._clock.now() - max_age, {}
        for gate in gates:
            asked = (rollout.uid, gate.model_dump_json())
            known = self._known.get(asked)
            if known is not None:
                found[gate.name] = known
            if (known is None or known.time <= oldest) and asked not in self._asking:
                self._asking[asked] = asyncio.create_task(self._ask(asked, rollout, gate, wake))
        return found

    async def _ask(self, asked: Asked, rollout: SessionRollout, gate: Gate, wake: Callable[[], None]) -> None:
        try:
            self._known[asked] = await self.examine(rollout, gate)
        finally:
            del self._asking[asked]
            self._forget()
            wake()

    def _forget(self) -> None:
        now = self._clock.now()
        self._known = {asked: one for asked, one in self._known.items() if now - one.time < FORGET_AFTER}

    async def examine(self, rollout: SessionRollout, gate: Gate) -> CheckResult:
        """See `Examiner.examine`."""
        begun = self._clock.now()
        try:
            if gate.http is not None:
                return await self._request(rollout, gate.http, begun)
            if gate.metric is not None:
                return await self._measure(rollout, gate, begun)
            if gate.builtin is not None:
                return await self._builtins[gate.builtin](self, rollout, begun)
        except RolloutError as error:
            return CheckResult(begun, Verdict.PROVIDER_ERROR, str(error)[:300])
        return CheckResult(begun, Verdict.NOT_EVALUATED, "is not a check that can be asked")

    # --- HTTP and metrics

    async def _request(self, rollout: SessionRollout, check: HttpCheck, begun: datetime) -> CheckResult:
        service = f"/api/v1/namespaces/{rollout.namespace}/services/{check.service}"
        if await self._api.find(service) is None:
            return CheckResult(begun, Verdict.FAIL, f"there is no Service {check.service} in {rollout.namespace}")
        where = self._settings.service_address.format(service=check.service, namespace=rollout.namespace, port=check.port)
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=HTTP_SECONDS)) as session,
                session.get(f"http://{where}{check.path}", allow_redirects=False) as answer,
            ):
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            said = f"no answer within {HTTP_SECONDS:g} s" if isinstance(error, TimeoutError) else type(error).__name__
            return CheckResult(begun, Verdict.FAIL, f"GET {check.service}:{check.port}{check.path}: {said}")
        verdict = Verdict.PASS if status == check.expect_status else Verdict.FAIL
        message = f"GET {check.service}:{check.port}{check.path} answered {status}, expected is {check.expect_status}"
        return CheckResult(begun, verdict, message, value=str(status), bound=str(check.expect_status))

    async def _measure(self, rollout: SessionRollout, gate: Gate, begun: datetime) -> CheckResult:
        metric = rollout.spec.metric(gate.metric or "")
        if metric is None or metric.query is None:
            return CheckResult(begun, Verdict.INCONCLUSIVE, f"metric {gate.metric} has no single query")
        measured = await self._metrics.ask(rollout.spec.prometheus, metric.query)
        return against(measured, gate.above, gate.below, begun)

    async def diagnose(self, topic: str) -> tuple[Result, ...] | None:
        """See `Examiner.diagnose`."""
        questions = self._settings.diagnostics.get(topic)
        if questions is None:
            return None
        return tuple(await asyncio.gather(*(self._diagnose(one) for one in questions)))

    async def _diagnose(self, question: Diagnostic) -> Result:
        measured = await self._metrics.ask(question.provider, question.query)
        seen = against(measured, question.above, question.below, measured.time)
        advice = f"; {question.advice}" if question.advice and seen.verdict is Verdict.FAIL else ""
        return Result(
            name=question.name,
            verdict=seen.verdict,
            value=seen.value,
            bound=seen.bound,
            message=f"{seen.message}{advice}"[:512],
        )

    def topics(self) -> tuple[str, ...]:
        """See `Examiner.topics`."""
        return tuple(sorted(self._settings.diagnostics))

    # --- what is built in

    async def _flag_store(self, rollout: SessionRollout, begun: datetime) -> CheckResult:
        """A dry run of the write that publishes, and the document that is there read and evaluated."""
        name = config_map_name(rollout.spec.flag_set)
        path = f"/api/v1/namespaces/{rollout.namespace}/configmaps/{name}"
        probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {}}
        await self._api.apply(path, probe, dry_run=True)
        found = await self._api.find(path)
        if found is None:
            return CheckResult(begun, Verdict.PASS, f"ConfigMap {name} can be written; nothing is published yet")
        validate((found.get("data") or {}).get(KEY, "{}"))
        return CheckResult(begun, Verdict.PASS, f"ConfigMap {name} can be written, read and evaluated")

    async def _migrations(self, rollout: SessionRollout, begun: datetime) -> CheckResult:
        states = {one.name: one.state for one in rollout.status.migrations}
        failed = [name for name, state in states.items() if state is MigrationState.FAILED]
        if failed:
            return CheckResult(begun, Verdict.FAIL, f"failed: {', '.join(failed)}")
        for migration in rollout.spec.migrations:
            reference = migration.config_map_ref
            if (
                reference
                and await self._api.find(f"/api/v1/namespaces/{rollout.namespace}/configmaps/{reference.name}") is None
            ):
                return CheckResult(begun, Verdict.FAIL, f"{migration.name}: there is no ConfigMap {reference.name}")
        pending = [one.name for one in rollout.spec.migrations if states.get(one.name) is not MigrationState.SUCCEEDED]
        return CheckResult(begun, Verdict.PASS, f"pending: {', '.join(pending) or 'none'}; none has failed")

    async def _metrics_present(self, rollout: SessionRollout, begun: datetime) -> CheckResult:
        asked = [metric for metric in rollout.spec.metrics if metric.query is not None]
        answers = await asyncio.gather(*(self._metrics.ask(rollout.spec.prometheus, one.query or "") for one in asked))
        missing = [f"{one.name}: {seen.message}" for one, seen in zip(asked, answers, strict=True) if seen.value is None]
        if missing:
            return CheckResult(
                begun, Verdict.FAIL, f"{len(missing)} of {len(asked)} give no number: {'; '.join(missing)}"[:300]
            )
        return CheckResult(begun, Verdict.PASS, f"all {len(asked)} metrics answer")

    async def _alerts(self, rollout: SessionRollout, begun: datetime) -> CheckResult:
        wanted = self._settings.alerts
        if not wanted:
            return CheckResult(begun, Verdict.INCONCLUSIVE, "the configuration names no `alerts`")
        loaded = await self._metrics.alert_rules(rollout.spec.prometheus)
        if missing := [name for name in wanted if name not in loaded]:
            return CheckResult(begun, Verdict.FAIL, f"not loaded: {', '.join(missing)}")
        return CheckResult(begun, Verdict.PASS, f"loaded: {', '.join(wanted)}")

    async def _rollback(self, rollout: SessionRollout, begun: datetime) -> CheckResult:
        """Whether what `rollback` asks for can be done."""
        wanted, workload = rollout.spec.rollback, rollout.spec.workload
        if wanted.migrations is OnRollback.DOWN and rollout.spec.database is None:
            return CheckResult(begun, Verdict.FAIL, "`migrations: Down` needs `database`")
        if wanted.workload is OnWorkload.UNDO and workload is not None:
            seen = await self._workloads.revisions(rollout.namespace, workload)
            if seen is None or seen.problem or seen.earlier is None:
                why = (seen.problem if seen else "it does not exist") or "it has no earlier revision"
                return CheckResult(begun, Verdict.FAIL, f"Deployment {workload.name} cannot go back: {why}")
        return CheckResult(begun, Verdict.PASS, "flags, and all that `rollback` asks for, can go back")

    async def _health(self, rollout: SessionRollout, begun: datetime) -> CheckResult:
        if rollout.spec.workload is None:
            return CheckResult(begun, Verdict.INCONCLUSIVE, "`workload` is not in the spec")
        problem = await self._workloads.problem(rollout.namespace, rollout.spec.workload)
        name = rollout.spec.workload.name
        return CheckResult(begun, Verdict.FAIL if problem else Verdict.PASS, problem or f"Deployment {name} is available")

    async def _topic(self, topic: str, begun: datetime) -> CheckResult:
        results = await self.diagnose(topic)
        if results is None:
            return CheckResult(begun, Verdict.INCONCLUSIVE, f"the configuration has no `diagnostics` {topic}")
        bad = [f"{one.name} {one.message}" for one in results if one.verdict is not Verdict.PASS]
        if bad:
            failed = any(one.verdict is Verdict.FAIL for one in results)
            return CheckResult(begun, Verdict.FAIL if failed else Verdict.NO_DATA, "; ".join(bad)[:300])
        return CheckResult(begun, Verdict.PASS, f"{len(results)} answers are within their bounds")

    async def _capacity(self, _: SessionRollout, begun: datetime) -> CheckResult:
        return await self._topic("capacity", begun)

    async def _cache(self, _: SessionRollout, begun: datetime) -> CheckResult:
        return await self._topic("cache", begun)

    _builtins: Final[dict[Builtin, Callable[["GateExaminer", SessionRollout, datetime], Awaitable[CheckResult]]]] = {
        Builtin.FLAG_STORE: _flag_store,
        Builtin.MIGRATIONS: _migrations,
        Builtin.METRICS: _metrics_present,
        Builtin.ALERTS: _alerts,
        Builtin.ROLLBACK: _rollback,
        Builtin.HEALTH: _health,
        Builtin.CAPACITY: _capacity,
        Builtin.CACHE: _cache,
    }


def against(measured: Measurement, above: str | None, below: str | None, begun: datetime) -> CheckResult:
    """A measurement held against at most one bound; without one, any number is fine."""
    if measured.value is None:
        return CheckResult(begun, measured.problem or Verdict.NO_DATA, measured.message)
    if above is None and below is None:
        return CheckResult(begun, Verdict.PASS, f"is {show(measured.value, '')}", value=show(measured.value, ""))
    holds, shown, bound_text = held(measured.value, above, below)
    verdict = Verdict.PASS if holds else Verdict.FAIL
    return CheckResult(begun, verdict, f"{shown} is {'' if holds else 'not '}{bound_text}", value=shown, bound=bound_text)
