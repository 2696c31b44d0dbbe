"""Seasons: the same time in earlier weeks, which a check with `comparedTo: Baseline` is compared with at each evaluation.

One value from before the phase says nothing about another hour or weekday. Where the provider has at least two earlier seasons when
the baseline is measured, the mean over a window is compared with the median of the same window in the latest whole seasons before the
first publish of the phase: a later one would contain the feature (`core.first_publish`). Whether a check is seasoned does not change during a phase. If its
seasons leave the provider's retention, it has no verdict: one value from an odd time would decide otherwise.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from statistics import median
from typing import Final

from session_rollout.api.checks import Check, ComparedTo
from session_rollout.api.enums import CheckKind, CheckReason, Stage, Verdict
from session_rollout.api.metrics import SEASONS_NEEDED, Metric
from session_rollout.api.quantities import duration
from session_rollout.api.rollout import RolloutSpec, SessionRollout
from session_rollout.api.status import RolloutStatus
from session_rollout.api.status_records import CheckRecord
from session_rollout.core.first_publish import UNKNOWN
from session_rollout.core.inputs import guards_are_judged, published_phases
from session_rollout.core.observed import Measurement, Seasons
from session_rollout.core.steps import phase_named

GONE: Final = (
    "the provider no longer has any of the earlier seasons: its retention is shorter than the phase and a season. Keep samples"
    " for longer, or set `baseline: {count: 0}` of the metric to compare with the value from before the phase"
)


@dataclass(frozen=True)
class Season:
    """A measurement as it is compared, the baseline, and where that comes from."""

    measurement: Measurement | None
    baseline: Decimal | None = None
    origin: str = ""
    is_seasonal: bool = False


def seasons_read(rollout: SessionRollout, now: datetime) -> dict[str, tuple[timedelta, ...]]:
    """How long before now the seasons are that this stage needs, by metric."""
    read = dict[str, tuple[timedelta, ...]]()
    for kind, check in _compared(rollout.spec, rollout.status, guards=guards_are_judged(rollout)):
        metric = rollout.spec.metric(check.metric)
        if metric is None or (settings := metric.seasonal) is None or metric.name in read:
            continue
        if rollout.status.current.stage is Stage.BASELINE or is_seasoned(metric, _record(rollout.status, kind, check)):
            length, start = duration(settings.season), _before(rollout.status, guard=kind is CheckKind.GUARD)
            latest = 1 if start is None else max(1, -((start - now) // length))
            count = settings.count if start != UNKNOWN else 0
            read[metric.name] = tuple(length * number for number in range(latest, latest + count))
    return read


def is_seasoned(metric: Metric | None, record: CheckRecord) -> bool:
    """Whether a check is compared with earlier seasons, as it was decided when its baseline was measured."""
    known = record.baseline is not None and record.seasons is not None and record.seasons >= SEASONS_NEEDED
    return known and metric is not None and metric.seasonal is not None


def window_of(spec: RolloutSpec, status: RolloutStatus, name: str) -> timedelta:
    """How much longer a metric covers the time before a change because its mean is what is compared."""
    metric = spec.metric(name)
    if metric is None or metric.seasonal is None:
        return timedelta(0)
    checks = ((kind, check) for kind, check in _compared(spec, status, guards=True) if check.metric == name)
    seasoned = any(is_seasoned(metric, _record(status, kind, check)) for kind, check in checks)
    return duration(metric.seasonal.window) if seasoned else timedelta(0)


def number_of(measurement: Measurement) -> int | None:
    """How many earlier seasons a measurement has; none where the provider cannot read them, and None where none were read."""
    return len(measurement.seasons.earlier) if measurement.seasons is not None else None


def is_unreachable(measurement: Measurement) -> bool:
    """Whether nothing is known about seasons yet, because the provider could not be reached."""
    return measurement.seasons is not None and measurement.seasons.unreachable


def unseasoned(seasons: int | None) -> str:
    """What a message says of a check for which seasons were read that are not enough; nothing for others."""
    if seasons is None or seasons >= SEASONS_NEEDED:
        return ""
    return f"Unseasoned: {seasons} of at least {SEASONS_NEEDED} earlier seasons have data from before the phase"


def seasonal(measurement: Measurement | None) -> Season:
    """What is compared in place of the value: the mean over the window, with the median of earlier seasons."""
    if measurement is None or measurement.problem is not None:
        return Season(measurement)
    seasons = measurement.seasons
    if seasons is None:
        return Season(None)  # their result is on its way
    time = measurement.oldest
    if seasons.problem is not None:
        return Season(Measurement(time, problem=seasons.problem, reason=seasons.reason, message=seasons.message))
    if not seasons.earlier:
        return Season(Measurement(time, problem=Verdict.NO_DATA, reason=CheckReason.NO_SEASONS, message=GONE))
    return Season(Measurement(time, value=_mean(seasons, measurement)), median(seasons.earlier), _origin(seasons))


def season_of(metric: Metric | None, record: CheckRecord | None, measurement: Measurement | None) -> Season:
    """What a check compares, and with which baseline: of earlier seasons, or from before the phase."""
    if record is not None and is_seasoned(metric, record):
        return replace(seasonal(measurement), is_seasonal=True)
    if record is None or record.baseline is None:
        return Season(measurement)
    return Season(measurement, Decimal(record.baseline), unseasoned(record.seasons))


def _mean(seasons: Seasons, measurement: Measurement) -> Decimal | None:
    return seasons.mean if seasons.mean is not None else measurement.value


def _origin(seasons: Seasons) -> str:
    number = len(seasons.earlier)
    return f"the median of {number} earlier seasons" if number > 1 else "that of 1 earlier season"


def _compared(spec: RolloutSpec, status: RolloutStatus, *, guards: bool) -> Iterator[tuple[CheckKind, Check]]:
    """The checks with a baseline that this stage evaluates. Guards come first: they may protect an earlier phase."""
    phase, current = phase_named(spec, status.current.phase), status.current
    if guards:
        yield from ((CheckKind.GUARD, check) for check in spec.guards if check.compared_to is ComparedTo.BASELINE)
    if phase is not None and current.stage in {Stage.BASELINE, Stage.STEP}:
        yield from ((CheckKind.CRITERION, check) for check in phase.criteria if check.compared_to is ComparedTo.BASELINE)


def _record(status: RolloutStatus, kind: CheckKind, check: Check) -> CheckRecord:
    known = (record for record in status.checks if (record.kind, record.name) == (kind, check.name))
    return next(known, CheckRecord(name=check.name, kind=kind))


def _before(status: RolloutStatus, *, guard: bool) -> datetime | None:
    """The end of the time without the feature. Until the phase is published, a guard protects the one that was published last."""
    phase = status.phase(status.current.phase)
    if phase is not None and (phase.is_published or not guard):
        return phase.first_publish_time
    times = [record.first_publish_time for record in published_phases(status) if record.first_publish_time is not None]
    return max(times, default=phase.first_publish_time if phase is not None else None)
