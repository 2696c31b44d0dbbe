"""Output that the encoding of the terminal does not have: halves of surrogate pairs, and characters that a locale lacks.

The plugin runs as a process of its own, because it is its standard output that cannot encode them. Not here: YAML
(test_generated_yaml).
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.fake_kubectl import install
from lab.lab import ROOT
from session_rollout.cli.command import Exit
from session_rollout.core.flags import KEY, Audience, FlagSource, compile_document

HALF = "\ud800"


def run(*argv: str | bytes, **environment: str) -> tuple[int, str, str]:
    """Exit code, output and errors of the plugin."""
    command = [sys.executable, "-m", "session_rollout.cli.app", *argv]
    where = {**os.environ, "PYTHONPATH": "operator", **environment}
    done = subprocess.run(command, env=where, capture_output=True, timeout=60, check=False)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err, err
    return done.returncode, out, err


def rollout() -> dict[str, Any]:
    """The minimal example, as kubectl prints it."""
    body: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "minimal.yaml").read_text())
    body["metadata"] |= {"namespace": "default", "uid": "u", "generation": 1}
    return {**body, "status": {"observedGeneration": 1, "flags": {"configMap": "checkout-flags", "revision": 3}}}


def edited(directory: Path) -> str:
    """A kubectl with an emergency whose reason somebody edited by hand in the flag document."""
    source = FlagSource("checkout", "default", {"newCheckout": Audience()}, {"newCheckout": "EU"})
    document = json.loads(compile_document(source).text)
    document["flags"]["newCheckout"]["metadata"]["reason"] = HALF
    return str(install(directory, rollout(), configmap={"data": {KEY: json.dumps(document)}}))


@pytest.mark.parametrize("form", [(), ("-o", "json"), ("-o", "yaml")], ids=["text", "json", "yaml"])
@pytest.mark.parametrize("command", [("status",), ("who", "u")], ids=["status", "who"])
def test_half_of_a_surrogate_pair_in_a_flag_document(tmp_path: Path, command: tuple[str, ...], form: tuple[str, ...]) -> None:
    """Whoever may edit the ConfigMap may write any JSON into it."""
    code, out, err = run("flags", *command, "--in", "checkout", *form, KUBECTL=edited(tmp_path))
    assert (code, "newCheckout" in out) == (Exit.DONE, True), err
    if form == ("-o", "json"):
        assert json.loads(out)[0]["feature"] == "newCheckout"


def test_file_name_that_is_not_text(tmp_path: Path) -> None:
    """`validate` prints it with every problem, on standard output."""
    file = os.fsencode(tmp_path) + b"/\xff.yaml"
    Path(os.fsdecode(file)).write_text("kind: SessionRollout")
    code, out, err = run("validate", file)
    assert (code, "\\udcff.yaml:1:1: error" in out) == (Exit.REFUSED, True), (out, err)


def test_locale_without_the_characters_of_a_table(tmp_path: Path) -> None:
    """An escape instead of a check mark is better than a traceback."""
    code, out, err = run("status", "checkout", KUBECTL=str(install(tmp_path, rollout())), PYTHONIOENCODING="ascii")
    assert code == Exit.DONE, err
    assert out.isascii()
    assert "\\u25b6 flags" in out
