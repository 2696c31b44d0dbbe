"""Work on files, before anything runs: init, validate, diff, rehearse. Only diff asks a cluster."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from session_rollout.adapters.kubectl import ROLLOUTS, Kubectl, KubectlFailed
from session_rollout.adapters.kubectl import Kind as Failed
from session_rollout.cli.command import Command, emit, refusal, wrong
from session_rollout.cli.status import pass_kubectl, rollout_of

if TYPE_CHECKING:
    from session_rollout.cli.validation import Problem
    from session_rollout.cli.yaml_source import Document

ANY_FILE: Final = click.Path(allow_dash=True)  # for completion; what cannot be read is said when it is read
FILES = click.argument("files", nargs=-1, required=True, metavar="FILE...", type=ANY_FILE)


# --- validate


@click.command("validate")
@FILES
@click.option("--strict", is_flag=True, help="Fail on warnings, too.")
@click.option("-o", "--output", "form", type=click.Choice(["json", "yaml"]), help="Print data instead of words.")
def validate(files: tuple[str, ...], *, strict: bool, form: str | None) -> None:
    """Check objects as the API server would, with line and column, and warn of what is legal but unwise.

    FILE may hold several objects; - is the standard input. Other kinds are passed over.
    """
    from session_rollout.cli.validation import KINDS
    from session_rollout.cli.yaml_source import read

    found: list[dict[str, Any]] = []
    count = 0
    for document in (one for file in files for one in read(file)):
        if document.kind not in KINDS and str(document.data.get("apiVersion", "")).split("/")[0] != "sessionrollout.dev":
            click.echo(f"{document.source}: {document.kind or 'an object without a kind'} is passed over", err=True)
            continue
        count += 1
        found += _findings(document)
    if form:
        emit(found, form)
    for one in found if not form else ():
        click.echo(f"{one['file']}:{one['line']}:{one['column']}: {one['severity']}: {one['message']}")
    errors = sum(one["severity"] == "error" for one in found)
    warnings = len(found) - errors
    if errors or (strict and warnings):
        raise refusal(f"{_number(errors, 'error')}, {_number(warnings, 'warning')} in {_number(count, 'object')}")
    if not count:
        raise refusal("there is no SessionRollout in these files")
    if not form:
        click.echo(f"{_number(count, 'object')} valid, {_number(warnings, 'warning')}")


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _findings(document: "Document") -> list[dict[str, Any]]:
    """Errors; warnings only where there are none."""
    from session_rollout.cli.validation import check

    if problems := check(document.data):
        return [_finding(document, one, "error") for one in problems]
    if document.kind != "SessionRollout":
        return []
    from session_rollout.api.rollout import RolloutSpec
    from session_rollout.cli.warnings import advise

    return [_finding(document, one, "warning") for one in advise(RolloutSpec.model_validate(document.data["spec"]))]


def _finding(document: "Document", problem: "Problem", severity: str) -> dict[str, Any]:
    place = document.place(problem.path)
    return {
        "file": document.source,
        "object": document.name,
        "line": place.line,
        "column": place.column,
        "severity": severity,
        "field": problem.field,
        "message": str(problem),
    }


def the_rollout(file: str) -> tuple["Document", Any, tuple["Document", ...]]:
    """The one SessionRollout of a file, its spec, and all that the file holds.

    Raises Failure when it is not valid or not alone.
    """
    from session_rollout.api.rollout import RolloutSpec
    from session_rollout.cli.validation import check
    from session_rollout.cli.yaml_source import read

    documents = read(file)
    found = [one for one in documents if one.kind == "SessionRollout"]
    if len(found) != 1:
        raise refusal(f"{file} holds {len(found)} SessionRollouts; one is needed")
    [document] = found
    if problems := check(document.data):
        place = document.place(problems[0].path)
        raise refusal(f"{file}:{place.line}:{place.column}: {problems[0]} (`validate` shows all)")
    return document, RolloutSpec.model_validate(document.data["spec"]), documents


# --- diff


@click.command("diff", cls=Command)
@click.argument("file", type=ANY_FILE)
@pass_kubectl
def diff(kubectl: Kubectl, file: str) -> None:
    """Show what applying FILE would change in what runs, and what that means for the rollout. Exit code 1: it differs."""
    import difflib

    import yaml

    from session_rollout.cli.validation import completed

    document, spec, _ = the_rollout(file)
    name = document.name
    namespace = document.data["metadata"].get("namespace")
    cluster = Kubectl((*kubectl.flags, f"--namespace={namespace}")) if namespace else kubectl
    try:
        running = cluster.get(ROLLOUTS, name).json()
    except KubectlFailed as error:
        if error.kind is not Failed.NOT_FOUND:
            raise
        raise refusal(f"{name} does not exist yet: applying {file} begins it") from error
    before, after = (
        yaml.safe_dump(one, sort_keys=True, allow_unicode=True).splitlines()
        for one in (running["spec"], completed(document.data)["spec"])
    )
    lines = list(difflib.unified_diff(before, after, "running", file, lineterm="", n=2))
    if not lines:
        click.echo(f"{name} runs as {file} has it")
        return
    for line in lines:
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[0])
        click.echo(click.style(line, fg=style) if style else line)
    click.echo(_consequence(running, spec), err=True)
    raise refusal(f"{name} differs from {file}")


def _consequence(running: dict[str, Any], spec: Any) -> str:
    """What the new generation would do: go on where it is, or stall with a reason."""
    from session_rollout.core.generation import conflict

    rollout = rollout_of(running)
    if rollout.spec.flag_set != spec.flag_set:
        return "It will be refused: `flagSet` must stay as it is, for it salts the hash that picks the users."
    if why := conflict(spec, rollout.status):
        return f"It will stall: {why}."
    if rollout.status.outcome is not None:
        return f"The rollout has ended ({rollout.status.outcome}): a new generation begins with what is not completed."
    return "It goes on where it is: audiences stay, verdicts and approvals are void, the hold begins anew."


# --- rehearse


@click.command("rehearse")
@click.argument("file", type=ANY_FILE)
@click.option(
    "--fail", "fails", multiple=True, metavar="METRIC[=VALUE]@PHASE/STEP[:FOR]", help="A metric fails from that step on."
)
@click.option("--outage", "outages", multiple=True, metavar="TIME@PHASE/STEP", help="Prometheus is gone for a time.")
@click.option("--fail-migration", "failing", multiple=True, metavar="MIGRATION", help="A migration fails.")
@click.option(
    "--scenario",
    metavar="FILE",
    type=ANY_FILE,
    help="The same and more as YAML: start, approveAfter, migrations, fail, outage.",
)
@click.option("--start", metavar="TIME", help="When it begins (default: now).")
@click.option("--approve-after", metavar="TIME", help="How long people need for an approval (default 0s; `never`).")
@click.option("-o", "--output", "form", type=click.Choice(["text", "json", "html"]), default="text", show_default=True)
def rehearse(file: str, *, form: str, **told: Any) -> None:
    """Play a whole programme on a virtual clock, with the operator's own decisions.

    Exit code 1 when it does not end in Promoted.
    """
    from session_rollout.cli.lock_preview import lock_lines
    from session_rollout.cli.render import timeline
    from session_rollout.cli.scenario import scenario_of
    from session_rollout.simulation.rehearsal import rehearse as play

    document, spec, documents = the_rollout(file)
    name = document.name
    result = play(spec, scenario_of(spec, **told), name)
    locks = lock_lines(spec, documents)
    match form:
        case "json":
            emit(timeline.as_data(result, locks), "json")
        case "html":
            click.echo(timeline.as_html(name, spec, result, locks))
        case _:
            timeline.print_text(name, spec, result, locks)
    if result.status.outcome != "Promoted":
        raise refusal(f"it would not be Promoted: {result.status.decision.message}")


# --- init


@click.command("init")
@click.argument("name", required=False)
@click.option("--feature", "features", multiple=True, help="A feature; may be given several times.")
@click.option("--metric", metavar="PROMQL", help="The query that must stay below --below, such as an error rate.")
@click.option("--below", help="Its bound, such as 1%.")
@click.option("--group", "groups", multiple=True, help="Who gets it first, whatever the percentage.")
@click.option("--steps", metavar="LIST", help="Percentages, such as 5,20,50,100.")
@click.option("--hold", help="How long each is kept, such as 1d.")
@click.option("-n", "--namespace", help="Namespace.")
@click.option("-f", "--file", "target", metavar="FILE", type=ANY_FILE, help="Write here instead of to the standard output.")
def init(name: str | None, *, target: str | None, **told: Any) -> None:
    """Write a valid SessionRollout: from the options, and from your answers where there is a terminal."""
    import yaml

    from session_rollout.cli.validation import check

    answers = _answers(name, told)
    document = _document(answers)
    if problems := check(document):
        raise wrong(f"{problems[0]}")
    text = _COMMENT + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
    if target is None:
        click.echo(text, nl=False)
        return
    try:
        with Path(target).open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise wrong(f"{target}: {error.strerror}") from error
    click.echo(f"{target} is written; next: kubectl sessionrollout rehearse {target}")


_COMMENT: Final = "# Made by `kubectl sessionrollout init`; see `validate` and `rehearse` before you apply it.\n"
_QUESTIONS: Final[tuple[tuple[str, str, str], ...]] = (
    ("name", "Name of the rollout", "checkout"),
    ("features", "Features, separated by commas", "newCheckout"),
    (
        "metric",
        "PromQL of an error rate",
        'sum(rate(http_requests_total{code=~"5.."}[5m])) / sum(rate(http_requests_total[5m]))',
    ),
    ("below", "It must stay below", "1%"),
    ("groups", "Groups that get it first, separated by commas (none: -)", "beta"),
    ("steps", "Percentages, separated by commas", "5,20,50,100"),
    ("hold", "How long is each kept", "1d"),
)


def _answers(name: str | None, told: Mapping[str, Any]) -> dict[str, str]:
    """What was given, what a person answers, and defaults where nobody can be asked."""
    import sys

    given = {"name": name, **{key: ",".join(value) if isinstance(value, tuple) else value for key, value in told.items()}}
    answers: dict[str, str] = {"namespace": given.get("namespace") or ""}
    for key, question, default in _QUESTIONS:
        if given.get(key):
            answers[key] = str(given[key])
        elif sys.stdin.isatty():
            answers[key] = click.prompt(question, default=default, err=True)
        elif key in {"name", "features"}:
            raise wrong(f"{'NAME' if key == 'name' else '--feature'} is missing, and nobody can be asked here")
        else:
            answers[key] = "-" if key == "groups" else default
    return answers


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip() and part.strip() != "-"]


def _document(answers: Mapping[str, str]) -> dict[str, Any]:
    groups: Sequence[str] = _list(answers["groups"])
    steps = []
    for text in _list(answers["steps"]):
        percent: int | str = int(text) if text.isdigit() else text
        steps.append({"percent": percent, **({"groups": list(groups)} if groups else {}), "hold": answers["hold"]})
    metadata = {"name": answers["name"], **({"namespace": answers["namespace"]} if answers["namespace"] else {})}
    features = _list(answers["features"])
    check = {"name": "error-rate", "metric": "error-rate", "below": answers["below"]}
    return {
        "apiVersion": "sessionrollout.dev/v1alpha1",
        "kind": "SessionRollout",
        "metadata": metadata,
        "spec": {
            "flagSet": answers["name"],
            "features": [{"name": feature} for feature in features],
            "metrics": [{"name": "error-rate", "query": answers["metric"]}],
            "phases": [{"name": answers["name"], "features": features, "steps": steps, "criteria": [check], "deadline": "3d"}],
            "guards": [{**check, "for": "2m"}],
            "bake": answers["hold"],
        },
    }
