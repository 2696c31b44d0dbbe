"""What the flag document knows and the status does not: protections, edits by hand, and a document of another status.

A document with a higher revision either explains itself by its protections (`api.protection`), or this status is not the one that it
was published for: then it is kept until a person decides. What takes a feature away whole is adopted, whoever wrote it.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from session_rollout.api.enums import EventReason, Outcome
from session_rollout.api.flag_records import DISABLED_LENGTH, DisabledFeature, settled
from session_rollout.api.protection import Protection, ProtectionKind
from session_rollout.core.context import DecisionContext
from session_rollout.core.documents import PublishedDocument
from session_rollout.core.flags import (
    NOBODY,
    audiences,
    config_map_name,
    disabled_features,
    of_users,
    with_recorded_dependents,
)
from session_rollout.core.generation import adopt_generation
from session_rollout.core.plan import note_other_plan
from session_rollout.core.publication import audience_before, protection_uids
from session_rollout.core.rollback import begin_rollback
from session_rollout.core.status_budget import kept

EDIT: Final = "edit-"  # begins the UID of an edit, which has the version of the document


def learn(context: DecisionContext) -> None:
    """Bring what the document knows and the status does not into the status, before anything is decided."""
    document = context.document
    forget_kept(context)
    if document is None:
        return
    is_strange = _is_unexplained(context, document)
    learn_protections(context)
    flags = context.status.flags
    by_hand = document.editor is not None and flags.sha256 is not None
    if not (flags.adoption_required or by_hand) and (flags.sha256 is None or document.revision > flags.revision):
        _compare_revisions(context, document, hides=is_strange and _hides(context, document))
    else:
        learn_kills(context)


def _is_unexplained(context: DecisionContext, document: PublishedDocument) -> bool:
    """Whether writes that this status does not know of came between it and the document: it was restored, or is of another object.

    Without a status only what protects users is written, and the annotation has each such write until the status knows of it. The next
    revision may have been read before its annotation was written.
    """
    flags = context.status.flags
    news = [protection.revision for protection in document.protections if _is_news(context, protection)]
    return flags.sha256 is not None and min(news, default=document.revision) > flags.revision + 1


def _hides(context: DecisionContext, document: PublishedDocument) -> bool:
    """Whether emergencies of the document may hide that it gave users something else than the status does."""
    known = disabled_features(context.spec, context.observed.rollout.status)
    given = of_users(audiences(context.spec, context.observed.rollout.status))
    return any(given.get(name, NOBODY) != NOBODY and name not in known for name in document.disabled)


def learn_protections(context: DecisionContext) -> None:
    """Emergencies and rollbacks that the annotation of the document has and the status does not."""
    document = context.document
    if document is None:
        return
    for protection in document.protections:
        if _is_news(context, protection):
            _adopt(context, protection)
            if protection.uid == context.current.rollback_uid:
                _forget_explained(context, document)


def forget_kept(context: DecisionContext) -> None:
    """A document that waited for `Adopt` or `Reset`, and is gone, has nothing to keep."""
    if context.status.flags.adoption_required and context.observed.document is None:
        context.change(flags=context.status.flags.updated(adoption_required=False, sha256=None))


def _forget_explained(context: DecisionContext, document: PublishedDocument) -> None:
    """A document that waited for `Adopt` or `Reset`, and is the result of a rollback that has just become known, explains itself.

    A leader may have read it before its annotation was written.
    """
    flags = context.status.flags
    if flags.adoption_required and _gives_the_same(context, document):
        context.change(flags=flags.updated(adoption_required=False))


def learn_kills(context: DecisionContext) -> None:
    """Features that somebody else has turned off in the document are off for good, also those that no user has yet.

    Rules that the compiler never writes are somebody else's also when the object does not say who has written it.
    """
    document, flags = context.document, context.status.flags
    if document is None or flags.sha256 in {None, document.sha256}:
        return
    gone = _turned_off(context, document)
    if flags.adoption_required or document.editor is not None:
        gone |= set(document.disabled)
    if not flags.adoption_required and document.editor is not None:
        gone |= _taken_from_users(context, document)
    _adopt_edit(context, document, gone)


def _taken_from_users(context: DecisionContext, document: PublishedDocument) -> set[str]:
    """Features that nobody has in an edited document, and that users had: in whatever form, also that of one that is off."""
    given = audiences(context.spec, context.status)
    if context.current.is_unpublished:  # the document never gave what was decided
        given.update(dict.fromkeys(context.decided_features, audience_before(context)))
    users = of_users(given)
    return {name for name, audience in of_users(document.audiences).items() if audience == NOBODY != users.get(name, NOBODY)}


def _turned_off(context: DecisionContext, document: PublishedDocument) -> set[str]:
    """Features that somebody else has turned off.

    A placebo that an edit left is one of them, unless the status has it, or nobody had the feature: who sets the value of the variant `on`
    to false makes one.
    """
    if document.editor is None:
        return set(document.taken_away)
    given = audiences(context.spec, context.status)
    placebos = {name for name, audience in document.audiences.items() if audience is not None and audience.placebo}
    had_users = placebos & document.first_published.keys()
    return {*document.taken_away, *(name for name in had_users if not given.get(name, NOBODY).placebo)}


def _is_news(context: DecisionContext, protection: Protection) -> bool:
    status = context.status
    return protection.uid not in protection_uids(status) and protection.revision >= status.flags.revision


def _adopt(context: DecisionContext, protection: Protection) -> None:
    if protection.kind is ProtectionKind.EMERGENCY:
        disable(context, protection)
        return
    if protection.generation == context.observed.rollout.generation:
        adopt_generation(context)  # it rests on this spec, so that this spec does not start again what it has rolled back
    flags = context.status.flags
    is_kept = flags.sha256 is None or flags.adoption_required  # a person decides about the document of another status
    if not is_kept or any(record.features for record in context.status.phases):
        # Whoever may edit the annotation may write any outcome; a rollback has only these two.
        outcome = Outcome.ABORTED if protection.outcome is Outcome.ABORTED else Outcome.ROLLED_BACK
        if protection.guard is not None and protection.causes:  # the status that had this event could not be written
            context.record_event(EventReason.GUARD_BREACHED, "; ".join(protection.causes), check=protection.guard)
        context.protect()
        note_other_plan(context, protection)
        begin_rollback(context, outcome, protection.causes, protection.uid, guard=protection.guard, phases=protection.phases)


def disable(context: DecisionContext, emergency: Protection) -> None:
    """Turn features off for all users, until an `EmergencyEnable` action."""
    flags = context.status.flags
    context.protect(emergency.requested_time)
    already = tuple(_requested_again(record, emergency) for record in flags.disabled)
    names = {record.feature for record in already}
    fresh = tuple(
        DisabledFeature(
            feature=name,
            reason=emergency.reason,
            by=emergency.by,
            time=emergency.time,
            uid=emergency.uid,
            requested_time=emergency.requested_time,
        )
        for name in emergency.features
        if name not in names
    )
    # Features of this rollout stay in the list, whatever an edited annotation names.
    known = audiences(context.spec, context.status.updated(flags=flags.updated(disabled=())))
    disabled = kept((*already, *fresh), lambda record: record.feature in known, DISABLED_LENGTH) if fresh else already
    if disabled != flags.disabled:
        context.change(flags=flags.updated(disabled=with_recorded_dependents(context.spec, disabled)))


def _requested_again(record: DisabledFeature, emergency: Protection) -> DisabledFeature:
    """A feature that is off already: what turned it off stays, and only an action that is newer than both turns it on."""
    requested = emergency.requested_time or emergency.time
    if record.feature not in emergency.features or requested <= (record.requested_time or record.time):
        return record
    return record.updated(requested_time=requested)


def _adopt_edit(context: DecisionContext, document: PublishedDocument, gone: Iterable[str]) -> None:
    """A person has edited the document: what was taken away whole is an emergency, everything else is corrected.

    It is also one of a feature that is off already: what ends that emergency, or the one of a prerequisite, does not end this one. An edit
    is learned once: none is an emergency again while its correction cannot be written.
    """
    disabled, uid = disabled_features(context.spec, context.status), f"{EDIT}{document.version}"
    names = tuple(sorted(name for name in gone if name not in disabled or name in document.taken_away))
    if not names or uid in protection_uids(context.status):
        return
    reason = f"an edit of ConfigMap {config_map_name(context.spec.flag_set)} turned it off"
    emergency = Protection(
        kind=ProtectionKind.EMERGENCY,
        uid=uid,
        by=document.editor or "the flag document",
        reason=reason,
        time=context.now,
        requested_time=_end_of_second(context.now),
        features=names,
    )
    disable(context, emergency)
    earlier = tuple(known for known in context.status.flags.settled if not known.startswith(EDIT))  # no earlier edit comes back
    context.change(flags=settled(context.status.flags.updated(settled=earlier), (uid,)))
    if fresh := [name for name in names if name not in disabled]:
        context.record_event(EventReason.FLAGS_DISABLED, f"{', '.join(fresh)}: {reason}", by=document.editor)


def _end_of_second(time: datetime) -> datetime:
    """An edit has no creation time, and that of an action has seconds: an `EmergencyEnable` of the same second is not newer."""
    return time.replace(microsecond=0) + timedelta(seconds=1)


def _compare_revisions(context: DecisionContext, document: PublishedDocument, *, hides: bool) -> None:
    """Take over the revision of a document that gives the same, emergencies aside; keep one that gives something else, or may hide it."""
    _adopt_marks(context, document)
    flags = context.status.flags
    same = _gives_the_same(context, document) and not hides
    if flags.sha256 is None:  # nothing was published for this status
        same = not (document.gives_something or document.disabled or document.rolled_back or _turned_off(context, document))
    if same:
        context.change(flags=flags.updated(revision=max(flags.revision, document.revision)))
        if flags.sha256 is None:
            keep_off(context, document)
        return
    _keep(context, document)


def _gives_the_same(context: DecisionContext, document: PublishedDocument) -> bool:
    """Whether the document gives what the status gives; an edit may have named features since that nobody has."""
    given = of_users(audiences(context.spec, context.status))
    return document.without_placebos().gives(given, disabled_features(context.spec, context.status))


def _adopt_marks(context: DecisionContext, document: PublishedDocument) -> None:
    """What the document marks as disabled stays off, also before its annotation, or without it."""
    by, uid, kind = "the flag document", f"document-{document.version}", ProtectionKind.EMERGENCY
    for name, reason in sorted(document.disabled.items()):
        if name in disabled_features(context.spec, context.status):
            continue  # known from the annotation, or as a dependent
        requested = _end_of_second(context.now)
        mark = Protection(
            kind=kind, uid=uid, by=by, reason=reason, time=context.now, requested_time=requested, features=(name,)
        )
        disable(context, mark)


def _keep(context: DecisionContext, document: PublishedDocument) -> None:
    _adopt_edit(context, document, _turned_off(context, document))
    name = config_map_name(context.spec.flag_set)
    kept = {"revision": document.revision, "sha256": document.sha256, "config_map": name, "adoption_required": True}
    context.change(flags=context.status.flags.updated(**kept))
    context.record_event(EventReason.DOCUMENT_KEPT, kept_text(context), revision=document.revision)


def keep_off(context: DecisionContext, document: PublishedDocument) -> None:
    """What nobody has by the document is not given by a spec that says `initial: On`: only a phase gives it.

    Nor does the end of an emergency: the document does not say who had the feature before.
    """
    flags = context.status.flags
    off = {name for name, audience in document.audiences.items() if audience == NOBODY}
    names = {feature.name for feature in context.spec.features if feature.name in off}
    context.change(flags=flags.updated(initially_off=tuple(sorted({*flags.initially_off, *names}))))


def kept_text(context: DecisionContext) -> str:
    """Why the document is kept."""
    name, document = config_map_name(context.spec.flag_set), context.document
    if document is not None and document.rolled_back is not None:
        causes = "; ".join(document.rolled_back.causes)
        return f"{name} in the cluster was rolled back, and this status does not know of it, so it is kept as it is: {causes}"
    return f"{name} in the cluster gives users something else than this status knows, so it is kept as it is"
