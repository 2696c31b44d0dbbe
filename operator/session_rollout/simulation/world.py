"""A rollout on a virtual clock: the operator's own `decide`, with a world that answers as the scenario says.

The world is healthy but for what the scenario breaks: metrics pass their checks, migrations take their time and succeed,
people approve. Time jumps from one thing that can change a decision to the next, so that five weeks are a fraction of a second.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from session_rollout.adapters.promql import largest_range, queries_of
from session_rollout.api.action import ActionSpec, SessionRolloutAction
from session_rollout.api.checks import Check, ComparedTo, Gate
from session_rollout.api.enums import ActionType, DecisionAction, EventReason, Stage, Verdict
from session_rollout.api.progress import Progress
from session_rollout.api.quantities import bound, duration, unit_of
from session_rollout.api.rollout import RolloutSpec, SessionRollout
from session_rollout.api.status import HistoryEntry, RolloutStatus
from session_rollout.core.criteria import CRITERION, GUARD
from session_rollout.core.decide import decide
from session_rollout.core.evaluation import MINIMUM_EVENTS, ask, assess
from session_rollout.core.inputs import asked_gates, needed_metrics, needs_revisions
from session_rollout.core.observed import (
    Answer,
    Counts,
    Decision,
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
    UndoWorkload,
)
from session_rollout.core.steps import phase_named

LONGEST: Final = timedelta(days=730)
LOOKS_AT_ONCE: Final = 60
IDLE_LOOKS: Final = 5  # after as many that changed nothing, the next answer will change nothing, too
DEFAULT_MIGRATION: Final = timedelta(minutes=1)
BIG: Final = Decimal(10**6)


@dataclass(frozen=True)
class Trouble:
    """Something that goes wrong from the first look at a step on, for a time."""

    phase: str
    step: int
    metric: str = ""  # fails; empty: no metric can be asked
    value: Decimal | None = None  # what it answers; none: whatever fails its checks
    lasts: timedelta | None = None  # none: to the end

    @property
    def is_outage(self) -> bool:
        """Whether nothing answers."""
        return not self.metric


@dataclass(frozen=True)
class Scenario:
    """What happens around the rollout."""

    start: datetime = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
    troubles: tuple[Trouble, ...] = ()
    approve_after: timedelta | None = timedelta(0)  # none: nobody approves
    migrations: Mapping[str, timedelta] = field(default_factory=dict)  # how long each takes
    failing: frozenset[str] = frozenset()  # migrations that fail


@dataclass(frozen=True)
class Moment:
    """One line of the timeline."""

    time: datetime
    event: EventReason
    phase: str | None
    step: int | None
    percent: str | None
    message: str

    @classmethod
    def of(cls, entry: HistoryEntry) -> "Moment":
        """From the history that the rollout would have."""
        return cls(entry.time, entry.event, entry.phase, entry.step, entry.percent, entry.message)


@dataclass(frozen=True)
class Rehearsed:
    """How it went."""

    scenario: Scenario
    moments: tuple[Moment, ...]
    status: RolloutStatus
    end: datetime
    looks: int
    path: tuple[Stage, ...]  # as they were passed

    @property
    def ended(self) -> bool:
        """Whether it came to an end by itself."""
        return self.status.outcome is not None


def rehearse(spec: RolloutSpec, scenario: Scenario, name: str = "rehearsal") -> Rehearsed:
    """Play a programme through."""
    return _World(spec, scenario, name).play()


class _World:
    """One rollout and all it would meet."""

    def __init__(self, spec: RolloutSpec, scenario: Scenario, name: str) -> None:
        self.spec, self.scenario, self.name = spec, scenario, name
        self.now, self.status = scenario.start, RolloutStatus()
        self.published: str | None = None
        self.jobs: dict[str, tuple[datetime, JobObservation]] = {}  # when it ends, and how
        self.requests: dict[str, SessionRolloutAction] = {}
        self.begun: dict[tuple[str, int], datetime] = {}  # steps
        self.revisions = Revisions(2, 1)
        self.moments: list[Moment] = []
        self.path: list[Stage] = []
        self.found: dict[Any, Decimal] = {}  # values that were searched for
        self.looks = self.idle = 0
        self.ranges = {metric.name: _range(metric) for metric in spec.metrics}

    # --- the clock

    def play(self) -> Rehearsed:
        """From the start to the end, or to where nothing moves it any more."""
        stop = self.scenario.start + LONGEST
        while self.now < stop:
            before, decision = self.status, self._settle()
            self.idle = self.idle + 1 if self.status == before else 0
            if self.status.outcome is not None:
                break
            following = self._next(decision)
            if following is None:
                break
            self.now = following
        return Rehearsed(self.scenario, tuple(self.moments), self.status, self.now, self.looks, tuple(self.path))

    def _settle(self) -> Decision:
        """Look until nothing more happens at this moment."""
        for _ in range(LOOKS_AT_ONCE):
            before = self.status, self.published, len(self.jobs), tuple(self.requests)
            decision = self._look()
            if (self.status, self.published, len(self.jobs), tuple(self.requests)) == before:
                return decision
        return decision

    def _look(self) -> Decision:
        self.looks += 1
        decision = decide(self._observed(), self.now)
        before = set(self.status.history)
        self.moments += [Moment.of(entry) for entry in decision.status.history if entry not in before]
        self.status = decision.status
        for effect in decision.effects:
            self._do(effect)
        self._approve()
        here = self.status.current
        if not self.path or self.path[-1] is not here.stage:
            self.path.append(here.stage)
        if here.stage is Stage.STEP and here.phase is not None:
            self.begun.setdefault((here.phase, here.step), self.now)
        return decision

    def _next(self, decision: Decision) -> datetime | None:
        """The next moment at which a decision may differ; None when there is none."""
        moments = set(self._moments(decision))
        interval = duration(self.spec.check_interval)
        if self._judging(decision) and self.idle < IDLE_LOOKS:
            moments.add(self.now + interval)
        return min((moment for moment in moments if moment > self.now), default=None)

    def _judging(self, decision: Decision) -> bool:
        """Whether the very next answers matter: something warms up, is awaited, or has just changed."""
        waits = decision.status.decision
        return (
            waits.next_time is None
            and waits.action in {DecisionAction.WAIT, DecisionAction.HOLD, DecisionAction.PUBLISH}
            and (self._missing_ends() or self.status.current.stage in {Stage.BASELINE, Stage.PREFLIGHT, Stage.VERIFICATION})
            and not waits.approvals
        )

    def _missing_ends(self) -> bool:
        """Whether the next answers may bring what is missing; in an outage they bring nothing before it ends."""
        return self.status.current.stage is Stage.STEP and not any(one.is_outage for one in self._active())

    def _moments(self, decision: Decision) -> Iterator[datetime]:
        said, current = decision.status.decision, self.status.current
        if said.next_time is not None:
            yield said.next_time
        if current.hold_until is not None:
            yield current.hold_until
        published = current.published_time or current.guards_start_time
        if published is not None:
            yield from (published + reach for reach in self.ranges.values())
        for record in self.status.checks:
            guard = next((one for one in self.spec.guards if one.name == record.name), None)
            if record.kind == GUARD and record.verdict is Verdict.FAIL and guard is not None and record.time is not None:
                yield record.time + duration(guard.for_)
        for trouble in self.scenario.troubles:
            start = self.begun.get((trouble.phase, trouble.step))
            if start is not None and trouble.lasts is not None:
                yield start + trouble.lasts
        yield from (end for end, _ in self.jobs.values())
        yield from (request.creation_time for request in self.requests.values())

    # --- what the operator would see

    def _observed(self) -> Observed:
        rollout = SessionRollout(
            namespace="rehearsal", name=self.name, uid="rehearsal", generation=1, spec=self.spec, status=self.status
        )
        return Observed(
            rollout=rollout,
            measurements={metric.name: self._measure(metric.name) for metric in needed_metrics(rollout)},
            ranges=self.ranges,
            published_sha256=self.published,
            jobs={name: self._job(end, seen) for name, (end, seen) in self.jobs.items()},
            requests=tuple(one for one in self.requests.values() if one.creation_time <= self.now),
            revisions=self.revisions if needs_revisions(rollout) else None,
            gates={gate.name: CheckResult(self.now, Verdict.PASS, "assumed to pass") for gate in asked_gates(rollout)},
            last_reconcile=self.now,
        )

    def _job(self, end: datetime, seen: JobObservation) -> JobObservation:
        return seen if end <= self.now else JobObservation(JobState.ACTIVE)

    def _active(self) -> list[Trouble]:
        """Troubles of now."""
        found = []
        for one in self.scenario.troubles:
            start = self.begun.get((one.phase, one.step))
            if start is not None and (one.lasts is None or self.now < start + one.lasts):
                found.append(one)
        return found

    def _measure(self, name: str) -> Measurement:
        active = self._active()
        if any(one.is_outage for one in active):
            return Measurement(self.now, problem=Verdict.PROVIDER_ERROR, message="the provider does not answer")
        trouble = next((one for one in active if one.metric == name), None)
        if trouble is not None and trouble.value is not None:
            return self._counted(name, trouble.value)
        value = self._searched(name, wanted=Verdict.FAIL if trouble is not None else Verdict.PASS)
        return self._counted(name, value)

    def _counted(self, name: str, value: Decimal) -> Measurement:
        """A value; of a metric with cohorts also the counts that give it."""
        metric = self.spec.metric(name)
        if metric is None or metric.cohorts is None:
            return Measurement(self.now, value=value)
        total = Decimal(100 * MINIMUM_EVENTS) * 1000
        share = min(max(value, Decimal(0)), Decimal(1))
        return Measurement(self.now, value=share, on=Counts(share * total, total), off=Counts(total / 2, total))

    def _searched(self, name: str, *, wanted: Verdict) -> Decimal:
        """The first value of which all checks of the metric think alike; the first that pleases most of them otherwise."""
        checks = list(self._checks(name))
        baselines = tuple(self._baseline(kind, check) for kind, check in checks)
        key = (name, wanted, tuple(id(check) for _, check in checks), baselines)
        if key not in self.found:
            self.found[key] = self._best(checks, wanted)
        return self.found[key]

    def _best(self, checks: "list[tuple[str, Check | Gate]]", wanted: Verdict) -> Decimal:
        candidates = list(dict.fromkeys(self._candidates([check for _, check in checks])))
        scored = [(sum(self._verdict(kind, check, value) is wanted for kind, check in checks), value) for value in candidates]
        best = max(score for score, _ in scored)
        return next(value for score, value in scored if score == best)

    def _checks(self, name: str) -> Iterator[tuple[str, Check | Gate]]:
        """All that is judged on a metric now."""
        phase, current = phase_named(self.spec, self.status.current.phase), self.status.current
        yield from ((GUARD, guard) for guard in self.spec.guards if guard.metric == name)
        if phase is not None and current.stage in {Stage.STEP, Stage.BASELINE}:
            yield from ((CRITERION, criterion) for criterion in phase.criteria if criterion.metric == name)
        gates = [*self.spec.preflight, *self.spec.rollback.verification, *(phase.verification if phase else ())]
        if current.stage not in {Stage.STEP, Stage.BASELINE}:
            yield from (("Gate", gate) for gate in gates if gate.metric == name)

    def _baseline(self, kind: str, check: Check | Gate) -> Decimal | None:
        title = check.name if isinstance(check, Check) else check.name
        record = next((one for one in self.status.checks if (one.kind, one.name) == (kind, title)), None)
        return Decimal(record.baseline) if record is not None and record.baseline is not None else None

    def _candidates(self, checks: list[Check | Gate]) -> Iterator[Decimal]:
        """Values worth trying: at baselines and bounds, a little on either side of them."""
        for kind in (CRITERION, GUARD):
            yield from (baseline for check in checks if (baseline := self._baseline(kind, check)) is not None)
        for check in checks:
            for text in (check.above, check.below):
                if text is not None:
                    limit = bound(text)
                    step = max(abs(limit) / 10, Decimal("0.0001"))
                    share = [(1 + limit) / 2] if unit_of(text) == "%" and 0 < limit < 1 and text == check.above else []
                    yield from (*share, limit / 2, limit * 2, limit - step, limit + step)
        for kind in (CRITERION, GUARD):
            for check in checks:
                if isinstance(check, Check) and check.compared_to is ComparedTo.BASELINE:
                    base = self._baseline(kind, check)
                    yield from (
                        base * factor for factor in map(Decimal, ("1.05", "0.95", "1.3", "0.7", "3", "0.1")) if base is not None
                    )
        yield from (Decimal(1), Decimal("0.5"), Decimal(0), Decimal(100), BIG)

    def _verdict(self, kind: str, check: Check | Gate, value: Decimal) -> Verdict:
        """What the check would say to a value, whatever its window holds."""
        if isinstance(check, Check) and check.compared_to is ComparedTo.BASELINE and self._baseline(kind, check) is None:
            return Verdict.PASS
        question = ask(
            check,
            measurement=self._counted(check.metric or "", value),
            not_before=self.now,
            stale_after=timedelta.max,
            now=self.now,
            baseline=self._baseline(kind, check),
        )
        return assess(question).verdict

    # --- what the operator would do

    def _do(self, effect: Any) -> None:
        match effect:
            case Publish(sha256=sha256):
                self.published = sha256
            case StartJob(name=name, migration=migration):
                takes = self.scenario.migrations.get(migration, DEFAULT_MIGRATION)
                fails = migration in self.scenario.failing
                end = JobObservation(JobState.FAILED, Progress(message="fails as rehearsed")) if fails else _SUCCEEDED
                self.jobs.setdefault(name, (self.now + takes, end))
            case StartCheck(name=name):
                self.jobs.setdefault(name, (self.now + DEFAULT_MIGRATION, _SUCCEEDED))
            case UndoWorkload(revision=revision, earlier=earlier):
                self.revisions = Revisions(revision + 1, earlier)
            case RestartWorkload(at=at):
                self.revisions = replace(self.revisions, restarted=at)
            case Answer(action=action):
                self.requests.pop(action, None)

    def _approve(self) -> None:
        """Somebody says yes, as late as the scenario has it."""
        awaited = self.status.decision.approvals
        if self.scenario.approve_after is None or self.requests or not awaited:
            return
        wish = {"rollout": self.name, "action": ActionType.APPROVE, "generation": 1, **awaited[0].to_wire()}
        identity = f"approval-{self.looks}"
        self.requests[identity] = SessionRolloutAction(
            namespace="rehearsal",
            name=identity,
            uid=identity,
            creation_time=self.now + self.scenario.approve_after,
            spec=ActionSpec.model_validate(wish),
        )


_SUCCEEDED: Final = JobObservation(JobState.SUCCEEDED, Progress(message="assumed to succeed"))


def _range(metric: Any) -> timedelta:
    try:
        return max(largest_range(query) for query in queries_of(metric))
    except ValueError:
        return timedelta(0)
