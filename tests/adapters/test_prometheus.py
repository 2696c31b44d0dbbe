"""The metric source against an HTTP server that answers whatever a provider might: each becomes the right verdict and a sentence.

A fake on purpose: these are the edge cases of one HTTP client. A real Prometheus is asked in the integration tests.
"""

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from lab.processes import free_port
from session_rollout.adapters.clock import WallClock
from session_rollout.adapters.prometheus import PrometheusSource
from session_rollout.adapters.promql import largest_range
from session_rollout.api.reasons import Verdict
from session_rollout.api.rollout import Metric
from session_rollout.core.observed import Measurement
from session_rollout.settings import Provider


def vector(*values: str, **beside: Any) -> bytes:
    """A success of Prometheus with one series a value."""
    result = [{"metric": {"n": str(n)}, "value": [1.0, value]} for n, value in enumerate(values)]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}, **beside}).encode()


def bad(text: str) -> bytes:
    """A refusal of Prometheus."""
    return json.dumps({"status": "error", "errorType": "bad_data", "error": text}).encode()


class Answers(ThreadingHTTPServer):
    """Says what it is told, and counts."""

    code, body = 200, b""
    headers: dict[str, str]

    def __init__(self) -> None:
        self.released = threading.Event()
        self.released.set()
        self.asked: list[str] = []
        self.sent: list[dict[str, str]] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Answers

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(parse_qs(urlsplit(self.path).query)["query"][0])
        server.sent.append(dict(self.headers))
        server.released.wait(30)
        self.send_response(server.code)
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.send_header("Content-Length", str(len(server.body)))
        self.end_headers()
        self.wfile.write(server.body)


@pytest.fixture
def answers() -> Iterator[Answers]:
    """A provider."""
    server = Answers()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


def source(port: int, scheme: str = "http", **fields: Any) -> PrometheusSource:
    """A source with one provider called `default`."""
    provider = Provider(url=f"{scheme}://127.0.0.1:{port}", timeout="500ms", **fields)
    return PrometheusSource({"default": provider}, WallClock(), 4)


def ask(metrics: PrometheusSource, metric: Metric | None = None) -> Measurement:
    """Ask, wait to be woken, and take the answer."""
    metric = metric or Metric(name="m", query="up")
    woken = threading.Event()
    found = metrics.look("default", (metric,), timedelta(minutes=1), woken.set)
    while "m" not in found and woken.wait(5):
        woken.clear()
        found = metrics.look("default", (metric,), timedelta(minutes=1), woken.set)
    return found["m"]


CASES: list[tuple[str, int, bytes, Verdict | None, str]] = [
    ("one number", 200, vector("0.25"), None, ""),
    (
        "scalar",
        200,
        json.dumps({"status": "success", "data": {"resultType": "scalar", "result": [1.0, "0.25"]}}).encode(),
        None,
        "",
    ),
    ("empty", 200, vector(), Verdict.NO_DATA, "empty"),
    ("NaN", 200, vector("NaN"), Verdict.NO_DATA, "NaN"),
    ("infinity", 200, vector("+Inf"), Verdict.INCONCLUSIVE, "+Inf"),
    ("several series", 200, vector("1", "2", "3"), Verdict.INCONCLUSIVE, "3 series, and it must have one"),
    ("partial", 200, vector("0.25", warnings=["store gateway is down"]), Verdict.INCONCLUSIVE, "store gateway is down"),
    (
        "histogram",
        200,
        json.dumps({"status": "success", "data": {"result": [{"metric": {}, "histogram": []}]}}).encode(),
        Verdict.INCONCLUSIVE,
        "not one number",
    ),
    ("bad query", 400, bad("parse error: unexpected )"), Verdict.PROVIDER_ERROR, "parse error"),
    ("forbidden", 403, b"no", Verdict.PROVIDER_ERROR, "403"),
    ("unavailable", 503, b"busy", Verdict.PROVIDER_ERROR, "503"),
    ("redirect", 302, b"", Verdict.PROVIDER_ERROR, "302"),
    ("not JSON", 200, b"<html>login</html>", Verdict.PROVIDER_ERROR, "not Prometheus'"),
    ("other JSON", 200, b"[1]", Verdict.PROVIDER_ERROR, "AttributeError"),
    ("no result", 200, b'{"status": "success"}', Verdict.PROVIDER_ERROR, "KeyError"),
    ("text for a number", 200, vector("lots"), Verdict.PROVIDER_ERROR, "not Prometheus'"),
    ("too large", 200, b" " * 5_000, Verdict.PROVIDER_ERROR, "larger than 4096"),
]


@pytest.mark.parametrize(("code", "body", "problem", "words"), [row[1:] for row in CASES], ids=[row[0] for row in CASES])
def test_every_answer_is_a_number_or_a_verdict(
    answers: Answers, code: int, body: bytes, problem: Verdict | None, words: str
) -> None:
    """Nothing raises, nothing passes."""
    answers.code, answers.body = code, body
    measurement = ask(source(answers.server_port, max_answer_bytes=4096))
    assert measurement.problem is problem
    assert words in measurement.message
    assert (measurement.value == Decimal("0.25")) is (problem is None)


def test_refused_and_slow() -> None:
    """No server, and one that takes too long."""
    assert ask(source(free_port())).message == "provider default cannot be reached"


def test_slow(answers: Answers) -> None:
    """The time-out of the configuration, in words."""
    answers.released.clear()
    measurement = ask(source(answers.server_port))
    assert (measurement.problem, measurement.message) == (
        Verdict.PROVIDER_ERROR,
        "provider default did not answer within 500ms",
    )


def test_look_never_waits(answers: Answers) -> None:
    """A slow provider costs a rollout no time: the answer is still on its way when the look is over."""
    answers.body = vector("1")
    answers.released.clear()
    metrics, woken = source(answers.server_port), threading.Event()
    assert metrics.look("default", (Metric(name="m", query="up"),), timedelta(minutes=1), woken.set) == {}
    assert not woken.is_set()
    answers.released.set()
    assert woken.wait(5)


def test_equal_queries_are_asked_once(answers: Answers) -> None:
    """A hundred rollouts with one query within one interval are one request."""
    answers.body = vector("1")
    answers.released.clear()
    metrics = source(answers.server_port)
    done = threading.Semaphore(0)
    for _ in range(100):
        metrics.look("default", (Metric(name="m", query="up"),), timedelta(minutes=1), done.release)
    answers.released.set()
    for _ in range(100):
        assert done.acquire(timeout=5)
    assert ask(metrics).value == 1
    assert answers.asked == ["up"]


def test_cohorts_become_counts(answers: Answers) -> None:
    """Four questions, one measurement."""
    answers.body = vector("40")
    cohorts = Metric.model_validate({"name": "m", "cohorts": {"good": 'g{v="$cohort"}', "total": 't{v="$cohort"}'}})
    measurement = ask(source(answers.server_port), cohorts)
    assert sorted(answers.asked) == ['g{v="off"}', 'g{v="on"}', 't{v="off"}', 't{v="on"}']
    assert measurement.on is not None
    assert measurement.on.total == 40
    answers.body = vector("0")
    assert ask(source(answers.server_port), cohorts).message == "a cohort has no events"


def test_token_is_read_from_its_file_each_time(answers: Answers, tmp_path: Any) -> None:
    """Rotation works; no environment is trusted."""
    answers.body = vector("1")
    token = tmp_path / "token"
    metrics = source(answers.server_port, bearer_token_file=token)
    for secret in ("first", "second"):
        token.write_text(secret)
        ask(metrics, Metric(name="m", query=f"up{secret}"))
        assert answers.sent[-1]["Authorization"] == f"Bearer {secret}"


def test_file_that_cannot_be_read_is_named(answers: Answers, tmp_path: Any) -> None:
    """A Secret that is not mounted, or not for us."""
    token = ask(source(answers.server_port, bearer_token_file=tmp_path / "token"))
    said = f"provider default: {tmp_path}/token cannot be read: No such file or directory"
    assert (token.problem, token.message) == (Verdict.PROVIDER_ERROR, said)
    authority = ask(source(answers.server_port, scheme="https", ca_file=tmp_path / "ca.crt"))
    assert authority.problem is Verdict.PROVIDER_ERROR
    assert f"invalid path: {tmp_path}/ca.crt" in authority.message


def test_problems_name_the_field() -> None:
    """What can never be asked is said before it is."""
    metrics = source(1)
    wrong = Metric(name="m", query="rate(x)")
    assert "`prometheus` is other" in metrics.problems("other", (wrong,))[0]
    assert "its PromQL must parse: expected type" in metrics.problems("default", (wrong,))[0]
    assert metrics.problems("default", (Metric(name="m", query="up"),)) == ()


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ("up", 0),
        ("rate(x[5m])", 300),
        ("rate(x[5m] offset 1h)", 3_900),
        ("x offset 2m", 120),
        ("max_over_time(rate(x[5m])[1h:1m])", 3_900),
        ("sum(rate(a[1m])) / sum(rate(b[10m]))", 600),
        ("-(rate(x[2m]))", 120),
        ("histogram_quantile(0.95, sum by (le) (rate(x_bucket[5m])))", 300),
        ("1 - 2", 0),
    ],
)
def test_largest_range(query: str, seconds: int) -> None:
    """How far back a query looks."""
    assert largest_range(query).total_seconds() == seconds
