"""Rollouts whose users with a feature are compared with those without it, for `core.scenarios`."""

from collections.abc import Callable
from typing import Final

from core.collecting import World
from core.counting import COMPARED, Counting, in_step, of_means, spec
from core.world import ended
from session_rollout.api.enums import DecisionReason
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.blocks import BlockProblem


def blocks_show_harmlessness() -> World:
    """Until everybody has the feature, and there is nothing to compare any more."""
    world = Counting(spec())
    world.until(ended)
    return world


def blocks_are_compared() -> World:
    """Too few events, blocks of each kind that say nothing, then harm."""
    world = Counting(spec(guards=[{**COMPARED, "onBreach": "Warn"}]), traffic=100)
    world.until(lambda world: any(record.blocks for record in world.status.evidence))
    world.run(100)
    for problem in BlockProblem:
        world.problem = problem
        world.run(40)
    world.problem, world.traffic, world.rates = None, 1e5, (0.1, 0.001)
    world.run(60)
    return world


def nobody_receives_the_feature() -> World:
    """Too few events for too long at first, then none at all with the feature."""
    control = {"block": "10s", "lag": "0s", "exposure": {"deadline": "1m"}}
    world = Counting(spec(control=control), traffic=20)
    world.until(in_step("20"))
    world.run(100)
    world.traffic, world.applied = 10_000, 0.0
    world.run(60)
    return world


def a_placebo_is_harmful() -> World:
    """Nobody has the feature, and bad events are counted for some users more often."""
    data = spec().to_wire()
    data["phases"][0]["steps"].insert(0, {"percent": 20, "hold": "60s", "placebo": True})
    world = Counting(RolloutSpec.model_validate(data), rates=(0.05, 0.001))
    world.until(lambda world: world.reason is DecisionReason.COMPARISON_BROKEN)
    return world


def every_event_is_bad() -> World:
    """So that no rate with the feature would be too high."""
    world = Counting(spec(), rates=(1.0, 1.0))
    world.until(in_step("20"))
    world.run(60)
    return world


def nobody_counts_bad_events() -> World:
    """The selector has a spelling error."""
    world = Counting(spec(), rates=(0.0, 0.0), counts_bad=False)
    world.until(in_step("20"))
    world.run(60)
    return world


def users_are_held_back() -> World:
    """Until the release after the bake, and the promotion."""
    world = Counting(spec(control={"block": "10s", "lag": "0s", "holdback": "2%"}))
    world.until(ended)
    return world


def means_have_no_cells() -> World:
    """So that nobody knows how much the values vary."""
    world = Counting(of_means(), cells=("",))
    world.until(in_step("20"))
    world.run(60)
    return world


STORIES: Final[tuple[Callable[[], World], ...]] = (
    blocks_show_harmlessness,
    blocks_are_compared,
    nobody_receives_the_feature,
    a_placebo_is_harmful,
    every_event_is_bad,
    nobody_counts_bad_events,
    users_are_held_back,
    means_have_no_cells,
)
