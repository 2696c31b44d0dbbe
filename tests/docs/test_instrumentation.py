"""How applications count users with a feature and without it: the Python code of the page runs, and its figures are the operator's.

Not here: that YAML examples are accepted (test_snippets.py), what the operator makes of the counters (tests/integration), the
Node example, which needs npm.
"""

import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from prometheus_client import REGISTRY, generate_latest

from lab.lab import ROOT
from session_rollout.adapters.promql import Intervals, effective_range
from session_rollout.api.checks import Tolerate
from session_rollout.api.metrics import Cohorts, Control, Metric
from session_rollout.api.quantities import bound, duration, format_duration
from session_rollout.core.flags import Audience, FlagSource, compile_document
from session_rollout.core.statistics.power import Design
from session_rollout.core.statistics.rates import Tolerance

PAGE = (ROOT / "docs" / "how-to" / "compare-users.md").read_text()
USERS = [f"user-{number}" for number in range(1000)]
DEFAULT = Tolerance(float(Tolerate().times), float(bound(Tolerate().plus)))
SAMPLE = re.compile(r'^sessions_total\{cell="(\d+)",result="(\w+)",variant="([\w-]+)"\} (\S+)$', re.MULTILINE)


@pytest.fixture
def application(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The names that the code of the page defines, with a document that gives the feature to a fifth of users and a group."""
    path = tmp_path / "flags.flagd.json"
    audiences = {"newCheckout": Audience(Decimal(20), ("beta",))}
    path.write_text(compile_document(FlagSource("checkout", "shop", audiences)).text)
    provider = FlagdProvider(resolver_type=ResolverType.FILE, offline_flag_source_path=str(path), deadline_ms=500)
    api.set_provider_and_wait(provider)
    names: dict[str, Any] = {"client": api.get_client()}
    try:
        for snippet in re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
            exec(snippet, names)
        yield names
    finally:
        api.shutdown()
        for name in ("SESSIONS", "PAGE_LOADS"):
            if name in names:
                REGISTRY.unregister(names[name])


def exported() -> str:
    """What Prometheus scrapes."""
    return generate_latest(REGISTRY).decode()


def test_sessions_are_counted_by_variant_and_cell(application: dict[str, Any]) -> None:
    """Each once, with the variant that decided, in one of 16 cells of about the same size."""
    begin, end = application["begin_session"], application["end_session"]
    expected: Counter[tuple[str, str]] = Counter()
    for number, user in enumerate(USERS):
        has_feature, variant = begin(user, [])
        assert variant == ("on" if has_feature else "off")
        end(user, variant, failed=number % 10 == 0)
        expected[variant, "failure" if number % 10 == 0 else "success"] += 1
    counts: Counter[tuple[str, str]] = Counter()
    cells: Counter[str] = Counter()
    for cell, result, variant, count in SAMPLE.findall(exported()):
        counts[variant, result] += int(float(count))
        cells[cell] += int(float(count))
    assert counts == expected
    assert sum(count for (variant, _), count in counts.items() if variant == "on") == pytest.approx(200, abs=50)
    assert set(cells) == {str(cell) for cell in range(16)}
    assert all(30 < count < 100 for count in cells.values())


@pytest.mark.parametrize(
    ("user", "groups", "has_feature", "variant"),
    [
        ("user-1", ["beta"], True, "on-chosen"),
        ("user-1", ["gamma"], False, "off-chosen"),
        ("", [], False, "off-chosen"),
    ],
)
def test_chosen_users_are_not_compared(
    application: dict[str, Any], user: str, groups: list[str], has_feature: bool, variant: str
) -> None:
    """Members of groups, and users who are in no bucket."""
    assert application["begin_session"](user, groups) == (has_feature, variant)
    application["end_session"](user, variant, failed=False)
    assert [sample[2] for sample in SAMPLE.findall(exported())] == [variant]


def test_a_histogram_has_the_bound_as_a_bucket(application: dict[str, Any]) -> None:
    """Without it, every event would count as bad."""
    application["PAGE_LOADS"].labels("on", "7").observe(0.3)
    text = exported()
    assert 'page_load_seconds_bucket{cell="7",le="0.5",variant="on"} 1.0' in text
    assert 'page_load_seconds_count{cell="7",variant="on"} 1.0' in text


def rows(heading: str) -> list[list[str]]:
    """The cells of the table whose first line begins with this cell, as often as it comes, without its head."""
    lines = PAGE.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith(heading))
    table = []
    for line in lines[begin + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def test_tolerated_rates() -> None:
    for rate, tolerated in rows("| rate without the feature | tolerated"):
        assert 100 * DEFAULT.limit(float(bound(rate))) == pytest.approx(float(tolerated.removesuffix("%")))


def test_sessions_until_harmlessness_is_shown() -> None:
    """In three digits."""
    table = rows("| rate without the feature | at 5% of users")
    assert len(table) == 3
    for rate, *numbers in table:
        for share, number in zip((0.05, 0.2, 0.5), numbers, strict=True):
            needed = Design(share, float(bound(rate)), DEFAULT).events_to_pass()
            assert f"{float(f'{needed:.3g}'):,.0f}" == number


def test_the_time_until_the_first_block() -> None:
    example = re.search(r"With `scrapeInterval: (\w+)`, `block: (\w+)` and `lag: (\w+)`, that is (.*?)\.$", PAGE, re.MULTILINE)
    assert example is not None
    scrape, block, lag, said = example.groups()
    metric = Metric(name="failures", cohorts=Cohorts(feature="a", bad="bad_total", total="total"))
    control = Control(block=block, lag=lag)
    assert format_duration(effective_range(metric, Intervals(scrape=duration(scrape)), control)) == said
