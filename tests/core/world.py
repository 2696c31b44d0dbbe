"""A world for the core alone: applies what `decide` says to values in memory, on a clock that the test moves.

No I/O and no second implementation of any rule: publishing changes a fingerprint, a Job ends when the test says so.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import yaml

from session_rollout.api.action import ActionSpec, SessionRolloutAction
from session_rollout.api.enums import Verdict
from session_rollout.api.progress import Progress
from session_rollout.api.rollout import RolloutSpec, SessionRollout
from session_rollout.api.status import RolloutStatus
from session_rollout.core.decide import decide
from session_rollout.core.inputs import asked_gates, needed_metrics, needs_revisions
from session_rollout.core.observed import (
    Answer,
    Decision,
    Effect,
    Emit,
    CheckResult,
    JobObservation,
    JobState,
    Measurement,
    Observed,
    Publish,
    RestartWorkload,
    Revisions,
    StartCheck,
    StartJob,
    SuspendJob,
    UndoWorkload,
)

START = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)  # a Monday
GOOD = {"errors": Decimal("0.001"), "load": Decimal("1.0")}

PROGRAMME = """
flagSet: shop
checkInterval: 10s
features:
- {name: alpha}
- {name: beta, dependsOn: [alpha]}
- {name: gamma}
metrics:
- {name: errors, query: errors}
- {name: load, query: load}
phases:
- name: one
  features: [alpha, beta]
  steps:
  - {percent: 10, groups: [staff], hold: 60s}
  - {ramp: {to: 50, over: 120s, increments: 2}, groups: [staff]}
  - {percent: 100, groups: [staff], hold: 60s}
  criteria:
  - {name: errors, metric: errors, below: 1%}
  - {name: load, metric: load, comparedTo: Baseline, maxIncrease: 10%}
- name: two
  features: [gamma]
  steps:
  - {percent: 50, hold: 60s}
  - {percent: 100, hold: 60s}
  criteria:
  - {name: load, metric: load, comparedTo: Baseline, maxIncrease: 10%}
guards:
- {name: errors, metric: errors, below: 5%, for: 20s}
"""


def spec(text: str = PROGRAMME, **changes: Any) -> RolloutSpec:
    """A programme from YAML, with top-level fields replaced."""
    return RolloutSpec.model_validate({**yaml.safe_load(text), **changes})


@dataclass
class World:
    """One rollout and all that it meets."""

    spec: RolloutSpec
    now: datetime = START
    generation: int = 1
    status: RolloutStatus = field(default_factory=RolloutStatus)
    published: str | None = None
    texts: list[str] = field(default_factory=list)
    values: dict[str, Decimal | Verdict] = field(default_factory=lambda: dict(GOOD))
    ranges: dict[str, timedelta] = field(default_factory=dict)
    jobs: dict[str, JobObservation] = field(default_factory=dict)
    jobs_succeed: bool = True
    job_says: dict[str, Any] = field(default_factory=dict)  # figures of the migration's last words
    requests: list[SessionRolloutAction] = field(default_factory=list)
    answers: dict[str, tuple[bool, str]] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    last_reconcile: datetime | None = START
    problems: tuple[str, ...] = ()
    workload: str = ""
    revisions: Revisions | None = None
    undone: list[tuple[int, int]] = field(default_factory=list)
    restarts: list[datetime] = field(default_factory=list)
    gates: dict[str, Verdict] = field(default_factory=dict)  # what HTTP and built-in checks find
    delivered: set[str] = field(default_factory=set)
    sink_errors: dict[str, str] = field(default_factory=dict)
    publishing: bool = True
    answering: bool = True
    writes: int = 0
    decision: Decision | None = None

    def rollout(self) -> SessionRollout:
        """The object as it is stored."""
        return SessionRollout(
            namespace="default", name="shop", uid="uid-1", generation=self.generation, spec=self.spec, status=self.status
        )

    def observed(self) -> Observed:
        """What the controller would gather."""
        rollout = self.rollout()
        return Observed(
            rollout=rollout,
            measurements={one.name: self._measure(one.name) for one in needed_metrics(rollout) if self.answering},
            ranges=self.ranges,
            published_sha256=self.published,
            jobs=self.jobs,
            requests=tuple(self.requests),
            workload=self.workload,
            revisions=self.revisions if needs_revisions(rollout) else None,
            gates={
                gate.name: CheckResult(self.now, self.gates[gate.name], f"{self.gates[gate.name]} it is")
                for gate in asked_gates(rollout)
                if gate.name in self.gates
            },
            delivered=frozenset(self.delivered),
            sink_errors=self.sink_errors,
            problems=self.problems,
            last_reconcile=self.last_reconcile,
        )

    def _measure(self, name: str) -> Measurement:
        value = self.values[name]
        if isinstance(value, Verdict):
            return Measurement(self.now, problem=value, message=f"{value} for a reason")
        return Measurement(self.now, value=value)

    def look(self, *, crash_before_effects: bool = False) -> Decision:
        """One look: decide, write, do."""
        self.decision = decide(self.observed(), self.now)
        stored = RolloutStatus.model_validate(self.decision.status.to_wire())
        self.writes += stored != self.status
        self.status = stored
        self.last_reconcile = self.now if self.decision.complete else self.last_reconcile
        if not crash_before_effects:
            for effect in self.decision.effects:
                self._do(effect)
        return self.decision

    def _do(self, effect: Effect) -> None:
        match effect:
            case Publish(text=text, sha256=sha256):
                if self.publishing:
                    self.published = sha256
                    self.texts.append(text)
            case StartJob(name=name) | StartCheck(name=name):
                self.jobs.setdefault(name, JobObservation(JobState.ACTIVE))
            case SuspendJob(name=name, suspend=suspend):
                self.jobs[name] = replace(self.jobs[name], suspended=suspend)
            case UndoWorkload() | RestartWorkload():
                self._change_workload(effect)
            case Answer(action=action, accepted=accepted, message=message):
                self.answers[action] = (accepted, message)
                self.requests = [one for one in self.requests if one.name != action]
            case Emit(reason=reason):
                self.events.append(reason)

    def _change_workload(self, effect: UndoWorkload | RestartWorkload) -> None:
        assert self.revisions is not None
        match effect:
            case UndoWorkload(revision=revision, earlier=earlier) if self.revisions.current == revision:
                self.undone.append((revision, earlier))
                self.revisions = Revisions(revision + 1, revision)
            case RestartWorkload(at=at) if self.revisions.restarted != at:
                self.restarts.append(at)
                self.revisions = replace(self.revisions, restarted=at)

    def finish_jobs(self) -> None:
        """Every active Job ends."""
        end = JobState.SUCCEEDED if self.jobs_succeed else JobState.FAILED
        for name, job in self.jobs.items():
            if job.state is JobState.ACTIVE and not job.suspended:
                words = "done" if self.jobs_succeed else "relation exists"
                self.jobs[name] = JobObservation(end, Progress(checksum="sha256:bundle", message=words, **self.job_says))

    def settle(self) -> Decision:
        """Look until nothing more happens at this moment, as the controller does."""
        for _ in range(30):
            before = self.status, self.published, dict(self.jobs), len(self.requests)
            decision = self.look()
            self.finish_jobs()
            if (self.status, self.published, self.jobs, len(self.requests)) == before:
                return decision
        raise AssertionError("decide is no fixed point: it keeps changing things at one moment")

    def run(self, seconds: float, tick: float = 10) -> Decision:
        """Let time pass, looking every tick."""
        decision = self.settle()
        for _ in range(round(seconds / tick)):
            self.now += timedelta(seconds=tick)
            decision = self.settle()
        return decision

    def until(self, condition: Any, seconds: float = 3600, tick: float = 10) -> float:
        """Let time pass until the condition holds; the seconds that took."""
        begun = self.now
        self.settle()
        while not condition(self):
            assert (self.now - begun).total_seconds() < seconds, f"not within {seconds} s: {self.status.decision}"
            self.now += timedelta(seconds=tick)
            self.settle()
        return (self.now - begun).total_seconds()

    def ask(self, action: str, name: str = "", **fields: Any) -> str:
        """A person's action; its name."""
        name = name or f"{action.lower()}-{len(self.answers) + len(self.requests)}"
        wish = ActionSpec.model_validate({"rollout": "shop", "action": action, "reason": "because", **fields})
        self.requests.append(SessionRolloutAction(namespace="default", name=name, uid=name, creation_time=self.now, spec=wish))
        return name

    def edit(self, changed: RolloutSpec) -> None:
        """A new generation."""
        self.spec = changed
        self.generation += 1

    @property
    def where(self) -> tuple[str | None, int, int, str]:
        """Phase, step, increment, percent."""
        current = self.status.current
        return current.phase, current.step, current.increment, current.percent

    def condition(self, kind: str) -> str:
        """Status of a condition."""
        return next(one.status for one in self.status.conditions if one.type == kind)
