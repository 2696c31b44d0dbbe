"""Audiences that were decided and are not published: the API server refuses the document, or somebody has changed it.

Not here: what is corrected by hand (test_documents), and a document that keeps being changed (test_drift).
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from core.world import World, at, edited, spec
from session_rollout.api.enums import DecisionReason
from session_rollout.core.flags import Audience

SLOW = [{"name": "errors", "metric": "errors", "below": "5%", "for": "600s"}]
CLOSED = [{"timeZone": "UTC", "days": ["Mon"], "from": "03:00", "to": "03:01"}]
TEN, ALL = {"percent": 10, "hold": "60s"}, {"percent": 100, "hold": "60s"}
Steps = list[dict[str, Any]]


def rollout(steps: Steps, **changes: Any) -> Any:
    """A spec with these steps in phase one."""
    return edited(lambda data: data["phases"][0].update(steps=steps), guards=SLOW, **changes)


def decided(phase: str, step: int) -> Callable[[World], bool]:
    """The audience of this step was decided."""
    return lambda world: world.where[:2] == (phase, step)


def published(world: World) -> Audience | None:
    """Who has alpha by the document in the cluster; None without a document."""
    return None if world.document is None else world.document.audiences["alpha"]


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("cause", ["guard", "pause", "suspend", "window", "lowered"])
def test_audience_whose_write_was_refused_is_not_published_against_the_rules(cause: str, step: int) -> None:
    """The decision may be hours old when the API server accepts the document: the rules are asked again."""
    world = World(rollout([TEN, ALL]))
    world.publishing = step == 2
    world.until(decided("one", 1))
    world.until(lambda world: not world.publishing or world.status.current.published_time is not None)
    world.publishing = False
    world.until(decided("one", step))
    before, steps = published(world), [TEN, ALL]
    match cause:
        case "guard":
            world.values["errors"] = Decimal("0.08")
        case "pause":
            world.request("Pause")
        case "lowered":
            steps[step - 1] = {"percent": 5 if step == 1 else 20, "hold": "60s"}
            world.edit(rollout(steps))
        case _:
            world.edit(rollout(steps, **({"suspend": True} if cause == "suspend" else {"windows": CLOSED})))
    world.run(20)
    world.publishing = True
    world.run(30)
    after = Audience(Decimal(5)) if (cause, step) == ("lowered", 1) else before or Audience()
    assert published(world) in {after, before}
    if cause == "guard":
        assert world.reason is DecisionReason.GUARD_FAILING
        world.values["errors"] = Decimal("0.001")
    elif cause == "pause":
        world.request("Resume")
    elif cause != "lowered":
        world.edit(rollout(steps))
    world.until(at("one", 2))
    world.run(10)
    assert published(world) == Audience(Decimal(20 if (cause, step) == ("lowered", 2) else 100))


def test_deleted_document_comes_back_without_an_audience_that_must_wait() -> None:
    """The earlier phase is published again; of the running phase nobody has anything until the rules allow it."""
    world = World(spec(guards=SLOW))
    world.until(at("two", 1))
    world.publishing = False
    world.until(decided("two", 2))
    world.document = None
    world.request("Pause")
    world.run(20)
    world.publishing = True
    world.run(20)
    assert world.document is not None
    assert world.document.audiences["alpha"] == Audience(Decimal(100), ("staff",))
    assert world.document.audiences["gamma"] == Audience()
    world.request("Resume")
    world.run(20)
    assert world.document.audiences["gamma"] == Audience(Decimal(100))


def test_document_that_differs_completes_no_step() -> None:
    """Somebody has lowered it and the correction is refused: this time is about another audience."""
    world = World(spec())
    world.until(at("one", 1))
    assert world.document is not None
    world.publishing = False
    less = {**world.document.audiences, "alpha": Audience(Decimal("0.1"))}
    world.tamper(audiences=less, editor="kubectl-edit")
    world.run(600)
    assert world.where[:2] == ("one", 1)
    assert world.reason is DecisionReason.PUBLISHING
    world.publishing = True
    start = world.now
    world.until(at("one", 2, 1))
    assert (world.now - start).total_seconds() >= 40
