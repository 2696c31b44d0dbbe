"""Jobs that must not begin because of the spec, a deletion or a crash: withdrawn, or not created.

Not here: rollbacks, pauses and emergencies (test_withdrawal).
"""

from datetime import timedelta
from typing import Final

import pytest

from core.collecting import DATABASE, FIGURES
from core.withdrawing import (
    BAD,
    EACH,
    PASSING,
    SLOW,
    WAITS,
    Change,
    Cluster,
    is_started,
    plan,
    ran,
    record,
    waiting,
)
from core.world import World, ended, rollout_data, spec
from session_rollout.api.enums import DecisionReason, Outcome
from session_rollout.api.flag_records import FlagDrift
from session_rollout.api.migration_enums import MigrationState
from session_rollout.api.progress import Progress
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.deleted import decide_deleted
from session_rollout.core.flags import NOBODY
from session_rollout.core.observed import Decision, JobObservation, JobState, SuspendJob

# --- the spec


def _without(spec: RolloutSpec) -> RolloutSpec:
    data = spec.model_dump(by_alias=True, exclude_unset=True)
    data["phases"][1].pop("migrations")
    return RolloutSpec.model_validate(data | {"migrations": []})


def _with_another_bundle(spec: RolloutSpec) -> RolloutSpec:
    return spec.updated(migrations=(spec.migrations[0].updated(bundle="a/other"),))


@pytest.mark.parametrize("progress", WAITS.values(), ids=WAITS)
def test_job_of_a_migration_that_the_spec_no_longer_has_does_not_run(progress: Progress) -> None:
    """A commit was reverted; the rollout is promoted without it."""
    world = waiting("up", progress)
    world.edit(_without(world.spec))
    world.run(20)
    world.room = True
    world.until(ended)
    world.run(60)
    assert (ran(world, "up"), world.status.outcome) == ([False], Outcome.PROMOTED)
    assert record(world).state is MigrationState.PENDING


@pytest.mark.parametrize("state", [JobState.MISSING, JobState.ACTIVE])
def test_job_of_another_bundle_does_not_run(state: JobState) -> None:
    """The bundle of the spec runs, and only that."""
    world = waiting("up")
    old = record(world).job or ""
    world.jobs[old] = JobObservation(state)
    world.edit(_with_another_bundle(world.spec))
    world.run(20)
    world.room = True
    world.until(ended)
    assert ran(world, "up") == [False, True]


def test_migration_that_the_spec_no_longer_has_keeps_no_action_out() -> None:
    """Its Job was never created: it does not run for ever."""
    world = waiting("up")
    world.jobs[record(world).job or ""] = JobObservation(JobState.MISSING)
    world.edit(_without(world.spec))
    world.run(20)
    assert record(world).state is MigrationState.PENDING


def test_other_migrations_are_not_withdrawn() -> None:
    """They take nothing away: a rollback waits for them, as before."""
    data = rollout_data(**DATABASE, migrations=[{"name": "add", "bundle": "a/add"}])
    data["phases"][0]["migrations"] = {"before": ["add"]}
    world = Cluster(spec=spec(**data), room=False)
    world.run(20)
    world.request("Abort")
    world.run(60)
    assert world.reason is DecisionReason.AWAITING_MIGRATION
    world.room = True
    world.until(ended)
    assert ran(world, "up") == [True]


# --- deletion


def _deleted(world: World, *, released: bool) -> Decision:
    return decide_deleted(world.observed(), world.now, jobs=(record(world).job or "",), finalizers=(), released=released)


@EACH
@pytest.mark.parametrize("released", [True, False])
def test_deletion_suspends_a_job_that_has_not_begun_when_nobody_has_the_features(kind: str, *, released: bool) -> None:
    """They are off already, or a guard is in breach; without a Pod, the Job does not delay the deletion."""
    world = waiting(kind, WAITS["lock"])
    assert world.document is not None
    if released:
        world.tamper(audiences=dict.fromkeys(world.document.audiences, NOBODY))
    else:
        world.values["errors"] = BAD
    decision = _deleted(world, released=released)
    assert [effect for effect in decision.effects if isinstance(effect, SuspendJob)] == [
        SuspendJob(record(world).job or "", True)
    ]


@EACH
def test_deletion_waits_for_a_job_of_users_who_keep_the_features(kind: str) -> None:
    """They have what it needs."""
    world = waiting(kind, WAITS["lock"])
    decision = _deleted(world, released=False)
    assert not any(isinstance(effect, SuspendJob) for effect in decision.effects)


# --- Jobs that could not be created


def _crashed(kind: str) -> Cluster:
    """The operator has decided to start the Job, and was killed before it could create it."""
    world = Cluster(spec=plan(kind, **SLOW), progress=FIGURES if kind == "finish" else {})
    while not is_started(kind)(world):
        world.now += timedelta(seconds=10)
        for _ in range(20):
            world.reconcile(crash_before_effects=True)
            assert world.decision is not None
            if is_started(kind)(world) or not world.decision.effects:
                break
            for effect in world.decision.effects:
                world.apply(effect)
            world.advance_jobs()
    return world


def _results_on_their_way(world: World) -> None:
    world.answering = False


def _answer(world: World) -> None:
    world.answering = True


def _contest(world: World) -> None:
    drift = FlagDrift(time=world.now, by="flux", count=3)
    world.status = world.status.updated(flags=world.status.flags.updated(drift=drift))


def _wait(world: World) -> None:
    world.run(300)


LOST: Final[dict[str, tuple[Change, Change]]] = PASSING | {
    "results on their way": (_results_on_their_way, _answer),
    "contested document": (_contest, _wait),
}


@EACH
@pytest.mark.parametrize("known", [True, False], ids=["missing", "not read"])
@pytest.mark.parametrize(("begin", "end"), LOST.values(), ids=LOST)
def test_job_that_was_not_created_is_created_only_while_the_rules_hold(
    begin: Change, end: Change, kind: str, *, known: bool
) -> None:
    """The first decision of the next process is a start of now, with the results of now."""
    world = _crashed(kind)
    job = record(world).job or ""
    if known:
        world.jobs[job] = JobObservation(JobState.MISSING)
    world.last_reconcile = None
    begin(world)
    world.run(200)
    assert not any(ran(world, kind))
    assert not known or world.jobs[job].state is JobState.MISSING
    assert known or job not in world.jobs
    end(world)
    world.until(ended)
    assert (ran(world, kind), world.status.outcome) == ([True], Outcome.PROMOTED)
