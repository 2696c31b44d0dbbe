"""What a rollout would have met in the past: how often its guards act on healthy features, and how soon on real incidents.

Each phase is started at every hour at which it fits into the history whole and its guards pass. The recorded users have no
feature, so that a guard that acts outside of the marked incidents is a false abort.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import NormalDist, median
from typing import Final

from session_rollout.api.checks import Check, ComparedTo, Criterion, Guard
from session_rollout.api.phases import Phase
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.hold import acts
from session_rollout.core.statistics.proportion import wilson
from session_rollout.core.steps import planned_time
from session_rollout.simulation.history import History, Incident
from session_rollout.simulation.noise import Noise, SmallTolerance, is_relative, noise_of, too_small
from session_rollout.simulation.replay import Histories, Replay
from session_rollout.simulation.seasonal_replay import replay_of

Replays = Mapping[str, tuple[Replay, History]]  # by name of the guard
EVERY: Final = timedelta(hours=1)
WEEK: Final = timedelta(days=7)
HOURS: Final = 24
Z: Final = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Aborts:
    """How many of a number of starts end in a false abort."""

    starts: int
    aborted: int

    @property
    def share(self) -> float:
        """The probability of a false abort; 0 without a start."""
        return self.aborted / self.starts if self.starts else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95% interval (Wilson), from 0 to 1 without a start. Neighboring starts are alike, so that it is too narrow."""
        if not self.starts:
            return 0.0, 1.0
        low, high = wilson(self.share, self.starts, Z)
        return low if self.aborted else 0.0, high if self.aborted < self.starts else 1.0


@dataclass(frozen=True)
class Detection:
    """How often and how soon a guard acts on an incident, in the starts whose phase runs when it begins."""

    incident: Incident
    starts: int
    detected: int
    delay: timedelta | None  # the median from the start of the incident; None if it was never detected


@dataclass(frozen=True)
class GuardBacktest:
    """One guard in one phase; `guard` is None for all guards together."""

    guard: str | None
    aborts: Aborts
    by_hour: tuple[Aborts, ...]  # by the hour of the start, in UTC
    detections: tuple[Detection, ...]
    acts: tuple[datetime, ...]  # when it acts in one of the starts, each time once


@dataclass(frozen=True)
class CheckNoise:
    """The noise of a check with a tolerance in %, in the last week."""

    check: Check
    noise: Noise
    small: SmallTolerance | None  # if chance exceeds its tolerance


@dataclass(frozen=True)
class PhaseBacktest:
    """One phase. Without an hour, the history is shorter than the phase; without a start, its guards never pass together."""

    phase: str
    length: timedelta
    hours: int  # at which the phase fits into the history
    allowed: dict[str, int]  # by guard: the number of these hours at which it passes
    guards: tuple[GuardBacktest, ...]
    passing: dict[str, float | None]  # by criterion with a fixed bound or seasons: the share of its results, if any, that pass
    unseasoned: dict[str, int]  # by guard: the number of starts with too few earlier seasons to compare it with
    noises: tuple[CheckNoise, ...]


@dataclass(frozen=True)
class _Start:
    time: datetime
    breaches: dict[str, datetime]  # by guard


def metrics_of(spec: RolloutSpec) -> tuple[str, ...]:
    """Names of the metrics whose history a backtest needs."""
    criteria = [each for phase in spec.phases for each in criteria_of(spec, phase)]
    return tuple(dict.fromkeys(name for check in (*guards_of(spec), *criteria) for name in check.metrics))


def seasonal_metrics(spec: RolloutSpec) -> frozenset[str]:
    """Names of those of them that are compared with earlier seasons."""
    checks = (*guards_of(spec), *(each for phase in spec.phases for each in criteria_of(spec, phase)))
    return frozenset(check.metric for check in checks if is_seasonal(spec, check))


def left_out(spec: RolloutSpec) -> tuple[str, ...]:
    """Names of guards and criteria that cannot be replayed, because a metric has `cohorts`: nobody had the feature."""
    checks = spec.all_checks()
    return tuple(dict.fromkeys(check.name for check in checks if not _has_past(spec, check)))


def backtest(spec: RolloutSpec, histories: Histories, incidents: Sequence[Incident] = ()) -> tuple[PhaseBacktest, ...]:
    """Start each phase at every hour of the histories, of which there is one for each metric of a check."""
    replays = {guard.name: (replay_of(guard, histories), histories[guard.metric]) for guard in guards_of(spec)}
    return tuple(_of_phase(phase, criteria_of(spec, phase), replays, histories, incidents) for phase in spec.phases)


def guards_of(spec: RolloutSpec) -> tuple[Guard, ...]:
    """The guards that end or pause a rollout, and have a past."""
    return tuple(guard for guard in spec.guards if acts(guard) and _has_past(spec, guard))


def criteria_of(spec: RolloutSpec, phase: Phase) -> tuple[Criterion, ...]:
    """The criteria of a phase that have verdicts without it: those with a fixed bound or with seasons, and a past."""
    known = (each for each in phase.criteria if each.compared_to is None or is_seasonal(spec, each))
    return tuple(each for each in known if not each.dry_run and _has_past(spec, each))


def is_seasonal(spec: RolloutSpec, check: Check) -> bool:
    """Whether a check is compared with earlier seasons, where there are enough."""
    metric = spec.metric(check.metric)
    return check.compared_to is ComparedTo.BASELINE and metric is not None and metric.seasonal is not None


def _has_past(spec: RolloutSpec, check: Check) -> bool:
    metrics = [spec.metric(name) for name in check.metrics]
    return all(metric is not None and metric.query is not None for metric in metrics)


def _of_phase(
    phase: Phase, criteria: Sequence[Criterion], replays: Replays, histories: Histories, incidents: Sequence[Incident]
) -> PhaseBacktest:
    length = planned_time([phase])
    hours = tuple(_hours(replays, length))
    allowed = {time: [name for name, (replay, past) in replays.items() if replay.allows(past.number(time))] for time in hours}
    starts = tuple(_start(replays, time, length) for time in hours if len(allowed[time]) == len(replays))
    names = [*replays, None] if len(replays) > 1 else [*replays]
    results = tuple(_of_guard(name, starts, length, incidents) for name in names)
    counts = {name: sum(name in known for known in allowed.values()) for name in replays}
    known = [each for each in criteria if each.compared_to is None or histories[each.metric].seasons is not None]
    passing = {each.name: replay_of(each, histories).passing for each in known}
    unseasoned = {
        name: sum(replay.is_unseasoned(past.number(start.time)) for start in starts) for name, (replay, past) in replays.items()
    }
    checks = (*(replay.check for replay, _ in replays.values()), *criteria)
    noises = tuple(noise for check in checks if (noise := _noise(check, histories[check.metric], incidents)) is not None)
    return PhaseBacktest(phase.name, length, len(hours), counts, results, passing, unseasoned, noises)


def _hours(replays: Replays, length: timedelta) -> Iterator[datetime]:
    """Every hour from which on the history has the whole phase."""
    known = [history for _, history in replays.values()]
    if not known:
        return
    begin, end = max(history.start for history in known), min(history.end for history in known)
    time = datetime.fromtimestamp(-(-begin.timestamp() // EVERY.total_seconds()) * EVERY.total_seconds(), UTC)
    while time + length <= end:
        yield time
        time += EVERY


def _start(replays: Replays, time: datetime, length: timedelta) -> _Start:
    breaches = {
        name: history.start + breach * history.interval
        for name, (replay, history) in replays.items()
        if (breach := replay.breach(history.number(time), history.number(time + length))) is not None
    }
    return _Start(time, breaches)


def _of_guard(name: str | None, starts: Sequence[_Start], length: timedelta, incidents: Sequence[Incident]) -> GuardBacktest:
    """A rollout ends with the first guard that acts; a guard alone with its own."""
    ends = [
        (start.time, min(start.breaches.values(), default=None) if name is None else start.breaches.get(name))
        for start in starts
    ]
    false = [(time, end is not None and not any(incident.contains(end) for incident in incidents)) for time, end in ends]
    by_hour = tuple(_aborts([wrong for time, wrong in false if time.hour == hour]) for hour in range(HOURS))
    detections = tuple(_detection(incident, ends, length) for incident in incidents)
    when = tuple(sorted({end for _, end in ends if end is not None}))
    return GuardBacktest(name, _aborts([wrong for _, wrong in false]), by_hour, detections, when)


def _aborts(false: Sequence[bool]) -> Aborts:
    return Aborts(len(false), sum(false))


def _detection(incident: Incident, ends: Sequence[tuple[datetime, datetime | None]], length: timedelta) -> Detection:
    running = [
        end for time, end in ends if time <= incident.start < time + length and not (end is not None and end < incident.start)
    ]
    delays = [(end - incident.start).total_seconds() for end in running if end is not None and incident.contains(end)]
    return Detection(incident, len(running), len(delays), timedelta(seconds=median(delays)) if delays else None)


def _noise(check: Check, history: History, incidents: Sequence[Incident]) -> CheckNoise | None:
    """Of a check with a tolerance in % that is compared with seasons; None for others."""
    if history.seasons is None or not is_relative(check):
        return None
    noise = noise_of(history.seasons, max(history.start, history.end - WEEK), incidents)
    return CheckNoise(check, noise, too_small(check, noise))
