"""The deadline of a step: how long failing criteria or missing evidence may delay it beyond the planned end of its hold.

Two times are counted: waiting for criteria and evidence, after which `onDeadline` applies, and time in which Prometheus or
the operator was unavailable. The latter never rolls back: together with the former it only stalls the rollout. Pauses,
suspension, emergencies and an invalid spec count for neither.
"""

from datetime import datetime, timedelta

from session_rollout.api.enums import DecisionReason
from session_rollout.api.phases import Phase
from session_rollout.api.quantities import duration
from session_rollout.api.status_records import DeadlineWait, WaitKind
from session_rollout.core.clocks import planned_end
from session_rollout.core.context import DecisionContext

_SECOND = timedelta(seconds=1)


def count_wait(context: DecisionContext, kind: WaitKind | None, hold: timedelta) -> None:
    """Bring `deadlineWait` up to date; `kind` is what the step waits for from now on. Written only when that changes."""
    phase, end = context.phase, planned_end(context, hold)
    if phase is None or phase.deadline is None or end is None:
        return
    before = context.current.deadline_wait or DeadlineWait()
    if before.kind is kind and not _absence(context):
        return
    counted = _counted(context, before, end)
    after = counted.updated(kind=kind, since=max(context.now, end) if kind is not None else None)
    if after != before:
        context.move(deadline_wait=after)


def stop_wait(context: DecisionContext) -> None:
    """Count what was waited for until now, and nothing from now on."""
    before = context.current.deadline_wait
    if before is not None and before.since is not None:
        context.move(deadline_wait=_counted(context, before, before.since).updated(kind=None, since=None))


def _absence(context: DecisionContext) -> timedelta:
    """How long nobody observed the step before now, unless it was paused before, which counts for nothing."""
    reason = context.observed.rollout.status.current.hold_paused_reason
    return context.unobserved if reason in {None, DecisionReason.AWAITING_EVIDENCE} else timedelta(0)


def _counted(context: DecisionContext, before: DeadlineWait, end: datetime) -> DeadlineWait:
    """Both times until now: what was waited for until the absence, and the absence itself as unavailability."""
    absence = _absence(context)
    known = absence != timedelta.max
    left = context.now - absence if known else before.since or context.now
    waited = _seconds(left - before.since) if before.since is not None else 0
    away = _seconds(context.now - max(left, end)) if absence else 0
    is_evidence = before.kind is WaitKind.EVIDENCE
    return before.updated(
        evidence_seconds=before.evidence_seconds + (waited if is_evidence else 0),
        availability_seconds=before.availability_seconds + (0 if is_evidence else waited) + away,
    )


def _seconds(length: timedelta) -> int:
    return max(round(length / _SECOND), 0)


def _waited(context: DecisionContext, wait: DeadlineWait) -> tuple[timedelta, timedelta]:
    """Waiting for evidence, and both times together."""
    running = context.now - wait.since if wait.since is not None else timedelta(0)
    evidence = wait.evidence_seconds * _SECOND + (running if wait.kind is WaitKind.EVIDENCE else timedelta(0))
    away = wait.availability_seconds * _SECOND + (running if wait.kind is WaitKind.AVAILABILITY else timedelta(0))
    return evidence, evidence + away


def deadline_passed(context: DecisionContext, phase: Phase) -> WaitKind | None:
    """What the step has waited for beyond the deadline: `Evidence` alone, or only with `Availability`; None before it."""
    wait = context.current.deadline_wait
    if phase.deadline is None or wait is None or wait.since is None or context.now < wait.since:
        return None
    if context.awaits_results and context.unobserved:
        return None  # what the time without an evaluation counts for is known when the results are here
    limit, (evidence, both) = duration(phase.deadline), _waited(context, wait)
    if evidence >= limit:
        return WaitKind.EVIDENCE
    return WaitKind.AVAILABILITY if both >= limit else None


def next_deadline(context: DecisionContext, phase: Phase) -> datetime | None:
    """When the deadline passes if the step goes on waiting; None when it does not wait or the deadline has passed."""
    wait = context.current.deadline_wait
    if phase.deadline is None or wait is None or wait.since is None:
        return None
    limit, waited = duration(phase.deadline), _waited(context, wait)
    rest = [limit - part for part in waited if part < limit]
    return context.now + min(rest) if rest else None
