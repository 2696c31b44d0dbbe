"""Emergencies: features that are off for all users, from an `EmergencyDisable` action until an `EmergencyEnable` action."""

from datetime import timedelta
from typing import Final

from session_rollout.api.action import SessionRolloutAction
from session_rollout.api.enums import ActionReason, ActionType, EventReason
from session_rollout.api.flag_records import UNKNOWN_LENGTH, UnknownFeature, settled
from session_rollout.api.protection import FEATURES_LENGTH, Protection, ProtectionKind
from session_rollout.core.clocks import creation_time
from session_rollout.core.context import DecisionContext
from session_rollout.core.flags import audiences
from session_rollout.core.hold import judge_again
from session_rollout.core.learning import disable
from session_rollout.core.publication import foreign_document
from session_rollout.core.rollback import still_given
from session_rollout.errors import ActionRejected

NAMES_SHOWN: Final = 6


UNKNOWN_SHOWN: Final = timedelta(hours=1)  # for whoever created the action, and looks at the rollout


def unknown_features(context: DecisionContext, action: SessionRolloutAction) -> tuple[str, ...]:
    """Names in an EmergencyDisable action that are not features."""
    if action.spec.action is not ActionType.EMERGENCY_DISABLE:
        return ()
    return tuple(sorted(set(action.spec.features) - set(known_features(context))))


def _known_of(context: DecisionContext, action: SessionRolloutAction) -> tuple[tuple[str, ...], str]:
    """The features to turn off, and a sentence about names that are none: one wrong name must not keep the others on."""
    known, unknown = known_features(context), unknown_features(context, action)
    if not unknown:
        return action.spec.features or known, ""
    fresh = tuple(UnknownFeature(feature=name, by=action.name, time=context.now) for name in unknown)
    others = tuple(record for record in context.status.flags.unknown if record.feature not in unknown)
    context.change(flags=context.status.flags.updated(unknown=(*others, *fresh)[-UNKNOWN_LENGTH:]))
    verb = "is not a feature" if len(unknown) == 1 else "are not features"
    text = f"{_list(unknown)} {verb} of the spec or of the flag document; allowed: {', '.join(known) or 'none'}"
    return tuple(name for name in action.spec.features if name not in unknown), text


def forget_unknown(context: DecisionContext) -> None:
    """Show a name that is not a feature for a while only."""
    flags = context.status.flags
    if not flags.unknown:
        return
    known = known_features(context)
    left = tuple(
        record for record in flags.unknown if record.feature not in known and context.now - record.time < UNKNOWN_SHOWN
    )
    if left != flags.unknown:
        context.change(flags=flags.updated(unknown=left))


def _disabled_of(context: DecisionContext, action: SessionRolloutAction) -> tuple[str, ...]:
    """The features to turn on; every one that is off when the action names none. One wrong name rejects it: nobody gets anything by mistake."""
    known = tuple(record.feature for record in context.status.flags.disabled)
    if unknown := sorted(set(action.spec.features) - set(known)):
        message = f"`features` contains {unknown[0]}, which is not disabled; allowed: {', '.join(known) or 'none'}"
        raise ActionRejected(ActionReason.UNKNOWN_FEATURE, message)
    return action.spec.features or known


def emergency_disable(context: DecisionContext, action: SessionRolloutAction) -> str:
    """Turn off the features that the action names and that exist, or all of them. Raises ActionRejected."""
    names, unknown = _known_of(context, action)
    names = names[:FEATURES_LENGTH]  # a document that somebody has edited may have more flags
    if action.spec.features and not names:
        raise ActionRejected(ActionReason.UNKNOWN_FEATURE, f"nothing was turned off: {unknown}")
    if (foreign := foreign_document(context)) is not None:
        raise ActionRejected(ActionReason.FOREIGN_DOCUMENT, foreign)
    emergency = Protection(
        kind=ProtectionKind.EMERGENCY,
        uid=action.uid,
        by=action.name,
        reason=action.spec.reason,
        time=context.now,
        requested_time=creation_time(context, action),
        features=names,
    )
    disable(context, emergency)
    text = f"{_list(names)} disabled for all users"
    context.record_event(EventReason.FLAGS_DISABLED, f"{text}: {action.spec.reason}", by=action.name)
    return f"{text}; NOT in force: {unknown}" if unknown else text


def known_features(context: DecisionContext) -> tuple[str, ...]:
    """Features of the spec, and then those that are published although they have left it."""
    document, names = context.document, [feature.name for feature in context.spec.features]
    names += audiences(context.spec, context.status)
    names += document.audiences if document is not None else ()
    return tuple(dict.fromkeys(names))


def emergency_enable(context: DecisionContext, action: SessionRolloutAction) -> str:
    """Let features follow the rollout again, unless their emergency is newer. Raises ActionRejected."""
    flags = context.status.flags
    wanted = _disabled_of(context, action)
    if not wanted:
        raise ActionRejected(ActionReason.NOTHING_DISABLED, "no feature is disabled")
    newer = _newer(context, action)
    names = tuple(name for name in wanted if name not in newer)
    if not names:
        message = f"the emergency of {_list(wanted)} is not older than this action; create another one"
        raise ActionRejected(ActionReason.EMERGENCY_IS_NEWER, message)
    waiting = tuple(other for other in context.observed.actions if not is_in_force(context, other))
    left = tuple(record for record in flags.disabled if record.feature not in names)
    lifted = {record.uid for record in flags.disabled if record.uid} - {record.uid for record in left}
    context.change(flags=settled(flags.updated(disabled=left, unknown=()), tuple(sorted(lifted))))
    _supersede(context, waiting, action)
    judge_again(context)
    kept = tuple(name for name in wanted if name in newer)
    text = f"{_list(names)} restored to the rollout's current audience"
    text += f"; {_list(kept)} stays off, because the emergency is not older than this action" if kept else ""
    context.record_event(EventReason.FLAGS_ENABLED, f"{text}: {action.spec.reason}", by=action.name)
    return text


def is_in_force(context: DecisionContext, action: SessionRolloutAction) -> bool:
    """Whether users have what an action that protects them wants, as the document in the cluster says: only then it is answered."""
    wanted, document = set(action.spec.features), context.document
    match action.spec.action:
        case ActionType.EMERGENCY_DISABLE:
            names = {record.feature for record in context.status.flags.disabled if not wanted or record.feature in wanted}
            return not names or (document is not None and names <= set(document.disabled))
        case ActionType.ABORT:
            return context.current.rollback_uid != action.uid or not still_given(context)
        case ActionType.EMERGENCY_ENABLE:
            return not [name for name in context.still_off if not wanted or name in wanted]
    return True


def _supersede(context: DecisionContext, waiting: tuple[SessionRolloutAction, ...], lift: SessionRolloutAction) -> None:
    """Reject the EmergencyDisable actions that were lifted before the document had them: whoever waits must not think them in force."""
    left = {record.feature for record in context.status.flags.disabled}
    over = {
        other.uid
        for other in waiting
        if other.spec.action is ActionType.EMERGENCY_DISABLE and left.isdisjoint(other.spec.features or left)
    }
    message = f"{lift.name} enabled the features again before the flag document could be written"
    changes = {"accepted": False, "reason": ActionReason.SUPERSEDED, "message": message}
    answers = context.status.processed_actions
    context.change(
        processed_actions=tuple(
            answer.updated(**changes) if answer.uid in over and answer.accepted else answer for answer in answers
        )
    )


def _newer(context: DecisionContext, action: SessionRolloutAction) -> frozenset[str]:
    """Features that the action must not turn on: their emergency is newer, or as old as far as anybody can tell.

    A creation time has seconds. Of two actions of one second the order is known only if one had its response before the other was seen.
    """
    created = creation_time(context, action)
    newer = {
        record.feature
        for record in context.status.flags.disabled
        if (record.requested_time or record.time).replace(microsecond=0) > created
    }
    for other in context.observed.actions:
        if other.spec.action is ActionType.EMERGENCY_DISABLE and creation_time(context, other) >= created:
            newer.update(other.spec.features or known_features(context))
    return frozenset(newer)


def _list(names: tuple[str, ...]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
