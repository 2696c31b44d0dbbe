"""A copy is killed, terminated, overtaken by another runner or meets a full disk: the next attempt resumes, nothing is lost."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg

from lab.lab import PATIENCE, ROOT
from lab.sessions import BUNDLE, People, difference, fill, run, value
from migrations.copies import COPY, FAST, MOVED, target, wait_for
from migrations.failures import failing
from session_rollout.api.migration_enums import FailureReason
from session_rollout.migrations.connection import RunContext
from session_rollout.migrations.copy import functions, state
from session_rollout.migrations.copy import runner as copy_runner
from session_rollout.migrations.progress import Reporter


def command(dsn_file: Path, *more: str) -> list[str]:
    """The command of the Job."""
    argv = [sys.executable, "-m", "session_rollout.migrations", "up", f"--bundle={BUNDLE}", f"--dsn-file={dsn_file}"]
    return [*argv, "--pause-on-read-latency=5s", *more]


def position(dsn: str) -> str:
    """The last key that was copied; empty before the first one."""
    known = value(dsn, "SELECT to_regclass('session_rollout.copies')")
    return str(value(dsn, "SELECT coalesce(max(cursor), '') FROM session_rollout.copies")) if known else ""


def test_a_killed_copy_resumes_where_it_stopped(dsn: str, tmp_path: Path) -> None:
    """SIGKILL soon after each start has copied rows, while users keep working: no row is lost or duplicated."""
    fill(dsn, 30_000)
    target(dsn)
    (tmp_path / "dsn").write_text(dsn)
    dice, environment, cursors = random.Random(3), {**os.environ, "PYTHONPATH": str(ROOT / "operator")}, [""]
    with People(dsn, 30_000, pause=0.002):
        for _ in range(8):
            process = subprocess.Popen(
                command(tmp_path / "dsn", "--copy-duty-cycle=0.2"), env=environment, stderr=subprocess.DEVNULL
            )
            copied, batches = {cursors[-1]}, dice.randint(1, 3)

            def enough(process: Any = process, copied: set[str] = copied, batches: int = batches) -> bool:
                copied.add(position(dsn))
                return process.poll() is not None or len(copied) > batches

            wait_for(enough)
            process.kill()
            process.wait()
            cursors.append(position(dsn))
        done = subprocess.run(
            command(tmp_path / "dsn", "--copy-duty-cycle=1"), env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert len(set(cursors)) == len(cursors)
    assert cursors == sorted(cursors)
    assert difference(dsn) == 0
    assert value(dsn, "SELECT count(*) - count(DISTINCT session_id) FROM enhanced_user_sessions") == 0


def test_sigterm_ends_a_copy_after_its_batch(dsn: str, tmp_path: Path) -> None:
    """Exit code 75 within three seconds, and the reason in the termination message."""
    fill(dsn, 30_000)
    target(dsn)
    (tmp_path / "dsn").write_text(dsn)
    argv = command(tmp_path / "dsn", "--copy-duty-cycle=0.1", f"--termination-log={tmp_path / 'log'}")
    process = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ROOT / "operator")}, stdout=subprocess.PIPE)
    wait_for(lambda: value(dsn, "SELECT to_regclass('session_rollout.copies')") and value(dsn, MOVED) > 0)
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.read()
    assert process.wait(60) == 75
    assert time.monotonic() - started < 3 * PATIENCE
    last = json.loads((tmp_path / "log").read_text())
    assert last["reason"] == "Terminated"
    assert 0 < last["done"] < last["total"] == 30_000


def test_concurrent_runners_copy_each_row_once(dsn: str) -> None:
    """The second runner waits for the lock and has nothing left to copy."""
    fill(dsn, 10_000)
    context = target(dsn)
    results: list[str] = []
    threads = [
        threading.Thread(target=lambda: results.append(copy_runner.up(with_own_reporter(context), FAST))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [text[:16] for text in results] == ["10,000 of 10,000"] * 3
    assert difference(dsn) == 0


def with_own_reporter(context: RunContext) -> RunContext:
    """The same context with a separate reporter."""
    return RunContext(context.dsn, limits=context.limits, reporter=Reporter())


def test_a_runner_that_was_taken_over_copies_nothing_more(dsn: str) -> None:
    """Its epoch is no longer the newest one, so its next batch does nothing and it fails."""
    fill(dsn, 5_000)
    context = target(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        state.ensure(connection)
        assert state.read(connection, BUNDLE) is None
        sql = state.sql_of(connection, COPY)
        functions.define(connection, sql, BUNDLE)
        first = copy_runner.Copier(context, FAST, connection, sql, state.take_over(connection, BUNDLE, COPY))
        assert first._batch() == 500
        state.take_over(connection, BUNDLE, COPY)
        with failing(FailureReason.CONCURRENT_MIGRATION):
            first._batch()
        assert value(dsn, MOVED) == 500


def test_a_full_disk_is_retried(dsn: str) -> None:
    """SQLSTATE 53100 until there is space again, then the copy continues."""
    fill(dsn, 3_000)
    context = target(dsn)
    run(
        dsn,
        "CREATE TABLE trouble (on_now boolean)",
        "INSERT INTO trouble VALUES (true)",
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF (SELECT on_now FROM trouble) THEN"
        " RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER full_disk BEFORE INSERT ON enhanced_user_sessions FOR EACH ROW EXECUTE FUNCTION full_disk()",
    )
    runner = threading.Thread(target=copy_runner.up, args=(context, FAST))
    runner.start()
    wait_for(lambda: "No space left" in context.reporter.last.waiting)
    run(dsn, "UPDATE trouble SET on_now = false")
    runner.join()
    assert value(dsn, MOVED) == 3_000


def test_functions_of_an_earlier_version_are_replaced(dsn: str) -> None:
    """CREATE OR REPLACE would reject other parameter names, and the upgrade of a copy that is followed would fail."""
    fill(dsn, 100)
    context = target(dsn)
    copy_runner.up(context, FAST)
    name = functions.copy_function(BUNDLE)
    parameters = "p_name text, p_epoch bigint, p_size int, p_duty float8, p_slice int, OUT read bigint, OUT moved bigint"
    run(
        dsn,
        f"DROP FUNCTION {name}",
        f"CREATE FUNCTION {name}({parameters}) RETURNS SETOF record LANGUAGE sql AS 'SELECT 1::bigint, 1::bigint'",
    )
    copy_runner.up(context, FAST)
    assert context.reporter.last.done == 100
    assert difference(dsn) == 0
