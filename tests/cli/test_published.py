"""What is published and what is off, whatever the spec says and whatever state the rollout is in (D13, D14, D20).

A kubectl that prints what the test says. Not here: what the operator makes of an emergency (tests/core).
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.fake_kubectl import install
from core.world import World, at, ended, spec
from lab.lab import ROOT
from session_rollout.api.base import sha256_of
from session_rollout.cli.app import app
from session_rollout.cli.command import Exit, code_of
from session_rollout.core.flags import KEY, Audience, FlagSource, compile_document

Object = dict[str, Any]
NOW = datetime.now(UTC)
DISABLED = {"feature": "newCheckout", "reason": "payments fail", "by": "checkout-x7", "time": "2026-01-05T10:00:00Z"}


def rollout(**status: Any) -> Object:
    """The minimal example, whose phase has published `newCheckout` and a feature that has left the spec."""
    body: Object = yaml.safe_load((ROOT / "examples" / "minimal.yaml").read_text())
    body["metadata"] |= {"namespace": "default", "uid": "u", "generation": 1}
    phase = {"name": "checkout", "state": "Running", "percent": "50", "features": ["newCheckout", "oldBanner"]}
    flags = {"configMap": "checkout-flags", "revision": 3}
    return {**body, "status": {"observedGeneration": 1, "phases": [phase], "flags": flags, **status}}


def document(disabled: tuple[str, ...] = ()) -> Object:
    """The ConfigMap with both features, and one that only the document knows."""
    half, whole = Audience(percent=Decimal(50), groups=("beta",)), Audience(percent=Decimal(100))
    audiences = {"newCheckout": half, "oldBanner": half, "forgotten": whole}
    source = FlagSource("checkout", "default", audiences, dict.fromkeys(disabled, "EU"))
    return {"data": {KEY: compile_document(source).text}}


class Plugin:
    """Runs a command with what kubectl prints."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory, self.capsys, self.monkeypatch = directory, capsys, monkeypatch

    def __call__(self, obj: Object, *argv: str, **answers: Object | str) -> tuple[int, str, str]:
        """Exit code, output and errors."""
        self.monkeypatch.setenv("KUBECTL", str(install(self.directory, obj, (), **answers)))
        code = code_of(app, argv)
        shown = self.capsys.readouterr()
        return code, shown.out, shown.err

    def data(self, obj: Object, *argv: str, **answers: Object | str) -> Any:
        """The JSON that a command prints."""
        code, out, err = self(obj, *argv, "-o", "json", **answers)
        assert code == Exit.DONE, err
        return json.loads(out)


@pytest.fixture
def plugin(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Plugin:
    return Plugin(tmp_path, capsys, monkeypatch)


def test_emergency_that_is_not_in_force_is_not_shown_as_one(plugin: Plugin) -> None:
    """The API server refuses the document: users still have the feature, and whoever is on call must know."""
    pending = {**DISABLED, "feature": "newCheckout", "pending": True}
    body = rollout(flags={"configMap": "checkout-flags", "revision": 3, "disabled": [pending]})
    _, tree, _ = plugin(body, "status", "checkout")
    given = body, "flags", "status", "--in", "checkout"
    rows = {row["feature"]: row for row in plugin.data(*given, configmap=document())}
    assert [(row["percent"], row["pending"]) for row in rows.values()] == [("50", True), ("50", False), ("100", False)]
    _, table, _ = plugin(*given, configmap=document())
    assert "off for all users" not in table + tree


def test_flags_status_lists_what_is_published(plugin: Plugin) -> None:
    """D13: a feature that has left the spec, and one that even the status has forgotten; with their emergencies."""
    given = rollout(), "flags", "status", "--in", "checkout"
    rows = {row["feature"]: row for row in plugin.data(*given, configmap=document(("oldBanner",)))}
    assert {name: (row["percent"], row["groups"], row["inSpec"]) for name, row in rows.items()} == {
        "newCheckout": ("50", ["beta"], True),
        "oldBanner": ("0", [], False),
        "forgotten": ("100", [], False),
    }
    assert [rows[name]["disabled"] for name in rows] == ["", "EU", ""]
    _, out, _ = plugin(*given, configmap=document(("oldBanner",)))
    assert [line.split()[0] for line in out.splitlines()] == ["FEATURE", *rows]


def test_flags_status_shows_a_placebo(plugin: Plugin) -> None:
    """And nobody has the feature: an emergency of it is in force at once."""
    source = FlagSource("checkout", "default", {"newCheckout": Audience(placebo=Decimal(5))})
    given = {"configmap": {"data": {KEY: compile_document(source).text}}}
    body = rollout(flags={"configMap": "checkout-flags", "revision": 3, "disabled": [{**DISABLED, "feature": "newCheckout"}]})
    row = plugin.data(body, "flags", "status", "--in", "checkout", **given)[0]
    assert (row["percent"], row["placebo"], row["pending"]) == ("0", "5", False)
    _, out, _ = plugin(rollout(), "flags", "status", "--in", "checkout", **given)
    assert "5% placebo" in out


@pytest.mark.parametrize("answer", ["Error from server (NotFound): x", "Error from server (Forbidden): x"])
def test_flags_status_without_a_document_shows_the_status(plugin: Plugin, answer: str) -> None:
    """D13: before the first publish, and for who may not read it; it says so."""
    code, out, err = plugin(rollout(), "flags", "status", "--in", "checkout", configmap=answer)
    assert (code, len(out.splitlines()), len(err.splitlines())) == (Exit.DONE, 3, 1)


@pytest.mark.parametrize("command", ["emergency-disable", "emergency-enable"])
@pytest.mark.parametrize(
    ("feature", "answer", "sent"),
    [
        ("newCheckout", "Error: unreadable", True),
        ("oldBanner", "Error: unreadable", True),
        ("forgotten", None, True),
        ("typo", None, False),
        ("typo", "Error from server (Forbidden): x", True),
    ],
    ids=["in the spec", "in the status", "in the document", "nowhere", "unknown what is published"],
)
def test_emergency_of_a_published_feature_is_sent(
    plugin: Plugin, command: str, feature: str, answer: str | None, *, sent: bool
) -> None:
    """D13: only a name that is nowhere is refused; what nobody knows is for the operator to decide.

    The answer of this kubectl has no response, so that a command which sends an action ends on its timeout.
    """
    argv = ("flags", command, feature, "-r", "drill", "--in", "checkout", "--timeout", "1ms")
    code, _, err = plugin(rollout(), *argv, configmap=answer or document())
    assert code == (Exit.TIMEOUT if sent else Exit.USAGE), err


def suspended(world: World) -> None:
    world.edit(spec(suspend=True))


def stalled(world: World) -> None:
    world.edit(spec(windows=[{"days": ["Mon"], "from": "10:00", "to": "10:01", "timeZone": "Mars/Olympus"}]))


STATES: dict[str, Callable[[World], Any]] = {
    "Progressing": lambda _: None,
    "Paused": lambda world: world.request("Pause"),
    "suspended": suspended,
    "Stalled": stalled,
    "Promoted": lambda world: world.until(ended, tick=60),
    "RolledBack": lambda world: world.values.update(errors=Decimal(1)),
    "Aborted": lambda world: world.request("Abort"),
}
SHOWING = [("status", "shop"), ("report", "shop"), ("wait", "shop", "--timeout", "1ms"), ("report", "shop", "-o", "html")]


@pytest.mark.usefixtures("prose")
@pytest.mark.parametrize("state", STATES)
def test_emergency_is_shown_in_every_state(plugin: Plugin, state: str) -> None:
    """D14: in MESSAGE, which `get` shows as well, with its feature and with its reason in what is longer; gone with the emergency."""
    world = World(spec())
    if state != "Promoted":
        world.until(at("one", 1))
    else:
        world.until(ended)
    STATES[state](world)
    world.run(60)
    before = shown(plugin, world)
    assert "payments fail" not in before
    world.request("EmergencyDisable", "off-1", features=["alpha"], reason="payments fail")
    world.run(60)
    assert state in {"suspended", world.status.state}
    assert "alpha" in world.status.decision.message
    for argv in SHOWING:
        _, out, err = plugin(as_object(world), *argv)
        assert "alpha" in out + err, (argv, out, err)
    text = shown(plugin, world)
    assert text.count("payments fail") >= 2  # status and report
    world.request("EmergencyEnable", features=["alpha"])
    world.run(20)
    assert "payments fail" not in plugin(as_object(world), "status", "shop")[1]


def as_object(world: World) -> Object:
    """The rollout of a world as kubectl prints it."""
    metadata = {"name": "shop", "namespace": "default", "uid": "u", "generation": world.generation}
    return {"metadata": metadata, "spec": world.spec.to_wire(), "status": world.status.to_wire()}


def shown(plugin: Plugin, world: World) -> str:
    """What `status` and the report print."""
    return "".join(
        plugin(as_object(world), *argv)[1].split("Last decisions")[0] for argv in (("status", "shop"), ("report", "shop"))
    )


AGES = {"long ago": (90, "30d", True), "lately": (3, "30d", False), "lately, asked for": (3, "1d", True)}


@pytest.mark.parametrize(("days", "older", "listed"), AGES.values(), ids=AGES)
def test_feature_of_a_promoted_rollout_is_stale_after_a_time(plugin: Plugin, days: int, older: str, *, listed: bool) -> None:
    """D20: with the time since which all users have it; a feature that has left the spec is listed in any case."""
    end = (NOW - timedelta(days=days)).isoformat()
    phase = {"name": "checkout", "state": "Completed", "percent": "100", "features": ["newCheckout"], "endTime": end}
    gone = {"name": "banner", "state": "Completed", "percent": "100", "features": ["oldBanner"], "endTime": end}
    given = rollout(state="Promoted", outcome="Promoted", phases=[phase, gone])
    rows = plugin.data(given, "flags", "stale", "--in", "checkout", "--older-than", older)
    assert [(row["feature"], row["why"]) for row in rows] == [("newCheckout", "Promoted")] * listed + [
        ("oldBanner", "NotInSpec")
    ]
    assert {row["since"][:10] for row in rows} == {end[:10]}


def test_retired_feature_is_stale(plugin: Plugin) -> None:
    """D20: at once, with what users keep."""
    kept = {"feature": "oldBanner", "percent": "100", "time": NOW.isoformat()}
    given = rollout(state="Promoted", outcome="Promoted", phases=[], flags={"retired": [kept]})
    [row] = plugin.data(given, "flags", "stale", "--in", "checkout")
    assert (row["feature"], row["why"], row["audience"]) == ("oldBanner", "Retired", "100%")


def test_feature_that_is_off_or_not_everywhere_is_not_stale(plugin: Plugin) -> None:
    """D20: the code without it is in use."""
    phase = {
        "name": "checkout",
        "state": "Completed",
        "percent": "100",
        "features": ["newCheckout"],
        "endTime": DISABLED["time"],
    }
    promoted = {"state": "Promoted", "outcome": "Promoted"}
    in_emergency = rollout(**promoted, phases=[phase], flags={"disabled": [DISABLED]})
    assert plugin.data(in_emergency, "flags", "stale", "--in", "checkout") == []
    partly = rollout(**promoted, phases=[{**phase, "percent": "50"}])
    assert plugin.data(partly, "flags", "stale", "--in", "checkout") == []
    running = rollout(state="Progressing", phases=[phase])
    assert plugin.data(running, "flags", "stale", "--in", "checkout") == []
    both = plugin(running, "flags", "stale", "--in", "checkout", "-A")
    assert both[0] == Exit.USAGE


def test_stale_features_of_a_namespace(plugin: Plugin) -> None:
    """D20: all rollouts, as a table; one sentence when there is nothing to report."""
    phase = {
        "name": "checkout",
        "state": "Completed",
        "percent": "100",
        "features": ["newCheckout"],
        "endTime": DISABLED["time"],
    }
    done = rollout(state="Promoted", outcome="Promoted", phases=[phase])
    code, out, _ = plugin({"items": [done, rollout(phases=[])]}, "flags", "stale", "-A")
    assert (code, len(out.splitlines())) == (Exit.DONE, 2)
    assert "2026-01-05" in out
    code, out, _ = plugin({"items": [rollout(phases=[])]}, "flags", "stale")
    assert (code, out) == (Exit.DONE, "no stale features in 1 rollout\n")


def test_document_that_is_held_back_is_not_called_an_edit(plugin: Plugin) -> None:
    """The cluster has what was published last; the next one waits, and the decision says for what."""
    there, held_back, edited = document(), document(("newCheckout",)), document(("newCheckout", "oldBanner"))
    now, following = (sha256_of(each["data"][KEY]) for each in (there, held_back))
    flags = {"configMap": "checkout-flags", "revision": 3, "sha256": following, "publishedSha256": now}
    why = {"action": "Stall", "reason": "RequestRefused", "message": "the API server refuses the document"}
    body = rollout(flags=flags, decision=why)
    given = "flags", "verify", "--users", "5", "--in", "checkout"
    for found, says_why in ((there, True), (edited, False)):
        code, _, message = plugin(body, *given, configmap=found)
        assert (code, why["message"] in message) == (Exit.REFUSED, says_why)
