"""How a provider is reached, and how late its answers are: R6, and TLS. Real sockets and real certificates.

Not here: what an answer contains (test_prometheus.py), and how old it is (test_provider_clock.py).
"""

import asyncio
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from adapters.providers import (
    FOREVER,
    MINUTE,
    Answers,
    Handler,
    Trickle,
    answering,
    measure,
    measured,
    run,
    source,
    trickling,
    vector,
)
from lab.lab import PATIENCE, ROOT
from lab.processes import free_port
from session_rollout.adapters.blocking import Call
from session_rollout.adapters.clock import WallClock
from session_rollout.adapters.prometheus import PrometheusSource
from session_rollout.api.enums import CheckReason, Verdict
from session_rollout.api.metrics import Metric
from session_rollout.core.observed import Measurement
from session_rollout.settings import Provider


@pytest.fixture
def answers() -> Iterator[Answers]:
    """A provider."""
    with answering() as server:
        yield server


# --- R6: late answers


def test_queries_that_hang_do_not_delay_one_that_was_fast(answers: Answers) -> None:
    """R6: many queries of other rollouts wait for their time limits on the same server."""
    answers.body, answers.prompt = vector("1"), {"up"}
    answers.released.clear()

    async def body() -> None:
        metrics = source(answers.server_port, timeout=FOREVER)
        await metrics.query("default", "up")
        hanging = [asyncio.create_task(metrics.query("default", f"slow_{number}")) for number in range(20)]
        while len(answers.asked) < 4:  # the one, and as many as may run beside it
            await asyncio.wait(hanging, timeout=0.01)
        measurement = await asyncio.wait_for(metrics.query("default", "up"), 60)
        assert measurement.value == 1
        assert not any(task.done() for task in hanging)
        answers.released.set()
        assert {measurement.value for measurement in await asyncio.gather(*hanging)} == {1}

    run(body())


def test_queries_that_turn_slow_do_not_delay_one_that_is_fast(answers: Answers) -> None:
    """R6: a server becomes slow for the queries of other rollouts, all known as fast, and they hang until their time limits."""
    answers.body, answers.prompt = vector("1"), {"up"}
    metric, fleet = Metric(name="m", query="up"), [[f"r{rollout}_{query}" for query in range(10)] for rollout in range(3)]

    async def body() -> None:
        metrics, wakes = source(answers.server_port, timeout=FOREVER), [asyncio.Event() for _ in fleet]

        def ask(max_age: timedelta) -> list[int]:
            found = []
            for queries, wake in zip(fleet, wakes, strict=True):
                asked = tuple(Metric(name=f"m{number}", query=query) for number, query in enumerate(queries))
                found.append(len(metrics.measurements("default", asked, max_age, wake.set)))
            return found

        while ask(MINUTE) != [10, 10, 10]:
            await asyncio.wait([asyncio.create_task(wake.wait()) for wake in wakes], timeout=0.01)
        await measured(metrics, metric)
        answers.released.clear()
        answers.asked.clear()
        for wake in wakes:
            wake.clear()
        ask(timedelta(0))
        woken = asyncio.Event()
        metrics.measurements("default", (metric,), timedelta(0), woken.set)
        await asyncio.wait_for(woken.wait(), 60)
        assert not any(wake.is_set() for wake in wakes), "no query of the others was answered, or reached its time limit"
        assert answers.asked.index("up") <= len(fleet) + 4, "one of each other rollout, and as many as run"

    run(body())


TRICKLES = {
    "headers": (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b" "),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "error": (b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 99999\r\n\r\n", b" "),
}


@pytest.mark.parametrize("name", TRICKLES)
def test_time_limit_is_for_the_whole_answer(name: str) -> None:
    """R6: a provider that sends a byte now and then ends at `timeout`, and its connection with it."""
    with trickling(*TRICKLES[name]) as server:
        begun = time.monotonic()
        measurement = measure(server.port, timeout="500ms")
        assert (measurement.problem, measurement.reason) == (Verdict.PROVIDER_ERROR, CheckReason.TIMED_OUT)
        assert 0.5 <= time.monotonic() - begun < 2 * PATIENCE


def test_time_limit_includes_the_tls_handshake() -> None:
    """R6: a server that accepts and never greets."""
    with trickling(b"", b"") as server:
        assert measure(server.port, scheme="https", timeout="500ms").reason is CheckReason.TIMED_OUT


def ended_calls() -> int:
    """Wait until no query has a thread any more, and return how many had one."""
    calls = [thread for thread in threading.enumerate() if isinstance(thread, Call)]
    for call in calls:
        call.join(60)
        assert not call.is_alive(), f"{call.name} still runs"
    return len(calls)


@pytest.mark.parametrize("name", [*TRICKLES, "handshake"])
def test_queries_that_hang_leave_no_thread(name: str) -> None:
    """R6: after the time limit, no thread waits for the provider, whatever it sends."""

    async def reasons(port: int) -> set[CheckReason | None]:
        url = f"http://127.0.0.1:{port}" if name in TRICKLES else f"https://127.0.0.1:{port}"
        metrics = PrometheusSource({"slow": Provider(url=url, timeout="500ms")}, WallClock(), 16)
        queries = [asyncio.create_task(metrics.query("slow", f"up{number}")) for number in range(16)]
        for _ in queries:
            assert await asyncio.to_thread(server.accepted.acquire, timeout=60)
        found = {(await query).reason for query in queries}
        await asyncio.to_thread(ended_calls)
        metrics.close()
        return found

    with trickling(*TRICKLES.get(name, (b"", b""))) as server:
        assert asyncio.run(reasons(server.port)) == {CheckReason.TIMED_OUT}


def test_connections_are_used_again(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """One connection for queries one after the other; R6: when its server trickles, it ends like a new one."""
    monkeypatch.setattr(Handler, "protocol_version", "HTTP/1.1")
    answers.body = vector("1") + b" " * 1_000

    async def reasons() -> list[CheckReason | None]:
        metrics, found = source(answers.server_port, timeout="3s"), []
        for query in ("a", "b", "c", "d"):
            answers.fast.clear() if query == "c" else answers.fast.set()
            found.append((await metrics.query("default", query)).reason)
            await asyncio.to_thread(ended_calls)
        return found

    assert run(reasons()) == [None, None, CheckReason.TIMED_OUT, None]
    first, second, third, fourth = answers.clients
    assert first == second == third != fourth


def test_proxy_of_the_environment_is_not_used(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration of the operator says all about a provider."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    answers.body = vector("1")
    assert measure(answers.server_port).value == 1


def test_redirect_is_not_read_beyond_the_limit() -> None:
    """Its body is endless, and is no more welcome than that of another response."""
    with trickling(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 99999999\r\n\r\n", b" " * 40_000) as server:
        assert measure(server.port, max_response_bytes=4096).reason is CheckReason.RESPONSE_TOO_LARGE


@pytest.fixture
def hanging_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The name server does not answer before the event is set."""
    released, look_up = threading.Event(), socket.getaddrinfo

    def hang(_: str, *arguments: Any) -> list[Any]:
        released.wait()
        return look_up("127.0.0.1", *arguments)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    yield released
    released.set()


def test_time_limit_includes_the_name_server(hanging_names: threading.Event) -> None:
    """R6: neither the query nor the end of the loop waits for it; what connects after all does not stay."""
    with trickling() as server:
        assert measure(server.port, host="prometheus.example", timeout="500ms").reason is CheckReason.TIMED_OUT
        hanging_names.set()
        assert ended_calls() == 1


def test_slow_provider_slows_nobody_else(answers: Answers) -> None:
    """R6: twice as many queries hang at one provider as may run there; another answers within its time."""
    answers.body = vector("1")

    async def both(slow: Trickle) -> Measurement:
        providers = {
            "slow": Provider(url=f"http://127.0.0.1:{slow.port}", timeout=FOREVER),
            "good": Provider(url=f"http://127.0.0.1:{answers.server_port}", timeout="2s"),
        }
        metrics = PrometheusSource(providers, WallClock(), 8)
        hanging = [asyncio.create_task(metrics.query("slow", f"up{number}")) for number in range(16)]
        try:
            for _ in range(6):  # the other places are for queries that were fast
                assert await asyncio.to_thread(slow.accepted.acquire, timeout=60)
            return await asyncio.wait_for(metrics.query("good", "up"), 60)
        finally:
            for task in hanging:
                task.cancel()
            metrics.close()

    with trickling() as server:
        assert asyncio.run(both(server)).value == 1
        assert not server.accepted.acquire(blocking=False), "no more than `metricWorkers` queries run at a provider"


CLOSES = """
import asyncio, sys
from datetime import timedelta
from session_rollout.adapters.blocking import Call
from session_rollout.adapters.clock import WallClock
from session_rollout.adapters.prometheus import PrometheusSource
from session_rollout.api.metrics import Metric
from session_rollout.settings import Provider

async def main():
    metrics = PrometheusSource({"default": Provider(url=sys.argv[1], timeout="60s")}, WallClock(), 4)
    for number in range(8):
        metrics.measurements("default", (Metric(name="m", query=f"up{number}"),), timedelta(0), print)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    metrics.close()
    print("closed", flush=True)

asyncio.run(main())
"""


def test_end_of_the_process_waits_for_no_query() -> None:
    """R6: queries hang, the source is closed, and the process is gone at once and without a traceback."""
    with trickling() as server:
        argv = [sys.executable, "-c", CLOSES, f"http://127.0.0.1:{server.port}"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(argv, cwd=ROOT / "operator", text=True, **pipes) as process:
            assert server.accepted.acquire(timeout=30)
            output, errors = process.communicate("close\n", timeout=3 * PATIENCE)
    assert (output, errors, process.returncode) == ("closed\n", "", 0)


# --- TLS


@dataclass(frozen=True)
class Tls:
    """A server's certificate, what the operator trusts, and what comes of it."""

    reason: CheckReason | None
    words: str
    names: tuple[str, ...] = ("localhost",)
    trusts: bool | None = True  # the server's authority, another (False), or those of the machine (None)
    certificate: dict[str, Any] = field(default_factory=dict)


TLS = {
    "trusted": Tls(None, ""),
    "another authority": Tls(CheckReason.CERTIFICATE_REJECTED, "local issuer", trusts=False),
    "unknown authority": Tls(CheckReason.CERTIFICATE_REJECTED, "certificate", trusts=None),
    "another host": Tls(CheckReason.CERTIFICATE_REJECTED, "Hostname mismatch", names=("other.example",)),
    "expired": Tls(
        CheckReason.CERTIFICATE_REJECTED, "expired", certificate={"not_after": datetime.now(UTC) - timedelta(days=1)}
    ),
}


@pytest.mark.usefixtures("prose")
@pytest.mark.parametrize("name", TLS)
def test_certificates(tmp_path: Path, name: str) -> None:
    """A certificate that is rejected is no connection that failed, and the message has OpenSSL's words."""
    row, ours, other, context = TLS[name], trustme.CA(), trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.issue_cert(*row.names, **row.certificate).configure_cert(context)
    (ours if row.trusts else other).cert_pem.write_to_path(tmp_path / "ca.crt")
    with answering(context) as server:
        server.body = vector("1")
        trust = None if row.trusts is None else tmp_path / "ca.crt"
        measurement = measure(server.server_port, scheme="https", host="localhost", ca_file=trust)
    assert measurement.reason is row.reason
    assert row.words in measurement.message


@pytest.mark.usefixtures("prose")
def test_server_without_tls(answers: Answers) -> None:
    """The port speaks plain HTTP."""
    measurement = measure(answers.server_port, scheme="https")
    assert measurement.reason is CheckReason.TLS_FAILED
    assert "TLS failed" in measurement.message


def test_authorities_are_read_again_when_their_file_changes(tmp_path: Path) -> None:
    """A CA that is rotated needs no restart; a file without a certificate is a problem of the credentials."""
    old, new, file = trustme.CA(), trustme.CA(), tmp_path / "ca.crt"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    new.issue_cert("localhost").configure_cert(context)

    async def reasons(port: int) -> list[CheckReason | None]:
        metrics, found = source(port, "https", "localhost", ca_file=file), []
        for content in (old.cert_pem.bytes(), b"no certificate", new.cert_pem.bytes()):
            (tmp_path / "next").write_bytes(content)
            (tmp_path / "next").rename(file)
            found.append((await metrics.query("default", "up")).reason)
        return found

    with answering(context) as server:
        server.body = vector("1")
        assert run(reasons(server.server_port)) == [CheckReason.CERTIFICATE_REJECTED, CheckReason.CREDENTIALS_UNREADABLE, None]


def test_name_that_does_not_resolve() -> None:
    """Told apart from a server that cannot be reached."""

    def unknown(*_: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", unknown)
        assert measure(80, host="prometheus.example").reason is CheckReason.NAME_NOT_RESOLVED
    assert measure(free_port()).reason is CheckReason.CONNECTION_FAILED


def test_connection_that_ends_early(answers: Answers) -> None:
    """The body is shorter than announced."""
    answers.fields["Transfer-Encoding"] = "chunked"
    answers.body = b"not chunks"
    assert measure(answers.server_port).reason is CheckReason.INVALID_RESPONSE


ODD = {
    "another protocol": b"SSH-2.0-OpenSSH\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 200,
    "long header": b"HTTP/1.1 200 OK\r\nX: " + b"1" * 70_000 + b"\r\n",
    "wrong encoding": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n{} ",
}


@pytest.mark.parametrize("name", ODD)
def test_response_that_is_not_http(name: str) -> None:
    """Told apart from a server that cannot be reached."""
    with trickling(ODD[name]) as server:
        assert measure(server.port).reason is CheckReason.INVALID_RESPONSE


@pytest.mark.usefixtures("prose")
def test_connection_that_is_closed_without_a_response(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """No response is no invalid response."""
    monkeypatch.setattr(Handler, "do_GET", lambda _: None)
    measurement = measure(answers.server_port)
    assert measurement.reason is CheckReason.CONNECTION_FAILED
    assert "RemoteDisconnected" in measurement.message


# --- answers without a time


@pytest.mark.parametrize("sample", ["NaN", "Infinity", '"text"', "null", "1e400"])
def test_sample_without_a_time(answers: Answers, sample: str) -> None:
    """Nothing raises, nothing passes."""
    data = f'{{"resultType": "scalar", "result": [{sample}, "1"]}}'
    answers.body = f'{{"status": "success", "data": {data}}}'.encode()
    assert measure(answers.server_port).reason is CheckReason.INVALID_RESPONSE
