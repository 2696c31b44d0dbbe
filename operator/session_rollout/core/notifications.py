"""Notifications on their way to sinks: in status until a sink has accepted them, so that a crash loses none.

Nothing waits for a notification; a list that is full drops the oldest and counts them.
"""

import hashlib

from session_rollout.api.enums import ConditionReason
from session_rollout.api.rollout import SessionRollout
from session_rollout.api.status import PENDING_LENGTH, RolloutStatus
from session_rollout.api.status_records import HistoryEntry, PendingNotification
from session_rollout.core.observed import Observed

LOST_AT_MOST = 1000


def notifications_of(rollout: SessionRollout, entry: HistoryEntry) -> tuple[PendingNotification, ...]:
    """One notification for every sink that subscribes to the event; the same event gives the same id."""
    return tuple(
        PendingNotification(
            id=_identity(rollout.uid, wanted.sink, entry),
            sink=wanted.sink,
            event=entry.event,
            time=entry.time,
            phase=entry.phase,
            step=entry.step,
            message=entry.message,
        )
        for wanted in rollout.spec.notifications
        if entry.event in wanted.events
    )


def _identity(uid: str, sink: str, entry: HistoryEntry) -> str:
    subject = f"{entry.check}/{entry.migration}/{entry.operation}/{entry.by}/{entry.revision}/{entry.phase}/{entry.step}"
    identity = f"{uid}/{sink}/{entry.event}/{entry.time.isoformat()}/{subject}"
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def queued(status: RolloutStatus, fresh: tuple[PendingNotification, ...]) -> RolloutStatus:
    """The status with these notifications pending; the same status when there is nothing new."""
    known = {pending.id for pending in status.pending_notifications}
    new = tuple(pending for pending in fresh if pending.id not in known)
    if not new:
        return status
    kept = (*status.pending_notifications, *new)
    lost = max(len(kept) - PENDING_LENGTH, 0)
    total = min(status.notifications_lost + lost, LOST_AT_MOST)
    return status.updated(pending_notifications=kept[lost:], notifications_lost=total)


def without_delivered(status: RolloutStatus, delivered: frozenset[str]) -> RolloutStatus:
    """The status without the notifications that a sink has accepted."""
    left = tuple(pending for pending in status.pending_notifications if pending.id not in delivered)
    return status if left == status.pending_notifications else status.updated(pending_notifications=left)


def notified_condition(observed: Observed) -> tuple[str, ConditionReason, str]:
    """Status, reason and message of the `Notified` condition."""
    wanted = {entry.sink for entry in observed.rollout.spec.notifications}
    if not wanted:
        return "True", ConditionReason.NO_SINKS_CONFIGURED, "no sink is configured for this rollout"
    errors = [f"{sink}: {error}" for sink, error in sorted(observed.sink_errors.items()) if sink in wanted]
    if errors:
        return "False", ConditionReason.SINK_FAILING, "; ".join(errors)
    return "True", ConditionReason.DELIVERED, "every sink accepts its notifications"
