"""Ratios in PromQL: which of them are empty, or always a number, when they should not be (D3).

Not here: what `validate` prints about them (tests/cli/test_validate.py).
"""

from collections.abc import Iterator

import pytest
import yaml

from lab.lab import ROOT
from session_rollout.adapters.promql import LONGEST_QUERY, problem_of
from session_rollout.adapters.promql_ratios import is_zero_without_traffic, needs_default, ratios
from session_rollout.settings import Dialect

ALL = "sum(rate(requests_total[5m]))"
FAILED = 'sum(rate(requests_total{code=~"5.."}[5m]))'
ABSENT = {
    "more labels": (f"{FAILED} / {ALL}", f"({FAILED} or vector(0)) / {ALL}"),
    "a percentage": (f"100 * ({FAILED} / {ALL})", f"100 * (({FAILED} or vector(0)) / {ALL})"),
    "the rest to one": (f"1 - {FAILED} / {ALL}", f"1 - ({FAILED} or vector(0)) / {ALL}"),
    "parentheses": (f"({FAILED}) / {ALL}", f"({FAILED} or vector(0)) / {ALL}"),
    "a condition below": (f"{FAILED} / ({ALL} > 0)", f"({FAILED} or vector(0)) / ({ALL} > 0)"),
    "a counter of its own": (f"sum(failures_total) / {ALL}", f"(sum(failures_total) or vector(0)) / {ALL}"),
    "not aggregated": ('rate(m{code="5"}[5m]) / rate(m[5m])', '(sum(rate(m{code="5"}[5m])) or vector(0)) / sum(rate(m[5m]))'),
    "inside a function": (f"clamp_max({FAILED} / {ALL}, 1)", f"clamp_max(({FAILED} or vector(0)) / {ALL}, 1)"),
    "another code": ('sum(m{code="5"}) / sum(m{code=~".+"})', '(sum(m{code="5"}) or vector(0)) / sum(m{code=~".+"})'),
    "one code of two": ('sum(m{c="5",j="x"}) / sum(m{j="x"})', '(sum(m{c="5",j="x"}) or vector(0)) / sum(m{j="x"})'),
    "a comparison above": (f"({FAILED} / {ALL}) > 0", f"(({FAILED} or vector(0)) / {ALL}) > 0"),
    "a subquery": (f"min_over_time(({FAILED} / {ALL})[1h:5m])", f"min_over_time((({FAILED} or vector(0)) / {ALL})[1h:5m])"),
    "another metric": ('sum(a{c="5"} + b{c="6"}) / sum(a{c="5"})', '(sum(a{c="5"} + b{c="6"}) or vector(0)) / sum(a{c="5"})'),
    "an alternative that can be absent, too": (
        '(sum(a{c="5"}) or sum(a{c="6"})) / sum(a)',
        '(sum(a{c="5"}) or  sum(a{c="6"}) or vector(0)) / sum(a)',
    ),
    "without what can be absent": (
        'sum(a{c="5"} unless b{c="9"}) / sum(a)',
        '(sum(a{c="5"} unless  b{c="9"}) or vector(0)) / sum(a)',
    ),
    "matching by labels": (
        'rate(m{code="5"}[5m]) / ignoring(code) rate(m[5m])',
        '(sum(rate(m{code="5"}[5m])) or vector(0)) / sum(rate(m[5m]))',
    ),
}
PRESENT = [
    f"({FAILED} or vector(0)) / {ALL}",
    f"({FAILED} or 0 * {ALL}) / {ALL}",
    "sum(rate(seconds_sum[5m])) / sum(rate(seconds_count[5m]))",
    'sum(rate(seconds_sum{job="a"}[5m])) / sum(rate(seconds_count{job="a"}[5m]))',
    "sum(rate(seconds_sum[1d])) / sum(rate(seconds_sum[1d] offset 7d)) - 1",
    "sum(rate(requests_total[5m])) / 100",
    "100 / sum(up)",
    "job:errors:ratio_rate5m",
    "used_bytes / size_bytes",
    'a{c="5"} / 100',
    'sum(rate(a{c="5"}[5m]))',
    "errors / requests",
    'used{pod="a"} / size{node="b"}',
    '(sum by (job) (a{c="5"}) or sum by (job) (a) * 0) / sum by (job) (a)',
    '(sum(a{c="5"}) / sum(a)) or vector(0)',
    '(sum(a{c="5"}) / sum(a)) or (sum(b) / sum(c))',
    'sum(a{c="5"}) / fill_left(0) sum(a)',
    'scalar(sum(a{c="5"})) / sum(a)',
    'sum(rate(x_bucket{le="0.5"}[5m])) / sum(rate(x_count[5m]))',
    "+".join(["a"] * (LONGEST_QUERY // 2)),
    "/".join(["a"] * (LONGEST_QUERY // 2)),
]


@pytest.mark.parametrize(("query", "better"), ABSENT.values(), ids=ABSENT)
def test_ratio_that_is_empty_until_something_fails(query: str, better: str) -> None:
    """D3: and the query that is 0 then, which is not empty any more."""
    [ratio] = ratios(query)
    assert (ratio.can_be_absent, ratio.rewritten) == (True, better)
    assert [ratio.can_be_absent for ratio in ratios(better)] == [False]


def test_alternatives_that_can_both_be_absent() -> None:
    """D3: as long as nothing has failed there is no result at all."""
    query = '(sum(a{c="5"}) / sum(a)) or (sum(b{c="5"}) / sum(b))'
    assert [ratio.can_be_absent for ratio in ratios(query)] == [True, True]
    assert not any(ratio.can_be_absent for ratio in ratios(ratios(query)[0].rewritten))


@pytest.mark.parametrize("query", PRESENT)
def test_ratio_with_two_halves_that_come_together(query: str) -> None:
    """D3: nothing to warn of."""
    assert not any(ratio.can_be_absent for ratio in ratios(query))


@pytest.mark.parametrize(
    ("query", "zero"),
    [
        (f"{FAILED} / {ALL} or vector(0)", True),
        (f"({FAILED} / {ALL}) or on() vector(0)", True),
        (f"({FAILED} or vector(0)) / {ALL}", False),
        (f"{FAILED} / {ALL} or fallback", False),
        (f"{FAILED} or vector(0)", False),
    ],
)
def test_ratio_that_is_a_number_without_traffic(query: str, *, zero: bool) -> None:
    """D3: the addition in the wrong place promotes without evidence."""
    assert is_zero_without_traffic(query) is zero


@pytest.mark.parametrize(
    ("query", "events"),
    [
        (f"{FAILED} / {ALL}", "sum(increase(requests_total[5m]))"),
        (f"({FAILED} or vector(0)) / ({ALL} > 0)", "sum(increase(requests_total[5m])) > 0"),
        (f"({FAILED} / {ALL}) and {ALL} > 5", None),
        (f"({FAILED} / {ALL}) and on() up", "sum(increase(requests_total[5m]))"),
        (f"{FAILED} / ({ALL} > 10)", None),
        (f"{FAILED} / clamp_min({ALL}, 10)", None),
        ("1 - sum by (job) (rate(a[5m])) / (sum by (job) (rate(b[5m])))", "sum by (job)(increase(b[5m]))"),
        ("sum(increase(a[5m])) / sum(increase(b[5m]))", "sum(increase(b[5m]))"),
        ("sum(irate(a[5m])) / sum(irate(b[5m]))", "sum(increase(b[5m]))"),
        ("used_bytes / size_bytes", None),
    ],
)
def test_events_that_a_ratio_is_about(query: str, events: str | None) -> None:
    """D3: for the `minimum` of its checks; a quotient of sizes is about none."""
    assert [ratio.events for ratio in ratios(query)] == [events]


def test_part_of_a_whole() -> None:
    """D3: the two queries of a cohort metric."""
    assert needs_default(FAILED, ALL)
    assert not needs_default(f"{FAILED} or vector(0)", ALL)


@pytest.mark.parametrize("query", ["sum(", "a offset (1h) / b offset (1h) or vector(0)", "new(a) / new(b)"])
def test_query_that_cannot_be_parsed_says_nothing(query: str) -> None:
    """A newer server may know it; whether it is wrong is asked elsewhere."""
    assert ratios(query) == ()
    assert not is_zero_without_traffic(query)
    assert not needs_default(query, ALL)
    assert not needs_default(FAILED, query)


def queries(node: object) -> Iterator[str]:
    """Every `query` in a document."""
    for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ():
        if key == "query" and isinstance(child, str):
            yield child
        yield from queries(child)


EXAMPLES = sorted(
    {
        query
        for path in (ROOT / "examples").rglob("*.yaml")
        for document in yaml.safe_load_all(path.read_text())
        for query in queries(document)
    }
)


@pytest.mark.parametrize("query", EXAMPLES)
def test_queries_of_the_examples(query: str) -> None:
    """D3: each can be read; what is found is in the query, and the ones without a default are found."""
    assert problem_of(query, Dialect.PROMETHEUS) is None
    absent = [ratio for ratio in ratios(query) if ratio.can_be_absent]
    assert bool(absent) is ("{" in query and " / " in query and " or " not in query)
    assert all(ratio.numerator.replace(" ", "") in query.replace(" ", "") for ratio in absent)
