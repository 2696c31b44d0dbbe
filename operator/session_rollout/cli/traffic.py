"""The traffic of a rollout that commands calculate with: as options say, or as a Prometheus server has recorded it."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from session_rollout.cli.command import refusal, usage_error
from session_rollout.cli.common import parse_duration
from session_rollout.cli.past import credentials, recorder_of
from session_rollout.errors import ProviderFailed
from session_rollout.simulation.power import Traffic

if TYPE_CHECKING:
    from session_rollout.adapters.recorded import Recorder
    from session_rollout.api.metrics import Metric
    from session_rollout.api.rollout import RolloutSpec

TRAFFIC: Final = frozenset({"traffic", "rate", "url", "begin", "inflation", "token_file", "ca_file"})  # names of the options
PER_HOUR: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)/h")
RATE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)%")
_OPTIONS: Final = (
    click.option("--traffic", metavar="N/h", help="Events of all users in an hour, such as 10000/h, for each metric."),
    click.option("--rate", metavar="RATE", help="Rate of bad events without the feature, such as 0.05%, for each metric."),
    click.option("--prometheus", "url", metavar="URL", help="Measure both on this Prometheus server instead."),
    click.option(
        "--from", "begin", metavar="TIME", default="7d", show_default=True, help="Measure the time since so long ago."
    ),
    click.option(
        "--inflation", type=click.FloatRange(min=1.0), default=1.0, show_default=True, help="How much bad events cluster."
    ),
    credentials,
)


def traffic_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that needs the traffic."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def is_given(options: Mapping[str, Any]) -> bool:
    """Whether any of the options says what the traffic is, or where it is measured."""
    return any(options[name] is not None for name in ("traffic", "rate", "url"))


def traffic_of(spec: "RolloutSpec", names: Sequence[str], options: Mapping[str, Any]) -> dict[str, Traffic]:
    """By metric: as the options say, or as it was measured. Raises Failure."""
    if options["url"] is None:
        return dict.fromkeys(names, Traffic(_number(options, "traffic", PER_HOUR), _number(options, "rate", RATE) / 100))
    if options["traffic"] or options["rate"]:
        raise usage_error("--prometheus measures what --traffic and --rate say; use either")
    return _measured(spec, names, options)


def _number(options: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> float:
    text = options[name]
    example = "10000/h" if name == "traffic" else "0.05%"
    known = pattern.fullmatch(text or "")
    if known is None or (name == "traffic" and not float(known[1])):
        raise usage_error(f"--{name} is {text or 'missing'}; it must be such as {example}, or use --prometheus")
    return float(known[1])


def _measured(spec: "RolloutSpec", names: Sequence[str], options: Mapping[str, Any]) -> dict[str, Traffic]:
    recorder = recorder_of(options["url"], None, options["token_file"], options["ca_file"])

    async def read() -> dict[str, Traffic]:
        return {name: await _of_metric(recorder, spec.metric(name), options["begin"]) for name in names}

    try:
        return asyncio.run(read())
    finally:
        recorder.close()


async def _of_metric(recorder: "Recorder", metric: "Metric | None", begin: str) -> Traffic:
    """The events of a metric in the time since `begin`, whoever had the feature."""
    from session_rollout.adapters.cohort_metrics import totals_of

    assert metric is not None, "`compared_metrics` names metrics"
    try:
        length = parse_duration(begin)
        queries = totals_of(metric, length)
    except ValueError as error:
        raise usage_error(f"metric {metric.name}, or --from: {error}") from error
    try:
        bad, total = [await recorder.latest(query) for query in queries]
    except ProviderFailed as failure:
        raise refusal(f"metric {metric.name}: {failure}") from failure
    if not total:
        raise refusal(f"metric {metric.name}: the server has no events of the last {begin}")
    return Traffic(total / (length.total_seconds() / 3600), (bad or 0.0) / total, counts_bad=bad is not None)
