"""A backtest as text or as data."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import click

from session_rollout.api.quantities import format_duration
from session_rollout.cli.common import counted, print_table
from session_rollout.simulation.backtest import Aborts, Detection, GuardBacktest, PhaseBacktest

TITLES: Final = ("GUARD", "FALSE ABORTS", "PROBABILITY", "95% INTERVAL", "WORST HOUR (UTC)")
ALL: Final = "all guards"


def print_text(name: str, phases: Sequence[PhaseBacktest], start: datetime, end: datetime) -> None:
    """A table for each phase."""
    click.echo(f"{name}: backtest from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC")
    for phase in phases:
        starts = phase.guards[0].aborts.starts if phase.guards else 0
        click.echo(f"\nphase {phase.phase}: holds of {format_duration(phase.length)}, {counted(starts, 'start')}")
        if starts:
            print_table(TITLES, [_row(guard) for guard in phase.guards])
        else:
            click.echo(f"  {_without_start(phase)}")
        for line in _lines(phase):
            click.echo(f"  {line}")


def _without_start(phase: PhaseBacktest) -> str:
    if not phase.guards:
        return "the rollout has no guard that ends or pauses it"
    if not phase.hours:
        return "no start: the recorded past is shorter than the holds of the phase; use an earlier --from"
    guards = ", ".join(f"{name} at {number:,}" for name, number in phase.allowed.items())
    return f"no start: the guards never pass together; of {counted(phase.hours, 'hour')}, they pass: {guards}"


def _row(guard: GuardBacktest) -> tuple[str, ...]:
    aborts, (low, high) = guard.aborts, guard.aborts.interval
    worst = max(range(len(guard.by_hour)), key=lambda hour: (guard.by_hour[hour].share, guard.by_hour[hour].aborted))
    hour = f"{worst:02}:00, {_count(guard.by_hour[worst])}" if aborts.aborted else "none"
    return guard.guard or ALL, _count(aborts), _percent(aborts.share), f"{_percent(low)} to {_percent(high)}", hour


def _count(aborts: Aborts) -> str:
    return f"{aborts.aborted:,} of {aborts.starts:,}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _lines(phase: PhaseBacktest) -> Iterator[str]:
    for guard in phase.guards:
        for detection in guard.detections if guard.aborts.starts else ():
            yield f"incident {detection.incident.start:%Y-%m-%d %H:%M} UTC: {guard.guard or ALL}: {_found(detection)}"
    for name, share in phase.passing.items():
        yield f"criterion {name} passes in {_percent(share)} of its results"


def _found(detection: Detection) -> str:
    if not detection.starts:
        return "no phase runs when it begins"
    after = f", after {format_duration(detection.delay)} (median)" if detection.delay is not None else ""
    return f"acts in {detection.detected:,} of {detection.starts:,} phases that run when it begins{after}"


# --- data


def as_data(phases: Sequence[PhaseBacktest]) -> list[dict[str, Any]]:
    """The same for programs; durations in seconds."""
    return [
        {
            "phase": phase.phase,
            "seconds": phase.length.total_seconds(),
            "hours": phase.hours,
            "guards": [_guard(guard, phase) for guard in phase.guards],
            "criteria": [{"name": name, "passing": share} for name, share in phase.passing.items()],
        }
        for phase in phases
    ]


def _guard(guard: GuardBacktest, phase: PhaseBacktest) -> dict[str, Any]:
    """`guard` is null for all guards together."""
    low, high = guard.aborts.interval
    return {
        "guard": guard.guard,
        "passes": phase.allowed[guard.guard] if guard.guard is not None else guard.aborts.starts,
        "starts": guard.aborts.starts,
        "falseAborts": guard.aborts.aborted,
        "probability": guard.aborts.share,
        "interval": [low, high],
        "byHour": [{"starts": hour.starts, "falseAborts": hour.aborted} for hour in guard.by_hour],
        "incidents": [_detection(detection) for detection in guard.detections],
    }


def _detection(detection: Detection) -> dict[str, Any]:
    return {
        "start": detection.incident.start.isoformat(),
        "end": detection.incident.end.isoformat(),
        "phases": detection.starts,
        "detected": detection.detected,
        "medianSeconds": detection.delay.total_seconds() if detection.delay is not None else None,
    }
