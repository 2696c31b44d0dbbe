"""One rollout and its surroundings in memory, on a virtual clock: for `rehearse`, for tests and for the documentation.

No rule is implemented twice: the operator's own `decide` decides, and the world applies its effects to
values in memory. Publishing changes a fingerprint, a Job ends when the driver says so, an action waits for its response.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from session_rollout.adapters.promql import spelled
from session_rollout.api.action import ActionSpec, SessionRolloutAction
from session_rollout.api.checks import Gate
from session_rollout.api.enums import CheckReason, Stage, Verdict
from session_rollout.api.progress import Progress
from session_rollout.api.rollout import RolloutSpec, SessionRollout
from session_rollout.api.status import RolloutStatus
from session_rollout.api.status_records import HistoryEntry, Refusal
from session_rollout.core.decide import decide
from session_rollout.core.documents import PublishedDocument, read_document
from session_rollout.core.inputs import external_gates, needed_metrics, needs_revisions
from session_rollout.core.observed import (
    Answer,
    CheckResult,
    ClockJump,
    Decision,
    Effect,
    Emit,
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

RECONCILES_AT_ONCE: Final = 60
_GATE_REASONS: Final = {Verdict.PASS: CheckReason.CHECK_SUCCEEDED, Verdict.FAIL: CheckReason.CHECK_FAILED}


@dataclass
class World:
    """State of the object, of the cluster and of everything the operator observes."""

    spec: RolloutSpec
    now: datetime
    name: str = "shop"
    namespace: str = "default"
    uid: str = "uid-1"
    created: datetime | None = None
    generation: int = 1
    status: RolloutStatus = field(default_factory=RolloutStatus)
    ranges: dict[str, timedelta] = field(default_factory=dict)
    values: dict[str, Decimal | Verdict] = field(default_factory=dict)  # by metric
    gates: dict[str, Verdict] = field(default_factory=dict)  # results of HTTP and built-in checks, by gate
    problems: tuple[str, ...] = ()
    workload_unavailable_reason: str | None = None
    revisions: Revisions | None = None
    delivered: set[str] = field(default_factory=set)
    sink_errors: dict[str, str] = field(default_factory=dict)
    last_reconcile: datetime | None = None
    clock_jump: ClockJump | None = None
    refusals: tuple[Refusal, ...] = ()
    other_rollouts: dict[str, str] = field(default_factory=dict)
    # What the operator has done.
    document: PublishedDocument | None = None
    documents: list[str] = field(default_factory=list)
    jobs: dict[str, JobObservation] = field(default_factory=dict)
    actions: list[SessionRolloutAction] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)  # by name of the action
    events: list[str] = field(default_factory=list)
    undone: list[tuple[int, int]] = field(default_factory=list)
    restarts: list[datetime] = field(default_factory=list)
    transitions: list[tuple[Stage, Stage]] = field(default_factory=list)
    history: list[HistoryEntry] = field(default_factory=list)  # all of it; the status keeps the last entries
    writes: int = 0
    reconciles: int = 0

    def rollout(self) -> SessionRollout:
        """The object as it is stored."""
        return SessionRollout(
            namespace=self.namespace,
            name=self.name,
            uid=self.uid,
            generation=self.generation,
            creation_time=self.created,
            spec=self.spec,
            status=self.status,
        )

    def observed(self) -> Observed:
        """What the controller would gather."""
        rollout = self.rollout()
        answered = {answer.uid for answer in self.answers.values()}
        gates = ((gate, self.check_gate(gate)) for gate in external_gates(rollout))
        measurements = ((metric.name, self.measure(metric.name)) for metric in needed_metrics(rollout))
        return Observed(
            rollout=rollout,
            measurements={name: measurement for name, measurement in measurements if measurement is not None},
            ranges=self.ranges,
            queries={metric.name: spelled(metric) for metric in self.spec.metrics},
            document=self.document,
            jobs=dict(self.jobs),
            actions=tuple(action for action in self.actions if action.creation_time <= self.now),
            settled_actions=frozenset(known.uid for known in self.status.processed_actions if known.uid in answered),
            workload_unavailable_reason=self.workload_unavailable_reason,
            revisions=self.revisions if needs_revisions(rollout) else None,
            gates={gate.name: result for gate, result in gates if result is not None},
            delivered=frozenset(self.delivered),
            sink_errors=self.sink_errors,
            problems=self.problems,
            last_reconcile=self.last_reconcile,
            clock_jump=self.clock_jump,
            refusals=self.refusals,
            other_rollouts=self.other_rollouts,
        )

    def measure(self, name: str) -> Measurement | None:
        """The result of a metric now; None while it is on its way."""
        value = self.values[name]
        if isinstance(value, Verdict):
            return Measurement(self.now, problem=value, reason=CheckReason.EMPTY_RESULT, message=f"{value} for a test")
        return Measurement(self.now, value=value)

    def check_gate(self, gate: Gate) -> CheckResult | None:
        """The result of an HTTP or built-in check now; None while it is on its way."""
        verdict = self.gates.get(gate.name)
        if verdict is None:
            return None
        reason = _GATE_REASONS.get(verdict, CheckReason.CONNECTION_FAILED)
        reach = self.ranges.get(gate.name, timedelta(0))
        return CheckResult(self.now, verdict, reason, f"the check reports {verdict}", reach=reach)

    def reconcile(self, *, crash_before_effects: bool = False) -> Decision:
        """Decide once, write the status and apply the effects; a crash can come between the two."""
        self.reconciles += 1
        decision = self.decide()
        known = set(self.status.history)
        self.history += [entry for entry in decision.status.history if entry not in known]
        if decision.urgent is not None:
            self.apply(decision.urgent)
        if decision.status != self.status:
            stored = RolloutStatus.model_validate(decision.status.to_wire())
            self.writes += stored != self.status
            self.status = stored
        self.transitions += decision.transitions
        self.last_reconcile = self.now if decision.complete else self.last_reconcile
        if not crash_before_effects:
            for effect in decision.effects:
                self.apply(effect)
        return decision

    def decide(self) -> Decision:
        """The decision at this moment."""
        return decide(self.observed(), self.now)

    def apply(self, effect: Effect) -> None:
        """Do what the operator would do in the cluster."""
        match effect:
            case Publish():
                self._publish(effect)
            case StartJob(name=name) | StartCheck(name=name):
                self.jobs.setdefault(name, JobObservation(JobState.ACTIVE))
            case SuspendJob(name=name, suspend=suspend):
                self.jobs[name] = replace(self.jobs[name], suspended=suspend, stopped=suspend)
            case UndoWorkload() | RestartWorkload():
                self._change_workload(effect)
            case Answer(action=name, uid=uid):
                self.answers[name] = effect
                self.actions = [action for action in self.actions if action.uid != uid]
            case Emit(reason=reason):
                self.events.append(reason)

    def _publish(self, effect: Publish) -> None:
        version = self.document.version + 1 if self.document is not None else 1
        self.document = read_document(effect.text, version=version, owner=self.name, protections=effect.protections)
        self.documents.append(effect.text)

    @property
    def published_sha256(self) -> str | None:
        """Fingerprint of the document in the cluster."""
        return self.document.sha256 if self.document is not None else None

    def _change_workload(self, effect: UndoWorkload | RestartWorkload) -> None:
        assert self.revisions is not None
        match effect:
            case UndoWorkload(revision=revision, earlier=earlier) if self.revisions.current == revision:
                self.undone.append((revision, earlier))
                self.revisions = Revisions(revision + 1, revision)
            case RestartWorkload(at=at) if self.revisions.restarted != at:
                self.restarts.append(at)
                self.revisions = replace(self.revisions, restarted=at)

    def advance_jobs(self) -> None:
        """Let Jobs run at this moment; the driver of the world decides how."""

    def settle(self) -> Decision:
        """Reconcile until nothing more happens at this moment, as the controller does."""
        for _ in range(RECONCILES_AT_ONCE):
            before = self._fingerprint()
            decision = self.reconcile()
            self.advance_jobs()
            if self._fingerprint() == before:
                return decision
        raise AssertionError("decide has no fixed point: it keeps changing things at one moment")

    def _fingerprint(self) -> tuple[Any, ...]:
        return self.status, self.published_sha256, dict(self.jobs), tuple(action.uid for action in self.actions)

    def request(self, action: str, name: str = "", *, uid: str = "", after: timedelta = timedelta(0), **fields: Any) -> str:
        """Create an action; its name. Without a `reason` it gets one."""
        name = name or f"{action.lower()}-{len(self.answers) + len(self.actions)}"
        wanted = {"rollout": self.name, "action": action, "reason": "for a test", **fields}
        self.actions.append(
            SessionRolloutAction(
                namespace=self.namespace,
                name=name,
                uid=uid or f"uid-of-{name}",
                creation_time=self.now + after,
                spec=ActionSpec.model_validate(wanted),
            )
        )
        return name

    def edit(self, changed: RolloutSpec) -> None:
        """Apply another spec: a new generation."""
        self.spec = changed
        self.generation += 1


SUCCEEDED: Final = JobObservation(JobState.SUCCEEDED, Progress(message="assumed to succeed"))
