"""The metric source against an HTTP server that returns whatever a provider might: each becomes a verdict and a reason.

Not here: how a provider is reached, and how late and old its answers are (test_provider_client.py).
"""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.providers import MINUTE, Answers, answering, bad, measure, measured, run, source, success, vector
from lab.processes import free_port
from session_rollout.adapters.prometheus import PrometheusSource, read
from session_rollout.adapters.provider_client import Response
from session_rollout.api.enums import CheckReason, Verdict
from session_rollout.api.metrics import Metric
from session_rollout.core.observed import Measurement
from session_rollout.errors import ProviderFailed
from session_rollout.settings import Provider

NOW = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)


@pytest.fixture
def answers() -> Iterator[Answers]:
    """A provider."""
    with answering() as server:
        yield server


def typed(kind: str, result: object) -> bytes:
    """A success of Prometheus with this type of result."""
    return success({"resultType": kind, "result": result})


PARTIAL = (Verdict.INCONCLUSIVE, CheckReason.PARTIAL_RESULT)
NOT_A_SAMPLE = (Verdict.INCONCLUSIVE, CheckReason.NOT_A_SAMPLE)
REJECTED = (Verdict.PROVIDER_ERROR, CheckReason.QUERY_REJECTED)
INVALID = (Verdict.PROVIDER_ERROR, CheckReason.INVALID_RESPONSE)


def cases() -> dict[str, tuple[int, bytes, Verdict | None, CheckReason | None]]:
    """Status, body, and what becomes of it. Made anew for each test: samples of the import would be old when many tests come before."""
    rows: list[tuple[str, int, bytes, Verdict | None, CheckReason | None]] = [
        ("one number", 200, vector("0.25"), None, None),
        ("scalar", 200, typed("scalar", [time.time(), "0.25"]), None, None),
        ("string", 200, typed("string", [time.time(), "0.25"]), *NOT_A_SAMPLE),
        ("range", 200, typed("matrix", [{"metric": {}, "values": [[time.time(), "0.25"]]}]), *NOT_A_SAMPLE),
        ("empty range", 200, typed("matrix", []), *NOT_A_SAMPLE),
        ("vector that is none", 200, typed("vector", {}), *INVALID),
        ("no type", 200, success({"result": [time.time(), "0.25"]}), *INVALID),
        ("number that is not text", 200, typed("scalar", [time.time(), 0.25]), *INVALID),
        ("truth for a number", 200, typed("vector", [{"metric": {}, "value": [time.time(), True]}]), *INVALID),
        ("empty", 200, vector(), Verdict.NO_DATA, CheckReason.EMPTY_RESULT),
        ("NaN", 200, vector("NaN"), Verdict.NO_DATA, CheckReason.NOT_A_NUMBER),
        ("infinity", 200, vector("+Inf"), Verdict.INCONCLUSIVE, CheckReason.INFINITE_VALUE),
        ("several series", 200, vector("1", "2", "3"), Verdict.INCONCLUSIVE, CheckReason.MULTIPLE_SERIES),
        ("partial", 200, vector("0.25", warnings=["store is down"]), *PARTIAL),
        ("partial in VictoriaMetrics", 200, vector("0.25", isPartial=True), *PARTIAL),
        ("complete in VictoriaMetrics", 200, vector("0.25", isPartial=False), None, None),
        ("annotations", 200, vector("0.25", infos=["PromQL info: metric might not be a counter"]), None, None),
        (
            "annotations among warnings",
            200,
            vector("0.25", warnings=["PromQL info: metric might not be a counter"]),
            None,
            None,
        ),
        ("warning", 200, vector("0.25", warnings=["PromQL info: x", "PromQL warning: y"]), *PARTIAL),
        ("deep JSON", 200, b"[" * 4_000, Verdict.PROVIDER_ERROR, CheckReason.INVALID_RESPONSE),
        ("tiny number", 200, vector("1e-999999999"), None, None),
        ("histogram", 200, typed("vector", [{"metric": {}, "histogram": []}]), *NOT_A_SAMPLE),
        ("bad query", 400, bad("parse error: unexpected )"), Verdict.PROVIDER_ERROR, CheckReason.QUERY_REJECTED),
        ("forbidden", 403, b"no", Verdict.PROVIDER_ERROR, CheckReason.QUERY_REJECTED),
        ("unavailable", 503, b"busy", Verdict.PROVIDER_ERROR, CheckReason.QUERY_REJECTED),
        ("error in a success", 200, vector("0.25", status="error", error="query timed out"), *REJECTED),
        ("error in an empty success", 200, vector(status="error", errorType="timeout"), *REJECTED),
        ("another status", 200, vector("0.25", status="pending"), *INVALID),
        ("no status", 200, json.dumps({"data": {"resultType": "scalar", "result": [time.time(), "0"]}}).encode(), *INVALID),
        ("redirect", 302, b"", Verdict.PROVIDER_ERROR, CheckReason.QUERY_REJECTED),
        ("not JSON", 200, b"<html>login</html>", Verdict.PROVIDER_ERROR, CheckReason.INVALID_RESPONSE),
        ("other JSON", 200, b"[1]", Verdict.PROVIDER_ERROR, CheckReason.INVALID_RESPONSE),
        ("no result", 200, b'{"status": "success"}', Verdict.PROVIDER_ERROR, CheckReason.INVALID_RESPONSE),
        ("number of Python", 200, vector("0_1"), *INVALID),
        ("number in spaces", 200, vector(" 0 "), *INVALID),
        ("number of another script", 200, vector("\u0660"), *INVALID),
        ("text for a number", 200, vector("lots"), Verdict.PROVIDER_ERROR, CheckReason.INVALID_RESPONSE),
        ("too large", 200, b" " * 5_000, Verdict.PROVIDER_ERROR, CheckReason.RESPONSE_TOO_LARGE),
    ]
    return {name: (code, body, problem, reason) for name, code, body, problem, reason in rows}


@pytest.mark.parametrize("case", cases())
def test_every_response_is_a_number_or_a_verdict_with_a_reason(answers: Answers, case: str) -> None:
    """D21: nothing raises, nothing passes; a part is not the whole, and an annotation is no gap."""
    answers.code, answers.body, problem, reason = cases()[case]
    measurement = measure(answers.server_port, max_response_bytes=4096)
    assert (measurement.problem, measurement.reason) == (problem, reason)
    assert (measurement.value in {Decimal("0.25"), Decimal(0)}) is (problem is None)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["1", "value", "NaN"])
KEYS = st.sampled_from(["value", "metric", "histogram", "x"])
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))


@given(JSON, st.sampled_from(["vector", "scalar", "matrix", "string", None]))
def test_any_json_is_a_measurement_or_a_failure_of_the_provider(data: object, kind: str | None) -> None:
    """No exception of Python leaves the adapter."""
    response = Response({"resultType": kind, "result": data} if kind else data, 0.1, NOW, timedelta(0))
    with suppress(ProviderFailed):
        measurement = read(response, NOW, Provider(url="http://x"))
        assert (measurement.value is None) is (measurement.problem is not None)


def test_unreachable_provider() -> None:
    """No server."""
    measurement = measure(free_port())
    assert (measurement.problem, measurement.reason) == (Verdict.PROVIDER_ERROR, CheckReason.CONNECTION_FAILED)


def test_slow_provider(answers: Answers) -> None:
    """The timeout of the configuration."""
    answers.released.clear()
    measurement = measure(answers.server_port, timeout="500ms")
    assert (measurement.problem, measurement.reason) == (Verdict.PROVIDER_ERROR, CheckReason.TIMED_OUT)


def test_unknown_provider() -> None:
    """A query of a provider that the configuration does not have."""

    async def query() -> Measurement:
        return await source(1).query("other", "up")

    measurement = run(query())
    assert (measurement.problem, measurement.reason) == (Verdict.PROVIDER_ERROR, CheckReason.UNKNOWN_PROVIDER)


def test_measurements_never_wait(answers: Answers) -> None:
    """A slow provider costs a rollout no time: the response is still on its way when the call returns."""
    answers.body = vector("1")
    answers.released.clear()

    async def call() -> None:
        metrics, woken = source(answers.server_port), asyncio.Event()
        assert metrics.measurements("default", (Metric(name="m", query="up"),), MINUTE, woken.set) == {}
        assert not woken.is_set()
        answers.released.set()
        await asyncio.wait_for(woken.wait(), 60)

    run(call())


def test_equal_queries_are_sent_once(answers: Answers) -> None:
    """A hundred rollouts with one query within one interval are one request, and each is woken once."""
    answers.body = vector("1")
    answers.released.clear()

    async def call() -> list[int]:
        metrics, woken = source(answers.server_port), asyncio.Queue[int]()
        for number in range(100):
            wake = lambda number=number: woken.put_nowait(number)  # noqa: E731 - one callable each
            metrics.measurements("default", (Metric(name="m", query="up"),), MINUTE, wake)
        answers.released.set()
        numbers = [await asyncio.wait_for(woken.get(), 60) for _ in range(100)]
        assert (await measured(metrics)).value == 1
        assert woken.empty()
        return sorted(numbers)

    assert run(call()) == list(range(100))
    assert answers.asked == ["up"]


def test_known_result_is_used_while_it_is_refreshed(answers: Answers) -> None:
    """A result that is too old is returned once more, and the rollout is woken by the next one."""
    answers.body = vector("1")

    async def call() -> list[Decimal | None]:
        metrics, metric, woken = source(answers.server_port), Metric(name="m", query="up"), asyncio.Event()
        await measured(metrics, metric)
        answers.body = vector("2")
        old = metrics.measurements("default", (metric,), timedelta(0), woken.set)["m"]
        await asyncio.wait_for(woken.wait(), 60)
        return [old.value, (await measured(metrics, metric)).value]

    assert run(call()) == [1, 2]


def test_error_in_the_operator_is_a_result_too(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rollouts see it instead of waiting for ever."""
    answers.body = vector("1")
    monkeypatch.setattr(PrometheusSource, "_measure", lambda *_: 1 / 0)
    measurement = measure(answers.server_port)
    assert (measurement.problem, measurement.reason) == (Verdict.PROVIDER_ERROR, CheckReason.INTERNAL_ERROR)


def test_cohorts_become_counts(answers: Answers) -> None:
    """Four queries, one measurement."""
    answers.body = vector("40")
    cohorts = Metric.model_validate({"name": "m", "cohorts": {"good": 'g{v="$cohort"}', "total": 't{v="$cohort"}'}})
    measurement = measure(answers.server_port, cohorts)
    assert sorted(answers.asked) == ['g{v="off"}', 'g{v="on"}', 't{v="off"}', 't{v="on"}']
    assert measurement.on is not None
    assert measurement.on.total == 40
    answers.body = vector("0")
    assert measure(answers.server_port, cohorts).reason is CheckReason.NO_EVENTS
    answers.body = vector()
    assert measure(answers.server_port, cohorts).reason is CheckReason.EMPTY_RESULT


IMPOSSIBLE = {
    "more good than all": ("103", "100", "970", "1000"),
    "a little more": ("97", "100", "1000.25", "1000"),
    "fewer than none": ("-5", "100", "970", "1000"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_counts_that_cannot_be_are_inconclusive(answers: Answers, name: str) -> None:
    """An estimate of `increase()` above the whole is no share: it must neither narrow an interval nor end the decision."""
    queries = ('g{v="on"}', 't{v="on"}', 'g{v="off"}', 't{v="off"}')
    answers.bodies = {query: vector(value) for query, value in zip(queries, IMPOSSIBLE[name], strict=True)}
    cohorts = Metric.model_validate({"name": "m", "cohorts": {"good": 'g{v="$cohort"}', "total": 't{v="$cohort"}'}})
    measurement = measure(answers.server_port, cohorts)
    assert (measurement.problem, measurement.reason) == (Verdict.INCONCLUSIVE, CheckReason.IMPOSSIBLE_COUNTS)
    assert (measurement.value, measurement.on) == (None, None)


WORSE = {
    "stale": (vector("1", at=-86_400), CheckReason.STALE_SAMPLE),
    "several series": (vector("1", "2"), CheckReason.MULTIPLE_SERIES),
    "refused": (bad("no"), CheckReason.QUERY_REJECTED),
}


@pytest.mark.parametrize("name", WORSE)
def test_absent_cohort_hides_no_other_problem(answers: Answers, name: str) -> None:
    """D2: `onNoData` is about a cohort without series, and not about one that cannot be read."""
    body, reason = WORSE[name]
    answers.body, answers.bodies = vector(), {'t{v="off"}': body}
    cohorts = Metric.model_validate({"name": "m", "cohorts": {"good": 'g{v="$cohort"}', "total": 't{v="$cohort"}'}})
    measurement = measure(answers.server_port, cohorts)
    assert (measurement.reason, measurement.is_absent) == (reason, False)
    answers.bodies = {}
    assert measure(answers.server_port, cohorts).is_absent


def test_token_is_read_from_its_file_each_time(answers: Answers, tmp_path: Path) -> None:
    """Rotation works; no environment is trusted."""
    answers.body = vector("1")
    token = tmp_path / "token"

    async def call() -> None:
        metrics = source(answers.server_port, bearer_token_file=token)
        for secret in ("first", "second"):
            token.write_text(secret)
            await measured(metrics, Metric(name="m", query=f"up{secret}"))
            assert answers.sent[-1]["Authorization"] == f"Bearer {secret}"

    run(call())


@pytest.mark.usefixtures("prose")
@pytest.mark.parametrize(("scheme", "field"), [("http", "bearer_token_file"), ("https", "ca_file")])
def test_file_that_cannot_be_read(answers: Answers, tmp_path: Path, scheme: str, field: str) -> None:
    """A Secret that is not mounted, or not readable; the message names the file."""
    path = tmp_path / "secret"
    measurement = measure(answers.server_port, None, scheme, **{field: path})
    assert (measurement.problem, measurement.reason) == (Verdict.PROVIDER_ERROR, CheckReason.CREDENTIALS_UNREADABLE)
    assert str(path) in measurement.message


def test_alert_rules(answers: Answers) -> None:
    """Names of all groups; a response that is not Prometheus' has its reason, too."""
    answers.body = success({"groups": [{"rules": [{"name": "a"}]}, {"rules": [{"name": "b"}, {"name": "a"}]}]})
    assert run(_rules(answers.server_port)) == {"a", "b"}
    answers.body = success([])
    with pytest.raises(ProviderFailed) as failure:
        run(_rules(answers.server_port))
    assert failure.value.reason is CheckReason.INVALID_RESPONSE


async def _rules(port: int) -> frozenset[str]:
    return await source(port).alert_rules("default")


def test_problems_are_known_before_a_query() -> None:
    """An unknown provider, and PromQL that does not parse; a valid query has no problem."""
    metrics, wrong, right = source(1), Metric(name="m", query="rate(x)"), Metric(name="m", query="up")

    def problems(provider: str, *read: Metric) -> int:
        return len(asyncio.run(metrics.read_queries(provider, read)).problems)

    assert (problems("other", right), problems("default", wrong, right), problems("other", wrong)) == (1, 1, 2)
    assert (problems("default", right), problems("other")) == (0, 0)


def test_queries_of_a_rollout_do_not_stop_the_event_loop() -> None:
    """R5: 64 metrics of four queries each, as long as they may be: the Lease is renewed, and emergencies of others are heard."""
    sums = ["+".join([f"a{number}", *["a"] * 1015]) for number in range(128)]
    metrics = tuple(
        Metric.model_validate(
            {"name": f"m{number}", "cohorts": {"good": f"{sums[number]}+$cohort", "total": sums[-number - 1]}}
        )
        for number in range(64)
    )
    turns = 0

    async def body() -> None:
        reading, loop = asyncio.create_task(source(1).read_queries("default", metrics)), asyncio.get_running_loop()

        def turn() -> None:
            nonlocal turns
            turns += 1
            if not reading.done():
                loop.call_soon(turn)

        loop.call_soon(turn)
        await reading
        assert reading.result().problems == ()
        assert set(reading.result().ranges.values()) == {timedelta(minutes=5)}

    asyncio.run(body())
    assert turns >= len(metrics), "others have their turns between two queries"
