"""Migrations that move rows, as the core tells them: backup, progress, pause, finish, restore, retry, what cannot be undone.

Not here: up and down of schemas and their failures (test_stories), what a Job really does (tests/migrations).
"""

from datetime import timedelta
from typing import Any

import yaml

from core.world import ROLLOUT, World, spec
from session_rollout.api.enums import DecisionAction, Outcome, Stage
from session_rollout.api.progress import Progress
from session_rollout.api.status import MigrationRecord
from session_rollout.core.observed import JobObservation, JobState

FIGURES = {"done": 1000, "total": 1000, "following": True}


def moving(**changes: Any) -> dict[str, Any]:
    """A programme whose first phase moves rows, with a snapshot."""
    phases = yaml.safe_load(ROLLOUT)["phases"]
    return {
        "database": {"secretKeyRef": {"name": "db"}},
        "migrations": [{"name": "rows", "bundle": "a/rows", "change": "Migrate", "backup": True}],
        "phases": [{**phases[0], "migrations": {"before": ["rows"]}}, phases[1]],
        **changes,
    }


def world(**changes: Any) -> World:
    """Its rows are moved at once when a Job ends."""
    return World(spec(**moving(**changes)), progress=FIGURES)


def rows(world: World) -> MigrationRecord:
    """The record."""
    return next(record for record in world.status.migrations if record.name == "rows")


def operations(world: World) -> list[str]:
    """What the Jobs did, in order."""
    return [name.rsplit("-", 2)[1] for name in world.jobs]


def running(world: World, **said: Any) -> str:
    """Let the Job that runs say something; its name."""
    name = rows(world).job or ""
    world.jobs[name] = JobObservation(JobState.ACTIVE, Progress(**said), suspended=world.jobs[name].suspended)
    return name


def ended(world: World) -> bool:
    """It has an outcome."""
    return world.status.outcome is not None


def at_step(world: World) -> bool:
    """The first step is published."""
    return world.status.current.step > 0


def test_snapshot_comes_after_the_rows_and_before_anything_is_published() -> None:
    """Up, backup, then the first step; finish at the end of the bake; the snapshot is kept for a week."""
    here = world()
    here.until(at_step)
    assert operations(here) == ["up", "backup"]
    assert rows(here).following
    assert rows(here).backup_time is not None
    here.until(ended)
    assert operations(here) == ["up", "backup", "finish"]
    assert here.status.outcome is Outcome.PROMOTED
    assert rows(here).backup_until is not None
    here.progress = {"done": 1000, "total": 1000}
    here.now += timedelta(days=7, minutes=1)
    here.run(60)
    assert operations(here) == ["up", "backup", "finish", "prune"]
    assert rows(here).backup_until is None
    assert here.status.outcome is Outcome.PROMOTED


def test_progress_is_in_status_and_in_why_and_not_written_more_often_than_read() -> None:
    """Rows, rate, end, quarantine; a second look in the same moment writes nothing."""
    here = world()
    here.reconcile()
    running(here, message="moving rows", done=420, total=1000, rate=20, remaining_seconds=29, quarantined=3)
    here.reconcile()
    record = rows(here)
    assert (record.done, record.total, record.rate, record.quarantined) == (420, 1000, 20, 3)
    assert record.estimated_end_time == here.now + timedelta(seconds=29)
    assert here.status.progress == "rows up 42% (420 of 1,000), 20/s, 29s left, 3 quarantined"
    assert here.status.decision.message == f"migration {here.status.progress}"
    running(here, message="moving rows", done=430, total=1000, rate=20, quarantined=3)
    writes = here.writes
    here.now += timedelta(seconds=1)
    here.reconcile()
    assert here.writes == writes
    here.now += timedelta(seconds=5)
    here.reconcile()
    assert rows(here).done == 430


def test_what_holds_it_up_is_the_message() -> None:
    """A lock, a brake."""
    here = world()
    here.reconcile()
    running(here, message="moving rows", waiting="users is held by pid 7 (report)", done=0, total=10)
    here.reconcile()
    assert rows(here).message == "users is held by pid 7 (report)"
    assert here.status.decision.details[1] == "users is held by pid 7 (report)"


def test_pause_lets_rows_rest_and_resume_goes_on() -> None:
    """Only a Job that moves rows is suspended; a change of the schema runs to its end."""
    here = world()
    here.reconcile()
    here.request("Pause")
    here.reconcile()
    name = rows(here).job or ""
    assert not here.jobs[name].suspended  # it has not said yet that it moves rows
    running(here, done=1, total=10)
    here.reconcile()
    here.reconcile()
    assert here.jobs[name].suspended
    here.now += timedelta(seconds=10)
    here.reconcile()
    assert rows(here).message == "paused"
    here.request("Resume")
    here.reconcile()
    here.reconcile()
    assert not here.jobs[name].suspended
    here.until(ended)


def test_rollback_lets_a_resting_migration_go_on_and_waits_for_its_end() -> None:
    """Nothing is killed, nothing waits for ever."""
    here = world()
    here.reconcile()
    running(here, done=1, total=10)
    here.request("Pause")
    here.reconcile()
    here.reconcile()
    name = rows(here).job or ""
    assert here.jobs[name].suspended
    here.request("Abort")
    here.reconcile()
    here.reconcile()
    assert not here.jobs[name].suspended
    assert "waits for migration rows" in here.status.decision.message
    here.until(ended)
    assert here.status.outcome is Outcome.ABORTED


def test_restore_is_part_of_a_rollback_where_declared_and_comes_after_the_flags() -> None:
    """Once; and a retry takes a new snapshot."""
    here = world(rollback={"restoreData": True})
    here.until(at_step)
    here.request("Abort")
    here.reconcile()
    assert here.status.current.stage is Stage.ROLLING_BACK
    here.until(ended)
    assert operations(here) == ["up", "backup", "restore"]
    assert rows(here).restore_time is not None
    here.request("Retry", generation=1)
    here.until(ended)
    assert operations(here) == ["up", "backup", "restore", "backup", "finish"]


def test_failed_restore_stalls_the_rollback_until_retried() -> None:
    """With what the Job said."""
    here = world(rollback={"restoreData": True})
    here.until(at_step)
    here.jobs_succeed = False
    here.request("Abort")
    here.run(60)
    assert here.status.decision.action is DecisionAction.STALL
    assert here.status.decision.details == ("migration rows restore failed: relation exists",)
    here.jobs_succeed = True
    here.request("Retry", generation=1)
    here.until(ended)
    assert operations(here)[-1] == "restore"


def test_a_person_restores_at_any_time_with_what_they_said() -> None:
    """User, time, whether newer rows may be lost; refused without a snapshot, and while something runs."""
    here = world()
    here.reconcile()
    early = here.request("RestoreData", migration="rows")
    here.reconcile()
    assert here.answers[early] == (False, "migration rows is running: ask again when it has ended")
    here.until(at_step)
    unknown = here.request("RestoreData", migration="other")
    right = here.request("RestoreData", migration="rows", user="u-1", at="2026-01-05T09:00:00Z", loseNewer=True)
    here.reconcile()
    assert here.answers[unknown] == (False, "`migration` names other, and of those that have begun: rows")
    assert here.answers[right] == (True, "rows: rows come back from the snapshot; all of them")
    assert rows(here).arguments == ("--user=u-1", "--at=2026-01-05T09:00:00+00:00", "--exact", "--lose-newer")
    here.until(ended)
    assert operations(here) == ["up", "backup", "restore", "finish"]


def test_a_wish_that_fails_leaves_the_migration_what_it_was() -> None:
    """It is told, and the rollout goes on."""
    here = world()
    here.until(at_step)
    here.jobs_succeed = False
    here.request("RestoreData", migration="rows")
    here.settle()
    assert rows(here).state == "Succeeded"
    assert rows(here).message == "restore failed: relation exists"
    assert here.condition("MigrationsApplied") == "True"
    here.jobs_succeed = True
    here.until(ended)


def test_rows_in_quarantine_are_retried_when_asked() -> None:
    """Refused where there is none."""
    here = world()
    here.progress = {**FIGURES, "quarantined": 7}
    here.until(at_step)
    assert rows(here).quarantined == 7
    here.progress = FIGURES
    name = here.request("RetryMigration", migration="rows")
    here.settle()
    assert here.answers[name] == (True, "7 rows in quarantine are tried again")
    assert rows(here).quarantined == 0
    again = here.request("RetryMigration", migration="rows")
    here.settle()
    assert here.answers[again] == (False, "nothing to retry: rows has not failed and has no row in quarantine")


def test_point_of_no_return_is_announced_before_it_is_passed_and_refuses_down() -> None:
    """In status from the first look on; the rollback ends without undoing it, and says so."""
    declared = [{"name": "rows", "bundle": "a/rows", "pointOfNoReturn": 3}]
    here = World(spec(**moving(migrations=declared, rollback={"migrations": "Down"})))
    here.reconcile()
    assert rows(here).point_of_no_return == "Ahead"
    assert "PointOfNoReturnAhead" in here.events
    here.until(at_step)
    assert rows(here).point_of_no_return == "Passed"
    here.request("Abort")
    here.until(ended)
    assert operations(here) == ["up"]
    assert [entry.message for entry in here.status.history if entry.event == "MigrationKept"] == [
        "rows stays: its point of no return was passed"
    ]


def test_down_says_whether_data_may_be_lost() -> None:
    """As the object declares."""
    for allowed in (False, True):
        here = world(rollback={"migrations": "Down", "allowDataLoss": allowed})
        here.until(at_step)
        here.request("Abort")
        here.until(ended)
        assert rows(here).state == "Reverted"
        assert rows(here).arguments == (("--allow-data-loss",) if allowed else ())


def test_lost_job_is_created_again() -> None:
    """A person deleted it: the same name, so that it goes on where it was."""
    here = world()
    here.reconcile()
    name = rows(here).job or ""
    here.jobs[name] = JobObservation(JobState.MISSING)
    here.reconcile()
    assert [effect for effect in here.decision.effects if getattr(effect, "name", "") == name] if here.decision else False
