"""A migration and its phase: nothing is undone under users.

Not here: what counts as applied (test_migration_states).
"""

from typing import Any, Final

import pytest

from core.collecting import FIGURES
from core.copies import approve, copy_of
from core.world import World, at, ended
from session_rollout.api.enums import ActionReason, Outcome
from session_rollout.core.observed import Revisions

# --- users of a phase


UNDOING: Final[dict[str, dict[str, Any]]] = {
    "migrations": {"migrations": "Down"},
    "data": {"restoreData": True},
    "workload": {"workload": "Undo"},
}


@pytest.mark.parametrize("options", UNDOING.values(), ids=UNDOING)
def test_rollback_by_one_step_undoes_nothing_under_users(options: dict[str, Any]) -> None:
    """They keep the feature, so they need its schema, its rows and its release; a rollback that turns it off undoes them."""
    rolled_back = {**options, "scope": "Step"}
    web: dict[str, Any] = {"workload": {"kind": "Deployment", "name": "web"}}
    for step, left in ((2, 1), (1, 0)):
        world = World(copy_of(rollback=rolled_back, **web), progress=FIGURES, revisions=Revisions(2, 1))
        world.settle()
        approve(world)
        world.until(at("one", step, step - 1))
        before = list(world.jobs)
        world.request("Abort")
        world.until(ended)
        undone = len(world.jobs) - len(before) + len(world.undone)
        assert (world.percents()["one"] != "0", undone) == (bool(left), 1 - left)


def test_migration_of_a_complete_phase_is_not_undone_under_its_users() -> None:
    """A later phase was aborted: the first one is not rolled back, and a retry is promoted with its migration."""
    world = World(copy_of(), progress=FIGURES)
    world.settle()
    approve(world)
    world.until(at("two", 1))
    world.request("Abort")
    world.until(ended)
    name = world.request("MigrateDown", migration="rows")
    world.run(20)
    assert world.answer(name) == (False, ActionReason.PHASE_NOT_ROLLED_BACK)
    world.request("Retry", generation=1)
    world.settle()
    approve(world)
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED
    assert world.migration("rows").is_applied


def test_rollback_by_one_step_keeps_migrations_from_an_action() -> None:
    """Users still have the features of the phase that was rolled back."""
    world = World(copy_of(rollback={"scope": "Step"}), progress=FIGURES)
    world.settle()
    approve(world)
    world.until(at("one", 2, 1))
    world.request("Abort")
    world.until(ended)
    name = world.request("MigrateDown", migration="rows")
    world.run(20)
    assert world.answer(name) == (False, ActionReason.PHASE_NOT_ROLLED_BACK)
    assert world.migration("rows").is_applied
