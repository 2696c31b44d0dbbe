"""What is done when deciding fails with an exception that nobody foresaw: emergencies, and a stall that says where it is."""

import traceback
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


def stall_after(observed: Observed, now: datetime, error: Exception) -> Decision:
    """The rollout stays where it is; features are still turned off by an `EmergencyDisable` action."""
    context = DecisionContext(observed=observed, now=now, status=observed.rollout.status)
    apply_emergencies(context)
    publish(context)
    message = f"error in the operator: {type(error).__name__} in {_place(error)}"
    result = StageResult(DecisionAction.STALL, DecisionReason.INTERNAL_ERROR, message, (message,), NEXT_ACTIONS)
    record_stall(context, result)
    write_decision(context, result, ())
    return decision_of(context, RESYNC)


def _place(error: Exception) -> str:
    """File and line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename.rpartition('session_rollout/')[2]}:{frames[-1].lineno}" if frames else "an unknown place"
