"""The order of the rules, as `docs/explanation/decisions.md` lists it, where two rules apply at the same time.

Not here: each rule by itself (the files named after it).
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from core.collecting import with_delta
from core.world import World, at, edited, ended, rollout_data, spec
from session_rollout.api.enums import DecisionReason, EventReason, Outcome
from session_rollout.api.rollout import RolloutSpec

BAD = Decimal("0.08")
GUARD = {"name": "errors", "metric": "errors", "below": "5%"}
SLOW_GUARD = {"name": "load", "metric": "load", "below": "5", "for": "2h"}
NARROW: dict[str, Any] = {"windows": [{"days": ["Mon"], "from": "10:00", "to": "10:01", "timeZone": "UTC"}]}


def pause(world: World) -> None:
    """By an action."""
    world.request("Pause")


def invalid(world: World) -> None:
    """By a provider that the configuration lacks."""
    world.problems = ("no such provider",)


def disabled(world: World) -> None:
    """By an emergency for one feature of the phase."""
    world.request("EmergencyDisable", features=["beta"])


def suspended(world: World) -> None:
    """By the spec."""
    world.edit(world.spec.updated(suspend=True))


def kept(world: World) -> None:
    """The rollout was created again without its status."""
    fresh = World(world.spec, document=world.document, uid="another")
    world.status, world.uid, world.generation = fresh.status, fresh.uid, 1


@pytest.mark.parametrize("stop", [pause, invalid, disabled])
def test_breach_comes_before_what_keeps_the_rollout_where_it_is(stop: Callable[[World], None]) -> None:
    """Guards protect users also while the rollout is paused, its spec is invalid, or a feature of the phase is disabled."""
    world = World(spec(guards=[GUARD]))
    world.until(at("one", 1))
    stop(world)
    world.run(20)
    world.values["errors"] = BAD
    world.run(20)
    assert (world.status.outcome, world.percents()["one"]) == (Outcome.ROLLED_BACK, "0")


@pytest.mark.parametrize(
    ("stop", "reason"),
    [(suspended, DecisionReason.SUSPENDED), (kept, DecisionReason.ADOPTION_REQUIRED)],
    ids=["suspend", "kept"],
)
def test_suspend_and_a_kept_document_come_before_a_breach(stop: Callable[[World], None], reason: DecisionReason) -> None:
    """Nothing is rolled back then; an emergency still turns features off."""
    world = World(spec(guards=[GUARD]))
    world.until(at("one", 1))
    stop(world)
    world.values["errors"] = BAD
    world.run(60)
    assert (world.reason, world.status.outcome) == (reason, None)
    assert world.document is not None
    assert world.document.gives_something
    world.request("EmergencyDisable")
    world.run(20)
    assert not world.document.gives_something


def test_resume_during_a_breach_pauses_again() -> None:
    """A guard with `onBreach: Pause` has the last word as long as it is in breach."""
    world = World(spec(guards=[{**GUARD, "onBreach": "Pause"}]))
    world.until(at("one", 1))
    world.values["errors"] = BAD
    world.run(20)
    world.request("Resume")
    world.run(20)
    assert (world.reason, world.status.paused_by) == (DecisionReason.PAUSED, "errors")
    world.values["errors"] = Decimal("0.001")
    world.request("Resume")
    world.until(ended)


@pytest.mark.parametrize("scope", ["Phase", "All"])
def test_abort_leaves_older_phases_unless_the_scope_is_all(scope: str) -> None:
    """Only a guard measures what an older phase may have caused; All turns off also what was promoted before."""
    world = World(spec())
    world.until(ended)
    world.edit(edited(with_delta, rollback={"scope": scope}))
    world.until(at("delta", 1))
    world.request("Abort")
    world.until(ended)
    older = "0" if scope == "All" else "100"
    assert world.percents() == {"one": older, "two": older, "delta": "0"}


def test_promote_skips_windows_but_no_guard() -> None:
    """The action is accepted, and the audience grows once the guard passes, outside the window."""
    world = World(spec(guards=[SLOW_GUARD], **NARROW))
    world.until(at("one", 1))
    world.values["load"] = Decimal(9)
    world.run(120)
    name = world.request("Promote", generation=1, phase="one", step=1)
    world.run(60)
    assert world.answers[name].accepted
    assert (world.where[:2], world.reason) == (("one", 1), DecisionReason.GUARD_FAILING)
    world.values["load"] = Decimal(1)
    world.run(20)
    assert world.where[:2] == ("one", 2)


def limited(**step: Any) -> dict[str, Any]:
    """Phases whose first step has a criterion and a deadline that rolls back."""
    phases = rollout_data()["phases"]
    criteria = [{"name": "errors", "metric": "errors", "below": "1%"}]
    phases[0] |= {"criteria": criteria, "deadline": "10m", "onDeadline": "Rollback"}
    phases[0]["steps"][0] |= step
    return {"phases": phases}


NO_WAITING: dict[str, tuple[RolloutSpec, DecisionReason]] = {
    "approval": (spec(**limited(approval="Required")), DecisionReason.AWAITING_APPROVAL),
    "window": (spec(**limited(), **NARROW), DecisionReason.AWAITING_WINDOW),
    "guard": (spec(**limited(), guards=[SLOW_GUARD]), DecisionReason.GUARD_FAILING),
}


@pytest.mark.parametrize(("plan", "reason"), NO_WAITING.values(), ids=NO_WAITING)
def test_what_is_no_evidence_counts_toward_no_deadline(plan: RolloutSpec, reason: DecisionReason) -> None:
    """An hour of waiting for an approval, a window or a guard that fails, with a deadline of ten minutes."""
    world = World(plan)
    world.until(at("one", 1))
    world.values["load"] = Decimal(9)
    world.run(3600, tick=20)
    assert (world.where[:2], world.reason, world.status.outcome) == (("one", 1), reason, None)


def test_flag_that_was_removed_by_hand_comes_back() -> None:
    """Applications would use the default in their code, so a missing flag is no kill."""
    world = World(spec())
    world.until(at("one", 1))
    before = world.document
    assert before is not None
    left = {name: audience for name, audience in before.audiences.items() if name != "alpha"}
    world.tamper(audiences=left, editor="kubectl-edit")
    world.run(10)
    assert world.document is not None
    assert world.document.audiences == before.audiences
    assert world.status.flags.disabled == ()
    assert len(world.entries(EventReason.FLAG_DRIFT)) == 1
