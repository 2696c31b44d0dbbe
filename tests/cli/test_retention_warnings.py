"""`validate` with a server that forgets the seasons that a rollout needs. Of a real Prometheus: integration/test_seasons."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.providers import Handler, answering
from core.world import spec
from session_rollout.cli.app import app
from session_rollout.cli.command import code_of
from session_rollout.cli.warnings_retention import WarnRetention

LOAD = {"metric": "load", "comparedTo": "Baseline"}
GUARD = {"name": "load", **LOAD, "maxIncrease": "15%", "for": "5m"}
PHASE = {
    "name": "one",
    "features": ["alpha"],
    "steps": [{"percent": 50, "hold": "1d"}, {"percent": 100, "hold": "2d"}],
    "criteria": [{"name": "load", **LOAD, "maxIncrease": "15%"}],
}
CHANGES: dict[str, Any] = {
    "features": [{"name": "alpha"}],
    "metrics": [{"name": "load", "query": "load"}],
    "phases": [PHASE],
    "guards": [],
    "bake": "1d",
}
ENOUGH = "17d30m"  # three days, two weeks, and the window


class Retention(Handler):
    """A Prometheus without samples, that says how long it keeps them."""

    said: bytes

    def do_GET(self) -> None:
        empty = {"status": "success", "data": {"resultType": "matrix", "result": []}}
        self.server.body = type(self).said if self.path.startswith("/api/v1/status/runtimeinfo") else json.dumps(empty).encode()
        super().do_GET()


def information(retention: str) -> bytes:
    """What Prometheus says about itself, as far as it is read."""
    return json.dumps({"status": "success", "data": {"storageRetention": retention, "goroutineCount": 31}}).encode()


@pytest.fixture
def warned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """The fields that are warned of."""

    def run(said: bytes, **changes: Any) -> list[str]:
        head = {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRollout", "metadata": {"name": "shop"}}
        file = tmp_path / "shop.yaml"
        file.write_text(yaml.safe_dump({**head, "spec": spec(**{**CHANGES, **changes}).to_wire()}))
        with answering(handler=type("Known", (Retention,), {"said": said})) as server:
            code_of(app, ["validate", str(file), "--prometheus", f"http://127.0.0.1:{server.server_port}", "-o", "json"])
        printed = json.loads(capsys.readouterr().out)
        return [each["field"] for each in printed if each["rule"] == WarnRetention.SHORT_RETENTION]

    return run


@pytest.mark.parametrize(
    ("retention", "guards", "is_short"),
    [
        ("15d", [], True),
        ("15d or 512MiB", [], True),
        ("17d29m", [], True),
        (ENOUGH, [], False),
        (ENOUGH, [GUARD], True),  # it is evaluated in the bake as well
        ("18d30m", [GUARD], False),
        ("1y", [GUARD], False),
        ("2w3d30m", [], False),
    ],
)
def test_a_phase_and_two_seasons_are_needed(
    warned: Callable[..., list[str]], retention: str, guards: list[object], *, is_short: bool
) -> None:
    assert warned(information(retention), guards=guards) == ["spec.metrics[0]"] * is_short


@pytest.mark.parametrize(
    "said", [b"", b"404 page not found", information(""), information("long"), b'{"status":"success","data":[]}']
)
def test_a_server_that_does_not_say_is_not_warned_of(warned: Callable[..., list[str]], said: bytes) -> None:
    assert warned(said) == []


def test_what_has_no_seasons_needs_no_retention(warned: Callable[..., list[str]]) -> None:
    unseasoned = [{"name": "load", "query": "load", "baseline": {"count": 0}}]
    assert warned(information("1h"), metrics=unseasoned) == []
    bounded = [{"name": "load", "metric": "load", "below": "5"}]
    assert warned(information("1h"), phases=[{**PHASE, "criteria": bounded}]) == []
