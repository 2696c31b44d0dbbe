"""What keeps a migration of `migrations.after` from taking away what users need: guards, emergencies, audiences, rollbacks.

Not here: migrations in `before` (test_migration_states), those of phases that `Adopt` completed (test_adopted_migrations), and what
else an emergency holds (test_emergency_gates).
"""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import pytest

from core.collecting import DATABASE, SIGNED
from core.world import GOOD, World, at, ended, rollout_data, spec
from session_rollout.api.enums import ActionReason, CheckKind, DecisionReason, EventReason, Outcome, Stage, State, Verdict
from session_rollout.api.migration_enums import MigrationState, NoReturn, Operation
from session_rollout.api.progress import Progress
from session_rollout.core.observed import JobObservation, JobState, StartJob

ERRORS: Final = {"name": "errors", "metric": "errors", "below": "5%", "for": "10m"}
DROP: Final = {"name": "drop", "bundle": "a/drop", "change": "Contract", "pointOfNoReturn": 1}
MORE: Final = {"name": "more", "bundle": "a/more"}
BAD: Final = Decimal("0.9")
CHANGES: Final = pytest.mark.parametrize("change", ["Contract", "Expand"])


def contracting(change: str = "Contract", **changes: Any) -> dict[str, Any]:
    """One phase that is verified by hand, and a migration after it."""
    data = rollout_data(**DATABASE, guards=[ERRORS], bake="60s", migrations=[DROP | {"change": change}], **changes)
    first = data["phases"][0] | {"criteria": [], "verification": SIGNED, "migrations": {"after": ["drop"]}}
    return data | {"features": data["features"][:2], "phases": [first]}


def verifying(**changes: Any) -> World:
    """Everybody has the phase, and its gate waits for an approval."""
    world = World(spec(**contracting(**changes)))
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    return world


def approve(world: World) -> None:
    world.request("Approve", generation=world.generation, check="signed")
    world.settle()


def started(world: World, name: str = "drop") -> int:
    """How many Jobs have been started for a migration."""
    return sum(f"-{name}-" in job for job in world.jobs)


# --- guards


def _values(value: Decimal | Verdict) -> Callable[[World], None]:
    return lambda world: world.values.update(errors=value)


def _gap(world: World) -> None:
    world.values["errors"] = BAD
    world.run(60)
    world.values["errors"] = Verdict.NO_DATA


def _few(world: World) -> None:
    world.values["load"] = Decimal(0)


def _on_its_way(world: World) -> None:
    world.answering = False


LOST: Final[dict[str, tuple[Callable[[World], None], DecisionReason]]] = {
    "fails": (_values(BAD), DecisionReason.GUARD_FAILING),
    "gap of a failure": (_gap, DecisionReason.GUARD_FAILING),
    "NoData": (_values(Verdict.NO_DATA), DecisionReason.AWAITING_EVIDENCE),
    "ProviderError": (_values(Verdict.PROVIDER_ERROR), DecisionReason.AWAITING_EVIDENCE),
    "Inconclusive": (_values(Verdict.INCONCLUSIVE), DecisionReason.AWAITING_EVIDENCE),
    "few events": (_few, DecisionReason.AWAITING_EVIDENCE),
    "result on its way": (_on_its_way, DecisionReason.AWAITING_EVIDENCE),
}


@CHANGES
@pytest.mark.parametrize(("lose", "reason"), LOST.values(), ids=LOST)
def test_no_migration_starts_after_a_phase_while_a_guard(
    lose: Callable[[World], None], reason: DecisionReason, change: str
) -> None:
    """D15: who approves the phase looks at the feature and not at the metrics; the migration waits for them, and then runs."""
    world = verifying(change=change)
    world.edit(spec(**contracting(change) | {"guards": [ERRORS | {"minimum": {"metric": "load", "above": "0.1"}}]}))
    world.run(60)
    lose(world)
    approve(world)
    world.run(300)
    assert (started(world), world.status.current.stage, world.reason) == (0, Stage.AFTER, reason)
    world.values |= GOOD
    world.answering = True
    world.until(ended)
    assert (started(world), world.status.outcome) == (1, Outcome.PROMOTED)


def test_no_migration_starts_after_a_phase_whose_guard_has_just_failed() -> None:
    """It passes as long as at the end of the last step: 10 intervals, or the hold of that step if it is shorter."""
    world = verifying()
    world.values["errors"] = BAD
    world.run(30)
    world.values |= GOOD
    approve(world)
    world.run(50)
    assert (started(world), world.reason) == (0, DecisionReason.GUARD_FAILING)
    recovery = world.check(CheckKind.GUARD, "errors").recovery_time
    world.until(lambda world: started(world) == 1, seconds=60)
    assert recovery is not None
    assert world.now >= recovery + timedelta(seconds=60)


def test_no_migration_waits_for_a_guard_that_only_warns() -> None:
    """Neither for one in a dry run: they keep nothing back."""
    others: list[dict[str, Any]] = [{"name": "warns", "onBreach": "Warn"}, {"name": "dry", "dryRun": True}]
    data = contracting()
    data["metrics"].append({"name": "other", "query": "other"})
    data["guards"] += [{"metric": "other", "below": "5%", **guard} for guard in others]
    world = World(spec(**data))
    world.values["other"] = Decimal(0)
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    world.values["other"] = BAD
    approve(world)
    world.run(20)
    assert started(world) == 1


@pytest.mark.parametrize("value", [BAD, Verdict.NO_DATA, Verdict.PROVIDER_ERROR])
def test_promote_of_the_last_step_starts_no_migration_without_the_guards(value: Decimal | Verdict) -> None:
    """An action skips the evidence of its step, and not what cannot be undone after it."""
    data = contracting()
    data["phases"][0]["verification"] = []
    world = World(spec(**data))
    world.until(at("one", 3))
    world.values["errors"] = value
    world.run(10)
    world.request("Promote", generation=1, phase="one", step=3)
    world.run(300)
    assert (started(world), world.status.current.stage) == (0, Stage.AFTER)
    world.values |= GOOD
    world.until(ended)
    assert started(world) == 1


def test_each_migration_after_a_phase_waits_and_one_that_runs_ends() -> None:
    """A breach does not interrupt the first, and keeps the second back."""
    data = contracting()
    data["migrations"] = [MORE, DROP]
    data["phases"][0]["migrations"] = {"after": ["more", "drop"]}
    world = World(spec(**data))
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    world.request("Approve", generation=1, check="signed")
    world.reconcile()
    assert world.migration("more").state is MigrationState.RUNNING
    world.jobs[world.migration("more").job or ""] = JobObservation(
        JobState.ACTIVE, Progress(message="applying 0001_more.up.sql")
    )
    world.values["errors"] = BAD
    world.reconcile()
    assert world.reason is DecisionReason.MIGRATION_RUNNING
    world.run(300)
    assert world.migration("more").state is MigrationState.SUCCEEDED
    assert (started(world), world.reason) == (0, DecisionReason.GUARD_FAILING)
    world.values |= GOOD
    world.until(ended)
    assert (started(world, "more"), started(world)) == (1, 1)


def test_lost_job_of_a_migration_is_not_created_while_a_guard_fails() -> None:
    """A crash between the intent and the Job, and then a breach: to create it now would be a start of now."""
    world = verifying()
    world.request("Approve", generation=1, check="signed")
    world.reconcile(crash_before_effects=True)
    job = world.migration("drop").job
    assert job is not None
    assert world.migration("drop").state is MigrationState.RUNNING
    world.jobs[job] = JobObservation(JobState.MISSING)
    world.values["errors"] = BAD
    world.run(300)
    assert (world.jobs[job].state, world.reason) == (JobState.MISSING, DecisionReason.GUARD_FAILING)
    world.values |= GOOD
    world.until(lambda world: world.decision and any(isinstance(effect, StartJob) for effect in world.decision.effects), 120)


@pytest.mark.parametrize("action", [{"action": "Retry", "generation": 1}, {"action": "RetryMigration", "migration": "drop"}])
@pytest.mark.parametrize("value", [BAD, Verdict.NO_DATA, Verdict.PROVIDER_ERROR])
def test_retry_of_a_migration_after_a_phase_waits_for_the_guards(action: dict[str, Any], value: Decimal | Verdict) -> None:
    """The attempt is another start."""
    world = verifying()
    world.jobs_succeed = False
    approve(world)
    world.until(lambda world: world.reason is DecisionReason.MIGRATION_FAILED)
    world.jobs_succeed = True
    world.values["errors"] = value
    world.run(10)
    name = world.request(**action)
    world.run(300)
    assert world.answer(name) == (True, ActionReason.ACCEPTED)
    assert (started(world), world.migration("drop").state) == (1, MigrationState.PENDING)
    world.values |= GOOD
    world.until(ended)
    assert (started(world), world.status.outcome) == (2, Outcome.PROMOTED)


# --- emergencies


def later_contract(change: str) -> World:
    """Phase two with a migration after it, in the hold of its last step."""
    data = contracting(change)
    first = data["phases"][0] | {"verification": [], "migrations": {}}
    two = rollout_data()["phases"][1] | {"criteria": [], "migrations": {"after": ["drop"]}}
    world = World(spec(**data | {"features": rollout_data()["features"], "phases": [first, two]}))
    world.until(at("two", 2))
    return world


@pytest.mark.parametrize("by_hand", [False, True], ids=["action", "hand"])
def test_contract_waits_while_a_feature_of_an_earlier_phase_is_off(*, by_hand: bool) -> None:
    """Everybody is on the code path without it, which may need what the migration removes."""
    world = later_contract("Contract")
    if by_hand:
        world.tamper(taken_away=frozenset({"alpha"}), editor="kubectl-edit")
    else:
        world.request("EmergencyDisable", features=["alpha"])
    world.run(600)
    assert (started(world), world.status.current.stage, world.reason) == (0, Stage.AFTER, DecisionReason.FEATURE_DISABLED)
    world.publishing = False
    world.request("EmergencyEnable")
    world.run(60)
    assert started(world) == 0
    world.publishing = True
    world.until(ended)
    assert (started(world), world.status.outcome) == (1, Outcome.PROMOTED)


def test_other_migrations_wait_for_the_features_of_their_phase_alone() -> None:
    """They remove nothing that another code path needs."""
    world = later_contract("Expand")
    world.request("EmergencyDisable", features=["alpha"])
    world.run(600)
    assert started(world) == 1


# --- audiences

PARTIAL: Final = {
    "half of the users": [{"percent": 50, "hold": "60s"}],
    "groups alone": [{"groups": ["staff"], "hold": "60s"}],
    "ramp": [{"ramp": {"to": "99.9", "over": "60s", "increments": 2}}],
}


@pytest.mark.parametrize("earlier", [False, True], ids=["its phase", "earlier phase"])
@pytest.mark.parametrize("steps", PARTIAL.values(), ids=PARTIAL)
def test_phases_up_to_a_contract_must_end_at_100_percent(steps: list[dict[str, Any]], *, earlier: bool) -> None:
    """The remaining users need what it removes: it stalls before anybody has anything; an edit ends that."""
    data = contracting()
    data["features"] = rollout_data()["features"]
    two = rollout_data()["phases"][1] | {"criteria": []}
    phases = [two, data["phases"][0]] if earlier else data["phases"]
    partial = [phases[0] | {"steps": steps}, *phases[1:]]
    world = World(spec(**data | {"phases": partial}))
    world.run(600)
    assert (world.reason, world.status.state) == (DecisionReason.INVALID_SPEC, State.STALLED)
    assert "`phases[].steps` of" in world.status.decision.message
    assert (world.condition_reason("SpecValid"), world.where[3], started(world)) == ("Invalid", "0", 0)
    world.edit(spec(**data | {"phases": phases}))
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    approve(world)
    world.until(ended)
    assert (world.status.outcome, started(world)) == (Outcome.PROMOTED, 1)


@pytest.mark.parametrize("kind", ["Expand after the phase", "later phase"])
def test_other_phases_may_end_below_100_percent(kind: str) -> None:
    """What adds something takes nothing away, and users of a later phase have what the migration assumes."""
    data = contracting("Contract" if kind == "later phase" else "Expand")
    data["features"] = rollout_data()["features"]
    two = rollout_data()["phases"][1] | {"criteria": []}
    partial = {"steps": PARTIAL["half of the users"]}
    phases = [data["phases"][0], two | partial] if kind == "later phase" else [data["phases"][0] | partial]
    world = World(spec(**data | {"phases": phases}))
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    approve(world)
    world.until(ended)
    assert (world.status.outcome, started(world)) == (Outcome.PROMOTED, 1)


def test_contract_that_is_applied_needs_no_audience() -> None:
    """A plan of before this rule: what is removed already makes no spec invalid."""
    data = contracting("Expand")
    data["phases"][0]["steps"] = PARTIAL["half of the users"]
    world = World(spec(**data))
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    approve(world)
    world.until(ended)
    world.edit(spec(**data | {"migrations": [DROP]}))
    world.run(60)
    assert (world.condition("SpecValid"), world.status.outcome) == ("True", Outcome.PROMOTED)


# --- rollbacks


def failed(change: str = "Contract") -> World:
    """The migration after the phase has failed."""
    world = verifying(change=change)
    world.jobs_succeed = False
    approve(world)
    world.until(lambda world: world.reason is DecisionReason.MIGRATION_FAILED)
    return world


@CHANGES
@pytest.mark.parametrize("outcome", [Outcome.ROLLED_BACK, Outcome.ABORTED])
def test_no_action_runs_a_migration_after_a_phase_that_was_rolled_back(outcome: Outcome, change: str) -> None:
    """Nobody has the feature: `RetryMigration` is rejected, `Retry` gives users the phase first."""
    world = failed(change)
    if outcome is Outcome.ABORTED:
        world.request("Abort")
    else:
        world.values["errors"] = BAD
    world.until(ended)
    assert world.status.outcome is outcome
    world.jobs_succeed = True
    name = world.request("RetryMigration", migration="drop")
    world.run(60)
    assert world.answer(name) == (False, ActionReason.NOT_RUNNING)
    assert (started(world), world.migration("drop").state) == (1, MigrationState.FAILED)
    world.values |= GOOD
    world.request("Retry", generation=1)
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    assert (started(world), world.percents()["one"]) == (1, "100")
    approve(world)
    world.until(ended)
    assert (started(world), world.migration("drop").point_of_no_return) == (2, NoReturn.PASSED)


@pytest.mark.parametrize("succeeds", [True, False], ids=["undone", "half undone"])
def test_migration_after_a_phase_that_was_rolled_back_is_undone(*, succeeds: bool) -> None:
    """The other way out: it stays open, and does not lead to `up`."""
    world = failed()
    world.request("Abort")
    world.until(ended)
    world.jobs_succeed = succeeds
    down = world.request("MigrateDown", migration="drop")
    world.run(60)
    assert world.answer(down) == (True, ActionReason.ACCEPTED)
    world.request("RetryMigration", migration="drop")
    world.run(60)
    assert [entry.operation for entry in world.entries(EventReason.MIGRATION_STARTED)] == [Operation.UP, Operation.DOWN]


def test_no_action_runs_a_migration_after_a_phase_that_is_being_rolled_back() -> None:
    """The flags cannot be written, so that the rollback lasts."""
    world = failed()
    world.publishing = False
    world.request("Abort")
    world.run(10)
    assert world.status.current.stage is Stage.ROLLING_BACK
    name = world.request("RetryMigration", migration="drop")
    world.jobs_succeed = True
    world.run(60)
    assert world.answer(name) == (False, ActionReason.ALREADY_ROLLING_BACK)
    world.publishing = True
    world.until(ended)
    assert (started(world), world.migration("drop").state) == (1, MigrationState.FAILED)
