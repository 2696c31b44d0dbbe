"""The state diagram: which stage leads to which, as a table written by hand.

A transition that the table lacks fails, and so does one that the table has and nothing makes. The random lives of test_model
check against the same table. Not here: the picture in the documentation, which is drawn from rehearsals.
"""

import itertools

import pytest

from core.scenarios import played
from core.transitions import TRANSITIONS
from session_rollout.api.enums import Stage

Transition = tuple[Stage, Stage]
TABLE: set[Transition] = {(before, after) for before, targets in TRANSITIONS.items() for after in targets}


@pytest.fixture(scope="module")
def made() -> dict[str, set[Transition]]:
    """The transitions of each scenario."""
    return {name: set(world.transitions) for name, world in played().items()}


def test_table_has_a_row_for_every_stage() -> None:
    """And every stage is reached from somewhere."""
    assert set(TRANSITIONS) == set(Stage)
    assert {after for _, after in TABLE} == set(Stage)


def test_nothing_is_made_that_the_table_lacks(made: dict[str, set[Transition]]) -> None:
    """With the scenario that makes it."""
    assert {name: transitions - TABLE for name, transitions in made.items() if transitions - TABLE} == {}


def test_everything_in_the_table_is_made(made: dict[str, set[Transition]]) -> None:
    """Each has a scenario."""
    assert TABLE - set[Transition]().union(*made.values()) == set()


def test_transitions_of_a_scenario_are_a_path() -> None:
    """Each begins where the one before ended: none is left out."""
    for name, world in played().items():
        path = world.transitions
        breaks = [(first, second) for first, second in itertools.pairwise(path) if first[1] is not second[0]]
        assert breaks == [], name
