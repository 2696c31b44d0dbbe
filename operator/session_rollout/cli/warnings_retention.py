"""What `validate` says of seasons that a Prometheus server does not keep for long enough."""

import asyncio
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any

from session_rollout.api.checks import ComparedTo
from session_rollout.api.metrics import SEASONS_NEEDED, SeasonalBaseline
from session_rollout.api.quantities import duration, format_duration
from session_rollout.api.rollout import RolloutSpec
from session_rollout.cli.admission import Problem
from session_rollout.cli.past import recorder_of
from session_rollout.core.steps import planned_time


class WarnRetention(StrEnum):
    """What a warning is about."""

    SHORT_RETENTION = "ShortRetention"


def retention_warnings(spec: RolloutSpec, options: Mapping[str, Any]) -> Iterator[Problem]:
    """A warning for each metric whose seasons the server that the options name forgets before a phase ends."""
    needed = {name: length for name in _compared(spec) if (length := _needed(spec, name)) is not None}
    kept = asyncio.run(_retention(options)) if needed else None
    for index, metric in enumerate(spec.metrics):
        if kept is None or needed.get(metric.name, kept) <= kept:
            continue
        message = (
            f"{metric.name} is compared with earlier seasons, which takes samples of {format_duration(needed[metric.name])} at the end of a"
            f" phase, and Prometheus keeps {format_duration(kept)}: without two seasons before the phase, the check is Unseasoned, and without any"
            " at its end, it has no verdict; keep samples for longer, or write `baseline: {count: 0}`"
        )
        yield Problem(("spec", "metrics", index), message, rule=WarnRetention.SHORT_RETENTION)


async def _retention(options: Mapping[str, Any]) -> timedelta | None:
    recorder = recorder_of(options["url"], None, options["token_file"], options["ca_file"])
    try:
        return await recorder.retention()
    finally:
        recorder.close()


def _compared(spec: RolloutSpec) -> set[str]:
    """Names of the metrics of checks with a baseline."""
    return {check.metric for check in spec.all_checks() if check.compared_to is ComparedTo.BASELINE}


def _needed(spec: RolloutSpec, name: str) -> timedelta | None:
    """For how long samples of a metric are read: as long as its longest phase, and two seasons before that; None without seasons."""
    metric = spec.metric(name)
    settings = metric.seasonal if metric is not None else None
    return _longest(spec, name) + _of_seasons(settings) if settings is not None else None


def _of_seasons(settings: SeasonalBaseline) -> timedelta:
    return SEASONS_NEEDED * duration(settings.season) + duration(settings.window)


def _longest(spec: RolloutSpec, name: str) -> timedelta:
    """The planned time of the longest phase in which the metric is compared. A guard is evaluated in all, and in the bake."""
    is_guarded = any(guard.metric == name and guard.compared_to is ComparedTo.BASELINE for guard in spec.guards)
    planned = [
        planned_time([phase])
        for phase in spec.phases
        if is_guarded or any(each.metric == name and each.compared_to is ComparedTo.BASELINE for each in phase.criteria)
    ]
    return max(planned, default=timedelta(0)) + (duration(spec.bake) if is_guarded else timedelta(0))
