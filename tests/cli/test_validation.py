"""`validate` and a real API server on the same objects: verdict, field, and sentence; then files, places and advice.

Covered: the hand-made corpus and one made by mutation, together over a thousand objects. Not here: what CEL means (the
corpus of tests/api, which the real server judges alone).
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.corpus import ACTION, BAD, BAD_ACTIONS, FINE, GOOD, spoiled
from cli.mutations import mutations
from lab.kube import ApiError
from lab.lab import ROOT, Lab
from session_rollout.cli.validation import check

API = "sessionrollout.dev/v1alpha1"
LEAST_OBJECTS, LEAST_FIELDS = 300, 0.95

RICH = {
    **GOOD,
    "preflight": [
        *GOOD["preflight"],
        {"name": "up", "http": {"service": "web", "port": 8080, "path": "/health", "expectStatus": 204}},
        {"name": "smoke", "job": {"profile": "smoke"}},
        {"name": "store", "builtin": "FlagStore"},
    ],
    "rollback": {
        **GOOD["rollback"],
        "workload": "Undo",
        "verification": [{"name": "calm", "metric": "errors", "below": "1%"}],
    },
    "notifications": [{"sink": "chat", "events": ["Promoted", "Stalled"]}],
}


def rollout(spec: Any) -> dict[str, Any]:
    return {"apiVersion": API, "kind": "SessionRollout", "metadata": {"name": "validated"}, "spec": spec}


def action(spec: Any) -> dict[str, Any]:
    wanted = {key: value for key, value in {**ACTION, **spec}.items() if value is not None}
    return {"apiVersion": API, "kind": "SessionRolloutAction", "metadata": {"name": "validated-1"}, "spec": wanted}


def objects() -> Iterator[tuple[str, dict[str, Any]]]:
    """The whole corpus."""
    yield from ((name, rollout(spoiled(mistake))) for name, mistake, _ in BAD)
    yield from ((name, rollout(spoiled(change))) for name, change in FINE)
    yield from ((name, action(spec)) for name, spec, _ in BAD_ACTIONS)
    yield from ((name, rollout(spec)) for name, spec in mutations(RICH))
    yield from ((f"action {name}", action(spec)) for name, spec in mutations({**ACTION, "reason": "why", "ttl": "3d"}))


def server_fields(message: str) -> set[str]:
    """The fields that the API server's sentence names."""
    if "unknown field" in message:
        return set(re.findall(r'unknown field "([^"]+)"', message))
    return set(re.findall(r"(?:^|[\[,:] ?)((?:spec|metadata)(?:\.[A-Za-z]+|\[\d+\])*): ", message))


def test_validate_and_the_api_server_agree(lab: Lab) -> None:
    """The same verdict on all; the first field that we name is one the server names in 95 of 100; sentences are counted."""
    counts: Counter[str] = Counter()
    wrong, elsewhere = [], []
    for name, body in objects():
        plural = body["kind"].lower() + "s"
        ours = check(body)
        try:
            lab.kube.create(f"/apis/{API}/namespaces/default/{plural}", body, dryRun="All", fieldValidation="Strict")
            theirs = ""
        except ApiError as error:
            theirs = error.message
        counts["objects"] += 1
        if bool(ours) != bool(theirs):
            wrong.append(f"{name}: ours {[str(one) for one in ours][:2]}, theirs {theirs[:200]}")
        if ours and theirs:
            counts["bad"] += 1
            named = ours[0].field in server_fields(theirs)
            counts["field"] += named
            counts["sentence"] += ours[0].message[:60] in theirs
            if not named:
                elsewhere.append(f"{name}: ours {ours[0]}, theirs {theirs[:200]}")
    print(
        f"{counts['objects']} objects, {counts['bad']} refused by both; the same field {counts['field'] / counts['bad']:.1%},"
    )
    print(f"the same sentence {counts['sentence'] / counts['bad']:.1%}")
    assert not wrong, "\n".join(wrong)
    assert counts["objects"] >= LEAST_OBJECTS
    assert counts["field"] >= LEAST_FIELDS * counts["bad"], "\n".join(elsewhere[:40])


# --- files


def findings(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, list[str], str]:
    """Exit code, lines and the last word of `validate`."""
    from session_rollout.cli.app import app
    from session_rollout.cli.command import code_of

    code = code_of(app, ["validate", *argv])
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err.strip()


def test_line_and_column_of_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the field; of its parent where it is missing."""
    text = (ROOT / "examples" / "minimal.yaml").read_text().replace("percent: 10,", "percent: 500,")
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    line = next(number for number, one in enumerate(text.splitlines(), 1) if "percent: 500" in one)
    column = text.splitlines()[line - 1].index("percent") + 1
    code, lines, said = findings(capsys, str(file))
    assert (code, said) == (1, "kubectl sessionrollout: 2 errors, 0 warnings in 1 object")
    assert lines[0].startswith(f"{file}:{line}:{column}: error: spec.phases[0].steps[0].percent: Invalid value: 500")
    file.write_text(text.replace("percent: 500,", "percent: 10,").replace("flagSet:", "#flagSet:"))
    code, lines, _ = findings(capsys, str(file))
    assert (code, lines[0].split(": ", 1)[1]) == (1, "error: spec.flagSet: Required value")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [1", "is no YAML"),
        (b"a: 1\na: 2\n", ":2:1: `a` is given twice"),
        (b"- a\n- b\n", "is no object, but list"),
        (b"", "holds no object"),
        (b"\xff\xfe\x00", "is no text"),
        (b"&a [*a, *a]", "is no YAML"),
        (b"!!python/object/apply:os.system ['true']", "is no YAML"),
        (b"x: " + b"y" * 10_000_000, "is larger than 1.5 MB"),
        (b"kind: ConfigMap\napiVersion: v1\n", "there is no SessionRollout in these files"),
        (b"kind: SessionRollout\napiVersion: sessionrollout.dev/v9\nmetadata: {name: x}\n", "1 error"),
        (b"kind: Sessionrollout\napiVersion: sessionrollout.dev/v1alpha1\nmetadata: {name: x}\n", "1 error"),
    ],
    ids=["no yaml", "twice", "list", "empty", "binary", "recursive", "python", "ten megabytes", "other", "version", "kind"],
)
def test_rubbish_gets_one_sentence(content: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And exit code 1."""
    file = tmp_path / "rubbish"
    file.write_bytes(content)
    code, _, said = findings(capsys, str(file))
    assert (code, said.count("Traceback"), words in said) == (1, 0, True), said


def test_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong argument."""
    code, _, said = findings(capsys, "/nowhere/x.yaml")
    assert (code, said) == (2, "kubectl sessionrollout: /nowhere/x.yaml: No such file or directory")


ADVICE = [
    ("unused metric", {"metrics": [*GOOD["metrics"], {"name": "idle", "query": "idle"}]}, "idle is used by no criterion"),
    ("no parse", {"metrics": [{"name": "errors", "query": "rate("}, GOOD["metrics"][1]]}, "its PromQL does not parse"),
    ("no guards", {"guards": []}, "nothing will roll back by itself"),
    (
        "guard that cannot fire",
        {"guards": [{"name": "errors", "metric": "errors", "below": "5%", "for": "52w"}]},
        "the guard can never fire",
    ),
    ("long range", {"metrics": [{"name": "errors", "query": "rate(e[2d])"}, GOOD["metrics"][1]]}, "looks back 2d, longer than"),
    ("orphan", {"features": [*GOOD["features"], {"name": "alone"}]}, "alone is in no phase"),
    (
        "migration of no phase",
        {"migrations": [*GOOD["migrations"], {"name": "late", "bundle": "a/b"}]},
        "late is run by no phase",
    ),
    ("undo", {"rollback": {"workload": "Undo"}}, "a GitOps tool that owns the Deployment"),
]


@pytest.mark.parametrize(("change", "words"), [row[1:] for row in ADVICE], ids=[row[0] for row in ADVICE])
def test_advice(change: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is legal but unwise is a warning, and with --strict a refusal."""
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(rollout({**GOOD, **change})))
    code, lines, _ = findings(capsys, str(file), "-o", "json")
    found = json.loads("\n".join(lines))
    assert code == 0
    assert {one["severity"] for one in found if words in one["message"]} == {"warning"}, found
    assert findings(capsys, str(file), "--strict")[0] == 1


def test_steps_without_evidence_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Time alone promotes them."""
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(rollout(spoiled(lambda spec: spec["phases"][0].pop("criteria")))))
    _, lines, _ = findings(capsys, str(file))
    assert any("phase one has no criteria: nothing but guards judges its steps" in line for line in lines)


def test_shipped_examples_are_valid_and_the_programme_is_without_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    """What people copy first."""
    files = [str(path) for path in sorted((ROOT / "examples").rglob("*.yaml")) if "gitops" not in path.parts]
    assert findings(capsys, *files)[0] == 0
    assert findings(capsys, str(ROOT / "examples" / "session-persistence.yaml"), "--strict")[0] == 0
