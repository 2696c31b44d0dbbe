"""Telling why: the decision record, the conditions that kstatus, `kubectl wait` and GitOps tools read, and the size budget."""

import hashlib
import json
from typing import Final

from session_rollout.api.enums import Condition, DecisionAction, MigrationState, Outcome, Stage, Verdict
from session_rollout.api.status import DETAILS_LENGTH, DecisionRecord, MetaCondition, RolloutStatus
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.criteria import missing_evidence
from session_rollout.core.inputs import RUNNING
from session_rollout.core.migration_jobs import in_words
from session_rollout.core.notifications import standing

LIMIT_BYTES: Final = 32 * 1024
TRUE, FALSE, UNKNOWN = "True", "False", "Unknown"


def report(context: DecisionContext, result: StageResult, problems: tuple[str, ...]) -> None:
    """Write the decision and the conditions."""
    context.change(
        decision=DecisionRecord(
            action=result.action,
            message=result.message[:120],
            details=tuple(text[:512] for text in result.details[:DETAILS_LENGTH]),
            next_actions=tuple(text[:512] for text in result.next_actions[:DETAILS_LENGTH]),
            approvals=result.approvals[:DETAILS_LENGTH],
            next_time=result.next_time,
            inputs=_inputs(context),
        )
    )
    context.change(progress="; ".join(in_words(one) for one in context.status.migrations if one.state in RUNNING)[:120])
    for kind, status, reason, message in _conditions(context, result, problems):
        _set(context, kind, status, reason, message)


def _inputs(context: DecisionContext) -> str:
    """Fingerprint of what the decision rested on."""
    status = context.status
    parts = [
        status.observed_generation,
        status.current.to_wire(),
        [(one.kind, one.name, one.verdict) for one in status.checks],
        [(one.name, one.state) for one in status.migrations],
        status.flags.sha256,
        status.paused_by,
        context.spec.suspend,
    ]
    return "sha256:" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


_Row = tuple[Condition, str, str, str]


def _conditions(context: DecisionContext, result: StageResult, problems: tuple[str, ...]) -> list[_Row]:
    status = context.status
    bad_end = status.outcome in {Outcome.ROLLED_BACK, Outcome.ABORTED}
    stalled = result.action is DecisionAction.STALL or bad_end
    done = status.outcome is Outcome.PROMOTED
    reason = str(status.outcome or result.action)
    ready = TRUE if done and not stalled else FALSE if stalled else UNKNOWN
    return [
        (Condition.READY, ready, reason, result.message),
        (Condition.RECONCILING, _truth(yes=not (stalled or done)), reason, result.message),
        (Condition.STALLED, _truth(yes=stalled), reason, result.message if stalled else "goes on by itself"),
        (Condition.SPEC_VALID, *_spec_valid(problems)),
        (Condition.MIGRATIONS_APPLIED, *_migrations_applied(context)),
        (Condition.EVIDENCE_AVAILABLE, *_evidence_available(context)),
        (Condition.PAUSED, *_paused(context)),
        (Condition.ROLLED_BACK, *_rolled_back(context)),
        (Condition.NOTIFIED, *standing(context)),
    ]


def _truth(*, yes: bool) -> str:
    return TRUE if yes else FALSE


def _spec_valid(problems: tuple[str, ...]) -> tuple[str, str, str]:
    return (FALSE, "Invalid", "; ".join(problems)) if problems else (TRUE, "Valid", "the programme can be carried out")


def _migrations_applied(context: DecisionContext) -> tuple[str, str, str]:
    states = {record.name: record.state for record in context.status.migrations}
    failed = [name for name, state in states.items() if state is MigrationState.FAILED]
    missing = [one.name for one in context.spec.migrations if states.get(one.name) is not MigrationState.SUCCEEDED]
    if failed:
        return FALSE, "Failed", f"failed: {', '.join(failed)}"
    if missing:
        return UNKNOWN, "Pending", f"not applied yet: {', '.join(missing)}"
    return TRUE, "Applied", "every migration is applied" if states else "none is declared"


def _evidence_available(context: DecisionContext) -> tuple[str, str, str]:
    missing = missing_evidence(context)
    if context.current.stage not in {Stage.STEP, Stage.BAKE}:
        return UNKNOWN, "NothingToJudge", f"in {context.current.stage}"
    warming = all(one.verdict in {Verdict.NOT_EVALUATED, Verdict.PASS, Verdict.FAIL} for one in context.status.checks)
    if missing and warming:
        return UNKNOWN, "WarmingUp", "the first verdicts are awaited"
    return (FALSE, "Missing", "; ".join(missing)) if missing else (TRUE, "Available", "every criterion has a verdict")


def _paused(context: DecisionContext) -> tuple[str, str, str]:
    if context.spec.suspend:
        return TRUE, "Suspended", "`spec.suspend` is true"
    by = context.status.paused_by
    return (TRUE, "Paused", f"by {by}") if by else (FALSE, "Running", "nobody paused it")


def _rolled_back(context: DecisionContext) -> tuple[str, str, str]:
    because = "; ".join(context.current.rollback_reasons) or "no rollback"
    if context.status.outcome in {Outcome.ROLLED_BACK, Outcome.ABORTED}:
        return TRUE, str(context.status.outcome), because
    if context.current.stage is Stage.ROLLING_BACK:
        return UNKNOWN, "RollingBack", because
    return FALSE, "NotRolledBack", because


def _set(context: DecisionContext, kind: Condition, status: str, reason: str, message: str) -> None:
    before = next((one for one in context.status.conditions if one.type == kind), None)
    moved = before is None or before.status != status
    fresh = MetaCondition(
        type=kind,
        status=status,
        observed_generation=context.status.observed_generation,
        last_transition_time=context.now if before is None or moved else before.last_transition_time,
        reason=reason,
        message=message[:512],
    )
    others = [one for one in context.status.conditions if one.type != kind]
    order = list(Condition)
    context.change(conditions=tuple(sorted([*others, fresh], key=lambda one: order.index(Condition(one.type)))))


def fit(status: RolloutStatus) -> RolloutStatus:
    """The status within its budget: old history goes first, then long sentences. Positions and times are never cut."""
    for keep, length in ((20, 512), (10, 200), (5, 100), (2, 60), (1, 24)):
        cut = _cut(status, keep, length)
        if len(json.dumps(cut.to_wire())) <= LIMIT_BYTES:
            return cut
    return cut


def _cut(status: RolloutStatus, keep: int, length: int) -> RolloutStatus:
    history = tuple(one.model_copy(update={"message": one.message[:length]}) for one in status.history[-keep:])
    disabled = tuple(one.model_copy(update={"reason": one.reason[:length]}) for one in status.flags.disabled)
    return status.model_copy(
        update={
            "history": history,
            "flags": status.flags.model_copy(update={"disabled": disabled}),
            "pendingNotifications": tuple(one.model_copy(update={"message": one.message[:length]}) for one in status.pending_notifications),
            "checks": tuple(one.model_copy(update={"message": one.message[:length]}) for one in status.checks),
            "migrations": tuple(one.model_copy(update={"message": one.message[:length]}) for one in status.migrations),
            "conditions": tuple(one.model_copy(update={"message": one.message[:length]}) for one in status.conditions),
        }
    )
