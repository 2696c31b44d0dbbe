"""R5: hostile YAML ends every command that reads a file with one sentence, a documented exit code, and soon.

`make fuzz-yaml SECONDS=600` goes on for as long and prints what it did. Not here: PromQL, and objects that are accepted
(test_generated).
"""

import json
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from cli.hostile_yaml import hostile
from cli.test_generated import run
from session_rollout.adapters.kubectl import Call, FailureKind, Kubectl, KubectlFailed
from session_rollout.cli.command import Exit
from session_rollout.cli.validate import read_rollout_file

FILES: Final = int(os.environ.get("FUZZ_YAML_FILES", "250"))
SECONDS: Final = float(os.environ.get("FUZZ_YAML_SECONDS", "0"))
SEED: Final = int(os.environ.get("GENERATED_SEED", "0"))
SLOWEST: Final = 10  # seconds of this process for one file
COMMANDS: Final = (("validate",), ("validate", "-o", "json"), ("diff",), ("rehearse",), ("rehearse", "{good}", "--scenario"))
CODES: Final = {Exit.DONE, Exit.REFUSED, Exit.USAGE}


def nothing(*_: Any, **__: Any) -> Call:
    raise KubectlFailed(FailureKind.NOT_FOUND, "not found")


def test_hostile_files_end_with_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All commands that read one."""
    monkeypatch.setattr(Kubectl, "ask", nothing)
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(Path("examples/minimal.yaml").read_text())
    counts: Counter[str] = Counter()
    started, number, slowest = time.monotonic(), 0, 0.0
    while number < FILES or time.monotonic() - started < SECONDS:
        source = random.Random(f"{SEED}/{number}")
        bad.write_bytes(hostile(source))
        command = source.choice(COMMANDS)
        before = time.process_time()
        code, printed = run(*(part.format(good=good) for part in command), str(bad))
        took = time.process_time() - before
        assert code in CODES, (number, printed)
        assert code == Exit.DONE or printed.strip(), number
        assert took < SLOWEST, (number, command, took)
        counts[Exit(code).name] += 1
        number, slowest = number + 1, max(slowest, took)
    took = time.monotonic() - started
    print(f"{number:,} files in {took:.0f} s: {dict(counts)}; the slowest took {slowest:.1f} s")
    assert counts[Exit.REFUSED.name] > 0.3 * number


UNREADABLE: Final = {
    "a time by its tag": ("!!timestamp x", ":1:1: invalid YAML: could not determine a constructor"),
    "a set": ("a: !!set {b, c}", ":1:4: invalid YAML: could not determine a constructor"),
    "a pair list": ("a: !!omap [b: 1]", ":1:4: invalid YAML: could not determine a constructor"),
    "bytes": ("a: !!binary aGk=", ":1:4: invalid YAML: could not determine a constructor"),
    "a truth that is none": ("a: !!bool maybe", ":1:4: invalid YAML: cannot be read as bool"),
    "a number without digits": ("a:\n  b: !!int ''", ":2:6: invalid YAML: cannot be read as int"),
    "infinity": ("a: .inf", ":1:4: invalid YAML: cannot be read as float"),
    "5,000 digits": ("a: " + "9" * 5000, ":1:4: invalid YAML: cannot be read as int"),
    "5,000 hexadecimal digits": ("a: 0x" + "f" * 5000, ":1:4: invalid YAML: cannot be read as int"),
    "half a surrogate pair": ('a: "\\ud800"', ":1:4: invalid YAML: contains half of a surrogate pair"),
    "half a surrogate pair as a key": ('{"\\ud800": 1}', ":1:2: invalid YAML: contains half of a surrogate pair"),
    "half a surrogate pair as a key, twice": ('{"\\ud800": 1, "\\ud800": 2}', ":1:2: invalid YAML: contains half"),
    "a key twice, once escaped": ('{"\\ud835\\udd4f": 1, "\U0001d54f": 2}', ":1:21: duplicate key `\U0001d54f`"),
    "an escape beyond Unicode": ('a: "\\UFFFFFFFF"', ": invalid YAML: "),
    "depth": ("[" * 5000 + "]" * 5000, ": invalid YAML: maximum recursion depth exceeded"),
}


@pytest.mark.parametrize(("text", "sentence"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_no_object_can_contain_is_refused_at_its_place(text: str, sentence: str, tmp_path: Path) -> None:
    """Each was a traceback, or would be one in what reads the object next."""
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    code, printed = run("validate", str(file))
    assert code == Exit.REFUSED
    assert printed.startswith(f"kubectl sessionrollout: {file}{sentence}"), printed


def test_unset_fields_times_and_escaped_pairs_are_read_as_kubectl_reads_them(tmp_path: Path) -> None:
    """A null is no field; a time is its text; two escapes of JSON are one character."""
    text = Path("examples/minimal.yaml").read_text()
    spec = yaml.safe_load(text)["spec"]
    spec["guards"], spec["phases"][0]["deadline"] = None, None
    spec["metrics"][0]["query"] = "a{b='\U0001d54f'}"
    body = {**yaml.safe_load(text), "spec": spec, "metadata": {"name": "a", "annotations": {"day": "DAY"}}}
    file = tmp_path / "good.json"
    file.write_text(json.dumps(body).replace('"DAY"', "2026-01-05"))
    assert run("validate", str(file))[0] == Exit.DONE
    source = read_rollout_file(str(file))
    assert source.spec.metrics[0].query == "a{b='\U0001d54f'}"
    assert source.document.data["metadata"]["annotations"] == {"day": "2026-01-05"}
    assert source.spec.guards == ()
