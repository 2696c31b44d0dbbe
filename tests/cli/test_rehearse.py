"""`rehearse` against the same object on the lab, and its options.

The comparison is of decisions in order: phases, steps, percentages, migrations, verdicts that end it. Not here: times, which
the lab's servers add to.
"""

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from integration.test_records import records
from lab.gauge import scraped
from lab.kube import Object
from lab.lab import ROOT, Lab
from session_rollout.api.rollout import RolloutSpec
from session_rollout.cli.app import app
from session_rollout.cli.command import Exit, code_of
from session_rollout.cli.report import Section, as_html
from session_rollout.simulation.rehearsal import Fault, Scenario, rehearse

EXAMPLE = str(ROOT / "examples" / "session-persistence.yaml")
# Told by the way, or a matter of time: the lab's answers come when they come.
PASSING = {"EvidenceLost", "EvidenceBack", "ActionAccepted"}


@pytest.fixture(scope="module")
def operator(lab: Lab) -> Iterator[Lab]:
    """The operator, one metric, and a database."""
    with scraped(lab):
        assert lab.postgres is not None
        lab.start_operator()
        lab.database_secret("db", lab.postgres.url)
        yield lab
        assert lab.operator is not None
        lab.operator.stop()


def sql(lab: Lab, name: str, statement: str) -> None:
    """A bundle of one step."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}
    lab.apply({**body, "data": {"0001_it.up.sql": statement, "0001_it.down.sql": "SELECT 1;"}})


def two_phases(name: str) -> Object:
    """Two phases, a ramp, an approval, groups, a migration before each, a verification, a bake."""
    spec = {
        "flagSet": name,
        "checkInterval": "1s",
        "propagation": "0s",
        "database": {"secretKeyRef": {"name": "db"}},
        "features": [{"name": "alpha"}, {"name": "beta", "dependsOn": ["alpha"]}],
        "metrics": [{"name": "errors", "query": "lab_errors"}],
        "migrations": [
            {"name": "first", "configMapRef": {"name": f"{name}-first"}},
            {"name": "second", "configMapRef": {"name": f"{name}-second"}},
        ],
        "phases": [
            {
                "name": "one",
                "features": ["alpha"],
                "migrations": {"before": ["first"]},
                "steps": [
                    {"percent": 10, "groups": ["staff"], "hold": "2s"},
                    {"ramp": {"to": 50, "over": "4s", "increments": 2}, "groups": ["staff"]},
                    {"percent": 100, "groups": ["staff"], "hold": "2s", "approval": "Required"},
                ],
                "criteria": [{"name": "errors", "metric": "errors", "below": "1%"}],
                "deadline": "3s",
                "onDeadline": "Rollback",
                "verification": [{"name": "calm", "metric": "errors", "below": "1%"}],
            },
            {
                "name": "two",
                "features": ["beta"],
                "migrations": {"before": ["second"]},
                "steps": [{"percent": 50, "hold": "2s"}, {"percent": 100, "hold": "2s"}],
                "criteria": [{"name": "errors", "metric": "errors", "below": "1%"}],
                "deadline": "3s",
            },
        ],
        "guards": [{"name": "errors", "metric": "errors", "below": "20%", "for": "1s"}],
        "bake": "2s",
    }
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRollout", "metadata": metadata, "spec": spec}


def decisions_of(moments: Any) -> list[tuple[str, Any, Any, Any]]:
    """What is compared."""
    return [moment for moment in moments if moment[0] not in PASSING]


def real(lab: Lab, name: str, trouble: Callable[[Object], None]) -> list[tuple[str, Any, Any, Any]]:
    """Run it: approve when asked, make trouble as told; the whole story from the records."""
    lab.apply(two_phases(name))

    def ended() -> bool:
        status = lab.rollout(name).get("status", {})
        if status.get("outcome") or status.get("decision", {}).get("action") == "Stall":
            return True
        for awaited in status.get("decision", {}).get("approvals", []):
            lab.act("Approve", name, generation=1, **awaited)
            lab.until(lambda: not lab.rollout(name)["status"]["decision"].get("approvals"), 10, "the approval")
        trouble(status)
        return False

    lab.until(ended, 90, f"the end of {name}")
    last = lab.rollout(name)["status"]["history"][-1]["event"]
    lab.until(lambda: records(lab, name)[-1].decide_again().status.history[-1].event == last, 10, "the last record")
    seen = {entry: None for record in records(lab, name) for entry in record.decide_again().status.history}
    return decisions_of(
        (str(entry.event), entry.phase, entry.step, entry.percent) for entry in sorted(seen, key=lambda entry: entry.time)
    )


def quiet(_: Object) -> None:
    """No trouble."""


def breaking(lab: Lab, value: str, phase: str, step: int) -> Callable[[Object], None]:
    """The metric is bad from a step on."""

    def trouble(status: Object) -> None:
        here = status.get("current", {})
        if (here.get("phase"), here.get("step")) == (phase, step):
            lab.gauge.value = value  # type: ignore[attr-defined]

    return trouble


CASES: dict[str, tuple[Scenario, str, str, int]] = {
    "good": (Scenario(), "", "", 0),
    "guard": (Scenario(faults=(Fault("one", 2, "errors", Decimal("0.5")),)), "0.5", "one", 2),
    "criterion": (Scenario(faults=(Fault("two", 1, "errors", Decimal("0.05")),)), "0.05", "two", 1),
    "migration": (Scenario(failing=frozenset({"second"})), "", "", 0),
}


@pytest.mark.parametrize("case", CASES)
def test_rehearsal_and_a_real_run_make_the_same_decisions(case: str, operator: Lab) -> None:
    """In the same order, to the same end."""
    scenario, value, phase, step = CASES[case]
    name = f"rehearsed-{case}"
    operator.gauge.value = "0.001"  # type: ignore[attr-defined]
    operator.until(lambda: calm(operator), 20, "a calm metric")
    sql(operator, f"{name}-first", f"CREATE TABLE first_{case} (id int);")
    sql(operator, f"{name}-second", "SELECT 1/0;" if case == "migration" else f"CREATE TABLE second_{case} (id int);")
    trouble = breaking(operator, value, phase, step) if value else quiet
    happened = real(operator, name, trouble)
    rehearsed = rehearse(RolloutSpec.model_validate(two_phases(name)["spec"]), scenario, name)
    expected = decisions_of([(str(entry.event), entry.phase, entry.step, entry.percent) for entry in rehearsed.history])
    assert happened == expected
    assert operator.rollout(name)["status"].get("outcome") == rehearsed.status.outcome
    assert len(expected) > 8


def calm(lab: Lab) -> bool:
    """Whether Prometheus has seen the good value."""
    import urllib.request

    assert lab.prometheus is not None
    with urllib.request.urlopen(f"{lab.prometheus.url}/api/v1/query?query=lab_errors", timeout=5) as answer:
        result = json.load(answer)["data"]["result"]
    return bool(result) and float(result[0]["value"][1]) < 0.01


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
