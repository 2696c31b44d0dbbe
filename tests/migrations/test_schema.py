"""The schema runner on a real PostgreSQL: every step once, never half, and never blocking the application.

Not here: rows that are copied (test_copy), the Job around it (integration), hundreds of random faults (`make chaos-migrations`).
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lab.lab import PATIENCE, until
from lab.proofs import INDEXES, TABLES
from lab.sessions import fill, value
from migrations.failures import failing
from migrations.schemas import ALL, COUNT, LEDGER, OURS, QUICK, Listening, bundle, catalog, rows, target
from session_rollout.api.migration_enums import FailureReason
from session_rollout.migrations.connection import LOCK_KEY, Limits, connect
from session_rollout.migrations.schema import drift
from session_rollout.migrations.schema.bundle import Bundle
from session_rollout.migrations.schema.runner import down, up


def test_up_creates_tables_and_indexes_once(dsn: str) -> None:
    """Each step is once in the ledger, with actor and duration; a second run changes nothing."""
    first, second = target(dsn), target(dsn)
    up(first, OURS)
    assert first.completed == COUNT
    tables = rows(dsn, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    assert tables == sorted([*TABLES, "users", "user_sessions"])
    assert rows(dsn, "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'idx_%' ORDER BY 1") == INDEXES
    before = catalog(dsn)
    up(second, OURS)
    assert second.completed == 0
    assert catalog(dsn) == before
    assert rows(dsn, LEDGER) == ALL
    actors = "SELECT DISTINCT applied_by || ' ' || job_uid FROM session_rollout.schema_migrations"
    assert rows(dsn, actors) == ["test job-1"]
    assert value(dsn, "SELECT min(duration_ms) FROM session_rollout.schema_migrations") >= 0


def test_down_and_up_ten_times_give_the_same_schema_and_rows(dsn: str) -> None:
    """On a database with rows: the catalog is the same each time, and the rows of the application stay unchanged."""
    fill(dsn, 500)
    empty, content = catalog(dsn), checksum_of(dsn)
    up(target(dsn), OURS)
    full = catalog(dsn)
    for _ in range(10):
        down(target(dsn), OURS)
        assert catalog(dsn) == empty
        assert rows(dsn, LEDGER) == []
        up(target(dsn), OURS)
        assert catalog(dsn) == full
        assert checksum_of(dsn) == content
    assert value(dsn, "SELECT count(*) FROM session_rollout.history") == COUNT * 21


def checksum_of(dsn: str) -> tuple[Any, ...]:
    """Row count and checksum of each table of the application."""
    query = "SELECT count(*) || ' ' || sum(hashtextextended(x::text, 0)) FROM {} x"
    return tuple(value(dsn, query.format(table)) for table in ("users", "user_sessions"))


def test_a_failing_step_leaves_nothing_and_names_file_line_and_reason(dsn: str, tmp_path: Path) -> None:
    """The failed step is rolled back, the steps before it stay."""
    files = {"0001_good": "CREATE TABLE one (id int);", "0002_bad": "CREATE TABLE two (id int);\n\nSELECT * FROM nowhere;"}
    with failing(FailureReason.STEP_FAILED, "0002_bad.up.sql line 3", "nowhere"):
        up(target(dsn), bundle(tmp_path, **files))
    assert rows(dsn, LEDGER) == [1]
    assert value(dsn, "SELECT to_regclass('two')") is None


def test_a_changed_step_is_refused(dsn: str, tmp_path: Path) -> None:
    """Trailing whitespace is not a change."""
    up(target(dsn), bundle(tmp_path, **{"0001_one": "CREATE TABLE one (id int);"}))
    up(target(dsn), bundle(tmp_path, **{"0001_one": "CREATE TABLE one (id int);   \n"}))
    with failing(FailureReason.BUNDLE_CHANGED, "0001_one.up.sql"):
        up(target(dsn), bundle(tmp_path, **{"0001_one": "CREATE TABLE one (id bigint);"}))


def test_an_older_bundle_cannot_go_up_and_can_undo_newer_steps(dsn: str, tmp_path: Path) -> None:
    """A newer image has applied a step; the ledger has its down SQL."""
    texts = {"0001_one": "CREATE TABLE one (id int);", "0002_two": "CREATE TABLE two (id int);"}
    undo = {"down_0001_one": "DROP TABLE one;", "down_0002_two": "DROP TABLE two;"}
    newer = bundle(tmp_path, **texts, **undo)
    up(target(dsn), newer)
    older = Bundle("mine", newer.steps[:1])
    with failing(FailureReason.BUNDLE_OUTDATED, "0002_two"):
        up(target(dsn), older)
    down(target(dsn), older, to=1)
    assert rows(dsn, LEDGER) == [1]
    assert value(dsn, "SELECT to_regclass('two')") is None


def test_concurrent_runners_apply_each_step_once(dsn: str) -> None:
    """They wait for the advisory lock; the others find every step applied."""
    contexts = [target(dsn) for _ in range(4)]
    threads = [threading.Thread(target=up, args=(context, OURS)) for context in contexts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(context.completed for context in contexts) == [0, 0, 0, COUNT]
    assert rows(dsn, LEDGER) == ALL


@contextmanager
def waits_of_others(dsn: str) -> Iterator[list[float]]:
    """How long other statements on `users` take meanwhile."""
    waits: list[float] = []
    stopped = threading.Event()

    def work() -> None:
        with psycopg.connect(dsn, autocommit=True) as other:
            while not stopped.wait(0.02):
                begun = time.monotonic()
                other.execute("INSERT INTO users (id) VALUES (gen_random_uuid())")
                waits.append(time.monotonic() - begun)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield waits
        before = len(waits)
        until(lambda: len(waits) > before + 10, 20, "statements after the lock is gone")
    finally:
        stopped.set()
        thread.join()


def test_a_held_lock_is_not_queued_for(dsn: str) -> None:
    """Others never wait longer than the lock time-out; who blocks is reported; the step succeeds once the lock is gone."""
    limits = Limits(lock_timeout=timedelta(milliseconds=300), lock_deadline=timedelta(minutes=2))
    here, heard = target(dsn, limits), list[str]()
    here.reporter = Listening(heard)

    def named() -> list[str]:
        return [text for text in heard if "nightly report" in text]

    with waits_of_others(dsn) as waits:
        with psycopg.connect(dsn, application_name="nightly report") as holder:
            holder.execute("INSERT INTO users (id) VALUES (gen_random_uuid())")  # ROW EXCLUSIVE until the end
            runner = threading.Thread(target=up, args=(here, OURS))
            runner.start()
            begun = time.monotonic()
            until(lambda: len(named()) >= 6 and len(waits) > 50, 30, "six attempts")
            held = time.monotonic() - begun
            assert runner.is_alive()
            assert str(holder.info.backend_pid) in named()[0]
        runner.join()
    assert rows(dsn, LEDGER) == ALL
    # A statement may meet one wait of ours, and then its own work; queueing for the lock would be all of the time.
    assert max(waits) < min(3 * 0.3 * PATIENCE, held / 2), max(waits)
    assert "idle in transaction" in named()[0]  # the state of the session, as PostgreSQL names it


def test_access_exclusive_lock_is_waited_for_and_its_holder_named(dsn: str) -> None:
    """Somebody's DDL holds the table until the runner has said so."""
    here, heard = target(dsn), list[str]()
    here.reporter = Listening(heard)
    with psycopg.connect(dsn, application_name="alter table") as holder:
        holder.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        runner = threading.Thread(target=up, args=(here, OURS))
        runner.start()
        until(
            lambda: any(str(holder.info.backend_pid) in text and "alter table" in text for text in heard),
            20,
            "its holder named",
        )
        assert runner.is_alive()
    runner.join()
    assert rows(dsn, LEDGER) == ALL


def test_lock_that_is_never_granted_fails_and_names_its_holder(dsn: str) -> None:
    """After the lock deadline."""
    limits = Limits(lock_timeout=timedelta(seconds=1), lock_deadline=timedelta(seconds=3))
    with psycopg.connect(dsn, application_name="vacuum full") as holder:
        holder.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        with failing(FailureReason.LOCK_TIMEOUT, ".up.sql", "users", "vacuum full", str(holder.info.backend_pid)):
            up(target(dsn, limits), OURS)


def test_holder_of_the_advisory_lock_is_named(dsn: str) -> None:
    """Another runner keeps it beyond the lock deadline."""
    limits = Limits(lock_deadline=timedelta(seconds=1))
    with connect(dsn) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
        with failing(FailureReason.CONCURRENT_MIGRATION, str(holder.info.backend_pid)):
            up(target(dsn, limits), OURS)


# --- indexes outside transactions

INDEX = {
    "0001_table": "CREATE TABLE one (id int, name text);",
    "0002_index": "CREATE INDEX CONCURRENTLY one_name ON one (name);",
    "down_0002_index": "DROP INDEX CONCURRENTLY one_name;",
    "down_0001_table": "DROP TABLE one;",
}


def test_index_is_built_concurrently_and_dropped_again(dsn: str, tmp_path: Path) -> None:
    """Outside a transaction; a second `up` does nothing."""
    ours = bundle(tmp_path, **INDEX)
    up(target(dsn), ours)
    assert value(dsn, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'one_name'::regclass")
    up(target(dsn), ours)
    down(target(dsn), ours)
    assert value(dsn, "SELECT to_regclass('one')") is None


def test_invalid_index_is_repaired(dsn: str, tmp_path: Path) -> None:
    """An invalid index of a cancelled build is dropped and built again; `IF NOT EXISTS` would accept it."""
    ours = bundle(tmp_path, **INDEX)
    up(target(dsn), Bundle("mine", ours.steps[:1]))
    with psycopg.connect(dsn) as snapshot:
        snapshot.execute("INSERT INTO one VALUES (1, 'a')")  # the build waits for this transaction
        with connect(dsn) as builder:
            builder.execute("SET statement_timeout = 300")
            with pytest.raises(psycopg.errors.QueryCanceled):
                builder.execute("CREATE INDEX CONCURRENTLY one_name ON one (name)")
    assert value(dsn, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'one_name'::regclass") is False
    assert {"reason": "InvalidIndex", "object": "one_name"} in drift.status(target(dsn), ours)["drift"]
    up(target(dsn), ours)
    assert value(dsn, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'one_name'::regclass")
    assert drift.status(target(dsn), ours)["drift"] == []


def test_index_build_waits_for_a_long_transaction_without_failing(dsn: str, tmp_path: Path) -> None:
    """A short lock time-out would leave an invalid index; it has none."""
    ours = bundle(tmp_path, **INDEX)
    up(target(dsn), Bundle("mine", ours.steps[:1]))
    with psycopg.connect(dsn) as snapshot:
        snapshot.execute("INSERT INTO one VALUES (1, 'a')")
        runner = threading.Thread(target=up, args=(target(dsn), ours))
        runner.start()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%%' AND wait_event_type = 'Lock'"
            " AND clock_timestamp() - query_start > %s"
        )
        until(lambda: value(dsn, waiting, 5 * QUICK.lock_timeout), 20, "a build that waits longer than a lock time-out")
        assert runner.is_alive()
    runner.join()
    assert rows(dsn, LEDGER) == [1, 2]
