"""A backtest as text, as data, or as an HTML page with a picture of each history."""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import click

from session_rollout.api.checks import Guard
from session_rollout.api.metrics import SEASONS_NEEDED
from session_rollout.api.quantities import format_duration
from session_rollout.cli.common import counted, print_table
from session_rollout.cli.warnings_noise import small_text
from session_rollout.core.evaluation import tolerance_of
from session_rollout.simulation.backtest import Aborts, CheckNoise, Detection, GuardBacktest, PhaseBacktest
from session_rollout.simulation.history import History, Incident

TITLES: Final = ("Guard", "False aborts", "Probability", "95% interval", "Worst hour (UTC)")
ALL: Final = "all guards"
WIDTH, HEIGHT = 1_100, 120  # of the picture of a history


def print_text(name: str, phases: Sequence[PhaseBacktest], start: datetime, end: datetime) -> None:
    """A table for each phase."""
    click.echo(f"{name}: backtest from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC")
    for phase in phases:
        click.echo(f"\nphase {_title(phase)}")
        if rows := _rows(phase):
            print_table([title.upper() for title in TITLES], rows)
        for line in _lines(phase):
            click.echo(f"  {line}")


def _title(phase: PhaseBacktest) -> str:
    return f"{phase.phase}: holds of {format_duration(phase.length)}, {counted(_starts(phase), 'start')}"


def _starts(phase: PhaseBacktest) -> int:
    return phase.guards[0].aborts.starts if phase.guards else 0


def _rows(phase: PhaseBacktest) -> list[tuple[str, ...]]:
    return [_row(guard) for guard in phase.guards] if _starts(phase) else []


def _without_start(phase: PhaseBacktest) -> str:
    if not phase.guards:
        return "no guard that ends or pauses the rollout has a past"
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
    if not _starts(phase):
        yield _without_start(phase)
    for guard in phase.guards:
        for detection in guard.detections if guard.aborts.starts else ():
            yield f"incident {detection.incident.start:%Y-%m-%d %H:%M} UTC: {guard.guard or ALL}: {_found(detection)}"
    yield from _about_seasons(phase)
    for name, share in phase.passing.items():
        passes = f"passes in {_percent(share)} of its results" if share is not None else "has no result that passes or fails"
        yield f"criterion {name} {passes}"


def _about_seasons(phase: PhaseBacktest) -> Iterator[str]:
    """Guards that are not compared with earlier seasons at each start, and tolerances that chance exceeds."""
    for name, number in phase.unseasoned.items():
        if number:
            yield (
                f"guard {name} is Unseasoned at {number:,} of {counted(_starts(phase), 'start')}: the server has fewer than"
                f" {SEASONS_NEEDED} earlier seasons of its metric there, and it is compared with one value from the start"
            )
    for each in phase.noises:
        subject = f"{'guard' if isinstance(each.check, Guard) else 'criterion'} {each.check.name}"
        if each.small is not None:
            yield f"{subject} {small_text(each.small, 'week')}"
        elif each.noise.quantile is None:
            yield f"{subject}: the noise of its baseline was not measured: {each.noise.unmeasured}"


def _found(detection: Detection) -> str:
    if not detection.starts:
        return "no phase runs when it begins"
    after = f", after {format_duration(detection.delay)} (median)" if detection.delay is not None else ""
    return f"acts in {detection.detected:,} of {detection.starts:,} phases that run when it begins{after}"


# --- a page


def as_html(name: str, phases: Sequence[PhaseBacktest], histories: Mapping[str, History], incidents: Sequence[Incident]) -> str:
    """One self-contained page; `histories` has the history of each guard by the guard's name."""
    from session_rollout.cli.render.html import render

    start = min((history.start for history in histories.values()), default=None)
    end = max((history.end for history in histories.values()), default=None)
    return render(
        "backtest.html.j2",
        name=name,
        start=f"{start:%Y-%m-%d %H:%M}" if start else "",
        end=f"{end:%Y-%m-%d %H:%M}" if end else "",
        charts=[_chart(guard, history, phases, incidents) for guard, history in histories.items()],
        titles=TITLES,
        phases=[{"title": _title(phase), "rows": _rows(phase), "lines": list(_lines(phase))} for phase in phases],
    )


def _chart(name: str, history: History, phases: Sequence[PhaseBacktest], incidents: Sequence[Incident]) -> dict[str, Any]:
    def at(time: datetime) -> float:
        share = (time - history.start) / (history.end - history.start)
        return WIDTH * min(max(share, 0.0), 1.0)

    finite = [value for value in history.values if math.isfinite(value)] or [0.0]
    lowest, highest = min(finite), max(finite)
    acts = sorted({time for phase in phases for guard in phase.guards if guard.guard == name for time in guard.acts})
    return {
        "guard": name,
        "width": WIDTH,
        "height": HEIGHT,
        "lowest": f"{lowest:.4g}",
        "highest": f"{highest:.4g}",
        "path": " ".join(_path(history, lowest, highest)),
        "marks": [{"x": at(time), "title": f"acts at {time:%Y-%m-%d %H:%M} UTC"} for time in acts],
        "incidents": [
            {
                "x": at(each.start),
                "width": max(at(each.end) - at(each.start), 2.0),
                "title": f"incident {each.start:%Y-%m-%d %H:%M} to {each.end:%Y-%m-%d %H:%M} UTC",
            }
            for each in incidents
        ],
    }


def _path(history: History, lowest: float, highest: float) -> Iterator[str]:
    """For each column of the picture, a line between the lowest and the highest value; none where there are no values."""
    spread, count = (highest - lowest) or 1.0, len(history.values)
    for column in range(WIDTH):
        part = history.values[column * count // WIDTH : max((column + 1) * count // WIDTH, column * count // WIDTH + 1)]
        known = [value for value in part if math.isfinite(value)]
        if known:
            top, bottom = (HEIGHT - 1 - (HEIGHT - 2) * (value - lowest) / spread for value in (max(known), min(known)))
            yield f"M{column} {top:.1f}V{max(bottom, top + 1):.1f}"


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
            "noise": [_noise(each) for each in phase.noises],
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
        "unseasoned": phase.unseasoned.get(guard.guard, 0) if guard.guard is not None else None,
        "falseAborts": guard.aborts.aborted,
        "probability": guard.aborts.share,
        "interval": [low, high],
        "byHour": [{"starts": hour.starts, "falseAborts": hour.aborted} for hour in guard.by_hour],
        "incidents": [_detection(detection) for detection in guard.detections],
    }


def _noise(each: CheckNoise) -> dict[str, Any]:
    """`noise` is a share of the baseline, in the direction of the tolerance; null if it was not measured."""
    tolerance = tolerance_of(each.check)
    return {
        "check": each.check.name,
        "kind": "Guard" if isinstance(each.check, Guard) else "Criterion",
        "tolerance": tolerance.text if tolerance is not None else None,
        "noise": each.noise.beyond(tolerance.direction) if tolerance is not None else None,
        "tooSmall": each.small is not None,
    }


def _detection(detection: Detection) -> dict[str, Any]:
    return {
        "start": detection.incident.start.isoformat(),
        "end": detection.incident.end.isoformat(),
        "phases": detection.starts,
        "detected": detection.detected,
        "medianSeconds": detection.delay.total_seconds() if detection.delay is not None else None,
    }
