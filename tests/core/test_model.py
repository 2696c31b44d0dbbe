"""Ten thousand random lives of a rollout: verdicts, edits, actions, crashes and clock jumps in any order.

The invariants are stated against what the test itself fed in, not against the operator's records: never a promotion
without passing evidence of this generation, never a percentage that rises after a breach, never a shorter hold than
declared, always an end or a reason. Crashes lose the effects of a look, or the look itself; clocks jump by up to an hour.
"""

import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.world import World
from session_rollout.api.enums import DecisionAction, Outcome, Stage, Verdict
from session_rollout.api.rollout import RolloutSpec

RUNS = int(os.environ.get("MODEL_RUNS", "10000"))
INTERVAL = timedelta(seconds=10)
HOLD = timedelta(seconds=20)
GAP = 2 * INTERVAL  # between two looks at most this much is taken as watched
SPEC = """
flagSet: model
checkInterval: 10s
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
ANSWERS = [GOOD, GOOD, GOOD, BAD, BREACH, Verdict.NO_DATA, Verdict.PROVIDER_ERROR, Verdict.INCONCLUSIVE]
EDITS: list[dict[str, Any]] = [
    {"bake": "10s"},
    {"bake": "20s"},
    {"suspend": True},
    {"suspend": False},
    {"rollback": {"scope": "Step"}},
]
ASKED = ["Approve", "Promote", "Pause", "Resume", "Abort", "Retry", "EmergencyDisable", "EmergencyEnable"]

EVENTS = st.one_of(
    st.tuples(st.just("time"), st.sampled_from([10, 10, 10, 20, 30, 60])),
    st.tuples(st.just("time"), st.sampled_from([10, 10, 20, 40])),
    st.tuples(st.just("answer"), st.sampled_from(ANSWERS)),
    st.tuples(st.just("edit"), st.sampled_from(EDITS)),
    st.tuples(st.just("ask"), st.sampled_from(ASKED)),
    st.tuples(st.just("crash"), st.sampled_from(["before effects", "whole process", "unknown absence", "no answers yet"])),
    st.tuples(st.just("jump"), st.sampled_from([-3600, -60, 60, 3600])),
    st.tuples(st.just("publishing"), st.booleans()),
)


@dataclass
class Witness:
    """Watches the world from outside and objects."""

    world: World
    evidence: timedelta = timedelta(0)  # watched, passing or failing, since the audience was read back
    place: tuple[Any, ...] = ()
    generation: int = 0
    passing: bool = False  # the last answer fed in while at this place and generation
    looked: datetime | None = None
    overridden: bool = False
    breached_in: int | None = None
    share: dict[str, Decimal] = field(default_factory=dict)

    def look(self, *, crash: bool = False) -> None:
        """One look of the operator, and what the witness makes of it."""
        world = self.world
        before, answer = world.status, world.values["errors"]
        had = answer if isinstance(answer, Decimal) and world.answering else None
        promoting = any(one.spec.action == "Promote" for one in world.actions)
        world.reconcile(crash_before_effects=crash)
        if before.outcome is not None and world.status.outcome is None:
            self.breached_in = None  # a person's Retry, or another generation
        self._account(had)
        self._object_to_raise(before, had, promoting=promoting)
        self._object_to_silence()
        self._remember(had)

    def _account(self, had: Decimal | None) -> None:
        """Evidence grows by the time since the last look, as far as somebody looked."""
        now = self.world.now
        if self.looked is not None and self.passing_known and had is not None:
            self.evidence += max(min(now - self.looked, GAP), timedelta(0))
        self.looked, self.passing_known = now, had is not None

    passing_known: bool = False

    def _object_to_raise(self, before: Any, had: Decimal | None, *, promoting: bool) -> None:
        world = self.world
        for record in world.status.phases:
            share, old = Decimal(record.percent), self.share.get(record.name, Decimal(0))
            if share > old and not promoting:
                self._must_be_earned(before, record.name, had)
            if share > old and self.breached_in == world.status.observed_generation:
                raise AssertionError("a percentage rose after a breach in the same generation")
            self.share[record.name] = share
        ended = world.status.outcome is Outcome.PROMOTED and before.outcome is not Outcome.PROMOTED
        assert not ended or before.current.stage is not Stage.STEP or promoting or had == GOOD, (
            "promoted without passing evidence"
        )

    def _must_be_earned(self, before: Any, phase: str, had: Decimal | None) -> None:
        """A raise within a phase needs a passing answer of this generation and its whole hold of evidence."""
        if before.current.stage is not Stage.STEP:
            return  # the first audience of a phase; what came before it was asked for when it ended
        assert had == GOOD, f"raised {phase} on {had}"
        assert self.generation == self.world.status.observed_generation, "raised on evidence of another generation"
        assert self.evidence >= HOLD, f"raised {phase} after {self.evidence} of evidence, its hold is {HOLD}"
        assert not before.paused_by, "raised while paused"
        assert not self.world.spec.suspend, "raised while suspended"

    def _object_to_silence(self) -> None:
        status = self.world.status
        assert status.outcome is not None or status.decision.details, "neither an end nor a reason"
        ready = self.world.condition("Ready")
        assert (ready == "True") == (status.outcome is Outcome.PROMOTED)
        assert not (self.world.condition("Reconciling") == self.world.condition("Stalled") == "True")

    def _remember(self, had: Decimal | None) -> None:
        status = self.world.status
        place = (status.current.phase, status.current.step, status.current.published_time, status.observed_generation)
        if place != self.place or status.current.published_time is None:
            self.place, self.evidence, self.generation = place, timedelta(0), status.observed_generation
            self.passing_known = had is not None and status.current.published_time is not None
        if status.outcome is Outcome.ROLLED_BACK or status.current.rollback_outcome is Outcome.ROLLED_BACK:
            self.breached_in = status.observed_generation


def happen(world: World, witness: Witness, event: tuple[str, Any]) -> None:
    """One event."""
    match event:
        case ("time", seconds):
            for _ in range(int(seconds) // 10):
                world.now += INTERVAL
                witness.look()
                witness.look()
        case ("answer", answer):
            world.values["errors"] = answer
        case ("edit", change):
            world.edit(RolloutSpec.model_validate({**world.spec.to_wire(), **change}))
            witness.look()
        case ("ask", action):
            ask(world, action)
            witness.look()
        case ("crash", "before effects"):
            witness.look(crash=True)
        case ("crash", kind):
            world.now += timedelta(seconds=90)
            world.last_reconcile = None if kind == "unknown absence" else world.last_reconcile
            world.answering = kind != "no answers yet"
            witness.look()
            world.answering = True
        case ("jump", seconds):
            world.now += timedelta(seconds=seconds)
            witness.look()
        case ("publishing", works):
            world.publishing = works


def ask(world: World, action: str) -> None:
    """A person's action that fits where the rollout is."""
    current, generation = world.status.current, world.status.observed_generation
    place = {"generation": generation, "phase": current.phase or "one", "step": max(current.step, 1)}
    fields = place if action in {"Approve", "Promote"} else {"generation": generation} if action == "Retry" else {}
    world.request(action, f"{action.lower()}-{world.now.timestamp()}-{len(world.answers)}", **fields)


@settings(max_examples=RUNS, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(events=st.lists(EVENTS, min_size=4, max_size=12))
def test_invariants_hold_in_random_lives(events: list[tuple[str, Any]]) -> None:
    """See the module."""
    world = World(RolloutSpec.model_validate(PLAIN), values={"errors": GOOD})
    witness = Witness(world)
    witness.look()
    for event in events:
        happen(world, witness, event)


def test_a_healthy_life_ends() -> None:
    """With answers, a yes and a working cluster every life comes to Promoted: the invariants are no standstill."""
    world = World(RolloutSpec.model_validate(PLAIN), values={"errors": GOOD})
    witness = Witness(world)
    for _ in range(60):
        happen(world, witness, ("time", 10))
        if "waits for an approval" in world.status.decision.message:
            happen(world, witness, ("ask", "Approve"))
    assert world.status.outcome is Outcome.PROMOTED
    assert world.status.decision.action is DecisionAction.NONE
