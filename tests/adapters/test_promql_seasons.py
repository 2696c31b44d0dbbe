"""The query of earlier seasons: with the parser, evaluated by Prometheus itself (`promtool test rules`), and its results.

Covers D17: what earlier weeks were is read from the metric as it is written.
"""

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.providers import MINUTE, Answers, answering, bad, run, source, success, vector
from lab import sources
from lab.processes import free_port
from session_rollout.adapters.promql import DEEPEST, LONGEST_QUERY, parse
from session_rollout.adapters.promql_seasons import query_of_seasons
from session_rollout.api.enums import CheckReason, Verdict
from session_rollout.api.metrics import Metric
from session_rollout.core.observed import Seasons

WEEK = timedelta(days=7)
WEEKS = (WEEK, 2 * WEEK, 3 * WEEK)
RATIO = '(sum(rate(http_requests_total{code=~"5.."}[5m])) or vector(0)) / sum(rate(http_requests_total[5m]))'


def metric(query: str, **baseline: Any) -> Metric:
    return Metric.model_validate({"name": "load", "query": query, **({"baseline": baseline} if baseline else {})})


def written(query: str, **baseline: Any) -> str:
    text = query_of_seasons(metric(query, **baseline), WEEKS)
    assert text is not None
    return text


@pytest.mark.parametrize(
    "query",
    [
        "load",
        RATIO,
        "scalar(load) + 1",
        "load offset 5m",
        "max_over_time(sum(rate(load[5m]))[1h:1m])",
        "load # the end of a line\n+ 1 # and another",
        'sum(load{path="#/a"})',
        "a or b",
        "a > 5",
    ],
)
def test_query_is_valid(query: str) -> None:
    """D17: whatever the query is: a scalar, an offset of its own, comments, operators that bind less than a comparison."""
    parse(written(query))
    assert [written(query).count(f"offset {days * 86_400}s") for days in (7, 14, 21)] == [1, 1, 1]


@pytest.mark.parametrize(
    "query",
    [
        "load @ 1700000000",
        "load @ end()",
        "load or vector(0)",
        "sum(increase(errors_total[5m])) or vector(0)",
        "1 + 2",
        "time()",
        "newer_function(load)",
        "load default 0",
        f"{'load + ' * 200}load",
        f"{'(' * DEEPEST}(load){')' * DEEPEST}",
        "x" * (LONGEST_QUERY - 1) + "{",
    ],
    ids=range(11),
)
def test_query_without_a_past(query: str) -> None:
    """D17: a week without history must not be one of zeros, and what is not understood is not read."""
    assert query_of_seasons(metric(query), WEEKS) is None


def test_fields_are_in_the_query() -> None:
    """D17: the window has a sample for each minute, or 30."""
    assert written("load").count("[1800s:60s]") == 4
    assert written("load", window="1h").count("[3600s:120s]") == 4
    assert written("load", window="1m").count("[60s:60s]") == 4
    assert query_of_seasons(metric("load", count=1), WEEKS) is None


# --- evaluated


def expected(series: dict[str, str], samples: dict[str, str], query: str, tmp_path: Path) -> None:
    """Promtool, with a sample every 5 minutes, agrees that these are the means by season after 22 days."""
    document = {
        "evaluation_interval": "1d",
        "tests": [
            {
                "interval": "5m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": f"round({query}, 0.001)",
                        "eval_time": "22d",
                        "exp_samples": [
                            {"labels": f'{{season="{number}"}}', "value": float(value)} for number, value in samples.items()
                        ],
                    }
                ],
            }
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(document))
    promtool = sources.prometheus().parent / "promtool"
    done = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


FIVE_MINUTES_OF_WEEK = 2016


@pytest.mark.lab
def test_weeks_are_apart(tmp_path: Path) -> None:
    """D17: each week has its own mean; one that was before the first sample has none."""
    series = {"load": " ".join(f"{value}x{FIVE_MINUTES_OF_WEEK}" for value in ("_", 7, 9, 11))}
    expected(series, {"0": "11", "1": "9", "2": "7"}, written("load"), tmp_path)


@pytest.mark.lab
def test_labels_may_have_changed(tmp_path: Path) -> None:
    """D17: the Pod that exported the metric three weeks ago is gone. NaN is no part of a mean."""
    quiet = f"1x{FIVE_MINUTES_OF_WEEK}"
    series = {
        'load{pod="a"}': f"4x{FIVE_MINUTES_OF_WEEK} {quiet} {quiet}",
        'load{pod="b"}': "_x6300 6x30 NaN NaN NaN 6x20",
    }
    expected(series, {"0": "6", "1": "1", "2": "1", "3": "4"}, written("load"), tmp_path)


# --- results


def answer(**values: str) -> bytes:
    """A result with these means by season."""
    result = [{"metric": {"season": name.removeprefix("s")}, "value": [time.time(), value]} for name, value in values.items()]
    return success({"resultType": "vector", "result": result})


@pytest.fixture
def answers() -> Iterator[Answers]:
    """A provider."""
    with answering() as server:
        yield server


def read(answers: Answers, query: str = "load") -> Seasons:
    """What the source says of the seasons when the result has come."""

    async def body() -> Seasons:
        prometheus, woken = source(answers.server_port), asyncio.Event()
        first = prometheus.seasons("default", metric(query), WEEKS, MINUTE, woken.set)
        if first is None:
            await woken.wait()
            first = prometheus.seasons("default", metric(query), WEEKS, MINUTE, woken.set)
        assert first is not None
        return first

    return run(body())


@pytest.mark.parametrize(
    ("body", "mean", "earlier"),
    [
        (answer(s3="3", s0="0.5", s1="1", s2="2"), "0.5", ["1", "2", "3"]),
        (answer(s0="0.5", s2="2"), "0.5", ["2"]),
        (answer(s0="NaN", s1="NaN", s2="+Inf"), None, []),
        (answer(), None, []),
    ],
)
def test_means_are_read(answers: Answers, body: bytes, mean: str | None, earlier: list[str]) -> None:
    """D17: a season without a number has no data."""
    answers.body = body
    seasons = read(answers)
    assert seasons.problem is None
    assert (seasons.mean, list(seasons.earlier)) == (
        None if mean is None else Decimal(mean),
        [Decimal(each) for each in earlier],
    )
    assert answers.asked == [written("load")]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (bad("query processing would load too many samples"), CheckReason.QUERY_REJECTED),
        (success({"resultType": "vector", "result": [{"metric": {}, "value": [0, "1"]}]}), CheckReason.INVALID_RESPONSE),
        (json.dumps({"status": "success", "data": {"resultType": "scalar"}}).encode(), CheckReason.INVALID_RESPONSE),
        (vector(warnings=["store is down"]), CheckReason.PARTIAL_RESULT),
    ],
)
def test_failure_is_a_problem(answers: Answers, body: bytes, reason: CheckReason) -> None:
    """D17: never a number of seasons."""
    answers.body = body
    seasons = read(answers)
    assert (seasons.reason, seasons.earlier, seasons.unreachable) == (reason, (), False)
    assert seasons.problem in {Verdict.PROVIDER_ERROR, Verdict.INCONCLUSIVE}


def test_provider_that_cannot_be_reached() -> None:
    """D17: nothing is known about its seasons, so that the baseline waits."""

    async def body() -> Seasons:
        prometheus, woken = source(free_port()), asyncio.Event()
        assert prometheus.seasons("default", metric("load"), WEEKS, MINUTE, woken.set) is None
        await woken.wait()
        seasons = prometheus.seasons("default", metric("load"), WEEKS, MINUTE, woken.set)
        assert seasons is not None
        return seasons

    assert run(body()).unreachable


def test_query_without_a_past_is_not_sent(answers: Answers) -> None:
    """D17: it has no seasons."""
    seasons = read(answers, "load or vector(0)")
    assert (seasons.problem, seasons.earlier, answers.asked) == (None, (), [])
