"""`rehearse` against the same object on the lab, and its options.

The comparison is of decisions in order: phases, steps, percentages, migrations, verdicts that end it. Not here: times, which
the lab's servers add to.
"""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from integration.test_controls import records
from lab.gauge import scraped
from lab.kube import Object
from lab.lab import ROOT, Lab
from session_rollout.api.rollout import RolloutSpec
from session_rollout.cli.app import app
from session_rollout.cli.command import code_of
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


def programme(name: str) -> Object:
    """Two phases, a ramp, an approval, groups, a migration before each, a verification, a bake."""
    spec = {
        "flagSet": name,
        "checkInterval": "1s",
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
    return [one for one in moments if one[0] not in PASSING]


def real(lab: Lab, name: str, trouble: Callable[[Object], None]) -> list[tuple[str, Any, Any, Any]]:
    """Run it: approve when asked, make trouble as told; the whole story from the records."""
    lab.apply(programme(name))

    def ended() -> bool:
        status = lab.rollout(name).get("status", {})
        if status.get("outcome") or status.get("decision", {}).get("action") == "Stall":
            return True
        if status.get("decision", {}).get("approvals"):
            here = {"phase": status["current"]["phase"], "step": status["current"]["step"]}
            lab.act("Approve", name, generation=1, **here)
            lab.until(lambda: not lab.rollout(name)["status"]["decision"].get("approvals"), 10, "the approval")
        trouble(status)
        return False

    lab.until(ended, 90, f"the end of {name}")
    last = lab.rollout(name)["status"]["history"][-1]["event"]
    lab.until(lambda: records(lab, name)[-1].decide_again().status.history[-1].event == last, 10, "the last record")
    seen: dict[tuple[Any, ...], None] = {}
    for record in records(lab, name):
        for entry in record.decide_again().status.history:
            seen[entry.time, str(entry.event), entry.phase, entry.step, entry.percent, entry.message] = None
    return decisions_of([(key[1], key[2], key[3], key[4]) for key in sorted(seen, key=lambda key: key[0])])


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
    rehearsed = rehearse(RolloutSpec.model_validate(programme(name)["spec"]), scenario, name)
    expected = decisions_of([(str(one.event), one.phase, one.step, one.percent) for one in rehearsed.history])
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


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Exit code, what was printed, what was complained about."""
    code = code_of(app, ["rehearse", *argv])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_five_weeks_with_an_outage_are_longer_by_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Dates, the hold that stood still, and what follows."""
    plain = json.loads(said(capsys, EXAMPLE, "--start=2026-12-01T09:00", "-o", "json")[1])
    late = json.loads(said(capsys, EXAMPLE, "--start=2026-12-01T09:00", "--outage=48h@state-persistence/2", "-o", "json")[1])
    assert (plain["outcome"], late["outcome"]) == ("Promoted", "Promoted")
    ends = [one["end"] for one in (plain, late)]
    from datetime import datetime

    longer = datetime.fromisoformat(ends[1]) - datetime.fromisoformat(ends[0])
    assert timedelta(hours=47) < longer <= timedelta(hours=48)


def test_fault_shows_the_way_back(capsys: pytest.CaptureFixture[str]) -> None:
    """And exit code 1."""
    code, printed, complaint = said(capsys, EXAMPLE, "--fail", "session-error-rate=5%@connection-management/2")
    assert code == 1
    assert "GuardBreached       session-error-rate 5% is not below 1% for 2m" in printed
    assert "RolledBack" in printed
    assert complaint.startswith("kubectl sessionrollout: it would not be Promoted: rolled back: session-error-rate 5%")


def test_fault_of_an_hour_and_slow_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A scenario as a file: late approval, long migration, a criterion that fails for a time and recovers."""
    file = tmp_path / "scenario.yaml"
    wanted = {
        "start": "2026-12-01T09:00:00Z",
        "approveAfter": "3d",
        "migrations": {"legacy-sessions": "6h"},
        "fail": ["connection-recovery=90%@connection-management/1:30h"],
    }
    file.write_text(yaml.safe_dump(wanted))
    code, printed, _ = said(capsys, EXAMPLE, "--scenario", str(file), "-o", "json")
    told = json.loads(printed)["timeline"]
    when = {(one["event"], one["phase"], one["step"]): one["time"] for one in told}
    assert code == 0
    assert when["StepPassed", "connection-management", 1][:13] == "2026-12-09T15"  # after 30 h, where 24 h were planned
    asked, passed = (when[event, "advanced-features", 2] for event in ("ApprovalNeeded", "StepPassed"))
    assert int(passed[8:10]) - int(asked[8:10]) in {3, -28, -27}


def test_criterion_that_fails_for_ever_without_a_deadline_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says for what it waits, and soon."""
    (tmp_path / "endless.yaml").write_text((ROOT / "examples" / "minimal.yaml").read_text().replace("    deadline: 3d\n", ""))
    code, printed, _ = said(capsys, str(tmp_path / "endless.yaml"), "--fail", "error-rate=1%@checkout/1", "-o", "json")
    told = json.loads(printed)
    assert (code, told["outcome"], told["looks"] < 100) == (1, None, True)
    assert told["why"].startswith("error-rate")


def test_page_is_one_file_with_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    """Every step is a bar with a title; what is not ours is escaped."""
    _, printed, _ = said(capsys, EXAMPLE, "-o", "html")
    assert printed.startswith("<!doctype html>")
    assert printed.count("<rect ") >= 14
    assert "20%+power-users: " in printed
    assert "http" not in printed.replace("http://www.w3.org", "")


def test_locks_of_each_migration_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of shipped bundles and of a ConfigMap in the same file; what cannot be known says where it can."""
    text = said(capsys, EXAMPLE)[1]
    assert "locks    0002_user_keys.up.sql: users ShareRowExclusiveLock, blocks writes" in text
    assert "locks    0001_session_tables.up.sql: nothing in use" in text
    assert "locks    rows are moved in small batches" in text
    example = (ROOT / "examples" / "features" / "migration-from-configmap.yaml").read_text()
    file = tmp_path / "both.yaml"
    file.write_text(example)
    assert "0001_" in said(capsys, str(file))[1]
    file.write_text(example.split("---\n", 1)[1])
    assert "shows its locks" in said(capsys, str(file))[1]


WRONG = [
    (("--fail", "nothing@checkout/1"), "nothing is not a metric of the spec; allowed are"),
    (("--fail", "session-error-rate@nowhere/1"), "nowhere is not a phase of the spec; allowed are"),
    (("--fail", "session-error-rate@core-infrastructure/9"), "step 9 of phase core-infrastructure does not exist"),
    (("--fail", "session-error-rate"), "--fail is 'session-error-rate'; allowed is METRIC@PHASE/STEP"),
    (("--fail", "session-error-rate=high@core-infrastructure/1"), "the value 'high' of --fail must be a number"),
    (("--outage", "2x@core-infrastructure/1"), "the time of --outage is '2x'"),
    (("--outage", "core-infrastructure"), "--outage is 'core-infrastructure'"),
    (("--fail-migration", "nothing"), "nothing is not a migration of the spec; allowed are session-tables, legacy-sessions"),
    (("--approve-after", "soon"), "approve-after is 'soon'"),
    (("--start", "tomorrow"), "'tomorrow'"),
    (("--scenario", "/nowhere"), "/nowhere: No such file or directory"),
]


@pytest.mark.parametrize(("argv", "words"), WRONG, ids=[" ".join(row[0]) for row in WRONG])
def test_wrong_options_are_wrong_arguments(argv: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With what is allowed."""
    code, _, complaint = said(capsys, EXAMPLE, *argv)
    assert (code, words in complaint, complaint.count("\n")) == (2, True, 1), complaint


def test_rollout_that_nobody_approves_stays(capsys: pytest.CaptureFixture[str]) -> None:
    """It says for what it waits."""
    code, printed, _ = said(capsys, EXAMPLE, "--approve-after", "never")
    assert code == 1
    assert "waits for an approval" in printed.splitlines()[-2]
    assert "unblocked by an action `Approve`" in printed
