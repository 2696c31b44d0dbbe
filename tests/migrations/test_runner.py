"""The migration runner on a real PostgreSQL: once, never half, never in the way, and in the database's own words when it fails.

Not here: the Job around it (integration), live load and random kills (the next release's chaos run).
"""

import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lab.lab import ROOT, Lab
from lab.programme import LEGACY_TABLES
from lab.proofs import INDEXES, TABLES
from session_rollout.migrations.bundle import BundleError, load, shipped
from session_rollout.migrations.runner import Limits, MigrationFailed, down, up

BUNDLE = "session-persistence/schema"
QUICK = Limits(lock_timeout=timedelta(milliseconds=100), lock_deadline=timedelta(seconds=20))


@pytest.fixture
def dsn(lab: Lab) -> Iterator[str]:
    """A database of its own, with the application's legacy tables."""
    assert lab.postgres is not None
    name = f"test_{uuid.uuid4().hex[:10]}"
    with psycopg.connect(lab.postgres.url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    url = lab.postgres.url.removesuffix("postgres") + name
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(LEGACY_TABLES)
    yield url
    with psycopg.connect(lab.postgres.url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


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


LEDGER = "SELECT version FROM session_rollout.schema_migrations ORDER BY 1"


def test_up_brings_the_seeds_tables_and_indexes_once(dsn: str) -> None:
    """Three tables, five indexes, three ledger rows; a second run changes nothing."""
    steps = load(shipped(BUNDLE))
    assert up(dsn, BUNDLE, steps, QUICK).message.startswith("3 of 3 steps applied")
    tables = rows(dsn, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    assert tables == sorted([*TABLES, "users", "user_sessions"])
    assert rows(dsn, "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'idx_%' ORDER BY 1") == INDEXES
    before = catalog(dsn)
    assert up(dsn, BUNDLE, steps, QUICK).message == "already applied: 3 steps"
    assert catalog(dsn) == before
    assert rows(dsn, LEDGER) == [1, 2, 3]


def test_down_and_up_give_the_same_schema(dsn: str) -> None:
    """Down leaves what was there before, up gives what was there after."""
    steps, empty = load(shipped(BUNDLE)), catalog(dsn)
    up(dsn, BUNDLE, steps, QUICK)
    full = catalog(dsn)
    for _ in range(3):
        down(dsn, BUNDLE, steps, QUICK)
        assert catalog(dsn) == empty
        assert rows(dsn, LEDGER) == []
        up(dsn, BUNDLE, steps, QUICK)
        assert catalog(dsn) == full


def bundle(tmp_path: Path, **files: str) -> Any:
    """Steps from texts; a down file is added where none is given."""
    for name, text in files.items():
        (tmp_path / f"{name}.up.sql").write_text(text)
        (tmp_path / f"{name}.down.sql").write_text("")
    return load(tmp_path)


def test_a_failing_step_leaves_nothing_and_names_file_line_and_reason(dsn: str, tmp_path: Path) -> None:
    """No half state to repair; the steps before it stay."""
    files = {"0001_good": "CREATE TABLE one (id int);", "0002_bad": "CREATE TABLE two (id int);\n\nSELECT * FROM nowhere;"}
    steps = bundle(tmp_path, **files)
    with pytest.raises(MigrationFailed, match=r'0002_bad.up.sql line 3: relation "nowhere" does not exist'):
        up(dsn, "mine", steps, QUICK)
    assert rows(dsn, LEDGER) == [1]
    assert rows(dsn, "SELECT to_regclass('two')") == [None]


def test_a_changed_step_is_refused(dsn: str, tmp_path: Path) -> None:
    """White space at line ends is no change; content is."""
    up(dsn, "mine", bundle(tmp_path, **{"0001_one": "CREATE TABLE one (id int);"}), QUICK)
    up(dsn, "mine", bundle(tmp_path, **{"0001_one": "CREATE TABLE one (id int);   \n"}), QUICK)
    with pytest.raises(MigrationFailed, match=r"0001_one\.up\.sql was changed after it was applied"):
        up(dsn, "mine", bundle(tmp_path, **{"0001_one": "CREATE TABLE one (id bigint);"}), QUICK)


def test_an_older_bundle_is_refused(dsn: str, tmp_path: Path) -> None:
    """A newer image was here."""
    two = {"0001_one": "CREATE TABLE one (id int);", "0002_two": "CREATE TABLE two (id int);"}
    steps = bundle(tmp_path, **two)
    up(dsn, "mine", steps, QUICK)
    with pytest.raises(MigrationFailed, match="0002_two is applied, and this bundle does not have it"):
        up(dsn, "mine", steps[:1], QUICK)


def test_two_runners_at_once_take_turns(dsn: str) -> None:
    """Each step takes effect once."""
    steps, results = load(shipped(BUNDLE)), []
    threads = [threading.Thread(target=lambda: results.append(up(dsn, BUNDLE, steps, QUICK).message)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(text.startswith("3 of 3") for text in results) == 1
    assert results.count("already applied: 3 steps") == 3


def test_a_held_lock_is_not_queued_for(dsn: str) -> None:
    """Others wait no longer than the lock time-out, and the step succeeds once the lock is gone."""
    steps, waits = load(shipped(BUNDLE)), []
    with psycopg.connect(dsn) as holder:
        holder.execute("INSERT INTO users (id) VALUES (gen_random_uuid())")  # ROW EXCLUSIVE until the end
        runner = threading.Thread(target=up, args=(dsn, BUNDLE, steps, QUICK))
        runner.start()
        with psycopg.connect(dsn, autocommit=True) as other:
            for _ in range(30):
                begun = time.monotonic()
                other.execute("INSERT INTO users (id) VALUES (gen_random_uuid())")
                waits.append(time.monotonic() - begun)
                time.sleep(0.05)
        assert runner.is_alive()
    runner.join(20)
    assert rows(dsn, LEDGER) == [1, 2, 3]
    assert max(waits) < 1.0


def test_lock_that_never_comes_fails_with_the_reason(dsn: str) -> None:
    """Bounded patience."""
    limits = Limits(lock_timeout=timedelta(milliseconds=50), lock_deadline=timedelta(seconds=1))
    with psycopg.connect(dsn) as holder:
        holder.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(MigrationFailed, match=r"0002_user_keys.up.sql: no lock within"):
            up(dsn, BUNDLE, load(shipped(BUNDLE)), limits)


def test_another_runner_is_named(dsn: str) -> None:
    """Who holds the advisory lock."""
    from session_rollout.migrations.runner import only_runner

    limits = Limits(lock_deadline=timedelta(seconds=1))
    with (
        only_runner(dsn, limits),
        pytest.raises(MigrationFailed, match=r"another migration holds the lock: pid \d+ \(session-rollout"),
    ):
        up(dsn, BUNDLE, load(shipped(BUNDLE)), limits)


def test_killed_runner_leaves_all_or_nothing(dsn: str, tmp_path: Path) -> None:
    """SIGKILL in the middle of a step: it did not happen, and the next run completes it."""
    bundle(tmp_path, **{"0001_slow": "CREATE TABLE one (id int); SELECT pg_sleep(30);"})
    (tmp_path / "dsn").write_text(dsn)
    command = [sys.executable, "-m", "session_rollout.migrations", "up", f"--directory={tmp_path}", "--name=mine"]
    process = subprocess.Popen([*command, f"--dsn-file={tmp_path / 'dsn'}"], env={"PYTHONPATH": str(ROOT / "operator")})
    deadline = time.monotonic() + 20
    while not rows(dsn, "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)%' AND pid <> pg_backend_pid()"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)%' AND pid <> pg_backend_pid()"
        )
    assert rows(dsn, "SELECT to_regclass('one')") == [None]
    (tmp_path / "0001_slow.up.sql").write_text("CREATE TABLE one (id int);")
    up(dsn, "mine", load(tmp_path), QUICK)
    assert rows(dsn, "SELECT to_regclass('one')") == ["one"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no NNNN_name.up.sql"),
        ({"1_x.up.sql": ""}, "must be called like 0001_create_tables.up.sql"),
        ({"0001_x.up.sql": ""}, "both an .up.sql and a .down.sql"),
        ({"0001_x.up.sql": "", "0001_x.down.sql": "", "0001_y.up.sql": "", "0001_y.down.sql": ""}, "same number"),
    ],
)
def test_bad_bundles_are_refused_with_what_is_allowed(tmp_path: Path, files: dict[str, str], words: str) -> None:
    """Before a connection is opened."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(BundleError, match=words):
        load(tmp_path)


def test_unknown_bundle_names_those_that_are_shipped() -> None:
    """A typo is found by reading the message."""
    with pytest.raises(BundleError, match=f"shipped are {BUNDLE}"):
        shipped("session-persistence/sesions")


def test_failure_is_told_in_the_termination_log_without_the_password(tmp_path: Path) -> None:
    """JSON, one sentence, no secret; exit 1 and no traceback."""
    (tmp_path / "dsn").write_text("postgresql://user:canary-password@127.0.0.1:1/db")
    command = [sys.executable, "-m", "session_rollout.migrations", "up", f"--bundle={BUNDLE}", f"--dsn-file={tmp_path / 'dsn'}"]
    done = subprocess.run(
        [*command, f"--termination-log={tmp_path / 'log'}"],
        env={"PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    words = json.loads((tmp_path / "log").read_text())
    assert words["message"].startswith("cannot connect to the database")
    assert "canary" not in done.stderr + done.stdout + words["message"]
    assert "Traceback" not in done.stderr
