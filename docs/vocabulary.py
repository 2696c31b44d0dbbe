"""The pages about conditions, reasons, verdicts and Events: a table for each enum of the API.

The description of a value is the comment behind it in the source.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from typing import Final

from session_rollout.api import enums
from session_rollout.api.enums import Condition, EventReason
from session_rollout.api.migration_enums import FailureReason, MigrationState, NoReturn, Operation

# The statuses of a condition: True, False, Unknown; empty where a condition never has the status.
STATUSES: Final[dict[Condition, tuple[str, str, str]]] = {
    Condition.READY: (
        "The rollout is promoted.",
        "The rollout is stalled, rolled back or aborted.",
        "The rollout progresses or is paused.",
    ),
    Condition.RECONCILING: (
        "The rollout progresses or is paused.",
        "The rollout is promoted, stalled, rolled back or aborted.",
        "",
    ),
    Condition.STALLED: (
        "The rollout cannot continue by itself, a deadline was exceeded, or the rollout was rolled back or aborted. After a deadline with"
        " `onDeadline: Stall`, the rollout keeps its audience until all criteria pass or an on-call engineer intervenes.",
        "The rollout is not stalled, rolled back or aborted. It may be paused or wait for an approval.",
        "",
    ),
    Condition.SPEC_VALID: (
        "The spec can be carried out.",
        "The spec, or the configuration that it refers to, has a problem that the API server cannot detect.",
        "",
    ),
    Condition.MIGRATIONS_APPLIED: (
        "Every migration is applied, or none is declared.",
        "A migration failed.",
        "A migration is pending.",
    ),
    Condition.EVIDENCE_AVAILABLE: (
        "Every criterion and every guard has a verdict of Pass or Fail about this audience.",
        "A criterion or a guard has another verdict. The hold timer does not run.",
        "The rollout is neither in a step nor in the bake, or the first verdicts about this audience are pending.",
    ),
    Condition.PAUSED: ("An action, a guard or `spec.suspend` paused the rollout.", "The rollout is not paused.", ""),
    Condition.ROLLED_BACK: (
        "The rollout was rolled back or aborted.",
        "No rollback has happened.",
        "A rollback is running.",
    ),
    Condition.EMERGENCY_ACTIVE: (
        "An emergency turns features off for all users; the message names them.",
        "No emergency is in force.",
        "",
    ),
    Condition.NOTIFIED: (
        "Every sink accepts notifications, or none is configured.",
        "A sink does not accept notifications.",
        "",
    ),
}
# Heading and enum, in the order of the page.
SECTIONS: Final[tuple[tuple[str, type[StrEnum]], ...]] = (
    ("State", enums.State),
    ("Decision actions", enums.DecisionAction),
    ("Decision reasons", enums.DecisionReason),
    ("Outcomes", enums.Outcome),
    ("Stages", enums.Stage),
    ("Phase states", enums.PhaseState),
    ("Verdicts", enums.Verdict),
    ("Reasons of verdicts", enums.CheckReason),
    ("Kinds of checks", enums.CheckKind),
    ("Actions", enums.ActionType),
    ("Reasons of responses", enums.ActionReason),
    ("Migration states", MigrationState),
    ("Operations of migrations", Operation),
    ("Reasons of failed migrations", FailureReason),
    ("Points of no return", NoReturn),
)


@cache
def descriptions(module_source: str) -> dict[tuple[str, str], str]:
    """The comment behind each value, by the name of its class and of the value."""
    lines, texts = module_source.splitlines(), {}
    for node in ast.parse(module_source).body:
        for member in node.body if isinstance(node, ast.ClassDef) else ():
            match member:
                case ast.Assign(targets=[ast.Name(id=name)]):
                    comment = lines[member.lineno - 1].partition("  # ")[2]
                    assert isinstance(node, ast.ClassDef)
                    texts[node.name, name] = re.sub(r"\s+# noqa.*", "", comment)
    return texts


def described(kind: type[StrEnum]) -> Iterator[tuple[str, str]]:
    """Each value of an enum with its description."""
    module = inspect.getmodule(kind)
    assert module is not None
    texts = descriptions(inspect.getsource(module))
    for member in kind:
        yield member.value, texts[kind.__name__, member.name]


def conditions() -> str:
    """Conditions, reasons and verdicts."""
    parts = [
        "# Conditions, reasons and verdicts\n",
        "These names are machine-readable and part of the API. Messages are human-readable, and their wording may change.\n",
        "## Conditions\n",
        "`Ready`, `Reconciling` and `Stalled` follow kstatus, so that `kubectl wait`, Argo CD and Flux understand them.\n",
        "| condition | True | False | Unknown |\n|---|---|---|---|",
        *(f"| `{condition}` | {' | '.join(STATUSES[condition])} |" for condition in Condition),
        "\n## Reasons of conditions\n",
        "`Ready` and `Reconciling` have the [reason of the decision](#decision-reasons). So does `Stalled` when it is True. A"
        " SessionRolloutAction with a response has the `Accepted` condition, whose reasons are [those of the response](#reasons-of-responses).\n",
        _table("reason", enums.ConditionReason),
    ]
    for heading, kind in SECTIONS:
        parts += [f"\n## {heading}\n", f"{kind.__doc__}\n"]
        parts += (
            [
                "The hold timer runs only while every criterion and every guard has the verdict `Pass` or `Fail` about this audience.\n"
            ]
            if kind is enums.Verdict
            else []
        )
        parts += ["[Stages](stages.md) shows the transitions.\n"] if kind is enums.Stage else []
        parts.append(_table("value", kind))
    return "\n".join(parts) + "\n"


def events() -> str:
    """Reasons of Events."""
    texts = dict(described(EventReason))
    rows = [
        f"| `{reason}` | {'Warning' if reason.is_warning else 'Normal'} | {texts[reason.value]} |" for reason in EventReason
    ]
    return "\n".join(
        [
            "# Events\n",
            "The operator emits Kubernetes Events for a SessionRollout. The same reasons appear in `status.history[].event`, and"
            " `spec.notifications[].events` selects by them. They are part of the API.\n",
            "| reason | type | meaning |\n|---|---|---|",
            *rows,
            "",
        ]
    )


def _table(column: str, kind: type[StrEnum]) -> str:
    rows = [f"| `{value}` | {text} |" for value, text in described(kind)]
    return "\n".join([f"| {column} | meaning |\n|---|---|", *rows])
