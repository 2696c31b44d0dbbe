"""A flag document that waits for `Adopt` or `Reset` keeps what only it knows, whatever is written to it meanwhile.

Not here: what the two actions do (test_adoption).
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Final

import pytest

from core.world import World, ended, spec
from session_rollout.api.status import RolloutStatus
from session_rollout.core.flags import NOBODY


def kill_by_hand(world: World) -> None:
    """Somebody edits the document."""
    world.tamper(taken_away=frozenset({"gamma"}), editor="kubectl-edit")


WRITES: Final[dict[str, Callable[[World], object]]] = {
    "nothing": lambda _: None,
    "emergency": lambda world: world.request("EmergencyDisable", features=["gamma"]),
    "kill by hand": kill_by_hand,
}


def lose_status(world: World) -> None:
    """The object is created again, and another process reconciles it."""
    world.status, world.uid, world.last_reconcile = RolloutStatus(), f"{world.uid}-again", None
    world.run(30)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("losses", [1, 2])
def test_rollback_of_a_kept_document_outlives_what_is_written_to_it(write: Callable[[World], object], losses: int) -> None:
    """Only the document knows of it: `Adopt` must not publish again what was rolled back."""
    world = World(spec())
    world.until(lambda world: world.percents().get("one") == "50")
    world.values["errors"] = Decimal("0.5")
    world.until(ended)
    world.values["errors"] = Decimal("0.001")
    for _ in range(losses):
        lose_status(world)
        assert world.status.flags.adoption_required
        write(world)
        world.run(30)
        assert world.document is not None
        assert world.document.rolled_back is not None
    world.request("Adopt")
    world.run(2000)
    assert world.document is not None
    assert set(world.document.audiences.values()) == {NOBODY}
    assert ended(world)
