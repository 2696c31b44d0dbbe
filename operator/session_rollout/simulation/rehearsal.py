"""A whole rollout on a virtual clock, in surroundings that a scenario describes, for `kubectl sessionrollout rehearse`.

The surroundings are healthy except for what the scenario breaks: metrics pass their checks, migrations take their time and
succeed, approvals are given. Time jumps from one event that can change a decision to the next, so that five weeks take a
fraction of a second.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from session_rollout.adapters.promql import Intervals, block_of, effective_range
from session_rollout.adapters.promql_seasons import query_of_seasons
from session_rollout.api.checks import Gate
from session_rollout.api.enums import CheckKind, CheckReason, DecisionAction, Stage, Verdict
from session_rollout.api.metrics import Metric
from session_rollout.api.progress import Progress
from session_rollout.api.quantities import duration
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status import RolloutStatus
from session_rollout.api.status_records import HistoryEntry
from session_rollout.core.observed import (
    CheckResult,
    Decision,
    Effect,
    JobObservation,
    JobState,
    Measurement,
    Revisions,
    Seasons,
    StartCheck,
    StartJob,
)
from session_rollout.core.seasons import is_seasoned, seasons_read, window_of
from session_rollout.core.steps import phase_named
from session_rollout.simulation.values import (
    KindAndCheck,
    best_value,
    compared_measurement,
    measurement_of,
    rates_of,
)
from session_rollout.simulation.world import SUCCEEDED, World

LONGEST: Final = timedelta(days=730)
IDLE_RECONCILES: Final = 5  # after as many without a change, the next result changes nothing either
DEFAULT_MIGRATION: Final = timedelta(minutes=1)
AT_WORK: Final = Progress(message="its SQL runs")  # what a Job reports that has begun


@dataclass(frozen=True)
class Fault:
    """A failure that begins with a step and lasts for a time."""

    phase: str
    step: int
    metric: str = ""  # the metric that fails; empty for an outage of the whole provider
    value: Decimal | None = None  # its value; None for one that fails its checks
    lasts: timedelta | None = None  # None: to the end

    @property
    def is_outage(self) -> bool:
        """Whether the provider is unreachable, so that metrics have no results."""
        return not self.metric


@dataclass(frozen=True)
class Scenario:
    """What happens around the rollout."""

    start: datetime = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
    faults: tuple[Fault, ...] = ()
    approve_after: timedelta | None = timedelta(0)  # None: nothing is approved
    migrations: Mapping[str, timedelta] = field(default_factory=dict)  # how long each takes
    failing: frozenset[str] = frozenset()  # migrations that fail


@dataclass(frozen=True)
class Rehearsal:
    """The result of a rehearsal."""

    scenario: Scenario
    history: tuple[HistoryEntry, ...]
    status: RolloutStatus
    end: datetime
    reconciles: int
    transitions: tuple[tuple[Stage, Stage], ...]

    @property
    def ended(self) -> bool:
        """Whether the rollout ended."""
        return self.status.outcome is not None


def rehearse(spec: RolloutSpec, scenario: Scenario, name: str = "rehearsal") -> Rehearsal:
    """Play a whole rollout."""
    world = RehearsedWorld(spec, scenario.start, name=name, namespace="rehearsal", uid="rehearsal", scenario=scenario)
    return world.play()


@dataclass
class RehearsedWorld(World):
    """A world that responds as the scenario says, with a clock that jumps to the next event."""

    scenario: Scenario = field(default_factory=Scenario)
    revisions: Revisions | None = field(default_factory=lambda: Revisions(2, 1))
    job_ends: dict[str, tuple[datetime, JobObservation]] = field(default_factory=dict)
    step_starts: dict[tuple[str, int], datetime] = field(default_factory=dict)
    chosen: dict[tuple[object, ...], Decimal] = field(default_factory=dict)
    usual: dict[str, Decimal] = field(default_factory=dict)  # by metric: what it was in each earlier season
    idle: int = 0

    def __post_init__(self) -> None:
        self.ranges = {metric.name: effective_range(metric, control=self.spec.control) for metric in self.spec.metrics}

    # --- the clock

    def play(self) -> Rehearsal:
        """Run from the start until the rollout ends or can no longer change."""
        stop = self.scenario.start + LONGEST
        while self.now < stop:
            before, decision = self.status, self.settle()
            self.idle = self.idle + 1 if self.status == before else 0
            following = self._next_time(decision) if self.status.outcome is None else None
            if following is None:
                break
            self.now = following
        return Rehearsal(self.scenario, tuple(self.history), self.status, self.now, self.reconciles, tuple(self.transitions))

    def reconcile(self, *, crash_before_effects: bool = False) -> Decision:
        """Reconcile as `World` does; then record when a step starts, and approve what is awaited."""
        self.last_reconcile = self.now
        decision = super().reconcile(crash_before_effects=crash_before_effects)
        current = self.status.current
        if current.stage is Stage.STEP and current.phase is not None:
            self.step_starts.setdefault((current.phase, current.step), self.now)
        self._approve()
        return decision

    def _next_time(self, decision: Decision) -> datetime | None:
        """The next time at which a decision may differ; None when there is none."""
        times = set(self._times(decision))
        if self._expects_results(decision) and self.idle < IDLE_RECONCILES:
            times.add(self.now + duration(self.spec.check_interval))
        return min((time for time in times if time > self.now), default=None)

    def _expects_results(self, decision: Decision) -> bool:
        """Whether the very next results matter: something warms up, is awaited, or has just changed."""
        made, stage = decision.status.decision, self.status.current.stage
        in_step = stage is Stage.STEP and not any(fault.is_outage for fault in self._active_faults())
        return (
            made.next_time is None
            and made.action in {DecisionAction.WAIT, DecisionAction.HOLD, DecisionAction.PUBLISH}
            and (in_step or stage in {Stage.BASELINE, Stage.PREFLIGHT, Stage.VERIFICATION})
            and not made.approvals
        )

    def _times(self, decision: Decision) -> Iterator[datetime]:
        made, current = decision.status.decision, self.status.current
        yield from (time for time in (made.next_time, current.hold_until) if time is not None)
        published = current.published_time or current.guards_start_time
        if published is not None:
            settled = published + duration(self.spec.propagation)
            yield from (settled + reach + window_of(self.spec, self.status, name) for name, reach in self.ranges.items())
        yield from self._breach_times()
        for fault in self.scenario.faults:
            start = self.step_starts.get((fault.phase, fault.step))
            if start is not None and fault.lasts is not None:
                yield start + fault.lasts
        yield from (end for end, _ in self.job_ends.values())
        yield from (action.creation_time for action in self.actions)

    def _breach_times(self) -> Iterator[datetime]:
        durations = {guard.name: duration(guard.for_) for guard in self.spec.guards}
        for record in self.status.checks:
            if record.kind is CheckKind.GUARD and record.failing_time is not None and record.name in durations:
                yield record.failing_time + timedelta(milliseconds=record.gap_milliseconds or 0) + durations[record.name]

    # --- what the operator observes

    def advance_jobs(self) -> None:
        """End the Jobs whose time has come; all others work."""
        for name, (end, result) in self.job_ends.items():
            self.jobs[name] = result if end <= self.now else replace(self.jobs[name], progress=AT_WORK)

    def _active_faults(self) -> list[Fault]:
        """Faults of this moment."""
        active = []
        for fault in self.scenario.faults:
            start = self.step_starts.get((fault.phase, fault.step))
            if start is not None and (fault.lasts is None or self.now < start + fault.lasts):
                active.append(fault)
        return active

    def measure(self, name: str) -> Measurement | None:
        """A value that passes every check of the metric, unless a fault says otherwise."""
        active = self._active_faults()
        if any(fault.is_outage for fault in active):
            return Measurement(
                self.now,
                problem=Verdict.PROVIDER_ERROR,
                reason=CheckReason.CONNECTION_FAILED,
                message="the provider cannot be reached",
            )
        fault = next((fault for fault in active if fault.metric == name), None)
        metric = self.spec.metric(name)
        if metric is not None and metric.counted is not None:
            return self._counted(metric, fault)
        cohorts = metric is not None and metric.cohorts is not None
        if fault is not None and fault.value is not None:
            return self._with_seasons(name, measurement_of(fault.value, self.now, cohorts=cohorts))
        wanted = Verdict.FAIL if fault is not None else Verdict.PASS
        return self._with_seasons(
            name, measurement_of(self._chosen_value(name, wanted, cohorts=cohorts), self.now, cohorts=cohorts)
        )

    def _with_seasons(self, name: str, measurement: Measurement) -> Measurement:
        """The earlier seasons are as the metric was when they were read first, if its query has a past."""
        metric, ago = self.spec.metric(name), seasons_read(self.rollout(), self.now).get(name)
        if metric is None or ago is None or measurement.value is None:
            return measurement
        has_past = query_of_seasons(metric, ago) is not None
        earlier = (self.usual.setdefault(name, measurement.value),) * len(ago) if has_past else ()
        return replace(measurement, seasons=Seasons(self.now, measurement.value, earlier))

    def _counted(self, metric: Metric, fault: Fault | None) -> Measurement:
        """Blocks of events, of which as many are bad with the feature (or which have such a mean) as a fault says."""
        percent, harmless, harmful = rates_of(self.spec, self.status, metric)
        rate = harmless if fault is None else harmful if fault.value is None else fault.value
        return compared_measurement(rate, self.now, metric, percent=percent, length=block_of(self.spec.control, Intervals()))

    def _chosen_value(self, name: str, wanted: Verdict, *, cohorts: bool) -> Decimal:
        checks = list(self._checks_of(name))
        metric, usual = self.spec.metric(name), self.usual.get(name)
        baselines = {
            (record.kind, record.name): usual if usual is not None and is_seasoned(metric, record) else Decimal(record.baseline)
            for record in self.status.checks
            if record.baseline is not None
        }
        key = (name, wanted, tuple(id(check) for _, check in checks), tuple(sorted(baselines.items())))
        if key not in self.chosen:
            self.chosen[key] = best_value(checks, baselines, wanted, cohorts=cohorts)
        return self.chosen[key]

    def _checks_of(self, name: str) -> Iterator[KindAndCheck]:
        """All checks that are evaluated on a metric now."""
        current = self.status.current
        phase, judged = phase_named(self.spec, current.phase), current.stage in {Stage.STEP, Stage.BASELINE}
        yield from ((CheckKind.GUARD, guard) for guard in self.spec.guards if guard.metric == name)
        for check in (*self.spec.guards, *(phase.criteria if phase is not None else ())):
            if check.minimum is not None and check.minimum.metric == name:
                yield CheckKind.GUARD, Gate(name=check.name, metric=name, above=check.minimum.above)
        if phase is not None and judged:
            yield from ((CheckKind.CRITERION, check) for check in phase.criteria if check.metric == name)
        if not judged:
            yield from ((CheckKind.PREFLIGHT, gate) for gate in self.spec.preflight if gate.metric == name)
            verification = phase.verification if phase else ()
            yield from ((CheckKind.VERIFICATION, gate) for gate in verification if gate.metric == name)
            after = self.spec.rollback.verification
            yield from ((CheckKind.AFTER_ROLLBACK, gate) for gate in after if gate.metric == name)

    def check_gate(self, _: Gate) -> CheckResult | None:
        """Every HTTP and built-in check passes."""
        return CheckResult(self.now, Verdict.PASS, CheckReason.CHECK_SUCCEEDED, "assumed to pass")

    # --- what the operator does

    def apply(self, effect: Effect) -> None:
        """Apply an effect as `World` does; for a Job, first decide when and how it ends."""
        match effect:
            case StartJob(name=name, migration=migration):
                failed = JobObservation(JobState.FAILED, Progress(message="the scenario lets this migration fail"))
                result = failed if migration in self.scenario.failing else SUCCEEDED
                takes = self.scenario.migrations.get(migration, DEFAULT_MIGRATION)
                self.job_ends.setdefault(name, (self.now + takes, result))
            case StartCheck(name=name):
                self.job_ends.setdefault(name, (self.now + DEFAULT_MIGRATION, SUCCEEDED))
        super().apply(effect)

    def _approve(self) -> None:
        """Give the approval that is awaited, after the time that the scenario has."""
        awaited, after = self.status.decision.approvals, self.scenario.approve_after
        if after is not None and not self.actions and awaited:
            fields = {"generation": self.generation, **awaited[0].to_wire()}
            self.request("Approve", f"approval-{self.reconciles}", after=after, **fields)
