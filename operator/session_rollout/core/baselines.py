"""Baselines: the value of a metric before the phase's first publish, for checks with `comparedTo: Baseline`.

The query must cover no time in which users had something else: after a rollback, an emergency or the last step of an earlier
phase, its baseline waits as the first verdict about a new audience does. When users have a feature of the phase, it is too late.
"""

from datetime import datetime

from session_rollout.api.base import sha256_of
from session_rollout.api.checks import Check, ComparedTo
from session_rollout.api.enums import CheckKind, CheckReason
from session_rollout.api.flag_records import FlagsRecord
from session_rollout.api.quantities import duration
from session_rollout.api.status_records import CheckRecord
from session_rollout.core.clocks import range_of
from session_rollout.core.context import DecisionContext
from session_rollout.core.criteria import record_of
from session_rollout.core.documents import PublishedDocument
from session_rollout.core.flags import NOBODY


def note_given(flags: FlagsRecord, document: PublishedDocument, now: datetime) -> FlagsRecord:
    """Keep since when users have what this document gives, which was read back."""
    given = {name: audience for name, audience in document.audiences.items() if audience != NOBODY}
    given_sha256 = sha256_of(repr(sorted((name, audience) for name, audience in given.items())))
    if given_sha256 == flags.given_sha256:
        return flags
    is_first = flags.given_sha256 is None and flags.revision <= 1 and not given
    return flags.updated(given_sha256=given_sha256, given_time=None if is_first else now)


def measure_baselines(context: DecisionContext) -> tuple[str, ...]:
    """Take the baseline of every check of this phase that needs one; a sentence for each that is still missing."""
    record = context.status.phase(context.current.phase)
    if record is not None and record.is_published:
        return ()  # what is measured now is not the time before it
    criteria = context.phase.criteria if context.phase is not None else ()
    missing = (
        _measure_baseline(context, kind, check)
        for kind, checks in ((CheckKind.CRITERION, criteria), (CheckKind.GUARD, context.spec.guards))
        for check in checks
        if check.compared_to is ComparedTo.BASELINE
    )
    return tuple(sentence for sentence in missing if sentence is not None)


def _ready(context: DecisionContext, check: Check) -> datetime | None:
    """When the query covers only what users have now; None while another document is on its way."""
    flags, start = context.status.flags, context.current.stage_start_time
    is_read_back = flags.sha256 == flags.published_sha256 and flags.published_time is not None
    if start is None or not (is_read_back or flags.published_sha256 is None):
        return None
    if flags.given_time is None:
        return start
    return max(start, flags.given_time + duration(context.spec.propagation) + range_of(context, (check.metric,)))


def _measure_baseline(context: DecisionContext, kind: CheckKind, check: Check) -> str | None:
    record, measurement = record_of(context, check, kind), context.observed.measurements.get(check.metric)
    ready = _ready(context, check)
    if record.baseline is not None and record.time is not None and ready is not None and record.time >= ready:
        return None
    if ready is not None and context.now < ready:
        return f"{check.name}: measuring the baseline at {ready:%H:%M:%S} UTC; its query still covers older data"
    if measurement is None or ready is None or measurement.time < ready:
        return f"{check.name}: measuring the baseline"
    if measurement.value is None:
        return None if check.dry_run else f"{check.name}: no baseline, {measurement.message}"
    context.put_check(
        CheckRecord(
            name=check.name,
            kind=kind,
            reason=CheckReason.BASELINE_MEASURED,
            baseline=str(measurement.value),
            source=record.source,
            time=context.now,
            message=f"{check.name}: the baseline is {measurement.value:.6g}",
        )
    )
    return None
