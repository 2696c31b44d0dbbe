"""What the tests of the schema runner share: the shipped bundle, bundles from texts, and the state of a database."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from lab.sessions import SCHEMA
from session_rollout.migrations.connection import Limits, RunContext
from session_rollout.migrations.progress import Reporter
from session_rollout.migrations.schema.bundle import Bundle, load, shipped

STEPS = load(shipped(SCHEMA))
COUNT = len(STEPS)
OURS = Bundle(SCHEMA, STEPS)
QUICK = Limits(lock_timeout=timedelta(milliseconds=100), lock_deadline=timedelta(seconds=20))
LEDGER = "SELECT version FROM session_rollout.schema_migrations ORDER BY 1"
ALL = list(range(1, COUNT + 1))


def target(dsn: str, limits: Limits = QUICK) -> RunContext:
    """The context of this database, with short limits."""
    return RunContext(dsn, limits=limits, actor="test", job_uid="job-1")


def rows(dsn: str, query: str) -> list[Any]:
    """First column of a query."""
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute(query).fetchall()]


def catalog(dsn: str) -> list[Any]:
    """Columns, indexes and constraints as text."""
    return rows(
        dsn,
        "SELECT t FROM (SELECT format('%s.%s %s %s %s', table_name, column_name, data_type, is_nullable, column_default) t"
        " FROM information_schema.columns WHERE table_schema = 'public' UNION ALL"
        " SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' UNION ALL"
        " SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace) x ORDER BY t",
    )


def bundle(directory: Path, change: str = "Expand", **files: str) -> Bundle:
    """A bundle from texts; a down file is added where none is given as `down_<name>`."""
    for name, text in files.items():
        if not name.startswith("down_"):
            (directory / f"{name}.up.sql").write_text(text)
            (directory / f"{name}.down.sql").write_text(files.get(f"down_{name}", ""))
    return Bundle("mine", load(directory), change)


class Listening(Reporter):
    """Keeps the reasons of waits."""

    def __init__(self, heard: list[str]) -> None:
        super().__init__()
        self.heard = heard

    def wait_for(self, reason: str) -> None:
        self.heard.append(reason)
