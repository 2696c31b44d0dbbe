"""An audience that was decided and is not published: what users have instead, and how the rollout continues from there.

A raise rests on evidence of the moment. If the document cannot be written for a while, or a criterion fails before it is, that is
over: the audience that users have is held again.
"""

from datetime import timedelta
from decimal import Decimal
from typing import Final

from session_rollout.api.enums import DecisionAction, DecisionReason, EventReason, Stage, Verdict
from session_rollout.api.phases import Phase
from session_rollout.api.status import Current
from session_rollout.api.status_records import PhaseRecord
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.criteria import criteria_records, evaluate_now, forget_criteria, restart_criteria
from session_rollout.core.evaluation import Evaluation
from session_rollout.core.flags import Audience
from session_rollout.core.publication import audience_before, has_audience, published_audience
from session_rollout.core.steps import Increment, increment_at, increment_with, percent_text, placebo_text

VALID_INTERVALS: Final = 2
VALID_AT_LEAST: Final = timedelta(seconds=10)  # a slow API server is no reason to hold again


def lapse_cause(context: DecisionContext) -> str | None:
    """Why the audience of the step must not be published on the evidence that it was decided on; None while it may.

    That is too old, a criterion fails since, or an emergency began since: whoever let the audience grow did not know of it.
    """
    current, valid = context.current, max(VALID_INTERVALS * context.interval, VALID_AT_LEAST)
    if not _is_raised(context) or (context.document is not None and has_audience(context, context.document)):
        return None
    if context.off_here:
        return f"is not published, because {context.off_here[0]} is off by an emergency"
    if current.stage_start_time is not None and context.now - current.stage_start_time > valid:
        return "could not be published in time"
    failing = [known.message for known in _criteria_now(context) if known.verdict is Verdict.FAIL]
    return f"is not published, because {failing[0]}" if failing else None


def await_criteria(context: DecisionContext) -> StageResult | None:
    """What keeps a raise that is not published yet: a criterion without evidence of now."""
    missing = tuple(known.message for known in _criteria_now(context) if known.verdict is not Verdict.PASS)
    if not missing:
        return None
    next_actions = ("wait until each criterion has evidence; the audience that users have is held again if it takes too long",)
    return StageResult(DecisionAction.WAIT, DecisionReason.AWAITING_EVIDENCE, missing[0], missing, next_actions)


def await_passing(context: DecisionContext) -> StageResult | None:
    """What keeps users from getting more by an edit, which has taken their step out of the plan: a criterion that fails."""
    phase, record = context.phase, context.status.phase(context.current.phase)
    if (
        phase is None
        or record is None
        or not record.is_published
        or increment_with(phase, Decimal(record.percent), record.groups)
    ):
        return None
    now = (evaluate_now(context, criterion, known) for criterion, known in criteria_records(context))
    failing = tuple(known.message for known in now if known.verdict is Verdict.FAIL)
    if not failing:
        return None
    next_actions = (f"wait until the criteria pass, or put a step with {context.current.audience} back into the spec",)
    return StageResult(DecisionAction.WAIT, DecisionReason.CRITERIA_NOT_MET, failing[0], failing, next_actions)


def _criteria_now(context: DecisionContext) -> tuple[Evaluation, ...]:
    """What the criteria say about the step that users have. Nobody asks them before the first one, after a `Promote`, or when an edit gives more."""
    before = _step_before(context)
    step = increment_with(context.phase, before.percent, before.groups, before.placebo) if context.phase is not None else None
    if context.current.raised_by is not None or step is None or _is_held(context):
        return ()
    return tuple(evaluate_now(context, criterion, record) for criterion, record in criteria_records(context))


def _is_raised(context: DecisionContext) -> bool:
    """Whether a larger audience than that of users was decided, and is not published."""
    return context.current.is_unpublished and not _is_held(context)


def _is_held(context: DecisionContext) -> bool:
    """Whether users have had the audience of the step all the time: it is published again, or held again."""
    current = context.current
    return _step_before(context) == Audience(Decimal(current.percent), current.groups, Decimal(current.placebo or 0))


def _step_before(context: DecisionContext) -> Audience:
    """The audience before this one, as the steps of the phase have it: with the users who are held back."""
    current = context.current
    return Audience(Decimal(current.earlier_percent or 0), current.earlier_groups, Decimal(current.earlier_placebo or 0))


def lapse(context: DecisionContext, cause: str) -> None:
    """Hold the audience that users have again, if a larger one was decided and is not published."""
    if context.phase is not None and _is_raised(context):
        hold_again(context, context.phase, cause)


def hold_again(context: DecisionContext, phase: Phase, cause: str) -> None:
    """Return to the audience that users have, with a new hold; to the stage before the first one while they have none."""
    late = context.current
    forget_unpublished(context)
    record = context.status.phase(phase.name)
    assert record is not None, "the phase has a record from the generation that it is part of"
    place = increment_with(phase, Decimal(record.percent), record.groups, Decimal(record.placebo or 0))
    if place is None:
        if not record.is_published:
            forget_criteria(context)  # the next first publish measures its own baselines
        context.mark(phase.name, placebo=None)
        context.enter(Stage.BASELINE)
    else:
        kept = {"earlier_percent": record.percent, "earlier_groups": record.groups, "earlier_placebo": record.placebo}
        context.enter(Stage.STEP, step=place.step, increment=place.index, placebo=record.placebo, **kept)
        restart_criteria(context)
    message = f"{late.audience} {cause}; {context.current.audience} is held again"
    context.record_event(EventReason.AUDIENCE_LAPSED, message, at=late)


def forget_unpublished(context: DecisionContext) -> None:
    """The audience of the step was decided and never published: what users have decides where the rollout continues."""
    audiences = [published_audience(context, name) for name in _visible(context)]
    before = audience_before(context)
    least = min(audiences or [before], key=lambda audience: audience.percent)
    least = _step_before(context) if least == before else least
    percent, placebo = percent_text(least.percent), placebo_text(least.placebo)
    context.mark(context.current.phase or "", percent=percent, groups=least.groups, placebo=placebo)
    earlier = {"earlier_percent": percent, "earlier_groups": least.groups, "earlier_placebo": placebo}
    context.move(percent=percent, groups=least.groups, placebo=placebo, **earlier)


def _visible(context: DecisionContext) -> list[str]:
    """Features that the running phase has published and whose audience the document shows: an emergency hides it."""
    document, record = context.document, context.status.phase(context.current.phase)
    features = record.features if record is not None else ()  # those of the spec may be new
    return [name for name in features if document is None or name not in document.disabled]


def published_increment(phase: Phase, record: PhaseRecord, current: Current) -> Increment | None:
    """The increment that has the audience of the record: the running one, if it still has it."""
    here, published = increment_at(phase, current), (Decimal(record.percent), set(record.groups), Decimal(record.placebo or 0))
    if here is not None and (here.percent, set(here.groups), here.placebo) == published:
        return here
    return increment_with(phase, *published)
