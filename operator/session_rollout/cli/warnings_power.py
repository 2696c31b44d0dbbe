"""Warnings of `validate` about comparisons that would not see the harm that they guard against, or keep a step waiting."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final

from session_rollout.api.enums import CheckKind
from session_rollout.api.metrics import Metric
from session_rollout.api.quantities import duration, estimate_text, format_duration
from session_rollout.api.rollout import RolloutSpec
from session_rollout.cli.admission import Path, Problem
from session_rollout.cli.traffic import traffic_of
from session_rollout.simulation.power import HOUR, Power, compared_metrics, powers_of

LARGE_HARM: Final = 0.05  # more than the tolerated rate: a guard that cannot see it within a step protects nobody in it


class WarnPower(StrEnum):
    """What a warning is about."""

    UNSEEN_HARM = "UnseenHarm"
    SLOW_CRITERION = "SlowCriterion"
    LATE_EXPOSURE = "LateExposure"
    NO_BAD_COUNTER = "NoBadCounter"


def power_warnings(spec: RolloutSpec, options: Mapping[str, Any]) -> Iterator[Problem]:
    """Every such warning about a valid spec, with the traffic that the options say. Raises Failure if it cannot be measured."""
    names = tuple(compared_metrics(spec))
    if not names:
        return
    traffic = traffic_of(spec, names, options)
    for index, metric in enumerate(spec.metrics):
        if metric.name in traffic and not traffic[metric.name].counts_bad:
            yield _uncounted(metric, index)
    for power in powers_of(spec, traffic, options["inflation"]):
        path = _path(spec, power)
        if power.kind is CheckKind.GUARD:
            yield from _unseen(power, path)
        elif power.is_too_short:
            yield _slow(spec, power, path)
        yield from _late(spec, power, path)


def _path(spec: RolloutSpec, power: Power) -> Path:
    if power.kind is CheckKind.GUARD:
        return "guards", [guard.name for guard in spec.guards].index(power.check)
    number = [phase.name for phase in spec.phases].index(power.phase)
    return "phases", number, "criteria", [each.name for each in spec.phases[number].criteria].index(power.check)


def _warning(path: Path, about: WarnPower, message: str) -> Problem:
    return Problem(("spec", *path), message, rule=about)


def _uncounted(metric: Metric, index: int) -> Problem:
    message = (
        f"no series has counted bad events of {metric.name}, of anybody, so that its checks have no verdict before there is one; check"
        " the selector (or the bucket at `over`), and let the application export the counter with 0 from its start"
    )
    return _warning(
        ("metrics", index, "cohorts" if metric.cohorts is not None else "counts"), WarnPower.NO_BAD_COUNTER, message
    )


def _place(power: Power) -> str:
    return f"step {power.step} of phase {power.phase} ({power.percent:g}% for {format_duration(power.hold)})"


def _unseen(power: Power, path: Path) -> Iterator[Problem]:
    if power.smallest is not None and power.smallest <= power.tolerated + LARGE_HARM:
        return
    seen = "no harm" if power.smallest is None else f"only a rate of {100 * power.smallest:.3g}% or more"
    message = (
        f"{power.check} sees {seen} in {_place(power)}, at {power.traffic.events:,.0f} events an hour, and tolerates"
        f" {100 * power.tolerated:.3g}%; write a longer hold, or a larger percentage"
    )
    yield _warning(path, WarnPower.UNSEEN_HARM, message)


def _slow(spec: RolloutSpec, power: Power, path: Path) -> Problem:
    phase = next(phase for phase in spec.phases if phase.name == power.phase)
    after = power.passes_after
    needs = "more than a year" if after is None else f"about {estimate_text(after)}"
    limit = power.hold + duration(phase.deadline) if phase.deadline is not None else None
    ends = limit is not None and (after is None or after > limit)
    then = f"the deadline of {phase.deadline} passes before that" if ends else "the step waits for it after its hold"
    message = (
        f"{power.check} needs {needs} in {_place(power)} to show that a feature without effect is harmless, and {then}; write a longer"
        " hold, a larger percentage, or a larger `tolerate`"
    )
    return _warning(path, WarnPower.SLOW_CRITERION, message)


def _late(spec: RolloutSpec, power: Power, path: Path) -> Iterator[Problem]:
    if power.of_all:
        return
    exposure = spec.control.exposure
    expected = power.traffic.events * (power.percent / 100) * (duration(exposure.deadline) / HOUR)
    if expected >= exposure.min_events:
        return
    message = (
        f"about {expected:,.0f} events with the feature are expected in {_place(power)} within `control.exposure.deadline` of"
        f" {exposure.deadline}, and {exposure.min_events:,} are needed before the hold begins; write a larger percentage, a longer"
        " deadline, or a smaller `minEvents`"
    )
    yield _warning(path, WarnPower.LATE_EXPOSURE, message)
