"""What is published. The flag document and the status have one order: `revision`.

Every change of either takes the larger of both revisions plus one. The status is the intent and is written before the
document, with one exception: what takes features away from users is written to the document first, and an annotation
says what it was until the status has it (`api.protection`). What the status learns from a document is in `core.learning`.
"""

from collections.abc import Mapping
from decimal import Decimal
from itertools import islice
from typing import Final

from session_rollout.api.enums import DecisionAction, DecisionReason, PhaseState
from session_rollout.api.protection import PROTECTIONS_LENGTH, Protection, ProtectionKind
from session_rollout.api.status import RolloutStatus
from session_rollout.core.audiences import gives_less, lesser
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.documents import FLAGS_READ, PublishedDocument
from session_rollout.core.drift import notice_drift
from session_rollout.core.first_publish import first_published, known_document
from session_rollout.core.flags import (
    NOBODY,
    Audience,
    FlagDocument,
    FlagSource,
    audiences,
    compile_document,
    config_map_name,
    disabled_features,
    held_back_of,
    without_held_back,
)
from session_rollout.core.holdback import before_release
from session_rollout.core.observed import Publish

Given = Mapping[str, Audience]  # by feature
MOST_REVISIONS: Final = 2**53
UNKNOWN_RULES: Final = NOBODY  # what an emergency leaves of a flag whose rules this core did not write


def foreign_document(context: DecisionContext) -> str | None:
    """Why the ConfigMap with the name of the flag document must not be written; None when it may be."""
    document = context.observed.document
    if document is None or document.belongs_to(context.observed.rollout.name):
        return None
    name = config_map_name(context.spec.flag_set)
    if document.owner is not None:
        return (
            f"ConfigMap {name} belongs to rollout {document.owner}: `flagSet` must be unique in the namespace;"
            " while this rollout has published nothing, `flagSet` can be changed"
        )
    return f"ConfigMap {name} exists and was not written by a rollout; delete it, or use another `flagSet`"


def _given(context: DecisionContext) -> dict[str, Audience]:
    return audiences(context.spec, context.status)


# --- what is published


def is_published(context: DecisionContext) -> bool:
    """Whether the document that the status wants was read back, and nobody has changed it since."""
    flags, document = context.status.flags, context.document
    is_read_back = flags.published_time is not None and not context.current.is_unpublished
    is_read_back = is_read_back and not context.status.is_release_pending
    return is_read_back and document is not None and document.sha256 == flags.sha256


def publishing(message: str, detail: str) -> StageResult:
    """What to do until the ConfigMap contains the wanted document."""
    next_actions = ("wait until the ConfigMap contains the document",)
    return StageResult(DecisionAction.PUBLISH, DecisionReason.PUBLISHING, message, (detail,), next_actions)


def has_audience(context: DecisionContext, document: PublishedDocument) -> bool:
    """Whether the document gives the features of the running phase to the audience of its step, as far as no emergency hides it."""
    given = _given(context)
    names = [name for name in context.decided_features if name in given and name not in document.disabled]
    return bool(names) and all(document.audiences.get(name) == given[name] for name in names)


def publish(context: DecisionContext, *, holds_back: bool = False) -> None:
    """Publish the document of the status as it is now, while the cluster has another one.

    What it takes away from users goes first: if the same document also gives something, a document that only takes away
    comes before it. With `holds_back`, the features of the running phase stay as they are published: a document that gives nothing
    else stays, and so does the intent in the status, which another leader may be publishing.
    """
    if foreign_document(context) is not None:
        return
    if context.status.flags.adoption_required:
        publish_emergencies(context)
        return
    document = context.document
    given, disabled = _given(context), disabled_features(context.spec, context.status)
    if holds_back:
        given.update(_withheld(context, given))
        if _stays(context, document, given, disabled):
            return
    protects = not context.is_reset or context.status.flags.disabled != context.observed.rollout.status.flags.disabled
    less = _less(context, given, disabled) if protects else None
    floor = document.revision if document is not None else 0
    if less is not None and less != (given, disabled):
        # The first half of a correction keeps the revision of the status: a process that is killed before the second half leaves a
        # document that is not newer than what the next one reads.
        corrects = document is None or document.editor is not None
        revision = context.status.flags.revision if corrects else floor + 1
        context.urgent = _effect(context, _compile(context, *less, revision), revision)
        floor = max(floor, revision)
    wanted = _wanted(context, given, disabled, floor)
    if document is None or document.sha256 != wanted.sha256:
        _request(context, wanted, urgent=less == (given, disabled))
    elif not (document.labelled and _knows_rollback(context, document)):
        context.effects.append(_effect(context, wanted))


def _withheld(context: DecisionContext, given: Given) -> Given:
    """What users have of the features of the running phase, or of all those that a release is about."""
    unpublished = {name: published_audience(context, name) for name in context.running_features if name in given}
    return before_release(context) or unpublished


def _stays(context: DecisionContext, document: PublishedDocument | None, given: Given, disabled: Mapping[str, str]) -> bool:
    """Whether the document in the cluster is the one that was read back before, and gives just this.

    A refused write is requested again all the same: as long as it is refused, it is shown.
    """
    refused = any(refusal.effect == Publish.__name__ for refusal in context.observed.refusals)
    if document is None or refused or not document.labelled:
        return False
    same = document.audiences.keys() == given.keys() and document.gives(given, disabled)
    return same and document.sha256 == context.status.flags.published_sha256


def _knows_rollback(context: DecisionContext, document: PublishedDocument) -> bool:
    """Whether the document says that it was rolled back: also by a rollback that took nothing away, after which a new object must not begin."""
    known = {protection.uid for protection in document.protections}
    return all(rollback.uid in known for rollback in _rollbacks(context))


def audience_before(context: DecisionContext) -> Audience:
    """What users of the running phase had when its next audience was decided."""
    current = context.current
    audience = Audience(Decimal(current.earlier_percent or 0), current.earlier_groups, Decimal(current.earlier_placebo or 0))
    record = context.status.phase(current.phase)
    return without_held_back(audience, held_back_of(context.status, record)) if record is not None else audience


def published_audience(context: DecisionContext, name: str) -> Audience:
    """What users have of a feature of the running phase while its next audience is not published.

    It is what the document gives, and no more than the audience before that one: another client may have written more. Another process
    of ours may have published the next one since, on evidence of its own.
    """
    document, before = context.document, audience_before(context)
    if document is None or name not in document.audiences:
        return NOBODY
    published = document.audiences[name]
    if document.editor is None and published is not None and published == _given(context).get(name):
        return published
    if context.current.earlier_percent is None:  # the status of an older version, which did not write it
        return published if published is not None and document.editor is None else NOBODY
    return before if published is None else lesser(before, published)


def _wanted(context: DecisionContext, given: Given, disabled: Mapping[str, str], floor: int) -> FlagDocument:
    """The document of the status; with a new revision when it changed, or when the cluster has a newer one."""
    flags = context.status.flags
    wanted = _compile(context, given, disabled, flags.revision)
    if wanted.sha256 == flags.sha256 and flags.revision >= floor:
        return wanted
    revision = _after(max(flags.revision, floor))
    wanted = _compile(context, given, disabled, revision)
    context.change(flags=flags.updated(config_map=wanted.config_map, sha256=wanted.sha256, revision=revision))
    return wanted


def _after(revision: int) -> int:
    """The next revision. There is none after the largest, which only a status written by hand has: an emergency must not fail then."""
    return min(revision + 1, MOST_REVISIONS)


def _request(context: DecisionContext, wanted: FlagDocument, *, urgent: bool) -> None:
    notice_drift(context, wanted)
    effect = _effect(context, wanted)
    if urgent:
        context.urgent = effect
    else:
        context.effects.append(effect)


def _less(context: DecisionContext, given: Given, disabled: Mapping[str, str]) -> tuple[Given, Mapping[str, str]] | None:
    """What is wanted of what users have, if something is taken away from them; None if nothing is.

    Applications keep the last document when it is deleted: what is off without the status is published without it, too.
    """
    if context.document is not None:
        return _less_than_published(context.document, given, disabled)
    rolled_back = any(record.state is PhaseState.ROLLED_BACK for record in context.status.phases)
    if context.status.flags.published_sha256 is None or not (disabled or rolled_back):
        return None
    before = audiences(context.spec, context.observed.rollout.status)
    return {name: lesser(audience, before.get(name, NOBODY)) for name, audience in given.items()}, disabled


def _less_than_published(
    document: PublishedDocument, given: Given, disabled: Mapping[str, str]
) -> tuple[Given, Mapping[str, str]] | None:
    """What is both published and wanted, if the published document gives something that is not wanted; None if it does not."""
    known = {name: audience for name, audience in document.audiences.items() if name in given}
    fresh = any(name not in document.disabled for name in disabled)  # also takes it from users who are forced on
    if not fresh and not any(_takes_away(name, audience, given, disabled) for name, audience in known.items()):
        return None
    audiences_left = {
        name: given[name] if name in disabled or audience is None else lesser(given[name], audience)
        for name, audience in known.items()
    }
    # Also features that the document has not: else it would never have them off, and be written again with each decision.
    audiences_left = {**dict.fromkeys(disabled, NOBODY), **audiences_left}
    return audiences_left, {**{name: text for name, text in document.disabled.items() if name in given}, **disabled}


def _takes_away(name: str, published: Audience | None, given: Given, disabled: Mapping[str, str]) -> bool:
    return published is None or gives_less(NOBODY if name in disabled else given[name], published)


def publish_less(context: DecisionContext) -> None:
    """Publish only what takes features away from users: the operator cannot tell whether they may have more."""
    if foreign_document(context) is not None or context.status.flags.adoption_required:
        publish_emergencies(context)
        return
    document, given, disabled = context.document, _given(context), disabled_features(context.spec, context.status)
    if document is not None and (less := _less_than_published(document, given, disabled)) is not None:
        _request(context, _wanted(context, *less, document.revision), urgent=True)


def publish_emergencies(context: DecisionContext) -> None:
    """Change nothing in the document but emergencies: while it is kept, and users have what another status gave them."""
    _take_away(context, {})


def publish_protections(context: DecisionContext) -> None:
    """Change nothing in the document but what the status takes away: while the operator does not know what else to publish."""
    kept = context.status.flags.adoption_required or foreign_document(context) is not None
    _take_away(context, {} if kept else _rolled_back(context))


def _rolled_back(context: DecisionContext) -> Given:
    """What a rollback leaves of the features that the document gives to more users."""
    given, published = _given(context), context.document.audiences if context.document is not None else {}
    records = (record for record in context.status.phases if record.state is PhaseState.ROLLED_BACK)
    present = {name: published.get(name) for record in records for name in record.features}
    return {
        name: lesser(given[name], audience)
        for name, audience in present.items()
        if audience is not None and gives_less(given[name], audience)
    }


def _take_away(context: DecisionContext, left: Given) -> None:
    """Publish the document with the emergencies, and with what is left of these features."""
    document = context.document
    disabled = disabled_features(context.spec, context.status)
    if document is None or (set(disabled) <= set(document.disabled) and not left):
        return
    given = {name: audience or UNKNOWN_RULES for name, audience in document.audiences.items()}
    # Also features that the document has not: else it never has them off. They come first, and no more flags are written than are read.
    given = {**dict.fromkeys((*disabled, *left), NOBODY), **given, **left}
    given = dict(islice(given.items(), FLAGS_READ))
    revision = _after(document.revision)
    changed = _compile(context, given, {**document.disabled, **disabled}, revision)
    flags = context.status.flags.updated(sha256=changed.sha256, revision=revision)
    context.change(flags=flags)
    context.urgent = _effect(context, changed)


def _compile(context: DecisionContext, given: Given, disabled: Mapping[str, str], revision: int) -> FlagDocument:
    return compile_document(
        FlagSource(
            flag_set=context.spec.flag_set,
            namespace=context.observed.rollout.namespace,
            audiences=given,
            disabled=disabled,
            metadata={
                "rollout": context.observed.rollout.name,
                "rolloutGeneration": context.status.observed_generation,
                "phase": context.current.phase or "",
                "revision": revision,
            },
            first_published=first_published(context.spec, context.status, known_document(context)),
        )
    )


def _effect(context: DecisionContext, document: FlagDocument, revision: int = 0) -> Publish:
    """The write of a document; `revision` is its own if it is newer than the status."""
    published = context.document
    version = published.version if published is not None else None
    return Publish(document.config_map, document.text, document.sha256, version, _protections(context, revision))


# --- what explains a document with a higher revision


def protection_uids(status: RolloutStatus) -> frozenset[str]:
    """UIDs of the protections that a status has: emergencies that are in force or lifted, and rollbacks."""
    uids = {record.uid for record in status.flags.disabled if record.uid} | set(status.flags.settled)
    return frozenset(uids)


def _protections(context: DecisionContext, revision: int) -> tuple[Protection, ...]:
    """Emergencies that the stored status does not have yet, and the rollback that the document is the result of.

    The rollback stays until more is published: a rollout that is created again, or restored without its status, must learn of it.
    In a document that is kept, only the document knows of it: an emergency meanwhile must not erase it before `Adopt` reads it.
    """
    stored = context.observed.stored_uids
    if stored is None:
        stored = protection_uids(context.observed.rollout.status)
    document = context.document
    published = {known.uid: known for known in (document.protections if document is not None else ())}
    emergencies = [emergency for emergency in _emergencies(context) if emergency.uid not in stored]
    kept = [known for known in published.values() if known.kind is ProtectionKind.ROLLBACK and known.uid not in stored]
    rollbacks = {own.uid: own for own in (*(kept if context.status.flags.adoption_required else ()), *_rollbacks(context))}
    first = max(revision, context.status.flags.revision)
    fresh = (own.updated(revision=first) for own in (*emergencies, *rollbacks.values()))
    return tuple(published.get(own.uid, own) for own in fresh)[-PROTECTIONS_LENGTH:]


def _emergencies(context: DecisionContext) -> tuple[Protection, ...]:
    disabled = context.status.flags.disabled
    by_uid = {record.uid: record for record in disabled if record.uid}
    return tuple(
        Protection(
            kind=ProtectionKind.EMERGENCY,
            uid=uid,
            by=record.by,
            reason=record.reason,
            time=record.time,
            requested_time=record.requested_time,
            features=tuple(record.feature for record in disabled if record.uid == uid),
        )
        for uid, record in by_uid.items()
    )


def _rollbacks(context: DecisionContext) -> tuple[Protection, ...]:
    current = context.current
    if current.rollback_uid is None or current.stage_start_time is None:
        return ()
    rollback = Protection(
        kind=ProtectionKind.ROLLBACK,
        uid=current.rollback_uid,
        time=current.stage_start_time,
        generation=context.status.observed_generation,
        plan=context.status.observed_plan,
        phases=tuple(record.name for record in context.status.phases if record.state is PhaseState.ROLLED_BACK),
        outcome=current.rollback_outcome,
        guard=current.rollback_guard,
        causes=current.rollback_reasons,
    )
    return (rollback,)
