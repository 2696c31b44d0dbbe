"""Connections that are lost or denied."""

import threading
import time
from pathlib import Path

import pytest

from lab.sessions import run, value
from migrations.schemas import LEDGER, bundle, rows, target
from session_rollout.errors import MigrationFailed
from session_rollout.migrations import ledger
from session_rollout.migrations.retry import run_with_retries
from session_rollout.migrations.schema.runner import up


def test_lost_connection_is_taken_up_again(dsn: str, tmp_path: Path) -> None:
    """`pg_terminate_backend` in the middle of a step: it is rolled back and done by the next connection."""
    ours = bundle(tmp_path, **{"0001_slow": "CREATE TABLE one (id int); SELECT pg_sleep(1.5);"})
    runner = threading.Thread(target=up, args=(target(dsn), ours))
    runner.start()
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1.5)%' AND pid <> pg_backend_pid()"
    )
    deadline = time.monotonic() + 10
    while not rows(dsn, query):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    runner.join(20)
    assert rows(dsn, LEDGER) == [1]
    assert value(dsn, "SELECT count(*) FROM session_rollout.history") == 1


def test_other_errors_of_the_database_are_told_in_its_words(dsn: str) -> None:
    """Nothing is retried that cannot succeed."""
    run(dsn, "CREATE SCHEMA session_rollout", "DROP ROLE IF EXISTS nobody_special", "CREATE ROLE nobody_special LOGIN")
    with pytest.raises(MigrationFailed, match="database error: permission denied for"):
        run_with_retries(target(dsn.replace("postgres@", "nobody_special@")), ledger.prepare)
