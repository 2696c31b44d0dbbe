"""The picture of `status`, drawn from what the core leaves in status on its way; a terminal of 80 columns."""

from decimal import Decimal

from rich.console import Console

from core.test_stories import at, ended
from core.world import World, spec
from session_rollout.api.enums import MigrationState, Outcome
from session_rollout.api.status import MigrationRecord
from session_rollout.cli.render import status
from session_rollout.cli.render.status import draw


def picture(world: World) -> str:
    """What a person sees now."""
    console = Console(width=80, highlight=False, emoji=False, markup=False)
    with console.capture() as drawn:
        console.print(draw(world.rollout(), world.now))
    return drawn.get()


def lines(world: World, word: str) -> list[str]:
    return [line for line in picture(world).splitlines() if word in line]


def test_every_picture_of_a_run_fits_and_marks_one_running_step_at_most() -> None:
    """From the first look to the end; steps behind are done, and never ahead again."""
    world, most = World(spec()), 0
    while not ended(world):
        world.run(60)
        text = picture(world)
        assert max(map(len, text.splitlines())) <= 80
        most = max(most, text.count("▶ step"))
        assert text.count("▶ step") <= 1
    assert most == 1
    assert world.status.outcome is Outcome.PROMOTED
    assert lines(world, "step ")
    assert all("✔ step" in line for line in lines(world, "step "))


def test_an_ended_rollout_says_its_end_and_no_action() -> None:
    """`None` is the decision's word for it, not a person's; the cause stands once."""
    world = World(spec())
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.06")
    world.until(ended)
    text = picture(world)
    assert "RolledBack" in text.splitlines()[0]
    assert text.splitlines()[1].startswith("rolled back: errors 6% is not below 5%")
    assert "None" not in text
    assert text.count("errors 6% is not below 5%") == 1


def test_what_goes_on_below_a_long_line_is_indented() -> None:
    """Reasons keep to the right of the decision, also where the terminal makes them wrap."""
    world = World(spec())
    world.until(at("one", 1))
    decision = world.status.decision.model_copy(update={"details": ("word " * 30,)})
    world.status = world.status.model_copy(update={"decision": decision})
    rows = picture(world).splitlines()
    first = next(number for number, line in enumerate(rows) if line.startswith("  because word"))
    assert rows[first + 1].startswith("  word")


def test_moved_rows_are_told_in_one_line() -> None:
    """How many, how fast, and that changes are followed: what a person looks for, before what fits no more."""
    record = MigrationRecord(
        name="legacy-sessions", state=MigrationState.RUNNING, done=11_088, total=41_396, rate=3_947, following=True
    )
    line = status._migration(record).plain
    assert line == "▶ migration legacy-sessions up, 11,088 of 41,396 rows, 3,947/s, follows"
    assert len(line) + len("├── ") <= 80


def test_baseline_is_told_with_the_bound_in_few_digits() -> None:
    """As in every sentence of the core: four."""
    world = World(spec())
    world.until(at("one", 1))
    world.run(20)
    [line] = lines(world, "load")
    assert "increase of at most 10% from 1" in line
