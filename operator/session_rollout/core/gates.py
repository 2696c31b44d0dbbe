"""Gates: what must hold once, before the first phase, after each phase and after a rollback.

A metric is judged like a criterion; a Job is started once for each time its stage is entered; an approval is what an
action left; HTTP requests and built-in checks come examined from outside. Their results stay in `status.checks`.
"""

from datetime import datetime

from session_rollout.api.checks import Gate
from session_rollout.api.enums import EventReason, Verdict
from session_rollout.api.status import CheckRecord
from session_rollout.core.context import DecisionContext
from session_rollout.core.criteria import MESSAGE_LENGTH, after_range, judge_check, keep
from session_rollout.core.evaluation import Finding
from session_rollout.core.inputs import AFTER_ROLLBACK, gates_now, job_name
from session_rollout.core.observed import JobState, StartCheck


def judge_gates(context: DecisionContext, gates: tuple[Gate, ...], kind: str) -> tuple[CheckRecord, ...]:
    """Judge gates; their records after this look, in the order of the spec."""
    for gate in gates:
        before = context.check(kind, gate.name)
        _judge(context, gate, kind)
        after = context.check(kind, gate.name)
        if after.verdict is Verdict.FAIL and before.verdict is not Verdict.FAIL:
            context.tell(EventReason.CHECK_FAILED, after.message)
    return tuple(context.check(kind, gate.name) for gate in gates)


def _judge(context: DecisionContext, gate: Gate, kind: str) -> None:
    if gate.metric is not None:
        judge_check(context, gate, kind, _not_before(context, gate.metric, kind))
    elif gate.job is not None:
        _judge_job(context, gate, kind)
    elif gate.approval is None:
        _take_over(context, gate, kind)
    elif context.check(kind, gate.name).time is None:
        keep(context, kind, gate.name, Finding(Verdict.NOT_EVALUATED, f"{gate.name}: waits for an approval"), None)


def _not_before(context: DecisionContext, metric: str, kind: str) -> datetime | None:
    """After a rollback the query's window must hold no data of before; elsewhere the window is what is asked about."""
    return after_range(context, metric, context.current.stage_start_time) if kind == AFTER_ROLLBACK else context.current.stage_start_time


def _take_over(context: DecisionContext, gate: Gate, kind: str) -> None:
    seen, since = context.observed.gates.get(gate.name), context.current.stage_start_time
    if seen is None or since is None or seen.time < since:
        if context.check(kind, gate.name).verdict is Verdict.NOT_EVALUATED:
            keep(context, kind, gate.name, Finding(Verdict.NOT_EVALUATED, f"{gate.name}: is being asked"), None)
        return
    finding = Finding(seen.verdict, f"{gate.name}: {seen.message}", value=seen.value, bound=seen.bound)
    keep(context, kind, gate.name, finding, None)
    kept = context.check(kind, gate.name)
    if kept.verdict is not Verdict.PASS and kept.message != finding.message[:MESSAGE_LENGTH]:  # it fails in another way now
        context.put_check(kept.model_copy(update={"message": finding.message[:MESSAGE_LENGTH], "value": finding.value}))


def _judge_job(context: DecisionContext, gate: Gate, kind: str) -> None:
    record = context.check(kind, gate.name)
    if record.job is None:
        record = record.model_copy(update={"job": _job_name(context, record), "message": f"{gate.name}: its Job is started"})
        context.put_check(record)
    if record.verdict is not Verdict.NOT_EVALUATED or gate.job is None:
        return
    seen = context.observed.jobs.get(record.job or "")
    match seen.state if seen is not None else JobState.MISSING:
        case JobState.MISSING:
            context.effects.append(StartCheck(record.job or "", gate.job.profile))
        case JobState.ACTIVE:
            keep(context, kind, gate.name, Finding(Verdict.NOT_EVALUATED, f"{gate.name}: Job {record.job} runs"), None)
        case JobState.SUCCEEDED:
            keep(context, kind, gate.name, Finding(Verdict.PASS, f"{gate.name}: Job {record.job} succeeded"), None)
        case JobState.FAILED | JobState.FOREIGN:
            said = seen.message if seen is not None else ""
            keep(context, kind, gate.name, Finding(Verdict.FAIL, f"{gate.name}: Job {record.job} failed: {said}"), None)


def _job_name(context: DecisionContext, record: CheckRecord) -> str:
    """Another one for each time the stage is entered and for each attempt."""
    since = context.current.stage_start_time
    identity = f"{record.kind}/{record.name}/{since and since.isoformat()}/{record.attempt}"
    return job_name(context.observed.rollout, record.name, identity)


def retry_checks(context: DecisionContext) -> bool:
    """Let the Jobs of failed checks run again; whether there was one."""
    failures = [one for one in context.status.checks if one.job and one.verdict is Verdict.FAIL]
    for one in failures:
        context.put_check(CheckRecord(name=one.name, kind=one.kind, attempt=one.attempt + 1))
    return bool(failures)


def verify_rollback(context: DecisionContext) -> None:
    """Judge what must hold after a rollback; it has ended already, and waits for none of this."""
    _, gates = gates_now(context.rollout)
    if not gates:
        return
    records = judge_gates(context, gates, AFTER_ROLLBACK)
    if all(record.verdict is Verdict.PASS for record in records):
        context.tell(EventReason.ROLLBACK_VERIFIED, f"{len(records)} checks after the rollback pass")
