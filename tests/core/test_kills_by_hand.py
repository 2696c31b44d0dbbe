"""Features that somebody has turned off in the flag document, at any time: nothing but a newer `EmergencyEnable` turns them on.

Not here: which edits turn a feature off (test_published_text), and what else is corrected (test_documents).
"""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from core.document_scenarios import recreated
from core.world import World, at, spec
from session_rollout.api.enums import ActionReason, EventReason
from session_rollout.core.documents import read_document
from session_rollout.core.flags import NOBODY
from session_rollout.core.observed import ClockJump

HOUR = timedelta(hours=1)
Flags = dict[str, Any]


def edit_text(world: World, change: Callable[[Flags], object]) -> None:
    """Somebody edits the text of the document."""
    assert world.document is not None
    document = json.loads(world.documents[-1])
    change(document["flags"])
    known: dict[str, Any] = {
        "version": world.document.version + 1,
        "owner": world.name,
        "protections": world.document.protections,
    }
    world.document = read_document(json.dumps(document, indent=1), editor="kubectl-edit", **known)


def disable(name: str) -> Callable[[Flags], object]:
    """The edit that the on-call guide describes."""
    return lambda flags: flags[name].update(state="DISABLED")


def without_rules(name: str) -> Callable[[Flags], object]:
    """The edit that removes all rules that give the feature."""
    return lambda flags: flags[name].update(targeting={"if": [*flags[name]["targeting"]["if"][:4], "off-chosen"]})


def has(world: World, name: str) -> bool:
    """Whether some user has the feature."""
    return world.document is not None and world.document.audiences.get(name) != NOBODY


@pytest.mark.parametrize("kill", [disable, without_rules])
@pytest.mark.parametrize("place", [(1, 0), (2, 1)], ids=str)
def test_kill_by_hand_while_a_raise_is_not_published(
    place: tuple[int, int], kill: Callable[[str], Callable[[Flags], object]]
) -> None:
    """The document never gave the audience that was decided, but the one before it: who had that has lost it."""
    world = World(spec())
    world.until(at("one", *place))
    while not world.status.current.is_unpublished:
        world.now += timedelta(seconds=10)
        world.reconcile(crash_before_effects=True)
    edit_text(world, kill("alpha"))
    world.run(600)
    assert not has(world, "alpha")
    assert [record.feature for record in world.status.flags.disabled] == ["alpha"]


def test_kill_by_hand_of_a_dependent_outlives_the_emergency_of_its_prerequisite() -> None:
    """It was off already: the document says so, and somebody has said it again."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("EmergencyDisable", features=["alpha"])
    world.run(10)
    edit_text(world, disable("beta"))
    world.run(10)
    world.request("EmergencyEnable", features=["alpha"])
    world.run(20)
    assert (has(world, "alpha"), has(world, "beta")) == (True, False)
    assert [entry.by for entry in world.entries(EventReason.FLAGS_DISABLED)] == ["emergencydisable-0"]
    world.request("EmergencyEnable")
    world.run(20)
    assert has(world, "beta")


def test_enable_from_before_a_kill_by_hand_of_a_feature_that_is_off_does_not_end_it() -> None:
    """It was created first, and delivered late."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("EmergencyDisable", features=["alpha"])
    world.run(10)
    created = world.now
    world.now += timedelta(seconds=10)
    edit_text(world, disable("alpha"))
    world.run(10)
    late = world.request("EmergencyEnable", after=created - world.now)
    world.run(20)
    assert world.answer(late) == (False, ActionReason.EMERGENCY_IS_NEWER)
    assert not has(world, "alpha")


def test_kill_by_hand_of_a_feature_that_is_off_is_lifted_while_the_document_is_refused() -> None:
    """The edit stays in the document, and is learned once: a newer action ends it."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("EmergencyDisable", features=["alpha"])
    world.run(10)
    world.publishing = False
    edit_text(world, disable("alpha"))
    world.run(60)
    world.request("EmergencyEnable")
    world.run(60)
    assert world.status.flags.disabled == ()
    world.publishing = True
    world.run(20)
    assert has(world, "alpha")


def test_edits_again_and_again_push_out_no_other_protection() -> None:
    """A tool that keeps writing the document is one edit after another: a rollback is still known."""
    world = World(spec())
    world.until(at("two", 1))
    world.request("Abort", uid="uid-of-the-rollback")
    world.run(30)
    for _ in range(20):
        edit_text(world, disable("gamma"))
        world.run(10)
    assert "uid-of-the-rollback" in world.status.flags.settled
    assert len(world.entries(EventReason.FLAGS_DISABLED)) == 1


@pytest.mark.parametrize("off", [False, True])
def test_enable_of_the_second_of_a_kill_by_hand_does_not_end_it(*, off: bool) -> None:
    """Nobody can tell which came first, and what protects users wins; one of the next second ends it."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("EmergencyDisable", features=["alpha" if off else "gamma"])
    world.run(10)
    second = world.now
    world.now += timedelta(milliseconds=500)
    edit_text(world, disable("alpha"))
    world.settle()
    world.now += timedelta(milliseconds=300)
    world.request("EmergencyEnable", "same", after=second - world.now)
    world.settle()
    assert not has(world, "alpha")
    world.now += timedelta(milliseconds=400)
    world.request("EmergencyEnable", "next", after=second + timedelta(seconds=1) - world.now)
    world.run(10)
    assert has(world, "alpha")


@pytest.mark.parametrize("by_hand", [False, True], ids=["action", "hand"])
@pytest.mark.parametrize("ahead", [-HOUR, HOUR], ids=["back", "forward"])
def test_enable_from_before_an_emergency_does_not_end_it_after_a_clock_was_set(
    ahead: timedelta, monkeypatch: pytest.MonkeyPatch, *, by_hand: bool
) -> None:
    """The API server's clock was set by an hour; creation times are its, and those of edits are the operator's."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("EmergencyDisable", features=["gamma"])
    world.run(10)
    world.clock_jump = ClockJump(world.now, ahead, "api-server", ahead)
    world.run(120)
    world.request("EmergencyEnable", "early", after=ahead)
    late, world.actions = world.actions, []
    world.now += timedelta(seconds=20)
    if by_hand:
        edit_text(world, disable("alpha"))
    else:
        world.request("EmergencyDisable", features=["alpha"], after=ahead)
    observed = world.observed
    monkeypatch.setattr(world, "observed", lambda: replace(observed(), actions=tuple(world.actions)))
    world.run(20)
    assert not has(world, "alpha")
    world.actions = late
    world.run(20)
    assert not has(world, "alpha")
    world.request("EmergencyEnable", "newer", after=ahead)
    world.run(20)
    assert has(world, "alpha")


def test_on_call_edit_of_a_feature_that_is_off_outlives_the_earlier_emergency() -> None:
    """The flag was off by the operator's own rules, and the command of the on-call guide leaves almost the same text."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("EmergencyDisable", features=["alpha"])
    world.run(10)
    world.now += timedelta(seconds=60)
    world.request("EmergencyEnable", "late", features=["alpha"])
    world.now += timedelta(seconds=60)
    edit_text(world, lambda flags: flags["alpha"].update(state="ENABLED", defaultVariant="off"))
    world.run(30)
    assert world.answer("late") == (False, ActionReason.EMERGENCY_IS_NEWER)
    assert not has(world, "alpha")


def without_value(flags: Flags) -> None:
    """The edit that makes the variant that users have a false one."""
    flags["gamma"]["variants"].update(on=False)


@pytest.mark.parametrize("again", [False, True])
def test_kill_by_hand_of_a_variant_is_not_a_placebo(*, again: bool) -> None:
    """What it leaves is the text of a placebo step, which the rollout does not have; nor has one that is created again."""
    phases = [
        {"name": "one", "features": ["gamma"], "steps": [{"percent": 10, "hold": "60s"}, {"percent": 100, "hold": "60s"}]},
        {"name": "two", "features": ["alpha", "beta"], "steps": [{"percent": 100, "hold": "60s"}]},
    ]
    world: World = World(spec(phases=phases))
    world.until(at("one", 1))
    edit_text(world, without_value)
    if again:
        world = recreated(world, phases=phases)
    world.run(300)
    assert [record.feature for record in world.status.flags.disabled] == ["gamma"]
    assert not has(world, "gamma")


def test_a_placebo_that_nobody_had_is_not_killed_by_another_edit() -> None:
    """Of a rollout that is created again while a later phase is in its placebo step: users keep what the earlier one gave them."""
    steps = [{"percent": 20, "placebo": True, "hold": "60s"}, {"percent": 100, "hold": "60s"}]
    phases = [
        {"name": "one", "features": ["gamma"], "steps": [{"percent": 60, "hold": "60s"}]},
        {"name": "two", "features": ["alpha", "beta"], "steps": steps},
    ]
    world: World = World(spec(phases=phases, guards=[]))
    world.until(lambda world: world.status.current.placebo == "20" and world.document is not None and has(world, "gamma"))
    edit_text(world, lambda flags: flags["alpha"]["targeting"]["if"].__setitem__(-1, "on"))
    world = recreated(world, phases=phases, guards=[])
    world.run(60)
    assert world.status.flags.adoption_required
    assert world.status.flags.disabled == ()
    assert has(world, "gamma")
