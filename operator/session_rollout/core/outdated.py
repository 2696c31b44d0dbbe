"""Actions that are outdated: whoever created them did not know of what they would undo, or approve.

An action may be delivered long after its creation: a watch has missed it, or the operator was away. What gives users more, or lets a
rollout continue, therefore acts only on what happened before it was created. What protects users is always heard.
"""

from datetime import datetime
from typing import Final

from session_rollout.api.action import SessionRolloutAction
from session_rollout.api.enums import ActionReason, ActionType
from session_rollout.core.clocks import SKEW, creation_time
from session_rollout.core.context import DecisionContext
from session_rollout.errors import ActionRejected

CONTINUES: Final = frozenset(
    {
        ActionType.RESUME,
        ActionType.RETRY,
        ActionType.RETRY_MIGRATION,
        ActionType.ADOPT,
        ActionType.RESET,
        ActionType.APPROVE,
        ActionType.PROMOTE,
    }
)  # `EmergencyEnable` has a rule of its own, for each feature


def note_protection(context: DecisionContext, action: SessionRolloutAction) -> None:
    """Remember that a person wanted to protect users, also when there was nothing left to do."""
    if action.spec.action.protects_users:
        context.protect(creation_time(context, action))


def reject_outdated(context: DecisionContext, action: SessionRolloutAction) -> None:
    """Reject an action that is older than the rollout, or than what protects users since. Raises ActionRejected.

    Of two actions of one second, the order is known only if one had its response before the other was seen.
    """
    kind, created = action.spec.action, creation_time(context, action)
    began, protected = context.observed.rollout.creation_time, context.status.protected_time
    is_ahead = began is not None and began > context.now + SKEW  # the clock was set back since: nobody knows the order
    if began is not None and created < began and not (is_ahead or kind.protects_users):
        raise _rejected(f"the rollout was created at {began:%H:%M:%S} UTC, after this action")
    if kind not in CONTINUES or protected is None:
        return
    if created < protected or _is_answered_later(context, action):
        cause = f"features were turned off, or the rollout was stopped, at {protected:%H:%M:%S} UTC"
        raise _rejected(f"{cause}, and this action is not newer")


def _is_answered_later(context: DecisionContext, action: SessionRolloutAction) -> bool:
    """Whether an action of the same second protects users since an earlier decision, and has no response yet."""
    carried_out = {answer.uid for answer in context.observed.rollout.status.processed_actions}
    return any(
        other.creation_time == action.creation_time and other.spec.action.protects_users and other.uid in carried_out
        for other in context.observed.actions
    )


def reject_older(context: DecisionContext, action: SessionRolloutAction, time: datetime | None, event: str) -> None:
    """Reject an action that was created before something happened that protects nobody. Raises ActionRejected.

    Whoever acts at once must not be told to try again because two clocks differ.
    """
    if time is not None and creation_time(context, action) < time.replace(microsecond=0) - SKEW:
        raise _rejected(f"{event} at {time:%H:%M:%S} UTC, after this action was created")


def _rejected(cause: str) -> ActionRejected:
    return ActionRejected(ActionReason.OUTDATED, f"{cause}; look at the rollout, and create another action")
