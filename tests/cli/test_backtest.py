"""`backtest` on a real Prometheus that has a past, and its options. What a backtest says: tests/simulation."""

import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.past import remembering
from lab.servers import Prometheus
from session_rollout.api.rollout import RolloutSpec
from session_rollout.cli.app import app
from session_rollout.cli.command import Exit, code_of
from session_rollout.cli.render.backtest import as_data
from session_rollout.simulation.backtest import backtest as run
from session_rollout.simulation.history import History, Incident, SeasonalHistory

STEP = timedelta(seconds=30)
DAYS = 4
END = datetime.fromtimestamp(datetime.now(UTC).timestamp() // 3600 * 3600, UTC)  # the past ends with a full hour
START = END - timedelta(days=DAYS)
INCIDENT = Incident(START + timedelta(hours=30), START + timedelta(hours=30, minutes=20))
SPEC: dict[str, Any] = {
    "flagSet": "shop",
    "checkInterval": "30s",
    "features": [{"name": "alpha"}],
    "metrics": [
        {"name": "errors", "query": "past_errors"},
        {"name": "load", "query": "past_load", "baseline": {"season": "1d", "count": 2, "window": "10m"}},
    ],
    "phases": [
        {
            "name": "one",
            "features": ["alpha"],
            "steps": [{"percent": 50, "hold": "2h"}, {"percent": 100, "hold": "4h"}],
            "criteria": [
                {"name": "few", "metric": "errors", "below": "0.5%"},
                {"name": "same", "metric": "load", "comparedTo": "Baseline", "maxIncrease": "10%"},
            ],
        }
    ],
    "guards": [
        {"name": "errors", "metric": "errors", "below": "1%", "for": "2m"},
        {"name": "load", "metric": "load", "comparedTo": "Baseline", "maxIncrease": "30%", "for": "5m"},
    ],
}


def errors(time: datetime) -> float:
    """0.1 %, but 3 % in the incident and in five minutes of each day."""
    daily = time.hour == START.hour and 10 <= time.minute < 15
    return 0.03 if daily or INCIDENT.start <= time < INCIDENT.end else 0.001


def load(time: datetime) -> float:
    """Twice as much at noon as at midnight, and twice as much in three hours of the last day."""
    return (100 + 50 * (1 - abs(time.hour - 12) / 6)) * (2 if timedelta(hours=9) <= END - time < timedelta(hours=12) else 1)


def mean(time: datetime) -> float:
    """Of ten full minutes, as the operator compares it; the past begins a day before the backtest."""
    minutes = (time.replace(second=0) - number * timedelta(minutes=1) for number in range(10))
    known = [load(minute) for minute in minutes if minute >= PAST_START]
    return sum(known) / len(known) if known else math.nan


PAST = {"past_errors": errors, "past_load": load}
PAST_START = START - timedelta(days=1)


def rollout(directory: Path, **changes: Any) -> str:
    """The path of the rollout, with fields of its spec replaced."""
    file = directory / "shop.yaml"
    head = {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRollout", "metadata": {"name": "shop"}}
    file.write_text(yaml.safe_dump({**head, "spec": {**SPEC, **changes}}))
    return str(file)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One with four days of both metrics, and a day before."""
    with remembering(tmp_path_factory.mktemp("prometheus"), PAST, PAST_START, END, STEP) as server:
        yield server


@pytest.mark.lab
def test_it_says_what_the_past_was(prometheus: Prometheus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same as of the values themselves; a second time without most of the queries."""
    marked = f"{INCIDENT.start:%Y-%m-%dT%H:%M}..{INCIDENT.end:%Y-%m-%dT%H:%M}"
    options = ["--prometheus", prometheus.url, "--from", f"{DAYS}d", "--to", f"{END:%Y-%m-%dT%H:%M}", "--incident", marked]
    options += ["--cache", str(tmp_path / "cache")]
    assert code_of(app, ["backtest", rollout(tmp_path), *options, "-o", "json"]) == Exit.DONE
    shown = json.loads(capsys.readouterr().out)
    times = [START + number * STEP for number in range(DAYS * 24 * 120 + 1)]
    spec, before = RolloutSpec.model_validate(SPEC), [START + number * STEP for number in range(-2 * 24 * 120, len(times))]
    metric = spec.metric("load")
    assert metric is not None
    assert metric.seasonal is not None
    seasons = SeasonalHistory(History.of(before[0], STEP, [mean(time) for time in before]), metric.seasonal)
    histories = {
        "errors": History.of(START, STEP, [errors(time) for time in times]),
        "load": History.of(START, STEP, [load(time) for time in times], seasons),
    }
    expected = json.loads(json.dumps(as_data(run(spec, histories, [INCIDENT]))))
    for noise, other in zip(shown[0]["noise"], expected[0]["noise"], strict=True):
        assert noise.pop("noise") == pytest.approx(other.pop("noise")) == pytest.approx(1)
    for passing, other in zip(shown[0]["criteria"], expected[0]["criteria"], strict=True):
        assert passing.pop("passing") == pytest.approx(other.pop("passing"), abs=0.001)  # a window may have both of its ends
    assert shown == expected
    guards = {guard["guard"]: guard for guard in shown[0]["guards"]}
    assert guards["errors"]["incidents"][0]["detected"] == guards["errors"]["incidents"][0]["phases"] > 0
    assert 0 < guards["errors"]["falseAborts"] < guards["errors"]["starts"]
    assert 0 < guards["load"]["falseAborts"] < guards["load"]["starts"]
    assert 0 < guards["load"]["unseasoned"] <= 24
    assert code_of(app, ["backtest", rollout(tmp_path), *options]) == Exit.DONE
    text = capsys.readouterr().out
    assert all(word in text for word in ("errors", "load", "all guards", "after 2 min", "Unseasoned", "maxIncrease"))
    assert code_of(app, ["backtest", rollout(tmp_path), *options, "-o", "html"]) == Exit.DONE
    page = capsys.readouterr().out
    assert page.startswith("<!doctype html>")
    assert page.count("<svg ") == len(SPEC["guards"])
    assert page.count("<title>incident ") == len(SPEC["guards"])
    assert page.count("<title>acts at ") >= 2
    assert not re.search(r"(src|href)=", page)


WRONG: dict[str, tuple[list[str], int]] = {
    "no server": ([], Exit.USAGE),
    "not a URL": (["--prometheus", "prometheus:9090"], Exit.USAGE),
    "a future": (["--prometheus", "http://127.0.0.1:9", "--from", "2099-01-01"], Exit.USAGE),
    "too long ago": (["--prometheus", "http://127.0.0.1:9", "--from", "366d"], Exit.USAGE),
    "before --from": (["--prometheus", "http://127.0.0.1:9", "--from", "14:02", "--to", "14:01"], Exit.USAGE),
    "no end": (["--prometheus", "http://127.0.0.1:9", "--to", "soon"], Exit.USAGE),
    "no time": (["--prometheus", "http://127.0.0.1:9", "--from", "yesterday"], Exit.USAGE),
    "half an incident": (["--prometheus", "http://127.0.0.1:9", "--incident", "2026-11-24T14:02"], Exit.USAGE),
    "an incident that ends before": (
        ["--prometheus", "http://127.0.0.1:9", "--incident", "2026-11-24T14:02..2026-11-24T14:01"],
        Exit.USAGE,
    ),
    "no time of an incident": (["--prometheus", "http://127.0.0.1:9", "--incident", "noon..one"], Exit.USAGE),
    "nobody answers": (["--prometheus", "http://127.0.0.1:9"], Exit.REFUSED),
    "no token": (["--prometheus", "http://127.0.0.1:9", "--token-file", "/nowhere"], Exit.REFUSED),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options, code = WRONG[case]
    assert code_of(app, ["backtest", rollout(tmp_path), *options, *(["--cache", str(tmp_path)] if options else [])]) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.strip()


def test_cohorts_have_no_past(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Checks of their metrics are left out, which is said."""
    queries = {"good": 'sum(increase(good{variant="$cohort"}[1h]))', "total": 'sum(increase(all{variant="$cohort"}[1h]))'}
    criteria = [{"name": "compared", "metric": "sessions", "comparedTo": "Control", "maxDecrease": "1%"}]
    file = rollout(
        tmp_path,
        metrics=[{"name": "sessions", "cohorts": queries}],
        guards=[{"name": "share", "metric": "sessions", "above": "90%"}],
        phases=[
            {"name": "one", "features": ["alpha"], "steps": [{"percent": 100, "hold": "1h"}], "criteria": criteria},
        ],
    )
    assert code_of(app, ["backtest", file, "--prometheus", "http://127.0.0.1:9", "--cache", str(tmp_path)]) == Exit.DONE
    printed = capsys.readouterr()
    assert "share, compared" in printed.err
    assert "0 starts" in printed.out
