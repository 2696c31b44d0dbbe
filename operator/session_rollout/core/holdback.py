"""Users who are held back: they get no feature in any phase, so that there is a control where everybody else has it.

They have the last buckets of the hash, which `core.flags` compiles. The record of a phase has their percentage from its first publish on,
and `status.flags.holdback` the one that was published first: it is fixed while users have a feature of a phase that is not promoted.

After the bake, they get the features, too: the release. It has a hold of its own, in which guards are evaluated, and comes before copies
are finished and the rollout is promoted. A rollback ends it: they are held back again.
"""

from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from session_rollout.api.enums import EventReason, Stage
from session_rollout.api.quantities import duration
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status import RolloutStatus
from session_rollout.api.status_records import PhaseRecord
from session_rollout.core.context import DecisionContext
from session_rollout.core.documents import PublishedDocument
from session_rollout.core.failures import TRAILING_CHECKS
from session_rollout.core.flags import EVERYBODY, Audience, audience_of_phase, held_back_of, without_held_back
from session_rollout.core.inputs import published_phases
from session_rollout.core.steps import Increment, audience_text, percent_text, placebo_text

NOBODY_HELD_BACK: Final = "0"
RELEASE_CHECKS: Final = TRAILING_CHECKS  # evaluations of the guards after the release


def holdback_text(spec: RolloutSpec) -> str | None:
    """`control.holdback` as the status has it: None if nobody is held back."""
    return percent_text(spec.control.held_back) if spec.control.held_back else None


def holdback_fields(context: DecisionContext, record: PhaseRecord | None) -> dict[str, Any]:
    """Fields of the record of a phase that is published now. The first publish fixes the percentage; users who were released stay so."""
    flags = context.status.flags
    if flags.holdback is None or not published_phases(context.status):
        context.change(flags=flags.updated(holdback=holdback_text(context.spec) or NOBODY_HELD_BACK))
    is_published = record is not None and record.is_published
    return {} if is_published else {"held_back": holdback_text(context.spec)}


def fix_holdback(context: DecisionContext) -> None:
    """The same for features that an earlier version has published, and for a promoted phase that continues: as their spec has it."""
    status = context.status
    same = status.observed_generation == context.observed.rollout.generation
    if status.flags.holdback is None and same and published_phases(status):
        context.change(flags=status.flags.updated(holdback=holdback_text(context.spec) or NOBODY_HELD_BACK))


def holdback_conflict(spec: RolloutSpec, status: RolloutStatus) -> str | None:
    """Other users would be held back than those who are: some would lose a feature, and others get it without a step."""
    fixed = status.flags.holdback  # unset by an older version
    if fixed is None or not published_phases(status) or Decimal(fixed) == spec.control.held_back:
        return None
    return (
        f"`control.holdback` is {spec.control.holdback}, but the features are published with {fixed}%;"
        f" keep {fixed}% until the rollout is promoted"
    )


def given_percent(spec: RolloutSpec, increment: Increment) -> Decimal:
    """The percentage of users who get the features by their bucket in an increment of the plan."""
    return min(increment.percent, EVERYBODY.percent - spec.control.held_back)


def users_text(audience: Audience) -> str:
    """Who has a feature, as messages show it."""
    return audience_text(
        percent_text(audience.percent), audience.groups, placebo_text(audience.placebo), percent_text(audience.held_back)
    )


def phase_text(status: RolloutStatus, record: PhaseRecord) -> str:
    """Who is to have the features of a phase, as messages show it."""
    return audience_text(record.percent, record.groups, record.placebo, percent_text(held_back_of(status, record)))


# --- the release


def bake_length(context: DecisionContext) -> timedelta:
    """How long the bake is held, or what follows the release: until the guards had a result about all users as often as a criterion."""
    if context.status.flags.released_time is None:
        return duration(context.spec.bake)
    metrics = {name for guard in context.spec.guards if not guard.dry_run for name in guard.metrics}
    return RELEASE_CHECKS * max((context.spec.interval_of(name) for name in metrics), default=context.interval)


def release(context: DecisionContext) -> bool:
    """Give the features to the users who were held back, and hold that; False if they get nothing by it."""
    status = context.status
    released = status.updated(flags=status.flags.updated(released_time=context.now))
    records = published_phases(status)
    if all(audience_of_phase(status, record) == audience_of_phase(released, record) for record in records):
        return False
    context.change(flags=released.flags)
    context.enter(Stage.BAKE)
    return True


def confirm_release(context: DecisionContext, document: PublishedDocument) -> None:
    """The document that gives them the features was read back: the hold of the release starts only then."""
    status = context.status
    if not status.is_release_pending:
        return
    given = {name: audience_of_phase(status, record) for record in status.phases for name in record.features}
    if all(document.audiences.get(name) == audience for name, audience in given.items() if name not in document.disabled):
        context.move(published_time=context.now)
        message = f"the {status.flags.holdback or NOBODY_HELD_BACK}% of users who were held back get the features, too"
        context.record_event(EventReason.HOLDBACK_RELEASED, message, revision=status.flags.revision)


def before_release(context: DecisionContext) -> dict[str, Audience]:
    """What users have of each feature while a release that was decided is not published."""
    records = published_phases(context.status) if context.status.is_release_pending else ()
    return {
        name: without_held_back(audience_of_phase(context.status, record), Decimal(record.held_back or 0))
        for record in records
        for name in record.features
    }


def adopted_holdback(spec: RolloutSpec, audience: Audience) -> str | None:
    """What the record of a phase has that is adopted with this audience: unset where the users who should be held back have its features."""
    wanted = spec.control.held_back
    known = audience.held_back in {Decimal(0), wanted} and without_held_back(audience, wanted) == audience
    return holdback_text(spec) if known else None


def settle_release(context: DecisionContext) -> None:
    """Users who were released keep the features, whatever follows; those of a release that was not published are held back again."""
    flags = context.status.flags
    if flags.released_time is None:
        return
    if not context.status.is_release_pending:
        for record in published_phases(context.status):
            context.mark(record.name, held_back=None)
    context.change(flags=flags.updated(released_time=None))
