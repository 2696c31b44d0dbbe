"""The flag document while somebody else writes it: what is recorded, and when the rollout stalls.

Not here: what is corrected and what is adopted (test_documents).
"""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from core.document_scenarios import document_is_contested
from core.world import World, at, ended, rollout_data, spec
from session_rollout.api.enums import DecisionReason, EventReason, Outcome, Stage, State
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.flags import NOBODY, Audience


@pytest.mark.parametrize("how", ["edited", "raised", "deleted"])
def test_drift_is_recorded_once_while_it_cannot_be_corrected(how: str) -> None:
    """However often the write is refused; and again for a later edit."""
    world = World(spec())
    world.until(at("one", 1))
    for times in (1, 2):
        assert world.document is not None
        world.publishing = False
        if how == "deleted":
            world.document = None
        else:
            more = {**world.document.audiences, "alpha": Audience(Decimal(100))}
            revision = world.document.revision + (how == "raised")
            world.tamper(f"sha256:{times}", audiences=more, revision=revision, editor="kubectl-edit")
        world.run(60)
        world.publishing = True
        world.run(10)
        assert len(world.entries(EventReason.FLAG_DRIFT)) == times
        world.request("Pause")
        world.run(400)


def test_document_that_another_controller_writes_is_a_stall() -> None:
    """A ConfigMap under GitOps: users have either; nothing counts as evidence, and the history keeps what happened."""
    world = document_is_contested()
    assert (world.status.state, world.reason) == (State.STALLED, DecisionReason.DOCUMENT_CONTESTED)
    assert world.status.current.hold_paused_reason in {None, DecisionReason.DOCUMENT_CONTESTED}
    assert world.where[:2] == ("one", 1)
    assert [entry.by for entry in world.entries(EventReason.FLAG_DRIFT)] == ["argocd-controller"] * 2
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_contested_document_is_still_corrected() -> None:
    """What a rollback takes away is taken away each time, and the status says that it does not stay so."""
    world = document_is_contested()
    world.request("Abort")
    for number in range(5):
        assert world.document is not None
        more = {**world.document.audiences, "alpha": Audience(Decimal(50))}
        world.document = replace(
            world.document,
            sha256=f"sha256:again-{number}",
            version=world.document.version + 1,
            audiences=more,
            editor="argocd-controller",
        )
        world.run(10)
        assert world.document.audiences["alpha"] == Audience(Decimal(0))
    assert [world.reason] == [DecisionReason.DOCUMENT_CONTESTED]
    world.run(600)
    assert world.reason is DecisionReason.ABORTED


def test_no_first_audience_is_published_while_the_document_is_contested() -> None:
    """Nobody knows what users have: the phase waits, as each step does."""
    world = World(spec(guards=[{"name": "errors", "metric": "errors", "below": "5%", "onBreach": "Pause"}]))
    world.values["errors"] = Decimal("0.5")  # the guard keeps the first publish back
    world.run(60)
    for number in range(4):
        assert world.document is not None
        more = {**world.document.audiences, "alpha": Audience(Decimal(100))}
        world.tamper(f"sha256:{number}", audiences=more, editor="argocd")
        world.run(10)
    world.values["errors"] = Decimal("0.001")
    world.run(20)
    assert world.document is not None
    assert not world.document.gives_something
    assert world.where[:2] == ("one", 0)
    world.until(at("one", 1))


RANGE = timedelta(minutes=60)


@pytest.mark.parametrize("alpha", [Audience(Decimal(1)), NOBODY, None], ids=["lowered", "off", "deleted"])
def test_data_from_a_time_with_another_document_is_no_evidence_for_a_gate(alpha: Audience | None) -> None:
    """The document was changed by hand, or deleted, while the operator was away: the gate's query covers that time."""
    gate = {"name": "load", "metric": "load", "below": "2"}
    data = rollout_data()
    data["phases"] = [{**data["phases"][0], "criteria": [], "verification": [gate]}]
    world = World(
        RolloutSpec.model_validate(data), ranges={"load": RANGE}, values={"errors": Decimal("0.001"), "load": Decimal(9)}
    )
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    world.run(2 * 3600)
    assert world.reason is DecisionReason.AWAITING_GATES
    world.now += timedelta(minutes=50)
    assert world.document is not None
    if alpha is None:
        world.document = None
    else:
        world.tamper(audiences={**world.document.audiences, "alpha": alpha}, editor="argocd")
    world.values["load"] = Decimal(1)
    back = world.now
    world.run(60)
    if world.status.flags.disabled:  # taken away whole: an emergency, which is lifted now
        world.request("EmergencyEnable")
    world.until(ended, seconds=6 * 3600)
    assert world.now - back >= RANGE
