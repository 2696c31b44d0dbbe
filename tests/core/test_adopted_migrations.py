"""Migrations of phases that `Adopt` completed: nobody knows what ran for the object before."""

from typing import Any

from core.test_migration_rules import BAD, approve, contracting, started
from core.world import GOOD, World, at, rollout_data, spec
from session_rollout.api.enums import DecisionReason, Stage


def plan_of_two() -> dict[str, Any]:
    """The migration after phase one cannot be undone; phase two follows."""
    data = contracting()
    two = rollout_data()["phases"][1] | {"criteria": []}
    return data | {"features": rollout_data()["features"], "phases": [*data["phases"], two]}


def test_adopted_migration_of_a_complete_phase_waits_for_the_guards() -> None:
    """After a re-creation, phase two applies again what phase one had: with guards that may see what it would break."""
    plan = plan_of_two()
    world = World(spec(**plan))
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    approve(world)
    world.until(at("two", 1))
    fresh = World(spec(**plan), uid="another", document=world.document, now=world.now, values={**GOOD, "errors": BAD})
    fresh.run(60)
    fresh.request("Adopt")
    fresh.run(100)
    assert (started(fresh), fresh.status.current.stage, fresh.reason) == (0, Stage.BEFORE, DecisionReason.AWAITING_APPROVAL)
    fresh.request("RetryMigration", migration="drop")
    fresh.run(200)
    assert (started(fresh), fresh.status.current.stage, fresh.reason) == (0, Stage.BEFORE, DecisionReason.GUARD_FAILING)
    fresh.values |= GOOD
    fresh.until(at("two", 1))
    assert started(fresh) == 1


def test_adopted_migration_starts_only_when_an_action_names_it() -> None:
    """Somebody has added it to a phase that is over; what was verified there was something else."""
    plan = plan_of_two()
    one, two = plan["phases"]
    before = plan | {"migrations": [], "phases": [one | {"migrations": {}, "verification": []}, two]}
    world = World(spec(**before))
    world.until(at("two", 1))
    fresh = World(spec(**plan), uid="another", document=world.document, now=world.now, values={**GOOD})
    fresh.run(60)
    fresh.request("Adopt")
    for request in ({"action": "Resume"}, {"action": "Retry", "generation": 1}):
        fresh.request(**request)
        fresh.run(3600)
        assert (started(fresh), fresh.reason) == (0, DecisionReason.AWAITING_APPROVAL)
    fresh.jobs_succeed = False
    fresh.request("RetryMigration", migration="drop")
    fresh.until(lambda world: world.reason is DecisionReason.MIGRATION_FAILED)
    fresh.jobs_succeed = True
    fresh.request("RetryMigration", migration="drop")
    fresh.until(at("two", 1))
    assert started(fresh) == 2
