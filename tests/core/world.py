"""The simulated world with what tests add to it: metrics are good, Jobs end at once, time passes in ticks."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import yaml

from session_rollout.api.enums import ActionReason, CheckKind, DecisionReason, EventReason, Verdict
from session_rollout.api.progress import Progress
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status_records import CheckRecord, HistoryEntry, MigrationRecord
from session_rollout.core.documents import PublishedDocument
from session_rollout.core.observed import Decision, Effect, JobObservation, JobState, Measurement, Publish, Seasons
from session_rollout.core.seasons import seasons_read
from session_rollout.simulation import world as simulation

START = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)  # a Monday
GOOD = {"errors": Decimal("0.001"), "load": Decimal("1.0")}

ROLLOUT = """
flagSet: shop
checkInterval: 10s
propagation: 0s
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


def spec(text: str = ROLLOUT, **changes: Any) -> RolloutSpec:
    """A spec from YAML, with top-level fields replaced."""
    return RolloutSpec.model_validate({**yaml.safe_load(text), **changes})


def rollout_data(**changes: Any) -> dict[str, Any]:
    """The rollout as data, with top-level fields replaced."""
    return {**yaml.safe_load(ROLLOUT), **changes}


def edited(change: Callable[[dict[str, Any]], Any], **changes: Any) -> RolloutSpec:
    """The spec after `change` has modified its data."""
    data = rollout_data(**changes)
    change(data)
    return RolloutSpec.model_validate(data)


def with_another_plan(**changes: Any) -> RolloutSpec:
    """The rollout with a longer hold: a new attempt after a rollback. Top-level fields are replaced."""
    return edited(lambda data: data["phases"][1]["steps"][0].update(hold="70s"), **changes)


@dataclass
class World(simulation.World):
    """One rollout and its surroundings."""

    now: datetime = START
    values: dict[str, Decimal | Verdict] = field(default_factory=lambda: dict(GOOD))
    last_reconcile: datetime | None = START
    jobs_succeed: bool = True
    progress: dict[str, Any] = field(default_factory=dict)  # figures in the last progress of a Job
    publishing: bool = True  # False: the API server accepts no document
    answering: bool = True  # False: no metric has a result yet
    decision: Decision | None = None
    waves: dict[str, Callable[[datetime], Decimal]] = field(default_factory=dict)  # by metric: what its value is a multiple of
    oldest: datetime | None = None  # sample of the waves
    seasons: Seasons | None = None  # what the provider says of earlier weeks, instead

    def measure(self, name: str) -> Measurement | None:
        measurement = super().measure(name) if self.answering else None
        return measurement if measurement is None or name not in self.waves else self._on_wave(measurement, name)

    def _on_wave(self, measurement: Measurement, name: str) -> Measurement:
        """The value is a multiple of that of the wave; if they are needed, with those of earlier weeks."""
        factor, ago = measurement.value, seasons_read(self.rollout(), self.now).get(name)
        value = self._crest(name, self.now)
        if factor is None or value is None:
            return measurement
        measurement = replace(measurement, value=factor * value)
        if ago is None:
            return measurement
        earlier = (self._crest(name, self.now - length) for length in ago)
        seasons = Seasons(self.now, factor * value, tuple(each for each in earlier if each is not None))
        return replace(measurement, seasons=self.seasons or seasons)

    def _crest(self, name: str, time: datetime) -> Decimal | None:
        return self.waves[name](time) if self.oldest is None or time >= self.oldest else None

    def reconcile(self, *, crash_before_effects: bool = False) -> Decision:
        self.decision = super().reconcile(crash_before_effects=crash_before_effects)
        return self.decision

    def apply(self, effect: Effect) -> None:
        if not isinstance(effect, Publish) or self.publishing:
            super().apply(effect)

    def advance_jobs(self) -> None:
        """Every active Job ends."""
        end = JobState.SUCCEEDED if self.jobs_succeed else JobState.FAILED
        for name, job in self.jobs.items():
            if job.state is JobState.ACTIVE and not job.suspended:
                message, reason = ("done", None) if self.jobs_succeed else ("relation exists", "StatementFailed")
                progress = Progress(checksum="sha256:bundle", reason=reason, message=message, **self.progress)
                self.jobs[name] = JobObservation(end, progress)

    def request(self, action: str, name: str = "", *, uid: str = "", after: timedelta = timedelta(0), **fields: Any) -> str:
        """Create an action. Without `after`, its author has seen what a guard has done, so it is created in a later second."""
        seen = self.status.protected_time
        if seen is not None and not after:
            self.now = max(self.now, seen)
        return super().request(action, name, uid=uid, after=after, **fields)

    def run(self, seconds: float, tick: float = 10) -> Decision:
        """Let time pass, reconciling every tick."""
        decision = self.settle()
        for _ in range(round(seconds / tick)):
            self.now += timedelta(seconds=tick)
            decision = self.settle()
        return decision

    def until(self, condition: Any, seconds: float = 3600, tick: float = 10) -> float:
        """Let time pass until the condition holds; the seconds that took."""
        start = self.now
        self.settle()
        while not condition(self):
            assert (self.now - start).total_seconds() < seconds, f"not within {seconds} s: {self.status.decision}"
            self.now += timedelta(seconds=tick)
            self.settle()
        return (self.now - start).total_seconds()

    def refuse_first_publish(self) -> None:
        """The audience of the first step is decided, and the API server does not accept its document."""
        self.answering = False
        self.settle()
        self.answering, self.publishing = True, False
        self.settle()

    @property
    def where(self) -> tuple[str | None, int, int, str]:
        """Phase, step, increment, percent."""
        current = self.status.current
        return current.phase, current.step, current.increment, current.percent

    @property
    def reason(self) -> DecisionReason:
        """Reason of the last decision."""
        return self.status.decision.reason

    def condition(self, kind: str) -> str:
        """Status of a condition."""
        return next(condition.status for condition in self.status.conditions if condition.type == kind)

    def condition_reason(self, kind: str) -> str:
        """Reason of a condition."""
        return next(condition.reason for condition in self.status.conditions if condition.type == kind)

    def check(self, kind: CheckKind, name: str) -> CheckRecord:
        """The record of a check."""
        return next(record for record in self.status.checks if (record.kind, record.name) == (kind, name))

    def migration(self, name: str) -> MigrationRecord:
        """The record of a migration."""
        return next(record for record in self.status.migrations if record.name == name)

    def entries(self, event: EventReason) -> list[HistoryEntry]:
        """Every entry of the history about an event, the oldest first, also those that the status no longer keeps."""
        return [entry for entry in self.history if entry.event is event]

    def percents(self) -> dict[str, str]:
        """The percentage that was published last, by phase."""
        return {record.name: record.percent for record in self.status.phases}

    def tamper(self, sha256: str = "sha256:other", **fields: Any) -> None:
        """Another client has written the document: one that nobody can read, or with these fields changed."""
        before = self.document or PublishedDocument("")
        self.document = replace(before, sha256=sha256, version=before.version + 1, owner=self.name, **fields)

    def flag(self, name: str) -> dict[str, Any]:
        """A flag of the document that was published last."""
        return dict(json.loads(self.documents[-1])["flags"][name])

    def answer(self, name: str) -> tuple[bool, ActionReason]:
        """Whether an action was accepted, and the reason."""
        return self.answers[name].accepted, self.answers[name].reason


def ended(world: World) -> bool:
    """Whether the rollout has an outcome."""
    return world.status.outcome is not None


def at(phase: str, step: int, increment: int = 0) -> Callable[[World], bool]:
    """Condition: the audience of this place is published."""
    return lambda world: world.where[:3] == (phase, step, increment) and world.status.current.published_time is not None
