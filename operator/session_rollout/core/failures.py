"""How long, how often and when a check has failed: what `for`, `outOf` and `passShare` are decided on.

All of it is in the record of the check, and the record changes only when a verdict does. A gap, in which the check has no
verdict of Pass or Fail or nobody observed it, neither counts for a failure nor ends it.
"""

import itertools
import math
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from session_rollout.api.checks import Check, Criterion
from session_rollout.api.enums import CheckKind, Verdict
from session_rollout.api.quantities import duration, format_duration
from session_rollout.api.status_records import CheckRecord, FailedTime
from session_rollout.core.context import DecisionContext

MOST_FAILURES: Final = 8
TRAILING_CHECKS: Final = 10  # the last evaluations of a criterion that must all pass
MILLISECOND: Final = timedelta(milliseconds=1)

# --- one failure


def track(context: DecisionContext, check: Check, record: CheckRecord) -> CheckRecord:
    """The record after this decision's verdict: a failure begins, is interrupted, continues or ends."""
    if record.verdict is Verdict.PASS:
        recovery = record.recovery_time if record.failing_time is None else context.now
        record = record.updated(failing_time=None, gap_time=None, gap_milliseconds=None, recovery_time=recovery)
    elif record.verdict is Verdict.FAIL:
        record = _failing(context, record)
    elif record.failing_time is not None and record.gap_time is None:
        known = context.unobserved != timedelta.max
        last = max(context.now - context.unobserved, record.failing_time) if known else record.failing_time
        record = record.updated(gap_time=last)
    return _counted(context, check, record) if check.quota is not None else record


def _failing(context: DecisionContext, record: CheckRecord) -> CheckRecord:
    if record.failing_time is None or context.unobserved == timedelta.max:
        return record.updated(failing_time=context.now, gap_time=None, gap_milliseconds=None)
    observed = context.now - record.failing_time - (record.gap_milliseconds or 0) * MILLISECOND  # if there was no absence since
    gap = context.now - record.gap_time if record.gap_time is not None else min(_absence(context), observed)
    if gap <= timedelta(0):
        return record
    return record.updated(gap_time=None, gap_milliseconds=(record.gap_milliseconds or 0) + math.ceil(gap / MILLISECOND))


def _absence(context: DecisionContext) -> timedelta:
    """How long nobody observed the check. It is booked once: with the decision that has every result."""
    return timedelta(0) if context.awaits_results else context.unobserved


def _counted(context: DecisionContext, check: Check, record: CheckRecord) -> CheckRecord:
    """One more result, when there is a new one: an evaluation is a measurement, not a decision."""
    measurement = context.observed.measurements.get(check.metric)
    if measurement is None or not record.verdict.is_evidence:
        return record
    if record.result_time is not None and measurement.time <= record.result_time:
        return record
    assert check.quota is not None
    results = ((record.results or "") + ("P" if record.verdict is Verdict.PASS else "F"))[-check.quota[1] :]
    if results == record.results:
        return record  # as many equal results as are kept: another one changes nothing
    return record.updated(results=results, result_time=measurement.time)


def failing_for(context: DecisionContext, record: CheckRecord) -> timedelta:
    """How long the current failure has been observed, without its gaps."""
    if record.failing_time is None:
        return timedelta(0)
    end = record.gap_time or context.now
    if record.gap_time is None and context.awaits_results:
        if context.unobserved == timedelta.max:
            return timedelta(0)
        end -= context.unobserved
    return max(end - record.failing_time - (record.gap_milliseconds or 0) * MILLISECOND, timedelta(0))


def fails(context: DecisionContext, check: Check, record: CheckRecord) -> bool:
    """Whether a check fails by its own rule: for as long as `for`, or as often as `outOf`, says."""
    if check.quota is not None:
        return (record.results or "").count("F") >= check.quota[0]
    return record.failing_time is not None and failing_for(context, record) >= duration(check.for_)


def failure_text(check: Check) -> str:
    """What made a failure count: ` for 2 min`, ` in 3 of 5 evaluations`, or nothing."""
    if check.quota is not None:
        return f" in {check.quota[0]} of {check.quota[1]} evaluations"
    return f" for {format_duration(duration(check.for_))}" if duration(check.for_) else ""


def next_failure(context: DecisionContext, check: Check, record: CheckRecord) -> datetime | None:
    """When a failure that has begun will have lasted as long as `for` says; None when it has, or is interrupted."""
    if record.failing_time is None or record.gap_time is not None or check.quota is not None:
        return None
    rest = duration(check.for_) - failing_for(context, record)
    return context.now + rest if rest > timedelta(0) else None


# --- the failures of a hold


def note_failure(
    context: DecisionContext, check: Check, before: CheckRecord, record: CheckRecord, counted: timedelta
) -> CheckRecord:
    """Begin or end an entry of `failures` at this time of the hold.

    A failure shorter than `for` is tolerated; until that is known, its entry is open. One that was measured while the timer was
    paused, because another check had no data, counts for the time of the hold before the pause: no pause hides a failure.
    """
    known = record.failures or ()
    is_open = bool(known) and known[-1].end is None
    failing = fails(context, check, record) if check.quota is not None else record.failing_time is not None
    if failing == is_open:
        return record
    at = math.ceil(counted / MILLISECOND)
    if failing:
        return record.updated(failures=_joined((*known, FailedTime(start=math.floor(counted / MILLISECOND)))))
    tolerated = check.quota is None and failing_for(context, before) < duration(check.for_)
    start = max(min(known[-1].start, at - math.ceil(_measured(context, check, before) / MILLISECOND)), 0)
    ended = () if tolerated or at <= start else (known[-1].updated(start=start, end=at),)
    return record.updated(failures=(*known[:-1], *ended) or None)


def _measured(context: DecisionContext, check: Check, before: CheckRecord) -> timedelta:
    """How long a failure that ends now was measured, whether the timer ran or not: at least one evaluation."""
    away = context.unobserved if before.gap_time is None else timedelta(0)
    measured = max(failing_for(context, before) - away, timedelta(0)) if away != timedelta.max else timedelta(0)
    return max(measured, context.spec.interval_of(check.metric))


def _joined(failures: tuple[FailedTime, ...]) -> tuple[FailedTime, ...]:
    """At most eight: the two nearest become one, so that the time between them counts as failed."""
    while len(failures) > MOST_FAILURES:
        gaps = [after.start - (before.end or after.start) for before, after in itertools.pairwise(failures)]
        at = gaps.index(min(gaps))
        failures = (*failures[:at], failures[at].updated(end=failures[at + 1].end), *failures[at + 2 :])
    return failures


def forget_failures(record: CheckRecord, before: int) -> CheckRecord:
    """Without the failures that ended by this millisecond of the hold."""
    kept = tuple(failure for failure in record.failures or () if failure.end is None or failure.end > before)
    return record.updated(failures=kept or None)


def restart_failures(context: DecisionContext) -> None:
    """The hold starts again: what failed in the earlier one does not matter, but what fails now does."""
    for record in context.checks_of(CheckKind.CRITERION):
        is_open = any(failure.end is None for failure in record.failures or ())
        context.put_check(record.updated(failures=(FailedTime(start=0),) if is_open else None))


class Hold:
    """The failures of one criterion in the last `hold` of counted time, all in milliseconds."""

    def __init__(
        self, context: DecisionContext, criterion: Criterion, record: CheckRecord, hold: timedelta, counted: timedelta
    ) -> None:
        self.now, self.length = math.floor(counted / MILLISECOND), max(round(hold / MILLISECOND), 1)
        tolerated = criterion.quota is None and not fails(context, criterion, record)
        self.failures = [
            (failure.start, self.now if failure.end is None else failure.end)
            for failure in record.failures or ()
            if failure.end is not None or not tolerated
        ]
        self.allowed = math.floor((1 - _share(criterion)) * self.length)
        interval = context.spec.interval_of(criterion.metric)
        self.trailing = min(math.ceil(TRAILING_CHECKS * interval / MILLISECOND), self.length)

    @property
    def failed(self) -> int:
        """How much of the hold failed."""
        return self._failed_since(self.now - self.length)

    def _failed_since(self, start: int) -> int:
        return sum(max(end - max(begin, start), 0) for begin, end in self.failures)

    @property
    def share(self) -> float:
        """The share of the hold that passed, in percent."""
        return 100 * (1 - self.failed / self.length)

    @property
    def steady(self) -> int:
        """When the last evaluations will all have passed, if nothing fails from now on."""
        return max((end + self.trailing for _, end in self.failures), default=0)

    @property
    def enough(self) -> int:
        """When the share will be reached, if nothing fails from now on: when enough failures have left the hold."""
        excess = self.failed - self.allowed
        if excess <= 0:
            return self.now
        start = self.now - self.length
        for begin, end in self.failures:
            left = max(end - max(begin, start), 0)
            if excess <= left:
                return max(begin, start) + excess + self.length
            excess -= left
        return self.now  # not reached: what failed is at least what is in excess


def _share(criterion: Criterion) -> Decimal:
    return Decimal(criterion.pass_share.removesuffix("%")) / 100
