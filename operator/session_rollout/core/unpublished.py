"""An audience that was decided and is not published: what users have instead, and how the rollout continues from there.

A raise rests on evidence of the moment. If the document cannot be written for a while, that is over: the audience that users
have is held again.
"""

from datetime import timedelta
from decimal import Decimal
from typing import Final

from session_rollout.api.enums import EventReason, Stage
from session_rollout.api.phases import Phase
from session_rollout.api.status import Current
from session_rollout.api.status_records import PhaseRecord
from session_rollout.core.context import DecisionContext
from session_rollout.core.criteria import forget_criteria, restart_criteria
from session_rollout.core.publication import audience_before, has_audience, published_audience
from session_rollout.core.steps import Increment, increment_at, increment_with, percent_text

VALID_INTERVALS: Final = 2
VALID_AT_LEAST: Final = timedelta(seconds=10)  # a slow API server is no reason to hold again


def has_lapsed(context: DecisionContext) -> bool:
    """Whether the audience of the step was decided too long ago to be published on that evidence. An emergency hides whether it was."""
    current, valid = context.current, max(VALID_INTERVALS * context.interval, VALID_AT_LEAST)
    held = (current.earlier_percent, current.earlier_groups) == (current.percent, current.groups)
    if not current.is_unpublished or held or context.off_here:
        return False
    if context.document is not None and has_audience(context, context.document):
        return False
    return current.stage_start_time is not None and context.now - current.stage_start_time > valid


def hold_again(context: DecisionContext, phase: Phase) -> None:
    """Return to the audience that users have, with a new hold; to the stage before the first one while they have none."""
    late = context.current
    forget_unpublished(context)
    record = context.status.phase(phase.name)
    assert record is not None, "the phase has a record from the generation that it is part of"
    place = increment_with(phase, Decimal(record.percent), record.groups)
    if place is None:
        if not record.is_published:
            forget_criteria(context)  # the next first publish measures its own baselines
        context.enter(Stage.BASELINE)
    else:
        kept = {"earlier_percent": record.percent, "earlier_groups": record.groups}
        context.enter(Stage.STEP, step=place.step, increment=place.index, **kept)
        restart_criteria(context)
    message = f"{late.audience} could not be published in time; {context.current.audience} is held again"
    context.record_event(EventReason.AUDIENCE_LAPSED, message, at=late)


def forget_unpublished(context: DecisionContext) -> None:
    """The audience of the step was decided and never published: what users have decides where the rollout continues."""
    audiences = [published_audience(context, name) for name in _visible(context)]
    least = min(audiences or [audience_before(context)], key=lambda audience: audience.percent)
    percent = percent_text(least.percent)
    context.mark(context.current.phase or "", percent=percent, groups=least.groups)
    context.move(percent=percent, groups=least.groups, earlier_percent=percent, earlier_groups=least.groups)


def _visible(context: DecisionContext) -> list[str]:
    """Features that the running phase has published and whose audience the document shows: an emergency hides it."""
    document, record = context.document, context.status.phase(context.current.phase)
    features = record.features if record is not None else ()  # those of the spec may be new
    return [name for name in features if document is None or name not in document.disabled]


def published_increment(phase: Phase, record: PhaseRecord, current: Current) -> Increment | None:
    """The increment that has the audience of the record: the running one, if it still has it."""
    here, published = increment_at(phase, current), (Decimal(record.percent), set(record.groups))
    if here is not None and (here.percent, set(here.groups)) == published:
        return here
    return increment_with(phase, *published)
