"""The operator's own metrics (`sessionrollout_*`) and their mapping from a reconciliation.

A gauge of one rollout is set through `_replace`, which removes the series that no longer apply: the criteria of an earlier
phase, an earlier step, a migration that is no longer in the spec. `forget` removes all series of a deleted rollout.
"""

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from importlib.metadata import version
from typing import Final, NamedTuple

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from session_rollout.api.action import ActionStatus
from session_rollout.api.checks import Check, ComparedTo, Gate, OnBreach
from session_rollout.api.enums import CheckKind, Condition, ConditionReason, EventReason, Outcome
from session_rollout.api.migration_enums import MigrationState
from session_rollout.api.quantities import bound, duration
from session_rollout.api.rollout import RolloutSpec, SessionRollout
from session_rollout.api.status import RolloutStatus
from session_rollout.core.evaluation import Direction, tolerance_of
from session_rollout.core.evidence import tolerated_by
from session_rollout.core.evidence_text import events_of
from session_rollout.core.observed import Measurement
from session_rollout.core.seasons import season_of
from session_rollout.core.steps import phase_named
from session_rollout.ports import Key, Reconciled

disable_created_metrics()  # type: ignore[no-untyped-call]

ROLLOUT: Final = ("namespace", "name")

API_REQUESTS: Final = Counter(
    "sessionrollout_rest_client_requests",
    "Requests to the API server, by HTTP method and status code; the code is `error` when there was no response.",
    ["method", "code"],
)
PROVIDER_REQUESTS: Final = Counter(
    "sessionrollout_provider_requests",
    "Queries that the operator sent to a metric provider, by result.",
    ["provider", "result"],
)
PROVIDER_SECONDS: Final = Histogram(
    "sessionrollout_provider_request_duration_seconds", "Time that a metric provider takes to respond to a query.", ["provider"]
)
QUERIES_REQUESTED: Final = Counter(
    "sessionrollout_queries_requested",
    "Metric values that rollouts requested, whether they came from the cache or from the provider.",
    ["provider"],
)
RECONCILES: Final = Counter(
    "sessionrollout_reconcile",
    "Reconciliations of rollouts; the result is `changed` when the status was written and `unchanged` otherwise.",
    ["result"],
)
RECONCILE_SECONDS: Final = Histogram(
    "sessionrollout_reconcile_duration_seconds", "Time from reading a rollout to the written status."
)
STATUS_WRITES: Final = Counter("sessionrollout_status_writes", "Status writes to the API server.")
LAST_RECONCILE: Final = Gauge(
    "sessionrollout_last_reconcile_timestamp_seconds", "Unix time of the last reconciliation of a rollout.", ROLLOUT
)
OVERDUE: Final = Gauge(
    "sessionrollout_overdue_rollouts", "Rollouts that have not been reconciled for much longer than expected."
)
INFO: Final = Gauge(
    "sessionrollout_info",
    "Always 1; the labels hold the running phase, the step counted from 1 and the status of a rollout.",
    [*ROLLOUT, "phase", "step", "status"],
)
AUDIENCE: Final = Gauge(
    "sessionrollout_audience_ratio", "Share of users, from 0 to 1, that the running step gives the features to.", ROLLOUT
)
PHASE_INDEX: Final = Gauge(
    "sessionrollout_phase_index", "Number of the running phase, counted from 1; 0 before the first phase.", ROLLOUT
)
CONDITION: Final = Gauge(
    "sessionrollout_condition",
    "Conditions of a rollout; 1 for the status that a condition has and 0 for the two others.",
    [*ROLLOUT, "type", "status"],
)
HOLD_UNTIL: Final = Gauge(
    "sessionrollout_hold_until_timestamp_seconds",
    "Unix time at which the hold of the running step ends; 0 while the hold has not started.",
    ROLLOUT,
)
APPROVAL: Final = Gauge("sessionrollout_approval_awaited", "1 while a rollout requires manual approval, otherwise 0.", ROLLOUT)
DISABLED_FEATURES: Final = Gauge(
    "sessionrollout_disabled_features",
    "Features of a rollout that an emergency disabled; features that depend on them are not counted.",
    ROLLOUT,
)
REFUSED_REQUESTS: Final = Gauge(
    "sessionrollout_refused_requests",
    "1 for each effect, such as `Publish` or `Status`, whose requests the API server does not accept; see `status.refusals`.",
    [*ROLLOUT, "effect"],
)
SUSPENDED_FEATURES: Final = Gauge(
    "sessionrollout_suspended_features",
    "Features that users have while the rollout is suspended, so that its guards are not heard; 0 while it is not suspended.",
    ROLLOUT,
)
MIGRATIONS_FAILED: Final = Gauge(
    "sessionrollout_migrations_failed", "Failed migrations of a rollout that require manual intervention.", ROLLOUT
)
CHECK_VALUE: Final = Gauge(
    "sessionrollout_check_value",
    "Latest value of the metric of a criterion, guard or gate, in base units. For a check with `comparedTo: Control`, this is the difference.",
    [*ROLLOUT, "kind", "check"],
)
CHECK_BOUND: Final = Gauge(
    "sessionrollout_check_bound",
    "Bound of a criterion, guard or gate, in base units. With `comparedTo: Baseline`, it is calculated from the baseline of that evaluation.",
    [*ROLLOUT, "kind", "check"],
)
MIGRATION_ROWS: Final = Gauge(
    "sessionrollout_migration_rows",
    "Rows of a migration that copies rows; the kind is `total`, `done` or `quarantined`.",
    [*ROLLOUT, "migration", "kind"],
)
OUTCOMES: Final = Counter(
    "sessionrollout_outcomes", "Generations of rollouts that ended, by outcome.", ["namespace", "outcome"]
)
ROLLBACKS: Final = Counter(
    "sessionrollout_rollbacks",
    "Rollbacks, by the guard that caused them; the guard is empty for a deadline or an Abort.",
    [*ROLLOUT, "guard"],
)
ROLLBACK_AUDIENCE: Final = Gauge(
    "sessionrollout_rollback_audience_ratio",
    "Share of users, from 0 to 1, who had the features when the last rollback began.",
    ROLLOUT,
)
ROLLBACK_DETECTION: Final = Gauge(
    "sessionrollout_rollback_detection_seconds",
    "Time from publishing the last audience to the decision to roll it back, for the last rollback.",
    ROLLOUT,
)
ACTIONS: Final = Counter(
    "sessionrollout_actions",
    "SessionRolloutActions that the operator responded to; the result is `accepted` or `rejected`.",
    ["result"],
)
for _result in ("accepted", "rejected"):
    ACTIONS.labels(_result)
CLOCK_SKEW: Final = Gauge(
    "sessionrollout_clock_skew_seconds",
    "Time by which the clock of the API server is ahead of the time that the operator uses; negative when it is behind.",
)
CLOCK_JUMPS: Final = Counter(
    "sessionrollout_clock_jumps",
    "Jumps of a clock by more than two seconds; the source is `operator` or `api-server`.",
    ["source"],
)
for _source in ("operator", "api-server"):
    CLOCK_JUMPS.labels(_source)
INTERVAL_OVERRUN: Final = Gauge(
    "sessionrollout_interval_overrun_seconds",
    "Time by which the last reconciliation of a rollout, and the wait for its turn, took longer than its `checkInterval`; 0 when the interval is kept.",
    ROLLOUT,
)
LEADER: Final = Gauge("sessionrollout_leader", "1 while this replica holds the Lease, otherwise 0.")
BUILD: Final = Gauge("sessionrollout_build_info", "Always 1; the label holds the version of the operator.", ["version"])
BUILD.labels(version("session-rollout")).set(1)

EXPORTED_CONDITIONS: Final = frozenset(
    {Condition.READY, Condition.STALLED, Condition.PAUSED, Condition.EVIDENCE_AVAILABLE, Condition.ROLLED_BACK}
)
CONDITION_STATUSES: Final = ("True", "False", "Unknown")
Family = Gauge | Counter
Labels = tuple[str, ...]
_series: Final[dict[Key, dict[Family, set[Labels]]]] = {}


class Stored(NamedTuple):
    """What is remembered of the status that the API server had: whole ones of a thousand rollouts would fill the memory."""

    write: datetime | None
    outcome: Outcome | None
    rollback: str | None

    @classmethod
    def of(cls, status: RolloutStatus) -> "Stored":
        """Of this status."""
        return cls(status.last_update_time, status.outcome, status.current.rollback_uid)


_stored: Final[dict[Key, Stored]] = {}  # when each rollout was last observed


def observe(key: Key, seen: Reconciled) -> None:
    """Bring the operator's metrics up to one reconciliation.

    What counts is the status that the API server has: also of a write whose response was lost, or one that another decision made.
    A process that has just taken over has no series yet: it sets them without waiting for a status that changes.
    """
    before, now = _stored.get(key), Stored.of(seen.stored)
    _stored[key] = now
    RECONCILES.labels("changed" if seen.wrote else "unchanged").inc()
    RECONCILE_SECONDS.observe(seen.seconds)
    _replace(key, LAST_RECONCILE, {(): time.time()})
    interval = duration(seen.rollout.spec.check_interval).total_seconds()
    _replace(key, INTERVAL_OVERRUN, {(): max(0.0, seen.waited + seen.seconds - interval)})
    _observe_checks(key, seen)
    if seen.wrote or before != now:
        _observe_status(key, seen.stored)
        _start_counters(key, seen.rollout)
    if before is not None:
        _count_ends(key, before, seen.stored)


def answered(status: ActionStatus) -> None:
    """Count an action whose response was written to its status."""
    ACTIONS.labels("accepted" if status.accepted else "rejected").inc()


def forget(namespace: str, name: str) -> None:
    """Remove the series of a rollout that was deleted."""
    key = Key(namespace, name)
    _stored.pop(key, None)
    for family, known in _series.pop(key, {}).items():
        for labels in known:
            family.remove(*_identity(key), *labels)


def _identity(key: Key) -> Labels:
    return key.namespace, key.name


def _replace(key: Key, family: Gauge, values: Mapping[Labels, float]) -> None:
    """Set the series that a rollout has in a family, and remove those that it had before."""
    known = _series.setdefault(key, {})
    for labels in known.get(family, set()) - values.keys():
        family.remove(*_identity(key), *labels)
    for labels, value in values.items():
        family.labels(*_identity(key), *labels).set(value)
    known[family] = set(values)


def _observe_status(key: Key, status: RolloutStatus) -> None:
    current, records = status.current, status.migrations
    gauges: dict[Gauge, float] = {
        AUDIENCE: float(current.percent) / 100,
        PHASE_INDEX: current.phase_index,
        HOLD_UNTIL: current.hold_until.timestamp() if current.hold_until else 0,
        APPROVAL: bool(status.decision.approvals),
        DISABLED_FEATURES: len(status.flags.disabled),
        SUSPENDED_FEATURES: _suspended_features(status),
        MIGRATIONS_FAILED: sum(record.state is MigrationState.FAILED for record in records),
        **_last_rollback(status),
    }
    for family, value in gauges.items():
        _replace(key, family, {(): value})
    _replace(key, INFO, {(current.phase or "", str(current.step), status.state or ""): 1})
    _replace(key, REFUSED_REQUESTS, {(refusal.effect,): 1 for refusal in status.refusals})
    conditions: dict[Labels, float] = {
        (condition.type, text): float(condition.status == text)
        for condition in status.conditions
        if condition.type in EXPORTED_CONDITIONS
        for text in CONDITION_STATUSES
    }
    _replace(key, CONDITION, conditions)
    rows: dict[Labels, float] = {
        (record.name, kind): float(getattr(record, kind) or 0)
        for record in records
        if record.total is not None
        for kind in ("total", "done", "quarantined")
    }
    _replace(key, MIGRATION_ROWS, rows)


def _suspended_features(status: RolloutStatus) -> int:
    """How many features users keep although no guard is heard. A rollout that has ended evaluates no guards anyway."""
    suspended = any(condition.reason == ConditionReason.SUSPENDED for condition in status.conditions)
    off = {record.feature for record in status.flags.disabled}
    given = {feature for record in status.phases if record.percent != "0" or record.groups for feature in record.features}
    return len(given - off) if suspended and status.outcome is None else 0


def _last_rollback(status: RolloutStatus) -> dict[Gauge, float]:
    """How many users the last rollback of the history took the features from, and how long they had them."""
    published: datetime | None = None
    gauges: dict[Gauge, float] = {}
    for entry in status.history:
        if entry.event is EventReason.STEP_PUBLISHED:
            published = entry.time
        elif entry.event is EventReason.ROLLBACK_STARTED:
            gauges[ROLLBACK_AUDIENCE] = float(entry.percent or 0) / 100
            if published is not None:
                gauges[ROLLBACK_DETECTION] = (entry.time - published).total_seconds()
    return gauges


def _start_counters(key: Key, rollout: SessionRollout) -> None:
    """Export counters before they count: `increase()` does not see the first event of a series that it creates."""
    guards = {(guard.name,) for guard in rollout.spec.guards if guard.on_breach is OnBreach.ROLLBACK} | {("",)}
    for labels in guards:
        ROLLBACKS.labels(*_identity(key), *labels)
    _series[key].setdefault(ROLLBACKS, set()).update(guards)
    for outcome in Outcome:
        OUTCOMES.labels(key.namespace, outcome)


def _count_ends(key: Key, before: Stored, status: RolloutStatus) -> None:
    if status.outcome is not None and status.outcome is not before.outcome:
        OUTCOMES.labels(key.namespace, status.outcome).inc()
    if status.current.rollback_uid not in {None, before.rollback}:
        ROLLBACKS.labels(*_identity(key), status.current.rollback_guard or "").inc()


# --- checks


def _observe_checks(key: Key, seen: Reconciled) -> None:
    """The value and the bound of every check that is evaluated now; without a usable result there is no value."""
    records = {(record.kind, record.name): record for record in seen.decision.status.checks}
    values: dict[Labels, float] = {}
    bounds: dict[Labels, float] = {}
    for kind, name, check in _checks(seen.rollout, seen.decision.status):
        if (difference := _compared(check, kind, seen.rollout.spec, seen.decision.status)) is not None:
            values[kind, name], bounds[kind, name] = difference
            continue
        measurement = seen.measurements.get(check.metric or "")
        if measurement is None:
            continue
        record = records.get((kind, name))
        season = season_of(seen.rollout.spec.metric(check.metric or ""), record, measurement)
        if season.measurement is not None and (value := _value(check, season.measurement)) is not None:
            values[kind, name] = float(value)
        if (limit := _bound(check, season.baseline)) is not None:
            bounds[kind, name] = float(limit)
    _replace(key, CHECK_VALUE, values)
    _replace(key, CHECK_BOUND, bounds)


def _checks(rollout: SessionRollout, status: RolloutStatus) -> Iterator[tuple[CheckKind, str, Check | Gate]]:
    spec, phase = rollout.spec, phase_named(rollout.spec, status.current.phase)
    yield from ((CheckKind.GUARD, guard.name, guard) for guard in spec.guards)
    if phase is not None:
        yield from ((CheckKind.CRITERION, criterion.name, criterion) for criterion in phase.criteria)
        yield from ((CheckKind.VERIFICATION, gate.name, gate) for gate in phase.verification if gate.metric)
    yield from ((CheckKind.PREFLIGHT, gate.name, gate) for gate in spec.preflight if gate.metric)
    yield from ((CheckKind.AFTER_ROLLBACK, gate.name, gate) for gate in spec.rollback.verification if gate.metric)


def _compared(check: Check | Gate, kind: CheckKind, spec: RolloutSpec, status: RolloutStatus) -> tuple[float, float] | None:
    """How many more bad events the users with the feature have per event (or how much larger a mean is), and how many more are tolerated.

    None for other checks. Where the bound is fixed, it is the rate of bad events of all users.
    """
    record = next((each for each in status.evidence if (each.kind, each.name) == (kind, check.name)), None)
    events = events_of(record) if record is not None and isinstance(check, Check) else None
    if events is None or not isinstance(check, Check) or not events.on_total:
        return None
    if check.below is None and not events.off_total:
        return None
    without = events.off_bad / events.off_total if events.off_total else 0.0
    return events.on_bad / events.on_total - without, tolerated_by(spec, check).limit(without) - without


def _value(check: Check | Gate, measurement: Measurement) -> Decimal | None:
    on, off = measurement.on, measurement.off
    if not isinstance(check, Check) or check.compared_to is not ComparedTo.CONTROL:
        return measurement.value
    return on.good / on.total - off.good / off.total if on and off and on.total and off.total else None


def _bound(check: Check | Gate, baseline: Decimal | None) -> Decimal | None:
    """The bound as a number that `sessionrollout_check_value` can be compared with."""
    if (text := check.above or check.below) is not None:
        return bound(text)
    if check.between is not None:
        return None  # two numbers
    tolerance = tolerance_of(check)
    if tolerance is None:
        return None  # a comparison that is over time: no single number is its bound
    sign = -1 if tolerance.direction is Direction.MAX_DECREASE else 1
    if isinstance(check, Check) and check.compared_to is ComparedTo.CONTROL:
        return sign * bound(tolerance.text)
    return baseline + sign * tolerance.limit(baseline) if baseline is not None else None
