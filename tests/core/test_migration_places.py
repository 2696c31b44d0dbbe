"""A migration and its phase: nothing is undone under users, and no bundle is added where its place is over.

Not here: what counts as applied (test_migration_states).
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import pytest

from core.collecting import FIGURES, with_delta
from core.copies import approve, changes_of, copy_of
from core.world import World, at, ended, rollout_data
from session_rollout.api.enums import ActionReason, DecisionReason, Outcome, Stage
from session_rollout.api.migration_enums import MigrationState, Operation
from session_rollout.core.flags import Audience
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


def _without_beta(data: dict[str, Any]) -> dict[str, Any]:
    """Beta has left its phase, and users keep it; one more phase follows."""
    with_delta(data)
    data["features"][1] = {"name": "beta", "retired": True}
    data["phases"][0] = {**data["phases"][0], "features": ["alpha"], "migrations": {"before": ["rows"]}}
    return {name: data[name] for name in ("features", "phases")}


@pytest.mark.parametrize("option", ["Down", "Keep"])
def test_migration_is_not_undone_under_users_of_a_retired_feature(option: str) -> None:
    """Not even the scope All turns it off, and it needs what its phase has brought."""
    world = World(copy_of(), progress=FIGURES)
    world.settle()
    approve(world)
    world.until(ended)
    before = list(world.jobs)
    world.edit(copy_of(**_without_beta(rollout_data()), rollback={"scope": "All", "migrations": option}))
    approve(world)
    world.until(at("delta", 1))
    world.request("Abort")
    world.until(ended)
    assert set(world.percents().values()) == {"0"}
    name = world.request("MigrateDown", migration="rows")
    world.run(20)
    assert world.answer(name) == (False, ActionReason.PHASE_NOT_ROLLED_BACK)
    assert (list(world.jobs), world.migration("rows").is_applied) == (before, True)
    assert world.document is not None
    assert world.document.audiences["beta"] == Audience(Decimal(100), ("staff",))


# --- another bundle at a place that is over

PLACES: Final = {
    "in a step": at("one", 2, 1),
    "in the next phase": at("two", 1),
    "in the bake": lambda world: world.status.current.stage is Stage.BAKE,
    "after the promotion": ended,
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("where", ["bundle", "configMapRef"])
def test_another_bundle_at_a_place_that_is_over_stalls(place: Callable[[World], bool], where: str) -> None:
    """It would never run; the sentence names the field, what was found and what is allowed. The old bundle ends the stall."""
    world = World(copy_of(bake="60s"), progress=FIGURES)
    world.settle()
    approve(world)
    world.until(place)
    before = changes_of(world)
    other: dict[str, Any] = {"bundle": "a/rows-fixed"} if where == "bundle" else {"configMapRef": {"name": "a-rows-fixed"}}
    world.edit(copy_of(bake="60s", migrations=[{"name": "rows", "change": "Migrate", "backup": True, **other}]))
    world.run(60)
    assert (world.reason, world.condition("SpecValid")) == (DecisionReason.INVALID_SPEC, "False")
    message = world.status.decision.details[0]
    assert not [
        word for word in (f"`migrations[].{where}` of rows", "rows-fixed", "restore it", "a later phase") if word not in message
    ]
    world.edit(copy_of(bake="60s"))
    world.settle()
    approve(world)
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED
    assert changes_of(world) == before


def test_undone_migration_at_a_place_that_is_over_stalls() -> None:
    """A status from before this rule, or edited by hand: the rollout is not promoted without its migration."""
    world = World(copy_of(), progress=FIGURES)
    world.settle()
    approve(world)
    world.until(at("two", 1))
    undone = world.migration("rows").updated(state=MigrationState.REVERTED, operation=Operation.DOWN)
    world.status = world.status.updated(migrations=(undone,))
    world.run(300)
    assert world.reason is DecisionReason.INVALID_SPEC
    assert "rows is Reverted" in world.status.decision.message
    assert world.where[3] == "50"
