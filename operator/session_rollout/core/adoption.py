"""`Adopt` and `Reset`: the two ways out when the flag document in the cluster gives something that the status does not know.

That is so after a rollout was deleted and created again, or restored without its status: users keep what they have until a
person decides.
"""

from dataclasses import replace

from session_rollout.api.action import SessionRolloutAction
from session_rollout.api.enums import ActionReason, DecisionAction, DecisionReason, EventReason, PhaseState, Stage
from session_rollout.api.flag_records import settled
from session_rollout.api.phases import Phase
from session_rollout.api.protection import Protection
from session_rollout.api.rollout import OnOff, RolloutSpec
from session_rollout.api.status_records import PhaseRecord
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.criteria import forget_verdicts
from session_rollout.core.documents import PublishedDocument
from session_rollout.core.flags import EVERYBODY, NOBODY, Audience, without_held_back
from session_rollout.core.holdback import NOBODY_HELD_BACK, adopted_holdback, holdback_text
from session_rollout.core.learning import keep_off, kept_text
from session_rollout.core.rollback import end_rollback
from session_rollout.core.steps import Increment, increments, is_last, percent_text
from session_rollout.errors import ActionRejected


def await_adoption(context: DecisionContext) -> StageResult | None:
    """The stall while the document is kept; None when it is not."""
    if not context.status.flags.adoption_required:
        return None
    document = context.document
    rolled_back = document is not None and document.rolled_back is not None
    message = f"the flag document {'was rolled back' if rolled_back else 'gives something'} and this status does not know of it"
    next_actions = (
        "create an `Adopt` action to resume from the document",
        "create a `Reset` action to start from the beginning: users lose the features until their phase",
    )
    return StageResult(DecisionAction.STALL, DecisionReason.ADOPTION_REQUIRED, message, (kept_text(context),), next_actions)


def adopt(context: DecisionContext, action: SessionRolloutAction) -> str:
    """Resume with the audiences of the document, or end as it was rolled back.

    Raises ActionRejected when the phases have no such audiences.
    """
    document = _kept_document(context)
    keep_off(context, document)
    if document.rolled_back is not None:
        return _adopt_rollback(context, document, document.rolled_back, action)
    places = _places(context, document)
    for number, (phase, increment, audience) in enumerate(places, start=1):
        state = PhaseState.PENDING if number == len(places) else PhaseState.COMPLETED
        _put_phase(context, phase, increment, state, adopted_holdback(context.spec, audience))
    _begin(context)
    where = f"{places[-1][0].name} at {places[-1][1].audience}" if places else "nothing is published"
    text = f"resuming from the flag document: {where}"
    context.record_event(EventReason.DOCUMENT_ADOPTED, f"{text}: {action.spec.reason}", by=action.name)
    return text


def _adopt_rollback(
    context: DecisionContext, document: PublishedDocument, rollback: Protection, action: SessionRolloutAction
) -> str:
    for phase in _begun(context.spec, document, rollback.phases):
        audiences = [document.audiences.get(name) or NOBODY for name in phase.features if name not in document.disabled]
        audience = min(audiences, key=lambda audience: audience.percent, default=NOBODY)
        if phase.name in rollback.phases or audience != NOBODY:
            state = PhaseState.COMPLETED if is_last(phase, audience.percent, audience.groups) else PhaseState.PENDING
            state = PhaseState.ROLLED_BACK if phase.name in rollback.phases else state
            _put_phase(context, phase, audience, state, adopted_holdback(context.spec, audience))
    _begin(context)
    end_rollback(context, rollback)
    text = f"ended as it was rolled back: {'; '.join(rollback.causes)}"
    context.record_event(EventReason.DOCUMENT_ADOPTED, f"{text}: {action.spec.reason}", by=action.name)
    return text


def reset(context: DecisionContext, action: SessionRolloutAction) -> str:
    """Start from the beginning. Emergencies stay in force."""
    document = _kept_document(context)
    keep_off(context, document)
    if document.rolled_back is not None:
        context.change(flags=settled(context.status.flags, (document.rolled_back.uid,)))
    times = {record.name: record.first_publish_time for record in context.status.phases}
    fresh = (PhaseRecord(name=phase.name, first_publish_time=times.get(phase.name)) for phase in context.spec.phases)
    context.change(phases=tuple(fresh))
    _begin(context)
    context.is_reset = True
    text = "starting from the beginning; users lose the features until their phase"
    context.record_event(EventReason.DOCUMENT_RESET, f"{text}: {action.spec.reason}", by=action.name)
    return text


def _kept_document(context: DecisionContext) -> PublishedDocument:
    document = context.document
    if document is None or not context.status.flags.adoption_required:
        raise ActionRejected(ActionReason.NOTHING_TO_ADOPT, "the status knows what the flag document gives")
    return document.without_placebos()  # nobody has them: their phase begins again


def _places(context: DecisionContext, document: PublishedDocument) -> list[tuple[Phase, Increment, Audience]]:
    """The published phases, each with the increment whose audience it has, and that audience as the document has it."""
    planned = {name for phase in context.spec.phases for name in phase.features}
    if unknown := sorted(name for name, audience in document.audiences.items() if audience != NOBODY and name not in planned):
        raise _no_place(f"feature {unknown[0]} is on in the flag document and in no phase of the spec")
    places = []
    for phase in _begun(context.spec, document):
        given = {document.audiences.get(name, NOBODY) for name in phase.features if name not in document.disabled}
        if given <= {NOBODY}:
            continue
        audience = given.pop()
        increment = _increment_of(context.spec, phase, audience) if audience is not None and not given else None
        if increment is None or audience is None:
            raise _no_place(
                f"the flag document gives the features of phase {phase.name} to an audience that none of its steps has"
            )
        places.append((phase, increment, audience))
    for phase, increment, _ in places[:-1]:
        if not is_last(phase, increment.percent, increment.groups):
            raise _no_place(
                f"phase {phase.name} is at {increment.audience}, which is not its last step, and phase {places[-1][0].name} has begun"
            )
    return places


def _increment_of(spec: RolloutSpec, phase: Phase, audience: Audience) -> Increment | None:
    """The first increment of a phase that has exactly this audience, with the users who are held back or without them."""
    published = replace(audience, groups=tuple(sorted(audience.groups)))
    audiences = [
        (increment, Audience(increment.percent, tuple(sorted(increment.groups)), increment.placebo))
        for increment in increments(phase)
    ]
    held_back = (spec.control.held_back, NOBODY.held_back)
    matching = (increment for held in held_back for increment, each in audiences if without_held_back(each, held) == published)
    return next(matching, None)


def _begun(spec: RolloutSpec, document: PublishedDocument, known: tuple[str, ...] = ()) -> tuple[Phase, ...]:
    """The phases up to the newest that the document has another audience for than before it began; `known` are names of begun ones.

    What `initial: On` gives to everybody was published by no phase.
    """
    initial = dict.fromkeys((feature.name for feature in spec.features if feature.initial is OnOff.ON), EVERYBODY)
    given = {
        name
        for name, audience in document.audiences.items()
        if audience not in {NOBODY, initial.get(name, NOBODY)} and name not in document.disabled
    }
    begun = [
        number
        for number, phase in enumerate(spec.phases, start=1)
        if phase.name in known or not given.isdisjoint(phase.features)
    ]
    return spec.phases[: max(begun, default=0)]


def _no_place(cause: str) -> ActionRejected:
    return ActionRejected(ActionReason.NO_MATCHING_STEP, f"{cause}; change the spec, or create a `Reset` action")


def _put_phase(
    context: DecisionContext, phase: Phase, increment: Increment | Audience, state: PhaseState, held_back: str | None
) -> None:
    context.mark(
        phase.name,
        state=state,
        percent=percent_text(increment.percent),
        groups=increment.groups,
        held_back=held_back,
        features=phase.features,
        start_time=context.now,
    )
    if state is PhaseState.COMPLETED:
        for name in phase.migrations.names:
            if not (record := context.migration(name)).is_applied:
                context.put_migration(record.updated(adopted=True))


def _begin(context: DecisionContext) -> None:
    fixed = holdback_text(context.spec) or NOBODY_HELD_BACK
    flags = context.status.flags.updated(adoption_required=False, holdback=fixed, released_time=None)
    context.change(flags=flags, outcome=None)
    context.resume()
    forget_verdicts(context)
    context.enter(Stage.PREFLIGHT, guards_start_time=context.now, phase=None, phase_index=0, percent="0", groups=())
