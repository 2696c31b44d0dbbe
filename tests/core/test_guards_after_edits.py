"""Guards go on over edits, a Retry and an Abort: none of them ends a breach of what users have."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.collecting import with_delta
from core.world import World, at, edited, ended, spec
from session_rollout.api.enums import Outcome, Stage
from session_rollout.core.flags import NOBODY


def test_edits_do_not_end_a_breach() -> None:
    """Whoever edits the spec every few seconds is rolled back all the same."""
    guard = {"name": "errors", "metric": "errors", "below": "5%", "for": "2m"}
    world = World(spec(guards=[guard]))
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.08")
    for seconds in range(30):
        world.edit(spec(guards=[guard], bake=f"{seconds + 1}s"))
        world.run(10)
    assert world.status.outcome is not None or world.percents()["one"] == "0"


@pytest.mark.parametrize("where", ["further phase in the bake", "preflight", "edit after an abort", "Retry after an abort"])
def test_neither_edit_nor_retry_blinds_the_guards_of_what_is_published(where: str) -> None:
    """D5: the range of the query is ten minutes; the breach is acted on after the 30 s of `for`, as without the edit."""
    guard = {"name": "errors", "metric": "errors", "below": "5%", "for": "30s"}
    common: dict[str, Any] = {
        "guards": [guard],
        "bake": "10h",
        "preflight": [{"name": "signed", "approval": {}}] if where == "preflight" else [],
    }
    world = World(spec(**common), ranges={"errors": timedelta(minutes=10)})
    if where == "preflight":
        world.run(10)
        world.request("Approve", generation=1, check="signed")
    if "bake" in where or where == "preflight":
        world.until(lambda world: world.status.current.stage is Stage.BAKE, 9000)
    else:
        world.until(at("two", 1), 9000)
        world.request("Abort")
        world.until(ended)
    if where == "preflight":
        world.edit(edited(with_delta, **common))
    world.run(1800)
    world.values["errors"] = Decimal("0.08")
    world.run(20)
    if where == "further phase in the bake":
        world.edit(edited(with_delta, **common))
    elif where == "Retry after an abort":
        world.request("Retry", generation=1)
    else:
        world.edit(edited(with_delta if where == "preflight" else lambda _: None, **common | {"bake": "11h"}))
    world.run(60)
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert world.document is not None
    assert world.document.audiences["gamma"] == NOBODY
