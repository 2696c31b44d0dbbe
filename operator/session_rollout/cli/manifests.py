"""The commands init and diff."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import click

from session_rollout.adapters.kubectl import ROLLOUT_RESOURCE, FailureKind, Kubectl, KubectlFailed
from session_rollout.api.rollout import RolloutSpec, SessionRollout
from session_rollout.api.status import RolloutStatus
from session_rollout.cli.admission import check, completed
from session_rollout.cli.command import Command, emit, output, refusal, usage_error
from session_rollout.cli.common import ANY_FILE, pass_kubectl, rollout_of
from session_rollout.cli.validate import RolloutFile, read_rollout_file

# --- init


@click.command("init")
@click.argument("name", required=False)
@click.option("--feature", "features", multiple=True, help="Roll out this feature. Can be repeated.")
@click.option("--metric", metavar="PROMQL", help="Use this query, such as an error rate, for the criterion and the guard.")
@click.option("--below", metavar="BOUND", help="Require the metric to be below this bound.", show_default="1%")
@click.option("--group", "groups", multiple=True, help="Give the feature to this group first. Can be repeated.")
@click.option("--steps", metavar="LIST", help="Use these percentages.", show_default="5,20,50,100")
@click.option("--hold", metavar="DURATION", help="Hold each step this long.", show_default="1d")
@click.option("-n", "--namespace", help="Write this namespace into the object.")
@click.option("-f", "--file", "target", metavar="FILE", type=ANY_FILE, help="Create this file.", show_default="standard output")
def init(name: str | None, *, target: str | None, **options: Any) -> None:
    """Write a valid SessionRollout. On a terminal, the command prompts for options that are not given."""
    import yaml

    document = _document(_answers(name, options))
    if problems := check(document):
        raise usage_error(f"{problems[0]}")
    text = _COMMENT + yaml.dump(document, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=120)
    if target is None:
        click.echo(text, nl=False)
        return
    try:
        with Path(target).open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise usage_error(f"{target}: {error.strerror}") from error
    click.echo(f"created {target}; next: kubectl sessionrollout rehearse {target}")


# Read as something else than a string by YAML 1.1, by the YAML of Kubernetes, or by both.
_AMBIGUOUS: Final = re.compile(r"y|n|yes|no|on|off|true|false|null|~|[-+.0-9].*", re.IGNORECASE | re.DOTALL)


def _dumper() -> type[Any]:
    """A writer of YAML that quotes every string which a reader could take for something else."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def represent_text(self, text: str) -> yaml.ScalarNode:
            return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if _AMBIGUOUS.fullmatch(text) else None)

    Dumper.add_representer(str, Dumper.represent_text)
    return Dumper


LEAST_EVENTS: Final = "20"  # in the range of the query: with fewer, one failure would decide
_COMMENT: Final = "# Created by `kubectl sessionrollout init`. Run `validate` and `rehearse` before you apply it.\n"
_QUESTIONS: Final[tuple[tuple[str, str, str], ...]] = (
    ("name", "Name of the rollout", "checkout"),
    ("features", "Features, separated by commas", "newCheckout"),
    (
        "metric",
        "PromQL query of an error rate",
        '(sum(rate(http_requests_total{code=~"5.."}[5m])) or vector(0)) / sum(rate(http_requests_total[5m]))',
    ),
    ("below", "Bound that it must be below", "1%"),
    ("groups", "Groups that get it first, separated by commas (- for none)", "beta"),
    ("steps", "Percentages, separated by commas", "5,20,50,100"),
    ("hold", "Hold of each step", "1d"),
)


def _answers(name: str | None, options: Mapping[str, Any]) -> dict[str, str]:
    """The options, then what the user enters; without a terminal, the defaults of the options that have one."""
    texts = {key: ",".join(value) if isinstance(value, tuple) else value for key, value in options.items()}
    given = {"name": name, **texts}
    answers: dict[str, str] = {"namespace": given.get("namespace") or ""}
    for key, question, default in _QUESTIONS:
        if given.get(key):
            answers[key] = str(given[key])
        elif sys.stdin.isatty():
            answers[key] = click.prompt(question, default=default, err=True)
        elif key in {"name", "features"}:
            raise usage_error(f"{'NAME' if key == 'name' else '--feature'} is required; cannot prompt without a terminal")
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
    criterion: dict[str, Any] = {"name": "error-rate", "metric": "error-rate", "below": answers["below"]}
    metrics = [{"name": "error-rate", "query": answers["metric"]}]
    if (events := _events_of(answers["metric"])) is not None:
        metrics.append({"name": "requests", "query": events})
        criterion["minimum"] = {"metric": "requests", "above": LEAST_EVENTS}
    return {
        "apiVersion": "sessionrollout.dev/v1alpha1",
        "kind": "SessionRollout",
        "metadata": metadata,
        "spec": {
            "flagSet": answers["name"],
            "features": [{"name": feature} for feature in features],
            "metrics": metrics,
            "phases": [
                {"name": answers["name"], "features": features, "steps": steps, "criteria": [criterion], "deadline": "3d"}
            ],
            "guards": [{**criterion, "for": "2m"}],
            "bake": answers["hold"],
        },
    }


def _events_of(query: str) -> str | None:
    """The query that counts what a ratio is about, such as requests; None for another query, or one that cannot be parsed."""
    from session_rollout.adapters.promql_ratios import ratios

    return next((ratio.events for ratio in ratios(query) if ratio.events), None)


# --- diff


class Effect(StrEnum):
    """What applying a file does to the rollout."""

    NONE = "None"
    CREATES = "Creates"
    REFUSED = "Refused"
    STALLS = "Stalls"
    STARTS_AGAIN = "StartsAgain"
    STAYS_ENDED = "StaysEnded"
    CONTINUES = "Continues"


@dataclass(frozen=True)
class Comparison:
    """The difference between a file and the cluster."""

    effect: Effect
    message: str
    lines: Sequence[str] = ()


@click.command("diff", cls=Command)
@click.argument("file", type=ANY_FILE)
@output()
@pass_kubectl
def diff(kubectl: Kubectl, file: str, form: str | None) -> None:
    """Show what applying FILE would change in the cluster, and what that means for the rollout.

    The exit code is 1 if there is a difference.
    """
    source = read_rollout_file(file)
    comparison = _compare(source, _running(kubectl, source), file)
    if form:
        data = {"effect": comparison.effect, "message": comparison.message, "diff": list(comparison.lines)}
        emit({"file": file, "name": source.name, **data}, form)
    else:
        _print(comparison)
    if comparison.effect is not Effect.NONE:
        raise refusal(f"{source.name} differs from {file}")


def _running(kubectl: Kubectl, source: RolloutFile) -> dict[str, Any] | None:
    """The object in the cluster; None when there is none."""
    cluster = kubectl.also(f"--namespace={source.namespace}") if source.namespace else kubectl
    try:
        return cluster.get(ROLLOUT_RESOURCE, source.name).json()
    except KubectlFailed as error:
        if error.kind is FailureKind.NOT_FOUND:
            return None
        raise


def _compare(source: RolloutFile, running: dict[str, Any] | None, file: str) -> Comparison:
    if running is None:
        return Comparison(Effect.CREATES, f"{source.name} does not exist yet. Applying {file} creates and starts it.")
    lines = _differences(running["spec"], completed(source.document.data)["spec"], file)
    if not lines:
        return Comparison(Effect.NONE, f"{source.name} is up to date with {file}")
    return _consequence(rollout_of(running), source.spec, lines)


def _differences(running: Mapping[str, Any], wanted: Mapping[str, Any], file: str) -> list[str]:
    import difflib

    import yaml

    before, after = (yaml.safe_dump(spec, sort_keys=True, allow_unicode=True).splitlines() for spec in (running, wanted))
    return list(difflib.unified_diff(before, after, "cluster", file, lineterm="", n=2))


def _consequence(rollout: SessionRollout, spec: RolloutSpec, lines: Sequence[str]) -> Comparison:
    from session_rollout.core.generation import conflict, raised_by_edit

    if rollout.spec.flag_set != spec.flag_set and rollout.status.flags.sha256 is not None:
        message = "The API server will reject it: `flagSet` is immutable once the rollout has published, because it determines which users are selected."
        return Comparison(Effect.REFUSED, message, lines)
    if reason := conflict(spec, rollout.status):
        return Comparison(Effect.STALLS, f"The rollout will stall: {reason}.", lines)
    if _was_rolled_back(rollout.status, spec):
        message = f"The rollout has ended ({rollout.status.outcome}) and does not start again: a generation with this plan was rolled back."
        return Comparison(Effect.STAYS_ENDED, f"{message} Use `kubectl sessionrollout retry {rollout.name}`.", lines)
    if outcome := rollout.status.outcome:
        message = f"The rollout has ended ({outcome}). The new generation starts with the phases that are not complete."
        return Comparison(Effect.STARTS_AGAIN, message, lines)
    if raised := raised_by_edit(spec, rollout.status):
        message = f"No step has the published audience: as soon as no guard and no criterion fails, the rollout gives the features to {raised.audience}."
        return Comparison(Effect.CONTINUES, message, lines)
    message = "The rollout continues at the step that has the published audience; verdicts, approvals and the hold start again."
    return Comparison(Effect.CONTINUES, message, lines)


def _was_rolled_back(status: RolloutStatus, spec: RolloutSpec) -> bool:
    from session_rollout.adapters.promql import spelled
    from session_rollout.core.inputs import UNDONE
    from session_rollout.core.plan import plan_of, rolled_back_before

    if status.outcome not in UNDONE:
        return False
    plan = plan_of(spec, {metric.name: spelled(metric) for metric in spec.metrics})
    return rolled_back_before(status, plan) is not None


def _print(comparison: Comparison) -> None:
    for line in comparison.lines:
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[0])
        click.echo(click.style(line, fg=style) if style else line)
    click.echo(comparison.message, err=bool(comparison.lines))
