"""Results of range queries become blocks of evidence, or say why a period is none: it never counts by half."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from session_rollout.adapters.block_reader import read_blocks
from session_rollout.core.blocks import MOST_CELLS, BlockProblem, CohortBlock
from session_rollout.core.statistics.rates import NOTHING, Block

START = datetime(2026, 1, 5, tzinfo=UTC)
ENDS = tuple(START + number * timedelta(minutes=5) for number in (1, 2))


def matrix(*series: tuple[dict[str, str], list[str]], first: int = 0) -> dict[str, Any]:
    """A result with these series, one value for each end from the first one on."""
    times = [end.timestamp() for end in ENDS[first:]]
    result = [
        {"metric": labels, "values": [[time, value] for time, value in zip(times, values, strict=True)]}
        for labels, values in series
    ]
    return {"resultType": "matrix", "result": result}


def cohort(variant: str, cell: str = "") -> dict[str, str]:
    """The labels of a cohort, as Prometheus leaves out empty ones."""
    return {"variant": variant} | ({"cell": cell} if cell else {})


TOTAL = matrix((cohort("on"), ["50", "60"]), (cohort("off"), ["950", "940"]))
NONE = matrix()


def problems(bad: Any, total: Any) -> list[BlockProblem | None]:
    """Of both blocks."""
    return [block.problem for block in read_blocks(bad, total, ENDS)]


def test_counts_by_cohort() -> None:
    """A counter of bad events may be absent: then there are none."""
    bad = matrix((cohort("on"), ["1.5", "0"]))
    assert read_blocks(bad, TOTAL, ENDS) == (
        CohortBlock(ENDS[0], {"": Block(1.5, 50, 0, 950)}),
        CohortBlock(ENDS[1], {"": Block(0, 60, 0, 940)}),
    )


def test_counts_by_cell() -> None:
    """A cell without events of a cohort has none of them."""
    total = matrix((cohort("on", "2"), ["5", "6"]), (cohort("off", "1"), ["90", "91"]), (cohort("off", "2"), ["80", "81"]))
    bad = matrix((cohort("off", "1"), ["3", "4"]))
    first, second = read_blocks(bad, total, ENDS)
    assert first.cells == {"1": Block(0, 0, 3, 90), "2": Block(0, 5, 0, 80)}
    assert second.whole == Block(0, 6, 4, 172)


def test_a_counter_of_zero_is_not_none() -> None:
    """Whether there is one, of anybody, tells no bad events from a selector that selects nothing."""
    zero = matrix((cohort("off-chosen"), ["0"]), first=1)
    assert [block.counts_bad for block in read_blocks(zero, TOTAL, ENDS)] == [False, True]
    assert [block.counts_bad for block in read_blocks(NONE, TOTAL, ENDS)] == [False, False]


def test_chosen_users_are_apart() -> None:
    """They are reported, and not compared."""
    total = matrix(*((cohort(variant), ["9", "9"]) for variant in ("on", "off", "on-chosen", "off-chosen")))
    bad = matrix((cohort("on-chosen"), ["7", "7"]))
    block = read_blocks(bad, total, ENDS)[0]
    assert block.whole == Block(0, 9, 0, 9)
    assert block.chosen == Block(7, 9, 0, 9)


@pytest.mark.parametrize(
    ("bad", "total", "problem"),
    [
        (NONE, NONE, BlockProblem.NO_EVENTS),
        (NONE, matrix((cohort("on"), ["5", "5"])), BlockProblem.NO_EVENTS),
        (NONE, matrix((cohort("off"), ["5", "5"])), BlockProblem.NO_EVENTS),
        (NONE, matrix((cohort("on"), ["0", "0"]), (cohort("off"), ["5", "5"])), BlockProblem.NO_EVENTS),
        (NONE, matrix(({}, ["5", "5"])), BlockProblem.NO_VARIANTS),
        (NONE, matrix((cohort("true"), ["5", "5"]), (cohort("false"), ["5", "5"])), BlockProblem.NO_VARIANTS),
        (NONE, matrix((cohort("on-chosen"), ["5", "5"])), BlockProblem.NO_VARIANTS),
        (NONE, matrix((cohort("on"), ["5", "5"]), (cohort("off", "1"), ["5", "5"])), BlockProblem.UNEVEN_CELLS),
        (
            NONE,
            matrix(*((cohort("on", f"user-{number}"), ["1", "1"]) for number in range(MOST_CELLS + 1))),
            BlockProblem.UNEVEN_CELLS,
        ),
        (matrix((cohort("on"), ["70", "70"])), TOTAL, BlockProblem.IMPOSSIBLE_COUNTS),
        (matrix((cohort("on"), ["NaN", "NaN"])), TOTAL, BlockProblem.NOT_A_COUNT),
        (matrix((cohort("off"), ["+Inf", "+Inf"])), TOTAL, BlockProblem.NOT_A_COUNT),
        (matrix((cohort("off"), ["-1", "-1"])), TOTAL, BlockProblem.NOT_A_COUNT),
    ],
)
def test_no_evidence(bad: Any, total: Any, problem: BlockProblem) -> None:
    assert problems(bad, total) == [problem, problem]
    blocks = read_blocks(bad, total, ENDS)
    assert all(block.whole == NOTHING or (block.tells_shares and problem is BlockProblem.NO_EVENTS) for block in blocks)


def test_a_difference_of_sums_may_be_a_little_below_zero() -> None:
    """No observation of a histogram is over the bound, and Prometheus has added the Pods in another order."""
    bad = matrix((cohort("on"), ["-1.7763568394002505e-15", "0"]), (cohort("off"), ["-1.1368683772161603e-13", "0"]))
    assert [block.whole for block in read_blocks(bad, TOTAL, ENDS)] == [Block(0, 50, 0, 950), Block(0, 60, 0, 940)]


def test_a_block_without_one_cohort_tells_how_many_events_the_other_has() -> None:
    """That nobody has the feature is what it says."""
    (block, _) = read_blocks(NONE, matrix((cohort("off", "3"), ["5", "5"])), ENDS)
    assert (block.problem, block.whole) == (BlockProblem.NO_EVENTS, Block(0, 0, 0, 5))


def test_one_block_does_not_spoil_the_other() -> None:
    """A cohort whose series begin in the second block: the first one is no evidence, not one with zeros."""
    total = matrix((cohort("on"), ["60"]), (cohort("off"), ["940"]), first=1)
    assert problems(NONE, total) == [BlockProblem.NO_EVENTS, None]


@pytest.mark.parametrize(
    "data",
    [
        {},
        None,
        {"resultType": "vector", "result": []},
        {"resultType": "matrix"},
        {"resultType": "matrix", "result": [{"metric": {}}]},
        {"resultType": "matrix", "result": [{"metric": {}, "values": [[1]]}]},
        matrix((cohort("on"), ["x", "1"])),
        matrix((cohort("on"), ["1", "1"]), (cohort("on"), ["1", "1"])),
        {"resultType": "matrix", "result": [{"metric": cohort("on"), "values": [[START.timestamp(), "1"]]}]},
        {"resultType": "matrix", "result": [{"metric": cohort("on"), "values": [[ENDS[0].timestamp(), "1"]] * 2}]},
    ],
)
def test_another_response_is_an_error(data: Any) -> None:
    with pytest.raises((LookupError, TypeError, ValueError)):
        read_blocks(data, TOTAL, ENDS)


EVEN = matrix(*((cohort(variant, cell), ["900", "900"]) for variant in ("on", "off") for cell in ("0", "1")))


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ({}, BlockProblem.NO_VARIANTS),
        ({"cell": "0"}, BlockProblem.NO_VARIANTS),
        (cohort("on"), BlockProblem.UNEVEN_CELLS),
        (cohort("on", "7"), BlockProblem.UNEVEN_CELLS),
        (cohort("on-chosen", "0"), BlockProblem.IMPOSSIBLE_COUNTS),
    ],
)
def test_bad_events_under_other_labels_are_not_lost(labels: dict[str, str], problem: BlockProblem) -> None:
    """They would be zero for both cohorts, and every feature look harmless."""
    assert problems(matrix((labels, ["9", "0"])), EVEN) == [problem, None]


@pytest.mark.parametrize("cell", ["eu 1", "a;b", "x" * 17, "ä"])
def test_a_cell_has_a_plain_name(cell: str) -> None:
    total = matrix((cohort("on", cell), ["50", "60"]), (cohort("off", cell), ["950", "940"]))
    assert problems(NONE, total) == [BlockProblem.UNEVEN_CELLS] * 2


def test_events_of_all_users() -> None:
    """Series without a variant, by cell; there is no other cohort that could have none."""
    total = matrix(({"cell": "1"}, ["50", "0"]), ({"cell": "2"}, ["60", "0"]))
    bad = matrix(({"cell": "2"}, ["3", "0"]))
    first, second = read_blocks(bad, total, ENDS, of_all=True)
    assert first == CohortBlock(ENDS[0], {"1": Block(0, 50, 0, 0), "2": Block(3, 60, 0, 0)})
    assert second.problem is BlockProblem.NO_EVENTS
    assert [block.problem for block in read_blocks(NONE, NONE, ENDS, of_all=True)] == [BlockProblem.NO_EVENTS] * 2


SUMS = matrix((cohort("on"), ["70", "600"]), (cohort("off"), ["95", "9.4"]))


def test_sums_of_values_have_any_size() -> None:
    assert [block.whole for block in read_blocks(SUMS, TOTAL, ENDS, of_values=True)] == [
        Block(70, 50, 95, 950),
        Block(600, 60, 9.4, 940),
    ]


@pytest.mark.parametrize(
    ("sums", "problem"),
    [
        (NONE, BlockProblem.IMPOSSIBLE_COUNTS),
        (matrix((cohort("on"), ["70", "600"])), BlockProblem.IMPOSSIBLE_COUNTS),
        (matrix((cohort("on"), ["70", "600"]), (cohort("off"), ["-3", "-3"])), BlockProblem.NOT_A_COUNT),
        (matrix((cohort("on"), ["70", "600"]), (cohort("off"), ["NaN", "NaN"])), BlockProblem.NOT_A_COUNT),
    ],
)
def test_events_without_a_sum_are_no_evidence(sums: Any, problem: BlockProblem) -> None:
    """They would count as events of no duration."""
    assert [block.problem for block in read_blocks(sums, TOTAL, ENDS, of_values=True)] == [problem, problem]
