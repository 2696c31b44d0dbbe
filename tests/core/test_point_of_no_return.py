"""A migration that cannot be undone, before a phase: it starts by the rules of what cannot be undone after one.

Not here: migrations after a phase (test_migration_rules), and what a rollback does with one that has run (test_migrations).
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import pytest

from core.collecting import DATABASE, SIGNED
from core.world import GOOD, START, World, at, ended, rollout_data, spec
from session_rollout.api.enums import DecisionReason, Outcome, Stage, Verdict
from session_rollout.api.migration_enums import MigrationState
from session_rollout.api.progress import Progress
from session_rollout.core.observed import JobObservation, JobState

BAD: Final = Decimal("0.9")
ERRORS: Final = {"name": "errors", "metric": "errors", "below": "5%", "for": "10m"}
MONDAY: Final = [{"days": ["Mon"], "from": "10:00", "to": "12:00"}]
TUESDAY: Final = [{"days": ["Tue"], "from": "10:00", "to": "12:00"}]


def plan(*, final: bool = True, second: bool = True, **changes: Any) -> Any:
    """A migration before the second phase, or before the first one."""
    rows = {"name": "rows", "bundle": "a/rows"} | ({"pointOfNoReturn": 1} if final else {})
    data = rollout_data(**DATABASE, guards=[ERRORS], migrations=[rows])
    first, last = (phase | {"criteria": []} for phase in data["phases"])
    (last if second else first)["migrations"] = {"before": ["rows"]}
    first["verification"] = SIGNED
    return spec(**data | {"phases": [first, last]} | changes)


def verifying(**changes: Any) -> World:
    """Everybody has the first phase, whose gate waits for an approval."""
    world = World(plan(**changes))
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    return world


def approve(world: World) -> None:
    world.request("Approve", generation=world.generation, check="signed")
    world.settle()


def _closed(world: World) -> None:
    world.now = START.replace(hour=13)
    world.last_reconcile = world.now


def _values(value: Decimal | Verdict) -> Callable[[World], None]:
    return lambda world: world.values.update(errors=value)


HELD: Final[dict[str, tuple[Callable[[World], None], DecisionReason]]] = {
    "no window is open": (_closed, DecisionReason.AWAITING_WINDOW),
    "a guard fails": (_values(BAD), DecisionReason.GUARD_FAILING),
    "a guard is blind": (_values(Verdict.NO_DATA), DecisionReason.AWAITING_EVIDENCE),
}


@pytest.mark.parametrize(("hold", "reason"), HELD.values(), ids=HELD)
def test_migration_that_cannot_be_undone_does_not_start_before_a_phase_while(
    hold: Callable[[World], None], reason: DecisionReason
) -> None:
    """Users have the phase before: an incident is no time for it. It runs as soon as the rules hold."""
    world = verifying(windows=MONDAY)
    hold(world)
    world.run(20)
    approve(world)
    world.run(120)
    assert (world.status.current.stage, world.reason, list(world.jobs)) == (Stage.BEFORE, reason, [])
    world.values |= GOOD
    world.edit(plan(windows=()))
    world.until(at("two", 1))
    assert len(world.jobs) == 1


def test_migration_that_can_be_undone_waits_for_none_of_this() -> None:
    """It is undone with its phase; nobody has that phase before the rules of a publish hold."""
    world = verifying(final=False, windows=MONDAY)
    _closed(world)
    world.values["errors"] = BAD
    world.run(20)
    approve(world)
    world.run(20)
    assert len(world.jobs) == 1
    assert world.percents()["two"] == "0"


@pytest.mark.parametrize(("value", "jobs"), [(BAD, 0), (Verdict.PROVIDER_ERROR, 0), (Verdict.NO_DATA, 1)])
def test_migration_that_cannot_be_undone_before_anybody_has_anything(value: Decimal | Verdict, jobs: int) -> None:
    """A guard without events waits for users, who come after the migration; any other is asked before it, in a window."""
    world = World(plan(second=False, windows=TUESDAY), values={**GOOD, "errors": value})
    world.run(60)
    assert (world.reason, list(world.jobs)) == (DecisionReason.AWAITING_WINDOW, [])
    world.edit(plan(second=False))
    world.run(60)
    assert len(world.jobs) == jobs
    world.values |= GOOD
    world.until(at("one", 1))
    assert len(world.jobs) == 1


def test_guard_whose_baseline_comes_after_the_migration_does_not_keep_it_back() -> None:
    """It would wait for ever."""
    compared = {"name": "load", "metric": "load", "comparedTo": "Baseline", "maxIncrease": "10%"}
    world = World(plan(second=False, guards=[ERRORS, compared]))
    world.until(at("one", 1))
    assert len(world.jobs) == 1


def test_job_that_has_not_begun_is_withdrawn_when_the_rollout_is_aborted() -> None:
    """Its Pod never ran: what cannot be undone does not happen for a phase that nobody gets."""
    world = verifying()
    world.advance_jobs = lambda: None  # type: ignore[method-assign]
    approve(world)
    job = world.migration("rows").job or ""
    assert world.jobs[job] == JobObservation(JobState.ACTIVE, Progress())
    world.request("Abort")
    world.until(ended)
    assert world.status.outcome is Outcome.ABORTED
    assert (world.jobs[job].suspended, world.migration("rows").state) == (True, MigrationState.PENDING)
