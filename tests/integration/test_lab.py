"""The lab cleans up after itself: whatever ends it, no process is left, and no directory but after SIGKILL.

Needs a lab of its own, so it is among the slower tests.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lab.lab import ROOT, Lab, until
from lab.processes import StartFailed


def running(directory: Path) -> list[str]:
    """Command lines of processes that belong to a lab."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(directory) in line:
            found.append(line)
    return found


def start() -> tuple[subprocess.Popen[str], Path]:
    """`make lab`, once it has said where it is; its process and its directory."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT / 'tests'}"}
    process = subprocess.Popen(
        [sys.executable, "-m", "lab"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.search(r"KUBECONFIG=(\S+?)/cluster/", line)
    assert match is not None, line
    return process, Path(match[1])


@pytest.mark.lab
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind(number: signal.Signals) -> None:
    """Neither by a polite end, nor by Ctrl-C, nor by a kill."""
    process, directory = start()
    try:
        assert len(running(directory)) >= 5
        process.send_signal(number)
        process.wait(30)
        until(lambda: not running(directory), 10, "the end of every process of the lab")
    finally:
        process.kill()
        process.communicate()
    assert running(directory) == []
    if number is not signal.SIGKILL:
        assert not directory.exists()


@pytest.mark.lab
def test_a_failed_start_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that does not come up ends the others."""
    broken = Lab(database=False)
    monkeypatch.setattr("lab.sources.prometheus", lambda: "/bin/false")
    with pytest.raises(StartFailed, match="prometheus ended with 1"), broken:
        pass
    assert running(broken.directory) == []
    assert not broken.directory.exists()
