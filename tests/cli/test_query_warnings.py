"""Warnings of `validate` about queries and bounds that a rollout could pass without evidence: D3, D4.

Not here: ratios, and the rows of the table that the API server judges, too (test_validate).
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.world import rollout_data
from session_rollout.api.rollout import RolloutSpec
from session_rollout.cli.app import app
from session_rollout.cli.command import Exit, code_of
from session_rollout.cli.warnings import warnings_of
from session_rollout.cli.warnings_queries import WarnQuery

COUNTED = "sum(increase(errors_total[5m]))"


def plan(check: dict[str, Any] | None = None, **metric: Any) -> dict[str, Any]:
    """The usual rollout with another definition of `errors`, and one more guard."""
    data = rollout_data()
    data["metrics"][0].update(metric)
    data["metrics"].append({"name": "requests", "query": "sum(increase(requests_total[5m]))"})
    data["guards"].append({"name": "checked", "metric": "errors", **(check or {"below": "5"})})
    return data


def warned(data: dict[str, Any]) -> dict[WarnQuery, str]:
    """The messages of the warnings of this file, by what they are about; of several, the last."""
    problems = warnings_of(RolloutSpec.model_validate(data))
    return {WarnQuery(problem.rule): problem.message for problem in problems if problem.rule in set(WarnQuery)}


QUERIES = {
    "job:errors:ratio_rate1h": WarnQuery.NO_WINDOW,
    "max_over_time(job:errors:ratio_rate5m[30m])": WarnQuery.NO_WINDOW,
    "errors_ratio_1h": WarnQuery.NO_WINDOW,
    '{__name__="job:errors:ratio"}': WarnQuery.NO_WINDOW,
    "vector(0)": WarnQuery.NO_SELECTOR,
    "time() - time()": WarnQuery.NO_SELECTOR,
    "sum(rate(e[5m] @ 1700000000)) / sum(rate(a[5m]))": WarnQuery.FIXED_TIME,
    f"{COUNTED} or vector(0)": WarnQuery.ZERO_WITHOUT_SERIES,
    "100 * (sum(rate(errors_total[5m])) or on() vector(0))": WarnQuery.ZERO_WITHOUT_SERIES,
    "clamp_max(sum(errors or vector(0)), 1)": WarnQuery.ZERO_WITHOUT_SERIES,
    COUNTED: None,
    "node_load5": None,
    "sum(rate(e[5m] @ end()))": None,
    f"({COUNTED} or vector(0)) / sum(increase(requests_total[5m]))": None,
    f"({COUNTED} or vector(0)) > bool sum(increase(requests_total[5m]))": None,
    f"scalar({COUNTED}) + 1": None,
}


@pytest.mark.parametrize(("query", "about"), QUERIES.items(), ids=QUERIES)
def test_query_that_says_little_about_an_audience(query: str, about: WarnQuery | None) -> None:
    """Silence about these would be a promotion without evidence; words about the others would be noise."""
    assert set(warned(plan(query=query))) == ({about} if about is not None else set())


@pytest.mark.parametrize("window", [None, "1s"])
def test_warning_about_a_recording_rule_has_the_line_to_write(window: str | None) -> None:
    """D4: with that line, the warning is gone."""
    message = warned(plan(query="job:errors:ratio_rate1h", window=window))[WarnQuery.NO_WINDOW]
    [line] = re.findall(r"Write `(window: \w+)`", message)
    assert line == "window: 1h"
    assert warned(plan(query="job:errors:ratio_rate1h", **yaml.safe_load(line))) == {}


CHECKS = [
    ({"below": "5"}, True),
    ({"above": "-1"}, True),
    ({"between": ["-1", "5"]}, True),
    ({"comparedTo": "Baseline", "maxIncrease": "5%"}, True),
    ({"below": "5", "minimum": {"metric": "requests", "above": "20"}}, False),
    ({"below": "5", "dryRun": True}, False),
    ({"above": "5"}, False),
    ({"between": ["1", "5"]}, False),
    ({"comparedTo": "Baseline", "maxDecrease": "5%"}, False),
]


@pytest.mark.parametrize(("check", "passes"), CHECKS)
def test_zero_of_an_exporter_that_is_down_must_not_pass(check: dict[str, Any], *, passes: bool) -> None:
    """D3: the check fails on 0, or has a `minimum` that does not hold then."""
    data = plan(check, query=f"{COUNTED} or vector(0)")
    data["phases"][0]["criteria"][0]["minimum"] = data["guards"][0]["minimum"] = {"metric": "requests", "above": "20"}
    assert (WarnQuery.ZERO_WITHOUT_SERIES in warned(data)) is passes


BOUNDS = [
    ({"above": "-1"}, {}, True),
    ({"above": "-1"}, {"query": "deriv(users[5m])"}, False),
    ({"above": "-1"}, {"query": "a - b"}, False),
    ({"above": "0"}, {}, False),
    ({"below": "5", "minimum": {"metric": "requests", "above": "-1"}}, {}, True),
    ({"comparedTo": "Baseline", "maxIncrease": "100000000%"}, {}, True),
    ({"comparedTo": "Baseline", "maxIncrease": "200%"}, {}, False),
    ({"comparedTo": "Baseline", "maxDecrease": "100%"}, {}, True),
    ({"comparedTo": "Baseline", "maxDecrease": "50%"}, {}, False),
    ({"comparedTo": "Baseline", "maxIncrease": "100000000"}, {}, False),
]


@pytest.mark.parametrize(("check", "metric", "never_fails"), BOUNDS)
def test_bound_that_no_value_breaks(check: dict[str, Any], metric: dict[str, Any], *, never_fails: bool) -> None:
    """A check that cannot fail looks like protection."""
    assert (WarnQuery.INEFFECTIVE_BOUND in warned(plan(check, **metric))) is never_fails


QUIET = "(sum(rate(errors_total[5m])) or vector(0)) / sum(rate(requests_total[5m]))"
RISE = {"comparedTo": "Baseline", "maxIncrease": "20%"}


@pytest.mark.parametrize(
    ("check", "query", "warns"),
    [
        (RISE, QUIET, True),
        ({"comparedTo": "Baseline", "maxDecrease": "20%"}, QUIET, True),
        ({"comparedTo": "Baseline", "maxIncrease": "0.001"}, QUIET, False),
        ({"comparedTo": "Baseline", "minIncrease": "20%"}, QUIET, False),
        (RISE, "sum(rate(errors_total[5m])) / sum(rate(requests_total[5m]))", False),
        (RISE, "errors or vector(1)", False),
        ({"below": "1%"}, QUIET, False),
    ],
)
def test_baseline_that_may_be_zero(check: dict[str, Any], query: str, *, warns: bool) -> None:
    """D17: each percentage of it is 0, so that a first error says nothing."""
    assert (WarnQuery.ZERO_BASELINE in warned(plan(check, query=query))) is warns


@pytest.mark.parametrize(
    ("query", "baseline", "warns"),
    [
        ("errors or vector(0)", {"season": "1d"}, True),
        ("errors - errors @ 1700000000", {"season": "1d"}, True),
        ("errors or vector(0)", {"count": 0}, False),
        ("errors or vector(0)", None, False),
        (QUIET, {"season": "1d"}, False),
    ],
)
def test_seasons_that_are_not_read(query: str, baseline: dict[str, Any] | None, *, warns: bool) -> None:
    """D17: a week without history must not be one of zeros. Without `baseline`, nobody asked for seasons."""
    fields = {"query": query, **({"baseline": baseline} if baseline else {})}
    assert (WarnQuery.UNSEASONED in warned(plan(RISE, **fields))) is warns


def test_gates_are_read_too() -> None:
    """Their bounds are the same."""
    data = plan()
    data["phases"][0]["verification"] = [{"name": "calm", "metric": "errors", "above": "-1"}]
    assert WarnQuery.INEFFECTIVE_BOUND in warned(data)


def test_warning_has_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line of the query, and a refusal with --strict."""
    data = plan(query="job:errors:ratio_rate1h")
    body = {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRollout", "metadata": {"name": "shop"}, "spec": data}
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(body))
    assert code_of(app, ["validate", str(file)]) == Exit.DONE
    line = file.read_text().split("job:errors")[0].count("\n") + 1
    printed = capsys.readouterr().out
    assert f"{file}:{line}:" in printed
    assert "spec.metrics[0].query: errors reads job:errors:ratio_rate1h" in printed
    assert code_of(app, ["validate", "--strict", str(file)]) == Exit.REFUSED
