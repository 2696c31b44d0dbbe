"""`plan`, the prediction of locks, and `status` with drift: the database stays unchanged."""

from pathlib import Path

import pytest

from lab.sessions import run
from migrations.schemas import OURS, bundle, catalog, target
from session_rollout.migrations.schema import drift, plan
from session_rollout.migrations.schema.bundle import Bundle, Step
from session_rollout.migrations.schema.locks import locks_of
from session_rollout.migrations.schema.runner import up


def test_plan_names_the_locks_and_changes_nothing(dsn: str) -> None:
    """A foreign key also locks the table that it references."""
    before = catalog(dsn)
    planned = {step.file: step for step in plan.plan(target(dsn), OURS)}
    assert [(lock.table, lock.mode, lock.blocks) for lock in planned["0002_user_keys.up.sql"].locks] == [
        ("users", "ShareRowExclusiveLock", "blocks writes")
    ]
    assert planned["0001_session_tables.up.sql"].locks == ()
    assert catalog(dsn) == before
    up(target(dsn), OURS)
    assert plan.plan(target(dsn), OURS) == []


LOCKING = [
    "CREATE TABLE orders (id uuid PRIMARY KEY, user_id uuid REFERENCES users (id))",
    "ALTER TABLE user_sessions ADD COLUMN note text",
    "ALTER TABLE user_sessions ADD CONSTRAINT again FOREIGN KEY (user_id) REFERENCES users (id) NOT VALID",
    "ALTER TABLE user_sessions ADD FOREIGN KEY (user_id) REFERENCES users (id) NOT VALID, ADD COLUMN note text",
    "ALTER TABLE user_sessions ADD CONSTRAINT positive CHECK (session_id <> '') NOT VALID",
    "ALTER TABLE user_sessions VALIDATE CONSTRAINT user_sessions_user_id_fkey",
    "ALTER TABLE user_sessions ALTER COLUMN session_id SET STATISTICS 500",
    "ALTER TABLE user_sessions ALTER COLUMN session_id SET NOT NULL",
    "CREATE INDEX by_activity ON user_sessions (last_activity)",
    "TRUNCATE user_sessions",
    "COMMENT ON TABLE users IS 'people'",
    "UPDATE user_sessions SET migrated = false",
    "DELETE FROM user_sessions",
    "INSERT INTO users (id) VALUES (gen_random_uuid())",
    "CREATE TRIGGER t BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    'ALTER TABLE "users" ADD COLUMN phone text; CREATE TABLE phones (id int)',
]


@pytest.mark.parametrize("statement", LOCKING, ids=lambda text: " ".join(text.split()[:4]))
def test_locks_read_from_sql_are_those_the_database_takes(statement: str, dsn: str) -> None:
    """The prediction without a database; it leaves out weak locks."""
    bundle = Bundle("locks", (Step(1, "it", statement, "SELECT 1"),), "Contract")
    [planned] = plan.plan(target(dsn), bundle)
    weak = {"AccessShareLock", "RowShareLock"}
    assert locks_of(bundle.steps)[planned.file] == tuple(lock for lock in planned.locks if lock.mode not in weak)


def test_drift_is_detected(dsn: str) -> None:
    """A changed column and a dropped index."""
    up(target(dsn), OURS)
    assert drift.status(target(dsn), OURS)["drift"] == []
    run(dsn, "DROP INDEX idx_session_analytics_timestamp", "ALTER TABLE session_analytics ALTER event_type TYPE varchar(50)")
    [column, index] = drift.status(target(dsn), OURS)["drift"]
    assert "session_analytics.event_type character varying(100)" in column["object"]
    assert "idx_session_analytics_timestamp" in index["object"]
    assert column["reason"] == index["reason"] == "MissingOrChanged"


def test_status_has_the_state_of_every_step(dsn: str, tmp_path: Path) -> None:
    """Pending, changed, and unknown to the bundle."""
    two = {"0001_one": "CREATE TABLE one (id int);", "0002_two": "CREATE TABLE two (id int);"}
    up(target(dsn), bundle(tmp_path, **two))
    changed = Step(1, "one", "CREATE TABLE other ();", "")
    states = drift.status(target(dsn), Bundle("mine", (changed, Step(3, "three", "SELECT 1", ""))))["steps"]
    assert [(step["step"], step["state"]) for step in states] == [
        ("0001_one", "Changed"),
        ("0003_three", "Pending"),
        ("0002_two", "NotInBundle"),
    ]
