"""Telling why: the decision record, the conditions that kstatus, `kubectl wait` and GitOps tools read, and the size budget."""

import hashlib
import json
from typing import Final

from session_rollout.api.reasons import Condition, DecisionAction, MigrationState, Outcome, Stage, Verdict
from session_rollout.api.status import BECAUSE_LENGTH, DecisionRecord, MetaCondition, RolloutStatus
from session_rollout.core.draft import Draft, Ruling
from session_rollout.core.judge import missing_evidence
from session_rollout.core.migrate import in_words
from session_rollout.core.outbox import standing
from session_rollout.core.plan import RUNNING

LIMIT_BYTES: Final = 32 * 1024
TRUE, FALSE, UNKNOWN = "True", "False", "Unknown"


def report(draft: Draft, ruling: Ruling, problems: tuple[str, ...]) -> None:
    """Write the decision and the conditions."""
    draft.change(
        decision=DecisionRecord(
            action=ruling.action,
            why=ruling.why[:120],
            because=tuple(text[:512] for text in ruling.because[:BECAUSE_LENGTH]),
            unblocked_by=tuple(text[:512] for text in ruling.unblocked_by[:BECAUSE_LENGTH]),
            approvals=ruling.approvals[:BECAUSE_LENGTH],
            next_time=ruling.next_time,
            inputs=_inputs(draft),
        )
    )
    draft.change(progress="; ".join(in_words(one) for one in draft.status.migrations if one.state in RUNNING)[:120])
    for kind, status, reason, message in _conditions(draft, ruling, problems):
        _set(draft, kind, status, reason, message)


def _inputs(draft: Draft) -> str:
    """Fingerprint of what the decision rested on."""
    status = draft.status
    parts = [
        status.observed_generation,
        status.current.to_wire(),
        [(one.kind, one.name, one.verdict) for one in status.checks],
        [(one.name, one.state) for one in status.migrations],
        status.flags.sha256,
        status.paused_by,
        draft.spec.suspend,
    ]
    return "sha256:" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


_Row = tuple[Condition, str, str, str]


def _conditions(draft: Draft, ruling: Ruling, problems: tuple[str, ...]) -> list[_Row]:
    status = draft.status
    bad_end = status.outcome in {Outcome.ROLLED_BACK, Outcome.ABORTED}
    stalled = ruling.action is DecisionAction.STALL or bad_end
    done = status.outcome is Outcome.PROMOTED
    reason = str(status.outcome or ruling.action)
    ready = TRUE if done and not stalled else FALSE if stalled else UNKNOWN
    return [
        (Condition.READY, ready, reason, ruling.why),
        (Condition.RECONCILING, _truth(yes=not (stalled or done)), reason, ruling.why),
        (Condition.STALLED, _truth(yes=stalled), reason, ruling.why if stalled else "goes on by itself"),
        (Condition.SPEC_VALID, *_spec_valid(problems)),
        (Condition.MIGRATIONS_APPLIED, *_migrations_applied(draft)),
        (Condition.EVIDENCE_AVAILABLE, *_evidence_available(draft)),
        (Condition.PAUSED, *_paused(draft)),
        (Condition.ROLLED_BACK, *_rolled_back(draft)),
        (Condition.NOTIFIED, *standing(draft)),
    ]


def _truth(*, yes: bool) -> str:
    return TRUE if yes else FALSE


def _spec_valid(problems: tuple[str, ...]) -> tuple[str, str, str]:
    return (FALSE, "Invalid", "; ".join(problems)) if problems else (TRUE, "Valid", "the programme can be carried out")


def _migrations_applied(draft: Draft) -> tuple[str, str, str]:
    states = {record.name: record.state for record in draft.status.migrations}
    failed = [name for name, state in states.items() if state is MigrationState.FAILED]
    missing = [one.name for one in draft.spec.migrations if states.get(one.name) is not MigrationState.SUCCEEDED]
    if failed:
        return FALSE, "Failed", f"failed: {', '.join(failed)}"
    if missing:
        return UNKNOWN, "Pending", f"not applied yet: {', '.join(missing)}"
    return TRUE, "Applied", "every migration is applied" if states else "none is declared"


def _evidence_available(draft: Draft) -> tuple[str, str, str]:
    missing = missing_evidence(draft)
    if draft.current.stage not in {Stage.STEP, Stage.BAKE}:
        return UNKNOWN, "NothingToJudge", f"in {draft.current.stage}"
    warming = all(one.verdict in {Verdict.NOT_EVALUATED, Verdict.PASS, Verdict.FAIL} for one in draft.status.checks)
    if missing and warming:
        return UNKNOWN, "WarmingUp", "the first verdicts are awaited"
    return (FALSE, "Missing", "; ".join(missing)) if missing else (TRUE, "Available", "every criterion has a verdict")


def _paused(draft: Draft) -> tuple[str, str, str]:
    if draft.spec.suspend:
        return TRUE, "Suspended", "`spec.suspend` is true"
    by = draft.status.paused_by
    return (TRUE, "Paused", f"by {by}") if by else (FALSE, "Running", "nobody paused it")


def _rolled_back(draft: Draft) -> tuple[str, str, str]:
    because = "; ".join(draft.current.ending_because) or "no rollback"
    if draft.status.outcome in {Outcome.ROLLED_BACK, Outcome.ABORTED}:
        return TRUE, str(draft.status.outcome), because
    if draft.current.stage is Stage.ROLLING_BACK:
        return UNKNOWN, "RollingBack", because
    return FALSE, "NotRolledBack", because


def _set(draft: Draft, kind: Condition, status: str, reason: str, message: str) -> None:
    before = next((one for one in draft.status.conditions if one.type == kind), None)
    moved = before is None or before.status != status
    fresh = MetaCondition(
        type=kind,
        status=status,
        observed_generation=draft.status.observed_generation,
        last_transition_time=draft.now if before is None or moved else before.last_transition_time,
        reason=reason,
        message=message[:512],
    )
    others = [one for one in draft.status.conditions if one.type != kind]
    order = list(Condition)
    draft.change(conditions=tuple(sorted([*others, fresh], key=lambda one: order.index(Condition(one.type)))))


def fit(status: RolloutStatus) -> RolloutStatus:
    """The status within its budget: old history goes first, then long sentences. Positions and times are never cut."""
    for keep, length in ((20, 512), (10, 200), (5, 100), (2, 60), (1, 24)):
        cut = _cut(status, keep, length)
        if len(json.dumps(cut.to_wire())) <= LIMIT_BYTES:
            return cut
    return cut


def _cut(status: RolloutStatus, keep: int, length: int) -> RolloutStatus:
    history = tuple(one.model_copy(update={"because": one.because[:length]}) for one in status.history[-keep:])
    disabled = tuple(one.model_copy(update={"reason": one.reason[:length]}) for one in status.flags.disabled)
    return status.model_copy(
        update={
            "history": history,
            "flags": status.flags.model_copy(update={"disabled": disabled}),
            "outbox": tuple(one.model_copy(update={"message": one.message[:length]}) for one in status.outbox),
            "checks": tuple(one.model_copy(update={"message": one.message[:length]}) for one in status.checks),
            "migrations": tuple(one.model_copy(update={"message": one.message[:length]}) for one in status.migrations),
            "conditions": tuple(one.model_copy(update={"message": one.message[:length]}) for one in status.conditions),
        }
    )
