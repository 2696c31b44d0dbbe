"""A process that is killed, or whose status is refused, after what it has written to protect users: guards and emergencies go on.

Not here: random lives (tests/core/model), and the order of the writes (tests/controller/test_protection).
"""

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from core.world import World, at, spec
from session_rollout.core.documents import read_document
from session_rollout.core.flags import NOBODY

GUARD = {"name": "errors", "metric": "errors", "below": "5%"}


def protect(world: World) -> None:
    """Another process decides, writes what protects users, and is killed."""
    world.last_reconcile = None
    decision = world.decide()
    assert decision.urgent is not None
    world.apply(decision.urgent)


def edit_text(world: World, change: Callable[[dict[str, Any]], object]) -> None:
    """Somebody edits the flags of the document."""
    document = json.loads(world.documents[-1])
    change(document["flags"])
    assert world.document is not None
    known: dict[str, Any] = {"version": world.document.version + 1, "owner": world.name, "editor": "kubectl-edit"}
    world.document = read_document(json.dumps(document), protections=world.document.protections, **known)


def break_off(world: World, *, metadata: bool) -> None:
    """An edit gives a feature to more users and removes another one; its correction takes two documents."""

    def change(flags: dict[str, Any]) -> None:
        flags["gamma"]["targeting"]["if"][-2]["fractional"][1:] = [["on", 900], ["off", 100]]
        del flags["beta"]

    edit_text(world, change)
    assert world.document is not None
    if metadata:
        world.document = replace(world.document, revision=world.document.revision + 10)
    protect(world)


@pytest.mark.parametrize("metadata", [False, True], ids=["flags", "flags and revision"])
def test_half_of_a_correction_makes_no_guard_deaf(*, metadata: bool) -> None:
    world = World(spec(guards=[GUARD]))
    world.until(at("two", 1))
    before = world.document
    break_off(world, metadata=metadata)
    world.settle()
    assert before is not None
    assert world.document is not None
    assert world.document.audiences == before.audiences
    assert not world.status.flags.adoption_required
    world.values["errors"] = Decimal("0.5")
    world.run(120)
    assert world.document.audiences["gamma"] == NOBODY


@pytest.mark.parametrize("what", ["breach", "emergency"])
def test_what_protects_users_waits_for_no_status_when_the_document_is_gone(what: str) -> None:
    """Applications keep the last document. What users had of the others, and nothing more, comes with it."""
    world = World(spec(guards=[GUARD]))
    world.until(at("two", 1))
    before = world.document
    world.document = None
    if what == "breach":
        world.values["errors"] = Decimal("0.5")
        off = "gamma"
    else:
        world.request("EmergencyDisable", features=["alpha"])
        off = "alpha"
    protect(world)
    assert before is not None
    assert world.document is not None
    given = {name: audience for name, audience in world.document.audiences.items() if audience != NOBODY}
    had = {name: audience for name, audience in before.audiences.items() if name in given}
    assert off not in given or off in world.document.disabled
    assert given == had
    world.run(60)
    assert not world.status.flags.adoption_required
