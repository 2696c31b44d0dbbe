"""Lint rules for up files: statements that block a running application for long, destroy data, or cannot be undone.

Every message says what to write instead. A comment `-- session-rollout: allow RULE` with a reason disables a rule in its file.
The bundles of this project are also checked by squawk, which has most of these rules.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from session_rollout.migrations.schema.bundle import CONTRACT, Step, is_concurrent, without_literals

ALLOW: Final = re.compile(r"--\s*session-rollout:\s*allow\s+([a-z-]+)")
EXCERPT_LENGTH: Final = 60
_CREATES: Final = re.compile(r"\bCREATE\s+(?:UNLOGGED\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?([\w.\"]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """One violation of a rule."""

    file: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.file} line {self.line}: {self.message} ({self.rule})"


@dataclass(frozen=True)
class _Rule:
    name: str
    pattern: re.Pattern[str]
    advice: str
    applies: Callable[[re.Match[str], frozenset[str]], bool] = lambda _match, _created: True


def _existing_table(match: re.Match[str], created: frozenset[str]) -> bool:
    """Whether the table existed before this bundle: no session waits for a new one."""
    return match["table"].strip('"').lower() not in created


def _starting_at_word(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b{pattern}", re.IGNORECASE)


_TABLE: Final = r"(?P<table>[\w.\"]+)"
_ALTER: Final = rf"ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?{_TABLE}[^;]*?\b"
RULES: Final = (
    _Rule(
        "transaction-control",
        _starting_at_word(r"(?:BEGIN|COMMIT|ROLLBACK)\s*(?:;|$|WORK|TRANSACTION)"),
        "remove it: each SQL step already runs in a transaction",
    ),
    _Rule(
        "index-blocks-writes",
        _starting_at_word(rf"CREATE\s+(?:UNIQUE\s+)?INDEX\s+(?!CONCURRENTLY)[^;]*?\bON\s+(?:ONLY\s+)?{_TABLE}"),
        "use CREATE INDEX CONCURRENTLY in a file of its own, otherwise writes are blocked during the whole build",
        _existing_table,
    ),
    _Rule(
        "constraint-scans",
        _starting_at_word(rf"{_ALTER}ADD\s+(?:CONSTRAINT\s+[\w\"]+\s+)?(?:FOREIGN|CHECK)\b(?![^;]*NOT\s+VALID)"),
        "add it NOT VALID and validate it in a later SQL step, otherwise the table is locked while all rows are read",
        _existing_table,
    ),
    _Rule(
        "inline-reference",
        _starting_at_word(r"CREATE\s+TABLE\b[^;]*\bREFERENCES\b"),
        "add the foreign key NOT VALID in an SQL step of its own, otherwise the referenced table is locked until the whole file is applied",
    ),
    _Rule(
        "rewrites-table",
        _starting_at_word(rf"{_ALTER}ALTER\s+(?:COLUMN\s+)?[\w\"]+\s+(?:SET\s+DATA\s+)?TYPE\b"),
        "add a new column and copy the values, otherwise the table is rewritten while reads and writes are blocked",
        _existing_table,
    ),
    _Rule(
        "volatile-default",
        _starting_at_word(
            rf"{_ALTER}ADD\s+(?:COLUMN\s+)?[^;,]*\bDEFAULT\s+(?:gen_random_uuid|uuid_generate\w*|random|clock_timestamp|nextval)\b"
        ),
        "add the column without a default and set the default afterwards, otherwise the table is rewritten while reads and writes are blocked",
        _existing_table,
    ),
    _Rule(
        "not-null-scans",
        _starting_at_word(
            rf"{_ALTER}(?:SET\s+NOT\s+NULL|ADD\s+(?:COLUMN\s+)?(?!CONSTRAINT|CHECK|FOREIGN)[\w\"]+\s+(?:(?!DEFAULT)[^;,])*\bNOT\s+NULL\b(?![^;,]*\bDEFAULT\b))"
        ),
        "add CHECK (column IS NOT NULL) NOT VALID, validate it, then set NOT NULL, otherwise reads and writes are blocked while all rows are read",
        _existing_table,
    ),
    _Rule(
        "blocks-all",
        _starting_at_word(r"(?:LOCK\s+TABLE|VACUUM\s+FULL|CLUSTER\s|REINDEX\s+(?!.*CONCURRENTLY))"),
        "remove it: it blocks all access to the table",
    ),
)
DESTRUCTIVE: Final = (
    _Rule(
        "destroys",
        _starting_at_word(r"(?:DROP\s+(?:TABLE|COLUMN|SCHEMA|DATABASE|VIEW|TYPE)|ALTER\s+TABLE\b[^;]*\bDROP\s+(?!CONSTRAINT|DEFAULT|NOT|EXPRESSION|IDENTITY)|TRUNCATE\b|DELETE\s+FROM)"),
        "only a migration with `change: Contract` may destroy data: the code path without the feature needs it until a rollback is no longer possible",
    ),
    _Rule(
        "renames",
        _starting_at_word(r"ALTER\s+(?:TABLE|VIEW|TYPE)\b[^;]*\bRENAME\b"),
        "add the new name next to the old one: only a migration with `change: Contract` may remove a name",
    ),
)  # fmt: skip


def allowed_rules(text: str) -> frozenset[str]:
    """The rules that comments in the SQL disable."""
    return frozenset(ALLOW.findall(text))


def may_remove(text: str, change: str) -> bool:
    """Whether an up file may drop or rename tables and columns: with `change` Contract, or where a comment allows it."""
    return change == CONTRACT or bool({rule.name for rule in DESTRUCTIVE} & allowed_rules(text))


def removal_message(file: str, gone: Iterable[object]) -> str:
    """The error for an up file that removed these tables and columns without being allowed to."""
    names = ", ".join(str(holder) for holder in gone)
    return f"{file} removes {names}: only a migration with `change: Contract` may drop or rename tables and columns"


def lint(steps: tuple[Step, ...], change: str = "Expand") -> list[Finding]:
    """Violations in the up files of a bundle; with `change` Contract the rules against loss of data do not apply."""
    created = frozenset(name.strip('"').lower() for step in steps for name in _CREATES.findall(without_literals(step.up)))
    rules = RULES if change == CONTRACT else (*RULES, *DESTRUCTIVE)
    return [finding for step in steps for finding in _of_step(step, rules, created)]


def _of_step(step: Step, rules: tuple[_Rule, ...], created: frozenset[str]) -> Iterator[Finding]:
    text, allowed = without_literals(step.up), allowed_rules(step.up)
    for rule in rules:
        if rule.name in allowed or (is_concurrent(step.up) and rule.name == "index-blocks-writes"):
            continue
        for match in rule.pattern.finditer(text):
            if rule.applies(match, created):
                excerpt = " ".join(match[0].split())[:EXCERPT_LENGTH]
                line = text.count("\n", 0, match.start()) + 1
                yield Finding(step.file, line, rule.name, f"`{excerpt}`: {rule.advice}")
