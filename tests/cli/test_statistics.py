"""The tables of `explain --statistics` and the section of `report`: each comparison is in them, with its own numbers.

That the commands print them: test_generated.
"""

import io

from rich.console import Console

from core.counting import Counting, in_step, spec
from session_rollout.cli.render.statistics import tables_of
from session_rollout.cli.report import comparisons


def shown(world: Counting) -> list[str]:
    """The lines of all tables."""
    console = Console(file=io.StringIO(), width=120)
    for table in tables_of(world.spec, world.status.evidence, world.observed().measurements):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_before_the_first_block_there_is_none() -> None:
    world = Counting(spec())
    world.until(in_step("20"))
    assert tables_of(world.spec, world.status.evidence, {}) == ()


def test_each_comparison_has_its_numbers() -> None:
    """Also without the measurements that the decision had, when it was made before the metric had a result."""
    world = Counting(spec(), traffic=1000)
    world.until(lambda world: any(record.blocks >= 3 for record in world.status.evidence))
    lines = shown(world)
    assert sum("failures, phase one" in line for line in lines) == 2
    known = [record.blocks for record in world.status.evidence]
    assert [line.split()[3] for line in lines if "blocks" in line.split()[1:2]] == [str(number) for number in known]
    assert len(tables_of(world.spec, world.status.evidence, {})) == 2


def test_a_check_that_is_gone_has_none() -> None:
    world = Counting(spec(), traffic=1000)
    world.until(lambda world: any(record.blocks for record in world.status.evidence))
    assert len(tables_of(spec(guards=[]), world.status.evidence, {})) == 1


def test_report_says_how_small_a_harm_would_have_shown() -> None:
    """More evidence shows a smaller one; before the first block there is nothing to say."""
    world = Counting(spec(), traffic=1000)
    assert comparisons(world.rollout()).rows == ()
    smallest = []
    for blocks in (5, 40):
        world.until(lambda world, blocks=blocks: all(record.blocks >= blocks for record in world.status.evidence))
        rows = comparisons(world.rollout()).rows
        assert {(row[0], row[1]) for row in rows} == {("failures", "one")}
        smallest.append(float(rows[0][-1].removesuffix("%")))
    assert smallest[0] > smallest[1] > 0
