"""What the checks of counted events would see, from the traffic and the rate of bad events: `core.statistics.power` for each step.

The inflation is that of bad events that do not cluster, as sixteen cells measure it. Each step is looked at by itself, as if the evidence began with it; that of earlier steps comes in addition.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from session_rollout.api.checks import Check, Guard
from session_rollout.api.enums import CheckKind
from session_rollout.api.phases import Phase
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.evidence import metric_of, tolerated_by
from session_rollout.core.flags import CELL_NAMES
from session_rollout.core.holdback import given_percent
from session_rollout.core.statistics.inflation import ALPHA_OF_SAFETY, FEW_BAD_EVENTS, UNKNOWN, small_sample_factor
from session_rollout.core.statistics.power import Design
from session_rollout.core.steps import Increment, increments

HOUR: Final = timedelta(hours=1)
LONGEST: Final = timedelta(days=365)  # as the longest hold
EVERYBODY: Final = 100
SMALLEST_RATE: Final = 1e-9  # where nothing was bad
ROUNDS: Final = 30  # until the number of events and the inflation that it brings agree


@dataclass(frozen=True)
class Traffic:
    """Events of all users in an hour, of which there are some, and the share of them that is bad without the feature."""

    events: float
    rate: float
    counts_bad: bool = True  # whether some series counts bad events


@dataclass(frozen=True)
class Power:
    """What one check sees in one step, with a probability of four in five."""

    kind: CheckKind
    check: str
    phase: str
    step: int
    percent: float
    of_all: bool  # the check is about all users, not only about those with the feature
    hold: timedelta
    traffic: Traffic
    tolerated: float  # rate of bad events with the feature
    smallest: float | None  # rate with the feature that is shown to be too high within the hold; None if not even 100 % is
    passes_after: timedelta | None  # a feature without an effect is shown to be harmless; None: not within a year

    @property
    def is_too_short(self) -> bool:
        """Whether the step would wait for evidence after its hold."""
        return self.kind is CheckKind.CRITERION and (self.passes_after is None or self.passes_after > self.hold)


def powers_of(spec: RolloutSpec, traffic: Mapping[str, Traffic], inflation: float = 1.0) -> tuple[Power, ...]:
    """The power of every comparison in every step that leaves users to compare with, and of every check of all users in each.

    `traffic` is by metric.
    """
    guards = [guard for guard in spec.guards if metric_of(spec, guard) is not None]
    alpha = _share(spec) / max(len(guards), 1)
    return tuple(
        _power(spec, phase, increment, check, traffic[check.metric], alpha, inflation)
        for phase in spec.phases
        for check in (*guards, *phase.criteria)
        if _is_about(spec, check, phase)
        for increment in increments(phase)
        if 0 < given_percent(spec, increment) < EVERYBODY or _is_of_all(spec, check)
    )


def compared_metrics(spec: RolloutSpec) -> Iterator[str]:
    """Names of the metrics whose traffic is needed, each once."""
    checks = spec.all_checks()
    yield from dict.fromkeys(check.metric for check in checks if _counts_bad(spec, check))


def metrics_of_means(spec: RolloutSpec) -> Iterator[str]:
    """Names of the metrics whose checks compare means, each once: nobody knows before the start what these would see."""
    yield from (metric.name for metric in spec.metrics if metric.is_mean)


def _counts_bad(spec: RolloutSpec, check: Check) -> bool:
    """Whether a check is about bad events: how much the values of a mean vary is known from cells alone, which come with the rollout."""
    metric = metric_of(spec, check)
    return metric is not None and not metric.is_mean


def _share(spec: RolloutSpec) -> float:
    return float(spec.control.false_rollback.removesuffix("%")) / 100


def _is_about(spec: RolloutSpec, check: Check, phase: Phase) -> bool:
    metric = metric_of(spec, check)
    compared = (
        metric is not None and not metric.is_mean and metric.cohorts is not None and metric.cohorts.feature in phase.features
    )
    return compared or _is_of_all(spec, check)


def _is_of_all(spec: RolloutSpec, check: Check) -> bool:
    metric = metric_of(spec, check)
    return metric is not None and metric.counts is not None


def _events_to_pass(design: Design) -> float:
    """Against a fixed rate, the inflation is that of an unknown clustering until some bad events are known: see `inflation_of_safety`."""
    if design.tolerance.times:
        return design.events_to_pass()
    events = replace(design, inflation=UNKNOWN).events_to_pass()
    for _ in range(ROUNDS):
        weight = events * design.rate / (events * design.rate + FEW_BAD_EVENTS)
        events = replace(design, inflation=max(weight * design.inflation + (1 - weight) * UNKNOWN, 1.0)).events_to_pass()
    return events


def _power(
    spec: RolloutSpec, phase: Phase, increment: Increment, check: Check, traffic: Traffic, alpha: float, inflation: float
) -> Power:
    tolerance, percent = tolerated_by(spec, check), float(given_percent(spec, increment))
    of_all = check.below is not None
    share = 1.0 if of_all else percent / 100
    rate, cells = max(traffic.rate, SMALLEST_RATE), len(CELL_NAMES)
    design = Design(share, rate, tolerance, inflation * small_sample_factor(cells, alpha))
    lenient = Design(share, rate, tolerance, inflation * small_sample_factor(cells, ALPHA_OF_SAFETY))
    hours = _events_to_pass(lenient) / traffic.events
    return Power(
        kind=CheckKind.GUARD if isinstance(check, Guard) else CheckKind.CRITERION,
        check=check.name,
        phase=phase.name,
        step=increment.step,
        percent=percent,
        of_all=of_all,
        hold=increment.hold,
        traffic=traffic,
        tolerated=tolerance.limit(traffic.rate),
        smallest=design.smallest_rate(traffic.events * (increment.hold / HOUR), alpha),
        passes_after=hours * HOUR if hours < LONGEST / HOUR else None,
    )
