"""The working state of one decision: the next status as it grows, and the effects that go with it.

Every change of the status goes through a setter below, which validates it: a misspelled field or a value out of bounds
is an error here, not a status that the API server rejects. Only `core` sees a DecisionContext; `decide` turns it into a
frozen `Decision`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from session_rollout.api.checks import Check, Gate
from session_rollout.api.enums import (
    CheckKind,
    DecisionAction,
    DecisionReason,
    EventReason,
    Outcome,
    Stage,
)
from session_rollout.api.phases import Phase
from session_rollout.api.quantities import duration
from session_rollout.api.rollout import RolloutSpec, SessionRollout
from session_rollout.api.status import CHECKS_LENGTH, HISTORY_LENGTH, MIGRATIONS_LENGTH, AwaitedApproval, Current, RolloutStatus
from session_rollout.api.status_records import CheckRecord, HistoryEntry, MigrationRecord
from session_rollout.core.documents import PublishedDocument
from session_rollout.core.flags import disabled_features, held_back_of
from session_rollout.core.inputs import RUNNING, needed_metrics
from session_rollout.core.notifications import notifications_of, queued
from session_rollout.core.observed import Effect, Emit, Observed, Publish
from session_rollout.core.status_budget import kept
from session_rollout.core.steps import Increment, audience_text, increment_at, percent_text, phase_named

RESYNC: Final = timedelta(seconds=30)  # a rollout is reconciled at least this often
GAP_INTERVALS: Final = 2  # a reconciliation that is one interval late is jitter; beyond that nobody observed the rollout

# A reconciliation that takes longer than the interval is no absence: the next one evaluates the evidence of that time. One that
# takes longer than this was not working, but hung or frozen.
LONGEST_WORK: Final = timedelta(seconds=10)


def longest_gap(interval: timedelta, busy: timedelta) -> timedelta:
    """How long after an evaluation another one still counts as the next, if the rollout was being worked on for so long."""
    return GAP_INTERVALS * min(interval, RESYNC) + min(busy, LONGEST_WORK)


@dataclass(frozen=True)
class StageResult:
    """What the operator does now and why: the end of every chain of rules. Fields as in `status.decision`."""

    action: DecisionAction
    reason: DecisionReason
    message: str
    details: tuple[str, ...] = ()
    next_actions: tuple[str, ...] = ()
    next_time: datetime | None = None
    approvals: tuple[AwaitedApproval, ...] = ()


@dataclass
class DecisionContext:
    """Next status and effects of one object."""

    observed: Observed
    now: datetime
    status: RolloutStatus
    effects: list[Effect] = field(default_factory=list)
    transitions: list[tuple[Stage, Stage]] = field(default_factory=list)
    urgent: Publish | None = None
    is_reset: bool = False  # users lose features because a person wants to start again: the status has to say so first
    problems: tuple[str, ...] = ()  # why the rollout cannot be carried out as the spec has it

    @property
    def rollout(self) -> SessionRollout:
        """The object with the next status."""
        return self.observed.rollout.updated(status=self.status)

    @property
    def spec(self) -> RolloutSpec:
        """The desired state."""
        return self.observed.rollout.spec

    @property
    def current(self) -> Current:
        """Where the rollout is."""
        return self.status.current

    @property
    def phase(self) -> Phase | None:
        """The running phase, as the spec has it now."""
        return phase_named(self.spec, self.current.phase)

    @property
    def running_features(self) -> tuple[str, ...]:
        """Features of the running phase."""
        return self.phase.features if self.phase is not None else ()

    @property
    def decided_features(self) -> tuple[str, ...]:
        """Features that the audience of the running step was decided for: an edit that is new may name others."""
        record = self.status.phase(self.current.phase)
        return record.features if record is not None and record.features else self.running_features

    @property
    def document(self) -> PublishedDocument | None:
        """The flag document in the cluster, if this rollout may write it."""
        document = self.observed.document
        return document if document is not None and document.belongs_to(self.observed.rollout.name) else None

    @property
    def increment(self) -> Increment | None:
        """The audience that is published, as the spec has it now."""
        return increment_at(self.phase, self.current) if self.phase is not None else None

    @property
    def interval(self) -> timedelta:
        """How often checks are evaluated."""
        return duration(self.spec.check_interval)

    @property
    def awaits_results(self) -> bool:
        """Whether a result that this stage needs is still on its way: after a start, or from a slow provider."""
        return any(metric.name not in self.observed.measurements for metric in needed_metrics(self.observed.rollout))

    @property
    def unobserved(self) -> timedelta:
        """How long nobody evaluated the evidence before now; timedelta.max when that is unknown."""
        last = self.observed.last_reconcile
        if last is None:
            return timedelta.max
        away = self.now - last
        return away if away > longest_gap(self.interval, self.observed.busy) else timedelta(0)

    @property
    def pause_text(self) -> str:
        """Who paused the rollout, and why if that is known."""
        cause = self.status.paused_message.removeprefix(f"{self.status.paused_by}: ")
        return f"paused by {self.status.paused_by}" + (f": {cause}" if cause else "")

    # --- setters

    def change(self, **fields: Any) -> None:
        """Set fields of the status. Raises pydantic.ValidationError."""
        self.status = self.status.updated(**fields)

    def move(self, **fields: Any) -> None:
        """Set fields of `current`."""
        current = self.current.updated(**fields)
        record = self.status.phase(current.phase)
        held = percent_text(held_back_of(self.status, record)) if record is not None else "0"
        self.change(current=current.updated(audience=audience_text(current.percent, current.groups, current.placebo, held)))

    def enter(self, stage: Stage, **fields: Any) -> None:
        """Start a stage; what belongs to the stage before is dropped."""
        self.transitions.append((self.current.stage, stage))
        kept = ("phase", "phase_index", "percent", "groups", "guards_start_time")
        fresh = Current(stage=stage, stage_start_time=self.now, **{name: getattr(self.current, name) for name in kept})
        self.change(current=fresh)
        self.move(**fields)

    def mark(self, phase: str, **fields: Any) -> None:
        """Set fields of a phase's record."""
        self.change(phases=tuple(record.updated(**fields) if record.name == phase else record for record in self.status.phases))

    def protect(self, requested: datetime | None = None) -> None:
        """Something takes features away or stops progress: no older action undoes it (`core.outdated`).

        `requested` is when the action was created that does it. Creation times have whole seconds: without one, what was created within this
        second may be older.
        """
        following = self.now.replace(microsecond=0) + timedelta(seconds=1)
        known, time = self.status.protected_time, min(requested or following, following)
        if known is None or known < time:
            self.change(protected_time=time)

    def pause(self, by: str, message: str) -> None:
        """Keep the audience until a `Resume` action."""
        self.change(paused_by=by, paused_message=message)
        self.void_promote()

    def void_promote(self) -> None:
        """A `Promote` that has not had its effect has none: whoever wanted it did not know of what has happened."""
        self.move(promoted_by=None, promote_time=None, raised_by=None)

    def resume(self) -> None:
        """End a pause."""
        self.change(paused_by=None, paused_message="")

    # --- records

    def check(self, kind: CheckKind, name: str) -> CheckRecord:
        """The record of a check; a new one when there is none."""
        known = next((record for record in self.status.checks if (record.kind, record.name) == (kind, name)), None)
        return known or CheckRecord(name=name, kind=kind)

    def checks_of(self, kind: CheckKind) -> tuple[CheckRecord, ...]:
        """All records of one kind."""
        return tuple(record for record in self.status.checks if record.kind is kind)

    def put_check(self, record: CheckRecord) -> None:
        """Keep the record of a check."""
        if record in self.status.checks:
            return
        others = [known for known in self.status.checks if (known.kind, known.name) != (record.kind, record.name)]
        needed = self._names_of_checks()
        checks = kept((*others, record), lambda known: known is record or (known.kind, known.name) in needed, CHECKS_LENGTH)
        self.change(checks=tuple(sorted(checks, key=lambda known: (known.kind, known.name))))

    def _names_of_checks(self) -> set[tuple[CheckKind, str]]:
        """The checks that the spec has for the running phase."""
        phase, spec = self.phase, self.spec
        lists: dict[CheckKind, Iterable[Check | Gate]] = {
            CheckKind.GUARD: spec.guards,
            CheckKind.PREFLIGHT: spec.preflight,
            CheckKind.CRITERION: phase.criteria if phase else (),
            CheckKind.VERIFICATION: phase.verification if phase else (),
            CheckKind.AFTER_ROLLBACK: spec.rollback.verification,
        }
        return {(kind, check.name) for kind, checks in lists.items() for check in checks}

    def migration(self, name: str) -> MigrationRecord:
        """The record of a migration; a new one when there is none."""
        return next((record for record in self.status.migrations if record.name == name), MigrationRecord(name=name))

    def put_migration(self, record: MigrationRecord) -> None:
        """Keep the record of a migration."""
        others = [known for known in self.status.migrations if known.name != record.name]
        declared = {migration.name for migration in self.spec.migrations}
        migrations = kept(
            (*others, record),
            lambda known: known is record or known.name in declared or known.state in RUNNING or known.backup_until,
            MIGRATIONS_LENGTH,
        )
        self.change(migrations=tuple(sorted(migrations, key=lambda known: known.name)))

    # --- events

    def record_event(self, event: EventReason, message: str, *, at: Current | None = None, **fields: Any) -> None:
        """Add an event to the history, send it as a Kubernetes Event and notify the sinks that subscribe to it.

        `at` is where it happened, by default where the rollout is; `fields` are further fields of HistoryEntry.
        """
        at = at or self.current
        entry = HistoryEntry(
            time=self.now,
            event=event,
            phase=at.phase,
            step=at.step or None,
            percent=at.percent,
            audience=at.audience,
            message=message,
            **fields,
        )
        self.change(history=(*self.status.history, entry)[-HISTORY_LENGTH:])
        self.status = queued(self.status, notifications_of(self.observed.rollout, entry))
        where = f" [{at.phase} step {at.step}]" if at.step else ""
        self.effects.append(Emit(event, entry.message + where))

    def end(self, outcome: Outcome, event: EventReason, message: str, **fields: Any) -> None:
        """End the generation; `fields` remain in `current`."""
        self.record_event(event, message)
        self.enter(Stage.ENDED, **fields)
        self.change(outcome=outcome)

    @property
    def still_off(self) -> tuple[str, ...]:
        """Features whose emergency was lifted, and that users do not have yet: the document in the cluster still has them off."""
        disabled = disabled_features(self.spec, self.status)
        return tuple(sorted(name for name in self.document.disabled if name not in disabled)) if self.document else ()

    @property
    def off_here(self) -> tuple[str, ...]:
        """Features that are off by an emergency and keep this stage from ending: in the bake, any that the rollout published."""
        return self.off_published if self.current.stage is Stage.BAKE else self._off(self.running_features)

    @property
    def off_published(self) -> tuple[str, ...]:
        """Features that are off by an emergency, of all that the rollout published."""
        return self._off(name for record in self.status.phases for name in record.features)

    def _off(self, names: Iterable[str]) -> tuple[str, ...]:
        off = {*disabled_features(self.spec, self.status), *self.still_off}
        return tuple(name for name in names if name in off)
