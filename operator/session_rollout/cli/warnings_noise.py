"""What `validate` says of tolerances that the noise of a metric exceeds. Only Prometheus knows the noise."""

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import click

from session_rollout.api.checks import Check, ComparedTo, Guard
from session_rollout.api.metrics import DEFAULT_BASELINE
from session_rollout.api.rollout import RolloutSpec
from session_rollout.cli.admission import Path, Problem
from session_rollout.cli.command import refusal, usage_error
from session_rollout.cli.common import parse_duration
from session_rollout.cli.past import incident_of, recorder_of, seasons_of
from session_rollout.core.evaluation import Direction
from session_rollout.core.hold import acts
from session_rollout.errors import ProviderFailed
from session_rollout.simulation.history import Incident
from session_rollout.simulation.noise import MARGIN, Noise, SmallTolerance, noise_of, too_small

if TYPE_CHECKING:
    from session_rollout.adapters.recorded import Recorder
    from session_rollout.api.metrics import Metric

FIELDS: Final = {
    Direction.MAX_INCREASE: "maxIncrease",
    Direction.MAX_DECREASE: "maxDecrease",
    Direction.MIN_INCREASE: "minIncrease",
}


class WarnNoise(StrEnum):
    """What a warning is about."""

    SMALL_TOLERANCE = "SmallTolerance"


@dataclass(frozen=True)
class NoiseProblems:
    """Guards that would act on noise are errors, other checks are warned of."""

    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def noise_problems(spec: RolloutSpec, options: Mapping[str, Any]) -> NoiseProblems:
    """Every such problem of a valid spec, by the past of the server that the options name. Raises Failure without a connection."""
    problems = NoiseProblems()
    checks = [(path, check) for path, check in _compared(spec) if not check.dry_run]
    known = _measured(spec, tuple(dict.fromkeys(check.metric for _, check in checks)), options) if checks else {}
    for path, check in checks:
        if check.metric in known and (small := too_small(check, known[check.metric])):
            problem = Problem(
                ("spec", *path, FIELDS[small.tolerance.direction]),
                f"{check.name} {small_text(small, options['begin'])}",
                rule=WarnNoise.SMALL_TOLERANCE,
            )
            (problems.errors if isinstance(check, Guard) and acts(check) else problems.warnings).append(problem)
    return problems


def small_text(small: SmallTolerance, length: str) -> str:
    """What is wrong with a tolerance, and what would be right."""
    name = FIELDS[small.tolerance.direction]
    wanted = f"`{name}: {small.smallest}` or more" if small.smallest is not None else "a bound without a baseline"
    return (
        f"tolerates {small.tolerance.text}, but in the last {length}, its metric differed from its baseline by up to"
        f" {100 * small.noise:.2g}% (99.9% of its readings): a tolerance below {MARGIN:g} times that is exceeded by chance. Write {wanted},"
        " or a larger `baseline.window`, or mark what was an incident with --incident"
    )


def _compared(spec: RolloutSpec) -> Iterator[tuple[Path, Check]]:
    """The checks with a baseline, with their places."""
    lists: list[tuple[Path, tuple[Check, ...]]] = [(("guards",), spec.guards)]
    lists += [(("phases", number, "criteria"), phase.criteria) for number, phase in enumerate(spec.phases)]
    for path, checks in lists:
        yield from (((*path, index), check) for index, check in enumerate(checks) if check.compared_to is ComparedTo.BASELINE)


def _measured(spec: RolloutSpec, names: tuple[str, ...], options: Mapping[str, Any]) -> dict[str, Noise]:
    try:
        since = datetime.now(UTC) - parse_duration(options["begin"])
    except (ValueError, OverflowError) as error:
        raise usage_error(f"--from: {error}") from error
    incidents = [incident_of(text) for text in options["incidents"]]
    recorder = recorder_of(options["url"], None, options["token_file"], options["ca_file"])

    async def read() -> dict[str, Noise]:
        metrics = (metric for name in names if (metric := spec.metric(name)) is not None and metric.seasonal is not None)
        return {metric.name: await _noise(recorder, spec, metric, since, incidents) for metric in metrics}

    try:
        known = asyncio.run(read())
    finally:
        recorder.close()
    for name, noise in known.items():
        if noise.quantile is None:
            click.echo(f"metric {name}: the noise of its baseline was not measured: {noise.unmeasured}", err=True)
    return known


async def _noise(
    recorder: "Recorder", spec: RolloutSpec, metric: "Metric", since: datetime, incidents: Sequence[Incident]
) -> Noise:
    """Of the readings that the operator would have compared. Raises Failure without a connection."""
    from session_rollout.adapters.prometheus import UNREACHABLE
    from session_rollout.adapters.promql_seasons import step_of

    interval = timedelta(seconds=math.ceil(spec.interval_of(metric.name).total_seconds()))
    interval = max(interval, step_of(metric.seasonal or DEFAULT_BASELINE))
    try:
        history = await seasons_of(recorder, metric, since, datetime.now(UTC), interval)
    except ProviderFailed as failure:
        if failure.reason in UNREACHABLE:
            raise refusal(f"metric {metric.name}: {failure}") from failure
        return Noise(None, str(failure))
    assert history is not None, "others have no noise"
    return noise_of(history, since, incidents)
