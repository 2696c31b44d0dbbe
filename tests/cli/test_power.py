"""`power` with figures of the user, on a real Prometheus that has a past, and with options that say nothing."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.counting import spec
from lab.past import remembering
from lab.servers import Prometheus
from session_rollout.cli.app import app
from session_rollout.cli.command import Exit, code_of

END = datetime.now(UTC)
START = END - timedelta(hours=6)
PER_HOUR, RATE = 3_600.0, 0.01


def past(share: float) -> Any:
    """A counter that grows evenly."""
    return lambda time: PER_HOUR * share * ((time - START) / timedelta(hours=1))


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that remembers six hours of counters."""
    metrics = {"past_all": past(1.0), "past_bad": past(RATE), "past_idle": lambda _: 0.0}
    with remembering(tmp_path_factory.mktemp("prometheus"), metrics, START, END, timedelta(seconds=30)) as server:
        yield server


def rollout(directory: Path, **counters: str) -> str:
    """The path of a rollout whose metric has these counters."""
    cohorts = {"feature": "alpha", "bad": "past_bad", "total": "past_all", **counters}
    known = spec(metrics=[{"name": "failures", "cohorts": cohorts}])
    head = {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRollout", "metadata": {"name": "shop"}}
    file = directory / "shop.yaml"
    file.write_text(yaml.safe_dump({**head, "spec": known.to_wire()}))
    return str(file)


def data(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What the command prints as JSON."""
    assert code_of(app, ["power", *words, "-o", "json"]) == Exit.DONE
    return json.loads(capsys.readouterr().out)


@pytest.mark.lab
def test_traffic_is_measured(prometheus: Prometheus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = data(capsys, rollout(tmp_path), "--prometheus", prometheus.url, "--from", "5h")
    assert {(row["kind"], row["percent"]) for row in rows} == {
        (kind, p) for kind in ("Guard", "Criterion") for p in (20.0, 50.0)
    }
    for row in rows:
        assert row["eventsPerHour"] == pytest.approx(PER_HOUR, rel=0.02)
        assert row["rateWithout"] == pytest.approx(RATE, rel=0.02)


@pytest.mark.lab
@pytest.mark.parametrize("counters", [{"total": "past_idle"}, {"total": "nobody_exports_this"}])
def test_no_traffic_is_said(
    prometheus: Prometheus, counters: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rather than a figure that is made up."""
    assert code_of(app, ["power", rollout(tmp_path, **counters), "--prometheus", prometheus.url]) == Exit.REFUSED
    assert "failures" in capsys.readouterr().err


@pytest.mark.lab
@pytest.mark.parametrize("bad", ["past_bad", "past_idle", "past_bda"])
def test_bad_events_that_no_series_counts(
    prometheus: Prometheus, bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`validate` says so; a counter of 0 is one."""
    path = rollout(tmp_path, bad=bad)
    assert code_of(app, ["validate", path, "--prometheus", prometheus.url, "--from", "5h", "-o", "json"]) == Exit.DONE
    rules = {finding["rule"]: finding["field"] for finding in json.loads(capsys.readouterr().out)}
    assert rules.get("NoBadCounter") == ("spec.metrics[0].cohorts" if bad == "past_bda" else None)


def test_figures_of_the_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = data(capsys, rollout(tmp_path), "--traffic", "10000/h", "--rate", "0.05%")
    assert {(row["eventsPerHour"], row["rateWithout"]) for row in rows} == {(10_000.0, 0.0005)}
    assert code_of(app, ["power", rollout(tmp_path), "--traffic", "10000/h", "--rate", "0.05%"]) == Exit.DONE
    assert "failures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ((), "--traffic"),
        (("--traffic", "10000/h"), "--rate"),
        (("--rate", "1%"), "--traffic"),
        (("--traffic", "0/h", "--rate", "1%"), "--traffic"),
        (("--traffic", "10000", "--rate", "1%"), "--traffic"),
        (("--traffic", "many", "--rate", "1%"), "--traffic"),
        (("--traffic", "10000/h", "--rate", "0.01"), "--rate"),
        (("--traffic", "10000/h", "--rate", "1%", "--prometheus", "http://x"), "--prometheus"),
        (("--prometheus", "localhost:9090"), "--prometheus"),
        (("--traffic", "1/h", "--rate", "1%", "--inflation", "0.5"), "--inflation"),
    ],
)
def test_wrong_options_get_one_sentence(
    words: tuple[str, ...], option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(app, ["power", rollout(tmp_path), *words]) == Exit.USAGE
    printed = capsys.readouterr().err
    assert option in printed
    assert "Traceback" not in printed


def test_a_rollout_without_comparisons_has_no_power(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = spec(metrics=[{"name": "failures", "query": "up"}], guards=[], phases=[{**spec().phases[1].to_wire()}])
    head = {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRollout", "metadata": {"name": "shop"}}
    file = tmp_path / "plain.yaml"
    file.write_text(yaml.safe_dump({**head, "spec": known.to_wire()}))
    assert code_of(app, ["power", str(file), "--traffic", "1/h", "--rate", "1%"]) == Exit.REFUSED
    assert "Control" in capsys.readouterr().err
