"""Rollouts that wait in each stage, and leave it by an abort or an edit; edits that change the phases."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from core.collecting import DATABASE, SIGNED, World, migrated, verified, with_delta
from core.world import at, edited, ended, rollout_data, spec
from session_rollout.api.enums import Outcome, Stage, Verdict
from session_rollout.api.progress import Progress
from session_rollout.core.observed import JobObservation, JobState


def _failing_after() -> World:
    world = World(spec(**migrated()))
    world.until(at("one", 3))
    world.jobs_succeed = False
    return world


WAITING: Final[dict[Stage, Callable[[], World]]] = {
    Stage.PREFLIGHT: lambda: World(spec(preflight=SIGNED)),
    Stage.BEFORE: lambda: World(spec(**migrated()), jobs_succeed=False),
    Stage.BASELINE: lambda: World(spec(), values={"errors": Decimal("0.001"), "load": Verdict.NO_DATA}),
    Stage.STEP: lambda: World(spec()),
    Stage.VERIFICATION: lambda: World(edited(verified(SIGNED))),
    Stage.AFTER: _failing_after,
    Stage.BAKE: lambda: World(spec(bake="600s")),
}


def waiting_in(stage: Stage) -> World:
    """A rollout that waits in a stage."""
    world = WAITING[stage]()
    world.until(lambda world: world.status.current.stage is stage)
    return world


def aborted_in(stage: Stage) -> Callable[[], World]:
    """The user aborts there."""

    def play() -> World:
        world = waiting_in(stage)
        world.request("Abort")
        world.until(ended)
        return world

    return play


def edited_in(stage: Stage) -> Callable[[], World]:
    """The user edits the spec there."""

    def play() -> World:
        world = waiting_in(stage)
        world.edit(world.spec.updated(check_interval="5s"))
        world.run(20)
        return world

    return play


def running_step_is_raised() -> World:
    """The user edits the step that is published: the guards are heard first, then more users have the feature."""
    world = waiting_in(Stage.STEP)
    world.edit(edited(lambda data: data["phases"][0]["steps"][0].update(groups=["staff", "beta"])))
    world.until(lambda world: "beta" in world.status.current.audience)
    return world


def edit_that_waits_is_edited() -> World:
    """The step is raised while a guard is blind; the next edits add a migration, which fails, and fix it."""
    world = waiting_in(Stage.STEP)
    world.until(at("one", 1))
    world.values["errors"], world.jobs_succeed = Verdict.NO_DATA, False
    raised = rollout_data()["phases"]
    raised[0]["steps"][0].update(groups=["staff", "beta"])
    world.edit(spec(phases=raised))
    world.run(20)
    for name in ("rows", "rows-fixed"):
        phases = [{**raised[0], "migrations": {"before": ["rows"]}}, raised[1]]
        world.edit(spec(**DATABASE, migrations=[{"name": "rows", "bundle": f"a/{name}"}], phases=phases))
        world.run(20)
    return world


def first_audience_is_edited_before_it_is_published() -> World:
    """The API server refused its document."""
    world = World(spec())
    world.refuse_first_publish()
    world.edit(spec(bake="10s"))
    world.run(20)
    return world


def phases_are_added_and_removed() -> World:
    """In the bake, after the end, and while the new phase waits in its preflight."""
    world = waiting_in(Stage.BAKE)
    world.edit(edited(with_delta, bake="600s", preflight=SIGNED))
    world.run(20)
    world.edit(spec(bake="10s"))
    world.until(ended)
    world.edit(edited(with_delta))
    world.until(ended)
    return world


def older_phase_fails_after_the_end() -> World:
    """The last phase was aborted, and a guard is breached by what the phase before it published."""
    world = waiting_in(Stage.BAKE)
    world.request("Abort")
    world.until(ended)
    world.values["errors"] = Decimal("0.08")
    world.until(lambda world: world.status.outcome is Outcome.ROLLED_BACK)
    return world


@dataclass
class SlowWorld(World):
    """Its Jobs run until somebody says otherwise."""

    slow: bool = True

    def advance_jobs(self) -> None:
        if not self.slow:
            super().advance_jobs()


def older_phase_fails_while_the_newer_one_is_rolled_back() -> World:
    """The rollback waits for a migration, and the breach lasts."""
    after = {"migrations": [{"name": "rows", "bundle": "a/rows"}], **DATABASE}
    world = SlowWorld(edited(lambda data: data["phases"][1].update(migrations={"after": ["rows"]}), **after))
    world.until(lambda world: world.status.current.stage is Stage.AFTER and world.status.current.phase == "two")
    world.jobs[world.migration("rows").job or ""] = JobObservation(
        JobState.ACTIVE, Progress(message="applying 0001_rows.up.sql")
    )
    world.values["errors"] = Decimal("0.08")
    world.until(lambda world: world.percents() == {"one": "0", "two": "0"})
    world.slow = False
    world.until(ended)
    return world


def spec_cannot_be_carried_out() -> World:
    """An edit that conflicts with what is published."""
    world = waiting_in(Stage.STEP)
    world.edit(edited(lambda data: data["phases"][0]["features"].remove("beta")))
    world.run(20)
    return world
