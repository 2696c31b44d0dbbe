"""Connections that are lost or denied."""

import threading
from pathlib import Path

from lab.lab import until
from lab.sessions import run, value
from migrations.failures import failing
from migrations.schemas import LEDGER, bundle, rows, target
from session_rollout.api.migration_enums import FailureReason
from session_rollout.migrations import ledger
from session_rollout.migrations.retry import run_with_retries
from session_rollout.migrations.schema.runner import up


def test_lost_connection_is_retried(dsn: str, tmp_path: Path) -> None:
    """`pg_terminate_backend` during a step: it is rolled back and applied on the next connection."""
    slow = bundle(tmp_path, **{"0001_slow": "CREATE TABLE one (id int); SELECT pg_sleep(1.5);"})
    runner = threading.Thread(target=up, args=(target(dsn), slow))
    runner.start()
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1.5)%' AND pid <> pg_backend_pid()"
    )
    until(lambda: rows(dsn, query), 10, "the step running")
    runner.join()
    assert rows(dsn, LEDGER) == [1]
    assert value(dsn, "SELECT count(*) FROM session_rollout.history") == 1


def test_permanent_errors_are_not_retried(dsn: str) -> None:
    """The message of the database is kept."""
    run(dsn, "CREATE SCHEMA session_rollout", "DROP ROLE IF EXISTS nobody_special", "CREATE ROLE nobody_special LOGIN")
    with failing(FailureReason.DATABASE_ERROR, "permission denied for"):
        run_with_retries(target(dsn.replace("postgres@", "nobody_special@")), ledger.prepare)
