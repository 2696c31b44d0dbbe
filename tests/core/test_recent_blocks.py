"""What the latest blocks say about the audience that users have: one that cannot be read is no evidence, and neither is none.

Not here: why a block cannot be read (tests/adapters), and what a comparison makes of readable ones (test_comparison).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pytest

from core.counting import BLOCK, COMPARED, Counting, bounded, in_step, spec
from core.world import ended
from session_rollout.api.enums import CheckKind, CheckReason, EventReason, Outcome, Verdict
from session_rollout.core.blocks import BlockProblem, CohortBlock
from session_rollout.core.observed import Measurement
from session_rollout.core.recent_blocks import RECENT_BLOCKS

UNREADABLE = [problem for problem in BlockProblem if problem is not BlockProblem.NO_EVENTS]


@dataclass
class Spoiled(Counting):
    """Some blocks are not as they were counted."""

    spoil: Callable[[int, CohortBlock], CohortBlock] = lambda _, block: block
    known: bool = True  # whether blocks are read

    def _block(self, end: datetime) -> CohortBlock:
        return self.spoil(int(end.timestamp() / BLOCK.total_seconds()), super()._block(end))

    def measure(self, name: str) -> Measurement | None:
        measurement = super().measure(name)
        if measurement is None or measurement.series is None or self.known:
            return measurement
        start = self.status.current.published_time
        assert start is not None
        blocks = tuple(block for block in measurement.series.blocks if block.end <= start)
        return replace(measurement, series=replace(measurement.series, blocks=blocks))


def with_problem(problem: BlockProblem, *, share: int) -> Callable[[int, CohortBlock], CohortBlock]:
    """All but one of as many blocks have a problem."""
    return lambda number, block: CohortBlock(block.end, problem=problem) if number % share else block


WITHOUT_CRITERIA = [
    {"name": "one", "features": ["alpha"], "steps": [{"percent": 20, "hold": "60s"}, {"percent": 50, "hold": "60s"}]}
]
WAYS: dict[str, dict[str, Any]] = {
    "criterion and guard": {"spec": spec()},
    "guard": {"spec": spec(phases=WITHOUT_CRITERIA, features=[{"name": "alpha"}])},
    "criterion": {"spec": spec(guards=[])},
    "all users": {"spec": bounded(), "of_all": True},
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("problem", UNREADABLE)
def test_harm_does_not_remove_its_own_evidence(way: dict[str, Any], problem: BlockProblem) -> None:
    """In two of three blocks, sessions fail and are retried, so that more are bad than there are: the third one shows nothing."""
    world = Spoiled(**way, spoil=with_problem(problem, share=3))
    world.until(in_step("20"))
    world.run(600)
    assert world.status.current.percent == "20"
    assert {record.reason for record in world.status.checks} == {CheckReason(problem.value)}
    assert {record.verdict for record in world.status.checks} == {Verdict.NO_DATA}
    assert world.status.current.hold_until is None


def test_a_single_block_that_cannot_be_read_costs_ten_blocks() -> None:
    """Of the hold, which is paused; then it continues where it was."""
    world = Spoiled(spec())
    world.until(in_step("20"))
    world.until(lambda world: world.status.current.hold_until is not None)
    world.run(20)
    before = world.status.current.hold_until
    world.problem = BlockProblem.IMPOSSIBLE_COUNTS
    world.run(10)
    world.problem = None
    world.run(10 * (RECENT_BLOCKS - 1))
    assert world.verdict(CheckKind.GUARD) == (Verdict.NO_DATA, CheckReason.IMPOSSIBLE_COUNTS)
    world.run(10)
    assert world.verdict(CheckKind.GUARD)[0] is Verdict.PASS
    assert before is not None
    assert world.status.current.hold_until is not None
    assert BLOCK * RECENT_BLOCKS <= world.status.current.hold_until - before <= BLOCK * (RECENT_BLOCKS + 1)
    assert world.entries(EventReason.EVIDENCE_LOST)
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_quiet_minutes_are_none_of_them() -> None:
    """In every second block, nobody had a session."""
    world = Spoiled(spec(), spoil=with_problem(BlockProblem.NO_EVENTS, share=2))
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED
    assert not world.entries(EventReason.EVIDENCE_LOST)


def test_blocks_with_too_many_cells_are_not_passed_over() -> None:
    """The comparison has passed; from then on, each user is a cell, and nothing is compared any more."""
    world = Spoiled(spec())
    world.until(in_step("50"))
    for number in range(1, 61):
        world.cells = tuple(f"user-{number * 20 + each}" for each in range(20))
        world.rates = (0.5, 0.001) if number > 4 else world.rates
        world.run(10)
    assert world.status.current.percent == "50"
    assert world.verdict(CheckKind.CRITERION) == (Verdict.NO_DATA, CheckReason.UNEVEN_CELLS)


def test_no_block_about_an_audience_is_no_evidence_about_it() -> None:
    """That the audience before was harmless does not say that this one is."""
    world = Spoiled(spec())
    world.until(in_step("50"))
    world.known = False
    world.run(600)
    assert world.status.current.percent == "50"
    assert world.status.current.hold_until is None
    for kind in (CheckKind.GUARD, CheckKind.CRITERION):
        assert world.verdict(kind) == (Verdict.NOT_EVALUATED, CheckReason.AWAITING_RESULT)
    world.known = True
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


@pytest.mark.parametrize("problem", BlockProblem)
def test_first_blocks_about_an_audience_that_say_nothing_are_no_evidence_about_it(problem: BlockProblem) -> None:
    world = Spoiled(spec())
    world.until(in_step("50"))
    world.problem = problem
    for _ in range(5):
        world.run(10)
        assert world.status.current.hold_until is None
        assert world.verdict(CheckKind.CRITERION)[0] in {Verdict.NOT_EVALUATED, Verdict.NO_DATA}


def test_a_budget_that_is_not_used_up_needs_readable_blocks() -> None:
    """Some harm is shown, and is tolerated: that says nothing about a time that cannot be read."""
    guard = {**COMPARED, "harmBudget": 10_000_000}
    world = Spoiled(spec(guards=[guard], phases=WITHOUT_CRITERIA, features=[{"name": "alpha"}]), rates=(0.01, 0.001))
    world.until(in_step("20"))
    world.until(lambda world: world.status.current.hold_until is not None)
    world.problem = BlockProblem.IMPOSSIBLE_COUNTS
    world.run(600)
    assert world.status.current.percent == "20"
    assert world.verdict(CheckKind.GUARD) == (Verdict.NO_DATA, CheckReason.IMPOSSIBLE_COUNTS)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_bad_events_that_nobody_counts_are_not_zero(way: dict[str, Any]) -> None:
    """A spelling error in `bad`: half of the sessions fail, and no series says so."""
    world = Spoiled(**way, rates=(0.0, 0.0), counts_bad=False)
    world.until(in_step("20"))
    world.run(600)
    assert world.status.current.percent == "20"
    assert world.status.current.hold_until is None
    assert {(record.verdict, record.reason) for record in world.status.checks} == {
        (Verdict.NO_DATA, CheckReason.NO_BAD_COUNTER)
    }
    world.counts_bad = True  # with 0
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_a_counter_that_begins_with_the_first_bad_event_is_known_from_then_on() -> None:
    """Also while none of the Pods that run now has had one."""
    world = Spoiled(spec(), counts_bad=False)
    world.until(in_step("20"))
    world.until(lambda world: world.status.current.hold_until is not None)
    world.rates = (0.0, 0.0)
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED
