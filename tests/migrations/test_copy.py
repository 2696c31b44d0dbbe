"""Rows are copied on a real PostgreSQL while users keep working: none is lost, duplicated or stale.

Not here: throughput and the latency of the application (`make bench-migrations`), hundreds of random faults
(`make chaos-migrations`), the Job around it (integration).
"""

import threading
import time

import psycopg

from lab.lab import PATIENCE
from lab.sessions import People, difference, fill, run, value
from migrations.copies import FAST, GENTLE, MOVED, quarantine, target, wait_for
from session_rollout.migrations.copy import lifecycle as settling
from session_rollout.migrations.copy import runner as copying


def test_rows_are_copied_once_and_are_equal(dsn: str) -> None:
    """All columns with their origin; a second run copies nothing."""
    fill(dsn, 5_000)
    here = target(dsn)
    copying.up(here, FAST)
    assert difference(dsn) == 0
    assert value(dsn, MOVED) == 5_000
    assert (
        value(
            dsn,
            "SELECT count(*) FROM enhanced_user_sessions WHERE state_version = '2.0' AND migration_timestamp > now() - '1m'::interval",
        )
        == 5_000
    )
    stamps = "SELECT max(migration_timestamp) FROM enhanced_user_sessions"
    before = value(dsn, stamps)
    copying.up(here, FAST)
    assert value(dsn, stamps) == before
    assert here.reporter.last.done == here.reporter.last.total == 5_000


def test_rows_that_are_marked_as_migrated_are_not_copied(dsn: str) -> None:
    """`migrated` in the source: another program migrated them before."""
    fill(dsn, 1_000)
    run(dsn, "UPDATE user_sessions SET migrated = true WHERE id = md5('session7')::uuid")
    copying.up(target(dsn), FAST)
    assert value(dsn, MOVED) == 999
    assert difference(dsn) == 0


def test_people_who_go_on_working_lose_nothing(dsn: str) -> None:
    """Inserts, updates, deletes and deleted users during the copy, the switch and after it."""
    fill(dsn, 20_000)
    here = target(dsn)
    with People(dsn, 20_000, pause=0.001) as people:
        copying.up(here, GENTLE)
        before = people.done.copy()
        wait_for(lambda: all(people.done[kind] > before[kind] for kind in ("insert", "update", "delete", "user")))
    assert min(people.done[kind] for kind in ("insert", "update", "delete", "user")) > 0, people.done
    assert difference(dsn) == 0
    assert quarantine(dsn) == {}
    assert value(dsn, "SELECT count(*) FROM session_rollout.changes") == 0
    seen = settling.compare(here, FAST)
    assert seen.agrees
    assert seen.source_rows == seen.target_rows > 0
    assert seen.sampled == 1_000


def test_changes_are_followed_until_the_end(dsn: str) -> None:
    """Insert, update, change of the key, delete, a deleted user, and TRUNCATE: each is applied at once."""
    fill(dsn, 500)
    copying.up(target(dsn), FAST)
    for change in (
        "INSERT INTO user_sessions (user_id, session_id, preferences) SELECT id, 'new', '{}' FROM users LIMIT 1",
        "UPDATE user_sessions SET form_data = '{\"a\": 1}' WHERE id = md5('session3')::uuid",
        "UPDATE user_sessions SET id = gen_random_uuid() WHERE id = md5('session4')::uuid",
        "DELETE FROM user_sessions WHERE id = md5('session5')::uuid",
        "DELETE FROM users WHERE id = (SELECT user_id FROM user_sessions LIMIT 1)",
        "TRUNCATE user_sessions",
    ):
        run(dsn, change)
        assert difference(dsn) == 0, change
    assert value(dsn, MOVED) == 0
    assert value(dsn, "SELECT count(*) FROM session_rollout.changes") == 0


def test_open_transactions_at_the_switch_lose_nothing(dsn: str) -> None:
    """A transaction that wrote before the trigger was switched commits after it."""
    fill(dsn, 6_000)
    here = target(dsn)
    with psycopg.connect(dsn) as slow:
        capturing = threading.Thread(target=copying.up, args=(here, GENTLE))
        # The slow transaction must write after the trigger was installed, and commit late.
        capturing.start()
        wait_for(lambda: value(dsn, "SELECT to_regclass('session_rollout.copies')") and value(dsn, MOVED) > 0)
        slow.execute("UPDATE user_sessions SET form_data = '{\"late\": true}' WHERE id = md5('session9')::uuid")
        slow.execute("DELETE FROM user_sessions WHERE id = md5('session10')::uuid")
        wait_for(lambda: "an open transaction" in here.reporter.last.waiting)
        assert capturing.is_alive()
    capturing.join()
    assert difference(dsn) == 0


def test_application_needs_no_rights_and_never_fails_because_of_the_trigger(dsn: str) -> None:
    """The application may write only its own table; a target that rejects a row does not affect it."""
    fill(dsn, 100)
    run(dsn, "DROP ROLE IF EXISTS web", "CREATE ROLE web LOGIN", "GRANT ALL ON users, user_sessions TO web")
    web = dsn.replace("postgres@", "web@")
    here = target(dsn)
    copying.up(here, FAST)
    run(web, "UPDATE user_sessions SET form_data = '{}' WHERE id = md5('session1')::uuid")
    assert difference(dsn) == 0
    run(dsn, "ALTER TABLE enhanced_user_sessions ADD CONSTRAINT odd CHECK (form_data <> '{\"odd\": 1}')")
    run(web, "UPDATE user_sessions SET form_data = '{\"odd\": 1}' WHERE id = md5('session1')::uuid")
    assert value(dsn, "SELECT count(*) FROM session_rollout.changes") == 1
    copying.up(here, FAST)
    [reason] = quarantine(dsn).values()
    assert 'violates check constraint "odd" (SQLSTATE 23514)' in reason
    assert difference(dsn) == 0


def test_application_waits_only_briefly_for_a_locked_target(dsn: str) -> None:
    """Another session locks the target row: the change is recorded and applied later."""
    fill(dsn, 100)
    here = target(dsn)
    copying.up(here, FAST)
    with psycopg.connect(dsn) as holder:
        holder.execute("SELECT FROM enhanced_user_sessions WHERE id = md5('session1')::uuid FOR UPDATE")
        started = time.monotonic()
        run(dsn, "UPDATE user_sessions SET form_data = '{\"n\": 1}' WHERE id = md5('session1')::uuid")
        assert time.monotonic() - started < 0.5 * PATIENCE
    assert difference(dsn) == 2
    copying.up(here, FAST)
    assert difference(dsn) == 0
