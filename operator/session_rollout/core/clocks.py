"""The points in time that evidence is measured from: when an audience is warm, when its hold is due, how much of it counted.

An audience warms up for `propagation`, until every Pod uses the document, and for the range of each query, until it covers
no older data. Evidence from before that is about another audience.
"""

from datetime import datetime, timedelta
from typing import Final

from session_rollout.api.action import SessionRolloutAction
from session_rollout.api.checks import Check, Guard
from session_rollout.api.enums import EventReason, Stage
from session_rollout.api.flag_records import DisabledFeature
from session_rollout.api.phases import Phase
from session_rollout.api.quantities import duration, format_duration
from session_rollout.api.status_records import CheckRecord
from session_rollout.api.surroundings import ClockRecord
from session_rollout.core.context import DecisionContext
from session_rollout.core.failures import restart_failures
from session_rollout.core.holdback import bake_length
from session_rollout.core.seasons import window_of


def note_clock_jump(context: DecisionContext) -> None:
    """Show that a clock was set. No timer changes: all of them follow elapsed time. One from before the rollout needs no event."""
    jump, known = context.observed.clock_jump, context.status.clock_jump
    if jump is None or (known is not None and known.time == jump.time):
        return
    record = ClockRecord(time=jump.time, milliseconds=round(jump.by / timedelta(milliseconds=1)), source=jump.source)
    context.change(clock_jump=record)
    if context.observed.rollout.status.observed_generation:
        change = f"{format_duration(abs(jump.by))} {'forward' if jump.by > timedelta(0) else 'back'}"
        message = f"the clock of the {jump.source} was set {change}; timers follow elapsed time"
        context.record_event(EventReason.CLOCK_JUMPED, message)


SKEW: Final = timedelta(seconds=2)  # two processes may differ by that much without a clock that was set


def adopt_earlier_clock(context: DecisionContext) -> None:
    """Times in the status lie ahead: the API server's clock was set back, and this process has adopted it.

    Without this, guards and holds would wait until the clock has caught up. What has happened becomes now, so that nothing is shorter:
    a hold starts again, and a breach and a warm-up begin now.
    """
    now, current, flags = context.now, context.current, context.status.flags
    for record in context.status.checks:
        _begin_now(context, record)
    if _is_ahead(now, context.status.protected_time):
        context.change(protected_time=now)
    if flags.drift is not None and _is_ahead(now, flags.drift.time):
        flags = flags.updated(drift=flags.drift.updated(time=now))
        context.change(flags=flags)
    past = ("published_time", "stage_start_time", "hold_paused_time", "promote_time")
    ahead = {name: now for name in past if _is_ahead(now, getattr(current, name))}
    disabled = any(_is_ahead(now, time) for record in flags.disabled for time in (record.time, record.requested_time))
    if not (ahead or disabled or _is_ahead(now, flags.published_time) or _is_endless(context)):
        return
    propagated = now + duration(context.spec.propagation)
    timers = {"hold_until": None, "hold_paused_time": None, "hold_paused_reason": None}
    guards_start = min(current.guards_start_time or propagated, propagated) if current.guards_start_time else None
    wait = current.deadline_wait.updated(kind=None, since=None) if current.deadline_wait is not None else None
    context.move(**{**ahead, **timers, "guards_start_time": guards_start, "deadline_wait": wait})
    known = {name: now for name in ("published_time", "given_time") if _is_ahead(now, getattr(flags, name))}
    context.change(flags=flags.updated(**known, disabled=tuple(_not_ahead(now, record) for record in flags.disabled)))
    restart_failures(context)


def extend_warm_up(context: DecisionContext) -> None:
    """The time in which nobody evaluated the rollout is no part of a warm-up: it may be that a clock was set forward by as much.

    A hold that has begun says that its audience was warm. When the time is unknown, the warm-up begins now.
    """
    current, flags, away = context.current, context.status.flags, context.unobserved
    published = audience_start(context)
    if current.stage is not Stage.STEP or current.hold_until is not None or published is None:
        return
    if away and not context.awaits_results:
        start = context.now if away == timedelta.max else min(published + away, context.now)
        context.change(flags=flags.updated(published_time=start))


def _is_endless(context: DecisionContext) -> bool:
    """Whether a hold is longer than the spec has it: it began under a clock that was ahead."""
    current, increment = context.current, context.increment
    length = increment.hold if increment is not None else bake_length(context)
    start = current.hold_paused_time or context.now
    return current.hold_until is not None and current.hold_until - start > length + SKEW


def _begin_now(context: DecisionContext, record: CheckRecord) -> None:
    """What a check has from a later time is of now. A failure is ahead, too, if its gaps are longer than the time since it began."""
    now, times = context.now, ("time", "evidence_time", "failing_time", "recovery_time", "gap_time", "result_time")
    ahead: dict[str, datetime | None] = {name: now for name in times if _is_ahead(now, getattr(record, name))}
    if record.failing_time is not None and record.gap_milliseconds:
        observed = record.failing_time + timedelta(milliseconds=record.gap_milliseconds)
        ahead |= {"failing_time": now, "gap_milliseconds": None} if "failing_time" in ahead or _is_ahead(now, observed) else {}
    if ahead:
        context.put_check(record.updated(**ahead))


def creation_time(context: DecisionContext, action: SessionRolloutAction) -> datetime:
    """When an action was created, by the clock that this process goes by: the API server's may have been set since.

    Without this, no `EmergencyEnable` would be newer than the emergency until a clock that was set back has caught up, and each would be
    newer than an edit by hand after one that was set forward.
    """
    created, jump = action.creation_time, context.observed.clock_jump
    if jump is None or created < jump.time + jump.ahead - SKEW or created - jump.ahead > context.now + SKEW:
        return created  # from before the jump
    return created - jump.ahead


def _not_ahead(now: datetime, record: DisabledFeature) -> DisabledFeature:
    return record.updated(**{name: now for name in ("time", "requested_time") if _is_ahead(now, getattr(record, name))})


def _is_ahead(now: datetime, time: datetime | None) -> bool:
    return time is not None and time > now + SKEW


def range_of(context: DecisionContext, metrics: tuple[str, ...]) -> timedelta:
    """The longest time that one of these metrics covers, as it is compared."""
    covered = (reach_of(context, name) + window_of(context.spec, context.status, name) for name in metrics)
    return max(covered, default=timedelta(0))


def reach_of(context: DecisionContext, metric: str) -> timedelta:
    """The time that the query of a metric covers."""
    return context.observed.ranges.get(metric, timedelta(0))


def audience_start(context: DecisionContext) -> datetime | None:
    """When the present audience was read back; None while it has not been.

    The document also changes within a step, when an emergency ends: users have the features since then, not since the step.
    """
    current, document = context.current, context.status.flags.published_time
    if current.stage is not Stage.STEP or document is None:
        return document
    return max(current.published_time, document) if current.published_time is not None else None


def covered_since(context: DecisionContext, start: datetime, reach: timedelta) -> datetime:
    """When a query that covers this much time is only about what users have had since `start`."""
    return start + duration(context.spec.propagation) + reach


def warm_up_end(context: DecisionContext, metrics: tuple[str, ...]) -> datetime | None:
    """When queries of these metrics are about the present audience alone; None while it is not published."""
    start = audience_start(context)
    return None if start is None else covered_since(context, start, range_of(context, metrics))


def counted_checks(context: DecisionContext) -> tuple[Check, ...]:
    """The checks whose evidence a step needs: its criteria and all guards, but those in a dry run."""
    phase: Phase | None = context.phase if context.current.stage is Stage.STEP else None
    checks: tuple[Check, ...] = (*(phase.criteria if phase is not None else ()), *context.spec.guards)
    return tuple(check for check in checks if not check.dry_run)


def second_results(context: DecisionContext, hold: timedelta) -> dict[str, datetime]:
    """The metrics that were measured only once in the running hold, and from when on another result counts as the second.

    It is one of at least an interval after the hold began, so that no single result ends a hold.
    """
    until, measurements = context.current.hold_until, context.observed.measurements
    if until is None or not hold:
        return {}
    names = {name for check in counted_checks(context) for name in check.metrics}
    due = {name: until - hold + context.spec.interval_of(name) for name in sorted(names)}
    known = {name: measurement.oldest for name in names if (measurement := measurements.get(name)) is not None}
    return {name: time for name, time in due.items() if name not in known or known[name] < time}


def is_guard(check: Check) -> bool:
    """Whether a check is a guard; a criterion otherwise."""
    return isinstance(check, Guard)


def planned_end(context: DecisionContext, hold: timedelta) -> datetime | None:
    """When the hold would end with evidence from the first moment; None while the audience is not published."""
    metrics = tuple(name for check in counted_checks(context) for name in check.metrics)
    warm = warm_up_end(context, metrics)
    return None if warm is None else warm + hold


def counted_time(context: DecisionContext, hold: timedelta) -> timedelta:
    """How much of the running hold has counted: the time since its start without its pauses. It continues after its end."""
    current = context.current
    if current.hold_until is None or (current.hold_paused_time is None and context.unobserved == timedelta.max):
        return timedelta(0)  # it has not started, or starts again after an absence of unknown length
    end = current.hold_paused_time or context.now - context.unobserved
    return max(end - (current.hold_until - hold), timedelta(0))
