"""The value of a feature before its phase: what a rollout begins with, and what no edit of it gives to users.

Not here: documents that another status has published (test_adoption), the rules of the spec (tests/api).
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import pytest

from core.document_scenarios import recreated
from core.world import World, at, edited, ended, rollout_data, spec
from session_rollout.api.enums import DecisionReason, Outcome, PhaseState
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.flags import EVERYBODY, NOBODY, Audience
from session_rollout.core.generation import conflict

WHOLE: Final = {"percent": 100, "hold": "60s"}


def with_initial(value: str, **changes: Any) -> RolloutSpec:
    """The feature of phase two has this value before it, and its first step gives it to everybody."""

    def change(data: dict[str, Any]) -> None:
        data["features"][2]["initial"] = value
        data["phases"][1].update(steps=[WHOLE], criteria=[])

    return edited(change, **changes)


def gamma(world: World) -> Audience | None:
    """Who has the feature by the document in the cluster."""
    assert world.document is not None
    return world.document.audiences["gamma"]


def _suspend(world: World) -> dict[str, Any]:
    assert world
    return {"suspend": True}


def _pause(world: World) -> dict[str, Any]:
    world.request("Pause")
    world.settle()
    return {}


def _fail(world: World) -> dict[str, Any]:
    world.values["errors"] = Decimal("0.9")
    return {"guards": [{"name": "errors", "metric": "errors", "below": "5%", "for": "10h"}]}


MEANWHILE: Final[dict[str, Callable[[World], dict[str, Any]]]] = {
    "nothing": lambda _: {},
    "suspend": _suspend,
    "pause": _pause,
    "failing guard": _fail,
}


@pytest.mark.parametrize("meanwhile", MEANWHILE.values(), ids=MEANWHILE)
def test_edit_of_the_initial_value_gives_nothing(meanwhile: Callable[[World], dict[str, Any]]) -> None:
    """Only a phase gives users what they do not have; `diff` says so before, and the old value ends the stall."""
    world = World(with_initial("Off"))
    world.until(at("one", 1))
    changes = meanwhile(world)
    changed = with_initial("On", **changes)
    assert conflict(changed, world.status) is not None
    world.edit(changed)
    world.run(600)
    assert (gamma(world), world.percents()["two"]) == (NOBODY, "0")
    assert world.reason is (DecisionReason.SUSPENDED if "suspend" in changes else DecisionReason.INVALID_SPEC)
    world.values["errors"] = Decimal("0.001")
    world.edit(with_initial("Off"))
    world.request("Resume")
    world.until(ended)
    assert (world.status.outcome, gamma(world)) == (Outcome.PROMOTED, EVERYBODY)


def test_edit_in_a_rollback_gives_nothing_either() -> None:
    """The rollback ends first, and the document is written with the spec as it is."""
    world = World(with_initial("Off"))
    world.until(at("one", 1))
    world.publishing = False
    world.request("Abort")
    world.run(10)
    world.edit(with_initial("On"))
    world.run(10)
    world.publishing = True
    world.run(600)
    assert (gamma(world), world.reason) == (NOBODY, DecisionReason.INVALID_SPEC)


def test_feature_that_begins_on_is_on() -> None:
    """Also after edits, and until its phase; once it was taken away by an edit, no edit gives it back."""
    world = World(with_initial("On"))
    world.until(at("one", 1))
    world.edit(with_initial("On", bake="10s"))
    world.run(30)
    assert gamma(world) == EVERYBODY
    world.edit(with_initial("Off"))
    world.run(30)
    assert gamma(world) == NOBODY
    world.edit(with_initial("On"))
    world.run(30)
    assert (gamma(world), world.reason) == (NOBODY, DecisionReason.INVALID_SPEC)


def test_new_feature_begins_with_its_initial_value() -> None:
    """Users may have what it names from the code alone, before the rollout knows of it."""
    world = World(spec())
    world.until(at("one", 1))
    data = rollout_data()
    data["features"].append({"name": "legacy", "initial": "On"})
    data["phases"].append({"name": "three", "features": ["legacy"], "steps": [WHOLE]})
    world.edit(RolloutSpec.model_validate(data))
    world.run(30)
    assert world.document is not None
    assert world.document.audiences["legacy"] == EVERYBODY
    world.until(ended)


def test_initial_value_of_a_published_feature_means_nothing() -> None:
    """Git may say what is the case when the feature is complete."""
    world = World(with_initial("Off", bake="600s"))
    world.until(lambda world: world.percents()["two"] == "100" and world.status.current.phase == "two")
    world.run(30)
    world.edit(with_initial("On", bake="10s"))
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED
    assert world.status.flags.initially_off == ()


def test_status_of_an_older_version_learns_what_began_off() -> None:
    """Before the first edit that it sees, not by it."""
    world = World(with_initial("Off"))
    world.until(at("one", 1))
    world.status = world.status.updated(flags=world.status.flags.updated(initially_off=()))
    world.run(10)
    world.edit(with_initial("On"))
    world.run(60)
    assert (gamma(world), world.reason) == (NOBODY, DecisionReason.INVALID_SPEC)


@pytest.mark.parametrize("ending", ["", "Abort"])
def test_adopted_document_gives_nothing_that_the_spec_says_now(ending: str) -> None:
    """Whoever replaces the object edits it, too: `Adopt` gives what the document gives."""
    world = World(with_initial("Off"))
    world.until(at("one", 1))
    if ending:
        world.request(ending)
        world.until(ended)
    fresh = recreated(world)
    fresh.spec = with_initial("On")
    fresh.request("Adopt")
    fresh.run(60)
    assert (gamma(fresh), fresh.percents()["two"]) == (NOBODY, "0")
    assert [record.state for record in fresh.status.phases][1] is PhaseState.PENDING
    fresh.edit(with_initial("Off", bake="10s"))
    fresh.run(60)
    assert fresh.reason is not DecisionReason.INVALID_SPEC


@pytest.mark.parametrize("end", ["breach", "off"])
def test_reset_gives_nobody_what_users_had_lost(end: str) -> None:
    """`initial: On` is what users have before a phase; a phase has taken the feature away, and only a phase gives it again."""
    world = World(with_initial("On"))
    world.until(at("two", 1))
    world.values["errors"] = Decimal("0.5")
    world.until(ended)
    world.values["errors"] = Decimal("0.001")
    assert gamma(world) == NOBODY
    fresh = recreated(world)
    fresh.spec = with_initial("On")
    if end == "off":  # as `deletionPolicy: Off` leaves the document: it does not say that it was rolled back
        assert fresh.document is not None
        fresh.tamper(audiences=dict.fromkeys(fresh.document.audiences, NOBODY), protections=())
    else:
        fresh.settle()
        fresh.request("Reset")
    fresh.answering = False  # no phase gives anything
    fresh.run(60)
    assert (gamma(fresh), fresh.reason) == (NOBODY, DecisionReason.INVALID_SPEC)
    fresh.answering = True
    fresh.edit(with_initial("Off"))
    fresh.until(at("two", 1))


@pytest.mark.parametrize("action", ["Adopt", "Reset"])
def test_the_end_of_an_emergency_gives_a_new_object_nothing_by_its_initial_value(action: str) -> None:
    """The document does not say who had the feature before the emergency."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("EmergencyDisable", features=["gamma"])
    world.run(10)
    fresh = recreated(world, features=with_initial("On").to_wire()["features"])
    fresh.run(10)
    for each in (action, "EmergencyEnable"):
        fresh.request(each)
        fresh.run(20)
    assert fresh.status.flags.disabled == ()
    assert gamma(fresh) == NOBODY
