"""A rollout that is being deleted and still exists: nothing is decided but what protects users.

Garbage collection would terminate running Jobs, so the deletion waits for them, perhaps for hours; so it does for the finalizers of
other controllers. Users have the features meanwhile.
"""

from datetime import datetime
from typing import Final

from session_rollout.api.enums import ActionReason, ActionType, DecisionAction, DecisionReason
from session_rollout.core import migration_jobs
from session_rollout.core.actions import apply_only
from session_rollout.core.clocks import adopt_earlier_clock
from session_rollout.core.conditions import write_decision
from session_rollout.core.context import RESYNC, DecisionContext, StageResult
from session_rollout.core.decide import complete_status, confirm_published, decision_of, next_reconcile
from session_rollout.core.guards import act_on_breaches, evaluate_guards
from session_rollout.core.learning import learn
from session_rollout.core.notifications import without_delivered
from session_rollout.core.observed import Decision, Observed
from session_rollout.core.publication import publish_less
from session_rollout.core.refusals import finalizer_refusals, note_refusals, refusal_text
from session_rollout.core.withdrawal import withdraw
from session_rollout.errors import ActionRejected

PROTECTING: Final = frozenset({ActionType.EMERGENCY_DISABLE, ActionType.ABORT})


def decide_deleted(
    observed: Observed, now: datetime, *, jobs: tuple[str, ...], finalizers: tuple[str, ...], released: bool
) -> Decision:
    """Emergencies, `Abort` and guards work; of a rollback, only the flags.

    With `released`, the deletion has just turned every feature off; they work all the same if the document gives something since.

    `jobs` are the names of the Jobs that the deletion waits for. If there are none, it waits for `finalizers`: those of other controllers,
    and the operator's own while the API server refuses its removal.
    """
    status = without_delivered(observed.rollout.status, observed.delivered)
    context = DecisionContext(observed=observed, now=now, status=status)
    names = jobs or tuple(f"finalizer {name}" for name in finalizers)
    text = f"the rollout is being deleted; waiting for {', '.join(names)}"
    off = released and not (context.document is not None and context.document.gives_something)
    if off:
        apply_only(context, frozenset(), ActionRejected(ActionReason.DELETING, f"{text}; every feature is off already"))
        withdraw(context, "the rollout is deleted, and every feature is off")
    else:
        _protect(context, text)
    note_refusals(context)
    refusals = finalizer_refusals(context)
    details = (text, *map(refusal_text, refusals), *context.current.rollback_reasons)
    remedies = tuple(refusal.remedy for refusal in refusals if refusal.remedy)
    next_actions = (
        *remedies,
        f"wait for the {'Job to end, or delete it' if jobs else 'controller of the finalizer, or remove it'}",
    )
    result = StageResult(
        DecisionAction.WAIT, DecisionReason.DELETING, f"being deleted: waiting for {names[0]}", details, next_actions
    )
    write_decision(context, result, context.problems)
    return decision_of(context, RESYNC if off else next_reconcile(context, result))


def _protect(context: DecisionContext, text: str) -> None:
    adopt_earlier_clock(context)
    learn(context)
    confirm_published(context)
    complete_status(context)
    refusal = ActionRejected(ActionReason.DELETING, f"{text}; only EmergencyDisable and Abort are carried out")
    apply_only(context, PROTECTING, refusal)
    migration_jobs.track(context)
    evaluate_guards(context)
    if not (context.spec.suspend or context.status.flags.adoption_required):
        act_on_breaches(context)
    withdraw(context)
    publish_less(context)
