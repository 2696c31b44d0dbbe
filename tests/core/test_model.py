"""Ten thousand random lives of a rollout: verdicts, edits, actions, crashes and clock jumps in any order.

The invariants are stated against what the test itself fed in, not against the operator's records: never a promotion
without passing evidence of this generation, never a percentage that rises after a breach, never a shorter hold than
declared, always an end or a reason; every action once, with one answer, also under a name that was used before; no
transition that the table of stages lacks. Crashes lose the effects of a decision, or the process; clocks jump by up to an
hour.
"""

import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from core.transitions import TRANSITIONS
from core.world import World
from session_rollout.api.enums import DecisionAction, DecisionReason, EventReason, Outcome, Stage, Verdict
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status import RolloutStatus
from session_rollout.core.observed import Answer, Decision, Emit

RUNS = int(os.environ.get("MODEL_RUNS", "10000"))
INTERVAL = timedelta(seconds=10)
HOLD = timedelta(seconds=20)
GAP = 2 * INTERVAL  # between two decisions at most this much counts as observed
SPEC = """
flagSet: model
checkInterval: 10s
propagation: 0s
features: [{name: alpha}, {name: beta}]
metrics: [{name: errors, query: errors}]
phases:
- {name: one, features: [alpha], steps: [{percent: 10, hold: 20s}, {percent: 60, hold: 20s}], criteria: [{name: errors, metric: errors, below: 1%}]}
- {name: two, features: [beta], steps: [{percent: 100, hold: 20s, approval: Required}], criteria: [{name: errors, metric: errors, below: 1%}]}
guards: [{name: errors, metric: errors, below: 5%, for: 10s}]
rollback: {scope: Phase}
"""
PLAIN = yaml.safe_load(SPEC)
GOOD, BAD, BREACH = Decimal("0.001"), Decimal("0.02"), Decimal("0.2")
RESULTS = [GOOD, GOOD, GOOD, BAD, BREACH, Verdict.NO_DATA, Verdict.PROVIDER_ERROR, Verdict.INCONCLUSIVE]
EDITS: list[dict[str, Any]] = [
    {"bake": "10s"},
    {"bake": "20s"},
    {"suspend": True},
    {"suspend": False},
    {"rollback": {"scope": "Step"}},
]
ACTIONS = ["Approve", "Promote", "Pause", "Resume", "Abort", "Retry", "EmergencyDisable", "EmergencyEnable"]
USED_NAME = "again"
ANSWER_EVENTS = {EventReason.ACTION_ACCEPTED: True, EventReason.ACTION_REJECTED: False}

EVENTS = st.one_of(
    st.tuples(st.just("time"), st.sampled_from([10, 10, 10, 20, 30, 60])),
    st.tuples(st.just("time"), st.sampled_from([10, 10, 20, 40])),
    st.tuples(st.just("result"), st.sampled_from(RESULTS)),
    st.tuples(st.just("edit"), st.sampled_from(EDITS)),
    st.tuples(st.just("action"), st.sampled_from(ACTIONS)),
    st.tuples(st.just("action under a used name"), st.sampled_from(ACTIONS)),
    st.tuples(st.just("action and crash"), st.sampled_from(ACTIONS)),
    st.tuples(st.just("crash"), st.sampled_from(["before effects", "whole process", "unknown absence", "no results yet"])),
    st.tuples(st.just("jump"), st.sampled_from([-3600, -60, 60, 3600])),
    st.tuples(st.just("publishing"), st.booleans()),
)


@dataclass
class Witness:
    """Watches the world from outside and objects."""

    world: World
    evidence: timedelta = timedelta(0)  # observed, passing or failing, since the audience was read back
    place: tuple[Any, ...] = ()
    generation: int = 0
    had_evidence: bool = False  # the last result fed in while at this place and generation
    last: datetime | None = None
    breached_in: int | None = None
    share: dict[str, Decimal] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)  # by UID: the first that was sent
    stage: Stage = Stage.PREFLIGHT

    def reconcile(self, *, crash: bool = False) -> None:
        """One decision of the operator, and what the witness makes of it."""
        world = self.world
        before, result = world.status, world.values["errors"]
        value = result if isinstance(result, Decimal) and world.answering else None
        promoting = any(action.spec.action == "Promote" for action in world.actions)
        decision = world.reconcile(crash_before_effects=crash)
        if before.outcome is not None and world.status.outcome is None:
            self.breached_in = None  # a Retry, or another generation
        self._account(value)
        self._check_raises(before, value, promoting=promoting)
        self._check_reasons()
        self._check_answers(decision)
        self._check_transitions(decision)
        self._remember(value)

    def _account(self, value: Decimal | None) -> None:
        """Evidence grows by the time since the last decision, as far as that counts as observed.

        A result stands until the next one: what it says of the time before it is not known.
        """
        now = self.world.now
        if self.last is not None and self.had_evidence and self.world.answering:
            self.evidence += max(min(now - self.last, GAP), timedelta(0))
        self.last, self.had_evidence = now, value is not None

    def _check_raises(self, before: RolloutStatus, value: Decimal | None, *, promoting: bool) -> None:
        world = self.world
        for record in world.status.phases:
            share, old = Decimal(record.percent), self.share.get(record.name, Decimal(0))
            if share > old and not promoting:
                self._must_be_earned(before, record.name, value)
            if share > old and self.breached_in == world.status.observed_generation:
                raise AssertionError("a percentage rose after a breach in the same generation")
            self.share[record.name] = share
        ended = world.status.outcome is Outcome.PROMOTED and before.outcome is not Outcome.PROMOTED
        assert not ended or before.current.stage is not Stage.STEP or promoting or value == GOOD, (
            "promoted without passing evidence"
        )

    def _must_be_earned(self, before: RolloutStatus, phase: str, value: Decimal | None) -> None:
        """A raise within a phase needs a passing result of this generation and its whole hold of evidence."""
        if before.current.stage is not Stage.STEP:
            return  # the first audience of a phase; what came before it was checked when it ended
        assert value == GOOD, f"raised {phase} on {value}"
        assert self.generation == self.world.status.observed_generation, "raised on evidence of another generation"
        assert self.evidence >= HOLD, f"raised {phase} after {self.evidence} of evidence, its hold is {HOLD}"
        assert not before.paused_by, "raised while paused"
        assert not self.world.spec.suspend, "raised while suspended"

    def _check_reasons(self) -> None:
        status = self.world.status
        assert status.decision.reason is not DecisionReason.NOT_DECIDED
        assert status.outcome is not None or status.decision.details, "neither an end nor an explanation"
        ready = self.world.condition("Ready")
        assert (ready == "True") == (status.outcome is Outcome.PROMOTED)
        assert not (self.world.condition("Reconciling") == self.world.condition("Stalled") == "True")

    def _check_answers(self, decision: Decision) -> None:
        """Each action is decided once, by its UID; a crash repeats the answer and not the action."""
        sent = {effect.uid: effect for effect in decision.effects if isinstance(effect, Answer)}
        fresh = {uid: answer for uid, answer in sent.items() if uid not in self.answers}
        for uid, answer in sent.items():
            first = self.answers.setdefault(uid, answer)
            assert answer == first, "an action has two answers"
        events = [effect.reason for effect in decision.effects if isinstance(effect, Emit)]
        for event, accepted in ANSWER_EVENTS.items():
            expected = sum(answer.accepted is accepted for answer in fresh.values())
            assert events.count(event) == expected, "an action was carried out without an answer, or twice"
        self._check_effects(fresh)

    def _check_effects(self, fresh: dict[str, Answer]) -> None:
        """What was accepted for the first time has happened, whatever name it has."""
        kinds = {uid.split("/")[0] for uid, answer in fresh.items() if answer.accepted}
        if "Pause" in kinds and "Resume" not in kinds:
            assert self.world.status.paused_by, "a Pause was accepted and had no effect"
        if "EmergencyDisable" in kinds and "EmergencyEnable" not in kinds:
            assert len(self.world.status.flags.disabled) == 2, "EmergencyDisable was accepted and had no effect"
        if "Abort" in kinds:
            assert self.world.status.current.rollback_outcome is Outcome.ABORTED, "an Abort was accepted and had no effect"

    def _check_transitions(self, decision: Decision) -> None:
        for before, after in decision.transitions:
            assert before is self.stage, "a transition was left out"
            assert after in TRANSITIONS[before], f"{before} must not lead to {after}"
            self.stage = after
        assert self.stage is decision.status.current.stage, "a transition was left out"

    def _remember(self, value: Decimal | None) -> None:
        status = self.world.status
        place = (status.current.phase, status.current.step, status.current.published_time, status.observed_generation)
        if place != self.place or status.current.published_time is None:
            self.place, self.evidence, self.generation = place, timedelta(0), status.observed_generation
            self.had_evidence = value is not None and status.current.published_time is not None
        if status.outcome is Outcome.ROLLED_BACK or status.current.rollback_outcome is Outcome.ROLLED_BACK:
            self.breached_in = status.observed_generation


def happen(world: World, witness: Witness, event: tuple[str, Any]) -> None:
    """One event."""
    match event:
        case ("time", seconds):
            for _ in range(int(seconds) // 10):
                world.now += INTERVAL
                witness.reconcile()
                witness.reconcile()
        case ("result", result):
            world.values["errors"] = result
        case ("edit", change):
            world.edit(RolloutSpec.model_validate({**world.spec.to_wire(), **change}))
            witness.reconcile()
        case (("action" | "action under a used name" | "action and crash") as how, action):
            request(world, action, USED_NAME if how == "action under a used name" else "")
            witness.reconcile(crash=how == "action and crash")
        case ("crash", kind):
            crash(world, witness, kind)
        case ("jump", seconds):
            world.now += timedelta(seconds=seconds)
            witness.reconcile()
        case ("publishing", works):
            world.publishing = works


def crash(world: World, witness: Witness, kind: str) -> None:
    """The operator ends between two writes; or it is away for a while, which is known or not."""
    if kind == "before effects":
        witness.reconcile(crash=True)
        return
    world.now += timedelta(seconds=90)
    world.last_reconcile = None if kind == "unknown absence" else world.last_reconcile
    world.answering = kind != "no results yet"
    witness.reconcile()
    world.answering = True


def request(world: World, action: str, name: str = "") -> None:
    """An action that fits where the rollout is; its UID begins with what it is, and no other has it."""
    current, generation = world.status.current, world.status.observed_generation
    place = {"generation": generation, "phase": current.phase or "one", "step": max(current.step, 1)}
    fields = place if action in {"Approve", "Promote"} else {"generation": generation} if action == "Retry" else {}
    number = world.reconciles
    if name and any(waiting.name == name for waiting in world.actions):
        name = f"{name}-{number}"  # an object of this name still exists
    name = name or f"{action.lower()}-{number}"
    world.request(action, name, uid=f"{action}/{number}", **fields)


def new_life() -> tuple[World, Witness]:
    """A rollout before its first decision."""
    world = World(RolloutSpec.model_validate(PLAIN), values={"errors": GOOD})
    return world, Witness(world)


@settings(max_examples=RUNS, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(events=st.lists(EVENTS, min_size=4, max_size=12))
@example(events=[("time", 10), ("result", Verdict.NO_DATA), ("time", 10), ("result", GOOD), ("time", 20)])
def test_invariants_hold_in_random_lives(events: list[tuple[str, Any]]) -> None:
    """See the module."""
    world, witness = new_life()
    witness.reconcile()
    for event in events:
        happen(world, witness, event)


def test_a_healthy_life_ends() -> None:
    """With results, an approval and a working cluster every life ends Promoted: the invariants are no standstill."""
    world, witness = new_life()
    for _ in range(60):
        happen(world, witness, ("time", 10))
        if world.status.decision.approvals:
            happen(world, witness, ("action", "Approve"))
    assert world.status.outcome is Outcome.PROMOTED
    assert world.status.decision.action is DecisionAction.NONE
    assert [answer.accepted for answer in witness.answers.values()] == [True]


def test_witness_objects_to_an_action_that_is_carried_out_twice() -> None:
    """The witness itself: an operator that forgets its answers is caught."""
    world, witness = new_life()
    happen(world, witness, ("time", 10))
    happen(world, witness, ("action and crash", "Pause"))
    world.status = world.status.updated(processed_actions=(), paused_by=None)
    with pytest.raises(AssertionError, match="carried out"):
        witness.reconcile()
