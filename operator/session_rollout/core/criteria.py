"""Judging: the records of criteria and guards after this look, and the hold clock that counts evidence only."""

from datetime import datetime, timedelta
from decimal import Decimal

from session_rollout.api.checks import Check, ComparedTo, Gate, OnBreach
from session_rollout.api.enums import EventReason, Stage, Verdict
from session_rollout.api.quantities import duration
from session_rollout.api.status import CheckRecord
from session_rollout.core.context import DecisionContext
from session_rollout.core.evaluation import Finding, ask, assess
from session_rollout.core.inputs import JUDGED_STAGES

CRITERION, GUARD = "Criterion", "Guard"
STALE_INTERVALS = 3
MESSAGE_LENGTH = 160
STALE_SLACK = timedelta(seconds=10)


def judge(context: DecisionContext) -> None:
    """Bring the records of everything that is judged in this stage up to date."""
    if context.current.stage in JUDGED_STAGES:
        for guard in context.spec.guards:
            judge_check(context, guard, GUARD, after_range(context, guard.metric, context.current.guards_start_time))
    if context.current.stage is Stage.STEP and context.phase is not None:
        for criterion in context.phase.criteria:
            start = after_range(context, criterion.metric, context.current.published_time)
            judge_check(context, criterion, CRITERION, start)


def measure_baselines(context: DecisionContext) -> tuple[str, ...]:
    """Take the baseline of everything in this phase that is compared to one; sentences on what is still missing."""
    missing: list[str] = []
    phase = context.phase
    criteria = phase.criteria if phase is not None else ()
    for kind, checks in ((CRITERION, criteria), (GUARD, context.spec.guards)):
        missing += [
            reason
            for check in checks
            if check.compared_to is ComparedTo.BASELINE and (reason := _measure_baseline(context, kind, check))
        ]
    return tuple(missing)


def _measure_baseline(context: DecisionContext, kind: str, check: Check) -> str | None:
    record, measurement = context.check(kind, check.name), context.observed.measurements.get(check.metric)
    since = context.current.stage_start_time
    if record.baseline is not None and record.time is not None and since is not None and record.time >= since:
        return None
    if measurement is None or since is None or measurement.time < since:
        return f"{check.name}: its baseline is being measured"
    if measurement.value is None:
        return f"{check.name}: no baseline, {measurement.message}"
    fresh = CheckRecord(
        name=check.name,
        kind=kind,
        baseline=str(measurement.value)[:40],
        time=context.now,
        message=f"{check.name}: baseline {measurement.value:.6g}",
    )
    context.put_check(fresh)
    return None


def after_range(context: DecisionContext, metric: str, start: datetime | None) -> datetime | None:
    """When the window of a metric's query holds no data from before a moment any more."""
    return None if start is None else start + context.observed.ranges.get(metric, timedelta(0))


def judge_check(context: DecisionContext, check: Check | Gate, kind: str, not_before: datetime | None) -> None:
    """Bring the record of a check of a metric up to date; data from before a moment is not judged."""
    title = check.name
    if check.metric not in context.observed.measurements and context.check(kind, title).verdict is not Verdict.NOT_EVALUATED:
        return  # the answer is on its way; until it is here the last verdict stands, and nothing is promoted on it
    baseline = context.check(kind, title).baseline
    finding = assess(
        ask(
            check,
            measurement=context.observed.measurements.get(check.metric or ""),
            not_before=not_before,
            stale_after=STALE_INTERVALS * context.interval + STALE_SLACK,
            now=context.now,
            baseline=Decimal(baseline) if baseline is not None else None,
        )
    )
    keep(context, kind, title, finding, baseline)


def keep(context: DecisionContext, kind: str, title: str, finding: Finding, baseline: str | None) -> None:
    """Write the record only when the verdict changed: a check that repeats itself is no change.

    After a time in which nobody looked, a breach begins anew: `for` must be seen, not assumed.
    """
    before = context.check(kind, title)
    restarted = before.verdict is Verdict.FAIL and context.unseen > timedelta(0) and kind == GUARD
    waiting = finding.verdict is Verdict.NOT_EVALUATED and before.message != finding.message
    if before.verdict is finding.verdict and before.message and not (restarted or waiting):
        return
    context.put_check(
        CheckRecord(
            name=title,
            kind=kind,
            verdict=finding.verdict,
            value=finding.value[:40] if finding.value else None,
            bound=finding.bound[:80] if finding.bound else None,
            baseline=baseline,
            time=context.now,
            message=finding.message[:MESSAGE_LENGTH],
            job=before.job,
            attempt=before.attempt,
        )
    )


def void_verdicts(context: DecisionContext, *, keep_baselines: bool) -> None:
    """Forget every verdict: of another audience, or of another generation."""
    kept = tuple(
        CheckRecord(name=one.name, kind=one.kind, baseline=one.baseline, time=one.time, message=one.message)
        for one in context.status.checks
        if keep_baselines and one.baseline is not None
    )
    context.change(checks=kept)


def forget_criteria(context: DecisionContext) -> None:
    """The phase is over: its criteria, their baselines and its gates mean nothing to the next."""
    context.change(checks=context.checks_of(GUARD))


def void_criteria(context: DecisionContext) -> None:
    """A new audience of the same phase: criteria are judged anew against the same baselines, guards go on."""
    fresh = {"verdict": Verdict.NOT_EVALUATED, "value": None, "bound": None, "message": ""}
    kept = tuple(record.model_copy(update=fresh) for record in context.checks_of(CRITERION) if record.baseline is not None)
    context.change(checks=(*kept, *context.checks_of(GUARD)))


def breached(context: DecisionContext, on_breach: OnBreach) -> tuple[str, ...]:
    """Sentences about the guards of this kind whose breach has lasted as long as they allow, and is seen in this look."""
    return tuple(
        record.message + (f" for {guard.for_}" if guard.for_ != "0s" else "")
        for guard in context.spec.guards
        if guard.on_breach is on_breach
        and guard.metric in context.observed.measurements
        and (record := context.check(GUARD, guard.name)).verdict is Verdict.FAIL
        and record.time is not None
        and context.now - record.time >= duration(guard.for_)
    )


def next_breach(context: DecisionContext) -> datetime | None:
    """When a breach that is under way will have lasted long enough."""
    ends = [
        record.time + duration(guard.for_)
        for guard in context.spec.guards
        if (record := context.check(GUARD, guard.name)).verdict is Verdict.FAIL and record.time is not None
    ]
    return min((end for end in ends if end > context.now), default=None)


def missing_evidence(context: DecisionContext) -> tuple[str, ...]:
    """Why the time that passes now does not count: a criterion without a verdict, or a guard nobody can ask."""
    criteria = [record.message for record in context.checks_of(CRITERION) if not record.verdict.is_evidence]
    guards = [record.message for record in context.checks_of(GUARD) if record.verdict is Verdict.PROVIDER_ERROR]
    disabled = [f"{name} is disabled in an emergency" for name in context.disabled_here()]
    return (*disabled, *criteria, *guards)


def run_clock(context: DecisionContext, hold: timedelta, *, stopped_by: tuple[str, ...] = ()) -> None:
    """Start, stop and move the hold clock. It counts only time in which every criterion had a verdict of Pass or Fail."""
    current, missing = context.current, (*stopped_by, *missing_evidence(context))
    if current.hold_until is None:
        if not missing:
            context.move(hold_until=context.now + hold)
        return
    if current.hold_paused_time is not None:
        if not missing:
            context.move(hold_until=current.hold_until + (context.now - current.hold_paused_time), hold_paused_time=None)
            context.tell(EventReason.EVIDENCE_BACK, "the hold clock runs again")
        return
    if context.unseen == timedelta.max:
        context.move(hold_until=context.now + hold)
    elif context.unseen:
        context.move(hold_until=current.hold_until + context.unseen)
    if missing:
        context.move(hold_paused_time=context.now)
        if not stopped_by:
            context.tell(EventReason.EVIDENCE_LOST, "the hold clock stands still: " + "; ".join(missing)[:400])
