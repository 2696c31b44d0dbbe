"""After a copy: undo, finish, compare."""

import pytest

from lab.sessions import BUNDLE, SCHEMA, difference, fill, run, value
from migrations.copies import FAST, MOVED, target
from session_rollout.errors import MigrationFailed
from session_rollout.migrations.copy import lifecycle
from session_rollout.migrations.copy import runner as copy_runner
from session_rollout.migrations.schema import bundle
from session_rollout.migrations.schema import runner as schema
from session_rollout.migrations.schema.bundle import Bundle


def test_undo_keeps_what_the_application_has_written_since(dsn: str) -> None:
    """Rows that were moved go, those that were touched stay, the trigger is gone."""
    fill(dsn, 3_000)
    here = target(dsn)
    copy_runner.up(here, FAST)
    run(
        dsn,
        "INSERT INTO enhanced_user_sessions (session_id) VALUES ('own')",
        "UPDATE enhanced_user_sessions SET form_data = '{\"t\": 1}', updated_at = now() + '1s' WHERE id = md5('session1')::uuid",
    )
    message = lifecycle.down(here, FAST)
    assert message == "2,999 rows of enhanced_user_sessions are deleted, 1 that the application has written since are kept"
    assert value(dsn, "SELECT count(*) FROM enhanced_user_sessions") == 2
    assert value(dsn, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == 0
    assert lifecycle.down(here, FAST) == "nothing to undo"
    run(dsn, "DELETE FROM enhanced_user_sessions")
    copy_runner.up(here, FAST)
    assert difference(dsn) == 0


def test_down_and_up_ten_times_give_the_same_rows(dsn: str) -> None:
    """Both bundles, on a filled database."""
    fill(dsn, 1_000)
    here, ours = target(dsn), Bundle(SCHEMA, bundle.load(bundle.shipped(SCHEMA)))
    columns = "id, user_id, session_id, last_activity, preferences, form_data, navigation_state, migration_source"
    query = f"SELECT sum(hashtextextended(x::text, 0))::text FROM (SELECT {columns} FROM enhanced_user_sessions) x"
    copy_runner.up(here, FAST)
    before = value(dsn, query)
    for _ in range(10):
        lifecycle.down(here, FAST)
        schema.down(here, ours)
        schema.up(here, ours)
        copy_runner.up(here, FAST)
        assert value(dsn, query) == before
        assert difference(dsn) == 0


def test_finish_makes_the_target_the_truth(dsn: str) -> None:
    """The source is marked and no longer followed; undo is refused from then on."""
    fill(dsn, 1_000)
    here = target(dsn)
    copy_runner.up(here, FAST)
    assert lifecycle.finish(here, FAST).startswith(
        "enhanced_user_sessions is the source of truth; 1,000 rows of user_sessions are marked"
    )
    assert value(dsn, "SELECT count(*) FROM user_sessions WHERE migrated AND migrated_at IS NOT NULL") == 1_000
    run(dsn, "DELETE FROM user_sessions")
    assert value(dsn, MOVED) == 1_000
    assert lifecycle.finish(here, FAST).startswith("enhanced_user_sessions is the source of truth; 0 rows")
    assert copy_runner.up(here, FAST).startswith("already finished")
    with pytest.raises(MigrationFailed, match="became the source of truth when the copy was finished"):
        lifecycle.down(here, FAST)


def test_finish_applies_what_the_trigger_could_only_record(dsn: str) -> None:
    """A change whose row was locked in the target, at the last moment."""
    fill(dsn, 100)
    here = target(dsn)
    copy_runner.up(here, FAST)
    run(dsn, "ALTER TABLE user_sessions DISABLE TRIGGER USER", "DELETE FROM user_sessions WHERE id = md5('session1')::uuid")
    run(dsn, f"INSERT INTO session_rollout.changes VALUES ('{BUNDLE}', md5('session1')::uuid)")
    lifecycle.finish(here, FAST)
    assert value(dsn, MOVED) == 99
    assert value(dsn, "SELECT count(*) FROM session_rollout.changes") == 0


def test_verify_finds_what_differs(dsn: str) -> None:
    """Missing, different, extra: by checksum of the range, then by row."""
    fill(dsn, 2_000)
    here = target(dsn)
    copy_runner.up(here, FAST)
    run(
        dsn,
        "DELETE FROM enhanced_user_sessions WHERE id = md5('session1')::uuid",
        "UPDATE enhanced_user_sessions SET state_version = '1.0' WHERE id = md5('session2')::uuid",
        "INSERT INTO enhanced_user_sessions (session_id, migration_source) VALUES ('x', 'legacy')",
    )
    seen = lifecycle.compare(here, FAST)
    assert (seen.missing, seen.different, seen.extra) == (1, 1, 1)
    assert "1 missing, 1 different, 1 extra rows" in str(seen)
    copy_runner.up(here, FAST)  # an attempt puts right what differs
    assert lifecycle.compare(here, FAST).agrees
