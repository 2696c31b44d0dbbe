"""Backup, restore and repair: damaged rows are restored, rows that users have written since are kept, and all are counted.

Not here: when the operator takes and restores snapshots (core stories, integration).
"""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from lab.sessions import BUNDLE, SCHEMA, People, difference, fill, run, value
from migrations.failures import failing
from session_rollout.api.migration_enums import FailureReason
from session_rollout.migrations.connection import Limits, RunContext
from session_rollout.migrations.copy import lifecycle, repair, restore, snapshots, spec, state
from session_rollout.migrations.copy import runner as copy_runner
from session_rollout.migrations.copy.restore import RestoreOptions, RestoreResult
from session_rollout.migrations.copy.runner import CopyJob
from session_rollout.migrations.copy.throttle import ThrottleSettings
from session_rollout.migrations.schema import bundle
from session_rollout.migrations.schema import runner as schema
from session_rollout.migrations.schema.bundle import Bundle

COPY = spec.load(bundle.shipped(BUNDLE))
JOB = CopyJob(BUNDLE, COPY, ThrottleSettings(copy_duty_cycle=1.0, pause_on_read_latency=timedelta(seconds=5)))
ROWS = 4_000
KEPT = "SELECT count(*) FROM pg_tables WHERE schemaname = 'session_rollout_snapshots'"
COLUMNS = "id, user_id, session_id, last_activity, preferences, form_data, navigation_state"


def copied(dsn: str, rows: int = ROWS) -> RunContext:
    """A database whose rows are copied and followed, with a snapshot."""
    fill(dsn, rows)
    context = RunContext(dsn, limits=Limits(lock_timeout=timedelta(milliseconds=200)), actor="test")
    schema.up(context, Bundle(SCHEMA, bundle.load(bundle.shipped(SCHEMA))))
    copy_runner.up(context, JOB)
    snapshots.backup(context, JOB, "state-persistence")
    assert value(dsn, "SELECT array_agg(rows) FROM session_rollout.snapshots WHERE label = 'state-persistence'") == [rows, rows]
    return context


def row(dsn: str, number: int, table: str = "user_sessions") -> tuple[Any, ...]:
    """The content of a session."""
    with psycopg.connect(dsn) as connection:
        query = f"SELECT {COLUMNS} FROM {table} WHERE id = md5('session' || %s)::uuid"
        record = connection.execute(query, (number,)).fetchone()
        return tuple(record) if record else ()


def figures(results: list[RestoreResult]) -> dict[str, tuple[int, int, int, int]]:
    """By table: rows inserted, reverted, kept and orphaned."""
    return {result.table: (result.inserted, result.reverted, result.kept, result.orphaned) for result in results}


def ids(numbers: list[int]) -> str:
    """SQL for the ids of sessions."""
    return "(SELECT md5('session' || n)::uuid FROM unnest(ARRAY[" + ",".join(map(str, numbers)) + "]) n)"


def test_restore_after_a_bad_phase_reverts_damage_and_keeps_what_users_wrote(dsn: str) -> None:
    """1% damaged, 0.5% deleted, some written by users since, some new: the numbers add up and no write of a user is lost."""
    context = copied(dsn)
    dice = random.Random(5)
    chosen = dice.sample(range(1, ROWS + 1), 90)
    damaged, deleted, written = chosen[:40], chosen[40:60], chosen[60:]
    before = {number: row(dsn, number) for number in chosen}
    bad_phase(dsn, damaged, deleted)
    run(
        dsn,
        f'UPDATE user_sessions SET form_data = \'{{"user": "wrote"}}\', last_activity = now() WHERE id IN {ids(written)}',
        "INSERT INTO user_sessions (user_id, session_id, last_activity, preferences)"
        " SELECT id, gen_random_uuid()::text, now(), '{}' FROM users LIMIT 7",
    )
    results = figures(restore.restore(context, JOB, RestoreOptions()))
    print("restored:", results)
    assert results["user_sessions"] == (20, 40, 30, 0)
    assert all(row(dsn, number) == before[number] for number in (*damaged, *deleted))
    assert all(row(dsn, number)[5] == {"user": "wrote"} for number in written)
    assert value(dsn, "SELECT count(*) FROM user_sessions") == ROWS + 7
    assert difference(dsn) == 0
    kept = "SELECT count(*) FROM session_rollout.restore_conflicts WHERE what = 'KeptNewer' AND table_name = 'user_sessions'"
    assert value(dsn, kept) == 30
    overwritten = (
        "SELECT count(*) FROM session_rollout.restore_conflicts WHERE what = 'Overwritten' AND table_name = 'user_sessions'"
    )
    assert value(dsn, overwritten) == 40
    assert figures(restore.restore(context, JOB, RestoreOptions()))["user_sessions"] == (
        0,
        0,
        30,
        0,
    )  # nothing is left to restore
    lifecycle.down(context, JOB)
    assert value(dsn, "SELECT count(*) FROM enhanced_user_sessions") == 0


def bad_phase(dsn: str, damaged: list[int], deleted: list[int]) -> None:
    """A release that destroys form data: half of the rows look newly written, the other half do not."""
    half = len(damaged) // 2
    run(
        dsn,
        f"UPDATE user_sessions SET form_data = '[]', last_activity = now() WHERE id IN {ids(damaged[:half])}",
        f"UPDATE user_sessions SET form_data = '{{}}' WHERE id IN {ids(damaged[half:])}",
        f"DELETE FROM user_sessions WHERE id IN {ids(deleted)}",
    )


def test_restore_by_user(dsn: str) -> None:
    """Only the rows of one user."""
    context = copied(dsn)
    run(dsn, "UPDATE user_sessions SET form_data = '{}'")
    user = value(dsn, "SELECT user_id::text FROM user_sessions LIMIT 1")
    own = value(dsn, "SELECT count(*) FROM user_sessions WHERE user_id = %s", user)
    assert figures(restore.restore(context, JOB, RestoreOptions(user=user)))["user_sessions"] == (0, own, 0, 0)
    assert value(dsn, "SELECT count(*) FROM user_sessions WHERE form_data <> '{}'") == own


def test_restore_by_time_takes_the_newest_snapshot_before_it(dsn: str) -> None:
    """There are two snapshots; no snapshot matches a time before the first one."""
    context = copied(dsn, 200)
    between = datetime.now(UTC)
    run(dsn, "UPDATE user_sessions SET form_data = '{\"second\": 1}'")
    snapshots.backup(context, JOB, "second")
    run(dsn, "UPDATE user_sessions SET form_data = '{\"third\": 1}'")
    restore.restore(context, JOB, RestoreOptions())
    assert value(dsn, "SELECT count(*) FROM user_sessions WHERE form_data ? 'second'") == 200
    restore.restore(context, JOB, RestoreOptions(at=between))
    assert value(dsn, "SELECT count(*) FROM user_sessions WHERE form_data ? 'subject'") == 200
    with failing(FailureReason.NO_SNAPSHOT, "user_sessions", "state-pers"):
        restore.restore(context, JOB, RestoreOptions(at=between - timedelta(hours=1)))


def test_exact_restore_counts_what_would_be_lost(dsn: str) -> None:
    """The number that the refusal shows; with `overwrite_newer` every row is restored as it was."""
    context = copied(dsn, 200)
    run(
        dsn,
        "UPDATE user_sessions SET form_data = '{\"new\": 1}', last_activity = now() WHERE id < '40000000-0000-0000-0000-000000000000'",
    )
    newer = value(dsn, "SELECT count(*) FROM user_sessions WHERE form_data ? 'new'")
    exact = RestoreOptions(overwrite_newer=True)
    assert restore.count_newer_rows(context, JOB, exact) >= newer > 0
    assert figures(restore.restore(context, JOB, exact))["user_sessions"] == (0, newer, 0, 0)
    assert value(dsn, "SELECT count(*) FROM user_sessions WHERE form_data ? 'new'") == 0


def test_rows_of_deleted_users_are_not_restored(dsn: str) -> None:
    """Their user no longer exists."""
    context = copied(dsn, 100)
    user = value(dsn, "SELECT user_id FROM user_sessions LIMIT 1")
    own = value(dsn, "SELECT count(*) FROM user_sessions WHERE user_id = %s", user)
    run(dsn, f"DELETE FROM users WHERE id = '{user}'")
    assert figures(restore.restore(context, JOB, RestoreOptions()))["user_sessions"] == (0, 0, 0, own)
    assert difference(dsn) == 0


def test_interrupted_snapshot_resumes_and_cannot_be_restored_before(dsn: str) -> None:
    """Only a complete snapshot matches."""
    context = copied(dsn, 6_000)
    with psycopg.connect(dsn, autocommit=True) as connection:
        sql = state.sql_of(connection, COPY)
        table = snapshots.tables_of(COPY)[0]
        number, name, cursor = snapshots._open(context, connection, JOB, "half", table)
        statement = snapshots._batch(table, name, sql.key_type)
        connection.execute(statement, {"number": number, "cursor": cursor, "size": 2_000})
    with failing(FailureReason.NO_SNAPSHOT, "user_sessions"):
        restore.restore(context, JOB, RestoreOptions(label="half"))
    snapshots.backup(context, JOB, "half")
    assert value(dsn, "SELECT array_agg(rows) FROM session_rollout.snapshots WHERE label = 'half'") == [6_000, 6_000]


def test_snapshot_while_users_keep_working(dsn: str) -> None:
    """No lock, no long transaction, no lost row."""
    context = copied(dsn)
    with People(dsn, ROWS, pause=0.001, weights=(1, 1, 0, 0)):
        snapshots.backup(context, replace(JOB, throttle=ThrottleSettings(copy_duty_cycle=0.25)), "busy")
    assert value(dsn, "SELECT min(rows) FROM session_rollout.snapshots WHERE label = 'busy'") >= ROWS
    assert difference(dsn) == 0


def test_snapshots_are_kept_for_a_week_after_the_end_and_then_dropped(dsn: str) -> None:
    """Snapshots do not expire before the copy is finished."""
    context = copied(dsn, 100)
    snapshots.prune(context, JOB)
    assert value(dsn, KEPT) == 2
    lifecycle.finish(context, JOB)
    days = "SELECT min(extract(day FROM keep_until - now()))::int FROM session_rollout.snapshots"
    assert value(dsn, days) in {6, 7}
    run(dsn, "UPDATE session_rollout.snapshots SET keep_until = now() - '1s'::interval")
    snapshots.prune(context, JOB)
    assert value(dsn, KEPT) == 0


def test_repair_replaces_damaged_rows_from_the_source_or_the_snapshot(dsn: str) -> None:
    """From the source while it is the source of truth, afterwards from the snapshot."""
    context = copied(dsn, 200)
    damage = "UPDATE enhanced_user_sessions SET form_data = '[]' WHERE id IN " + ids([1, 2, 3])
    run(dsn, damage)
    assert repair.repair(context, JOB) == repair.RepairResult(damaged=3, from_source=3, from_snapshot=0, remaining=())
    assert difference(dsn) == 0
    lifecycle.finish(context, JOB)
    run(dsn, damage, "INSERT INTO enhanced_user_sessions (session_id, form_data) VALUES ('new', '[]')")
    result = repair.repair(context, JOB)
    assert (result.damaged, result.from_source, result.from_snapshot, len(result.remaining)) == (4, 0, 3, 1)
    assert row(dsn, 1, "enhanced_user_sessions")[5]["subject"] == "ticket 1"


def test_restore_without_a_snapshot_fails(dsn: str) -> None:
    """With the name of the copy."""
    fill(dsn, 10)
    context = RunContext(dsn)
    schema.up(context, Bundle(SCHEMA, bundle.load(bundle.shipped(SCHEMA))))
    with failing(FailureReason.NO_SNAPSHOT, BUNDLE):
        restore.restore(context, JOB, RestoreOptions())
