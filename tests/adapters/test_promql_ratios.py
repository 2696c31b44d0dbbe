"""Ratios in PromQL: which of them are empty, or always a number, when they should not be (D3).

Not here: what `validate` prints about them (tests/cli/test_validate.py).
"""

import pytest

from session_rollout.adapters.promql_ratios import is_zero_without_traffic, needs_default, ratios

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
]


@pytest.mark.parametrize(("query", "better"), ABSENT.values(), ids=ABSENT)
def test_ratio_that_is_empty_until_something_fails(query: str, better: str) -> None:
    """D3: and the query that is 0 then, which is not empty any more."""
    [ratio] = ratios(query)
    assert (ratio.can_be_absent, ratio.rewritten) == (True, better)
    assert [ratio.can_be_absent for ratio in ratios(better)] == [False]


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


def test_query_that_cannot_be_parsed_is_reported() -> None:
    """By the parser's sentence."""
    with pytest.raises(ValueError, match="unclosed"):
        ratios("sum(")
