"""Gates that have passed, and an edit before what they protect: nothing rests on a gate of another generation.

Not here: gates of one generation (test_gates), approvals of steps (test_approvals), other consequences of an edit (test_edits).
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import pytest

from core.collecting import DATABASE, SIGNED, WEB
from core.withdrawing import DROP, ran, waiting
from core.world import GOOD, World, at, edited, ended, rollout_data, spec
from session_rollout.api.enums import CheckKind, DecisionReason, EventReason, Outcome, PhaseState, Stage, Verdict
from session_rollout.api.migration_enums import MigrationState
from session_rollout.api.progress import Progress
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.flags import NOBODY
from session_rollout.core.observed import JobObservation, JobState

BAD: Final = Decimal("0.9")
SECURITY: Final = {"name": "security", "approval": {}}
CLOSED: Final = [{"days": ["Tue"], "from": "10:00", "to": "23:00"}]


def approve(world: World, check: str = "signed") -> None:
    world.request("Approve", generation=world.generation, check=check)
    world.settle()


def awaited(world: World) -> list[str | None]:
    """The gates whose approval the rollout waits for."""
    return [approval.check for approval in world.status.decision.approvals]


def _window() -> World:
    return World(spec(preflight=SIGNED, windows=CLOSED))


def _approved_window() -> World:
    """Its gate has passed, and it waits for the window."""
    world = _window()
    approve(world)
    world.run(60)
    return world


def _migration() -> World:
    data = rollout_data(**DATABASE, preflight=SIGNED, migrations=[{"name": "rows", "bundle": "a/rows"}])
    data["phases"][0]["migrations"] = {"before": ["rows"]}
    return World(spec(**data), jobs_succeed=False)


def _refused() -> World:
    """The first audience is decided with the approval, and the API server accepts no document."""
    return World(spec(preflight=SIGNED), publishing=False)


def _again() -> World:
    """A second attempt, after the first phase was promoted in the first one."""
    world = World(spec(preflight=SIGNED))
    approve(world)
    world.until(at("two", 1))
    world.request("Abort")
    world.until(ended)
    world.edit(edited(lambda data: data["phases"][1]["steps"][0].update(hold="70s"), preflight=SIGNED, windows=CLOSED))
    world.settle()
    return world


BEFORE_THE_FIRST_PUBLISH: Final[dict[str, Callable[[], World]]] = {
    "a window": _window,
    "a migration": _migration,
    "a refused document": _refused,
    "another attempt": _again,
}


@pytest.mark.parametrize("waits", BEFORE_THE_FIRST_PUBLISH.values(), ids=BEFORE_THE_FIRST_PUBLISH)
def test_edit_before_the_first_publish_of_a_phase_asks_the_preflight_again(waits: Callable[[], World]) -> None:
    """Who approved generation 1 did not see generation 2, and a gate that is new has never been asked."""
    world = waits()
    approve(world)
    world.run(60)
    phase = world.status.current.phase
    assert world.status.current.stage in {Stage.BEFORE, Stage.BASELINE, Stage.STEP}
    world.edit(world.spec.updated(preflight=spec(preflight=[*SIGNED, SECURITY]).preflight, windows=()))
    world.publishing = world.jobs_succeed = True
    world.run(600)
    assert (world.status.current.stage, awaited(world)) == (Stage.PREFLIGHT, ["signed", "security"])
    assert world.document is not None
    assert world.document.audiences["gamma"] == NOBODY
    assert world.percents()[phase or ""] == "0"
    approve(world)
    world.request("Retry", generation=world.generation)
    approve(world, "security")
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_phase_begins_once_however_often_its_preflight_is_asked() -> None:
    """It was running all the time: no subscriber is told twice, and no other phase may take its place."""
    world = _approved_window()
    world.edit(spec(preflight=SIGNED, windows=CLOSED, bake="10s"))
    world.run(60)
    assert [record.state for record in world.status.phases] == [PhaseState.RUNNING, PhaseState.PENDING]
    approve(world)
    world.run(60)
    assert len(world.entries(EventReason.PHASE_STARTED)) == 1
    world.edit(edited(lambda data: data["phases"].reverse(), preflight=SIGNED))
    world.run(60)
    assert world.reason is DecisionReason.INVALID_SPEC
    world.edit(spec(preflight=SIGNED))
    world.run(60)
    approve(world)
    world.until(ended)


@pytest.mark.parametrize("gone", [False, True])
def test_phase_that_runs_without_users_does_not_leave_the_plan(*, gone: bool) -> None:
    """Its migrations may have run: an edit of an edit, in whatever stage, needs the phase at its place."""
    world = _approved_window()
    if gone:
        world.edit(spec(preflight=SIGNED, windows=CLOSED, bake="10s"))
        world.run(60)
    features = [{"name": "gamma"}]
    world.edit(edited(lambda data: (data["phases"].pop(0), data.update(features=features)), preflight=SIGNED))
    world.run(60)
    assert world.reason is DecisionReason.INVALID_SPEC
    world.edit(spec(preflight=SIGNED))
    world.run(60)
    approve(world)
    world.until(ended)


def test_guards_are_judged_while_the_preflight_is_asked_again() -> None:
    """The first publish follows the last gate at once, so a verdict from before the edit must not be the last one."""
    gates = [*SIGNED, {"name": "calm", "metric": "errors", "below": "99%"}]
    world = World(spec(preflight=gates, windows=CLOSED))
    approve(world)
    world.run(60)
    world.edit(spec(preflight=gates))
    world.values["errors"] = BAD
    world.run(60)
    assert world.check(CheckKind.GUARD, "errors").verdict is Verdict.FAIL
    approve(world)
    world.run(60)
    assert (world.reason, world.percents()["one"]) == (DecisionReason.GUARD_FAILING, "0")


def test_edit_while_users_have_a_part_of_the_phase_asks_no_preflight() -> None:
    """It comes before the first publish; the rules of the steps judge the rest."""
    world = World(spec(preflight=SIGNED))
    approve(world)
    world.until(at("one", 1))
    world.values["errors"] = Verdict.NO_DATA
    steps = [{"percent": 30, "groups": ["staff"], "hold": "60s"}, {"percent": 100, "groups": ["staff"], "hold": "60s"}]
    for bake in ("10s", "20s"):
        world.edit(edited(lambda data: data["phases"][0].update(steps=steps), preflight=SIGNED, bake=bake))
        world.run(30)
        assert world.status.current.stage is Stage.BASELINE
    world.values |= GOOD
    world.until(at("one", 2))


def test_workload_is_asked_again_with_the_preflight() -> None:
    """Only this stage reads whether it is available; the decision that returns to it does not know."""
    world = World(spec(windows=CLOSED, **WEB))
    world.run(60)
    assert world.status.current.stage is Stage.BASELINE
    world.edit(spec(**WEB))
    decision = world.reconcile()  # the controller has not read it
    assert decision.status.current.stage is Stage.PREFLIGHT
    world.workload_unavailable_reason = "Deployment web has no Pods"
    world.run(60)
    assert (world.reason, world.percents()["one"]) == (DecisionReason.WORKLOAD_UNAVAILABLE, "0")


# --- verification


def contracting(bundle: str = "a/drop", gates: Any = SIGNED, **changes: Any) -> RolloutSpec:
    """One phase, verified by hand, and a migration after it."""
    data = rollout_data(**DATABASE, migrations=[DROP | {"bundle": bundle}], **changes)
    first = data["phases"][0] | {"verification": gates, "migrations": {"after": ["drop"]}}
    return spec(**data | {"features": data["features"][:2], "phases": [first]})


def verified() -> World:
    """The approval is there; the migration waits for its guard."""
    world = World(contracting())
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    world.values["errors"] = Verdict.NO_DATA
    approve(world)
    world.run(30)
    assert (world.status.current.stage, list(world.jobs)) == (Stage.AFTER, [])
    return world


def test_edit_before_a_migration_of_the_end_has_the_phase_verified_again() -> None:
    """Who approved did not see this SQL, and a gate that is new has never been asked: what it removes does not come back."""
    world = verified()
    world.edit(contracting("a/other", [*SIGNED, SECURITY]))
    world.values |= GOOD
    world.run(600)
    assert (world.status.current.stage, awaited(world), list(world.jobs)) == (Stage.VERIFICATION, ["signed", "security"], [])
    approve(world)
    world.run(60)
    assert not world.jobs
    approve(world, "security")
    world.until(ended)
    assert (world.status.outcome, len(world.jobs)) == (Outcome.PROMOTED, 1)


def test_fixed_bundle_of_a_failed_migration_is_verified_before_it_runs() -> None:
    """`Retry` runs other SQL than was approved."""
    world = verified()
    world.values |= GOOD
    world.jobs_succeed = False
    world.until(lambda world: world.reason is DecisionReason.MIGRATION_FAILED)
    world.jobs_succeed = True
    world.edit(contracting("a/fixed"))
    world.request("Retry", generation=world.generation)
    world.run(600)
    assert (awaited(world), len(world.jobs)) == (["signed"], 1)
    approve(world)
    world.until(ended)
    assert (world.status.outcome, len(world.jobs)) == (Outcome.PROMOTED, 2)


@pytest.mark.parametrize("begun", [False, True])
def test_job_that_has_not_begun_does_not_run_while_its_gates_are_asked_again(*, begun: bool) -> None:
    """It was created by the approval of another spec; one that has begun is not interrupted."""
    world = waiting("up", Progress())
    if begun:
        job = world.migration("drop").job or ""
        world.jobs[job] = JobObservation(JobState.ACTIVE, Progress(message="applying 0001_drop.up.sql"))
        world.run(10)
    later = [phase.updated(verification=contracting().phases[0].verification) for phase in world.spec.phases[1:]]
    world.edit(world.spec.updated(phases=(world.spec.phases[0], *later)))
    world.run(30)
    assert world.status.current.stage is Stage.VERIFICATION
    world.room = True
    world.run(60)
    assert (ran(world, "up"), awaited(world)) == ([begun], ["signed"])
    approve(world)
    world.until(ended)
    assert world.migration("drop").state is MigrationState.SUCCEEDED
    assert sum(ran(world, "up")) == 1
