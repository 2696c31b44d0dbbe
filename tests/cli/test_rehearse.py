"""`rehearse` against the same object on the lab, and its options.

The comparison is of decisions in order: phases, steps, percentages, migrations, verdicts that end it. Not here: times, which
the lab's servers add to.
"""

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.decisions import decisions
from lab.gauge import scraped
from lab.kube import Object
from lab.lab import ROOT, Lab
from lab.servers import INTERVALS
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status_records import HistoryEntry
from session_rollout.cli.app import app
from session_rollout.cli.command import Exit, code_of
from session_rollout.cli.render.timeline import SEES_ENOUGH
from session_rollout.cli.report import Section, as_html
from session_rollout.simulation.rehearsal import Fault, Scenario, rehearse

EXAMPLE = str(ROOT / "examples" / "session-persistence.yaml")
COMPARED = str(ROOT / "examples" / "features" / "placebo.yaml")
# Told by the way, or a matter of time: the lab's answers come when they come.
PASSING = {"EvidenceLost", "EvidenceBack", "ActionAccepted"}
Decisions = list[tuple[str, Any, Any, Any]]


@dataclass(frozen=True)
class Case:
    """A rehearsal, and how the same happens on the lab: from a place on, the metric has another value.

    `ramp` and `deadline` leave as much time as the lab may need before the next audience or a deadline that is not meant.
    """

    scenario: Scenario = field(default_factory=Scenario)
    bad: tuple[str, str, int] | None = None  # value, phase and step
    ramp: str = "2s"
    deadline: str = "5m"  # of the second phase


CASES: dict[str, Case] = {
    "good": Case(),
    "guard": Case(Scenario(faults=(Fault("one", 2, "errors", Decimal("0.5")),)), ("0.5", "one", 2), ramp="20m"),
    # The criterion fails from the start of the phase on, and counts from its first audience on.
    "criterion": Case(Scenario(faults=(Fault("two", 1, "errors", Decimal("0.05")),)), ("0.05", "two", 0), deadline="3s"),
    "migration": Case(Scenario(failing=frozenset({"second"}))),
}


@pytest.fixture(scope="module")
def operator(lab: Lab) -> Iterator[Lab]:
    """The operator, a metric for each case, and a database. A sample of the gauge is never older than a scrape."""
    with scraped(lab) as gauge:
        assert lab.postgres is not None
        assert lab.prometheus is not None
        gauge.of = {f"rehearsed-{case}": "0.001" for case in CASES}
        lab.start_operator(prometheus={"default": {"url": lab.prometheus.url, **INTERVALS, "lookbackDelta": "1s"}})
        lab.database_secret("db", lab.postgres.url)
        lab.until(lambda: all(seen(lab, name) for name in gauge.of), 20, "the metrics being scraped")
        yield lab
        assert lab.operator is not None
        lab.operator.stop()


def seen(lab: Lab, name: str) -> bool:
    """Whether Prometheus has the metric of a rollout."""
    assert lab.prometheus is not None
    query = urllib.parse.quote(f'lab_errors_of{{rollout="{name}"}}')
    with urllib.request.urlopen(f"{lab.prometheus.url}/api/v1/query?query={query}", timeout=30) as answer:
        return bool(json.load(answer)["data"]["result"])


def sql(lab: Lab, name: str, statement: str) -> None:
    """A bundle of one step."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}
    lab.apply({**body, "data": {"0001_it.up.sql": statement, "0001_it.down.sql": "SELECT 1;"}})


def two_phases(name: str, case: Case) -> Object:
    """Two phases, a ramp, an approval, groups, a migration before each, a verification, a bake.

    Its features are its own: a rehearsal does not know which other rollouts there are.
    """
    alpha, beta = f"{name}-alpha", f"{name}-beta"
    spec = {
        "flagSet": name,
        "checkInterval": "1s",
        "propagation": "0s",
        "database": {"secretKeyRef": {"name": "db"}},
        "features": [{"name": alpha}, {"name": beta, "dependsOn": [alpha]}],
        "metrics": [{"name": "errors", "query": f'lab_errors_of{{rollout="{name}"}}'}],
        "migrations": [
            {"name": "first", "configMapRef": {"name": f"{name}-first"}},
            {"name": "second", "configMapRef": {"name": f"{name}-second"}},
        ],
        "phases": [
            {
                "name": "one",
                "features": [alpha],
                "migrations": {"before": ["first"]},
                "steps": [
                    {"percent": 10, "groups": ["staff"], "hold": "1s"},
                    {"ramp": {"to": 50, "over": case.ramp, "increments": 2}, "groups": ["staff"]},
                    {"percent": 100, "groups": ["staff"], "hold": "1s", "approval": "Required"},
                ],
                "criteria": [{"name": "errors", "metric": "errors", "below": "1%"}],
                "deadline": "5m",
                "onDeadline": "Rollback",
                "verification": [{"name": "calm", "metric": "errors", "below": "1%"}],
            },
            {
                "name": "two",
                "features": [beta],
                "migrations": {"before": ["second"]},
                "steps": [{"percent": 50, "hold": "1s"}, {"percent": 100, "hold": "1s"}],
                "criteria": [{"name": "errors", "metric": "errors", "below": "1%"}],
                "deadline": case.deadline,
            },
        ],
        "guards": [{"name": "errors", "metric": "errors", "below": "20%", "for": "1s"}],
        "bake": "2s",
    }
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRollout", "metadata": metadata, "spec": spec}


def decisions_of(moments: Any) -> Decisions:
    """What is compared."""
    return [moment for moment in moments if moment[0] not in PASSING]


@pytest.fixture(scope="module")
def ended(operator: Lab) -> Lab:
    """The lab after all cases have run to their ends, side by side: approved when they ask, with trouble as they say."""
    for case, about in CASES.items():
        name = f"rehearsed-{case}"
        sql(operator, f"{name}-first", f"CREATE TABLE first_{case} (id int);")
        second = "SELECT 1/0;" if "second" in about.scenario.failing else f"CREATE TABLE second_{case} (id int);"
        sql(operator, f"{name}-second", second)
        operator.apply(two_phases(name, about))
    running, approved = dict(CASES), set[tuple[str, str]]()

    def all_ended() -> bool:
        for case, about in list(running.items()):
            if advance(operator, f"rehearsed-{case}", about, approved):
                del running[case]
        return not running

    try:
        operator.until(all_ended, 180, "the end of all cases")
    except TimeoutError as error:
        decisions = {case: operator.rollout(f"rehearsed-{case}").get("status", {}).get("decision") for case in running}
        raise TimeoutError(f"{error}: {decisions}") from error
    return operator


def advance(lab: Lab, name: str, case: Case, approved: set[tuple[str, str]]) -> bool:
    """Approve what is awaited and make trouble when it is due; whether the rollout has ended or stalled."""
    status = lab.rollout(name).get("status", {})
    decision, current = status.get("decision", {}), status.get("current", {})
    for awaited in decision.get("approvals", []):
        if (name, str(awaited)) not in approved:
            lab.act("Approve", name, generation=1, **awaited)
            approved.add((name, str(awaited)))
    if case.bad is not None:
        value, phase, step = case.bad
        if current.get("phase") == phase and current.get("step", 0) >= step:
            lab.gauge.of[name] = value  # type: ignore[attr-defined]
    return bool(status.get("outcome")) or decision.get("action") == "Stall"


def real(lab: Lab, name: str) -> Decisions:
    """The whole story of a rollout, from the records."""
    last = HistoryEntry.model_validate(lab.rollout(name)["status"]["history"][-1])
    lab.until(lambda: last in decisions(lab, name)[-1].decide_again().status.history, 10, "the last record")
    entries = {entry: None for record in decisions(lab, name) for entry in record.decide_again().status.history}
    return decisions_of(
        (str(entry.event), entry.phase, entry.step, entry.percent) for entry in sorted(entries, key=lambda entry: entry.time)
    )


@pytest.mark.parametrize("case", CASES)
def test_rehearsal_and_a_real_run_make_the_same_decisions(case: str, ended: Lab) -> None:
    """In the same order, to the same end."""
    name, about = f"rehearsed-{case}", CASES[case]
    rehearsed = rehearse(RolloutSpec.model_validate(two_phases(name, about)["spec"]), about.scenario, name)
    expected = decisions_of([(str(entry.event), entry.phase, entry.step, entry.percent) for entry in rehearsed.history])
    assert real(ended, name) == expected
    assert ended.rollout(name)["status"].get("outcome") == rehearsed.status.outcome
    assert len(expected) > 8


# --- without a lab


def played(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, Any]:
    """Exit code and data of a rehearsal."""
    code = code_of(app, ["rehearse", "-o", "json", *argv])
    return code, json.loads(capsys.readouterr().out)


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What a rehearsal prints."""
    code_of(app, ["rehearse", *argv])
    return capsys.readouterr().out


def test_outage_extends_five_weeks_by_its_length(capsys: pytest.CaptureFixture[str]) -> None:
    """The hold is paused meanwhile."""
    _, plain = played(capsys, EXAMPLE, "--start=2026-12-01T09:00")
    _, late = played(capsys, EXAMPLE, "--start=2026-12-01T09:00", "--outage=48h@state-persistence/2")
    assert (plain["outcome"], late["outcome"]) == ("Promoted", "Promoted")
    extended = datetime.fromisoformat(late["end"]) - datetime.fromisoformat(plain["end"])
    assert timedelta(hours=47) < extended <= timedelta(hours=48)


def test_fault_leads_to_a_rollback(capsys: pytest.CaptureFixture[str]) -> None:
    """And exit code 1; the text has an event for each entry of the data."""
    argv = (EXAMPLE, "--start=2026-12-01T09:00", "--fail", "session-error-rate=5%@connection-management/2")
    code, result = played(capsys, *argv)
    assert (code, result["outcome"], result["reason"]) == (Exit.REFUSED, "RolledBack", "RolledBack")
    breached = next(entry for entry in result["timeline"] if entry["event"] == "GuardBreached")
    assert (breached["check"], breached["phase"], breached["step"]) == ("session-error-rate", "connection-management", 2)
    text = printed(capsys, *argv)
    assert [text.count(f" {event} ") > 0 for event in ("GuardBreached", "RollbackStarted", "RolledBack")] == [True] * 3


def test_scenario_as_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A late approval, a long migration, a criterion that fails for a time and recovers."""
    file = tmp_path / "scenario.yaml"
    wanted = {
        "start": "2026-12-01T09:00:00Z",
        "approveAfter": "3d",
        "migrations": {"legacy-sessions": "6h"},
        "fail": ["connection-recovery=90%@connection-management/1:30h"],
    }
    file.write_text(yaml.safe_dump(wanted))
    code, result = played(capsys, EXAMPLE, "--scenario", str(file))
    when = {
        (entry["event"], entry.get("phase"), entry.get("step")): datetime.fromisoformat(entry["time"])
        for entry in result["timeline"]
    }
    assert code == Exit.DONE
    published, passed = (when[event, "connection-management", 1] for event in ("StepPublished", "StepPassed"))
    # After 30 h of failures, 95 % of a hold of 24 h must pass.
    assert timedelta(hours=52.8) <= passed - published < timedelta(hours=53)
    asked, passed = (when[event, "advanced-features", 2] for event in ("ApprovalNeeded", "StepPassed"))
    assert timedelta(days=3) <= passed - asked < timedelta(days=3, hours=1)


def test_criterion_that_always_fails_without_a_deadline_does_not_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rehearsal stops soon, and says what it waits for."""
    file = tmp_path / "endless.yaml"
    file.write_text((ROOT / "examples" / "minimal.yaml").read_text().replace("    deadline: 3d\n", ""))
    code, result = played(capsys, str(file), "--fail", "error-rate=1%@checkout/1")
    assert (code, result["outcome"], result["reconciles"] < 100) == (Exit.REFUSED, None, True)
    assert (result["state"], result["reason"]) == ("Progressing", "CriteriaNotMet")


def test_page_is_one_file_with_a_chart(capsys: pytest.CaptureFixture[str]) -> None:
    """Every step and migration is a bar with a title; it loads nothing."""
    page = printed(capsys, EXAMPLE, "-o", "html")
    assert page.startswith("<!doctype html>")
    assert page.count("<rect ") == page.count("<title>") - 1 >= 14
    assert "<title>20%+power-users: " in page
    assert not re.search(r"(src|href)=", page)


@pytest.mark.parametrize(("traffic", "enough"), [("10/h", False), ("100000000/h", True)])
def test_what_the_checks_would_miss_is_beside_the_timeline(
    traffic: str, *, enough: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the traffic that the options say: in the data, in the text and in the page; and nothing of it without the traffic."""
    argv = (COMPARED, "--traffic", traffic, "--rate", "0.1%")
    _, known = played(capsys, *argv)
    assert (known["power"] == []) is enough
    shown = known["power"] or [SEES_ENOUGH]
    assert all(line in printed(capsys, *argv) for line in shown)
    assert "<h2>Evidence</h2>" in printed(capsys, *argv, "-o", "html")
    assert played(capsys, COMPARED)[1]["power"] is None
    assert "<h2>Evidence</h2>" not in printed(capsys, COMPARED, "-o", "html")


def test_values_in_a_page_are_escaped() -> None:
    """Names and messages come from users."""
    section = Section("<b>", ("<i>",), (("<script>alert(1)</script>",),))
    page = as_html("a & b", [section])
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<h1>a &amp; b</h1>" in page


def test_locks_of_each_migration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of shipped bundles and of a ConfigMap in the same file; the text has a line for each."""
    _, result = played(capsys, EXAMPLE)
    locks = result["locks"]
    assert [line for line in locks["session-tables"] if "0002_user_keys.up.sql: users ShareRowExclusiveLock" in line]
    assert len(locks["legacy-sessions"]) == 1
    assert printed(capsys, EXAMPLE).count("  locks  ") == sum(map(len, locks.values()))
    example = (ROOT / "examples" / "features" / "migration-from-configmap.yaml").read_text()
    file = tmp_path / "both.yaml"
    file.write_text(example)
    [inside] = played(capsys, str(file))[1]["locks"].values()
    file.write_text(example.split("---\n", 1)[1])
    [outside] = played(capsys, str(file))[1]["locks"].values()
    assert [any("0001_" in line for line in lines) for lines in (inside, outside)] == [True, False]


WRONG = [
    ("--fail", "nothing@checkout/1"),
    ("--fail", "session-error-rate@nowhere/1"),
    ("--fail", "session-error-rate@core-infrastructure/9"),
    ("--fail", "session-error-rate"),
    ("--fail", "session-error-rate=high@core-infrastructure/1"),
    ("--outage", "2x@core-infrastructure/1"),
    ("--outage", "core-infrastructure"),
    ("--fail-migration", "nothing"),
    ("--approve-after", "soon"),
    ("--approve-after", "999999w"),
    ("--outage", "999999w@core-infrastructure/1"),
    ("--start", "tomorrow"),
    ("--start", "9999-12-31T00:00"),
    ("--scenario", "/nowhere"),
]


@pytest.mark.parametrize("argv", WRONG, ids=" ".join)
def test_wrong_options_are_wrong_arguments(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence."""
    assert code_of(app, ["rehearse", EXAMPLE, *argv]) == Exit.USAGE
    assert capsys.readouterr().err.count("\n") == 1


def test_query_that_stalls_the_rollout_is_an_error(tmp_path: Path) -> None:
    """The operator would not promote it."""
    file = tmp_path / "rollout.yaml"
    text = (ROOT / EXAMPLE).read_text()
    query = next(line for line in text.splitlines() if "query:" in line)
    file.write_text(text.replace(query, query.split("query:")[0] + "query: 'up{'", 1))
    assert code_of(app, ["rehearse", str(file)]) == Exit.REFUSED


def test_unknown_key_of_a_scenario(tmp_path: Path) -> None:
    """And a value of another type."""
    file = tmp_path / "scenario.yaml"
    for content in ({"begin": "now"}, {"fail": "error-rate@checkout/1"}, {"migrations": ["legacy-sessions"]}):
        file.write_text(yaml.safe_dump(content))
        assert code_of(app, ["rehearse", EXAMPLE, "--scenario", str(file)]) == Exit.USAGE


def test_rollout_without_approvals_does_not_end(capsys: pytest.CaptureFixture[str]) -> None:
    """The data has the approval that is awaited."""
    code, result = played(capsys, EXAMPLE, "--approve-after", "never")
    assert (code, result["reason"]) == (Exit.REFUSED, "AwaitingApproval")
    assert result["approvals"] == [{"phase": "advanced-features", "step": 2}]
    assert result["nextActions"]
