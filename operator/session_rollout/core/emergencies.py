"""Emergencies: features that are off for all users, from an `EmergencyDisable` action until an `EmergencyEnable` action."""

from typing import Final

from session_rollout.api.action import SessionRolloutAction
from session_rollout.api.enums import ActionReason, ActionType, EventReason
from session_rollout.api.flag_records import settled
from session_rollout.api.protection import Protection, ProtectionKind
from session_rollout.core.clocks import creation_time
from session_rollout.core.context import DecisionContext
from session_rollout.core.hold import judge_again
from session_rollout.core.learning import disable
from session_rollout.core.publication import foreign_document
from session_rollout.core.rollback import still_given
from session_rollout.errors import ActionRejected

NAMES_SHOWN: Final = 6


def _features(action: SessionRolloutAction, known: tuple[str, ...], what: str) -> tuple[str, ...]:
    """The features that an action names; all known ones when it names none."""
    unknown = sorted(set(action.spec.features) - set(known))
    if unknown:
        allowed = ", ".join(known) or "none"
        message = f"`features` contains {unknown[0]}, which is not {what}; allowed: {allowed}"
        raise ActionRejected(ActionReason.UNKNOWN_FEATURE, message)
    return action.spec.features or known


def emergency_disable(context: DecisionContext, action: SessionRolloutAction) -> str:
    """Turn off the features that the action names, or all that are known. Raises ActionRejected."""
    names = _features(action, known_features(context), "a feature of the spec or of the flag document")
    if (foreign := foreign_document(context)) is not None:
        raise ActionRejected(ActionReason.FOREIGN_DOCUMENT, foreign)
    emergency = Protection(
        kind=ProtectionKind.EMERGENCY,
        uid=action.uid,
        by=action.name,
        reason=action.spec.reason,
        time=context.now,
        requested_time=action.creation_time,
        features=names,
    )
    disable(context, emergency)
    text = f"{_list(names)} disabled for all users"
    context.record_event(EventReason.FLAGS_DISABLED, f"{text}: {action.spec.reason}", by=action.name)
    return text


def known_features(context: DecisionContext) -> tuple[str, ...]:
    """Features of the spec, and those that are published although they have left it."""
    document = context.document
    names = [feature.name for feature in context.spec.features]
    names += [name for record in context.status.phases for name in record.features]
    names += document.audiences if document is not None else ()
    return tuple(dict.fromkeys(names))


def emergency_enable(context: DecisionContext, action: SessionRolloutAction) -> str:
    """Let features follow the rollout again, unless their emergency is newer. Raises ActionRejected."""
    flags = context.status.flags
    wanted = _features(action, tuple(record.feature for record in flags.disabled), "disabled")
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
    context.change(flags=settled(flags.updated(disabled=left), tuple(sorted(lifted))))
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
        if other.spec.action is ActionType.EMERGENCY_DISABLE and other.creation_time >= action.creation_time:
            newer.update(other.spec.features or known_features(context))
    return frozenset(newer)


def _list(names: tuple[str, ...]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
