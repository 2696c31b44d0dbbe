"""The command backtest."""

import asyncio
import math
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from session_rollout.cli.command import emit, page_output, refusal, usage_error
from session_rollout.cli.common import ANY_FILE, listed, parse_duration
from session_rollout.cli.past import credentials, incident_of, incident_option, recorder_of, seasons_of, time_of
from session_rollout.cli.render import backtest as render
from session_rollout.cli.validate import read_rollout_file
from session_rollout.errors import ProviderFailed
from session_rollout.simulation.backtest import backtest as run_backtest
from session_rollout.simulation.backtest import guards_of, left_out, metrics_of, seasonal_metrics
from session_rollout.simulation.history import History

if TYPE_CHECKING:
    from session_rollout.adapters.recorded import Recorder
    from session_rollout.api.rollout import RolloutSpec

LONGEST: Final = timedelta(days=365)


@click.command("backtest")
@click.argument("file", type=ANY_FILE)
@click.option("--prometheus", "url", metavar="URL", required=True, help="Read the past from this Prometheus server.")
@click.option("--from", "begin", metavar="TIME", default="28d", show_default=True, help="Go back this far, or to this time.")
@click.option("--to", "end", metavar="TIME", help="Go up to this time.", show_default="now")
@incident_option
@credentials
@click.option("--cache", "directory", type=click.Path(path_type=Path), help="Keep results in this directory.")
@page_output("Print in this format.")
def backtest(file: str, *, url: str, incidents: Sequence[str], form: str, begin: str, end: str | None, **places: Any) -> None:
    """Say how often the guards of a rollout would have ended it in the past, although nobody had its features.

    Each phase is started at every hour of the recorded past. The command needs no cluster, and changes nothing.
    """
    source = read_rollout_file(file)
    start, until = _span(begin, end, datetime.now(UTC))
    marked = [incident_of(text) for text in incidents]
    histories = _histories(source.spec, recorder_of(url, places.pop("directory") or _cache(), **places), start, until)
    result = run_backtest(source.spec, histories, marked)
    if names := left_out(source.spec):
        click.echo(f"left out, because a metric has `cohorts`: {listed(names)}", err=True)
    match form:
        case "json":
            emit(render.as_data(result), "json")
        case "html":
            shown = {guard.name: histories[guard.metric] for guard in guards_of(source.spec)}
            click.echo(render.as_html(source.name, result, shown, marked))
        case _:
            render.print_text(source.name, result, start, until)


def _span(begin: str, end: str | None, now: datetime) -> tuple[datetime, datetime]:
    """The first and the last moment. `begin` is a time, or how long before the last one it was."""
    until = now if end is None else time_of(end, "--to")
    try:
        start = until - parse_duration(begin)
    except ValueError:
        start = time_of(begin, "--from")
    if not now - LONGEST <= start < until <= now:
        raise usage_error(f"--from is {begin}; it must be before --to, and both in the past {LONGEST.days} days")
    return start, until


def _cache() -> Path:
    """Where programs of a user keep what they can get again (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "session-rollout" / "backtest"


def _histories(spec: "RolloutSpec", recorder: "Recorder", start: datetime, end: datetime) -> dict[str, History]:
    """The past of each metric that is needed, one after the other, and the seasons before it."""
    compared = seasonal_metrics(spec)

    async def read() -> dict[str, History]:
        return {name: await _history(spec, recorder, name, start, end, seasonal=name in compared) for name in metrics_of(spec)}

    try:
        return asyncio.run(read())
    finally:
        recorder.close()


async def _history(
    spec: "RolloutSpec", recorder: "Recorder", name: str, start: datetime, end: datetime, *, seasonal: bool
) -> History:
    metric = spec.metric(name)
    assert metric is not None, "`metrics_of` names metrics"
    assert metric.query is not None, "with a past"
    interval = timedelta(seconds=math.ceil(spec.interval_of(name).total_seconds()))
    try:
        first, values = await recorder.values(metric.query, start, end, interval)
        seasons = await seasons_of(recorder, metric, start, end, interval) if seasonal else None
    except ProviderFailed as failure:
        raise refusal(f"metric {name}: {failure}") from failure
    return History(first, interval, values, seasons)
