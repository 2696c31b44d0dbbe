"""Audiences that were decided and are not published: the API server refuses the document, or somebody has changed it.

Not here: what is corrected by hand (test_documents), and a document that keeps being changed (test_drift).
"""

import copy
import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.world import World, at, edited, spec
from session_rollout.api.enums import DecisionReason, EventReason, Verdict
from session_rollout.api.status_records import Refusal
from session_rollout.core.documents import read_document
from session_rollout.core.flags import Audience
from session_rollout.core.observed import Publish

SLOW = [{"name": "errors", "metric": "errors", "below": "5%", "for": "600s"}]
CLOSED = [{"timeZone": "UTC", "days": ["Mon"], "from": "03:00", "to": "03:01"}]
TEN, ALL = {"percent": 10, "hold": "60s"}, {"percent": 100, "hold": "60s"}
SINCE: dict[str, Decimal | Verdict] = {
    "criterion": Decimal("0.03"),
    "guard": Verdict.NO_DATA,
    "provider": Verdict.PROVIDER_ERROR,
}
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


def refuse(world: World, step: int) -> None:
    """The audience of the step is decided, and the API server does not accept its document."""
    if step == 1:
        world.refuse_first_publish()
    else:
        world.until(at("one", 1))
        world.publishing = False
    world.until(decided("one", step))


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("cause", ["guard", "pause", "suspend", "window", "lowered"])
def test_audience_whose_write_was_refused_is_not_published_against_the_rules(cause: str, step: int) -> None:
    """The decision may be hours old when the API server accepts the document: the rules are asked again."""
    world = World(rollout([TEN, ALL]))
    refuse(world, step)
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
        assert step == 2 or world.reason is DecisionReason.GUARD_FAILING
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
    world.until(at("two", 1))
    assert world.document.audiences["gamma"] == Audience(Decimal(50))


@pytest.mark.parametrize("step", [1, 2])
def test_audience_that_another_leader_publishes_is_not_taken_back(step: int) -> None:
    """Its queries have answers and those of this one have not: both go by the same status, in which the audience is the intent."""
    world = World(rollout([TEN, ALL]))
    refuse(world, step)
    other, intent = copy.deepcopy(world), world.status.flags
    world.answering, other.publishing = False, True
    world.reconcile()  # the status of this decision could not be written, and the next one starts from it
    other.reconcile()
    assert world.status.flags == intent
    world.document = other.document
    decision = world.reconcile()
    assert decision.urgent is None
    assert not any(isinstance(effect, Publish) for effect in decision.effects)
    assert world.status.current.published_time is not None
    assert published(world) == Audience(Decimal(10 if step == 1 else 100))


@pytest.mark.parametrize("step", [1, 2])
def test_audience_that_another_leader_publishes_is_not_taken_back_after_a_refusal(step: int) -> None:
    """What was refused is requested again without the audience that must wait, which is a revision of its own."""
    world = World(rollout([TEN, ALL]))
    refuse(world, step)
    other = copy.deepcopy(world)
    world.answering, other.publishing = False, True
    world.refusals = (Refusal(effect="Publish", verb="patch", resource="configmaps", since=world.now, message="forbidden"),)
    world.reconcile()
    other.reconcile()
    world.document, world.publishing, world.refusals = other.document, True, ()
    decision = world.reconcile()
    assert decision.urgent is None
    world.settle()
    assert published(world) == Audience(Decimal(10 if step == 1 else 100))
    assert world.status.current.published_time is not None


@pytest.mark.parametrize("interval", ["10s", "60s"])
def test_refused_document_is_requested_while_an_audience_waits_for_it(interval: str) -> None:
    """Without a request the refusal would seem over: each decision would undo what the one before has shown."""
    world = World(rollout([TEN, ALL], checkInterval=interval))
    refuse(world, 2)
    refusal = Refusal(effect="Publish", verb="patch", resource="configmaps", since=world.now, message="forbidden")
    world.refusals, before = (refusal,), len(world.history)
    for _ in range(20):
        world.now += timedelta(seconds=10)
        decision = world.reconcile()
        assert any(isinstance(effect, Publish) for effect in (*decision.effects, decision.urgent))
    assert len(world.history) <= before + 2


@pytest.mark.parametrize("editor", [None, "kubectl-edit"])
def test_rules_edited_by_hand_while_an_audience_waits_are_corrected(editor: str | None) -> None:
    """Everybody is forced on, and the audience of each feature reads the same."""
    world = World(rollout([TEN, ALL]))
    refuse(world, 2)
    world.request("Pause")
    world.run(20)
    world.publishing = True
    world.run(20)
    assert world.document is not None
    document = json.loads(world.documents[-1])
    document["$evaluators"]["forcedOn"] = True
    edited = json.dumps(document, indent=1)
    world.document = read_document(edited, version=world.document.version + 1, owner=world.name, editor=editor)
    world.run(20)
    assert world.document.sha256 != read_document(edited).sha256


def refused_raise(kind: str) -> World:
    """The raise from 10% to 100% was decided, and its write is refused; the criterion or the guard has no good result since."""
    world = World(rollout([TEN, ALL]))
    refuse(world, 2)
    world.values["errors"] = SINCE[kind]
    return world


@pytest.mark.parametrize("kind", ["criterion", "guard", "provider"])
def test_raise_that_could_not_be_written_lapses(kind: str) -> None:
    """Its evidence is old by then: the audience that users have is held again, and judged."""
    world = refused_raise(kind)
    world.run(3600)
    assert (world.where[:2], world.status.current.audience) == (("one", 1), "10%")
    assert len(world.entries(EventReason.AUDIENCE_LAPSED)) == 1
    world.publishing = True
    world.run(3600)
    assert published(world) == Audience(Decimal(10))
    world.values["errors"] = Decimal("0.001")
    world.until(decided("one", 2))
    world.run(10)
    assert published(world) == Audience(Decimal(100))


@pytest.mark.parametrize("kind", ["criterion", "provider"])
def test_raise_waits_for_the_criteria_until_it_is_written(kind: str) -> None:
    """One that fails since ends it at once; one without a result of now keeps it waiting."""
    world = refused_raise(kind)
    world.run(10)
    assert world.where[:2] == ("one", 1 if kind == "criterion" else 2)
    assert len(world.entries(EventReason.AUDIENCE_LAPSED)) == (kind == "criterion")
    world.publishing = True
    world.run(10)
    assert published(world) == Audience(Decimal(10))
    world.values["errors"] = Decimal("0.001")
    assert world.until(lambda world: published(world) == Audience(Decimal(100))) >= (60 if kind == "criterion" else 0)


@pytest.mark.parametrize("cause", ["criterion", "window", "pause"])
def test_promote_is_not_asked_for_criteria_or_windows_when_it_is_written_late(cause: str) -> None:
    """Who created it has seen them. A pause since then voids it, as it does before the decision."""
    world = World(rollout([TEN, ALL]))
    world.until(at("one", 1))
    if cause == "window":
        world.edit(rollout([TEN, ALL], windows=CLOSED))
    else:
        world.values["errors"] = Decimal("0.03")
    world.run(10)
    world.publishing = False
    world.request("Promote", generation=world.generation, phase="one", step=1, reason="known")
    world.until(decided("one", 2))
    if cause == "pause":
        world.request("Pause")
        world.run(10)
        world.request("Resume")
    world.run(10)
    assert (world.status.current.raised_by is not None) is (cause != "pause")
    world.publishing = True
    world.run(10)
    assert published(world) == Audience(Decimal(10 if cause == "pause" else 100))
    assert world.status.current.raised_by is None


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("away", [5, 172_800])
def test_raise_that_another_process_decided_waits_for_the_guards(step: int, away: int) -> None:
    """It ended before the write; a guard has been in breach since."""
    world = World(rollout([TEN, ALL]))
    refuse(world, step)
    before = published(world)
    world.now += timedelta(seconds=away)
    world.publishing, world.answering = True, False
    world.values["errors"] = Decimal("0.9")
    world.settle()
    assert published(world) in {before, Audience()}
    world.answering = True
    for _ in range(60):
        world.run(10)
        assert published(world) in {before, Audience()}


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


@pytest.mark.parametrize("percent", [None, 5, 80, 99, 100])
@pytest.mark.parametrize("then", ["lapse", "edit", "pause", "guard"])
def test_edit_by_hand_while_a_raise_is_refused_is_no_audience_of_the_rollout(percent: int | None, then: str) -> None:
    """It is corrected to what users had before the raise, as in any other moment: no step and no approval is skipped."""
    steps = [TEN, {"percent": 50, "hold": "1d", "approval": "Required"}, ALL]
    world = World(rollout(steps))
    refuse(world, 2)
    given = None if percent is None else Audience(Decimal(percent))
    assert world.document is not None
    world.tamper(audiences={**world.document.audiences, "alpha": given, "beta": given}, editor="kubectl-edit")
    match then:
        case "edit":
            world.edit(edited(lambda data: data["phases"][0].update(steps=steps), guards=SLOW, bake="7m"))
        case "pause":
            world.request("Pause")
        case "guard":
            world.values["errors"] = Decimal("0.08")
    world.run(60)
    world.publishing = True
    world.run(30)
    most = Audience(Decimal(50)) if then == "edit" else Audience(Decimal(10))
    assert published(world) is not None
    assert published(world) in {Audience(Decimal(5)), Audience(Decimal(10)), most}
    world.values["errors"] = Decimal("0.001")
    world.run(900)
    assert (world.percents()["one"], world.status.outcome) in {("10", None), ("50", None)}


def _without_alpha(data: dict[str, Any]) -> None:
    data["features"] = [*data["features"][1:], {"name": "delta"}]
    data["phases"][0].update(steps=[TEN, ALL], features=["delta", *data["phases"][0]["features"][1:]])


def _with_delta(data: dict[str, Any]) -> None:
    data["features"] = [*data["features"], {"name": "delta"}]
    data["phases"][0].update(steps=[TEN, ALL], features=[*data["phases"][0]["features"], "delta"])


@pytest.mark.parametrize("change", [_without_alpha, _with_delta])
def test_raise_that_is_in_the_document_does_not_fall_by_an_edit(change: Callable[[dict[str, Any]], None]) -> None:
    """Users have it. That the new spec names other features does not make it one that was never published."""
    world = World(rollout([TEN, ALL]))
    world.until(at("one", 1))
    world.request("Promote", generation=1, phase="one", step=1)
    world.reconcile()
    assert published(world) == Audience(Decimal(100))
    assert world.status.current.published_time is None
    world.edit(edited(change, guards=SLOW))
    for _ in range(6):
        world.run(10)
        assert published(world) == Audience(Decimal(100))
