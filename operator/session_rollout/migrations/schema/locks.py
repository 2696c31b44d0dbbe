"""Predicts the table locks of a step from its SQL, without a database.

The rules are those of the PostgreSQL manual ("Explicit Locking" and the page of each statement). `plan` reads the locks from
the database itself, and a test compares both. Tables that the bundle creates are omitted: no session waits for them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from session_rollout.migrations.schema.bundle import Step, statements

BLOCKS: Final = {
    "AccessShareLock": "blocks nothing but DROP and ALTER",
    "RowShareLock": "blocks no reads and no writes",
    "RowExclusiveLock": "blocks no reads and no writes",
    "ShareUpdateExclusiveLock": "blocks no reads and no writes",
    "ShareLock": "blocks writes",
    "ShareRowExclusiveLock": "blocks writes",
    "ExclusiveLock": "blocks writes",
    "AccessExclusiveLock": "blocks reads and writes",
}
STRENGTH: Final = tuple(BLOCKS)


@dataclass(frozen=True)
class Lock:
    """A lock that a step takes on an existing table, and what it blocks."""

    table: str
    mode: str
    blocks: str

    @classmethod
    def of(cls, table: str, mode: str) -> "Lock":
        """The lock with the description of what it blocks."""
        return cls(table, mode, BLOCKS[mode])


_NAME: Final = r"(?:ONLY\s+)?(?:IF\s+(?:NOT\s+)?EXISTS\s+)?([\w.\"]+)"
# The only command of its statement; a list of columns in parentheses may contain commas.
_ADDS_REFERENCE: Final = (
    r"^ALTER\s+TABLE\s+{name}\s+ADD\s+(?:CONSTRAINT\s+[\w\"]+\s+)?FOREIGN\s+KEY\s*\([^)]*\)"
    r"\s*REFERENCES\s+[\w.\"]+(?:\s*\([^)]*\))?[^,]*$"
)
# The first pattern that matches a statement decides the lock on the table it names.
_MODES: Final = tuple(
    (re.compile(pattern.format(name=_NAME), re.IGNORECASE | re.DOTALL), mode)
    for pattern, mode in (
        (r"^CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\b.*?\bON\s+{name}", "ShareUpdateExclusiveLock"),
        (r"^CREATE\s+(?:UNIQUE\s+)?INDEX\b.*?\bON\s+{name}", "ShareLock"),
        (r"^CREATE\s+(?:OR\s+REPLACE\s+)?(?:CONSTRAINT\s+)?TRIGGER\b.*?\bON\s+{name}", "ShareRowExclusiveLock"),
        (r"^ALTER\s+TABLE\s+{name}\s+VALIDATE\s+CONSTRAINT\b", "ShareUpdateExclusiveLock"),
        (r"^ALTER\s+TABLE\s+{name}\s+ALTER\s+(?:COLUMN\s+)?[\w\"]+\s+SET\s+STATISTICS\b", "ShareUpdateExclusiveLock"),
        (_ADDS_REFERENCE, "ShareRowExclusiveLock"),
        (r"^ALTER\s+TABLE\s+{name}", "AccessExclusiveLock"),
        (r"^DROP\s+TABLE\s+{name}", "AccessExclusiveLock"),
        (r"^TRUNCATE\s+(?:TABLE\s+)?{name}", "AccessExclusiveLock"),
        (r"^COMMENT\s+ON\s+TABLE\s+{name}", "ShareUpdateExclusiveLock"),
        (r"^(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM)\s+{name}", "RowExclusiveLock"),
    )
)
_CREATES: Final = re.compile(r"^CREATE\s+(?:UNLOGGED\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?([\w.\"]+)", re.IGNORECASE)
_REFERS: Final = re.compile(r"\bREFERENCES\s+([\w.\"]+)", re.IGNORECASE)


def locks_of(steps: tuple[Step, ...]) -> dict[str, tuple[Lock, ...]]:
    """By up file: the strongest lock on each table that exists before the bundle is applied."""
    created: set[str] = set()
    locks = {}
    for step in steps:
        strongest: dict[str, str] = {}
        for statement in statements(step.up):
            for lock in _of_statement(statement):
                if STRENGTH.index(lock.mode) >= STRENGTH.index(strongest.get(lock.table, STRENGTH[0])):
                    strongest[lock.table] = lock.mode
            if creates := _CREATES.match(statement):
                created.add(_plain(creates[1]))
        locks[step.file] = tuple(Lock.of(table, mode) for table, mode in sorted(strongest.items()) if table not in created)
    return locks


def _of_statement(statement: str) -> Iterator[Lock]:
    if _CREATES.match(statement) or re.match(r"ALTER\s+TABLE\b.*\bREFERENCES\b", statement, re.IGNORECASE | re.DOTALL):
        yield from (Lock.of(_plain(name), "ShareRowExclusiveLock") for name in _REFERS.findall(statement))
    for pattern, mode in _MODES:
        if match := pattern.match(statement):
            yield Lock.of(_plain(match[1]), mode)
            return


def _plain(name: str) -> str:
    return name.replace('"', "").removeprefix("public.").lower()
