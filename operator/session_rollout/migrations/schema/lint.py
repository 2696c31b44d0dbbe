"""What a step must not say: statements that block a live application for long, destroy data, or cannot be undone.

Every rule names its cure. `-- session-rollout: allow RULE` with a reason in the file lets one pass. The bundles of this
project are also checked by squawk, whose rules these follow where it has them.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from session_rollout.migrations.bundle import Step, bare, concurrent

ALLOW: Final = re.compile(r"--\s*session-rollout:\s*allow\s+([a-z-]+)")
_CREATES: Final = re.compile(r"\bCREATE\s+(?:UNLOGGED\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?([\w.\"]+)", re.IGNORECASE)
_CONTRACT: Final = "Contract"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

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
    cure: str
    applies: Callable[[re.Match[str], frozenset[str]], bool] = lambda _found, _created: True


def _old_table(found: re.Match[str], created: frozenset[str]) -> bool:
    """Whether the table was there before this bundle: nobody waits for one that is new."""
    return found["table"].strip('"').lower() not in created


def _word(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b{pattern}", re.IGNORECASE)


_TABLE: Final = r"(?P<table>[\w.\"]+)"
_ALTER: Final = rf"ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?{_TABLE}[^;]*?\b"
RULES: Final = (
    _Rule(
        "transaction-control",
        _word(r"(?:BEGIN|COMMIT|ROLLBACK)\s*(?:;|$|WORK|TRANSACTION)"),
        "the runner keeps the transaction",
    ),
    _Rule(
        "index-blocks-writes",
        _word(rf"CREATE\s+(?:UNIQUE\s+)?INDEX\s+(?!CONCURRENTLY)[^;]*?\bON\s+(?:ONLY\s+)?{_TABLE}"),
        "use CREATE INDEX CONCURRENTLY in a file of its own: without it writes wait for the whole build",
        _old_table,
    ),
    _Rule(
        "constraint-scans",
        _word(rf"{_ALTER}ADD\s+(?:CONSTRAINT\s+[\w\"]+\s+)?(?:FOREIGN|CHECK)\b(?![^;]*NOT\s+VALID)"),
        "add it NOT VALID and validate it in a later step: else the table is locked while all rows are read",
        _old_table,
    ),
    _Rule(
        "inline-reference",
        _word(r"CREATE\s+TABLE\b[^;]*\bREFERENCES\b"),
        "add the foreign key NOT VALID in a step of its own: this locks the other table together with all else in the file",
    ),
    _Rule(
        "rewrites-table",
        _word(rf"{_ALTER}ALTER\s+(?:COLUMN\s+)?[\w\"]+\s+(?:SET\s+DATA\s+)?TYPE\b"),
        "add a column and copy into it: this rewrites the table under the strongest lock",
        _old_table,
    ),
    _Rule(
        "volatile-default",
        _word(
            rf"{_ALTER}ADD\s+(?:COLUMN\s+)?[^;,]*\bDEFAULT\s+(?:gen_random_uuid|uuid_generate\w*|random|clock_timestamp|nextval)\b"
        ),
        "add the column without it and set the default afterwards: this rewrites the table under the strongest lock",
        _old_table,
    ),
    _Rule(
        "not-null-scans",
        _word(
            rf"{_ALTER}(?:SET\s+NOT\s+NULL|ADD\s+(?:COLUMN\s+)?(?!CONSTRAINT|CHECK|FOREIGN)[\w\"]+\s+(?:(?!DEFAULT)[^;,])*\bNOT\s+NULL\b(?![^;,]*\bDEFAULT\b))"
        ),
        "add a CHECK (column IS NOT NULL) NOT VALID, validate it, then set it: else all rows are read under the strongest lock",
        _old_table,
    ),
    _Rule(
        "blocks-all",
        _word(r"(?:LOCK\s+TABLE|VACUUM\s+FULL|CLUSTER\s|REINDEX\s+(?!.*CONCURRENTLY))"),
        "nobody could work meanwhile",
    ),
)
DESTRUCTIVE: Final = (
    _Rule(
        "destroys",
        _word(r"(?:DROP\s+(?:TABLE|COLUMN|SCHEMA|DATABASE|VIEW|TYPE)|ALTER\s+TABLE\b[^;]*\bDROP\s+(?!CONSTRAINT|DEFAULT|NOT|EXPRESSION|IDENTITY)|TRUNCATE\b|DELETE\s+FROM)"),
        "only a migration with `change: Contract` may: the version before needs it as long as a rollback is possible",
    ),
    _Rule(
        "renames",
        _word(r"ALTER\s+(?:TABLE|VIEW|TYPE)\b[^;]*\bRENAME\b"),
        "add the new name beside the old one: only a migration with `change: Contract` may take one away",
    ),
)  # fmt: skip


def lint(steps: tuple[Step, ...], change: str = "Expand") -> list[Finding]:
    """What is wrong with the up files of a bundle."""
    created = frozenset(name.strip('"').lower() for step in steps for name in _CREATES.findall(bare(step.up)))
    rules = RULES if change == _CONTRACT else (*RULES, *DESTRUCTIVE)
    return [finding for step in steps for finding in _of_step(step, rules, created)]


def _of_step(step: Step, rules: tuple[_Rule, ...], created: frozenset[str]) -> Iterator[Finding]:
    text, allowed = bare(step.up), set(ALLOW.findall(step.up))
    for rule in rules:
        if rule.name in allowed or (concurrent(step.up) and rule.name == "index-blocks-writes"):
            continue
        for found in rule.pattern.finditer(text):
            if rule.applies(found, created):
                said = " ".join(found[0].split())[:60]
                yield Finding(step.file, text.count("\n", 0, found.start()) + 1, rule.name, f"`{said}`: {rule.cure}")
