"""R5: the plugin on whatever the API server accepts, and on the statuses, documents and decision records that come of it.

Every reading command ends with a documented exit code and without a traceback; `explain --check` reproduces each decision;
`validate` accepts what was accepted. kubectl is replaced by the answers that it would give. Not here: commands that create
actions (test_actions), files that are no objects (test_generated_yaml).
"""

import base64
import contextlib
import io
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from api.consistency import accepted
from api.strategies import statuses
from core.lives import LIVES, Life, life
from session_rollout.adapters.kubectl import Call, FailureKind, Kubectl, KubectlFailed
from session_rollout.cli.app import app
from session_rollout.cli.command import Exit, code_of
from session_rollout.core.flags import KEY
from session_rollout.core.steps import increments
from session_rollout.records.codec import BASE, RECORD_LABEL, SEQUENCE, config_map_name, entry_name, pack
from session_rollout.records.record import line_of

OBJECTS: Final = max(int(os.environ.get("GENERATED_OBJECTS", "0")) // 20, 20)
SEED: Final = int(os.environ.get("GENERATED_SEED", "0"))
MANY: Final = settings(max_examples=OBJECTS, deadline=None, suppress_health_check=list(HealthCheck), database=None)
REHEARSED: Final = 15  # increments; each is a dozen decisions
READING: Final = (
    (("status",), {Exit.DONE}),
    (("history",), {Exit.DONE}),
    (("explain",), {Exit.DONE}),
    (("explain", "--check"), {Exit.DONE}),
    (("explain", "--statistics"), {Exit.DONE}),
    (("report",), {Exit.DONE}),
    (("report", "-o", "html"), {Exit.DONE}),
    (("flags", "status", "--in"), {Exit.DONE}),
    (("flags", "who", "u", "--group", "a", "--in"), {Exit.DONE, Exit.REFUSED, Exit.NOT_FOUND}),
    (("flags", "verify", "--users", "2", "--in"), {Exit.DONE, Exit.REFUSED, Exit.NOT_FOUND}),
    (("migrations", "status", "--in"), {Exit.DONE}),
    (("data", "status", "--in"), {Exit.DONE, Exit.REFUSED, Exit.USAGE}),
)


class _Ended:
    returncode = 0


class Cluster:
    """What kubectl would print about one life."""

    def __init__(self, lived: Life, body: dict[str, Any]) -> None:
        metadata = {"name": lived.name, "namespace": lived.namespace, "uid": lived.uid, "generation": lived.generation}
        whole = {**body, "metadata": metadata, "spec": lived.spec.to_wire(), "status": lived.status.to_wire()}
        lines = [line_of(record) for record in lived.records]
        packed = {entry_name(index): pack(line, lines[0]) for index, line in enumerate(lines[1:])}
        if lines:
            packed[BASE] = pack(lines[0])
        slot = {
            "metadata": {"name": config_map_name(lived.name, 0), "labels": {RECORD_LABEL: lived.name}},
            "data": {SEQUENCE: "0"},
            "binaryData": {name: base64.b64encode(entry).decode() for name, entry in packed.items()},
        }
        self.rollout, self.records = whole, {"items": [slot] if lines else []}
        self.document = {"data": {KEY: lived.documents[-1]}} if lived.documents else None

    @property
    def answer(self) -> Any:
        """What takes the place of `Kubectl.ask`."""
        return lambda kubectl, *argv, stdin=None: self.ask(kubectl, *argv, stdin=stdin)

    def ask(self, _: Kubectl, *argv: str, stdin: str | None = None) -> Call:
        """One call; nothing is created."""
        assert stdin is None
        match argv:
            case ("get", "configmaps", *_):
                answer: Any = self.records
            case ("get", "configmap", *_):
                answer = self.document
            case ("get", resource, "-o", "json") if resource.startswith("sessionrolloutactions"):
                answer = {"items": []}
            case _:
                answer = self.rollout
        if answer is None:
            raise KubectlFailed(FailureKind.NOT_FOUND, "not found")
        return Call(_Ended(), done=(json.dumps(answer), ""))  # type: ignore[arg-type]


def run(*argv: str) -> tuple[int, str]:
    """A command in this process, and what it printed; an exception is a traceback."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = code_of(app, argv)
    printed = out.getvalue() + err.getvalue()
    printed.encode()
    return code, printed


def lived(drawn: tuple[dict[str, Any], int, list[tuple[str, Any]]]) -> Life:
    """A whole life."""
    body, generation, events = drawn
    born = life(body, generation, lambda _: None)
    born.step()
    for event in events:
        born.happen(event)
    return born


def test_reading_commands_show_every_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of whole lives."""
    counts: Counter[str] = Counter()

    @seed(SEED)
    @MANY
    @given(LIVES)
    def show(drawn: tuple[dict[str, Any], int, list[tuple[str, Any]]]) -> None:
        life_of = lived(drawn)
        monkeypatch.setattr(Kubectl, "ask", asking(life_of, drawn[0]))
        for argv, codes in READING:
            code, printed = run(*argv, life_of.name)
            assert code in codes, (argv, printed)
            counts[Exit(code).name] += 1

    show()
    print(f"commands that read {OBJECTS:,} objects: {dict(counts)}")
    assert counts[Exit.DONE.name] > OBJECTS * (len(READING) - 4)


def test_reading_commands_show_a_status_that_somebody_else_has_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fields need not fit together; whoever reads it gets what it says, or a sentence."""
    counts: Counter[str] = Counter()

    @seed(SEED)
    @MANY
    @given(accepted(), statuses())
    def show(body: dict[str, Any], status: dict[str, Any]) -> None:
        cluster = Cluster(life(body, 3, lambda _: None), body)
        cluster.rollout["status"] = status
        monkeypatch.setattr(Kubectl, "ask", cluster.answer)
        for argv, codes in READING:
            code, printed = run(*argv, body["metadata"]["name"])
            assert code in codes | {Exit.NOT_FOUND, Exit.REFUSED}, (argv, printed)
            counts[Exit(code).name] += 1

    show()
    print(f"commands that read {OBJECTS:,} statuses of others: {dict(counts)}")
    assert counts[Exit.DONE.name] > OBJECTS * 4


def asking(lived_life: Life, body: dict[str, Any]) -> Any:
    return Cluster(lived_life, body).answer


def test_commands_for_files_take_every_accepted_object(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`validate` finds no error, `diff` says what it means, and `rehearse` ends."""
    file = tmp_path / "rollout.yaml"

    @seed(SEED)
    @MANY
    @given(accepted(), st.booleans(), st.sampled_from(("text", "json", "html")))
    def read(body: dict[str, Any], escaped: bool, form: str) -> None:
        born = life(body, 1, lambda _: None)
        born.step()
        file.write_text(json.dumps(body, ensure_ascii=escaped), encoding="utf-8")
        monkeypatch.setattr(Kubectl, "ask", asking(born, body))
        code, printed = run("validate", str(file))
        assert code == Exit.DONE, printed
        code, printed = run("diff", str(file))
        assert code in {Exit.DONE, Exit.REFUSED}, printed
        if sum(len(increments(phase)) for phase in born.spec.phases) <= REHEARSED:
            code, printed = run("rehearse", str(file), "-o", form)
            assert code in {Exit.DONE, Exit.REFUSED}, printed

    read()
