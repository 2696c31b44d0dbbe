"""The decision record and the conditions that kstatus, `kubectl wait` and GitOps tools read."""

import json
from datetime import datetime
from typing import Final

from session_rollout.api.base import SENTENCES, sha256_of
from session_rollout.api.enums import (
    Condition,
    ConditionReason,
    DecisionAction,
    DecisionReason,
    Outcome,
    Stage,
    State,
)
from session_rollout.api.flag_records import DisabledFeature
from session_rollout.api.migration_enums import MigrationState
from session_rollout.api.status import DecisionRecord, MetaCondition, RolloutStatus
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.flags import NOBODY, of_users
from session_rollout.core.hold import missing_checks
from session_rollout.core.holdback import users_text
from session_rollout.core.inputs import RUNNING, UNDONE, guards_are_judged, published_phases
from session_rollout.core.migration_jobs import is_up, summary
from session_rollout.core.notifications import notified_condition
from session_rollout.core.rollback import refused_rollback
from session_rollout.core.steps import audience_text

TRUE, FALSE, UNKNOWN = "True", "False", "Unknown"
_STATES: Final = {Outcome.PROMOTED: State.PROMOTED, Outcome.ROLLED_BACK: State.ROLLED_BACK, Outcome.ABORTED: State.ABORTED}

NOT_EVALUATING: Final = frozenset({DecisionReason.INTERNAL_ERROR, DecisionReason.UNPARSABLE})

_Status = tuple[str, str, str]  # status, reason, message


def write_decision(context: DecisionContext, result: StageResult, problems: tuple[str, ...]) -> None:
    """Write the decision, the state and the conditions."""
    running = (record for record in context.status.migrations if record.state in RUNNING)
    _note_pending(context)
    _show_audience(context)
    context.change(
        decision=DecisionRecord(
            action=result.action,
            reason=result.reason,
            message=_message(context, result),
            details=_details(context, result),
            next_actions=result.next_actions,
            approvals=result.approvals,
            next_time=_ahead(context, result),
            inputs=_inputs(context),
        ),
        state=_state(context, result),
        progress="; ".join(summary(record) for record in running),
    )
    # A spec that cannot be parsed is not adopted, so that the operator which can parse it does; conditions speak of it all the same.
    unparsed = result.reason is DecisionReason.UNPARSABLE
    generation = context.observed.rollout.generation if unparsed else context.status.observed_generation
    context.change(
        conditions=tuple(
            _condition(context, condition, generation, *standing)
            for condition, standing in _conditions(context, result, problems).items()
        )
    )


def _ahead(context: DecisionContext, result: StageResult) -> datetime | None:
    """When what is awaited ends; None when nobody knows. A decision that is repeated may have a time that is over."""
    return result.next_time if result.next_time is not None and result.next_time > context.now else None


def repeat_decision(context: DecisionContext) -> StageResult:
    """The decision that stands in status, without what `write_decision` has added to it about emergencies."""
    before = context.observed.rollout.status
    last = before.decision
    added = last.updated(details=_emergency_texts(before, context.still_off)).details  # as they are in a status
    details = tuple(text for text in last.details if text not in added)
    message = last.message.removeprefix(_emergency_prefix(before, context.still_off, last.reason))
    return StageResult(last.action, last.reason, message, details, last.next_actions, last.next_time, last.approvals)


def _message(context: DecisionContext, result: StageResult) -> str:
    """The message of the decision; an emergency is part of it, whatever the rollout does."""
    left = refused_rollback(context)
    rollback = f"ROLLBACK NOT IN FORCE: {_and_more(sorted(left))} still on; " if left else ""
    return _emergency_prefix(context.status, context.still_off, result.reason) + rollback + result.message


def _details(context: DecisionContext, result: StageResult) -> tuple[str, ...]:
    """The causes, what a rollback has not taken away, and the emergencies."""
    left, own = _not_in_force(context), result.details
    if left:
        own = (left, *(cause for cause in context.current.rollback_reasons if cause not in own), *own)
    return (*own[: SENTENCES - 1], *emergency_texts(context))


def _not_in_force(context: DecisionContext) -> str | None:
    names = refused_rollback(context)
    return (
        f"{', '.join(names)} still on in the flag document, which could not be written since the rollback began"
        if names
        else None
    )


def _show_audience(context: DecisionContext) -> None:
    """The AUDIENCE column is what users have while a rollback is not in force."""
    left, document, current = refused_rollback(context), context.document, context.current
    if current.stage is not Stage.ROLLING_BACK:
        return
    given = [
        document.audiences.get(name) if document is not None else None for name in left if name in context.running_features
    ]
    most = max((audience for audience in given if audience is not None), key=lambda audience: audience.percent, default=None)
    shown = users_text(most) if most is not None else audience_text(current.percent, current.groups)
    if current.audience != shown:
        context.change(current=current.updated(audience=shown))


def _note_pending(context: DecisionContext) -> None:
    """Whoever reads the status must not think that users have lost what the document still gives them.

    That of an emergency of this decision is written before the status. Applications keep what a deleted document gave.
    """
    document, disabled = context.document, context.status.flags.disabled
    known = {record.feature for record in context.observed.rollout.status.flags.disabled}
    audiences = of_users(document.audiences) if document is not None else {}
    deleted = document is None and context.status.flags.given_time is not None
    given = known if deleted else {name for name, audience in audiences.items() if audience != NOBODY and name in known}
    noted = tuple(
        record.updated(pending=on) if record.pending is not (on := record.feature in given) else record for record in disabled
    )
    if noted != disabled:
        context.change(flags=context.status.flags.updated(disabled=noted))


def _emergency_prefix(status: RolloutStatus, still_off: tuple[str, ...], reason: DecisionReason) -> str:
    """What is not in force comes first. `FeatureDisabled` says itself what is off."""
    unknown = [record.feature for record in status.flags.unknown]
    wrong = (
        f"EMERGENCY NOT IN FORCE: {_and_more(unknown)} {'is not a feature' if len(unknown) == 1 else 'are not features'}; "
        if unknown
        else ""
    )
    if pending := _pending(status):
        return f"{wrong}EMERGENCY NOT IN FORCE: {_and_more(pending)} still on; "
    if reason is DecisionReason.FEATURE_DISABLED:
        return wrong
    names = sorted({*(record.feature for record in status.flags.disabled), *still_off})
    return wrong + (f"EMERGENCY: {_and_more(names)} off for all users; " if names else "")


def _pending(status: RolloutStatus) -> list[str]:
    """Features whose emergency is not in force."""
    return sorted(record.feature for record in status.flags.disabled if record.pending)


def _and_more(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def emergency_texts(context: DecisionContext) -> tuple[str, ...]:
    """A sentence for each emergency that is in force, and one for those that were lifted in the status alone."""
    return _emergency_texts(context.status, context.still_off)


def _emergency_texts(status: RolloutStatus, still_off: tuple[str, ...]) -> tuple[str, ...]:
    by_action: dict[str, list[DisabledFeature]] = {}
    for record in status.flags.disabled:
        by_action.setdefault(record.by, []).append(record)
    names = ", ".join(still_off)
    lifted = (f"{names} still off for all users: the flag document of the EmergencyEnable is not published",)
    pending = _pending(status)
    not_yet = (f"{', '.join(pending)} still on in the flag document, which could not be written since",)
    in_force = tuple(
        f"{', '.join(record.feature for record in records)} disabled for all users by {by} since {records[0].time:%Y-%m-%d %H:%M} UTC:"
        f" {records[0].reason}"
        for by, records in by_action.items()
    )
    return _unknown_texts(status) + (not_yet if pending else ()) + in_force + (lifted if still_off else ())


def _unknown_texts(status: RolloutStatus) -> tuple[str, ...]:
    names = ", ".join(record.feature for record in status.flags.unknown)
    by = ", ".join(dict.fromkeys(record.by for record in status.flags.unknown))
    text = f"{names} not turned off by {by}: no such feature in the spec or in the flag document; name the right one in another action"
    return (text,) if names else ()


def _emergency_active(context: DecisionContext) -> _Status:
    texts = emergency_texts(context)
    if not texts:
        return FALSE, ConditionReason.NO_EMERGENCY, "no feature is disabled in an emergency"
    flags = context.status.flags
    failed = _pending(context.status) or flags.unknown
    return (
        TRUE if flags.disabled or context.still_off else FALSE,
        ConditionReason.NOT_IN_FORCE if failed else ConditionReason.FEATURES_DISABLED,
        "; ".join(texts),
    )


def _state(context: DecisionContext, result: StageResult) -> State:
    if context.status.outcome is not None:
        return _STATES[context.status.outcome]
    return {DecisionAction.STALL: State.STALLED, DecisionAction.PAUSE: State.PAUSED}.get(result.action, State.PROGRESSING)


def _inputs(context: DecisionContext) -> str:
    """Fingerprint of what the decision rested on."""
    status = context.status
    parts = [
        status.observed_generation,
        status.current.to_wire(),
        [(record.kind, record.name, record.verdict) for record in status.checks],
        [(record.name, record.state) for record in status.migrations],
        status.flags.sha256,
        status.paused_by,
        context.spec.suspend,
    ]
    return sha256_of(json.dumps(parts, sort_keys=True))


def _conditions(context: DecisionContext, result: StageResult, problems: tuple[str, ...]) -> dict[Condition, _Status]:
    stalled = result.action is DecisionAction.STALL or context.status.outcome in UNDONE
    done = context.status.outcome is Outcome.PROMOTED
    ready = FALSE if stalled else TRUE if done else UNKNOWN
    cause = (str(result.reason), result.message)
    moving = (str(ConditionReason.PROGRESSING), "the rollout is not stalled, rolled back or aborted")
    return {
        Condition.READY: (ready, *cause),
        Condition.RECONCILING: (FALSE if stalled or done else TRUE, *cause),
        Condition.STALLED: (TRUE, *cause) if stalled else (FALSE, *moving),
        Condition.SPEC_VALID: _spec_valid(problems),
        Condition.MIGRATIONS_APPLIED: _migrations_applied(context),
        Condition.EVIDENCE_AVAILABLE: _evidence_available(context, result),
        Condition.PAUSED: _paused(context),
        Condition.ROLLED_BACK: _rolled_back(context),
        Condition.EMERGENCY_ACTIVE: _emergency_active(context),
        Condition.NOTIFIED: notified_condition(context.observed),
    }


def _spec_valid(problems: tuple[str, ...]) -> _Status:
    if problems:
        return FALSE, ConditionReason.INVALID, "; ".join(problems)
    return TRUE, ConditionReason.VALID, "the spec is valid"


def _migrations_applied(context: DecisionContext) -> _Status:
    names = [migration.name for migration in context.spec.migrations]
    failed = [record.name for record in context.status.migrations if record.state is MigrationState.FAILED]
    missing = [name for name in names if not is_up(context.spec, context.migration(name))]
    if failed:
        return FALSE, ConditionReason.FAILED, f"failed: {', '.join(failed)}"
    if missing:
        return UNKNOWN, ConditionReason.PENDING, f"not applied yet: {', '.join(missing)}"
    message = "every migration is applied" if names else "the rollout has no migrations"
    return TRUE, ConditionReason.APPLIED, message


def _evidence_available(context: DecisionContext, result: StageResult) -> _Status:
    if result.reason in NOT_EVALUATING:
        return UNKNOWN, ConditionReason.NOTHING_TO_EVALUATE, "the operator evaluates neither criteria nor guards"
    missing, stage = missing_checks(context), context.current.stage
    guarded = guards_are_judged(context.rollout) and published_phases(context.status) and context.spec.guards
    if stage not in {Stage.STEP, Stage.BAKE} and not guarded:
        return UNKNOWN, ConditionReason.NOTHING_TO_EVALUATE, f"evidence is not evaluated in stage {stage}"
    if missing and all(check.warming_up for check in missing):
        return UNKNOWN, ConditionReason.WARMING_UP, "waiting for the first verdicts of criteria and guards"
    if missing:
        return FALSE, ConditionReason.MISSING, "; ".join(check.message for check in missing if not check.warming_up)
    return TRUE, ConditionReason.AVAILABLE, "every criterion and guard has a verdict"


def _paused(context: DecisionContext) -> _Status:
    if context.spec.suspend:
        return TRUE, ConditionReason.SUSPENDED, "`spec.suspend` is true"
    if context.status.paused_by:
        return TRUE, ConditionReason.PAUSED, context.pause_text
    return FALSE, ConditionReason.NOT_PAUSED, "not paused"


def _rolled_back(context: DecisionContext) -> _Status:
    causes = "; ".join(context.current.rollback_reasons)
    if context.status.outcome is Outcome.ROLLED_BACK:
        return TRUE, ConditionReason.ROLLED_BACK, causes
    if context.status.outcome is Outcome.ABORTED:
        return TRUE, ConditionReason.ABORTED, causes
    if left := _not_in_force(context):
        return UNKNOWN, ConditionReason.NOT_IN_FORCE, f"{left}: {causes}"
    if context.current.stage is Stage.ROLLING_BACK:
        return UNKNOWN, ConditionReason.ROLLING_BACK, causes
    return FALSE, ConditionReason.NOT_ROLLED_BACK, "not rolled back"


def _condition(
    context: DecisionContext, condition: Condition, generation: int, status: str, reason: str, message: str
) -> MetaCondition:
    """The condition; its transition time moves only when its status changes."""
    before = next((known for known in context.status.conditions if known.type == condition), None)
    unchanged = before is not None and before.status == status
    return MetaCondition(
        type=condition,
        status=status,
        observed_generation=generation,
        last_transition_time=before.last_transition_time if before is not None and unchanged else context.now,
        reason=reason,
        message=message,
    )
