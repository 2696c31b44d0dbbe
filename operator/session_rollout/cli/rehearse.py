"""The command rehearse."""

from typing import Any

import click

from session_rollout.cli.command import emit, page_output, refusal
from session_rollout.cli.common import ANY_FILE
from session_rollout.cli.render import timeline
from session_rollout.cli.scenario import ScenarioOptions, scenario_of
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
@page_output("Print the timeline in this format.")
def rehearse(file: str, *, form: str, **options: Any) -> None:
    """Simulate a whole rollout on a virtual clock, with the operator's own decisions.

    The exit code is 1 if the rollout does not end in Promoted.
    """
    from session_rollout.cli.lock_preview import lock_lines
    from session_rollout.cli.warnings import Warn, warnings_of
    from session_rollout.simulation.rehearsal import rehearse as simulate

    source = read_rollout_file(file)
    if stalls := [problem for problem in warnings_of(source.spec) if problem.rule == Warn.INVALID_QUERY]:
        raise refusal(f"{file}: {stalls[0]}")
    result = simulate(source.spec, scenario_of(source.spec, ScenarioOptions(**options)), source.name)
    locks = lock_lines(source.spec, source.documents)
    match form:
        case "json":
            emit(timeline.as_data(result, locks), "json")
        case "html":
            click.echo(timeline.as_html(source.name, source.spec, result, locks))
        case _:
            timeline.print_text(source.name, source.spec, result, locks)
    if result.status.outcome != "Promoted":
        raise refusal(f"{source.name} does not end in Promoted: {result.status.decision.message}")
