"""Commands that change nothing: status, history, explain, flags, migrations, checks, report, completion.

Not here: how a picture looks (test_render_status), roles and wrong input (their own files).
"""

import json
import subprocess
import sys
from typing import Any

import yaml

from cli.plugin import SHOP, actions, data, environment, fine, refused, run
from lab.lab import Lab
from session_rollout.cli.command import Exit


def test_status_fits_a_terminal_and_has_the_object_as_data(operator: Lab) -> None:
    """Phases, steps, checks, migrations, flags without escape sequences; the raw object with -o."""
    text = fine(operator, "status", SHOP).out
    for name in (SHOP, "Progressing", "one", "two", "errors", "tables", "10%+staff"):
        assert name in text
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert json.loads(fine(operator, "status", SHOP, "-o", "json").out)["status"]["state"] == "Progressing"
    assert yaml.safe_load(fine(operator, "status", SHOP, "-o", "yaml").out)["spec"]["flagSet"] == SHOP


def test_history_and_events(operator: Lab) -> None:
    """Events of the status, and actions that these do not have."""
    published = next(entry for entry in data(operator, "history", SHOP) if entry.get("event") == "StepPublished")
    assert (published["phase"], published["step"], published["audience"]) == ("one", 1, "10%+staff")
    fine(operator, "verify", SHOP)
    asked = [entry for entry in data(operator, "history", SHOP) if entry.get("action") == "Verify"]
    assert {entry["answer"] for entry in asked} == {"accepted"}
    assert "StepPublished" in fine(operator, "events", SHOP).out
    assert len(fine(operator, "history", SHOP).out.splitlines()) == len(data(operator, "history", SHOP))


def test_explain_reproduces_every_recorded_decision(operator: Lab) -> None:
    """From the records alone; a time before the first record is refused."""

    def held() -> Any:
        # A record is written after the status that it explains, so the newest one may be of a decision before the hold.
        record = data(operator, "explain", SHOP)
        return record if (record["action"], record["reason"]) == ("Hold", "Holding") else None

    record = operator.until(held, 30, "the record of a hold")
    assert record["observed"]["measurements"]["errors"]["value"] == "0.001"
    fine(operator, "explain", SHOP)
    fine(operator, "explain", SHOP, "--check")
    refused(operator, "explain", SHOP, "--at", "2020-01-01")
    refused(operator, "explain", SHOP, "--check", "--at", "10m ago", code=Exit.USAGE)


def test_flags_status_who_verify(operator: Lab) -> None:
    """The published document as the evaluator reads it, and the rule that decides."""
    alpha, beta = data(operator, "flags", "status", "--in", SHOP)
    assert (alpha["percent"], alpha["groups"], alpha["phase"]) == ("10", ["staff"], "one")
    assert (beta["percent"], beta["groups"], beta["phase"]) == ("0", [], "two")
    staff = data(operator, "flags", "who", "u-1", "--group", "staff", "--in", SHOP)
    assert staff[0] == {"feature": "alpha", "on": True, "rule": "Group", "detail": "staff"}
    forced = data(operator, "flags", "who", "u-1", "--off", "alpha", "--group", "staff", "--in", SHOP)
    assert forced[0] == {"feature": "alpha", "on": False, "rule": "Override"}
    for row in data(operator, "flags", "who", "u-1", "--in", SHOP):
        assert row["on"] is (row["rule"] == "Bucket" and row["bucket"] < row["weight"])
    shares = data(operator, "flags", "verify", "--users", "500", "--in", SHOP)
    assert {row["feature"]: row["published"] for row in shares} == {"alpha": "10%", "beta": "0%"}


def test_migrations_status_and_plan(operator: Lab) -> None:
    """A plan is made by a Job and leaves no trace; `up` creates nothing where nothing failed."""
    [tables] = data(operator, "migrations", "status", "--in", SHOP)
    assert (tables["name"], tables["state"]) == ("tables", "Succeeded")
    assert fine(operator, "migrations", "plan", "--in", SHOP).data == []
    before = actions(operator)
    assert [row["name"] for row in data(operator, "migrations", "up", "--in", SHOP)] == ["tables"]
    assert [row["name"] for row in data(operator, "data", "status", "--in", SHOP)] == ["tables"]
    assert actions(operator) == before


def test_checks_on_demand(operator: Lab) -> None:
    """Exit code 1 unless all pass; the results are printed in any case."""
    [store] = data(operator, "verify", SHOP)
    assert (store["name"], store["verdict"]) == ("store", "Pass")
    assert [row["verdict"] for row in data(operator, "check-errors", SHOP)] == ["Pass"]
    fine(operator, "check-errors", SHOP)
    memory = run(operator, "diagnose", "memory", SHOP, "-o", "json")
    assert (memory.code, memory.data[0]["verdict"], memory.data[0]["value"]) == (Exit.REFUSED, "Fail", "900")
    assert run(operator, "diagnose", "weather", SHOP).code == Exit.REFUSED
    assert run(operator, "verify", SHOP, "--check", "nosuch").code == Exit.REFUSED


def test_report_has_every_section(operator: Lab) -> None:
    """Phases, checks with their bounds, the results of a diagnostics topic; as Markdown and as one page."""
    text = fine(operator, "report", SHOP, "--topic", "errors").out
    assert text.startswith(f"# {SHOP}")
    assert "| one | Running | 10%+staff |" in text
    assert "| errors | ✔ Pass | 0.1% | below 1% |" in text
    assert "| error-rate | ✔ Pass | 0.1% | below 1% |" in text
    page = fine(operator, "report", SHOP, "-o", "html").out
    assert page.startswith("<!doctype html>")
    assert "<td>10%+staff</td>" in page
    assert run(operator, "report", SHOP, "--topic", "weather").code == Exit.REFUSED


def test_kubectl_completes_commands_and_names(operator: Lab) -> None:
    """One candidate a line, and whether file names may be completed."""
    complete = "from session_rollout.cli.completion import main; main()"

    def completed(*words: str) -> list[str]:
        argv = [sys.executable, "-c", complete, *words]
        done = subprocess.run(argv, env=environment(operator), capture_output=True, text=True, timeout=60, check=True)
        return [line.split("\t")[0] for line in done.stdout.splitlines()]

    assert completed("flags", "em") == ["emergency-disable", "emergency-enable", ":4"]
    assert completed("status", "sho") == ["shop", ":4"]
    assert completed("rehearse", "") == [":0"]
