"""The plugin says first that the operator does not run (D24): by the age of its Lease, which a kubectl of the test prints.

Not here: the Lease of a running operator, and the Role with which users read it (test_roles), the alert (tests/observability).
"""

import contextlib
import io
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import fake_kubectl
from lab.lab import ROOT
from session_rollout.adapters.kubectl import Kubectl
from session_rollout.cli import operator_lease
from session_rollout.cli.app import app
from session_rollout.cli.command import Exit, code_of
from session_rollout.cli.operator_lease import OperatorLease

Object = dict[str, Any]
FORBIDDEN = 'Error from server (Forbidden): leases.coordination.k8s.io is forbidden: User "x" cannot list resource "leases"'
SAYS = "the operator has not renewed its Lease for"


def lease(seconds: float, holder: str = "session-rollout-0") -> Object:
    """A Lease that was renewed so many seconds ago."""
    renewed = datetime.now(UTC) - timedelta(seconds=seconds)
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": f"{renewed:%Y-%m-%dT%H:%M:%S.%fZ}"}
    return {"metadata": {"name": "session-rollout"}, "spec": spec}


def leases(*items: Object) -> Object:
    return {"items": list(items)}


def install(directory: Path, monkeypatch: pytest.MonkeyPatch, **answers: Object | str) -> None:
    """Kubectl knows the minimal example, and these Leases."""
    body = yaml.safe_load((ROOT / "examples" / "minimal.yaml").read_text())
    body["metadata"] |= {"namespace": "default", "uid": "u", "generation": 1}
    body["status"] = {
        "observedGeneration": 1,
        "state": "Progressing",
        "current": {"stage": "Step", "phase": "checkout", "step": 1},
    }
    monkeypatch.setenv("KUBECTL", str(fake_kubectl.install(directory, body, (), **answers)))


OLD, FRESH = 725, 1  # seconds since the last renewal; a Lease is made when its test runs
UNREADABLE = "Unable to connect to the server: EOF"
Ages = list[tuple[float, str]] | str  # with the holder of each; a string is an error
HELD = "session-rollout-0"
LEASES: dict[str, tuple[Ages, Ages, str | None]] = {  # with the label; with the default name; what the plugin says
    "renewed": ([(FRESH, HELD)], FORBIDDEN, None),
    "by a clock that is ahead": ([(-300, HELD)], FORBIDDEN, None),
    "a little late": ([(20, HELD)], FORBIDDEN, None),
    "old": ([(OLD, HELD)], FORBIDDEN, "12 min"),
    "released and not acquired": ([(25, "")], FORBIDDEN, ""),
    "released a moment ago": ([(2, "")], FORBIDDEN, None),
    "one of two is renewed": ([(OLD, HELD), (FRESH, HELD)], FORBIDDEN, None),
    "the younger of two counts": ([(7200, HELD), (OLD, HELD)], FORBIDDEN, "12 min"),
    "none with the label": ([], [(OLD, HELD)], "12 min"),
    "may read only the one with the default name": (FORBIDDEN, [(OLD, HELD)], "12 min"),
    "may read it, and it is renewed": (FORBIDDEN, [(FRESH, HELD)], None),
    "may read none": (FORBIDDEN, FORBIDDEN, None),
    "no Lease at all": ([], "Error from server (NotFound): leases not found", None),
    "an API server that does not respond": (UNREADABLE, [(OLD, HELD)], None),
}


@pytest.mark.parametrize(("labelled", "default", "age"), LEASES.values(), ids=LEASES)
def test_sentence_names_the_age_of_an_old_lease(
    labelled: Ages, default: Ages, age: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D24: and nothing while an operator renews it, or if nobody knows."""
    answers = {
        "leases": labelled if isinstance(labelled, str) else leases(*(lease(*one) for one in labelled)),
        "lease": default if isinstance(default, str) else lease(*default[0]),
    }
    install(tmp_path, monkeypatch, **answers)
    text = OperatorLease(Kubectl()).sentence()
    assert (text is None) is (age is None)
    assert (text or SAYS).startswith(f"{SAYS} {age or ''}".rstrip())


def test_lease_that_was_never_held_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D24: somebody else created it."""
    install(tmp_path, monkeypatch, leases=leases({"metadata": {}, "spec": {}}))
    assert OperatorLease(Kubectl()).sentence() is None


COMMANDS = [
    ("get",),
    ("status", "checkout"),
    ("status", "checkout", "-o", "json"),
    ("status", "checkout", "-w", "--timeout", "50ms"),
    ("wait", "checkout", "--timeout", "50ms"),
    ("explain", "checkout"),
    ("history", "checkout"),
    ("report", "checkout"),
    ("flags", "status", "--in", "checkout"),
    ("migrations", "status", "--in", "checkout"),
    ("pause", "checkout", "--timeout", "1ms"),
    ("abort", "checkout", "-y", "-r", "x", "--timeout", "1ms"),
    ("flags", "emergency-disable", "newCheckout", "-r", "x", "--in", "checkout", "--timeout", "1ms"),
    ("verify", "checkout"),
]


@pytest.mark.parametrize("argv", COMMANDS, ids=" ".join)
def test_command_says_first_that_the_operator_does_not_run(
    argv: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D24: before everything else that it prints, and on standard error, so that data stays data."""
    monkeypatch.setattr("session_rollout.cli.checks.INSPECTION_TIMEOUT", timedelta(milliseconds=1))
    for seconds, expected in ((OLD, True), (FRESH, False)):
        install(tmp_path, monkeypatch, leases=leases(lease(seconds)))
        lines = printed(argv)
        said = [line.startswith(SAYS) for line in lines]
        assert (any(said[:1]), sum(said)) == (expected, int(expected)), lines


def printed(argv: tuple[str, ...]) -> list[str]:
    """What a command prints to both streams, in order."""
    with io.StringIO() as stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        code_of(app, argv)
        return stream.getvalue().splitlines()


def test_action_without_a_response_names_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """D24: the action is created in any case; it is carried out when an operator runs again."""
    install(tmp_path, monkeypatch, leases=leases(lease(OLD)))
    assert code_of(app, ["pause", "checkout", "--timeout", "1ms"]) == Exit.TIMEOUT
    assert SAYS in capsys.readouterr().err.splitlines()[-1]


def test_operator_that_stops_while_a_command_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """D24: the Lease is read again from time to time, and the sentence comes once."""
    monkeypatch.setattr(operator_lease, "CHECK_SECONDS", 0.0)
    install(tmp_path, monkeypatch, leases=leases(lease(FRESH)))
    watched = OperatorLease(Kubectl())
    watched.warn()
    assert capsys.readouterr().err == ""
    install(tmp_path, monkeypatch, leases=leases(lease(OLD)))
    deadline, shown = time.monotonic() + 30, ""
    while not shown and time.monotonic() < deadline:
        watched.check_again()
        shown = capsys.readouterr().err
    assert shown.startswith(SAYS)
    for _ in range(3):
        watched.check_again()
        watched.stop()
    assert capsys.readouterr().err == ""
