"""The command power."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from session_rollout.api.enums import CheckKind
from session_rollout.cli.command import emit, output, refusal, usage_error
from session_rollout.cli.common import ANY_FILE, parse_duration, print_table
from session_rollout.cli.past import credentials, recorder_of
from session_rollout.cli.validate import read_rollout_file
from session_rollout.errors import ProviderFailed
from session_rollout.simulation.power import Power, Traffic, compared_metrics, powers_of

if TYPE_CHECKING:
    from session_rollout.adapters.recorded import Recorder
    from session_rollout.api.metrics import Metric
    from session_rollout.api.rollout import RolloutSpec

PER_HOUR: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)/h")
RATE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)%")


@click.command("power")
@click.argument("file", type=ANY_FILE)
@click.option("--traffic", metavar="N/h", help="Events of all users in an hour, such as 10000/h, for each metric.")
@click.option("--rate", metavar="RATE", help="Rate of bad events without the feature, such as 0.05%, for each metric.")
@click.option("--prometheus", "url", metavar="URL", help="Measure both on this Prometheus server instead.")
@click.option("--from", "begin", metavar="TIME", default="7d", show_default=True, help="Measure the time since so long ago.")
@click.option(
    "--inflation", type=click.FloatRange(min=1.0), default=1.0, show_default=True, help="How much bad events cluster."
)
@credentials
@output()
def power(file: str, *, form: str | None, inflation: float, **options: Any) -> None:
    """Say what the comparisons of a rollout would see: how small a harm, and how soon a harmless feature passes.

    Every figure has a probability of four in five. The command needs no cluster, and changes nothing.
    """
    source = read_rollout_file(file)
    names = tuple(compared_metrics(source.spec))
    if not names:
        raise refusal("no guard and no criterion of this rollout has `comparedTo: Control` with a metric that counts events")
    powers = powers_of(source.spec, _traffic(source.spec, names, options), inflation)
    if form:
        emit([_as_data(each) for each in powers], form)
    else:
        _print(powers)


def _traffic(spec: "RolloutSpec", names: Sequence[str], options: dict[str, Any]) -> dict[str, Traffic]:
    """By metric: as the options say, or as it was measured."""
    if options["url"] is None:
        return dict.fromkeys(names, Traffic(_number(options, "traffic", PER_HOUR), _number(options, "rate", RATE) / 100))
    if options["traffic"] or options["rate"]:
        raise usage_error("--prometheus measures what --traffic and --rate say; use either")
    return _measured(spec, names, options)


def _number(options: dict[str, Any], name: str, pattern: re.Pattern[str]) -> float:
    text = options[name]
    example = "10000/h" if name == "traffic" else "0.05%"
    known = pattern.fullmatch(text or "")
    if known is None or (name == "traffic" and not float(known[1])):
        raise usage_error(f"--{name} is {text or 'missing'}; it must be such as {example}, or use --prometheus")
    return float(known[1])


def _measured(spec: "RolloutSpec", names: Sequence[str], options: dict[str, Any]) -> dict[str, Traffic]:
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
    return Traffic(total / (length.total_seconds() / 3600), (bad or 0.0) / total)


def _as_data(power: Power) -> dict[str, Any]:
    passes = power.passes_after
    return {
        "kind": power.kind,
        "check": power.check,
        "phase": power.phase,
        "step": power.step,
        "percent": power.percent,
        "holdSeconds": power.hold.total_seconds(),
        "eventsPerHour": power.traffic.events,
        "rateWithout": power.traffic.rate,
        "toleratedRate": power.tolerated,
        "smallestRateSeen": power.smallest,
        "passesAfterSeconds": None if passes is None else passes.total_seconds(),
        "tooShort": power.is_too_short,
    }


TITLES: Final = ("PHASE", "STEP", "AUDIENCE", "HOLD", "CHECK", "TOLERATES", "SEES", "PASSES AFTER")


def _print(powers: Sequence[Power]) -> None:
    print_table(TITLES, [tuple(_cells(row)) for row in powers])
    if late := [row for row in powers if row.is_too_short]:
        steps = ", ".join(dict.fromkeys(f"{row.phase} {row.step}" for row in late))
        click.echo(f"a criterion would keep these steps waiting after their hold: {steps}; use more users, or a longer hold")


def _cells(row: Power) -> Iterator[str]:
    from session_rollout.api.quantities import format_duration

    yield from (row.phase, str(row.step), f"{row.percent:g}%", format_duration(row.hold), f"{row.kind} {row.check}")
    yield f"{100 * row.tolerated:.3g}%"
    yield "nothing" if row.smallest is None else f"{100 * row.smallest:.3g}%"
    passes = row.passes_after
    yield "" if row.kind != CheckKind.CRITERION else "never" if passes is None else format_duration(passes)
