"""The decision while it is being made: the next status as it grows, and the effects that go with it.

Only `core` sees a DecisionContext; `decide` turns it into a frozen `Decision`.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from session_rollout.api.enums import DecisionAction, EventReason, Outcome, PhaseState, Stage, Verdict
from session_rollout.api.quantities import duration
from session_rollout.api.rollout import Phase, RolloutSpec, SessionRollout
from session_rollout.api.status import (
    HISTORY_LENGTH,
    NOTIFICATION_LENGTH,
    PENDING_LENGTH,
    AwaitedApproval,
    CheckRecord,
    Current,
    HistoryEntry,
    MigrationRecord,
    PendingNotification,
    PhaseRecord,
    RolloutStatus,
)
from session_rollout.core.flags import with_dependents
from session_rollout.core.inputs import needed_metrics
from session_rollout.core.observed import Effect, Emit, Observed
from session_rollout.core.steps import Increment, increment_at, phase_named

GAP_INTERVALS = 2  # one missed look is jitter; beyond that nobody was looking


@dataclass(frozen=True)
class StageResult:
    """What is done now, and why: the end of every chain of rules."""

    action: DecisionAction
    message: str  # about ten words, for `kubectl get`
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
    skip_step: str | None = None  # name of the action that promotes past the checks of this step

    @property
    def rollout(self) -> SessionRollout:
        """The object as it will be."""
        return self.observed.rollout.model_copy(update={"status": self.status})

    @property
    def spec(self) -> RolloutSpec:
        """What is wanted."""
        return self.observed.rollout.spec

    @property
    def current(self) -> Current:
        """Where it is."""
        return self.status.current

    @property
    def phase(self) -> Phase | None:
        """The running phase, as the spec has it now."""
        return phase_named(self.spec, self.current.phase)

    @property
    def increment(self) -> Increment | None:
        """The audience it stands on."""
        return increment_at(self.phase, self.current) if self.phase is not None else None

    @property
    def interval(self) -> timedelta:
        """How often checks are evaluated."""
        return duration(self.spec.check_interval)

    @property
    def unanswered(self) -> bool:
        """Whether an answer that this stage needs is still on its way: after a start, or from a slow provider."""
        return any(metric.name not in self.observed.measurements for metric in needed_metrics(self.observed.rollout))

    @property
    def unseen(self) -> timedelta:
        """How long nobody looked at the evidence before now; all of the hold when nobody knows."""
        last = self.observed.last_reconcile
        if last is None:
            return timedelta.max
        away = self.now - last
        return away if away > GAP_INTERVALS * self.interval else timedelta(0)

    def change(self, **fields: Any) -> None:
        """Set fields of the status."""
        self.status = self.status.model_copy(update=fields)

    def move(self, **fields: Any) -> None:
        """Set fields of `current`."""
        self.change(current=self.current.model_copy(update=fields))

    def enter(self, stage: Stage, **fields: Any) -> None:
        """Begin a stage; what belongs to the one before is gone."""
        fresh = Current(
            stage=stage,
            phase=self.current.phase,
            phase_index=self.current.phase_index,
            percent=self.current.percent,
            groups=self.current.groups,
            guards_start_time=self.current.guards_start_time,
            stage_start_time=self.now,
        )
        self.change(current=fresh.model_copy(update=fields))

    def record(self, phase: str) -> PhaseRecord:
        """The record of a phase."""
        return next(record for record in self.status.phases if record.name == phase)

    def mark(self, phase: str, **fields: Any) -> None:
        """Set fields of a phase's record."""
        self.change(
            phases=tuple(record.model_copy(update=fields) if record.name == phase else record for record in self.status.phases)
        )

    def check(self, kind: str, name: str) -> CheckRecord:
        """The record of a check; a fresh one when there is none."""
        return next(
            (record for record in self.status.checks if (record.kind, record.name) == (kind, name)),
            CheckRecord(name=name, kind=kind, verdict=Verdict.NOT_EVALUATED),
        )

    def put_check(self, record: CheckRecord) -> None:
        """Keep the record of a check."""
        key = (record.kind, record.name)
        if record in self.status.checks:
            return
        known = [one for one in self.status.checks if (one.kind, one.name) != key]
        self.change(checks=tuple(sorted([*known, record], key=lambda one: (one.kind, one.name))))

    def checks_of(self, kind: str) -> tuple[CheckRecord, ...]:
        """All records of one kind."""
        return tuple(record for record in self.status.checks if record.kind == kind)

    def migration(self, name: str) -> MigrationRecord:
        """The record of a migration; a fresh one when there is none."""
        return next((one for one in self.status.migrations if one.name == name), MigrationRecord(name=name))

    def put_migration(self, record: MigrationRecord) -> None:
        """Keep the record of a migration."""
        known = [one for one in self.status.migrations if one.name != record.name]
        self.change(migrations=tuple(sorted([*known, record], key=lambda one: one.name)))

    def tell(self, event: EventReason, because: str, *, by: str | None = None, at: Current | None = None) -> None:
        """Put a line into the history and send it as an Event; about where it is, or was."""
        at = at or self.current
        entry = HistoryEntry(
            time=self.now,
            event=event,
            phase=at.phase,
            step=at.step or None,
            percent=at.percent,
            by=by,
            message=because[:512],
        )
        self.change(history=(*self.status.history, entry)[-HISTORY_LENGTH:])
        self._notify(entry)
        where = f" [{at.phase} step {at.step}]" if at.step else ""
        self.effects.append(Emit(event, because + where))

    def _notify(self, entry: HistoryEntry) -> None:
        """A message for every sink that wants to hear of this; the same event gives the same id."""
        for wanted in self.spec.notifications:
            if entry.event not in wanted.events:
                continue
            identity = f"{self.observed.rollout.uid}/{wanted.sink}/{entry.event}/{entry.time.isoformat()}/{entry.message}"
            notice = PendingNotification(
                id=hashlib.sha256(identity.encode()).hexdigest()[:32],
                sink=wanted.sink,
                event=entry.event,
                time=entry.time,
                phase=entry.phase,
                step=entry.step,
                message=entry.message[:NOTIFICATION_LENGTH],
            )
            if notice not in self.status.pending_notifications:
                kept = (*self.status.pending_notifications, notice)
                lost = max(len(kept) - PENDING_LENGTH, 0)
                self.change(pending_notifications=kept[lost:], notifications_lost=min(self.status.notifications_lost + lost, 1000))

    def end(self, outcome: Outcome, event: EventReason, because: str) -> None:
        """The generation has ended."""
        self.tell(event, because)
        self.enter(Stage.ENDED)
        self.change(outcome=outcome)

    def disabled_here(self) -> tuple[str, ...]:
        """Features of the running phase that somebody switched off in an emergency, themselves or by dependency."""
        gone = with_dependents(self.spec, {one.feature: one.reason for one in self.status.flags.disabled})
        return tuple(name for name in (self.phase.features if self.phase else ()) if name in gone)

    def completed(self) -> int:
        """How many phases have completed."""
        return sum(record.state is PhaseState.COMPLETED for record in self.status.phases)
