"""`validate` with the past of a server: tolerances that noise exceeds. How noise is measured: simulation/test_noise.

Covers D17: a guard that noise would breach is known before the rollout begins.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from adapters.providers import Answers, Handler, answering, bad
from core.world import spec
from lab.processes import free_port
from session_rollout.adapters.promql_seasons import query_of_seasons
from session_rollout.api.metrics import Metric
from session_rollout.cli.app import app
from session_rollout.cli.command import Exit, code_of
from session_rollout.cli.warnings_noise import WarnNoise

NOW, WEEK, HOUR = time.time(), 7 * 86_400, 3_600
METRICS = [{"name": "errors", "query": "errors"}, {"name": "load", "query": "load", "interval": "15m"}]
LOAD = {"metric": "load", "comparedTo": "Baseline"}
GUARD = {"name": "load", **LOAD, "maxIncrease": "15%", "for": "5m"}
Value = Callable[[float], float]


class Past(Handler):
    """A Prometheus that has the values of a function of the time before now, in seconds; NaN where there is none."""

    value: Value

    def do_GET(self) -> None:
        if not self.path.startswith("/api/v1/query_range"):
            self.send_error(404)
            return
        given = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        moments = range(int(given["start"]), int(given["end"]) + 1, int(given["step"]))
        values = [(moment, type(self).value(NOW - moment)) for moment in moments]
        known = [[moment, repr(value)] for moment, value in values if not math.isnan(value)]
        result = [{"metric": {"season": "0"}, "values": known}] if known else []
        body = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()
        self.server.bodies = {given["query"]: self.server.body or body}
        super().do_GET()


@contextmanager
def remembering(value: Value) -> Iterator[Answers]:
    with answering(handler=type("Known", (Past,), {"value": staticmethod(value)})) as server:
        yield server


def noisy(share: float) -> Value:
    """So much more in each third hour of the last week."""
    return lambda age: 1 + share * (age < WEEK and age // HOUR % 3 == 0)


def file_of(directory: Path, **changes: Any) -> str:
    """The path of a rollout with one guard and one phase."""
    head = {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRollout", "metadata": {"name": "shop"}}
    file = directory / "shop.yaml"
    file.write_text(yaml.safe_dump({**head, "spec": spec(**{"guards": [GUARD], "metrics": METRICS, **changes}).to_wire()}))
    return str(file)


def validated(server: Answers, file: str, *words: str) -> tuple[int, list[str]]:
    """The exit code, and the arguments of `validate`."""
    options = [file, "--prometheus", f"http://127.0.0.1:{server.server_port}", *words]
    return code_of(app, ["validate", *options, "-o", "json"]), options


Findings = dict[str, str]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], Findings]:
    """What the command says of noise: severity by field."""

    def read() -> Findings:
        printed = json.loads(capsys.readouterr().out)
        return {each["field"]: each["severity"] for each in printed if each["rule"] == WarnNoise.SMALL_TOLERANCE}

    return read


def test_guard_is_refused_and_criterion_is_warned_of(tmp_path: Path, said: Callable[[], Findings]) -> None:
    """D17: by the means that the operator compares; a tolerance with enough margin is neither."""
    with remembering(noisy(0.12)) as server:
        code, _ = validated(server, file_of(tmp_path))
    assert code == Exit.REFUSED
    assert said() == {
        "spec.guards[0].maxIncrease": "error",
        "spec.phases[0].criteria[1].maxIncrease": "warning",
        "spec.phases[1].criteria[0].maxIncrease": "warning",
    }
    assert set(server.asked) == {query_of_seasons(Metric.model_validate(METRICS[1]), ())}


def test_enough_margin(tmp_path: Path, said: Callable[[], Findings]) -> None:
    with remembering(noisy(0.05)) as server:
        code, _ = validated(server, file_of(tmp_path))
    assert (code, said()) == (Exit.DONE, {})


@pytest.mark.parametrize(
    ("fields", "severity"),
    [
        ({"onBreach": "Pause"}, "error"),
        ({"onBreach": "Warn"}, "warning"),
        ({"dryRun": True}, None),
        ({"maxIncrease": "0.01"}, None),
        ({"maxIncrease": None, "maxDecrease": "10%"}, "error"),
        ({"maxIncrease": None, "maxDecrease": "60%"}, None),
    ],
    ids=str,
)
def test_what_guards_do(fields: dict[str, Any], severity: str | None, tmp_path: Path, said: Callable[[], Findings]) -> None:
    """D17: one that only warns harms nobody; a tolerance without % has no noise in %."""
    guard = {name: value for name, value in {**GUARD, **fields}.items() if value is not None}
    with remembering(noisy(0.2)) as server:
        validated(server, file_of(tmp_path, guards=[guard]))
    assert next((value for name, value in said().items() if "guards" in name), None) == severity


def test_time_that_is_measured(tmp_path: Path, said: Callable[[], Findings]) -> None:
    """D17: `--from` says how long it is."""
    with remembering(lambda age: 1.3 if 9 * 86_400 < age < 10 * 86_400 else 1.0) as server:
        assert validated(server, file_of(tmp_path))[0] == Exit.DONE
        assert said() == {}
        assert validated(server, file_of(tmp_path), "--from", "14d")[0] == Exit.REFUSED


def test_incidents_can_be_marked(tmp_path: Path, said: Callable[[], Findings]) -> None:
    """D17: an incident is no noise, and must not prevent a rollout for a week."""
    begin, end = NOW - 3 * HOUR, NOW - 2 * HOUR
    marked = "..".join(datetime.fromtimestamp(time, UTC).isoformat() for time in (begin, end))
    with remembering(lambda age: 3.0 if begin <= NOW - age < end + 1_800 else 1.0) as server:
        assert validated(server, file_of(tmp_path))[0] == Exit.REFUSED
        assert "spec.guards[0].maxIncrease" in said()
        assert validated(server, file_of(tmp_path), "--incident", marked)[0] == Exit.DONE
        assert validated(server, file_of(tmp_path), "--incident", "yesterday")[0] == Exit.USAGE


@pytest.mark.parametrize(
    "value",
    [lambda _: math.nan, lambda _: 0.0, lambda age: 1.0 if age < WEEK else math.nan, lambda age: -1.0 if age < WEEK else 1.0],
    ids=["no data", "zero", "new", "another sign"],
)
def test_what_cannot_be_measured_is_said(value: Value, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """D17: and is neither an error nor a warning: also `--strict` accepts a new service."""
    with remembering(value) as server:
        code, _ = validated(server, file_of(tmp_path))
    printed = capsys.readouterr()
    assert code == Exit.DONE
    assert WarnNoise.SMALL_TOLERANCE not in printed.out
    assert "metric load" in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    "body",
    [
        bad("query processing would load too many samples"),
        b"<html>",
        b'{"status": "success", "data": {"resultType": "vector", "result": []}}',
        b'{"status": "success", "data": {"resultType": "matrix", "result": [{"values": [[1, "x"]]}]}}',
    ],
)
def test_response_that_says_nothing(body: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """D17: an expensive query may be rejected; the file may be right all the same."""
    with remembering(noisy(0.5)) as server:
        server.body = body
        code, _ = validated(server, file_of(tmp_path))
    printed = capsys.readouterr()
    assert (code, WarnNoise.SMALL_TOLERANCE in printed.out) == (Exit.DONE, False)
    assert "metric load" in printed.err


def test_server_that_cannot_be_reached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """D17: nothing was checked, which is no success."""
    assert code_of(app, ["validate", file_of(tmp_path), "--prometheus", f"http://127.0.0.1:{free_port()}"]) == Exit.REFUSED
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert "load" in printed.err


@pytest.mark.parametrize(("words", "option"), [(("--from", "soon"), "--from"), (("--from", "9999d"), "--from")])
def test_wrong_option(words: tuple[str, ...], option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with remembering(noisy(0)) as server:
        assert validated(server, file_of(tmp_path), *words)[0] == Exit.USAGE
    assert option in capsys.readouterr().err


@pytest.mark.parametrize(
    "metric", [{"baseline": {"count": 0}}, {"query": "load or vector(0)"}], ids=["switched off", "without a past"]
)
def test_nothing_is_asked_without_seasons(metric: dict[str, Any], tmp_path: Path, said: Callable[[], Findings]) -> None:
    """D17: what is compared with one value from before the phase has no seasons to measure."""
    with remembering(noisy(0.5)) as server:
        code, _ = validated(server, file_of(tmp_path, metrics=[METRICS[0], {**METRICS[1], **metric}]))
    assert (code, said(), server.asked) == (Exit.DONE, {}, [])
