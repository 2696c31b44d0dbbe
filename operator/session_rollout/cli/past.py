"""Access of `backtest`, `power` and `validate` to what a Prometheus server has recorded."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from session_rollout.api.quantities import duration
from session_rollout.cli.command import usage_error
from session_rollout.cli.common import parse_time
from session_rollout.simulation.history import History, Incident, SeasonalHistory

if TYPE_CHECKING:
    from session_rollout.adapters.recorded import Recorder
    from session_rollout.api.metrics import Metric

BETWEEN: Final = ".."


def credentials(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options --token-file and --ca-file of a command that reads from Prometheus."""
    place = click.Path(path_type=Path)
    trusting = click.option("--ca-file", type=place, help="Trust the certificate authorities in this PEM file.")(command)
    return click.option("--token-file", type=place, help="Send the bearer token in this file.")(trusting)


def incident_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option --incident, as `incidents`: texts for `incident_of`."""
    return click.option(
        "--incident",
        "incidents",
        multiple=True,
        metavar="START..END",
        help="Mark a time in which something was wrong, such as 2026-11-24T14:02..2026-11-24T14:30. Can be repeated.",
    )(command)


def incident_of(text: str) -> Incident:
    """The time that an option --incident marks. Raises UsageError."""
    begin, separator, end = text.partition(BETWEEN)
    if not separator:
        raise usage_error(f"--incident is {text!r}; use START..END, such as 2026-11-24T14:02..2026-11-24T14:30")
    incident = Incident(time_of(begin, "--incident"), time_of(end, "--incident"))
    if incident.end < incident.start:
        raise usage_error(f"--incident is {text!r}; its end is before its start")
    return incident


def time_of(text: str, option: str) -> datetime:
    """The time in an option. Raises UsageError."""
    try:
        return parse_time(text)
    except ValueError as error:
        raise usage_error(f"{option}: {error}") from error


def recorder_of(url: str, directory: Path | None, token_file: Path | None, ca_file: Path | None) -> "Recorder":
    """A reader of the server that --prometheus names; it keeps results in a directory, if there is one."""
    from session_rollout.adapters.recorded import Place, Recorder

    if not url.startswith(("http://", "https://")):
        raise usage_error(f"--prometheus is {url!r}; it must begin with http:// or https://")
    return Recorder(Place(url.rstrip("/"), token_file, ca_file), directory, datetime.now(UTC))


async def seasons_of(
    recorder: "Recorder", metric: "Metric", start: datetime, end: datetime, interval: timedelta
) -> SeasonalHistory | None:
    """What checks with a baseline compare from `start` to `end`, and in the seasons before: the query is the operator's own.

    None if the metric is not compared with seasons. It is empty if the query has no past. Raises ProviderFailed.
    """
    from session_rollout.adapters.promql_seasons import query_of_seasons

    if metric.seasonal is None:
        return None
    query, means = query_of_seasons(metric, ()), History.of(start, interval, ())
    if query is not None:
        first = start - metric.seasonal.count * duration(metric.seasonal.season)
        begin, values = await recorder.values(query, first, end, interval)
        means = History(begin, interval, values)
    return SeasonalHistory(means, metric.seasonal)
