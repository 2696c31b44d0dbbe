"""The simulated world itself: it does what the operator would do in a cluster, and nothing by itself.

Not here: rehearsals (test_rehearsal).
"""

from datetime import timedelta
from typing import Any

from core.world import World, at, spec
from session_rollout.api.enums import EventReason
from session_rollout.core.observed import (
    JobObservation,
    JobState,
    RestartWorkload,
    Revisions,
    StartJob,
    SuspendJob,
    UndoWorkload,
)
from session_rollout.simulation import world as simulation


def test_crash_keeps_the_status_and_loses_the_effects() -> None:
    """The order of the controller: the status is written first."""
    world = World(spec())
    world.until(at("one", 1))
    name = world.request("Pause")
    world.reconcile(crash_before_effects=True)
    assert (world.status.paused_by, world.answers) == (name, {})
    assert [action.name for action in world.actions] == [name], "it waits to be answered"


def test_answered_action_is_settled_in_the_next_decision() -> None:
    """What was answered was read back; what was not is sent again."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("Pause")
    world.reconcile()
    assert world.observed().settled_actions == frozenset({known.uid for known in world.status.processed_actions})
    assert len(world.observed().settled_actions) == 1


def test_action_of_the_future_is_not_observed() -> None:
    """An approval that a scenario gives later."""
    world = World(spec())
    world.request("Pause", after=timedelta(hours=1))
    assert world.observed().actions == ()
    world.now += timedelta(hours=1)
    assert len(world.observed().actions) == 1


def test_existing_job_is_found_and_not_created_again() -> None:
    """A Job that has ended stays ended."""
    world = World(spec())
    start: dict[str, Any] = {"name": "job", "migration": "rows", "operation": "up", "attempt": 0}
    world.apply(StartJob(**start))
    assert world.jobs == {"job": JobObservation(JobState.ACTIVE)}
    world.jobs["job"] = JobObservation(JobState.SUCCEEDED)
    world.apply(StartJob(**start))
    world.apply(SuspendJob("job", suspend=True))
    assert world.jobs == {"job": JobObservation(JobState.SUCCEEDED, suspended=True, stopped=True)}


def test_workload_changes_only_from_the_revision_that_was_observed() -> None:
    """An effect that is applied twice changes it once."""
    world = World(spec(), revisions=Revisions(7, 6))
    for _ in range(2):
        world.apply(UndoWorkload(7, 6))
        world.apply(RestartWorkload(world.now))
    assert world.undone == [(7, 6)]
    assert world.restarts == [world.now]
    assert world.revisions == Revisions(8, 7, restarted=world.now)


def test_history_has_every_entry() -> None:
    """Also those that the status no longer keeps."""
    world = World(spec())
    world.until(at("two", 1))
    for action in ("Pause", "Resume"):
        world.request(action)
        world.run(10)
    world.until(lambda world: world.status.outcome is not None)
    assert world.history[0].event is EventReason.STARTED
    assert world.history[-len(world.status.history) :] == list(world.status.history)
    assert len(world.history) > len(world.status.history)


def test_world_without_a_driver_lets_jobs_run() -> None:
    """Only the driver of a world ends Jobs."""
    world = simulation.World(spec(), World(spec()).now)
    world.jobs["job"] = JobObservation(JobState.ACTIVE)
    world.advance_jobs()
    assert world.jobs["job"].state is JobState.ACTIVE
