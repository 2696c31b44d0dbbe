"""The command rehearse."""

from typing import Any

import click

from session_rollout.cli.command import emit, page_output, refusal
from session_rollout.cli.common import ANY_FILE
from session_rollout.cli.render import timeline
from session_rollout.cli.scenario import ScenarioOptions, scenario_of
from session_rollout.cli.traffic import TRAFFIC, is_given, traffic_options
from session_rollout.cli.validate import read_rollout_file


@click.command("rehearse")
@click.argument("file", type=ANY_FILE)
@click.option(
    "--fail",
    "fail",
    multiple=True,
    metavar="METRIC[=VALUE]@PHASE/STEP[:TIME]",
    help="Simulate a failure of a metric from a step on, such as error-rate=5%@checkout/2:30m. Can be repeated.",
)
@click.option(
    "--outage",
    "outage",
    multiple=True,
    metavar="TIME@PHASE/STEP",
    help="Simulate an outage of Prometheus, such as 2h@checkout/1. Can be repeated.",
)
@click.option(
    "--fail-migration",
    "fail_migrations",
    multiple=True,
    metavar="MIGRATION",
    help="Simulate a failure of a migration. Can be repeated.",
)
@click.option(
    "--scenario",
    metavar="FILE",
    type=ANY_FILE,
    help="Read a scenario from YAML with the keys start, approveAfter, migrations, failMigrations, fail and outage.",
)
@click.option("--start", metavar="TIME", help="Start the simulation at this time.", show_default="now")
@click.option(
    "--approve-after",
    metavar="TIME",
    help="Approve steps and gates after this time; with `never`, do not approve them.",
    show_default="0s",
)
@traffic_options
@page_output("Print the timeline in this format.")
def rehearse(file: str, *, form: str, **options: Any) -> None:
    """Simulate a whole rollout on a virtual clock, with the operator's own decisions.

    The simulated users are as many as every comparison needs. With the traffic, the command also says which checks of counted events
    would not see enough in a step, or keep it waiting. The exit code is 1 if the rollout does not end in Promoted.
    """
    from session_rollout.cli.lock_preview import lock_lines
    from session_rollout.cli.warnings import Warn, warnings_of
    from session_rollout.cli.warnings_power import power_warnings
    from session_rollout.simulation.rehearsal import rehearse as simulate

    source = read_rollout_file(file)
    if stalls := [problem for problem in warnings_of(source.spec) if problem.rule == Warn.INVALID_QUERY]:
        raise refusal(f"{file}: {stalls[0]}")
    scenario = ScenarioOptions(**{name: value for name, value in options.items() if name not in TRAFFIC})
    power = [problem.message for problem in power_warnings(source.spec, options)] if is_given(options) else None
    result = simulate(source.spec, scenario_of(source.spec, scenario), source.name)
    beside = timeline.Beside(lock_lines(source.spec, source.documents), power)
    match form:
        case "json":
            emit(timeline.as_data(result, beside), "json")
        case "html":
            click.echo(timeline.as_html(source.name, source.spec, result, beside))
        case _:
            timeline.print_text(source.name, source.spec, result, beside)
    if result.status.outcome != "Promoted":
        raise refusal(f"{source.name} does not end in Promoted: {result.status.decision.message}")
