"""Gate checks against an API server, a workload and a metric source in memory: each result has a verdict and a reason."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import aiohttp
import pytest

from adapters.api import Api
from controller.cluster import Cluster
from core.world import World, spec
from session_rollout.adapters import gate_checks
from session_rollout.adapters.gate_checks import GateChecks
from session_rollout.adapters.promql import Intervals, effective_range
from session_rollout.api.checks import Gate
from session_rollout.api.enums import CheckReason, Verdict
from session_rollout.api.metrics import DEFAULT_CONTROL, Control, Metric
from session_rollout.api.migration_enums import MigrationState
from session_rollout.api.rollout import RolloutSpec, SessionRollout, Workload
from session_rollout.api.status import RolloutStatus
from session_rollout.api.status_records import MigrationRecord
from session_rollout.core.flags import KEY
from session_rollout.core.observed import CheckResult, Measurement, Revisions
from session_rollout.errors import Forbidden, ProviderFailed, SpecError, Unavailable
from session_rollout.ports import Queries
from session_rollout.settings import Settings

NOW = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)
SERVICE = "/api/v1/namespaces/default/services/web"
SELECTING = {"spec": {"selector": {"app": "web"}}}
FLAGS = "/api/v1/namespaces/default/configmaps/shop-flags"
PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE


class Surroundings(Cluster):
    """Metrics and workloads as a test wants them."""

    def __init__(self) -> None:
        super().__init__()
        self.measured = Measurement(NOW, value=Decimal("0.25"))
        self.rules: frozenset[str] | Exception = frozenset({"SlowLogin"})
        self.unavailable: str | None = None
        self.found: Revisions | None = Revisions(3, 2)

    async def query(self, _provider: str, _query: str) -> Measurement:
        return self.measured

    async def read_queries(self, provider: str, metrics: tuple[Metric, ...], control: Control = DEFAULT_CONTROL) -> Queries:
        exact = Intervals(timedelta(0), timedelta(0), timedelta(0))
        read = await super().read_queries(provider, metrics, control)
        return replace(read, ranges={metric.name: effective_range(metric, exact) for metric in metrics})

    async def alert_rules(self, _provider: str) -> frozenset[str]:
        if isinstance(self.rules, Exception):
            raise self.rules
        return self.rules

    async def unavailable_reason(self, _namespace: str, _workload: Workload) -> str | None:
        return self.unavailable

    async def revisions(self, _namespace: str, _workload: Workload) -> Revisions | None:
        return self.found


class Checks:
    """What a test sets, and the check."""

    def __init__(self, **settings: Any) -> None:
        self.api, self.around = Api(), Surroundings()
        self.settings = Settings.model_validate(settings)

    def source(self) -> GateChecks:
        return GateChecks(self.api, self.settings, self.around, self.around, self.around)

    def check(self, rollout: SessionRollout | None = None, **gate: Any) -> tuple[Verdict, CheckReason]:
        result = self.result(rollout, **gate)
        return result.verdict, result.reason

    def result(self, rollout: SessionRollout | None = None, **gate: Any) -> CheckResult:
        question = Gate.model_validate({"name": "gate", **gate})
        return asyncio.run(self.source().check(rollout or World(spec()).rollout(), question))


def http(status: int | Exception) -> Callable[[str], Awaitable[int]]:
    """A server that answers so."""

    async def get(_url: str) -> int:
        if isinstance(status, Exception):
            raise status
        return status

    return get


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (200, (PASS, CheckReason.CHECK_SUCCEEDED)),
        (503, (FAIL, CheckReason.CHECK_FAILED)),
        (302, (FAIL, CheckReason.CHECK_FAILED)),
        (TimeoutError(), (FAIL, CheckReason.TIMED_OUT)),
        (aiohttp.ClientConnectionError(), (FAIL, CheckReason.CONNECTION_FAILED)),
        (OSError(), (FAIL, CheckReason.CONNECTION_FAILED)),
    ],
)
def test_http(monkeypatch: pytest.MonkeyPatch, answer: int | Exception, expected: tuple[Verdict, CheckReason]) -> None:
    monkeypatch.setattr(gate_checks, "_status", http(answer))
    checks = Checks()
    checks.api.put(SERVICE, SELECTING)
    result = checks.result(http={"service": "web", "path": "/ready"})
    assert (result.verdict, result.reason) == expected
    assert (result.value, result.bound) == ((str(answer), "200") if isinstance(answer, int) else (None, None))


def test_address_comes_from_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = []

    async def get(url: str) -> int:
        urls.append(url)
        return 204

    monkeypatch.setattr(gate_checks, "_status", get)
    checks = Checks(serviceAddress="{service}.{namespace}.example:{port}")
    checks.api.put(SERVICE, SELECTING)
    assert checks.check(http={"service": "web", "port": 81, "expectStatus": 204})[0] is PASS
    assert urls == ["http://web.default.example:81/"]


SERVICES: dict[str, dict[str, Any] | None] = {
    "missing": None,
    "of another namespace": {"spec": {"type": "ExternalName", "externalName": "vault.kube-system.svc.cluster.local"}},
    "of another namespace with a selector": {
        "spec": {"type": "ExternalName", "externalName": "vault.kube-system.svc.cluster.local", "selector": {"app": "web"}}
    },
    "with endpoints written by hand": {"spec": {"type": "ClusterIP", "ports": [{"port": 80}]}},
    "with an empty selector": {"spec": {"selector": {}}},
    "without a spec": {},
}


@pytest.mark.parametrize("service", SERVICES.values(), ids=list(SERVICES))
def test_only_a_service_that_selects_pods_is_requested(monkeypatch: pytest.MonkeyPatch, service: dict[str, Any] | None) -> None:
    """All others may resolve to an address that the author of the rollout cannot reach."""
    requested = []

    async def get(url: str) -> int:
        requested.append(url)
        return 200

    monkeypatch.setattr(gate_checks, "_status", get)
    checks = Checks()
    if service is not None:
        checks.api.put(SERVICE, service)
    assert checks.check(http={"service": "web"}) == (FAIL, CheckReason.CHECK_FAILED)
    assert requested == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unavailable("down"), CheckReason.CONNECTION_FAILED),
        (Forbidden("services"), CheckReason.QUERY_REJECTED),
        (SpecError("invalid"), CheckReason.INVALID_RESPONSE),
    ],
)
def test_errors_are_results(error: Exception, reason: CheckReason) -> None:
    checks = Checks()
    checks.api.failures["GET"] = [error]
    assert checks.check(http={"service": "web"}) == (Verdict.PROVIDER_ERROR, reason)


# --- metrics


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        ({"below": "30%"}, (PASS, CheckReason.WITHIN_BOUND, "25%", "below 30%")),
        ({"above": "0.3"}, (FAIL, CheckReason.OUT_OF_BOUND, "0.25", "above 0.3")),
    ],
)
def test_metric(bound: dict[str, str], expected: tuple[Verdict, CheckReason, str, str]) -> None:
    result = Checks().result(None, metric="errors", **bound)
    assert (result.verdict, result.reason, result.value, result.bound) == expected


def test_metric_without_a_value_has_the_reason_of_the_measurement() -> None:
    checks = Checks()
    checks.around.measured = Measurement(NOW, problem=Verdict.NO_DATA, reason=CheckReason.NOT_A_NUMBER, message="NaN")
    assert checks.check(metric="errors", below="1") == (Verdict.NO_DATA, CheckReason.NOT_A_NUMBER)


def test_metric_of_cohorts_is_not_one_number() -> None:
    cohorts = {"name": "errors", "cohorts": {"good": 'g{v="$cohort"}', "total": 't{v="$cohort"}'}}
    rollout = World(spec(metrics=[cohorts, {"name": "load", "query": "load"}], guards=[])).rollout()
    assert Checks().check(rollout, metric="errors", below="1") == (INCONCLUSIVE, CheckReason.NOT_A_SAMPLE)


@pytest.mark.parametrize("gate", [{"approval": {}}, {"job": {"profile": "smoke"}}])
def test_gates_that_are_decided_elsewhere_are_not_evaluated(gate: dict[str, Any]) -> None:
    assert Checks().check(**gate)[0] is Verdict.NOT_EVALUATED


# --- built-in checks


def test_flag_store() -> None:
    checks = Checks()
    assert checks.check(builtin="FlagStore") == (PASS, CheckReason.CHECK_SUCCEEDED)
    assert FLAGS not in checks.api.objects, "a dry run"
    for text in ("no JSON", "{}", "[]", '{"flags": {"alpha": 1}}'):
        checks.api.put(FLAGS, {"data": {KEY: text}})
        assert checks.check(builtin="FlagStore") == (Verdict.PROVIDER_ERROR, CheckReason.INVALID_RESPONSE)
    world = World(spec())
    world.settle()
    checks.api.put(FLAGS, {"data": {KEY: world.documents[-1]}})
    assert checks.check(world.rollout(), builtin="FlagStore") == (PASS, CheckReason.CHECK_SUCCEEDED)
    checks.api.failures["PATCH"] = [Forbidden("configmaps")]
    assert checks.check(builtin="FlagStore") == (Verdict.PROVIDER_ERROR, CheckReason.QUERY_REJECTED)


def test_rules_of_others_are_not_evaluated() -> None:
    """R5: with loops in loops, a person who may edit the document could stop the event loop for ever."""
    rule: Any = {"var": ""}
    for _ in range(12):
        rule = {"map": [list(range(100)), rule]}
    flag = {
        "state": "ENABLED",
        "variants": {"on": True, "off": False},
        "defaultVariant": "off",
        "targeting": {"if": [rule, "on"]},
    }
    checks = Checks()
    checks.api.put(FLAGS, {"data": {KEY: json.dumps({"flags": {"alpha": flag}})}})
    begun = time.process_time()
    assert checks.check(builtin="FlagStore") == (PASS, CheckReason.CHECK_SUCCEEDED)
    assert time.process_time() - begun < 1


def test_migrations() -> None:
    checks = Checks()
    migrating = spec(
        database={"secretKeyRef": {"name": "db"}},
        migrations=[{"name": "extra", "configMapRef": {"name": "sql"}}],
    )
    assert checks.check(World(migrating).rollout(), builtin="Migrations") == (FAIL, CheckReason.CHECK_FAILED)
    checks.api.put("/api/v1/namespaces/default/configmaps/sql", {})
    assert checks.check(World(migrating).rollout(), builtin="Migrations") == (PASS, CheckReason.CHECK_SUCCEEDED)
    failed = RolloutStatus(migrations=(MigrationRecord(name="extra", state=MigrationState.FAILED),))
    assert checks.check(World(migrating, status=failed).rollout(), builtin="Migrations") == (FAIL, CheckReason.CHECK_FAILED)


def test_metrics_present() -> None:
    checks = Checks()
    assert checks.check(builtin="Metrics") == (PASS, CheckReason.CHECK_SUCCEEDED)
    checks.around.measured = Measurement(NOW, problem=Verdict.NO_DATA, reason=CheckReason.EMPTY_RESULT, message="empty")
    assert checks.check(builtin="Metrics") == (FAIL, CheckReason.CHECK_FAILED)


@pytest.mark.parametrize("metrics", [[], [{"name": "load", "cohorts": {"good": 'g{v="$cohort"}', "total": 't{v="$cohort"}'}}]])
def test_metrics_that_are_not_queried_are_no_evidence(metrics: list[dict[str, Any]]) -> None:
    """A gate that asked nothing has not passed."""
    data = spec().to_wire() | {"metrics": metrics, "guards": []}
    for phase in data["phases"]:
        phase["criteria"] = []
    rollout = World(RolloutSpec.model_validate(data)).rollout()
    assert Checks().check(rollout, builtin="Metrics") == (INCONCLUSIVE, CheckReason.NOT_CONFIGURED)


def test_alerts() -> None:
    assert Checks().check(builtin="Alerts") == (INCONCLUSIVE, CheckReason.NOT_CONFIGURED)
    checks = Checks(alerts=["SlowLogin"])
    assert checks.check(builtin="Alerts") == (PASS, CheckReason.CHECK_SUCCEEDED)
    checks.around.rules = frozenset()
    assert checks.check(builtin="Alerts") == (FAIL, CheckReason.CHECK_FAILED)
    checks.around.rules = ProviderFailed(CheckReason.TIMED_OUT, "too slow")
    assert checks.check(builtin="Alerts") == (Verdict.PROVIDER_ERROR, CheckReason.TIMED_OUT)


@pytest.mark.parametrize(
    ("revisions", "verdict"),
    [
        (Revisions(3, 2), PASS),
        (None, FAIL),
        (Revisions(1), FAIL),
        (Revisions(3, 2, blocked_reason="no right to patch deployments"), FAIL),
    ],
)
def test_rollback_of_the_workload(revisions: Revisions | None, verdict: Verdict) -> None:
    checks = Checks()
    checks.around.found = revisions
    rollout = World(spec(workload={"name": "web"}, rollback={"workload": "Undo"})).rollout()
    assert checks.check(rollout, builtin="Rollback")[0] is verdict


def test_health() -> None:
    checks = Checks()
    assert checks.check(builtin="Health") == (INCONCLUSIVE, CheckReason.NOT_CONFIGURED)
    rollout = World(spec(workload={"name": "web"})).rollout()
    assert checks.check(rollout, builtin="Health") == (PASS, CheckReason.CHECK_SUCCEEDED)
    checks.around.unavailable = "Deployment web is not available"
    assert checks.check(rollout, builtin="Health") == (FAIL, CheckReason.CHECK_FAILED)


@pytest.mark.parametrize(("builtin", "topic"), [("Capacity", "capacity"), ("Cache", "cache")])
def test_topics(builtin: str, topic: str) -> None:
    assert Checks().check(builtin=builtin) == (INCONCLUSIVE, CheckReason.NOT_CONFIGURED)
    assert Checks(diagnostics={topic: []}).check(builtin=builtin) == (INCONCLUSIVE, CheckReason.NOT_CONFIGURED)
    diagnostics = {topic: [{"name": "used", "query": "used", "below": "50%", "advice": "add a node"}]}
    checks = Checks(diagnostics=diagnostics)
    assert checks.check(builtin=builtin) == (PASS, CheckReason.CHECK_SUCCEEDED)
    checks.around.measured = Measurement(NOW, value=Decimal("0.75"))
    assert checks.check(builtin=builtin) == (FAIL, CheckReason.CHECK_FAILED)
    checks.around.measured = Measurement(NOW, problem=Verdict.NO_DATA, reason=CheckReason.EMPTY_RESULT, message="empty")
    assert checks.check(builtin=builtin)[0] is Verdict.NO_DATA


def test_result_of_a_topic_is_as_old_as_its_oldest_query_and_covers_the_longest() -> None:
    """A gate counts it after the warm-up of its queries."""
    queries = [{"name": "used", "query": "used"}, {"name": "mean", "query": "avg_over_time(used[30m])", "window": "5m"}]
    checks = Checks(diagnostics={"capacity": queries})
    checks.around.measured = Measurement(NOW - timedelta(seconds=20), value=Decimal("0.25"))
    result = checks.result(builtin="Capacity")
    assert (result.time, result.reach) == (NOW - timedelta(seconds=20), timedelta(minutes=35))


def test_query_of_a_topic_that_cannot_be_read_is_not_judged() -> None:
    """How much of the time before a publish it covers is unknown."""
    checks = Checks(diagnostics={"capacity": [{"name": "used", "query": "used[w]"}]})
    checks.around.metric_problems = ("the length `w` cannot be read",)
    assert checks.check(builtin="Capacity")[0] is Verdict.NO_DATA
    results = asyncio.run(checks.source().diagnose("capacity"))
    assert results is not None
    assert [result.reason for result in results] == [CheckReason.NOT_CONFIGURED]


def test_diagnostics() -> None:
    """Without a bound, every number passes; advice is given for a failure."""
    checks = Checks(diagnostics={"errors": [{"name": "rate", "query": "a"}, {"name": "high", "query": "b", "above": "1"}]})
    assert checks.source().topics() == ("errors",)
    assert asyncio.run(checks.source().diagnose("nothing")) is None
    results = asyncio.run(checks.source().diagnose("errors"))
    assert results is not None
    assert [(result.name, result.verdict, result.reason, result.value) for result in results] == [
        ("rate", PASS, CheckReason.WITHIN_BOUND, "0.25"),
        ("high", FAIL, CheckReason.OUT_OF_BOUND, "0.25"),
    ]


# --- the cache


def test_results_never_wait_and_wake_when_they_are_there() -> None:
    async def body() -> None:
        checks, woken = Checks(), asyncio.Event()
        source, rollout = checks.source(), World(spec()).rollout()
        gates = (Gate.model_validate({"name": "alerts", "builtin": "Alerts"}),)
        assert source.results(rollout, gates, timedelta(minutes=1), woken.set) == {}
        await asyncio.wait_for(woken.wait(), 60)
        assert source.results(rollout, gates, timedelta(minutes=1), woken.set)["alerts"].verdict is INCONCLUSIVE
        source.close()

    asyncio.run(body())


def test_bug_in_a_check_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise its rollout would wait for ever."""
    monkeypatch.setattr(GateChecks, "check", lambda *_: _bug())

    async def _bug() -> CheckResult:
        raise ZeroDivisionError

    async def body() -> None:
        checks, woken = Checks(), asyncio.Event()
        source, rollout = checks.source(), World(spec()).rollout()
        gates = (Gate.model_validate({"name": "alerts", "builtin": "Alerts"}),)
        source.results(rollout, gates, timedelta(minutes=1), woken.set)
        await asyncio.wait_for(woken.wait(), 60)
        result = source.results(rollout, gates, timedelta(minutes=1), woken.set)["alerts"]
        assert (result.verdict, result.reason) == (Verdict.PROVIDER_ERROR, CheckReason.INTERNAL_ERROR)

    asyncio.run(body())
