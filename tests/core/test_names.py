"""Every name that admission accepts works, at its greatest length and with dots where it may have them (D25).

Not here: which names the API server refuses (tests/cli/test_validate.py compares), the same with a real operator (tests/cli).
"""

import copy
import json
import re
from typing import Any

import pytest

from core.collecting import DATABASE, WEB
from core.world import World, at, ended, rollout_data, spec
from session_rollout.api.base import FEATURE_PATTERN
from session_rollout.api.enums import ActionReason
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.observed import Revisions
from session_rollout.simulation.rehearsal import Scenario, rehearse

DOTTED = ("shop.cart.v2", "a.b", "F" + "." * 42 + "x")
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def long_name(start: str, length: int = 63) -> str:
    """A name of the greatest length; without its last characters it ends with a dash."""
    return f"{start}{'-x' * length}"[: length - 1] + "z"


ACTION = ".".join(["team-a", "x" * 63, "y" * 63, "z" * 63, "w" * 40])  # of an action, which may have dots


def named() -> RolloutSpec:
    """The rollout of the tests with the longest names everywhere, dots in its features, a migration and every gate."""
    data: dict[str, Any] = copy.deepcopy(rollout_data(**DATABASE, **WEB, flagSet=long_name("set", 57)))
    data["features"] = [{"name": DOTTED[0]}, {"name": DOTTED[1], "dependsOn": [DOTTED[0]]}, {"name": DOTTED[2]}]
    data["metrics"] = [{"name": long_name(metric), "query": metric} for metric in ("errors", "load")]
    data["migrations"] = [{"name": long_name("rows"), "bundle": "a/rows", "change": "Migrate", "backup": True}]
    first, second = data["phases"]
    first |= {"name": long_name("first"), "features": list(DOTTED[:2]), "migrations": {"before": [long_name("rows")]}}
    first["verification"] = [{"name": long_name("job"), "job": {"profile": long_name("smoke")}}]
    second |= {"name": long_name("second"), "features": [DOTTED[2]]}
    for check in (*first["criteria"], *second["criteria"], *data["guards"]):
        check |= {"name": long_name(check["name"]), "metric": long_name(check["metric"])}
    for step in first["steps"]:
        step["groups"] = [long_name("staff")]
    return RolloutSpec.model_validate(data)


def world() -> World:
    values = {long_name(name): value for name, value in World(spec()).values.items()}
    made = World(named(), name=long_name("shop"), namespace=long_name("team"), values=values, progress={"done": 1, "total": 1})
    made.revisions = Revisions(2, 1)
    return made


def test_rollout_with_the_longest_names_ends() -> None:
    """D25: names of Jobs are labels, the ConfigMap is one, and every flag has its name."""
    shop = world()
    shop.until(ended)
    assert shop.status.outcome == "Promoted"
    assert len(shop.jobs) >= 3
    assert [name for name in shop.jobs if not LABEL.fullmatch(name)] == []
    assert LABEL.fullmatch(shop.status.flags.config_map or "")
    assert set(DOTTED) <= set(json.loads(shop.documents[-1])["flags"])


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("Pause", {}),
    ("Resume", {}),
    ("Approve", {"generation": 1, "phase": long_name("first"), "step": 1}),
    ("EmergencyDisable", {"features": DOTTED}),
    ("EmergencyEnable", {"features": DOTTED}),
    ("BackupData", {"migration": long_name("rows")}),
    ("RestoreData", {"migration": long_name("rows")}),
    ("RestartWorkload", {}),
    ("Promote", {"generation": 1, "phase": long_name("first"), "step": 1}),
    ("Abort", {}),
    ("Retry", {"generation": 1}),
]


def test_actions_with_the_longest_name_are_carried_out() -> None:
    """D25: each of 253 characters with dots; what it changes names it in full, and a status of them all is valid."""
    shop = world()
    shop.spec = RolloutSpec.model_validate(_waiting(shop.spec.to_wire()))
    shop.until(at(long_name("first"), 1))
    for number, (action, fields) in enumerate(REQUESTS):
        name = f"{ACTION}{number:0{253 - len(ACTION)}}"
        assert len(name) == 253
        shop.request(action, name, uid=f"uid-{number}", **fields)
        shop.run(30)
        assert shop.answer(name) == (True, ActionReason.ACCEPTED), (action, shop.answers[name].message)
    assert {entry.by for entry in shop.history if entry.by} >= {f"{ACTION}{3:0{253 - len(ACTION)}}"}


def _waiting(data: dict[str, Any]) -> dict[str, Any]:
    """The first step is long, and requires approval."""
    data["phases"][0]["steps"][0] |= {"approval": "Required", "hold": "1d"}
    return data


def test_snapshots_of_two_actions_are_two() -> None:
    """D25: also if their names begin alike, or if a name is used again after its action has expired."""
    shop, labels = world(), set()
    shop.until(at(long_name("first"), 1))
    for name, uid in ((f"{ACTION}.1", "11111111-2222-3333-4444-555555555551"), (f"{ACTION}.2", "2"), (f"{ACTION}.2", "3")):
        shop.request("BackupData", name, uid=uid, migration=long_name("rows"))
        shop.reconcile()
        labels.add(shop.migration(long_name("rows")).arguments)
        shop.run(30)
        del shop.answers[name]
    assert len(labels) == 3


@pytest.mark.parametrize("name", [*DOTTED, "a" * 44, "A-b_c.d"])
def test_names_of_features_that_admission_accepts(name: str) -> None:
    """D25: with dots, dashes and underscores, up to 44 characters, as JSON keys and as names of a flag."""
    assert re.fullmatch(FEATURE_PATTERN, name)


def test_rehearsal_has_the_longest_names() -> None:
    """D25: `rehearse` and `explain` run the same code."""
    assert rehearse(named(), Scenario(), long_name("shop")).status.outcome == "Promoted"
