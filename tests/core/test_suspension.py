"""A suspended rollout says that guards are not heard, and what users keep."""

import pytest

from core.world import World, at, ended, spec
from session_rollout.core.suspension import kept_audiences, suspended_text


def suspended(world: World) -> World:
    """The same rollout, suspended."""
    world.edit(spec(suspend=True))
    world.run(20)
    return world


@pytest.mark.usefixtures("prose")
def test_message_says_that_guards_are_not_heard_and_what_users_keep() -> None:
    """In MESSAGE; each feature is in the details."""
    world = World(spec())
    world.until(at("one", 1))
    suspended(world)
    assert world.status.decision.message == "suspended: guards are not heard, users keep 2 features"
    assert "10%+staff keep alpha" in world.status.decision.details
    world.request("EmergencyDisable", features=["beta"], reason="drill")
    world.run(10)
    assert world.status.decision.message.endswith("suspended: guards are not heard, 10%+staff keep alpha")


@pytest.mark.usefixtures("prose")
def test_nothing_published_has_nothing_to_guard() -> None:
    """Before the first step, and when everything is off."""
    world = suspended(World(spec()))
    assert world.status.decision.message == "suspended"
    assert kept_audiences(world.spec, world.status) == {}


def test_feature_that_has_left_the_spec_is_kept_too() -> None:
    """What is published counts."""
    world = World(spec())
    world.until(ended)
    fewer = spec(features=[{"name": "alpha"}, {"name": "beta"}], phases=[world.spec.phases[0].to_wire()])
    assert kept_audiences(fewer, world.status) == {"alpha": "100%+staff", "beta": "100%+staff", "gamma": "100%"}
    assert suspended_text(fewer, world.status) != "suspended"
