"""The application's Deployment: undo as part of a rollback or by an action, and a restart.

Not here: what the adapter changes in the Deployment (tests/integration).
"""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.world import World, at, ended, spec
from session_rollout.api.enums import ActionReason, DecisionReason, EventReason, Outcome
from session_rollout.core.observed import Revisions

WEB: dict[str, Any] = {"workload": {"kind": "Deployment", "name": "web"}}
UNDO: dict[str, Any] = {**WEB, "rollback": {"workload": "Undo"}}


def test_rollback_undoes_the_workload_once() -> None:
    """Flags first, then the earlier revision; a crash at any point repeats nothing."""
    world = World(spec(**UNDO), revisions=Revisions(7, 6))
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.06")
    reasons = set()
    while not ended(world):
        world.reconcile(crash_before_effects=True)
        world.reconcile()
        reasons.add(world.reason)
        world.now += timedelta(seconds=5)
    assert DecisionReason.UNDOING_WORKLOAD in reasons
    assert world.undone == [(7, 6)]
    record = world.status.workload
    assert record is not None
    assert (record.undo_from, record.undo_to) == (7, 6)
    assert record.undone_time is not None
    assert len(world.entries(EventReason.WORKLOAD_UNDONE)) == 1
    world.run(60)
    assert world.undone == [(7, 6)]


IMPOSSIBLE = {
    "first revision": Revisions(1, None),
    "no right": Revisions(3, 2, blocked_reason="the operator may not patch deployments"),
}


@pytest.mark.parametrize("revisions", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_workload_that_cannot_go_back_does_not_delay_the_rollback(revisions: Revisions) -> None:
    """The rollback ends, and an event says that the workload was kept."""
    world = World(spec(**UNDO), revisions=revisions)
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.06")
    world.until(ended)
    record = world.status.workload
    assert (world.status.outcome, world.undone) == (Outcome.ROLLED_BACK, [])
    assert record is not None
    assert (record.undo_from, record.undo_to) == (revisions.current, None)
    assert len(world.entries(EventReason.WORKLOAD_KEPT)) == 1


def test_actions_restart_and_undo_the_workload() -> None:
    """Each once, whatever crashes; refused where the spec names none."""
    world = World(spec(**WEB), revisions=Revisions(7, 6))
    world.until(at("one", 1))
    restart = world.request("RestartWorkload")
    world.reconcile(crash_before_effects=True)
    world.run(20)
    assert (len(world.restarts), world.answer(restart)) == (1, (True, ActionReason.ACCEPTED))
    assert len(world.entries(EventReason.WORKLOAD_RESTARTED)) == 1
    undo = world.request("UndoWorkload")
    world.run(20)
    assert (world.undone, world.answer(undo)) == ([(7, 6)], (True, ActionReason.ACCEPTED))
    bare = World(spec())
    bare.until(at("one", 1))
    refused = bare.request("RestartWorkload")
    bare.run(10)
    assert bare.answer(refused) == (False, ActionReason.NO_WORKLOAD)
    assert bare.status.workload is None, "a request that was refused leaves nothing in status"


def test_restart_that_is_not_allowed_ends() -> None:
    """The request is done with an event, and is not repeated for ever."""
    world = World(spec(**WEB), revisions=Revisions(7, 6, blocked_reason="the operator may not patch deployments"))
    world.until(at("one", 1))
    world.request("RestartWorkload")
    world.run(20)
    assert (world.restarts, len(world.entries(EventReason.WORKLOAD_KEPT))) == ([], 1)
