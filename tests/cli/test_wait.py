"""How waiting for a rollout ends, with a kubectl that prints what the test says.

Not here: the same against a real operator (test_actions).
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.fake_kubectl import install
from lab.lab import ROOT
from session_rollout.api.enums import State
from session_rollout.cli.app import app
from session_rollout.cli.command import Exit, code_of
from session_rollout.cli.common import rollout_of
from session_rollout.cli.wait import exit_code

Object = dict[str, Any]


def rollout(state: State | None, *, observed: int = 1, **more: Any) -> Object:
    """The minimal example in a state."""
    body: Object = yaml.safe_load((ROOT / "examples" / "minimal.yaml").read_text())
    body["metadata"] |= {"namespace": "default", "uid": "u", "generation": 1}
    outcome = state if state in {State.PROMOTED, State.ROLLED_BACK, State.ABORTED} else None
    fields = {"observedGeneration": observed, "state": state, "outcome": outcome, **more}
    return {**body, "status": {name: value for name, value in fields.items() if value is not None}}


def added(state: State, **more: Any) -> Object:
    return {"type": "ADDED", "object": rollout(state, **more)}


def modified(state: State, **more: Any) -> Object:
    return {"type": "MODIFIED", "object": rollout(state, **more)}


ROWS = [
    (State.PROMOTED, "Promoted", Exit.DONE),
    (State.ROLLED_BACK, "Promoted", Exit.REFUSED),
    (State.ABORTED, "Promoted", Exit.REFUSED),
    (State.STALLED, "Promoted", Exit.STALLED),
    (State.PROGRESSING, "Promoted", None),
    (State.PAUSED, "Promoted", None),
    (None, "Promoted", None),
    (State.ABORTED, "Aborted", Exit.DONE),
    (State.PROMOTED, "Aborted", Exit.REFUSED),
    (State.STALLED, "Stalled", Exit.DONE),
    (State.PAUSED, "Paused", Exit.DONE),
]


@pytest.mark.parametrize(("state", "wanted", "code"), ROWS)
def test_code_for_each_state(state: State | None, wanted: str, code: Exit | None) -> None:
    """The state of an older generation ends nothing."""
    assert exit_code(rollout_of(rollout(state)), wanted) is code
    assert exit_code(rollout_of(rollout(state, observed=0)), wanted) is None


@pytest.mark.parametrize("command", [("wait",), ("status", "--watch")], ids=" ".join)
@pytest.mark.parametrize(
    ("events", "code"),
    [
        ([[added(State.PROGRESSING), modified(State.PROMOTED)]], Exit.DONE),
        ([[added(State.PROGRESSING)], [added(State.PROGRESSING), modified(State.ROLLED_BACK)]], Exit.REFUSED),
        ([[added(State.PROGRESSING)], [modified(State.STALLED)]], Exit.STALLED),
        ([[added(State.PROMOTED, observed=0)], [added(State.STALLED)]], Exit.STALLED),
        ([[added(State.PROGRESSING), {"type": "DELETED", "object": {}}]], Exit.NOT_FOUND),
        ([[added(State.PROGRESSING)], []], Exit.UNREACHABLE),
    ],
    ids=["promoted", "rolled back in the second watch", "stalled", "old generation", "deleted", "no second watch"],
)
def test_watch_is_started_again_until_the_rollout_ends(
    events: list[list[Object]], code: Exit, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """API servers end a watch after a while; one that delivers nothing at all is an error."""
    monkeypatch.setenv("KUBECTL", str(install(tmp_path, rollout(State.PROGRESSING), events)))
    assert code_of(app, [*command, "checkout"]) == code


@pytest.mark.parametrize("command", [("wait",), ("status", "--watch")], ids=" ".join)
def test_timeout(command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As timeout(1) ends."""
    monkeypatch.setenv("KUBECTL", str(install(tmp_path, rollout(State.PROGRESSING), [[added(State.PROGRESSING)]])))
    assert code_of(app, [*command, "checkout", "--timeout", "50ms"]) == Exit.TIMEOUT


def test_object_of_a_newer_operator_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields that this version does not know are ignored; a value that it cannot understand is reported."""
    monkeypatch.setenv("KUBECTL", str(install(tmp_path, rollout(State.PROMOTED, newField={"a": 1}))))
    assert code_of(app, ["wait", "checkout"]) == Exit.DONE
    monkeypatch.setenv("KUBECTL", str(install(tmp_path, rollout(State.PROMOTED, observedGeneration="one"))))
    assert code_of(app, ["wait", "checkout"]) == Exit.REFUSED


def test_abort_without_a_response_says_what_users_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The operator runs, and the flag document is refused: that is what on-call needs to know."""
    message = "ROLLBACK NOT IN FORCE: alpha still on; the API server refuses to patch configmaps"
    decision = {"action": "Stall", "reason": "RequestRefused", "message": message}
    monkeypatch.setenv("KUBECTL", str(install(tmp_path, rollout(State.STALLED, decision=decision))))
    assert code_of(app, ["abort", "checkout", "-y", "-r", "errors", "--timeout", "50ms"]) == Exit.TIMEOUT
    assert message in capsys.readouterr().err
