"""Requests that the API server refuses: which of them stall a rollout, and how a person reads them."""

from typing import Final

from session_rollout.api.enums import DecisionAction, DecisionReason
from session_rollout.api.rollout import DeletionPolicy
from session_rollout.api.status_records import Refusal
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.flags import audiences

FINALIZER_EFFECT: Final = "Finalizer"
STATUS_EFFECT: Final = "Status"
FIELDS_EFFECT: Final = "StatusFields"  # the status was stored without a field: what is decided from it alone forgets that field
CONTESTED_EFFECT: Final = "StatusContested"  # another operator writes over the status: it may know nothing of the evidence
UNNEEDED_EFFECTS: Final = frozenset({"Answer", "Emit", STATUS_EFFECT, FINALIZER_EFFECT})  # the rollout continues without them


def needed_refusals(context: DecisionContext) -> tuple[Refusal, ...]:
    """The refusals that stall the rollout."""
    return tuple(refusal for refusal in context.observed.refusals if refusal.effect not in UNNEEDED_EFFECTS)


def note_refusals(context: DecisionContext) -> None:
    """Show every refusal in the status; what the configuration lacks is a problem of the spec."""
    if context.status.refusals != context.observed.refusals:
        context.change(refusals=context.observed.refusals)
    missing = tuple(refusal.message for refusal in needed_refusals(context) if not refusal.verb)
    context.problems = (*context.problems, *missing)


def await_finalizer(context: DecisionContext) -> StageResult | None:
    """The stall while `deletionPolicy: Off` cannot be kept: nobody gets a feature that a deletion would leave on.

    Once users have features, the refusal is only shown: to stop there would take nothing away from them.
    """
    spec, refusals = context.spec, finalizer_refusals(context)
    given = any(audience.has_users for audience in audiences(spec, context.status).values())
    if not refusals or given or spec.deletion_policy is not DeletionPolicy.OFF:
        return None
    return _stall(refusals)


def finalizer_refusals(context: DecisionContext) -> tuple[Refusal, ...]:
    """The refusal of the operator's own finalizer."""
    return tuple(refusal for refusal in context.observed.refusals if refusal.effect == FINALIZER_EFFECT)


def await_requests(context: DecisionContext) -> StageResult | None:
    """The stall while the rollout cannot get what it needs. The request itself is repeated with each decision."""
    refusals = needed_refusals(context)
    return _stall(refusals) if refusals else None


def stall_reason(refusals: tuple[Refusal, ...]) -> DecisionReason:
    """Whether the API server refuses something, or the configuration lacks it. Every version of the CRD has the second one."""
    by_server = any(refusal.verb for refusal in refusals)
    return DecisionReason.REQUEST_REFUSED if by_server else DecisionReason.INVALID_SPEC


def _stall(refusals: tuple[Refusal, ...]) -> StageResult:
    reason = stall_reason(refusals)
    causes = tuple(refusal_text(refusal) for refusal in refusals)
    remedies = tuple(refusal.remedy for refusal in refusals if refusal.remedy)
    return StageResult(DecisionAction.STALL, reason, causes[0], causes, remedies)


def refusal_text(refusal: Refusal) -> str:
    """`the API server refuses to create jobs in namespace shop since 10:02:13 UTC: forbidden ...`."""
    if not refusal.verb:
        return refusal.message
    where = f" in namespace {refusal.namespace}" if refusal.namespace else ""
    what = f"{refusal.verb} {refusal.resource}"
    return f"the API server refuses to {what}{where} since {refusal.since:%H:%M:%S} UTC: {refusal.message}"
