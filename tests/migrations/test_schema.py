"""The schema runner on a real PostgreSQL: once, never half, never in the way, and in the database's own words when it fails.

Not here: rows that are moved (test_copy), the Job around it (integration), hundreds of random faults (`make chaos-migrations`).
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

from lab.lab import until
from lab.proofs import INDEXES, TABLES
from lab.sessions import SCHEMA, fill, run, value
from session_rollout.migrations import examine, ledger
from session_rollout.migrations.bundle import BundleError, Step, load, shipped
from session_rollout.migrations.database import LOCK_KEY, Limits, MigrationFailed, Target, connect, persist
from session_rollout.migrations.lint import lint
from session_rollout.migrations.locks import locks_of
from session_rollout.migrations.report import Reporter
from session_rollout.migrations.schema import Bundle, down, up

BUNDLE = SCHEMA
STEPS = load(shipped(SCHEMA))
COUNT = len(STEPS)
OURS = Bundle(SCHEMA, STEPS)
QUICK = Limits(lock_timeout=timedelta(milliseconds=100), lock_deadline=timedelta(seconds=20))


def target(dsn: str, limits: Limits = QUICK) -> Target:
    """This database, quickly."""
    return Target(dsn, limits=limits, actor="test", job_uid="job-1")


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
ALL = list(range(1, COUNT + 1))


def test_up_brings_the_seeds_tables_and_indexes_once(dsn: str) -> None:
    """Three tables, five indexes, each step once in the ledger with who and how long; a second run changes nothing."""
    assert up(target(dsn), OURS).startswith(f"{COUNT} of {COUNT} steps applied")
    tables = rows(dsn, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    assert tables == sorted([*TABLES, "users", "user_sessions"])
    assert rows(dsn, "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'idx_%' ORDER BY 1") == INDEXES
    before = catalog(dsn)
    assert up(target(dsn), OURS) == f"already applied: {COUNT} steps"
    assert catalog(dsn) == before
    assert rows(dsn, LEDGER) == ALL
    who = "SELECT DISTINCT applied_by || ' ' || job_uid FROM session_rollout.schema_migrations"
    assert rows(dsn, who) == ["test job-1"]
    assert value(dsn, "SELECT min(duration_ms) FROM session_rollout.schema_migrations") >= 0


def test_down_and_up_ten_times_give_the_same_schema_and_rows(dsn: str) -> None:
    """On a filled database: the catalog is the same each time, and no row of the application's tables is touched."""
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
    """Rows and checksum of the application's own tables."""
    query = "SELECT count(*) || ' ' || sum(hashtextextended(x::text, 0)) FROM {} x"
    return tuple(value(dsn, query.format(table)) for table in ("users", "user_sessions"))


def bundle(directory: Path, change: str = "Expand", **files: str) -> Bundle:
    """A bundle from texts; a down file is added where none is given as `down_<name>`."""
    for name, text in files.items():
        if not name.startswith("down_"):
            (directory / f"{name}.up.sql").write_text(text)
            (directory / f"{name}.down.sql").write_text(files.get(f"down_{name}", ""))
    return Bundle("mine", load(directory), change)


def numbered(**texts: str) -> dict[str, str]:
    """Keyword names cannot begin with a digit: `s1_one` is 0001_one."""
    return {name.replace("s", "000", 1): text for name, text in texts.items()}


def test_a_failing_step_leaves_nothing_and_names_file_line_and_reason(dsn: str, tmp_path: Path) -> None:
    """No half state to repair; the steps before it stay."""
    files = {"0001_good": "CREATE TABLE one (id int);", "0002_bad": "CREATE TABLE two (id int);\n\nSELECT * FROM nowhere;"}
    with pytest.raises(MigrationFailed, match=r'0002_bad.up.sql line 3: relation "nowhere" does not exist'):
        up(target(dsn), bundle(tmp_path, **files))
    assert rows(dsn, LEDGER) == [1]
    assert value(dsn, "SELECT to_regclass('two')") is None


def test_a_changed_step_is_refused(dsn: str, tmp_path: Path) -> None:
    """White space at line ends is no change; content is."""
    up(target(dsn), bundle(tmp_path, **{"0001_one": "CREATE TABLE one (id int);"}))
    up(target(dsn), bundle(tmp_path, **{"0001_one": "CREATE TABLE one (id int);   \n"}))
    with pytest.raises(MigrationFailed, match=r"0001_one\.up\.sql was changed after it was applied"):
        up(target(dsn), bundle(tmp_path, **{"0001_one": "CREATE TABLE one (id bigint);"}))


def test_an_older_bundle_is_refused_up_and_can_undo_what_it_does_not_know(dsn: str, tmp_path: Path) -> None:
    """A newer image was here; the ledger has its down SQL."""
    texts = {"0001_one": "CREATE TABLE one (id int);", "0002_two": "CREATE TABLE two (id int);"}
    undo = {"down_0001_one": "DROP TABLE one;", "down_0002_two": "DROP TABLE two;"}
    newer = bundle(tmp_path, **texts, **undo)
    up(target(dsn), newer)
    older = Bundle("mine", newer.steps[:1])
    with pytest.raises(MigrationFailed, match="0002_two is applied, and this bundle does not have it"):
        up(target(dsn), older)
    assert down(target(dsn), older, to=1).startswith("1 steps undone")
    assert rows(dsn, LEDGER) == [1]
    assert value(dsn, "SELECT to_regclass('two')") is None


def test_two_runners_at_once_take_turns(dsn: str) -> None:
    """Each step takes effect once."""
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(up(target(dsn), OURS))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(text.startswith(f"{COUNT} of {COUNT}") for text in results) == 1
    assert results.count(f"already applied: {COUNT} steps") == 3


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
    limits = Limits(lock_timeout=timedelta(milliseconds=300), lock_deadline=timedelta(seconds=30))
    here, heard = target(dsn, limits), list[str]()
    here.reporter = Listening(heard)

    def named() -> list[str]:
        return [text for text in heard if "nightly report" in text]

    with waits_of_others(dsn) as waits:
        with psycopg.connect(dsn, application_name="nightly report") as holder:
            holder.execute("INSERT INTO users (id) VALUES (gen_random_uuid())")  # ROW EXCLUSIVE until the end
            runner = threading.Thread(target=up, args=(here, OURS))
            runner.start()
            until(lambda: len(named()) >= 6 and len(waits) > 50, 30, "six attempts")
            assert runner.is_alive()
        runner.join(20)
    assert rows(dsn, LEDGER) == ALL
    # A statement may meet one wait of ours, and then its own work; queueing for the lock would be six of them.
    assert max(waits) < 3 * 0.3, max(waits)
    assert "users is held by pid" in named()[0]
    assert "idle in transaction" in named()[0]


class Listening(Reporter):
    """Keeps what is said about waiting."""

    def __init__(self, heard: list[str]) -> None:
        super().__init__()
        self.heard = heard

    def waits(self, why: str) -> None:
        self.heard.append(why)


def test_access_exclusive_lock_is_waited_for_and_its_holder_named(dsn: str) -> None:
    """Somebody's DDL holds the table until the runner has said so."""
    here, heard = target(dsn), list[str]()
    here.reporter = Listening(heard)
    with psycopg.connect(dsn, application_name="alter table") as holder:
        holder.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        runner = threading.Thread(target=up, args=(here, OURS))
        runner.start()
        until(lambda: any("users is held by pid" in text and "alter table" in text for text in heard), 20, "its holder named")
        assert runner.is_alive()
    runner.join(20)
    assert rows(dsn, LEDGER) == ALL


def test_access_exclusive_lock_that_never_goes_fails_with_who_holds_it(dsn: str) -> None:
    """Bounded patience."""
    limits = Limits(lock_timeout=timedelta(seconds=1), lock_deadline=timedelta(seconds=3))
    with psycopg.connect(dsn, application_name="vacuum full") as holder:
        holder.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(
            MigrationFailed, match=r"000\d_\w+.up.sql: no lock within 0:00:03: users is held by pid \d+ \(vacuum"
        ):
            up(target(dsn, limits), OURS)


def test_another_runner_is_named(dsn: str) -> None:
    """Who holds the advisory lock."""
    limits = Limits(lock_deadline=timedelta(seconds=1))
    with connect(dsn) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
        with pytest.raises(MigrationFailed, match=r"another migration holds the lock: pid \d+ \(session-rollout"):
            up(target(dsn, limits), OURS)


# --- indexes outside transactions

INDEX = {
    "0001_table": "CREATE TABLE one (id int, name text);",
    "0002_index": "CREATE INDEX CONCURRENTLY one_name ON one (name);",
    "down_0002_index": "DROP INDEX CONCURRENTLY one_name;",
    "down_0001_table": "DROP TABLE one;",
}


def test_index_is_built_concurrently_and_dropped_again(dsn: str, tmp_path: Path) -> None:
    """Outside a transaction, and still once."""
    ours = bundle(tmp_path, **INDEX)
    up(target(dsn), ours)
    assert value(dsn, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'one_name'::regclass")
    up(target(dsn), ours)
    down(target(dsn), ours)
    assert value(dsn, "SELECT to_regclass('one')") is None


def test_invalid_index_is_repaired(dsn: str, tmp_path: Path) -> None:
    """What a cancelled build leaves is removed and built again; `IF NOT EXISTS` would have called it done."""
    ours = bundle(tmp_path, **INDEX)
    up(target(dsn), Bundle("mine", ours.steps[:1]))
    with psycopg.connect(dsn) as snapshot:
        snapshot.execute("INSERT INTO one VALUES (1, 'a')")  # the build waits for this transaction
        with connect(dsn) as builder:
            builder.execute("SET statement_timeout = 300")
            with pytest.raises(psycopg.errors.QueryCanceled):
                builder.execute("CREATE INDEX CONCURRENTLY one_name ON one (name)")
    assert value(dsn, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'one_name'::regclass") is False
    assert [line for line in examine.status(target(dsn), ours)["drift"] if "invalid" in line] == ["invalid: index one_name"]
    up(target(dsn), ours)
    assert value(dsn, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'one_name'::regclass")
    assert examine.status(target(dsn), ours)["drift"] == []


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
    runner.join(10)
    assert rows(dsn, LEDGER) == [1, 2]


# --- looking without touching


def test_plan_names_the_locks_and_changes_nothing(dsn: str) -> None:
    """The lock that no linter sees: a foreign key locks the table it refers to."""
    before = catalog(dsn)
    planned = {one.file: one for one in examine.plan(target(dsn), OURS)}
    assert [(lock.table, lock.mode, lock.blocks) for lock in planned["0002_user_keys.up.sql"].locks] == [
        ("users", "ShareRowExclusiveLock", "blocks writes")
    ]
    assert planned["0001_session_tables.up.sql"].locks == ()
    assert catalog(dsn) == before
    up(target(dsn), OURS)
    assert examine.plan(target(dsn), OURS) == []


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
    """For plans without a database; weak locks beside them, and those of a dropped foreign key, are not spoken of."""
    bundle = Bundle("locks", (Step(1, "it", statement, "SELECT 1"),), "Contract")
    [planned] = examine.plan(target(dsn), bundle)
    weak = {"AccessShareLock", "RowShareLock"}
    assert locks_of(bundle.steps)[planned.file] == tuple(lock for lock in planned.locks if lock.mode not in weak)


def test_drift_is_found_by_what_the_steps_had_made(dsn: str) -> None:
    """A column that somebody changed, an index that is gone."""
    up(target(dsn), OURS)
    assert examine.status(target(dsn), OURS)["drift"] == []
    run(dsn, "DROP INDEX idx_session_analytics_timestamp", "ALTER TABLE session_analytics ALTER event_type TYPE varchar(50)")
    drift = "\n".join(examine.status(target(dsn), OURS)["drift"])
    assert "idx_session_analytics_timestamp" in drift
    assert "session_analytics.event_type character varying(100)" in drift


def test_status_tells_pending_applied_changed_and_unknown(dsn: str, tmp_path: Path) -> None:
    """Each step in one word."""
    two = {"0001_one": "CREATE TABLE one (id int);", "0002_two": "CREATE TABLE two (id int);"}
    ours = bundle(tmp_path, **two)
    up(target(dsn), ours)
    changed = Step(1, "one", "CREATE TABLE other ();", "")
    states = examine.status(target(dsn), Bundle("mine", (changed, Step(3, "three", "SELECT 1", ""))))["steps"]
    assert [(one["step"], one["state"]) for one in states] == [
        ("0001_one", "Changed"),
        ("0003_three", "Pending"),
        ("0002_two", "NotInBundle"),
    ]


# --- what cannot be undone


def test_down_refuses_to_destroy_data_unless_allowed(dsn: str, tmp_path: Path) -> None:
    """Tables and columns with data; empty ones go."""
    run(dsn, "CREATE TABLE old (id int)", "INSERT INTO old VALUES (1)")
    texts = {
        "0001_one": "CREATE TABLE one (id int);",
        "0002_column": "ALTER TABLE old ADD COLUMN extra text;",
        "down_0001_one": "DROP TABLE one;",
        "down_0002_column": "ALTER TABLE old DROP COLUMN extra;",
    }
    ours = bundle(tmp_path, **texts)
    up(target(dsn), ours)
    run(dsn, "INSERT INTO one SELECT generate_series(1, 1234)")
    with pytest.raises(
        MigrationFailed, match=r"0001_one.down.sql would destroy table public.one with 1,234 rows: it is refused"
    ):
        down(target(dsn), ours)
    assert rows(dsn, LEDGER) == [1, 2]  # nothing is undone before all of it may be
    down(target(dsn), ours, to=1)  # an empty column goes
    assert rows(dsn, LEDGER) == [1]
    up(target(dsn), ours)
    run(dsn, "UPDATE old SET extra = 'x'")
    with pytest.raises(MigrationFailed, match=r"would destroy column public.old.extra with values"):
        down(target(dsn), ours)
    down(target(dsn), ours, allow_data_loss=True)
    assert rows(dsn, LEDGER) == []


def test_point_of_no_return_refuses_down_below_it(dsn: str, tmp_path: Path) -> None:
    """Also for an image that does not know it."""
    texts = {"0001_one": "CREATE TABLE one (id int);", "0002_two": "CREATE TABLE two (id int);", "0003_three": "SELECT 1;"}
    bundle(tmp_path, **texts, down_0003_three="SELECT 1;")
    up(target(dsn), Bundle("mine", load(tmp_path, point_of_no_return=2)))
    with pytest.raises(MigrationFailed, match="0002_two was declared as the point of no return, and it is applied"):
        down(target(dsn), Bundle("mine", load(tmp_path)), to=1)
    assert rows(dsn, LEDGER) == [1, 2, 3]
    with pytest.raises(BundleError, match=r"`pointOfNoReturn` is 7, and it must be the number of a step: 1, 2, 3"):
        load(tmp_path, point_of_no_return=7)


# --- interruptions


def test_lost_connection_is_taken_up_again(dsn: str, tmp_path: Path) -> None:
    """`pg_terminate_backend` in the middle of a step: it is rolled back and done by the next connection."""
    ours = bundle(tmp_path, **{"0001_slow": "CREATE TABLE one (id int); SELECT pg_sleep(1.5);"})
    runner = threading.Thread(target=up, args=(target(dsn), ours))
    runner.start()
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1.5)%' AND pid <> pg_backend_pid()"
    )
    until(lambda: rows(dsn, query), 10, "the step running")
    runner.join(20)
    assert rows(dsn, LEDGER) == [1]
    assert value(dsn, "SELECT count(*) FROM session_rollout.history") == 1


def test_other_errors_of_the_database_are_told_in_its_words(dsn: str) -> None:
    """Nothing is retried that cannot succeed."""
    run(dsn, "CREATE SCHEMA session_rollout", "DROP ROLE IF EXISTS nobody_special", "CREATE ROLE nobody_special LOGIN")
    with pytest.raises(MigrationFailed, match="the database says: permission denied for"):
        persist(target(dsn.replace("postgres@", "nobody_special@")), ledger.prepare)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no NNNN_name.up.sql"),
        ({"1_x.up.sql": ""}, "must be called like 0001_create_tables.up.sql"),
        ({"0001_x.up.sql": ""}, "both an .up.sql and a .down.sql"),
        ({"0001_x.up.sql": "", "0001_x.down.sql": "", "0001_y.up.sql": "", "0001_y.down.sql": ""}, "same number"),
        (
            {"0001_x.up.sql": "SELECT 1; CREATE INDEX CONCURRENTLY a ON b (c);", "0001_x.down.sql": ""},
            "has 2 statements, one of them CONCURRENTLY",
        ),
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
    with pytest.raises(BundleError, match=f"shipped are {SCHEMA}, session-persistence/sessions"):
        shipped("session-persistence/sesions")


# --- lint

BAD = [
    ("index-blocks-writes", "CREATE INDEX a ON users (email);"),
    ("index-blocks-writes", "CREATE UNIQUE INDEX a ON users\n (email);"),
    ("constraint-scans", "ALTER TABLE users ADD CONSTRAINT c CHECK (id IS NOT NULL);"),
    ("constraint-scans", "ALTER TABLE users ADD FOREIGN KEY (id) REFERENCES other (id);"),
    ("inline-reference", "CREATE TABLE a (user_id uuid REFERENCES users (id));"),
    ("rewrites-table", "ALTER TABLE users ALTER COLUMN email TYPE varchar(10);"),
    ("volatile-default", "ALTER TABLE users ADD COLUMN token uuid DEFAULT gen_random_uuid();"),
    ("not-null-scans", "ALTER TABLE users ALTER COLUMN email SET NOT NULL;"),
    ("not-null-scans", "ALTER TABLE users ADD COLUMN n int NOT NULL;"),
    ("blocks-all", "LOCK TABLE users;"),
    ("transaction-control", "BEGIN; SELECT 1; COMMIT;"),
    ("destroys", "DROP TABLE users;"),
    ("destroys", "ALTER TABLE users DROP COLUMN email;"),
    ("destroys", "TRUNCATE users;"),
    ("destroys", "DELETE FROM users;"),
    ("renames", "ALTER TABLE users RENAME COLUMN email TO mail;"),
]
GOOD = [
    "CREATE INDEX CONCURRENTLY a ON users (email);",
    "CREATE TABLE a (id int); CREATE INDEX b ON a (id);",
    "ALTER TABLE users ADD CONSTRAINT c CHECK (id IS NOT NULL) NOT VALID;",
    "ALTER TABLE users VALIDATE CONSTRAINT c;",
    "ALTER TABLE users ADD COLUMN n int NOT NULL DEFAULT 0;",
    "ALTER TABLE users ADD COLUMN n int;",
    "-- DROP TABLE users;\nSELECT 'DROP TABLE users;';",
    "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$;",
    "-- session-rollout: allow destroys (the table is ours and empty)\nDROP TABLE scratch;",
]


@pytest.mark.parametrize(("rule", "text"), BAD)
def test_lint_finds(rule: str, text: str) -> None:
    """With the file, the line and the cure."""
    found = lint((Step(1, "x", "SELECT 1;\n" + text, ""),))
    assert rule in {one.rule for one in found}
    assert all(one.file == "0001_x.up.sql" and one.line >= 2 for one in found)


@pytest.mark.parametrize("text", GOOD)
def test_lint_has_nothing_against(text: str) -> None:
    """No false alarm."""
    assert lint((Step(1, "x", text, ""),)) == []


def test_contract_may_destroy_and_expand_is_refused_before_a_connection(tmp_path: Path) -> None:
    """`change` says what a bundle may do."""
    ours = bundle(tmp_path, **{"0001_drop": "DROP TABLE users;"})
    with pytest.raises(
        MigrationFailed, match=r"0001_drop.up.sql line 1: `DROP TABLE`: only a migration with `change: Contract`"
    ):
        up(target("postgresql://127.0.0.1:1/none"), ours)
    assert lint(ours.steps, "Contract") == []


def test_shipped_bundles_are_clean() -> None:
    """What this project ships holds its own rules."""
    assert lint(STEPS) == []
