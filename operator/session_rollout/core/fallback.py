"""What is done when the operator cannot decide: emergencies, and a stall that says why.

Either the object cannot be parsed, because the CRD is newer than the operator, or deciding failed with an exception that nobody foresaw.
In both cases the document keeps what users have, also what a person took away from them by hand.
"""

from dataclasses import replace
from datetime import datetime
from typing import Final

from session_rollout.api.enums import ActionReason, ActionType, DecisionAction, DecisionReason
from session_rollout.core.actions import apply_only
from session_rollout.core.conditions import write_decision
from session_rollout.core.context import RESYNC, DecisionContext, StageResult
from session_rollout.core.decide import decision_of, record_stall
from session_rollout.core.hold import pause_timer
from session_rollout.core.learning import forget_kept, learn, learn_kills, learn_protections
from session_rollout.core.notifications import without_delivered
from session_rollout.core.observed import Decision, Observed
from session_rollout.core.publication import publish, publish_less, publish_protections
from session_rollout.core.refusals import note_refusals
from session_rollout.errors import ActionRejected

EMERGENCIES: Final = frozenset({ActionType.EMERGENCY_DISABLE})


def stall_after(observed: Observed, now: datetime, error: str) -> Decision:
    """The rollout stays where it is; features are still turned off by an `EmergencyDisable` action. `error` is its class and place."""
    context = _with_protections(DecisionContext(observed=observed, now=now, status=observed.rollout.status))
    apply_only(context, EMERGENCIES)
    forget_kept(context)
    learn_kills(context)
    message = f"error in the operator: {error}"
    next_actions = ("report the error with the decision record; an edit of the spec may avoid it",)
    result = StageResult(DecisionAction.STALL, DecisionReason.INTERNAL_ERROR, message, (message,), next_actions)
    publish_less(context)
    return replace(_stalled(context, result, ()), complete=False)  # no evidence was evaluated


def _with_protections(context: DecisionContext) -> DecisionContext:
    """What the annotation of the document knows is in the status, too: else the next document would be written without it."""
    learned = DecisionContext(observed=context.observed, now=context.now, status=context.status)
    try:
        learn_protections(learned)
    except Exception:  # noqa: BLE001 - it may be what has failed, and an emergency must be carried out all the same
        return context
    return learned


def stall_unparsed(observed: Observed, now: datetime, problem: str) -> Decision:
    """The same for an object that cannot be parsed; the rollout in `observed` is what can be read of it. Other actions are rejected."""
    status = without_delivered(observed.rollout.status, observed.delivered)
    context = DecisionContext(observed=observed, now=now, status=status)
    learn(context)
    text = f"the operator cannot parse the rollout: {problem}"
    apply_only(context, EMERGENCIES, ActionRejected(ActionReason.INVALID, f"{text}; only EmergencyDisable is carried out"))
    details = (text, "guards are not evaluated: a breach has no effect")
    next_actions = ("upgrade the operator to the version of the CRDs, or correct the field",)
    result = StageResult(DecisionAction.STALL, DecisionReason.UNPARSABLE, f"cannot be parsed: {problem}", details, next_actions)
    publish_protections(context)
    return _stalled(context, result, (problem,))


def _stalled(context: DecisionContext, result: StageResult, problems: tuple[str, ...]) -> Decision:
    flags = context.status.flags
    if context.observed.document is None and (flags.published_sha256 is not None or flags.disabled):
        publish(context)  # it was deleted
    pause_timer(context, result.reason)
    note_refusals(context)
    record_stall(context, result)
    write_decision(context, result, problems)
    return decision_of(context, RESYNC)
