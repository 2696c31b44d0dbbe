"""Guards and criteria that compare the mean of a value with the feature and without it, such as a latency."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from core.counting import COMPARED, Counting, in_step, of_means
from core.world import ended
from session_rollout.api.enums import CheckKind, CheckReason, DecisionReason, Outcome, Verdict
from session_rollout.api.evidence_record import EvidenceRecord
from session_rollout.core.blocks import BlockProblem, CohortBlock
from session_rollout.core.evidence_text import decoded, encoded, events_of
from session_rollout.core.mean_comparison import MeanComparison
from session_rollout.core.statistics.rates import Block, Tolerance

SPREAD = 0.02
UNITS = [1e-7, 1.0, 1e9]  # of the values: fractions of seconds, seconds, bytes
START = datetime(2026, 1, 5, 10, tzinfo=UTC)
NEW = MeanComparison(Tolerance(1.25, 0.0), 0.01, 50_400, START)


def means(on: float, off: float, **fields: object) -> Counting:
    """A world whose latency has these means."""
    return Counting(**{"spec": of_means(), "rates": (on, off), "spread": SPREAD, **fields})  # type: ignore[arg-type]


def cells(on: float, off: float, number: int = 16) -> dict[str, Block]:
    """Sums of a block whose cells differ a little."""
    signs = [1 if index % 2 else -1 for index in range(number)]
    return {
        str(index): Block(on * 50 * (1 + sign * SPREAD), 50, off * 900 * (1 - sign * SPREAD), 900)
        for index, sign in enumerate(signs)
    }


def varied(number: int) -> CohortBlock:
    """A block whose cells differ otherwise than those of other blocks."""
    rng = np.random.default_rng(number)
    return block(
        number,
        {
            str(index): Block(15 * (1 + rng.normal(0, SPREAD)), 50, 270 * (1 + rng.normal(0, SPREAD)), 900)
            for index in range(16)
        },
    )


def block(number: int, sums: dict[str, Block], problem: BlockProblem | None = None) -> CohortBlock:
    """The block that ends after so many minutes."""
    return CohortBlock(START + timedelta(minutes=number), sums, problem=problem)


@pytest.mark.parametrize("unit", UNITS)
def test_a_mean_without_change_is_promoted(unit: float) -> None:
    world = means(0.3 * unit, 0.3 * unit)
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


@pytest.mark.parametrize("unit", UNITS)
def test_a_larger_mean_than_tolerated_is_rolled_back(unit: float) -> None:
    world = means(0.5 * unit, 0.3 * unit)
    world.until(ended)
    assert (world.status.outcome, world.status.current.rollback_guard) == (Outcome.ROLLED_BACK, "failures")


def test_percentage_points_of_a_mean_are_relative_to_it() -> None:
    """`plus: 20%` of 0.3 s is 60 ms, and not 0.2 s."""
    tolerate = {"times": "1", "plus": "20%"}
    world = means(0.42, 0.3, spec=of_means(guards=[{**COMPARED, "tolerate": tolerate}]))
    world.until(ended)
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_few_events_promote_nothing() -> None:
    control = {"block": "10s", "lag": "0s", "exposure": {"minEvents": 10}}
    world = means(0.3, 0.3, traffic=50.0, spec=of_means(guards=[], control=control))
    world.until(in_step("20"))
    world.run(150)
    assert world.status.current.percent == "20"
    assert world.verdict(CheckKind.CRITERION) == (Verdict.INCONCLUSIVE, CheckReason.COMPARISON_OPEN)


def test_without_cells_nothing_is_known() -> None:
    """How much values vary between users is not known, so that no step ends."""
    world = means(0.3, 0.3, cells=("",))
    world.until(in_step("20"))
    world.run(600)
    assert world.status.current.percent == "20"
    assert world.verdict(CheckKind.GUARD) == (Verdict.NO_DATA, CheckReason.NO_CELLS)
    assert world.status.decision.reason is DecisionReason.AWAITING_EVIDENCE


def test_a_block_without_cells_takes_no_evidence_away() -> None:
    known = NEW.add([block(1, cells(0.3, 0.3))])
    later = known.add([block(2, {"": Block(10, 50, 10, 900)})])
    assert later.problem_of(block(2, {"": Block(10, 50, 10, 900)})) is BlockProblem.NO_CELLS
    assert (later.cells, later.test.blocks, later.until) == (known.cells, 1, START + timedelta(minutes=2))


def test_too_few_cells_are_no_evidence() -> None:
    known = NEW.add(block(number, cells(5.0, 0.3, number=15)) for number in range(1, 30))
    assert known.verdict is Verdict.INCONCLUSIVE
    assert (known.log_harm, known.log_safety, known.missing) == (0, 0, 0)
    assert "15" in known.missing_text


def test_what_is_missing_shows_harmlessness() -> None:
    """About as many events as were said to be missing suffice, if the feature changes nothing."""
    tight = MeanComparison(Tolerance(1.01, 0.0), 0.01, 50_400, START)
    first = tight.add(varied(number) for number in range(1, 4))
    assert first.verdict is Verdict.INCONCLUSIVE
    assert 0 < first.missing < math.inf
    blocks = 4 + math.ceil(3 * first.missing / varied(1).whole.on_total / 19)
    assert first.add(varied(number) for number in range(4, blocks)).verdict is Verdict.PASS


@pytest.mark.parametrize("unit", UNITS)
def test_the_record_keeps_values_of_any_unit(unit: float) -> None:
    """A verdict from the record is the same as from the blocks."""
    record = EvidenceRecord(phase="one", kind=CheckKind.GUARD, name="slow", source="", alpha="0.01", until=START)
    known, stored = NEW, NEW
    for number in range(1, 40):
        news = [block(number, cells(0.37 * unit, 0.3 * unit))]
        known, stored = known.add(news), stored.add(news)
        record = encoded(record, stored)
        stored = decoded(record, NEW)
        assert isinstance(stored, MeanComparison)
        assert stored.verdict is known.verdict
        assert stored.log_harm == pytest.approx(known.log_harm, rel=1e-6)
    events = events_of(record)
    assert events is not None
    assert events.on_bad / events.on_total == pytest.approx(min(0.37 * unit, 1e15 / events.on_total), rel=1e-6)
    assert len(record.model_dump_json(by_alias=True, exclude_none=True)) <= 1100
    EvidenceRecord.model_validate(record.model_dump(by_alias=True))
