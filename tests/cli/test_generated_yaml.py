"""R5: hostile YAML ends every command that reads a file with one sentence, a documented exit code, and soon.

`make fuzz-yaml SECONDS=600` goes on for as long and prints what it did. Not here: PromQL, and objects that are accepted
(test_generated).
"""

import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from cli.hostile_yaml import hostile
from cli.test_generated import run
from session_rollout.adapters.kubectl import Call, FailureKind, Kubectl, KubectlFailed
from session_rollout.cli.command import Exit

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
