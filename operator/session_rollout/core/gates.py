"""Gates: what must hold once, before the first phase, after each phase and after a rollback.

A metric is judged like a criterion; a Job is started once for each time its stage is entered; an approval is what an
action left; HTTP requests and built-in checks come examined from outside. Their results stay in `status.checks`.
"""

from datetime import datetime

from session_rollout.api.checks import Gate
from session_rollout.api.reasons import EventReason, Verdict
from session_rollout.api.status import CheckRecord
from session_rollout.core.checks import Finding
from session_rollout.core.draft import Draft
from session_rollout.core.judge import MESSAGE_LENGTH, after_range, judge_check, keep
from session_rollout.core.observed import JobState, StartCheck
from session_rollout.core.plan import AFTER_ROLLBACK, gates_now, job_name


def judge_gates(draft: Draft, gates: tuple[Gate, ...], kind: str) -> tuple[CheckRecord, ...]:
    """Judge gates; their records after this look, in the order of the spec."""
    for gate in gates:
        before = draft.check(kind, gate.name)
        _judge(draft, gate, kind)
        after = draft.check(kind, gate.name)
        if after.verdict is Verdict.FAIL and before.verdict is not Verdict.FAIL:
            draft.tell(EventReason.CHECK_FAILED, after.message)
    return tuple(draft.check(kind, gate.name) for gate in gates)


def _judge(draft: Draft, gate: Gate, kind: str) -> None:
    if gate.metric is not None:
        judge_check(draft, gate, kind, _not_before(draft, gate.metric, kind))
    elif gate.job is not None:
        _judge_job(draft, gate, kind)
    elif gate.approval is None:
        _take_over(draft, gate, kind)
    elif draft.check(kind, gate.name).time is None:
        keep(draft, kind, gate.name, Finding(Verdict.NOT_EVALUATED, f"{gate.name}: waits for an approval"), None)


def _not_before(draft: Draft, metric: str, kind: str) -> datetime | None:
    """After a rollback the query's window must hold no data of before; elsewhere the window is what is asked about."""
    return after_range(draft, metric, draft.current.since) if kind == AFTER_ROLLBACK else draft.current.since


def _take_over(draft: Draft, gate: Gate, kind: str) -> None:
    seen, since = draft.observed.gates.get(gate.name), draft.current.since
    if seen is None or since is None or seen.time < since:
        if draft.check(kind, gate.name).verdict is Verdict.NOT_EVALUATED:
            keep(draft, kind, gate.name, Finding(Verdict.NOT_EVALUATED, f"{gate.name}: is being asked"), None)
        return
    finding = Finding(seen.verdict, f"{gate.name}: {seen.message}", value=seen.value, bound=seen.bound)
    keep(draft, kind, gate.name, finding, None)
    kept = draft.check(kind, gate.name)
    if kept.verdict is not Verdict.PASS and kept.message != finding.message[:MESSAGE_LENGTH]:  # it fails in another way now
        draft.put_check(kept.model_copy(update={"message": finding.message[:MESSAGE_LENGTH], "value": finding.value}))


def _judge_job(draft: Draft, gate: Gate, kind: str) -> None:
    record = draft.check(kind, gate.name)
    if record.job is None:
        record = record.model_copy(update={"job": _job_name(draft, record), "message": f"{gate.name}: its Job is started"})
        draft.put_check(record)
    if record.verdict is not Verdict.NOT_EVALUATED or gate.job is None:
        return
    seen = draft.observed.jobs.get(record.job or "")
    match seen.state if seen is not None else JobState.MISSING:
        case JobState.MISSING:
            draft.effects.append(StartCheck(record.job or "", gate.job.profile))
        case JobState.ACTIVE:
            keep(draft, kind, gate.name, Finding(Verdict.NOT_EVALUATED, f"{gate.name}: Job {record.job} runs"), None)
        case JobState.SUCCEEDED:
            keep(draft, kind, gate.name, Finding(Verdict.PASS, f"{gate.name}: Job {record.job} succeeded"), None)
        case JobState.FAILED | JobState.FOREIGN:
            said = seen.message if seen is not None else ""
            keep(draft, kind, gate.name, Finding(Verdict.FAIL, f"{gate.name}: Job {record.job} failed: {said}"), None)


def _job_name(draft: Draft, record: CheckRecord) -> str:
    """Another one for each time the stage is entered and for each attempt."""
    since = draft.current.since
    identity = f"{record.kind}/{record.name}/{since and since.isoformat()}/{record.attempt}"
    return job_name(draft.observed.rollout, record.name, identity)


def retry_checks(draft: Draft) -> bool:
    """Let the Jobs of failed checks run again; whether there was one."""
    failures = [one for one in draft.status.checks if one.job and one.verdict is Verdict.FAIL]
    for one in failures:
        draft.put_check(CheckRecord(name=one.name, kind=one.kind, attempt=one.attempt + 1))
    return bool(failures)


def verify_rollback(draft: Draft) -> None:
    """Judge what must hold after a rollback; it has ended already, and waits for none of this."""
    _, gates = gates_now(draft.rollout)
    if not gates:
        return
    records = judge_gates(draft, gates, AFTER_ROLLBACK)
    if all(record.verdict is Verdict.PASS for record in records):
        draft.tell(EventReason.ROLLBACK_VERIFIED, f"{len(records)} checks after the rollback pass")
