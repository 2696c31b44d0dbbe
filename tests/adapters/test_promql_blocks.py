"""The queries of blocks, evaluated by Prometheus itself (`promtool test rules`): each event counts once, in its own block.

Covered: counters that grow, restart, begin and end, gaps of Prometheus, targets that are found late, histograms, and selectors
that are refused.
"""

import re
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from lab import sources
from session_rollout.adapters.promql_blocks import OF_ALL, CohortQueries, buckets, counter_of, increases

BLOCK, SCRAPE = timedelta(minutes=5), timedelta(seconds=30)
LABELS = '{job="app", instance="a", flag="f", variant="on", cell="3", result="failure"}'
COUNTER = counter_of('sessions_total{flag="f"}')
SAMPLES = 240  # of two hours


def evaluated(series: dict[str, str], query: str, tmp_path: Path, *, at: str = "60m") -> str:
    """The output of promtool when it expects no result."""
    document = {
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "30s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [{"expr": f"({query}) > -1", "eval_time": at, "exp_samples": []}],
            }
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(document))
    promtool = sources.prometheus().parent / "promtool"
    done = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def events(series: dict[str, str], tmp_path: Path, *, at: str = "60m", query: str | None = None) -> list[float]:
    """The number of events by cohort and cell, in no order; none if there is no evidence."""
    output = evaluated(series, query or increases(COUNTER, BLOCK, SCRAPE), tmp_path, at=at)
    if "SUCCESS" in output:
        return []
    results = re.findall(r"} ([-+.eE0-9]+)", output.partition("got:")[2])
    assert results, output
    return sorted(float(result) for result in results)


UP = {'up{job="app", instance="a"}': f"1x{SAMPLES}"}
NAME = f"sessions_total{LABELS}"


def test_one_query_has_bad_and_all_events(tmp_path: Path) -> None:
    """Each with its part; bad events that are of no series leave the others as they are."""
    success = NAME.replace("failure", "success")
    both = CohortQueries.of_counters('sessions_total{result="failure"}', "sessions_total", BLOCK, SCRAPE).both
    output = evaluated({**UP, NAME: f"0+1x{SAMPLES}", success: f"0+4x{SAMPLES}"}, both, tmp_path)
    parts = re.findall(r'part="(\w+)"[^}]*} ([-+.eE0-9]+)', output.partition("got:")[2])
    assert {part: float(number) for part, number in parts} == pytest.approx({"bad": 10, "total": 50}, rel=0.01)
    assert events({**UP, success: f"0+4x{SAMPLES}"}, tmp_path, query=both) == pytest.approx([40], rel=0.01)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (f"0+1x{SAMPLES}", 10.0),  # one event a scrape
        ("0+1x114 0+1x125", 10.0),  # the process restarts three minutes before the end
        (f"_x115 1+1x{SAMPLES}", 6.0),  # born in the block with one event, and five more
        (f"_x110 7x{SAMPLES}", 0.0),  # born in the scrape that both blocks see: the block before counts it
        (f"_x111 7x{SAMPLES}", 7.0),
        (f"3x{SAMPLES}", 0.0),  # nothing happens
        ("0+1x60 _x200", 0.0),  # ended half an hour before
    ],
)
def test_each_event_counts_once(values: str, expected: float, tmp_path: Path) -> None:
    counted = events({**UP, NAME: values}, tmp_path)
    assert sum(counted) == pytest.approx(expected, rel=0.12, abs=1e-6)


def test_blocks_add_up_to_the_events(tmp_path: Path) -> None:
    """Of a counter that is born with its first event: the blocks of an hour have all of them."""
    values = f"_x33 1+1x20 21x20 21+2x20 61x{SAMPLES}"
    total = sum(sum(events({**UP, NAME: values}, tmp_path, at=f"{minute}m")) for minute in range(5, 65, 5))
    assert total == pytest.approx(61, rel=0.05)


@pytest.mark.parametrize(
    ("up", "start", "expected"),
    [
        (f"1x{SAMPLES}", "0", 900.0),  # it was reached before: the counter is new
        (f"_x112 1x{SAMPLES}", "0", 0.0),  # a target that Prometheus found late: its counter may be old
        (f"_x112 1x{SAMPLES}", "3450", 900.0),  # its process began in the block
        (f"0x112 1x{SAMPLES}", "0", 0.0),  # it could not be reached
    ],
)
def test_a_counter_that_appears_counts_only_if_it_is_new(up: str, start: str, expected: float, tmp_path: Path) -> None:
    series = {
        'up{job="app", instance="a"}': up,
        'process_start_time_seconds{job="app", instance="a"}': f"{start}x{SAMPLES}",
        NAME: f"_x112 900x{SAMPLES}",
    }
    assert sum(events(series, tmp_path)) == expected


def test_after_a_gap_of_prometheus_nothing_is_made_up(tmp_path: Path) -> None:
    """Two hours without samples: what happened in them is in no block, and the next whole block is as before."""
    values = f"0+10x20 _x220 2500+1x{SAMPLES}"
    series = {'up{job="app", instance="a"}': f"1x20 _x220 1x{SAMPLES}", NAME: values}
    assert events(series, tmp_path, at="123m") == []
    assert sum(events(series, tmp_path, at="130m")) == pytest.approx(10, rel=0.01)


def test_events_are_separated_by_cohort_and_cell(tmp_path: Path) -> None:
    """And added over everything else."""
    series = dict(UP)
    for variant, cell, step in (("on", "1", 1), ("on", "2", 2), ("off", "1", 3)):
        for result in ("success", "failure"):
            labels = f'{{job="app", instance="a", flag="f", variant="{variant}", cell="{cell}", result="{result}"}}'
            series[f"sessions_total{labels}"] = f"0+{step}x{SAMPLES}"
    assert events(series, tmp_path) == pytest.approx([20, 40, 60], rel=0.01)


def test_observations_over_a_bound(tmp_path: Path) -> None:
    """All observations without those in the bucket, whichever way a client writes its bound."""
    series = dict(UP)
    for instance, bound in (("a", "1"), ("b", "1.0")):
        common = f'job="app", instance="{instance}", variant="on", cell="1"'
        series[f"page_load_seconds_count{{{common}}}"] = f"0+3x{SAMPLES}"
        series[f'page_load_seconds_bucket{{{common}, le="{bound}"}}'] = f"0+2x{SAMPLES}"
        series[f'page_load_seconds_bucket{{{common}, le="10"}}'] = f"0+3x{SAMPLES}"
    slow = 'job="app", instance="a", variant="off", cell="1"'
    series[f"page_load_seconds_count{{{slow}}}"] = f"0+5x{SAMPLES}"  # none of them is in the bucket
    queries = CohortQueries.of_histogram("page_load_seconds", timedelta(seconds=1), BLOCK, SCRAPE)
    assert events(series, tmp_path, query=queries.total) == pytest.approx([50, 60], rel=0.01)
    assert events(series, tmp_path, query=queries.bad) == pytest.approx([20, 50], rel=0.01)


def test_a_bound_below_a_second() -> None:
    _, within = buckets('page_load_seconds{page="start"}', timedelta(milliseconds=500))
    assert within == counter_of('page_load_seconds_bucket{page="start", le="0.5"}')


@pytest.mark.parametrize(
    "text",
    [
        "sum(sessions_total)",
        "sessions_total[5m]",
        "sessions_total offset 5m",
        "sessions_total @ 5",
        "1",
        'sessions_total{variant="on"}',
        'sessions_total{cell!="1"}',
        "sessions_total{",
        "rate(sessions_total[5m])",
        "",
    ],
)
def test_what_is_no_counter_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        counter_of(text)


def test_events_of_all_users_are_separated_by_cell_alone(tmp_path: Path) -> None:
    """And may be those of one variant: nothing groups by it."""
    series = dict(UP)
    for variant, cell, step in (("on", "1", 1), ("on", "2", 2), ("off", "1", 3)):
        labels = f'{{job="app", instance="a", variant="{variant}", cell="{cell}"}}'
        series[f"sessions_total{labels}"] = f"0+{step}x{SAMPLES}"
    for selector, expected in (("sessions_total", [20, 40]), ('sessions_total{variant="on"}', [10, 20])):
        query = increases(counter_of(selector, OF_ALL), BLOCK, SCRAPE, OF_ALL)
        assert events(series, tmp_path, query=query) == pytest.approx(expected, rel=0.01)
    with pytest.raises(ValueError, match="cell"):
        counter_of('sessions_total{cell="1"}', OF_ALL)


def test_a_histogram_needs_a_name() -> None:
    with pytest.raises(ValueError, match="by its name"):
        buckets('{__name__=~"page.*"}', timedelta(seconds=1))
