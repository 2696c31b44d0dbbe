"""How applications count users with a feature and without it: the code of the page runs, and its figures are the operator's.

Not here: that YAML examples are accepted (test_snippets.py), what the operator makes of the counters (tests/integration).
"""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from prometheus_client import REGISTRY, generate_latest

from lab import sources
from lab.lab import ROOT
from session_rollout.adapters.promql import Intervals, effective_range
from session_rollout.api.checks import Tolerate
from session_rollout.api.metrics import Cohorts, Control, Metric
from session_rollout.api.quantities import bound, duration, format_duration
from session_rollout.core.flags import Audience, FlagSource, compile_document
from session_rollout.core.statistics.power import Design
from session_rollout.core.statistics.rates import Tolerance

PAGE = (ROOT / "docs" / "how-to" / "compare-users.md").read_text()
APPLICATION = (ROOT / "docs" / "how-to" / "application.md").read_text()
USERS = [f"user-{number}" for number in range(1000)]
DEFAULT = Tolerance(float(Tolerate().times), float(bound(Tolerate().plus)))
SAMPLE = re.compile(r"^sessions_total\{(.*?)\} (\S+)$", re.MULTILINE)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """Gives the feature to a fifth of users and a group."""
    path = tmp_path / "flags.flagd.json"
    audiences = {"newCheckout": Audience(Decimal(20), ("beta",))}
    path.write_text(compile_document(FlagSource("checkout", "shop", audiences)).text)
    return path


@pytest.fixture
def application(document: Path) -> Iterator[dict[str, Any]]:
    """The names that the Python code of the page defines."""
    provider = FlagdProvider(resolver_type=ResolverType.FILE, offline_flag_source_path=str(document), deadline_ms=500)
    api.set_provider_and_wait(provider)
    names: dict[str, Any] = {"client": api.get_client()}
    try:
        for snippet in snippets(PAGE, "python"):
            exec(snippet, names)
        yield names
    finally:
        api.shutdown()
        for name in ("SESSIONS", "PAGE_LOADS"):
            if name in names:
                REGISTRY.unregister(names[name])


def snippets(page: str, language: str) -> list[str]:
    """The code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def exported() -> str:
    """What Prometheus scrapes."""
    return generate_latest(REGISTRY).decode()


Counts = Counter[tuple[str, str, str]]


def counted(text: str) -> Counts:
    """Sessions by variant, cell and result."""
    counts: Counts = Counter()
    for labels, count in SAMPLE.findall(text):
        label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        counts[label["variant"], label["cell"], label["result"]] += int(float(count))
    return counts


def test_failures_are_exported_before_the_first(application: dict[str, Any]) -> None:
    """That there is no series is no evidence that nothing failed."""
    assert application["SESSIONS"]
    assert counted(exported()) == Counter()
    assert ("off", "0", "failure") in counted(exported())


def test_sessions_are_counted_by_variant_and_cell(application: dict[str, Any]) -> None:
    """Each once, with the variant that decided, in one of 16 cells of about the same size."""
    begin, end = application["begin_session"], application["end_session"]
    expected: Counts = Counter()
    for number, user in enumerate(USERS):
        has_feature, variant, cell = begin(user, [])
        assert variant == ("on" if has_feature else "off")
        end(variant, cell, failed=number % 10 == 0)
        expected[variant, cell, "failure" if number % 10 == 0 else "success"] += 1
    assert counted(exported()) == expected
    assert sum(count for (variant, _, _), count in expected.items() if variant == "on") == pytest.approx(200, abs=50)
    cells = {str(cell): sum(n for (_, name, _), n in expected.items() if name == str(cell)) for cell in range(16)}
    assert sum(cells.values()) == len(USERS)
    assert all(30 < count < 100 for count in cells.values())


CHOSEN: Final = [
    ("user-1", ["beta"], True, "on-chosen"),
    ("user-1", ["gamma"], False, "off"),
    ("", [], False, "off-chosen"),
]


@pytest.mark.parametrize(("user", "groups", "has_feature", "variant"), CHOSEN)
def test_chosen_users_are_not_compared(
    application: dict[str, Any], user: str, groups: list[str], has_feature: bool, variant: str
) -> None:
    """Members of groups that have the feature, and users who are in no bucket."""
    *begun, cell = application["begin_session"](user, groups)
    assert begun == [has_feature, variant]
    application["end_session"](variant, cell, failed=False)
    assert [key[0] for key, count in counted(exported()).items() if count] == [variant]


DRIVER: Final = """
import { readFileSync } from "node:fs";
const asked = JSON.parse(readFileSync("sessions.json")), begun = [];
for (const [index, [user, groups]] of asked.entries()) {
  const { hasFeature, variant, cell } = await beginSession(user, groups);
  endSession(variant, cell, index % 10 === 0);
  begun.push([hasFeature, variant, cell]);
}
const { register } = await import("prom-client");
console.log(JSON.stringify({ begun, metrics: await register.metrics() }));
process.exit(0);
"""


def test_node_counts_as_python_does(application: dict[str, Any], document: Path) -> None:
    """The same users have the feature, and each is in the same cell, with the packages that the pages name."""
    pages = (APPLICATION, PAGE)
    packages = [name for page in pages for names in re.findall(r"npm install ([^`\n]+)", page) for name in names.split()]
    subprocess.run(
        [sources.npm(), "install", "--no-audit", "--no-fund", "--ignore-scripts", *packages], cwd=document.parent, check=True
    )
    code = "\n".join(snippet for page in pages for snippet in snippets(page, "js"))
    program = document.parent / "application.mjs"
    program.write_text(code.replace("/etc/flags/flags.flagd.json", str(document)) + DRIVER)
    sessions = [*((user, []) for user in USERS), *((user, groups) for user, groups, _, _ in CHOSEN)]
    (document.parent / "sessions.json").write_text(json.dumps(sessions))
    ended = subprocess.run(["node", program.name], cwd=document.parent, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    begun = [application["begin_session"](user, groups) for user, groups in sessions]
    assert [tuple(session) for session in result["begun"]] == begun
    expected = Counter(
        (variant, cell, "success" if number % 10 else "failure") for number, (_, variant, cell) in enumerate(begun)
    )
    assert counted(result["metrics"]) == expected
    assert "process_start_time_seconds" in result["metrics"]


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
