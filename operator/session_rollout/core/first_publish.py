"""Since when users may have had each feature: the seasons of a baseline lie before that (`core.seasons`).

The status knows it by phase. The flag document has it by feature, because it outlives the object: in a rollout that is created
again, the last weeks are those in which users had the feature, and its harm would be its own baseline.
"""

from datetime import datetime
from typing import Final

from session_rollout.api.phases import Phase
from session_rollout.api.rollout import OnOff, RolloutSpec
from session_rollout.api.status import RolloutStatus
from session_rollout.api.status_records import EARLIEST, PhaseRecord
from session_rollout.core.context import DecisionContext
from session_rollout.core.documents import PublishedDocument
from session_rollout.core.flags import EVERYBODY, NOBODY, of_users
from session_rollout.core.steps import phase_named

UNKNOWN: Final = EARLIEST  # no season lies before it, so that there is none with the feature


def first_published(spec: RolloutSpec, status: RolloutStatus, document: PublishedDocument | None) -> dict[str, datetime]:
    """The time for each feature that has one, as the next document has it."""
    times = dict(document.first_published) if document is not None else {}
    for record in status.phases:
        if record.first_publish_time is not None:
            phase = phase_named(spec, record.name)
            features = record.features or (phase.features if phase is not None else ())
            times.update(dict.fromkeys(features, record.first_publish_time))
    return times


def known_document(context: DecisionContext) -> PublishedDocument | None:
    """The document in the cluster, unless it is an edit, which is corrected."""
    document, flags = context.document, context.status.flags
    is_kept = flags.sha256 is None or flags.adoption_required
    return document if document is not None and (document.editor is None or is_kept) else None


def learn_first_publish(context: DecisionContext) -> None:
    """Take over from the document what the status does not know: it is new, or a phase has another name now."""
    document = known_document(context)
    for phase in context.spec.phases:
        record = context.status.phase(phase.name)
        if record is None or record.first_publish_time is not None:
            continue
        if (time := _first_time(context, phase, record, document)) is not None:
            context.mark(phase.name, first_publish_time=min(time, context.now))


def _first_time(
    context: DecisionContext, phase: Phase, record: PhaseRecord, document: PublishedDocument | None
) -> datetime | None:
    """When users got a feature of the phase for the first time; None if nobody has had one."""
    times = document.first_published if document is not None else {}
    if known := [times[name] for name in phase.features if name in times]:
        return min(known)
    begun = bool(record.features) and record.placebo is None  # by an older version, which did not note the time
    return UNKNOWN if begun or _is_given(context, phase, document) else None


def _is_given(context: DecisionContext, phase: Phase, document: PublishedDocument | None) -> bool:
    """Whether a document that is kept gives a feature of the phase, or did before somebody turned it off by other rules than ours.

    What `initial: On` gives was published by no phase.
    """
    if document is None or not context.status.flags.adoption_required:
        return False
    if not document.taken_away.isdisjoint(phase.features):
        return True
    initial = {feature.name: EVERYBODY for feature in context.spec.features if feature.initial is OnOff.ON}
    given = of_users(document.audiences)
    return any(given.get(name, NOBODY) not in {NOBODY, initial.get(name, NOBODY)} for name in phase.features)
