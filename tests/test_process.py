"""The operator's process against an API server that misbehaves: it ends with one line and a code, in time, or does not end at all."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.lab import ROOT, until
from lab.processes import free_port
from misbehaving_api import MisbehavingApi, misbehaving_api

WATCHES = 4
END_SECONDS = 5.0  # after a signal, as README and chart promise


@pytest.fixture
def api() -> Iterator[MisbehavingApi]:
    """An API server."""
    with misbehaving_api() as server:
        yield server


class Operator:
    """One process."""

    def __init__(self, api: MisbehavingApi, directory: Path, name: str = "session-rollout-0") -> None:
        config = directory / "operator.yaml"
        config.write_text("{}")
        self.port, self.log = free_port(), directory / f"{name}.log"
        environment = {
            **os.environ,
            "KUBECONFIG": str(api.kubeconfig(directory)),
            "POD_NAME": name,
            "SESSION_ROLLOUT_PORT": str(self.port),
            "PYTHONPATH": str(ROOT / "operator"),
        }
        argv = [sys.executable, "-m", "session_rollout.main", "--config", str(config)]
        with self.log.open("wb") as sink:
            self.popen = subprocess.Popen(argv, env=environment, stdout=sink, stderr=subprocess.STDOUT)

    def probe(self, path: str) -> str:
        """What a probe is answered; empty while nothing listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=30) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def leads(self) -> None:
        """Wait until it leads."""
        until(lambda: self.probe("readyz") == "ok", 60, "readiness")

    def ends(self, seconds: float) -> int:
        """Its exit code."""
        return self.popen.wait(seconds)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its log: each line is JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def running(api: MisbehavingApi, directory: Path, name: str = "session-rollout-0") -> Iterator[Operator]:
    """An operator process."""
    operator = Operator(api, directory, name)
    try:
        yield operator
    finally:
        operator.popen.kill()
        operator.popen.wait()


@pytest.mark.parametrize(
    ("code", "watch"),
    [
        (200, b'{"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcd is gone"}}\n'),
        (200, b""),
        (404, b"<html>404 page not found</html>"),
    ],
    ids=["error", "empty", "page"],
)
def test_watch_that_is_none_is_requested_again(api: MisbehavingApi, tmp_path: Path, code: int, watch: bytes) -> None:
    """R15: a process that ended each time would wait longer and longer for the kubelet, and protect nobody meanwhile."""
    api.watch_code, api.watch = code, watch
    with running(api, tmp_path) as operator:
        until(lambda: len(api.watches) == WATCHES and min(api.watches.values()) >= 3, 60, "three requests of each watch")
        assert max(api.watches.values()) < 20, "with growing pauses"
        api.watch_code, api.watch = 200, None
        until(lambda: api.waiting == WATCHES, 40, "watches that work")
        assert operator.popen.poll() is None
        assert operator.probe("healthz") == "ok"
    warned = [line for line in operator.lines if line["level"] != "INFO"]
    assert len(warned) == WATCHES, "once for each"
    assert {line["level"] for line in warned} == {"WARNING"}


@pytest.mark.parametrize(("path", "code"), [("/apis", 200), ("/apis/batch/v1", 404), ("jobs", 410), ("sessionrollouts", 200)])
def test_list_that_is_none_is_requested_again(api: MisbehavingApi, tmp_path: Path, path: str, code: int) -> None:
    """R15: also those with which Kopf finds out what the API server has."""
    api.code, api.page, api.whole = code, path, path.startswith("/")
    with running(api, tmp_path) as operator:
        until(lambda: api.pages >= 2, 60, "two pages")
        api.page = None
        operator.leads()
        until(lambda: api.waiting == WATCHES, 40, "watches that work")
        assert operator.popen.poll() is None


def test_page_instead_of_the_lease_ends_nothing(api: MisbehavingApi, tmp_path: Path) -> None:
    """R2: a proxy answers 200 with HTML; renewal continues when it is over."""
    with running(api, tmp_path) as operator:
        operator.leads()
        api.page = "/leases"
        until(lambda: api.pages >= 2, 15, "two pages")
        api.page = None
        renewals = api.renewals
        until(lambda: api.renewals > renewals, 15, "a renewal")
        assert operator.probe("healthz") == "ok"
        assert operator.popen.poll() is None


def test_page_instead_of_the_lists_ends_nothing(api: MisbehavingApi, tmp_path: Path) -> None:
    """R2: the sweep fails, and sweeps again."""
    with running(api, tmp_path) as operator:
        operator.leads()
        until(lambda: api.waiting == WATCHES, 15, "Kopf's watches: a list of its own that is a page ends the process")
        api.page = "sessionrolloutactions"
        until(lambda: api.pages, 40, "a sweep")
        api.page = None
        assert operator.popen.poll() is None
        assert operator.probe("healthz") == "ok"


@pytest.mark.parametrize("role", ["leader", "standby", "starting"])
def test_signal_ends_the_process_whatever_hangs(api: MisbehavingApi, tmp_path: Path, role: str) -> None:
    """The API server hangs on every request: also on the release of the Lease."""
    if role == "standby":
        api.lease = {"metadata": {"name": "session-rollout", "resourceVersion": "1"}, "spec": {"holderIdentity": "another"}}
    api.hangs = role == "starting"
    with running(api, tmp_path) as operator:
        match role:
            case "leader":
                operator.leads()
            case "standby":
                until(lambda: "another" in operator.probe("readyz"), 30, "standing by")
        api.hangs = True
        before = api.waiting
        until(lambda: api.waiting > before or role == "starting", 15, "a request that hangs")
        begun = time.monotonic()
        operator.popen.send_signal(signal.SIGTERM)
        operator.ends(END_SECONDS)
        assert time.monotonic() - begun < END_SECONDS
    assert [line for line in operator.lines if line["level"] == "CRITICAL"] == []


@pytest.mark.parametrize("hangs_at", [None, "/apis/batch", "/jobs"], ids=["leading", "discovering", "listing"])
def test_signal_releases_the_lease(api: MisbehavingApi, tmp_path: Path, hangs_at: str | None) -> None:
    """The end is an orderly one, and quick, also while Kopf still asks what the API server has."""
    api.hangs_at = hangs_at
    with running(api, tmp_path) as operator:
        operator.leads() if hangs_at is None else until(lambda: api.waiting, 60, "a request that hangs")
        begun = time.monotonic()
        operator.popen.send_signal(signal.SIGTERM)
        assert operator.ends(END_SECONDS) == 0
        assert time.monotonic() - begun < END_SECONDS
    assert api.lease is not None
    assert api.lease["spec"]["holderIdentity"] == ""
