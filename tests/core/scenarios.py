"""Rollouts that together produce everything that the core can produce: every reason, event, outcome and transition.

Each scenario is a story that a user would recognize. What single steps must look like is asserted in the files named after
their topics; here it only matters that it happens (test_reasons, test_transitions).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from core import comparison_scenarios, document_scenarios
from core.collecting import EVERY_GATE, FIGURES, WEB, World, migrated
from core.stage_scenarios import (
    WAITING,
    aborted_in,
    edit_that_waits_is_edited,
    edited_in,
    first_audience_is_edited_before_it_is_published,
    older_phase_fails_after_the_end,
    older_phase_fails_while_the_newer_one_is_rolled_back,
    phases_are_added_and_removed,
    running_step_is_raised,
    spec_cannot_be_carried_out,
)
from core.world import at, edited, ended, spec
from session_rollout.api.enums import CheckReason, Verdict
from session_rollout.core.observed import Counts, JobObservation, JobState, Measurement, Revisions

# --- forward


def everything_succeeds() -> World:
    """Gates of every kind, migrations, notifications, a bake, and the end of the snapshot's life."""
    sinks = [{"sink": "chat", "events": ["Promoted"]}]
    world = World(spec(**migrated(preflight=EVERY_GATE, notifications=sinks, bake="60s", **WEB)), progress=FIGURES)
    world.workload_unavailable_reason = "Deployment web has no Pods"
    world.run(10)
    world.workload_unavailable_reason = None
    world.run(10)
    world.gates["health"] = Verdict.FAIL
    world.request("Approve", generation=1, check="signed")
    world.run(10)
    world.gates["health"] = Verdict.PASS
    world.until(ended)
    world.progress = {"done": 1000, "total": 1000}
    world.now += timedelta(days=8)
    world.run(30)
    return world


def step_requires_approval_and_a_window() -> World:
    """Approved in time, refused otherwise, and then it waits for Monday."""
    windows = [{"days": ["Mon"], "from": "10:00", "to": "10:03", "timeZone": "UTC"}]
    world = World(edited(lambda data: data["phases"][0]["steps"][0].update(approval="Required"), windows=windows))
    world.until(at("one", 1))
    world.run(100)
    world.request("Approve", generation=2, phase="one", step=1)
    world.request("Approve", generation=1, phase="one", step=3)
    world.request("Approve", generation=1, phase="one", step=1)
    world.until(at("one", 2, 1))
    world.request("Approve", generation=1, phase="one", step=2)
    world.run(3600)
    return world


def criteria_delay_a_step() -> World:
    """Missing evidence, a failing criterion, its confirmation, and then the deadline."""
    world = World(edited(lambda data: data["phases"][0].update(deadline="300s")), ranges={"errors": timedelta(seconds=20)})
    world.refuse_first_publish()
    world.run(60)
    world.publishing = True
    world.until(at("one", 1))
    world.run(20)
    for value in (Verdict.NO_DATA, Verdict.INCONCLUSIVE, Verdict.PROVIDER_ERROR, Decimal("0.02")):
        world.values["errors"] = value
        world.run(60)
    world.run(120)
    world.values["errors"] = Decimal("0.001")
    world.now += timedelta(seconds=5)
    world.settle()
    world.until(at("one", 3))
    world.values["errors"] = Decimal("0.02")
    world.run(600)
    return world


def baseline_is_missing() -> World:
    """An edit while it is measured; then an increase that is too large."""
    world = World(spec(), values={"errors": Decimal("0.001"), "load": Verdict.NO_DATA})
    world.run(30)
    world.edit(spec(bake="10s"))
    world.run(10)
    world.values["load"] = Decimal(1)
    world.until(at("one", 1))
    world.values["load"] = Decimal(2)
    world.run(100)
    return world


def seasons_are_compared() -> World:
    """With the same half hour of earlier weeks, until no week is left; then a baseline of 0."""
    world = World(spec(), waves={"load": lambda _: Decimal(1)})
    world.until(at("one", 1))
    world.oldest = world.now
    world.run(3600, tick=20)
    world.waves, world.values["load"] = {}, Decimal(0)
    world.request("Abort")
    world.until(ended)
    world.request("Retry", generation=1)
    world.until(at("one", 1))
    world.values["load"] = Decimal(1)
    world.run(60)
    return world


@dataclass
class CohortWorld(World):
    """Its metric `errors` has two cohorts, or what the test puts there."""

    counts: tuple[Counts, Counts] | None = None

    def measure(self, name: str) -> Measurement | None:
        measured = super().measure(name)
        if name != "errors" or measured is None or self.counts is None:
            return measured
        return Measurement(self.now, value=Decimal(1), on=self.counts[0], off=self.counts[1])


def cohorts_are_compared() -> World:
    """No cohorts, too few events, an unclear difference, one within the tolerance."""
    check = {"name": "errors", "metric": "errors", "comparedTo": "Control", "maxDecrease": "1%"}
    world = CohortWorld(edited(lambda data: data["phases"][0].update(criteria=[check]), guards=[]))
    world.until(at("one", 1))
    world.run(20)
    for good, total in ((9, 10), (99, 100), (9900, 10000)):
        counts = Counts(Decimal(good), Decimal(total))
        world.counts = (counts, counts)
        world.run(20)
    world.until(at("one", 2, 1))
    return world


def no_data_has_a_meaning() -> World:
    """Of two guards, one passes and one fails without data; a third has too few events."""
    guards = [
        {"name": "alarms", "metric": "errors", "below": "5%", "onNoData": "Pass"},
        {"name": "traffic", "metric": "errors", "below": "5%", "onNoData": "Fail", "onBreach": "Warn"},
        {"name": "rare", "metric": "errors", "below": "5%", "minimum": {"metric": "load", "above": "500"}},
    ]
    world = World(spec(guards=guards))
    world.until(at("one", 1))
    world.values["errors"] = Verdict.NO_DATA
    world.run(20)
    return world


def guard_begins_to_fail() -> World:
    """At the end of a hold that is shorter than its `for`."""
    guard = {"name": "errors", "metric": "errors", "below": "5%", "for": "10m"}
    world = World(edited(lambda data: data["phases"][0].pop("criteria"), guards=[guard]))
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.08")
    world.run(100)
    return world


def result_becomes_stale() -> World:
    """The provider's last result grows old while the check is evaluated."""

    class StaleWorld(World):
        frozen_at: Any = None

        def measure(self, name: str) -> Measurement | None:
            return Measurement(self.frozen_at or self.now, value=self.values[name])  # type: ignore[arg-type]

    world = StaleWorld(spec())
    world.until(at("one", 1))
    world.run(20)
    world.frozen_at = world.now
    world.run(300)
    return world


def guard_lacks_its_baseline() -> World:
    """A guard that is compared to a baseline, before the phase has measured it."""
    guard = {"name": "load", "metric": "load", "comparedTo": "Baseline", "maxIncrease": "50%"}
    world = World(spec(**migrated(guards=[guard])), jobs_succeed=False)
    world.run(20)
    world.jobs_succeed = True
    world.request("Retry", generation=1)
    world.until(at("one", 1))
    return world


# --- back


def breach_rolls_back_everything() -> World:
    """Rows restored, migrations down, the workload undone, and the rollback verified."""
    rollback = {
        "restoreData": True,
        "migrations": "Down",
        "workload": "Undo",
        "verification": [{"name": "calm", "metric": "errors", "below": "1%"}],
    }
    sinks = [{"sink": "chat", "events": ["RolledBack"]}]
    migrations = migrated(rollback=rollback, notifications=sinks, **WEB)
    world = World(spec(**migrations), progress=FIGURES, revisions=Revisions(7, 6), sink_errors={"chat": "status 500"})
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.08")
    world.publishing = False
    world.run(40)
    world.request("Abort")
    world.run(10)
    world.publishing = True
    world.reconcile()
    world.until(ended)
    world.values["errors"] = Decimal("0.001")
    world.run(60)
    world.request("Retry", generation=1)
    world.until(at("one", 1))
    return world


def point_of_no_return_is_passed() -> World:
    """`cleanup` cannot be undone; the workload has no earlier revision."""
    rollback = {"scope": "All", "migrations": "Down", "workload": "Undo"}
    phases = migrated()["phases"]
    phases[0]["migrations"] = {"before": ["rows", "cleanup"]}
    world = World(spec(**{**migrated(rollback=rollback, **WEB), "phases": phases}), revisions=Revisions(1, None))
    world.until(at("one", 1))
    world.request("Abort")
    world.until(ended)
    world.request("MigrateDown", migration="cleanup")
    world.request("MigrateDown", migration="rows")
    world.run(20)
    return world


def rollback_waits_for_a_migration() -> World:
    """An abort while the Job is running."""
    world = World(spec(**migrated()))
    world.reconcile()
    world.reconcile()
    world.request("Abort")
    world.reconcile()
    world.reconcile()
    world.until(ended)
    return world


# --- actions


def pauses_and_emergencies() -> World:
    """Pause, Resume, EmergencyDisable and EmergencyEnable, each also when there is nothing to do; a drift meanwhile."""
    world = World(spec())
    world.until(at("one", 1))
    for action in ("Resume", "Pause", "Pause", "Resume", "EmergencyEnable", "EmergencyDisable"):
        world.request(action)
        world.run(10)
    world.request("EmergencyDisable", features=["nobody"])
    world.run(10)
    world.request("EmergencyEnable", after=timedelta(seconds=-60))
    world.run(10)
    world.request("EmergencyEnable")
    world.run(10)
    world.tamper()
    world.run(10)
    world.edit(spec(suspend=True))
    world.request("Pause")
    world.run(20)
    return world


def refused_actions() -> World:
    """Everything that a running rollout refuses."""
    world = World(
        spec(**{**migrated(), "migrations": [{"name": "rows", "bundle": "a/rows"}, {"name": "cleanup", "bundle": "a/cleanup"}]})
    )
    world.reconcile()
    world.request("RestoreData", migration="rows")
    world.reconcile()
    world.until(at("one", 1))
    requests: dict[str, dict[str, Any]] = {
        "RestoreData": {"migration": "rows"},
        "RepairData": {"migration": "rows"},
        "BackupData": {"migration": "other"},
        "MigrateDown": {"migration": "rows"},
        "RetryMigration": {"migration": "rows"},
        "RestartWorkload": {},
        "Retry": {"generation": 1},
    }
    for action, fields in requests.items():
        world.request(action, **fields)
    world.request("Approve", "approve-gate", generation=1, check="nothing")
    world.run(10)
    world.until(ended)
    world.request("Abort")
    world.run(10)
    return world


def answers_are_not_read() -> World:
    """More actions than the list keeps."""
    world = World(spec())
    world.until(at("one", 1))
    for number in range(30):
        world.request("Resume", f"resume-{number}")
    world.reconcile(crash_before_effects=True)
    return world


def data_by_actions() -> World:
    """A snapshot, its restore, a repair, a retry of quarantined rows, a failure, a restart of the workload."""
    world = World(spec(**migrated(**WEB)), progress={**FIGURES, "quarantined": 3}, revisions=Revisions(7, 6))
    world.until(at("one", 1))
    for action in ("BackupData", "RestoreData", "RepairData", "RetryMigration"):
        world.request(action, migration="rows")
        world.run(20)
    for action in ("RestartWorkload", "UndoWorkload"):
        world.request(action)
        world.run(20)
    return world


def job_waits_for_a_node() -> World:
    """The rollout is paused before the Pod of the migration after phase one has a node; another Job runs later."""
    world = World(spec(**migrated()), progress=FIGURES)
    world.until(at("one", 3))
    while not any("-cleanup-" in name for name in world.jobs):
        world.now += timedelta(seconds=10)
        world.reconcile()
    world.request("Pause")
    world.run(10)
    world.request("Resume")
    world.until(ended)
    return world


def job_is_foreign() -> World:
    """A Job with the name of a check's Job, created by somebody else."""
    world = World(spec(preflight=[{"name": "smoke", "job": {"profile": "smoke-tests"}}]))
    world.reconcile(crash_before_effects=True)
    job = world.status.checks[0].job or ""
    world.jobs[job] = JobObservation(JobState.ACTIVE)
    world.reconcile()
    world.jobs[job] = JobObservation(JobState.FOREIGN)
    world.reconcile()
    assert world.status.checks[0].reason is CheckReason.JOB_FAILED
    return world


STORIES: Final[tuple[Callable[[], World], ...]] = (
    everything_succeeds,
    step_requires_approval_and_a_window,
    criteria_delay_a_step,
    baseline_is_missing,
    seasons_are_compared,
    cohorts_are_compared,
    no_data_has_a_meaning,
    guard_begins_to_fail,
    result_becomes_stale,
    guard_lacks_its_baseline,
    breach_rolls_back_everything,
    point_of_no_return_is_passed,
    rollback_waits_for_a_migration,
    pauses_and_emergencies,
    refused_actions,
    answers_are_not_read,
    data_by_actions,
    phases_are_added_and_removed,
    running_step_is_raised,
    edit_that_waits_is_edited,
    first_audience_is_edited_before_it_is_published,
    older_phase_fails_after_the_end,
    older_phase_fails_while_the_newer_one_is_rolled_back,
    spec_cannot_be_carried_out,
    job_waits_for_a_node,
    job_is_foreign,
    *document_scenarios.STORIES,
    *comparison_scenarios.STORIES,
)
_PLAYS: Final[dict[str, Callable[[], World]]] = {
    **{story.__name__: story for story in STORIES},
    **{f"aborted in {stage}": aborted_in(stage) for stage in WAITING},
    **{f"edited in {stage}": edited_in(stage) for stage in WAITING},
}


@functools.cache
def played() -> dict[str, World]:
    """Every scenario at its end, by name; played once for all tests."""
    return {name: play() for name, play in _PLAYS.items()}
