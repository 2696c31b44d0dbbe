"""Emergencies: features that are off for all users, from an `EmergencyDisable` action until an `EmergencyEnable` action."""

from typing import Final

from session_rollout.api.action import SessionRolloutAction
from session_rollout.api.enums import ActionReason, EventReason
from session_rollout.api.protection import Protection, ProtectionKind
from session_rollout.api.status_records import settled
from session_rollout.core.context import DecisionContext
from session_rollout.core.publication import disable, foreign_document, own_document
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
        features=names,
    )
    disable(context, emergency)
    text = f"{_list(names)} disabled for all users"
    context.record_event(EventReason.FLAGS_DISABLED, f"{text}: {action.spec.reason}", by=action.name)
    return text


def known_features(context: DecisionContext) -> tuple[str, ...]:
    """Features of the spec, and those that are published although they have left it."""
    document = own_document(context)
    names = [feature.name for feature in context.spec.features]
    names += [name for record in context.status.phases for name in record.features]
    names += document.audiences if document is not None else ()
    return tuple(dict.fromkeys(names))


def emergency_enable(context: DecisionContext, action: SessionRolloutAction) -> str:
    """Let features follow the rollout again. Raises ActionRejected."""
    flags = context.status.flags
    names = _features(action, tuple(record.feature for record in flags.disabled), "disabled")
    if not names:
        raise ActionRejected(ActionReason.NOTHING_DISABLED, "no feature is disabled")
    left = tuple(record for record in flags.disabled if record.feature not in names)
    lifted = {record.uid for record in flags.disabled if record.uid} - {record.uid for record in left}
    context.change(flags=settled(flags.updated(disabled=left), tuple(sorted(lifted))))
    text = f"{_list(names)} restored to the rollout's current audience"
    context.record_event(EventReason.FLAGS_ENABLED, f"{text}: {action.spec.reason}", by=action.name)
    return text


def _list(names: tuple[str, ...]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
