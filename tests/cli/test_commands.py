"""Every command against the lab: what it does, what each role may, and what wrong input gets.

Covered: effects through actions, exit codes, sentences, the three shipped roles, dead and unwilling API servers. Not here:
`validate` and `rehearse` (their own files), what the operator makes of an action (tests/core, tests/integration).
"""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from integration.test_controls import PYTHON, service
from integration.test_operator import holding
from lab.gauge import scraped
from lab.kube import Object
from lab.lab import IMAGE, Lab

SHOP = "shop"
DOCUMENTED = {0, 1, 2, 3, 4, 5, 6}


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def run(lab: Lab, *argv: str, stdin: str | None = None, **environment: str) -> Done:
    """The plugin as people run it: a process of its own, with kubectl on the PATH."""
    where = {"KUBECONFIG": str(lab.kubeconfig), "KUBECTL": lab.kubectl_path, "PYTHONPATH": "operator", **environment}
    done = subprocess.run(
        [sys.executable, "-m", "session_rollout.cli.app", *argv],
        env={**os.environ, **where},
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in DOCUMENTED, done
    return Done(done.returncode, done.stdout, done.stderr)


def fine(lab: Lab, *argv: str) -> str:
    """What a command prints that must succeed."""
    done = run(lab, *argv)
    assert done.code == 0, done
    return done.out


def shop(name: str = SHOP) -> Object:
    """Two features, three steps, a long hold, a migration, a workload, a check."""
    spec = {
        "flagSet": name,
        "checkInterval": "1s",
        "workload": {"kind": "Deployment", "name": f"{name}-web"},
        "database": {"secretKeyRef": {"name": "db"}},
        "features": [{"name": "alpha"}, {"name": "beta", "dependsOn": ["alpha"]}],
        "metrics": [{"name": "errors", "query": "lab_errors"}],
        "migrations": [{"name": "tables", "configMapRef": {"name": f"{name}-tables"}}],
        "phases": [
            {
                "name": "one",
                "features": ["alpha"],
                "migrations": {"before": ["tables"]},
                "steps": [
                    {"percent": 10, "groups": ["staff"], "hold": "1h"},
                    {"percent": 50, "groups": ["staff"], "hold": "1h", "approval": "Required"},
                    {"percent": 100, "groups": ["staff"], "hold": "1h"},
                ],
                "criteria": [{"name": "errors", "metric": "errors", "below": "1%"}],
                "verification": [{"name": "store", "builtin": "FlagStore"}],
            },
            {"name": "two", "features": ["beta"], "steps": [{"percent": 50, "hold": "1h"}]},
        ],
        "guards": [{"name": "errors", "metric": "errors", "below": "20%", "for": "1m"}],
    }
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRollout", "metadata": metadata, "spec": spec}


def web(name: str) -> Object:
    """A Deployment that is available at once."""
    labels = {"app": name}
    container = {"name": "web", "image": IMAGE, "command": PYTHON, "args": ["import time; time.sleep(3600)"]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }


def begin(lab: Lab, name: str) -> None:
    """A rollout in the hold of its first step, with all that it needs."""
    assert lab.postgres is not None
    lab.database_secret("db", lab.postgres.url)
    bundle = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-tables", "namespace": "default"}}
    steps = {"0001_it.up.sql": f'CREATE TABLE "{name}" (id int);', "0001_it.down.sql": f'DROP TABLE "{name}";'}
    lab.apply({**bundle, "data": steps})
    lab.apply(web(f"{name}-web"))
    lab.apply(shop(name))
    holding(lab, name)


@pytest.fixture(scope="module")
def operator(lab: Lab) -> Iterator[Lab]:
    """The operator with diagnostics, one metric, and the shop in its first hold."""
    with scraped(lab) as server:
        errors = [{"name": "error-rate", "query": "lab_errors", "below": "1%"}]
        memory = [{"name": "resident", "query": "vector(900)", "below": "500", "advice": "restart"}]
        lab.start_operator(diagnostics={"errors": errors, "memory": memory})
        lab.apply(service("gauge", server.server_port))
        begin(lab, SHOP)
        yield lab
        assert lab.operator is not None
        lab.operator.stop()


# --- looking


def test_status_says_where_and_why_in_eighty_columns(operator: Lab) -> None:
    """Phases, steps, checks, migrations, flags; the raw object with -o."""
    text = fine(operator, "status", SHOP)
    for words in (
        "shop in default",
        "step 1 of 3, 10%+staff",
        "Hold: holds 10%+staff for 1h",
        "✔ errors",
        "✔ migration tables up",
    ):
        assert words in text
    assert "needs an approval" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert json.loads(fine(operator, "status", SHOP, "-o", "json"))["metadata"]["name"] == SHOP
    assert yaml.safe_load(fine(operator, "status", SHOP, "-o", "yaml"))["spec"]["flagSet"] == SHOP


def test_history_events_explain(operator: Lab) -> None:
    """The story, the Events, and every decision made again from its record."""
    assert "StepPublished one step 1: 10%+staff is published" in fine(operator, "history", SHOP)
    assert "StepPublished" in fine(operator, "events", SHOP)
    text = fine(operator, "explain", SHOP)
    assert "made again here with the same result" in " ".join(text.split())
    assert "errors: 0.001" in text
    counted = re.search(r"(\d+) of (\d+) decisions of shop come out the same again", fine(operator, "explain", SHOP, "--check"))
    assert counted is not None
    assert counted[1] == counted[2]
    early = run(operator, "explain", SHOP, "--at", "2020-01-01")
    assert (early.code, "the oldest record is of" in early.err) == (1, True)


def test_flags_status_who_verify(operator: Lab) -> None:
    """The published document as the evaluator reads it, and the rule that decides."""
    assert re.search(r"alpha\s+10%\+staff\s+one", fine(operator, "flags", "status", "--in", SHOP))
    told = {
        row["feature"]: row
        for row in json.loads(fine(operator, "flags", "who", "u-1", "--group", "staff", "--in", SHOP, "-o", "json"))
    }
    assert (told["alpha"]["on"], told["alpha"]["rule"]) == (True, "group staff")
    forced = json.loads(fine(operator, "flags", "who", "u-1", "--off", "alpha", "--group", "staff", "--in", SHOP, "-o", "json"))
    assert {row["feature"]: row["rule"] for row in forced}["alpha"] == "override: off"
    assert "decides 1,000 times as its rules say" in fine(operator, "flags", "verify", "--users", "500", "--in", SHOP)


def test_migrations_and_sessions_status_and_plan(operator: Lab) -> None:
    """What has been done; a plan is made by a Job and leaves no trace."""
    assert re.search(r"tables\s+Succeeded\s+up\s+in one", fine(operator, "migrations", "status", "--in", SHOP))
    assert json.loads(fine(operator, "migrations", "plan", "--in", SHOP)) == []
    assert "Nothing has failed" in run(operator, "migrations", "up", "--in", SHOP).err


def test_examinations(operator: Lab) -> None:
    """On demand; a bad answer is exit code 1 with the advice."""
    assert "✔ store" in fine(operator, "verify", SHOP)
    assert "error-rate" in fine(operator, "check-errors", SHOP)
    memory = run(operator, "diagnose", "memory", SHOP)
    assert (memory.code, "900 is not below 500; restart" in memory.out) == (1, True)
    unknown = run(operator, "diagnose", "weather", SHOP)
    assert (unknown.code, "allowed are errors, memory" in unknown.err) == (1, True)


def test_report_is_a_scorecard(operator: Lab) -> None:
    """Phases, what they were judged by, targets as they are measured now, the story; as Markdown and as one page."""
    text = fine(operator, "report", SHOP, "--topic", "errors")
    assert text.startswith("# shop: scorecard\n")
    for words in (
        "| one | Running | 10%+staff |",
        "## Judged: one",
        "| errors | ✔ Pass | 0.1% | below 1% |",
        "## Targets: errors",
    ):
        assert words in text
    assert "| error-rate | ✔ Pass | 0.1% | below 1% |" in text
    page = fine(operator, "report", SHOP, "-o", "html")
    assert page.startswith("<!doctype html>")
    assert "<td>10%+staff</td>" in page
    unknown = run(operator, "report", SHOP, "--topic", "weather")
    assert (unknown.code, "allowed are errors, memory" in unknown.err) == (1, True)


def test_shells_complete_commands_and_names(operator: Lab) -> None:
    """What kubectl asks for: lines, and that no files are meant; the shell's own script for `sro`."""
    ask = "from session_rollout.cli.completion import main; main()"
    where = {"KUBECONFIG": str(operator.kubeconfig), "KUBECTL": operator.kubectl_path, "PYTHONPATH": "operator"}

    def completed(*words: str) -> list[str]:
        argv = [sys.executable, "-c", ask, *words]
        done = subprocess.run(argv, env={**os.environ, **where}, capture_output=True, text=True, timeout=60, check=True)
        return [line.split("\t")[0] for line in done.stdout.splitlines()]

    assert completed("flags", "em") == ["emergency-disable", ":4"]
    *names, last = completed("status", "sho")
    assert (SHOP in names, last) == (True, ":4")
    assert completed("rehearse", "") == [":0"]
    assert "_SRO_COMPLETE" in fine(operator, "completion", "zsh")


# --- acting


def test_a_whole_shift(operator: Lab) -> None:
    """Pause, resume, the steps by hand, an approval, an emergency, a restart, back; each shows, asks, and is answered."""
    name = "shift"
    begin(operator, name)
    assert "paused" in fine(operator, "pause", name, "-r", "lunch")
    assert operator.rollout(name)["status"]["pausedBy"]
    fine(operator, "resume", name)
    unasked = run(operator, "promote", name, "-r", "short day")
    assert (unasked.code, "It overrides:" in unasked.err, "give --yes" in unasked.err) == (2, True, True)
    already = fine(operator, "flags", "enable", "alpha", "--group", "staff", "--in", name)
    assert "already" in already
    far = run(operator, "flags", "rollout", "alpha", "--percentage=100", "--in", name)
    assert (far.code, "its steps are 10%+staff, 50%+staff, 100%+staff, the next is 50%" in far.err) == (1, True)
    fine(operator, "flags", "rollout", "alpha", "--percentage=50", "-y", "-r", "looks good", "--in", name)
    operator.until(lambda: operator.rollout(name)["status"]["current"].get("publishedTime"), 10, "the second step")
    other = run(operator, "flags", "enable", "beta", "--group", "staff", "--in", name)
    assert (other.code, "beta belongs to phase two" in other.err) == (1, True)
    assert "is approved" in fine(operator, "approve", name)
    fine(operator, "flags", "emergency-disable", "alpha", "-r", "EU", "--in", name)
    told = json.loads(fine(operator, "flags", "who", "u", "--group", "staff", "--in", name, "-o", "json"))
    assert {row["rule"] for row in told} == {"emergency: EU", "emergency: depends on alpha: EU"}
    fine(operator, "flags", "restore", "--all", "-r", "over", "--in", name)
    fine(operator, "restart", name, "-y", "-r", "memory")
    operator.until(lambda: operator.rollout(name)["status"]["workload"].get("restartedTime"), 20, "the restart")
    back = run(operator, "abort", name, "-y", "-r", "errors")
    assert (back.code, "phase one: 50% off, alpha" in back.err) == (0, True)
    operator.until(lambda: operator.rollout(name)["status"].get("outcome"), 20, "an outcome")
    assert "is undone" in fine(operator, "migrations", "down", "--in", name, "-y", "-r", "not needed")
    operator.until(lambda: operator.rollout(name)["status"]["migrations"][0]["state"] == "Reverted", 30, "the way back")
    late = run(operator, "pause", name)
    assert (late.code, late.err.strip()) == (1, f"kubectl sessionrollout: {name} has ended (Aborted): nothing is running")
    assert "Abort" in fine(operator, "history", name)
    fine(operator, "retry", name)
    fine(operator, "rollback", name, "-y", "-r", "enough")


def test_diff_says_what_a_change_would_mean(operator: Lab, tmp_path: Path) -> None:
    """Nothing for the same; the lines and the consequence otherwise; a refusal in advance where it cannot go on."""
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(shop()))
    assert fine(operator, "diff", str(file)) == f"shop runs as {file} has it\n"
    longer = shop()
    longer["spec"]["phases"][0]["steps"][0]["hold"] = "2h"
    file.write_text(yaml.safe_dump(longer))
    changed = run(operator, "diff", str(file))
    assert (changed.code, "+    hold: 2h" in changed.out, "It goes on where it is" in changed.err) == (1, True, True)
    fewer = shop()
    fewer["spec"]["phases"][0]["steps"][0]["percent"] = 5
    file.write_text(yaml.safe_dump(fewer))
    assert "It will stall: step 1 of phase one is now 5 %" in run(operator, "diff", str(file)).err


def test_init_makes_what_validate_takes(operator: Lab, tmp_path: Path) -> None:
    """And the API server."""
    file = tmp_path / "new.yaml"
    fine(operator, "init", "fresh", "--feature", "a", "--feature", "b", "--hold", "1h", "-f", str(file))
    assert "1 object valid, 0 warnings" in fine(operator, "validate", "--strict", str(file))
    operator.kubectl("apply", "--dry-run=server", "-f", str(file))
    again = run(operator, "init", "fresh", "--feature", "a", "-f", str(file))
    assert (again.code, "File exists" in again.err) == (2, True)
    alone = run(operator, "init")
    assert (alone.code, "NAME is missing" in alone.err) == (2, True)


# --- roles

ROLES = ("viewer", "approver", "operator-on-call")
LOOKS = [
    ("get",),
    ("status", SHOP),
    ("explain", SHOP),
    ("history", SHOP),
    ("events", SHOP),
    ("flags", "status", "--in", SHOP),
    ("flags", "who", "u-1", "--in", SHOP),
    ("flags", "verify", "--users", "10", "--in", SHOP),
    ("migrations", "status", "--in", SHOP),
    ("sessions", "status", "--in", SHOP),
]
EXAMINES = [("verify", SHOP), ("check-errors", SHOP), ("diagnose", "errors", SHOP)]
ACTS = [
    ("pause", SHOP),
    ("resume", SHOP),
    ("flags", "emergency-disable", "beta", "-r", "drill", "--in", SHOP),
    ("flags", "restore", "beta", "-r", "over", "--in", SHOP),
    ("migrations", "plan", "--in", SHOP),
    ("promote", SHOP, "-y", "-r", "drill"),
    ("abort", SHOP, "-y", "-r", "drill"),
    ("rollback", SHOP, "-y", "-r", "drill"),
    ("restart", SHOP, "-y", "-r", "drill"),
    ("retry", SHOP),
    ("migrations", "down", "--in", SHOP, "-y", "-r", "drill"),
    ("sessions", "retry", "--in", SHOP),
    ("sessions", "recover", "--in", SHOP),
    ("sessions", "backup", "--in", SHOP),
    ("sessions", "restore", "--in", SHOP, "-y", "-r", "drill"),
]
VERBS = [
    "pause",
    "resume",
    "emergencydisable",
    "restore",
    "inspectmigration",
    "promote",
    "abort",
    "abort",
    "restartworkload",
    "retry",
    "migratedown",
]
VERBS += ["retrymigration", "recoversessions", "backupsessions", "restoresessions"]


@pytest.fixture(scope="module")
def people(operator: Lab) -> Lab:
    """One user for each shipped role, and one with none."""
    for role in ROLES:
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"test-{role}", "namespace": "default"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"session-rollout-{role}"},
            "subjects": [{"kind": "User", "name": role, "apiGroup": "rbac.authorization.k8s.io"}],
        }
        operator.apply(binding)
    return operator


@pytest.mark.parametrize("argv", LOOKS, ids=" ".join)
def test_everybody_with_a_role_may_look(people: Lab, argv: tuple[str, ...]) -> None:
    """And nobody else: the sentence names the verb and the resource."""
    for role in ROLES:
        done = run(people, *argv, "-n", "default", "--as", role)
        assert done.code == 0, (role, done)
    stranger = run(people, *argv, "-n", "default", "--as", "stranger")
    assert stranger.code == 4, stranger
    assert re.search(r'User "stranger" cannot (get|list) resource "\w+"', stranger.err), stranger


@pytest.mark.parametrize("argv", EXAMINES, ids=" ".join)
def test_approvers_may_examine(people: Lab, argv: tuple[str, ...]) -> None:
    """Viewers may not: it is an action."""
    assert run(people, *argv, "--as", "approver").code == 0
    viewer = run(people, *argv, "--as", "viewer")
    assert (viewer.code, 'User "viewer" cannot create resource "sessionrolloutactions"' in viewer.err) == (4, True), viewer


@pytest.mark.parametrize(("argv", "verb"), list(zip(ACTS, VERBS, strict=True)), ids=[" ".join(one) for one in ACTS])
def test_only_people_on_call_may_act(people: Lab, argv: tuple[str, ...], verb: str) -> None:
    """An approver is told the verb that is missing; a viewer cannot create at all; a person on call is answered."""
    approver = run(people, *argv, "--as", "approver")
    assert (approver.code, f'User "approver" cannot {verb} resource "sessionrolloutactions"' in approver.err) == (4, True), (
        approver
    )
    viewer = run(people, *argv, "--as", "viewer")
    assert (viewer.code, 'cannot create resource "sessionrolloutactions"' in viewer.err) == (4, True), viewer
    if argv[0] not in {"promote", "abort", "rollback"}:  # these would end the stage for the others
        on_call = run(people, *argv, "--as", "operator-on-call")
        assert on_call.code in {0, 1}, on_call
        assert "cannot" not in on_call.err or "refused" in on_call.err, on_call


def test_approver_may_approve(people: Lab) -> None:
    """Refused by the operator, not by the API server: there is nothing to approve in this step."""
    done = run(people, "approve", SHOP, "--check", "nosuch", "--as", "approver")
    assert (done.code, "refused: `check` names nosuch" in done.err) == (1, True), done


def test_approve_of_a_step_that_asks_for_none_creates_nothing(operator: Lab) -> None:
    """And says which step will ask."""
    before = operator.kubectl("get", "sroa", "-o", "name").stdout
    done = run(operator, "approve", SHOP)
    assert (done.code, done.err) == (1, "kubectl sessionrollout: step 1 of phase one needs no approval; step 2 will\n")
    assert operator.kubectl("get", "sroa", "-o", "name").stdout == before


# --- wrong input

COMMANDS = [
    ("status", "{}"),
    ("explain", "{}"),
    ("history", "{}"),
    ("events", "{}"),
    ("approve", "{}"),
    ("promote", "{}", "-y", "-r", "x"),
    ("pause", "{}"),
    ("resume", "{}"),
    ("abort", "{}", "-y", "-r", "x"),
    ("rollback", "{}", "-y", "-r", "x"),
    ("retry", "{}"),
    ("restart", "{}", "-y", "-r", "x"),
    ("flags", "status", "--in", "{}"),
    ("flags", "who", "u", "--in", "{}"),
    ("flags", "verify", "--in", "{}"),
    ("flags", "enable", "alpha", "--group", "g", "--in", "{}"),
    ("flags", "rollout", "alpha", "--percentage", "5", "--in", "{}"),
    ("flags", "emergency-disable", "alpha", "-r", "x", "--in", "{}"),
    ("flags", "restore", "alpha", "-r", "x", "--in", "{}"),
    ("migrations", "status", "--in", "{}"),
    ("migrations", "up", "--in", "{}"),
    ("migrations", "down", "--in", "{}", "-y", "-r", "x"),
    ("migrations", "plan", "--in", "{}"),
    ("sessions", "status", "--in", "{}"),
    ("sessions", "migrate", "--in", "{}"),
    ("sessions", "retry", "--in", "{}"),
    ("sessions", "recover", "--in", "{}"),
    ("sessions", "backup", "--in", "{}"),
    ("sessions", "restore", "--in", "{}", "-y", "-r", "x"),
    ("sessions", "verify", "--in", "{}"),
    ("verify", "{}"),
    ("check-errors", "{}"),
]


def filled(argv: tuple[str, ...], name: str) -> list[str]:
    return [part.format(name) for part in argv]


def one_sentence(done: Done, code: int) -> None:
    """Nothing but it, and the documented code."""
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert (done.code, len(lines)) == (code, 1), done
    assert lines[0].startswith("kubectl sessionrollout: ")


@pytest.mark.parametrize("argv", COMMANDS, ids=lambda argv: " ".join(argv[:2]))
def test_unknown_rollout_and_namespace(operator: Lab, argv: tuple[str, ...]) -> None:
    """Not found; with its name."""
    unknown = run(operator, *filled(argv, "nobody"))
    one_sentence(unknown, 3)
    assert "nobody" in unknown.err
    one_sentence(run(operator, *filled(argv, SHOP), "-n", "nowhere"), 3)


@pytest.mark.parametrize("argv", [("get",), *COMMANDS], ids=lambda argv: " ".join(argv[:2]))
def test_dead_api_server_and_expired_token(operator: Lab, argv: tuple[str, ...]) -> None:
    """Unreachable, and not logged in."""
    dead = run(operator, *filled(argv, SHOP), "--server", "https://127.0.0.1:9")
    one_sentence(dead, 5)
    expired = run(operator, *filled(argv, SHOP), KUBECONFIG=str(without_login(operator)))
    one_sentence(expired, 4)


def without_login(lab: Lab) -> Path:
    """A kubeconfig whose token is worth nothing."""
    document = json.loads(lab.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": "expired"}
    path = lab.directory / "expired.kubeconfig"
    path.write_text(json.dumps(document))
    return path


WRONG = [
    (("status", SHOP, "--watch", "-o", "json"), "give one of them"),
    (("status", SHOP, "--context", "nowhere"), "nowhere"),
    (("status", SHOP, "--no-such-flag"), "No such option"),
    (("statu",), "No such command 'statu'. (Did you mean one of: 'restart', 'status'"),
    (("status", SHOP, "-o", "xml"), "'xml' is not one of"),
    (("promote", SHOP), "--reason"),
    (("flags", "emergency-disable", "-r", "x", "--in", SHOP), "give either FEATURES or --all"),
    (("flags", "emergency-disable", "alpha", "--all", "-r", "x", "--in", SHOP), "give either FEATURES or --all"),
    (("flags", "emergency-disable", "Alpha", "-r", "x", "--in", SHOP), "did you mean alpha?"),
    (("flags", "rollout", "alpha", "--percentage", "many", "--in", SHOP), "allowed is a number from 0 to 100"),
    (("flags", "rollout", "alpha", "--percentage", "101", "--in", SHOP), "allowed is a number from 0 to 100"),
    (("flags", "enable", "nothing", "--group", "x", "--in", SHOP), "allowed are alpha, beta"),
    (("flags", "verify", "--users", "0", "--in", SHOP), "0 is not in the range"),
    (("migrations", "plan", "nothing", "--in", SHOP), "allowed are tables"),
    (("explain", SHOP, "--at", "soon"), "allowed are"),
    (("sessions", "restore", "--in", SHOP, "-y", "-r", "x", "--at", "soon"), "allowed are"),
    (("diagnose",), "Missing argument 'TOPIC'"),
    (("validate",), "Missing argument 'FILE...'"),
    (("rehearse", "/nowhere"), "No such file"),
]


@pytest.mark.parametrize(("argv", "words"), WRONG, ids=[" ".join(row[0]) for row in WRONG])
def test_wrong_arguments(operator: Lab, argv: tuple[str, ...], words: str) -> None:
    """Exit code 2, with what is allowed."""
    done = run(operator, *argv)
    one_sentence(done, 2)
    assert words in done.err, done.err


def test_operator_that_does_not_answer(operator: Lab) -> None:
    """The action stays; the command says that nobody answered it."""
    assert operator.operator is not None
    operator.operator.stop()
    try:
        done = run(operator, "pause", SHOP, "--timeout", "1")
        assert (done.code, "was not answered within 1 s: is the operator running?" in done.err) == (6, True)
    finally:
        operator.start_operator()
    operator.until(lambda: operator.rollout(SHOP)["status"].get("pausedBy"), 30, "the answer after all")
    fine(operator, "resume", SHOP)


def test_cluster_without_the_kinds() -> None:
    """It says what an admin must do; a server that is no API server is unreachable."""

    class Empty(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        environment = {**os.environ, "PYTHONPATH": "operator", "KUBECONFIG": "/dev/null"}
        argv = [
            sys.executable,
            "-m",
            "session_rollout.cli.app",
            "status",
            "x",
            f"--server=http://127.0.0.1:{server.server_port}",
        ]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode in {3, 5}, "Traceback" in done.stderr) == (True, False), done
    finally:
        server.shutdown()
        server.server_close()
