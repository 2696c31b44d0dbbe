"""What the operator asks and tells outside its own objects: checks of every kind, diagnoses, sinks, the workload, the records.

Real Services, Jobs, Deployments, a real Prometheus with real alert rules, a real HTTP receiver. Not here: the rules (core),
the commands people type (tests/cli).
"""

import base64
import hashlib
import hmac
import json
import statistics
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from integration.test_operator import LONG, SHORT, because, holding, rollout
from lab.gauge import scraped
from lab.kube import Object
from lab.lab import IMAGE, Lab
from lab.processes import free_port
from session_rollout.cli import recent
from session_rollout.core.recall import Record

KEY = b"a signing key"
ACTIONS = "/apis/sessionrollout.dev/v1alpha1/namespaces/default/sessionrolloutactions"
DEPLOYMENT = "/apis/apps/v1/namespaces/default/deployments/shop"
PYTHON = ["python", "-c"]
HOLD_SECONDS = 3


class Receiver(ThreadingHTTPServer):
    """A chat's incoming webhook that can fail in several ways."""

    daemon_threads = True
    allow_reuse_address = True
    mode = "ok"


@dataclass
class Chat:
    """The receiver at one address, up or down, and what it took."""

    port: int = field(default_factory=free_port)
    taken: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    refused: int = 0
    server: Receiver | None = None
    thread: threading.Thread | None = None
    released: threading.Event = field(default_factory=threading.Event)

    def up(self, mode: str = "ok") -> None:
        """Listen."""
        self.down()
        chat = self

        class Take(BaseHTTPRequestHandler):
            server: Receiver

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                body, mode = self.rfile.read(int(self.headers["Content-Length"])), self.server.mode
                if mode == "ok":
                    chat.taken.append((dict(self.headers), body))
                else:
                    chat.refused += 1
                if mode == "hang":
                    chat.released.wait(30)
                    return
                self.send_response(200 if mode == "ok" else 500)
                self.send_header("Content-Length", "0")
                self.end_headers()

        self.server = Receiver(("127.0.0.1", self.port), Take)
        self.server.mode = mode
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def down(self) -> None:
        """Refuse connections."""
        if self.server is not None and self.thread is not None:
            self.released.set()
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()
            self.server, self.released = None, threading.Event()

    def messages(self) -> list[Object]:
        """What was taken, each id once, as a receiver that de-duplicates sees it."""
        return list({body["id"]: body for body in (json.loads(text) for _, text in self.taken)}.values())


def settings(chat: Chat, directory: Path) -> dict[str, Any]:
    """The admin's part."""
    (directory / "key").write_bytes(KEY)
    (directory / "apprise").write_text(f"json://127.0.0.1:{chat.port}/apprise")
    check = {"image": IMAGE, "serviceAccount": "default", "timeout": "30s", "command": PYTHON}
    webhook = {"url": f"http://127.0.0.1:{chat.port}/hook", "secretFile": str(directory / "key")}
    return {
        "checks": {
            "green": {**check, "args": ["print('all green')"]},
            "red": {**check, "args": ["raise SystemExit('3 of 40 tests failed')"]},
        },
        "diagnostics": {
            "errors": [{"name": "error-rate", "query": "lab_errors", "below": "1%", "advice": "look at the last step"}],
            "capacity": [{"name": "disk", "query": "vector(5)", "above": "10", "advice": "make room"}],
            "cache": [{"name": "hits", "query": "vector(0.9)", "above": "80%"}],
        },
        "alerts": ["LabErrors"],
        "runAsUser": 20001,
        "sinks": {
            "chat": {"webhook": webhook, "timeout": "2s"},
            "apprise": {"urlFile": str(directory / "apprise")},
        },
    }


@pytest.fixture(scope="module")
def chat() -> Iterator[Chat]:
    """A receiver that is up."""
    made = Chat()
    made.up()
    yield made
    made.down()


@pytest.fixture(scope="module")
def operator(lab: Lab, chat: Chat, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The operator with sinks, checks and diagnostics, a Service's port, and one metric."""
    with scraped(lab) as server:
        assert lab.prometheus is not None
        lab.prometheus.rules({"groups": [{"name": "lab", "rules": [{"alert": "LabErrors", "expr": "lab_errors > 0.5"}]}]})
        lab.start_operator(**settings(chat, tmp_path_factory.mktemp("settings")))
        lab.apply(service("gauge", server.server_port))
        yield lab
        assert lab.operator is not None
        lab.operator.stop()


def service(name: str, number: int) -> Object:
    """A Service; where it leads is the configuration's to say."""
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": number}]}}


def port(lab: Lab) -> int:
    """Of the Service."""
    return int(lab.gauge.server_port)  # type: ignore[attr-defined]


def answer(lab: Lab, name: str) -> Object:
    """Status of an action, once it has one."""
    return dict(lab.until(lambda: lab.kube.get(f"{ACTIONS}/{name}").get("status"), 60, "an answer"))


def check(lab: Lab, name: str, title: str) -> Object:
    """Record of a check."""
    found = [one for one in lab.rollout(name).get("status", {}).get("checks", []) if one["name"] == title]
    return dict(found[0]) if found else {}


# --- checks


def test_preflight_of_every_kind(operator: Lab) -> None:
    """It waits for each with a sentence, and goes on when all pass."""
    kinds = ("FlagStore", "Migrations", "Metrics", "Alerts", "Rollback", "Cache")
    gates: list[Object] = [
        {"name": "metric", "metric": "errors", "below": "1%"},
        {"name": "http", "http": {"service": "gauge", "port": port(operator), "path": "/health"}},
        {"name": "gone", "http": {"service": "gone"}},
        {"name": "smoke", "job": {"profile": "green"}},
        *({"name": kind.lower(), "builtin": kind} for kind in kinds),
    ]
    operator.apply(rollout("gates", LONG, preflight=gates))
    status = because(operator, "gates", "gone: there is no Service gone in default")
    assert "phase" not in status["current"]
    others = [gate["name"] for gate in gates if gate["name"] != "gone"]
    passed = lambda: all(check(operator, "gates", name).get("verdict") == "Pass" for name in others)  # noqa: E731
    operator.until(passed, 30, "all others passing")
    assert check(operator, "gates", "gone")["verdict"] == "Fail"
    operator.apply(service("gone", 80))
    operator.until(lambda: "ClientConnectorError" in str(operator.rollout("gates")["status"]), 20, "nobody answering")
    operator.apply(rollout("gates", LONG, preflight=gates[:2] + gates[3:]))
    holding(operator, "gates")


def test_check_of_an_unknown_profile_is_said(operator: Lab) -> None:
    """With what is allowed."""
    operator.apply(rollout("unknown-check", LONG, preflight=[{"name": "smoke", "job": {"profile": "blue"}}]))
    because(operator, "unknown-check", "`job.profile` is blue, which is no check of the configuration; allowed are green, red")
    version = operator.rollout("unknown-check")["metadata"]["resourceVersion"]
    operator.reconciles("unknown-check", 5)
    assert operator.rollout("unknown-check")["metadata"]["resourceVersion"] == version, "it says so once, not at every look"


def test_failed_job_of_a_check_says_its_last_line_and_runs_again_by_retry(operator: Lab) -> None:
    """The Pod's words reach WHY."""
    operator.apply(rollout("red", LONG, preflight=[{"name": "smoke", "job": {"profile": "red"}}]))
    status = because(operator, "red", "3 of 40 tests failed")
    first = check(operator, "red", "smoke")["job"]
    pod = operator.kube.get(f"/apis/batch/v1/namespaces/default/jobs/{first}")["spec"]["template"]["spec"]
    confined = {"runAsNonRoot": True, "runAsUser": 20001, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["securityContext"] == confined, "the configuration says under which uid"
    operator.act("Retry", "red", generation=status["observedGeneration"])
    operator.until(lambda: check(operator, "red", "smoke").get("job") not in {first, None}, 20, "another Job")


# --- actions that only look


def test_verify_on_demand_answers_in_its_own_status(operator: Lab) -> None:
    """Every gate once, while the rollout is suspended; one by name; an unknown name gets the allowed ones."""
    gates = [
        {"name": "http", "http": {"service": "gauge", "port": port(operator), "path": "/health"}},
        {"name": "teapot", "http": {"service": "gauge", "port": port(operator), "expectStatus": 418}},
        {"name": "smoke", "job": {"profile": "red"}},
        {"name": "calm", "metric": "errors", "below": "1%"},
        {"name": "full", "builtin": "Capacity"},
    ]
    signed = [{"name": "signed", "approval": {}}]
    operator.apply(rollout("verify", LONG, preflight=signed, rollback={"verification": gates}, suspend=True))
    seen = answer(operator, operator.act("Verify", "verify"))
    results = {one["name"]: one for one in seen["results"]}
    verdicts = {"http": "Pass", "teapot": "Fail", "smoke": "Fail", "calm": "Pass", "full": "Fail", "signed": "NotEvaluated"}
    assert {title: one["verdict"] for title, one in results.items()} == verdicts
    assert results["teapot"]["message"].endswith("answered 200, expected is 418")
    assert "3 of 40 tests failed" in results["smoke"]["message"]
    assert results["full"]["message"] == "disk 5 is not above 10; make room"
    assert seen["message"].startswith("2 of 6 pass")
    one = answer(operator, operator.act("Verify", "verify", check="http"))
    assert [result["name"] for result in one["results"]] == ["http"]
    unknown = answer(operator, operator.act("Verify", "verify", check="nothing"))
    assert (unknown["accepted"], "allowed are" in unknown["message"]) == (False, True)


def test_diagnose_asks_what_the_admin_wrote(operator: Lab) -> None:
    """A topic's answers with value, bound and advice; an unknown topic gets the allowed ones."""
    operator.apply(rollout("diagnose", LONG))
    done = answer(operator, operator.act("Diagnose", "diagnose", topic="errors"))
    assert done["accepted"], done["message"]
    [result] = done["results"]
    assert (result["name"], result["verdict"], result["bound"]) == ("error-rate", "Pass", "below 1%")
    unknown = answer(operator, operator.act("Diagnose", "diagnose", topic="weather"))
    assert unknown["message"].endswith("allowed are cache, capacity, errors")
    missing = answer(operator, operator.act("Diagnose", "nobody", topic="errors"))
    assert "there is no SessionRollout nobody" in missing["message"]


# --- notices


def test_sink_that_is_down_for_a_whole_rollout_gets_every_message_once_and_makes_nothing_late(
    operator: Lab, chat: Chat
) -> None:
    """Refused, 500, hanging, until the rollout has ended: then all messages, in order, signed; no decision was later than without."""
    told = ["PhaseStarted", "StepPublished", "StepPassed", "PhaseCompleted", "Promoted"]
    steps = [{"percent": share, "hold": f"{HOLD_SECONDS}s"} for share in (10, 20, 30, 40, 50, 100)]
    chat.taken.clear()
    chat.down()
    operator.apply(rollout("told", steps, notifications=[{"sink": "chat", "events": told}]))
    operator.apply(rollout("untold", steps))
    operator.until(lambda: notified(operator, "told")[0] == "False", 30, "the condition while connections are refused")
    for mode in ("500", "hang"):
        before = chat.refused
        chat.up(mode)
        operator.until(lambda before=before: chat.refused > before, 30, f"an attempt that meets {mode}")
    for name in ("told", "untold"):
        operator.until(lambda name=name: operator.rollout(name)["status"].get("outcome"), 60, f"an outcome of {name}")
    status = operator.rollout("told")["status"]
    assert notified(operator, "told")[0] == "False"
    assert chat.taken == []
    chat.up()
    wanted = [one["id"] for one in status["outbox"]]
    assert len(wanted) == 1 + 2 * len(steps) + 2
    operator.until(lambda: len(chat.messages()) >= len(wanted), 60, "the messages")
    operator.until(lambda: not operator.rollout("told")["status"].get("outbox"), 30, "an empty outbox")
    assert [one["id"] for one in chat.messages()] == wanted
    assert chat.messages()[-1]["type"] == "Promoted"
    for headers, body in chat.taken:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        digest = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{digest}"
    # Both run in one process at the same time, so a busy machine makes both late.
    assert statistics.median(late(operator, "told")) <= statistics.median(late(operator, "untold")) + 1.0
    assert "kubectl sessionrollout explain told -n default" in chat.messages()[-1]["text"]
    assert notified(operator, "told")[0] == "True"


def late(lab: Lab, name: str) -> list[float]:
    """Seconds by which each step ended after its hold was over."""
    history = lab.rollout(name)["status"]["history"]
    times = {(one["event"], one.get("step")): datetime.fromisoformat(one["time"]) for one in history}
    passed = [(step, at) for (event, step), at in times.items() if event == "StepPassed"]
    between = [(at - times["StepPublished", step]).total_seconds() for step, at in passed if ("StepPublished", step) in times]
    return [seconds - HOLD_SECONDS for seconds in between]


def test_operator_that_dies_with_messages_on_their_way_loses_none(operator: Lab, chat: Chat) -> None:
    """What a sink has not taken is in status; the next process delivers it under the same id."""
    chat.taken.clear()
    chat.down()
    # A killed process leaves no coverage: what the tests before this one measured ends politely.
    assert operator.operator is not None
    operator.operator.stop()
    operator.start_operator()
    operator.apply(rollout("dying", LONG, notifications=[{"sink": "chat", "events": ["StepPublished"]}]))
    holding(operator, "dying")
    [notice] = operator.rollout("dying")["status"]["outbox"]
    operator.operator.kill()
    operator.start_operator()
    chat.up()
    operator.until(chat.messages, 60, "the message")
    assert [one["id"] for one in chat.messages()] == [notice["id"]]


def test_sinks_of_other_kinds_and_sinks_that_are_none(operator: Lab, chat: Chat) -> None:
    """Apprise carries the same words; an unknown sink is said in the condition and keeps nothing."""
    chat.taken.clear()
    chat.up()
    sinks = [{"sink": "apprise", "events": ["Promoted"]}, {"sink": "nowhere", "events": ["Promoted"]}]
    operator.apply(rollout("apprise", SHORT, notifications=sinks))
    operator.until(lambda: chat.taken, 60, "Apprise's message")
    assert "kubectl sessionrollout explain apprise -n default" in json.loads(chat.taken[-1][1])["message"], chat.taken
    sentence = "nowhere: is no sink of the configuration; allowed are apprise, chat"
    operator.until(lambda: notified(operator, "apprise") == ("False", sentence), 20, "the condition")
    assert operator.rollout("apprise")["status"]["outcome"] == "Promoted"


def notified(lab: Lab, name: str) -> tuple[str, str]:
    """Status and message of the condition Notified."""
    conditions = lab.rollout(name).get("status", {}).get("conditions", [])
    return next(((str(one["status"]), str(one["message"])) for one in conditions if one["type"] == "Notified"), ("", ""))


# --- the workload


def deployment(text: str) -> Object:
    """A Deployment whose revisions differ in what they print."""
    labels = {"app": "shop"}
    program = f"print('{text}'); import time; time.sleep(3600)"
    container = {"name": "web", "image": IMAGE, "command": PYTHON, "args": [program]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop", "namespace": "default"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }


def revision(lab: Lab) -> str:
    """Of the Deployment."""
    return str(lab.kube.get(DEPLOYMENT)["metadata"].get("annotations", {}).get("deployment.kubernetes.io/revision"))


def test_rollback_undoes_the_workload_and_people_restart_it(operator: Lab) -> None:
    """The earlier revision's template is back; what must hold after it is checked; a restart replaces Pods once."""
    operator.apply(deployment("old"))
    operator.until(lambda: revision(operator) == "1", 20, "the first revision")
    operator.apply(deployment("new"))
    operator.until(lambda: revision(operator) == "2", 20, "the second revision")
    workload = {"kind": "Deployment", "name": "shop"}
    checks = [{"name": "calm", "metric": "errors", "below": "1%"}, {"name": "up", "builtin": "Health"}]
    operator.apply(rollout("undo", LONG, workload=workload, rollback={"workload": "Undo", "verification": checks}))
    holding(operator, "undo")
    operator.act("Abort", "undo", reason="the new version is slow")
    operator.until(lambda: operator.rollout("undo")["status"].get("outcome"), 30, "an outcome")
    program = operator.kube.get(DEPLOYMENT)["spec"]["template"]["spec"]["containers"][0]["args"][0]
    assert program.startswith("print('old')")
    message = operator.rollout("undo")["status"]["workload"]["message"]
    assert message == "shop is back at what revision 1 was, now revision 3"
    operator.until(lambda: "RollbackVerified" in events(operator, "undo"), 30, "the checks after the rollback")
    operator.act("RestartWorkload", "undo", reason="memory")
    operator.until(lambda: operator.rollout("undo")["status"]["workload"].get("restartedTime"), 20, "the restart")
    annotations = operator.kube.get(DEPLOYMENT)["spec"]["template"]["metadata"]["annotations"]
    assert list(annotations) == ["sessionrollout.dev/restarted-at"]


def events(lab: Lab, name: str) -> list[str]:
    """Of the history."""
    return [one["event"] for one in lab.rollout(name)["status"]["history"]]


def test_undo_without_the_right_says_which_is_missing(operator: Lab) -> None:
    """The chart's value `rbac.workloads` leaves two rules out; without them the rest works."""
    role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/session-rollout"
    rules = operator.kube.get(role)["rules"]
    less = [
        one
        for one in rules
        if one["resources"] != ["replicasets"] and (one["resources"], one["verbs"]) != (["deployments"], ["patch"])
    ]
    assert len(less) == len(rules) - 2
    operator.kube.merge(role, {"rules": less})
    try:
        workload = {"kind": "Deployment", "name": "shop"}
        operator.apply(rollout("no-right", LONG, workload=workload, rollback={"workload": "Undo"}))
        holding(operator, "no-right")
        operator.act("Abort", "no-right", reason="drill")
        operator.until(lambda: operator.rollout("no-right")["status"].get("outcome"), 30, "an outcome")
        message = operator.rollout("no-right")["status"]["workload"]["message"]
        assert message.endswith("the operator may not list replicasets, the chart's value `rbac.workloads` grants it")
    finally:
        operator.kube.merge(role, {"rules": rules})


# --- records


def records(lab: Lab, name: str) -> list[Record]:
    """Every record of a rollout, oldest first."""
    select = f"sessionrollout.dev/record-of={name}"
    slots = lab.kube.get("/api/v1/namespaces/default/configmaps", labelSelector=select)["items"]
    return recent.records(slots)


def test_every_decision_is_recorded_and_can_be_made_again(operator: Lab) -> None:
    """Through a restart of the operator, too; the last record leads to the status that is there."""
    operator.apply(rollout("recorded", [{"percent": 50, "hold": "2s"}, {"percent": 100, "hold": "1h"}]))
    operator.until(lambda: holding(operator, "recorded")["status"]["current"].get("step") == 2, 40, "step 2")
    assert operator.operator is not None
    operator.operator.stop()
    operator.start_operator()
    operator.act("Pause", "recorded")
    operator.until(lambda: records(operator, "recorded")[-1].action == "Pause", 20, "the record of the pause")

    def last_is_there() -> bool:
        """The record comes after the status, and another status may have been written since."""
        last = records(operator, "recorded")[-1].decide_again().status
        return bool(last.to_wire() == operator.rollout("recorded")["status"])

    operator.until(last_is_there, 20, "the last record leading to the status")
    kept = records(operator, "recorded")
    # How many there are depends on what is seen together; each step has its own.
    assert {one.decide_again().status.current.step for one in kept} >= {1, 2}
    assert [one.why for one in kept if not one.agrees()] == []
