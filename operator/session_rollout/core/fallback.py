"""What is done when deciding fails with an exception that nobody foresaw: emergencies, and a stall that says where it is."""

from datetime import datetime
from typing import Final

from session_rollout.api.enums import DecisionAction, DecisionReason
from session_rollout.core.actions import apply_emergencies
from session_rollout.core.conditions import write_decision
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.decide import RESYNC, decision_of, record_stall
from session_rollout.core.observed import Decision, Observed
from session_rollout.core.publication import publish

NEXT_ACTIONS: Final = ("report the error with the decision record; an edit of the spec may avoid it",)


def stall_after(observed: Observed, now: datetime, error: str) -> Decision:
    """The rollout stays where it is; features are still turned off by an `EmergencyDisable` action. `error` is its class and place."""
    context = DecisionContext(observed=observed, now=now, status=observed.rollout.status)
    apply_emergencies(context)
    publish(context)
    message = f"error in the operator: {error}"
    result = StageResult(DecisionAction.STALL, DecisionReason.INTERNAL_ERROR, message, (message,), NEXT_ACTIONS)
    record_stall(context, result)
    write_decision(context, result, ())
    return decision_of(context, RESYNC)
