"""The command validate, and how other commands read the SessionRollout of a file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import click

from session_rollout.api import GROUP
from session_rollout.api.rollout import RolloutSpec
from session_rollout.cli.admission import KINDS, Problem, check, completed
from session_rollout.cli.command import emit, output, refusal
from session_rollout.cli.common import ANY_FILE, counted
from session_rollout.cli.past import incident_option
from session_rollout.cli.traffic import is_given, traffic_options
from session_rollout.cli.warnings import warnings_of
from session_rollout.cli.warnings_noise import NoiseProblems, noise_problems
from session_rollout.cli.warnings_power import power_warnings
from session_rollout.cli.warnings_retention import retention_warnings
from session_rollout.cli.yaml_source import Document, read

ROLLOUT_KIND = "SessionRollout"


class Severity(StrEnum):
    """Whether the API server rejects an object."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """One problem, with its place in the file."""

    file: str
    object: str
    line: int
    column: int
    severity: Severity
    rule: str  # what a warning, or an error by what was measured, is about
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.severity}: {self.field}: {self.message}"


@click.command("validate")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=ANY_FILE)
@click.option("--strict", is_flag=True, help="Fail on warnings as well as errors.")
@traffic_options
@incident_option
@output()
def validate(files: tuple[str, ...], *, strict: bool, form: str | None, **options: Any) -> None:
    """Check files as the API server would, and warn about probable mistakes.

    A FILE may contain several objects; `-` means standard input. Objects of other kinds are skipped. With the traffic, the command also
    warns of comparisons that would not see the harm that they guard against, as `power` shows it. With --prometheus, it also rejects
    guards that the noise of their metric would breach, and warns of such criteria, and of a server that does not keep samples for long
    enough.
    """
    documents = [document for file in files for document in read(file) if _is_ours(document)]
    if not documents:
        raise refusal(f"no SessionRollout or SessionRolloutAction found in {', '.join(files)}")
    findings = [finding for document in documents for finding in _findings(document, options)]
    _print(findings, form)
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    summary = f"{counted(errors, 'error')}, {counted(len(findings) - errors, 'warning')}"
    if errors or (strict and findings):
        raise refusal(f"{summary} in {counted(len(documents), 'object')}")
    click.echo(f"{counted(len(documents), 'object')} checked: {summary}", err=bool(form))


def _is_ours(document: Document) -> bool:
    """Whether an object is of our kinds or group; others are reported and skipped."""
    if document.kind in KINDS or str(document.data.get("apiVersion", "")).split("/")[0] == GROUP:
        return True
    click.echo(f"{document.source}: skipped {document.kind or 'an object without kind'}", err=True)
    return False


def _print(findings: Sequence[Finding], form: str | None) -> None:
    if form:
        emit([asdict(finding) for finding in findings], form)
        return
    for finding in findings:
        click.echo(str(finding))


def _findings(document: Document, options: Mapping[str, Any]) -> list[Finding]:
    """Errors of an object; warnings only if the API server would accept it."""
    if problems := check(document.data):
        return [_finding(document, problem, Severity.ERROR) for problem in problems]
    if document.kind != ROLLOUT_KIND:
        return []
    spec = RolloutSpec.model_validate(completed(document.data)["spec"])
    noise, forgotten = NoiseProblems(), tuple[Problem, ...]()
    if options["url"] is not None:
        noise, forgotten = noise_problems(spec, options), tuple(retention_warnings(spec, options))
    power = power_warnings(spec, options) if is_given(options) else ()
    warnings = [*warnings_of(spec), *power, *noise.warnings, *forgotten]
    return [
        *(_finding(document, problem, Severity.ERROR) for problem in noise.errors),
        *(_finding(document, problem, Severity.WARNING) for problem in warnings),
    ]


def _finding(document: Document, problem: Problem, severity: Severity) -> Finding:
    place = document.place(problem.path)
    return Finding(
        file=document.source,
        object=document.name,
        line=place.line,
        column=place.column,
        severity=severity,
        rule=problem.rule,
        field=problem.field,
        message=problem.message,
    )


@dataclass(frozen=True)
class RolloutFile:
    """The one SessionRollout of a file, and everything else that the file contains."""

    document: Document
    spec: RolloutSpec
    documents: tuple[Document, ...]

    @property
    def name(self) -> str:
        """Name of the rollout."""
        return self.document.name

    @property
    def namespace(self) -> str | None:
        """Namespace in the file."""
        metadata: dict[str, Any] = self.document.data["metadata"]
        return metadata.get("namespace")


def read_rollout_file(file: str) -> RolloutFile:
    """The SessionRollout of a file. Raises Failure unless the file has exactly one and it is valid."""
    documents = read(file)
    rollouts = [document for document in documents if document.kind == ROLLOUT_KIND]
    if len(rollouts) != 1:
        raise refusal(f"{file}: expected one SessionRollout, found {len(rollouts)}")
    [document] = rollouts
    if problems := check(document.data):
        place = document.place(problems[0].path)
        raise refusal(f"{file}:{place.line}:{place.column}: {problems[0]} (run `validate` for all problems)")
    return RolloutFile(document, RolloutSpec.model_validate(completed(document.data)["spec"]), documents)
