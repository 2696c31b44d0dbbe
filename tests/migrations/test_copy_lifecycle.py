"""After a copy: undo, finish, compare."""

import psycopg

from lab.sessions import BUNDLE, SCHEMA, difference, fill, run, value
from migrations.copies import FAST, MOVED, target
from migrations.failures import failing
from session_rollout.api.migration_enums import FailureReason
from session_rollout.migrations.copy import lifecycle
from session_rollout.migrations.copy import runner as copy_runner
from session_rollout.migrations.schema import bundle
from session_rollout.migrations.schema import runner as schema
from session_rollout.migrations.schema.bundle import Bundle


def test_undo_keeps_what_the_application_has_written_since(dsn: str) -> None:
    """Copied rows are deleted, rows that the application has written stay, the trigger is removed."""
    fill(dsn, 3_000)
    context = target(dsn)
    copy_runner.up(context, FAST)
    run(
        dsn,
        "INSERT INTO enhanced_user_sessions (session_id) VALUES ('own')",
        "UPDATE enhanced_user_sessions SET form_data = '{\"t\": 1}', updated_at = now() + '1s' WHERE id = md5('session1')::uuid",
    )
    lifecycle.down(context, FAST)
    assert value(dsn, "SELECT count(*) FROM enhanced_user_sessions") == 2
    assert value(dsn, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == 0
    lifecycle.down(context, FAST)  # nothing is left to undo
    assert value(dsn, "SELECT count(*) FROM enhanced_user_sessions") == 2
    run(dsn, "DELETE FROM enhanced_user_sessions")
    copy_runner.up(context, FAST)
    assert difference(dsn) == 0


def test_undo_keeps_a_row_that_was_written_in_both_tables_in_one_transaction(dsn: str) -> None:
    """Source first, as the guide says: the trigger and the application then see the same `now()`."""
    fill(dsn, 100)
    context = target(dsn)
    copy_runner.up(context, FAST)
    with psycopg.connect(dsn) as connection:
        connection.execute("UPDATE user_sessions SET form_data = '{\"t\": 1}' WHERE id = md5('session1')::uuid")
        connection.execute("UPDATE enhanced_user_sessions SET updated_at = now() WHERE id = md5('session1')::uuid")
        connection.execute("UPDATE user_sessions SET form_data = '{\"t\": 2}' WHERE id = md5('session2')::uuid")
    lifecycle.down(context, FAST)
    assert value(dsn, "SELECT form_data FROM enhanced_user_sessions") == {"t": 1}


def test_down_and_up_ten_times_give_the_same_rows(dsn: str) -> None:
    """Both bundles, on a database with rows."""
    fill(dsn, 1_000)
    context, tables = target(dsn), Bundle(SCHEMA, bundle.load(bundle.shipped(SCHEMA)))
    columns = "id, user_id, session_id, last_activity, preferences, form_data, navigation_state, migration_source"
    query = f"SELECT sum(hashtextextended(x::text, 0))::text FROM (SELECT {columns} FROM enhanced_user_sessions) x"
    copy_runner.up(context, FAST)
    before = value(dsn, query)
    for _ in range(10):
        lifecycle.down(context, FAST)
        schema.down(context, tables)
        schema.up(context, tables)
        copy_runner.up(context, FAST)
        assert value(dsn, query) == before
        assert difference(dsn) == 0


def test_finish_makes_the_target_the_source_of_truth(dsn: str) -> None:
    """The source rows are marked and changes no longer followed; the copy cannot be undone afterwards."""
    fill(dsn, 1_000)
    context = target(dsn)
    copy_runner.up(context, FAST)
    lifecycle.finish(context, FAST)
    assert value(dsn, "SELECT count(*) FROM user_sessions WHERE migrated AND migrated_at IS NOT NULL") == 1_000
    run(dsn, "DELETE FROM user_sessions")
    assert value(dsn, MOVED) == 1_000
    lifecycle.finish(context, FAST)
    copy_runner.up(context, FAST)
    assert value(dsn, MOVED) == 1_000
    with failing(FailureReason.COPY_FINISHED, "enhanced_user_sessions"):
        lifecycle.down(context, FAST)


def test_finish_overwrites_what_the_application_changed_in_copied_rows(dsn: str) -> None:
    """Writes to the target are never copied back: until `finish`, the source wins. Rows that are not `ours` are kept."""
    fill(dsn, 100)
    context = target(dsn)
    copy_runner.up(context, FAST)
    run(
        dsn,
        "UPDATE enhanced_user_sessions SET form_data = '{\"t\": 1}', updated_at = now() + '1s' WHERE id = md5('session1')::uuid",
        "INSERT INTO enhanced_user_sessions (session_id, form_data) VALUES ('own', '{\"t\": 2}')",
    )
    lifecycle.finish(context, FAST)
    changed = "SELECT count(*) FROM enhanced_user_sessions t JOIN user_sessions s USING (id) WHERE t.form_data <> s.form_data"
    assert value(dsn, changed) == 0
    assert value(dsn, "SELECT form_data FROM enhanced_user_sessions WHERE session_id = 'own'") == {"t": 2}
    assert value(dsn, "SELECT count(*) FROM user_sessions WHERE session_id = 'own'") == 0


def test_finish_applies_changes_that_the_trigger_recorded(dsn: str) -> None:
    """A change whose target row was locked when it was made."""
    fill(dsn, 100)
    context = target(dsn)
    copy_runner.up(context, FAST)
    run(dsn, "ALTER TABLE user_sessions DISABLE TRIGGER USER", "DELETE FROM user_sessions WHERE id = md5('session1')::uuid")
    run(dsn, f"INSERT INTO session_rollout.changes VALUES ('{BUNDLE}', md5('session1')::uuid)")
    lifecycle.finish(context, FAST)
    assert value(dsn, MOVED) == 99
    assert value(dsn, "SELECT count(*) FROM session_rollout.changes") == 0


def test_compare_counts_rows_that_differ(dsn: str) -> None:
    """Missing, different and extra rows, by checksum of the range and then by row; another `up` corrects them."""
    fill(dsn, 2_000)
    context = target(dsn)
    copy_runner.up(context, FAST)
    run(
        dsn,
        "DELETE FROM enhanced_user_sessions WHERE id = md5('session1')::uuid",
        "UPDATE enhanced_user_sessions SET state_version = '1.0' WHERE id = md5('session2')::uuid",
        "INSERT INTO enhanced_user_sessions (session_id, migration_source) VALUES ('x', 'legacy')",
    )
    comparison = lifecycle.compare(context, FAST)
    assert (comparison.missing, comparison.different, comparison.extra) == (1, 1, 1)
    copy_runner.up(context, FAST)
    assert lifecycle.compare(context, FAST).agrees
