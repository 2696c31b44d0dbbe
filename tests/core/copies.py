"""A rollout whose first phase copies rows, and what its Jobs did."""

from typing import Any

from core.collecting import DATABASE, SIGNED
from core.world import World, rollout_data, spec
from session_rollout.api.rollout import RolloutSpec


def copy_of(bundle: str = "a/rows", **changes: Any) -> RolloutSpec:
    """A rollout whose first phase copies the rows of a bundle, with a snapshot, after a preflight that requires approval."""
    phases = rollout_data()["phases"]
    migrations = [{"name": "rows", "bundle": bundle, "change": "Migrate", "backup": True}]
    first = {**phases[0], "migrations": {"before": ["rows"]}}
    return spec(**{**DATABASE, "preflight": SIGNED, "migrations": migrations, "phases": [first, phases[1]], **changes})


def approve(world: World) -> None:
    """Let the preflight pass."""
    world.request("Approve", generation=world.generation, check="signed")
    world.settle()


def changes_of(world: World) -> list[str]:
    """The `up` and `down` Jobs so far, in order."""
    return [name for name in world.jobs if {"up", "down"} & set(name.split("-"))]
