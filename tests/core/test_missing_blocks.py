"""Blocks that are not read yet, or never will be: a decision is made on events of now, and not on the first half of an outage.

Which blocks a result has, and of what time it is, is for tests/adapters; what a block says, for test_control.
"""

from typing import Any

import pytest

from core.counting import BLOCK, Counting, bounded, in_step, spec
from session_rollout.api.enums import CheckKind, CheckReason, EventReason, Outcome, Verdict

HARM = (0.5, 0.001)
KINDS: dict[str, dict[str, Any]] = {"cohorts": {}, "all users": {"known": bounded(), "of_all": True}}


def held(known: Any = None, **fields: Any) -> Counting:
    """A world in the hold of its first step, for 20 percent."""
    world = Counting(known or spec(), traffic=10_000, **fields)
    world.until(in_step("20"))
    world.until(lambda world: world.status.current.hold_until is not None)
    return world


def away(world: Counting, harmless: int, harmful: int) -> None:
    """The operator is away for these blocks, of which it has read the harmless ones when it is back."""
    last = world.now
    world.leave(harmless)
    world.read_until = world.now
    world.rates = HARM
    world.leave(harmful)
    world.last_reconcile = last
    world.reconcile()


@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
def test_no_step_ends_while_blocks_of_an_outage_are_still_to_be_read(fields: dict[str, Any]) -> None:
    """Its second half is harmful, and would be out of reach once a larger audience is published."""
    world = held(**fields)
    away(world, 1100, 800)
    for _ in range(30):
        world.now += BLOCK
        world.measure("failures")
        world.reconcile()
    assert world.status.current.percent == "20"
    assert world.verdict(CheckKind.CRITERION) == (Verdict.NO_DATA, CheckReason.STALE_RESULT)
    assert world.status.current.hold_paused_time is not None
    world.read_until = None
    world.run(20)
    assert world.status.outcome is Outcome.ROLLED_BACK


@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
def test_harm_in_the_blocks_that_were_read_needs_no_other_ones(fields: dict[str, Any]) -> None:
    """What protects users waits for nothing."""
    world = held(**fields)
    world.rates = HARM
    last = world.now
    world.leave(1000)
    world.read_until = world.now
    world.leave(800)
    world.last_reconcile = last
    world.run(20)
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_blocks_that_are_too_old_to_be_read_are_reported() -> None:
    """The others decide; how many there are is in the history."""
    world = held()
    last = world.now
    world.leave(2_500)
    world.counted = {end: block for end, block in world.counted.items() if end > world.now - 2_000 * BLOCK}
    world.last_reconcile = last
    world.run(30)
    lost = [entry for entry in world.entries(EventReason.EVIDENCE_LOST) if "500 blocks" in entry.message]
    assert len(lost) == 2, "one of the guard, and one of the criterion"
    assert world.status.outcome is None


def test_nothing_is_reported_as_lost_where_nothing_is() -> None:
    world = held()
    world.run(600)
    assert not world.entries(EventReason.EVIDENCE_LOST)
