"""Gates: what must hold once, before the first phase, after each phase and after a rollback.

A metric is evaluated like a criterion; a Job is started once each time its stage is entered; an approval is given by an
action; HTTP requests and built-in checks are results from outside. All results are kept in `status.checks`.
"""

from datetime import datetime, timedelta
from typing import Final

from session_rollout.api.action import SessionRolloutAction
from session_rollout.api.checks import Gate
from session_rollout.api.enums import CheckKind, CheckReason, EventReason, Verdict
from session_rollout.api.status_records import CheckRecord
from session_rollout.core.clocks import covered_since, reach_of
from session_rollout.core.context import DecisionContext
from session_rollout.core.criteria import evaluate_check, keep
from session_rollout.core.evaluation import Evaluation
from session_rollout.core.inputs import current_gates
from session_rollout.core.naming import job_name
from session_rollout.core.observed import JobState, StartCheck
from session_rollout.core.outdated import reject_older

NOTHING: Final = timedelta(0)


def evaluate_gates(context: DecisionContext, gates: tuple[Gate, ...], kind: CheckKind) -> tuple[CheckRecord, ...]:
    """Evaluate gates; their records after this decision, in the order of the spec."""
    for gate in gates:
        before = context.check(kind, gate.name)
        _evaluate(context, gate, kind)
        after = context.check(kind, gate.name)
        if after.verdict is Verdict.FAIL and before.verdict is not Verdict.FAIL:
            context.record_event(EventReason.CHECK_FAILED, after.message, check=gate.name, job=after.job)
    return tuple(context.check(kind, gate.name) for gate in gates)


def _evaluate(context: DecisionContext, gate: Gate, kind: CheckKind) -> None:
    if gate.metric is not None:
        evaluate_check(context, gate, kind, _not_before(context, reach_of(context, gate.metric), kind))
    elif gate.job is not None:
        _evaluate_job(context, gate, kind)
    elif gate.approval is None:
        _take_result(context, gate, kind)
    elif context.check(kind, gate.name).time is None:
        _not_yet(context, gate, kind, CheckReason.AWAITING_APPROVAL, "requires manual approval")


def _not_yet(context: DecisionContext, gate: Gate, kind: CheckKind, reason: CheckReason, message: str) -> None:
    keep(context, kind, gate.name, Evaluation(Verdict.NOT_EVALUATED, reason, f"{gate.name}: {message}"))


def _not_before(context: DecisionContext, reach: timedelta, kind: CheckKind) -> datetime | None:
    """From when on a result that covers this much time counts. After a phase or a rollback, the query must not cover the time before it, nor an emergency.

    A preflight accepts the data that exists.
    """
    start, flags = context.current.stage_start_time, context.status.flags
    if start is None or kind is CheckKind.PREFLIGHT:
        return start
    if kind is CheckKind.VERIFICATION and flags.published_time is None:
        return None  # an emergency has just ended
    warm = covered_since(context, flags.given_time, reach) if flags.given_time is not None else start
    return max(warm, start + reach if kind is CheckKind.AFTER_ROLLBACK else start)


def void_gates(context: DecisionContext, kind: CheckKind) -> None:
    """An emergency turned off what these gates verify: all but approvals are judged again, and Jobs run again."""
    for record in context.checks_of(kind):
        if record.reason not in {CheckReason.APPROVED, CheckReason.AWAITING_APPROVAL}:
            attempt = record.attempt + 1 if record.job else record.attempt
            context.put_check(CheckRecord(name=record.name, kind=kind, attempt=attempt))


def _take_result(context: DecisionContext, gate: Gate, kind: CheckKind) -> None:
    result = context.observed.gates.get(gate.name)
    start = _not_before(context, result.reach if result is not None else NOTHING, kind)
    if result is None or start is None or result.time < start:
        if context.check(kind, gate.name).verdict is Verdict.NOT_EVALUATED:
            _not_yet(context, gate, kind, CheckReason.AWAITING_RESULT, "waiting for its result")
        return
    message = f"{gate.name}: {result.message}"
    keep(context, kind, gate.name, Evaluation(result.verdict, result.reason, message, result.value, result.bound))
    kept = context.check(kind, gate.name)
    if kept.verdict is not Verdict.PASS and (kept.reason, kept.value) != (result.reason, result.value):
        # It still does not pass, but for another reason: the record shows the newest one.
        context.put_check(kept.updated(reason=result.reason, value=result.value, message=message))


def _evaluate_job(context: DecisionContext, gate: Gate, kind: CheckKind) -> None:
    record = context.check(kind, gate.name)
    start = _not_before(context, NOTHING, kind)
    if record.job is None and start is not None and context.now < start:
        _not_yet(
            context,
            gate,
            kind,
            CheckReason.WARMING_UP,
            f"its Job starts at {start:%H:%M:%S} UTC, after `propagation`",
        )
        return
    if record.job is None:
        job, message = _job_name(context, record), f"{gate.name}: starting its Job"
        record = record.updated(job=job, reason=CheckReason.JOB_STARTED, message=message)
        context.put_check(record)
    if record.verdict is not Verdict.NOT_EVALUATED or gate.job is None or record.job is None:
        return
    observation = context.observed.jobs.get(record.job)
    match observation.state if observation is not None else JobState.MISSING:
        case JobState.MISSING:
            context.effects.append(StartCheck(record.job, gate.job.profile))
        case JobState.ACTIVE:
            _not_yet(context, gate, kind, CheckReason.JOB_RUNNING, f"Job {record.job} is running")
        case JobState.SUCCEEDED:
            message = f"{gate.name}: Job {record.job} succeeded"
            keep(context, kind, gate.name, Evaluation(Verdict.PASS, CheckReason.JOB_SUCCEEDED, message))
        case JobState.FAILED | JobState.FOREIGN:
            cause = observation.message if observation is not None else ""
            message = f"{gate.name}: Job {record.job} failed: {cause}"
            keep(context, kind, gate.name, Evaluation(Verdict.FAIL, CheckReason.JOB_FAILED, message))


def _job_name(context: DecisionContext, record: CheckRecord) -> str:
    """A new name each time the stage is entered and for each attempt."""
    start = context.current.stage_start_time
    identity = f"{record.kind}/{record.name}/{start and start.isoformat()}/{record.attempt}"
    return job_name(context.observed.rollout, record.name, identity)


def retry_checks(context: DecisionContext, action: SessionRolloutAction) -> bool:
    """Run the Jobs of failed checks again; whether there was one. Raises ActionRejected when one has failed since the action was created."""
    failures = [record for record in context.status.checks if record.job and record.verdict is Verdict.FAIL]
    for record in failures:
        reject_older(context, action, record.time, f"{record.name} failed")
        context.put_check(CheckRecord(name=record.name, kind=record.kind, attempt=record.attempt + 1))
    return bool(failures)


def verify_rollback(context: DecisionContext) -> None:
    """Evaluate what must hold after a rollback, which has ended already and waits for none of this."""
    _, gates = current_gates(context.rollout)
    if not gates:
        return
    records = evaluate_gates(context, gates, CheckKind.AFTER_ROLLBACK)
    if all(record.verdict is Verdict.PASS for record in records):
        context.record_event(EventReason.ROLLBACK_VERIFIED, f"{len(records)} checks pass after the rollback")
