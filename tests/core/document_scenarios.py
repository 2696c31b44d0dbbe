"""Rollouts whose document and status differ, and requests that cannot be carried out; see `scenarios`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from core import world as tests
from core.collecting import World
from core.world import START, at, spec
from session_rollout.api.enums import DecisionReason
from session_rollout.api.status_records import Refusal
from session_rollout.core.deleted import decide_deleted
from session_rollout.core.fallback import stall_after, stall_unparsed
from session_rollout.core.flags import Audience
from session_rollout.core.observed import ClockJump, Decision


def recreated(world: tests.World, **changes: Any) -> World:
    """The same rollout after its object was deleted and created again, with the document that was left behind."""
    fresh = World(spec(**changes), uid="uid-2", now=world.now, created=world.now)
    assert world.document is not None
    fresh.document = replace(world.document, owner=None)
    return fresh


def document_is_adopted() -> World:
    """An audience that no step has, the step that has it, and nothing left to adopt."""
    world = World(spec())
    world.until(at("one", 3))
    fresh = recreated(world)
    assert fresh.document is not None
    right, odd = fresh.document, {**fresh.document.audiences, "alpha": Audience(Decimal(33))}
    fresh.document = replace(right, audiences=odd)
    fresh.run(10)
    for action in ("Adopt", "EmergencyEnable"):
        fresh.request(action)
        fresh.run(10)
    fresh.document = right
    for _ in range(2):
        fresh.request("Adopt")
        fresh.run(10)
    return fresh


def document_is_reset() -> World:
    """The other way out, after an answer that was for the object before."""
    world = World(spec())
    world.until(at("one", 1))
    fresh = recreated(world)
    fresh.request("Adopt", after=timedelta(seconds=-1))
    fresh.run(10)
    fresh.request("Reset")
    fresh.run(60)
    return fresh


def rolled_back_document_is_adopted() -> World:
    """The rollback stays when the object is created again."""
    world = World(spec())
    world.until(at("two", 1))
    world.values["errors"] = Decimal("0.5")
    world.until(tests.ended)
    fresh = recreated(world)
    fresh.values["errors"] = Decimal("0.001")
    fresh.run(10)
    fresh.request("Adopt")
    fresh.run(60)
    return fresh


def document_is_foreign() -> World:
    """Two rollouts with one flag set, and one feature in both."""
    world = World(spec())
    world.other_rollouts = {"alpha": "other"}
    world.tamper()
    assert world.document is not None
    world.document = replace(world.document, owner="other")
    world.request("EmergencyDisable")
    world.run(10)
    return world


def promote_is_rejected_where_it_cannot_act() -> World:
    """Not published yet, paused, stalled, disabled, and from before an outage."""
    world = World(spec())
    world.refuse_first_publish()
    place: dict[str, Any] = {"generation": 1, "phase": "one", "step": 1}
    world.run(10)
    world.request("Promote", **place)
    world.run(10)
    world.publishing = True
    world.until(at("one", 1))
    world.request("Promote", **place, after=timedelta(minutes=-6))
    world.run(10)
    for before, after in (("Pause", "Resume"), ("EmergencyDisable", "EmergencyEnable")):
        world.request(before)
        world.run(10)
        world.request("Promote", **place)
        world.run(10)
        world.request(after)
        world.run(10)
    world.problems = ("the provider is not configured",)
    world.request("Promote", **place)
    world.run(10)
    return world


def emergency_is_lifted_before_it_is_published() -> World:
    """Two people, and a document that cannot be written."""
    world = World(spec())
    world.until(at("one", 1))
    world.publishing = False
    for action in ("EmergencyDisable", "EmergencyEnable"):
        world.request(action)
        world.run(10)
    return world


def clock_is_set() -> World:
    """That of the API server, by an hour."""
    world = World(spec())
    world.until(at("one", 1))
    world.clock_jump = ClockJump(world.now, timedelta(hours=-1), "api-server", timedelta(hours=-1))
    world.run(10)
    return world


def guard_fails_before_the_first_publish() -> World:
    """Nobody gets a feature while it does."""
    guard = {"name": "errors", "metric": "errors", "below": "5%"}
    world = World(spec(guards=[guard]))
    world.values["errors"] = Decimal("0.5")
    world.run(60)
    assert world.reason is DecisionReason.GUARD_FAILING
    return world


def document_is_contested() -> World:
    """Another controller applies a document of its own."""
    world = World(spec())
    world.until(at("one", 1))
    for number in range(5):
        world.tamper(f"sha256:{number}", editor="argocd-controller")
        world.run(10)
    return world


def request_is_refused() -> World:
    """A right is missing."""
    world = World(spec())
    world.until(at("one", 1))
    words = "jobs.batch is forbidden"
    world.refusals = (
        Refusal(effect="StartJob", verb="create", resource="jobs", namespace="default", message=words, since=START),
    )
    world.run(10)
    return world


@dataclass
class FailingWorld(World):
    """Deciding raises an exception that nobody foresaw."""

    failing: bool = False
    problem: str = ""  # why the object cannot be parsed

    jobs_left: tuple[str, ...] = ()  # what its deletion waits for

    def decide(self) -> Decision:
        if self.jobs_left:
            return decide_deleted(self.observed(), self.now, jobs=self.jobs_left, finalizers=(), released=False)
        if self.problem:
            return stall_unparsed(self.observed(), self.now, self.problem)
        return stall_after(self.observed(), self.now, "KeyError in decide.py:1 in decide") if self.failing else super().decide()


def deciding_fails() -> World:
    """Emergencies are carried out all the same."""
    world = FailingWorld(spec())
    world.until(at("one", 1))
    world.failing = True
    name = world.request("EmergencyDisable", features=["alpha"])
    world.run(10)
    assert world.answer(name)[0]
    assert "targeting" not in world.flag("alpha")
    return world


def object_cannot_be_parsed() -> World:
    """The CRD is newer than the operator; then the operator is upgraded."""
    world = FailingWorld(spec())
    world.until(at("one", 1))
    world.problem = "`spec.novel` is 'x': Extra inputs are not permitted"
    off, pause = world.request("EmergencyDisable", features=["alpha"]), world.request("Pause")
    world.run(60)
    assert (world.answer(off)[0], world.answer(pause)[0]) == (True, False)
    assert world.reason is DecisionReason.UNPARSABLE
    world.problem = ""
    world.request("EmergencyEnable")
    world.until(at("one", 2, 1))
    return world


def deletion_waits_for_a_job() -> World:
    """Guards and emergencies still work."""
    world = FailingWorld(spec())
    world.until(at("one", 1))
    world.jobs_left = ("shop-rows-up-1",)
    resume = world.request("Resume")
    world.run(600)
    assert world.where[:2] == ("one", 1)
    assert not world.answer(resume)[0]
    world.values["errors"] = Decimal("0.5")
    world.run(60)
    assert world.reason is DecisionReason.DELETING
    assert world.document is not None
    assert not world.document.gives_something
    return world


STORIES: Final[tuple[Callable[[], World], ...]] = (
    document_is_adopted,
    document_is_reset,
    rolled_back_document_is_adopted,
    document_is_foreign,
    promote_is_rejected_where_it_cannot_act,
    emergency_is_lifted_before_it_is_published,
    clock_is_set,
    guard_fails_before_the_first_publish,
    document_is_contested,
    request_is_refused,
    deciding_fails,
    object_cannot_be_parsed,
    deletion_waits_for_a_job,
)
