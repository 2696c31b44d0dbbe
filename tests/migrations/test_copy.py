"""Rows that are moved on a real PostgreSQL, while people go on working: nothing lost, nothing doubled, nothing stale.

Not here: throughput and what the application feels (`make bench-migrations`), hundreds of random faults
(`make chaos-migrations`), the Job around it (integration).
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lab.lab import ROOT, until
from lab.sessions import BUNDLE, SCHEMA, People, difference, fill, run, value
from session_rollout.migrations import bundle, capture, copies, copying, copyspec, paced, schema, settling, verify
from session_rollout.migrations.bundle import BundleError
from session_rollout.migrations.copying import Job
from session_rollout.migrations.database import Interrupted, Limits, MigrationFailed, Target
from session_rollout.migrations.report import Reporter
from session_rollout.migrations.schema import Bundle
from session_rollout.migrations.throttle import LARGEST, SMALLEST, Gentleness, next_size

COPY = copyspec.load(bundle.shipped(BUNDLE))
QUICK = Limits(lock_timeout=timedelta(milliseconds=200), lock_deadline=timedelta(seconds=30))
FAST = Job(BUNDLE, COPY, Gentleness(duty=1.0, latency=timedelta(seconds=5)))
GENTLE = replace(FAST, gentleness=Gentleness(duty=0.25, latency=timedelta(seconds=5)))
MOVED = "SELECT count(*) FROM enhanced_user_sessions WHERE migration_source = 'legacy'"


def target(dsn: str) -> Target:
    """This database, with the schema."""
    made = Target(dsn, limits=QUICK, actor="test")
    schema.up(made, Bundle(SCHEMA, bundle.load(bundle.shipped(SCHEMA))))
    return made


def quarantine(dsn: str) -> dict[str, str]:
    """Reason by key."""
    with psycopg.connect(dsn) as connection:
        return dict(connection.execute("SELECT key, reason FROM session_rollout.quarantine ORDER BY key").fetchall())


# --- moving


def test_rows_are_moved_once_and_agree(dsn: str) -> None:
    """Every column, with where it came from; a second run moves nothing."""
    fill(dsn, 5_000)
    here = target(dsn)
    assert copying.up(here, FAST).startswith("5,000 of 5,000 rows are moved and agree; changes are followed")
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


def test_rows_that_are_marked_as_moved_are_not_moved_again(dsn: str) -> None:
    """`migrated` in the source: somebody moved them before."""
    fill(dsn, 1_000)
    run(dsn, "UPDATE user_sessions SET migrated = true WHERE id = md5('session7')::uuid")
    assert copying.up(target(dsn), FAST).startswith("999 of 999 rows")
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
    """Insert, update, change of the key, delete, a deleted user, and TRUNCATE, each at once."""
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
        # The trigger must be there first: then the slow one writes, and commits late.
        capturing.start()
        wait_for(lambda: value(dsn, "SELECT to_regclass('session_rollout.copies')") and value(dsn, MOVED) > 0)
        slow.execute("UPDATE user_sessions SET form_data = '{\"late\": true}' WHERE id = md5('session9')::uuid")
        slow.execute("DELETE FROM user_sessions WHERE id = md5('session10')::uuid")
        wait_for(lambda: "still open" in here.reporter.last.waiting)
        assert capturing.is_alive()
    capturing.join(20)
    assert difference(dsn) == 0


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> None:
    """Wait until it holds."""
    until(condition, seconds)


def test_application_needs_no_rights_and_never_fails_because_of_the_trigger(dsn: str) -> None:
    """It may write its own table and nothing else; a target that refuses a row is our problem."""
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


def test_application_waits_no_longer_than_a_moment_for_a_locked_target(dsn: str) -> None:
    """Somebody holds the row of the target: the change is recorded and applied later."""
    fill(dsn, 100)
    here = target(dsn)
    copying.up(here, FAST)
    with psycopg.connect(dsn) as holder:
        holder.execute("SELECT FROM enhanced_user_sessions WHERE id = md5('session1')::uuid FOR UPDATE")
        begun = time.monotonic()
        run(dsn, "UPDATE user_sessions SET form_data = '{\"n\": 1}' WHERE id = md5('session1')::uuid")
        assert time.monotonic() - begun < 0.5
    assert difference(dsn) == 2
    copying.up(here, FAST)
    assert difference(dsn) == 0


# --- broken rows

BROKEN = {
    "preferences is not a JSON object": "UPDATE user_sessions SET preferences = '[1, 2]' WHERE id = {id}",
    "form_data is not a JSON object": "UPDATE user_sessions SET form_data = '\"text\"' WHERE id = {id}",
    "navigation_state is not a JSON object": "UPDATE user_sessions SET navigation_state = 'null' WHERE id = {id}",
    "orphan: its user does not exist": "UPDATE user_sessions SET user_id = gen_random_uuid() WHERE id = {id}",
    "session_id is missing": "UPDATE user_sessions SET session_id = NULL WHERE id = {id}",
    "session_id is longer than 255 characters": "UPDATE user_sessions SET session_id = repeat('x', 300) WHERE id = {id}",
    "session_id contains a control character or an escaped NUL": (
        "UPDATE user_sessions SET session_id = session_id || E'\\\\u0000' WHERE id = {id}"
    ),
    "one of its documents takes more than 1 MiB": (
        "UPDATE user_sessions SET form_data = (SELECT jsonb_object_agg(n::text, md5(n::text)) FROM generate_series(1, 40000) n)"
        " WHERE id = {id}"
    ),
    "duplicate: another row with this session_id is moved": (
        "UPDATE user_sessions SET session_id = (SELECT session_id FROM user_sessions WHERE id < {id} ORDER BY id LIMIT 1)"
        " WHERE id = {id}"
    ),
}
LOOSE = "ALTER TABLE user_sessions DROP CONSTRAINT user_sessions_user_id_fkey, DROP CONSTRAINT user_sessions_session_id_key"


def test_broken_rows_are_set_aside_with_their_reason_and_moved_after_a_fix(dsn: str) -> None:
    """One in a hundred of ten thousand rows: quarantine holds exactly those, the rest is moved, a fix brings them back."""
    fill(dsn, 10_000)
    run(dsn, LOOSE)
    dice = random.Random(7)
    reasons, chosen = list(BROKEN), dice.sample(range(1, 10_001), 100)
    expected: dict[str, str] = {}
    for number, row in enumerate(chosen):
        reason, key = reasons[number % len(reasons)], value(dsn, "SELECT md5('session' || %s)::uuid::text", row)
        run(dsn, BROKEN[reason].format(id=f"'{key}'"))
        expected[key] = reason
    here = target(dsn)
    with People(dsn, 0, pause=0.01, weights=(1, 0, 0, 0)):
        message = copying.up(here, FAST)
    assert "100 in quarantine" in message
    assert quarantine(dsn) == expected
    assert difference(dsn) == 0
    assert here.reporter.last.quarantined == 100
    standing = settling.standing(here, FAST)
    assert sum(one["rows"] for one in standing["quarantine"]) == 100
    # The fix: sound content again.
    sound = (
        "UPDATE user_sessions SET preferences = '{}', form_data = '{}', navigation_state = '{}', session_id = md5(id::text),"
        " user_id = (SELECT id FROM users LIMIT 1) WHERE id::text = ANY(%s)"
    )
    with psycopg.connect(dsn) as connection:
        connection.execute("ALTER TABLE user_sessions DISABLE TRIGGER USER")  # as if it was mended while nothing followed
        connection.execute(sound, (list(expected),))
        connection.execute("ALTER TABLE user_sessions ENABLE TRIGGER USER")
    assert copying.retry(here, FAST) == "100 of 100 rows are moved now, 0 stay in quarantine"
    assert quarantine(dsn) == {}
    assert difference(dsn) == 0


def test_mending_a_row_in_the_source_brings_it_back_at_once(dsn: str) -> None:
    """While changes are followed, no retry is needed; breaking one sets it aside at once."""
    fill(dsn, 50)
    copying.up(target(dsn), FAST)
    run(dsn, "UPDATE user_sessions SET preferences = '[]' WHERE id = md5('session1')::uuid")
    assert list(quarantine(dsn).values()) == ["preferences is not a JSON object"]
    assert difference(dsn) == 0
    run(dsn, "UPDATE user_sessions SET preferences = '{}' WHERE id = md5('session1')::uuid")
    assert quarantine(dsn) == {}
    assert difference(dsn) == 0


def test_a_row_of_the_applications_own_with_the_same_key_is_not_touched(dsn: str) -> None:
    """The target's own row stays; the source's goes to quarantine."""
    fill(dsn, 50)
    here = target(dsn)
    run(dsn, "INSERT INTO enhanced_user_sessions (id, session_id) VALUES (md5('session1')::uuid, 'mine')")
    copying.up(here, FAST)
    assert list(quarantine(dsn).values()) == ["the target has a row of its own with this key"]
    assert value(dsn, "SELECT session_id FROM enhanced_user_sessions WHERE id = md5('session1')::uuid") == "mine"


# --- interruptions


def command(dsn_file: Path, *more: str) -> list[str]:
    """The program of the Job."""
    argv = [sys.executable, "-m", "session_rollout.migrations", "up", f"--bundle={BUNDLE}", f"--dsn-file={dsn_file}"]
    return [*argv, "--brake-latency=5s", *more]


def position(dsn: str) -> str:
    """The last key that was moved; empty before the first."""
    known = value(dsn, "SELECT to_regclass('session_rollout.copies')")
    return str(value(dsn, "SELECT coalesce(max(cursor), '') FROM session_rollout.copies")) if known else ""


def test_killed_again_and_again_it_goes_on_where_it_was(dsn: str, tmp_path: Path) -> None:
    """SIGKILL soon after each start has moved rows, people working meanwhile: 0 lost, 0 doubled."""
    fill(dsn, 30_000)
    target(dsn)
    (tmp_path / "dsn").write_text(dsn)
    dice, environment, cursors = random.Random(3), {**os.environ, "PYTHONPATH": str(ROOT / "operator")}, [""]
    with People(dsn, 30_000, pause=0.002):
        for _ in range(8):
            process = subprocess.Popen(command(tmp_path / "dsn", "--duty=0.2"), env=environment, stderr=subprocess.DEVNULL)
            moved, batches = {cursors[-1]}, dice.randint(1, 3)

            def enough(process: Any = process, moved: set[str] = moved, batches: int = batches) -> bool:
                moved.add(position(dsn))
                return process.poll() is not None or len(moved) > batches

            wait_for(enough)
            process.kill()
            process.wait()
            cursors.append(position(dsn))
        done = subprocess.run(
            command(tmp_path / "dsn", "--duty=1"), env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert len(set(cursors)) == len(cursors)
    assert cursors == sorted(cursors)
    assert difference(dsn) == 0
    assert value(dsn, "SELECT count(*) - count(DISTINCT session_id) FROM enhanced_user_sessions") == 0


def test_told_to_end_it_stops_after_its_batch_and_says_so(dsn: str, tmp_path: Path) -> None:
    """SIGTERM: exit 75 within a moment, another attempt goes on."""
    fill(dsn, 30_000)
    target(dsn)
    (tmp_path / "dsn").write_text(dsn)
    argv = command(tmp_path / "dsn", "--duty=0.1", f"--termination-log={tmp_path / 'log'}")
    process = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ROOT / "operator")}, stdout=subprocess.PIPE)
    wait_for(lambda: value(dsn, "SELECT to_regclass('session_rollout.copies')") and value(dsn, MOVED) > 0)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.read()
    assert process.wait(10) == 75
    assert time.monotonic() - begun < 3
    last = json.loads((tmp_path / "log").read_text())
    assert last["message"] == "interrupted: told to end"
    assert 0 < last["done"] < last["total"] == 30_000


def test_two_runners_of_one_copy_move_each_row_once(dsn: str) -> None:
    """The second one waits for the lock, then finds everything done."""
    fill(dsn, 10_000)
    here = target(dsn)
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(copying.up(replace_target(here), FAST))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [text[:16] for text in results] == ["10,000 of 10,000"] * 3
    assert difference(dsn) == 0


def replace_target(here: Target) -> Target:
    """The same with a reporter of its own."""
    return Target(here.dsn, limits=here.limits, reporter=Reporter())


def test_an_overtaken_runner_moves_nothing_more(dsn: str) -> None:
    """Its epoch is over: the batch finds nothing to do and it ends."""
    fill(dsn, 5_000)
    here = target(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        copies.ready(connection)
        old = copying.open_copy(here, FAST, connection) if copies.find(connection, BUNDLE) else None
        assert old is None
        sql = copies.sql_of(connection, COPY)
        paced.define(connection, sql, BUNDLE)
        first = copying.Copier(here, FAST, connection, sql, copies.take_over(connection, BUNDLE, COPY))
        assert first._batch() == 500
        copies.take_over(connection, BUNDLE, COPY)
        with pytest.raises(MigrationFailed, match="another runner has taken over"):
            first._batch()
        assert value(dsn, MOVED) == 500


def test_disk_full_and_time_outs_are_waited_for(dsn: str) -> None:
    """53100 for a second, then it goes on."""
    fill(dsn, 3_000)
    here = target(dsn)
    run(
        dsn,
        "CREATE TABLE trouble (on_now boolean)",
        "INSERT INTO trouble VALUES (true)",
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF (SELECT on_now FROM trouble) THEN"
        " RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER full_disk BEFORE INSERT ON enhanced_user_sessions FOR EACH ROW EXECUTE FUNCTION full_disk()",
    )
    runner = threading.Thread(target=copying.up, args=(here, FAST))
    runner.start()
    wait_for(lambda: "No space left" in here.reporter.last.waiting)
    run(dsn, "UPDATE trouble SET on_now = false")
    runner.join(20)
    assert value(dsn, MOVED) == 3_000


# --- gentleness


@pytest.mark.parametrize(
    ("size", "seconds", "expected"),
    [(1000, 0.01, 1300), (1000, 0.07, 1000), (1000, 0.1, 750), (1000, 0.3, 500), (3000, 0.01, LARGEST), (500, 1.0, SMALLEST)],
)
def test_batches_adapt(size: int, seconds: float, expected: int) -> None:
    """Towards 75 ms, between 500 and 3,000 rows."""
    assert next_size(size, seconds) == expected


def test_it_works_a_quarter_of_the_time(dsn: str) -> None:
    """The duty cycle: it rests three times as long as it has worked, on a busy machine, too."""
    fill(dsn, 30_000)
    here = target(dsn)
    with resting(dsn) as seen:
        copying.up(here, FAST)
    full = seen.count(True) / len(seen)
    settling.down(here, FAST)
    with resting(dsn) as seen:
        copying.up(here, GENTLE)
    assert seen.count(True) / len(seen) > 0.6 > full


@contextmanager
def resting(dsn: str) -> Iterator[list[bool]]:
    """Again and again: whether the runner's connection sleeps or waits for its client."""
    query = (
        "SELECT state = 'idle' OR wait_event = 'PgSleep' FROM pg_stat_activity WHERE application_name LIKE 'session-rollout%%'"
    )
    seen: list[bool] = []
    stopped = threading.Event()

    def work() -> None:
        with psycopg.connect(dsn, autocommit=True) as other:
            while not stopped.wait(0.005):
                seen.extend(bool(state) for (state,) in other.execute(query).fetchall())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield seen
    finally:
        stopped.set()
        thread.join()


def test_brakes_say_why(dsn: str) -> None:
    """Slow reads, waiting statements and a person's pause stop it; it goes on when they are over."""
    fill(dsn, 20_000)
    here = target(dsn)
    slow = replace(FAST, gentleness=Gentleness(duty=1.0, latency=timedelta(microseconds=1)))
    with ThreadPoolExecutor() as pool:
        braked = pool.submit(copying.up, here, slow)
        wait_for(lambda: "brake: reading a row takes" in here.reporter.last.waiting)
        here.stopping.set()
        with pytest.raises(Interrupted, match="told to end"):
            braked.result(10)
    here = Target(dsn, limits=QUICK)
    settling.pause(here, FAST, paused=True)
    runner = threading.Thread(target=copying.up, args=(here, FAST), daemon=True)
    runner.start()
    wait_for(lambda: here.reporter.last.waiting == "paused by a person")
    assert settling.standing(here, FAST)["paused"] is True
    settling.pause(here, FAST, paused=False)
    runner.join(20)
    assert difference(dsn) == 0


# --- the ends


def test_undo_keeps_what_the_application_has_written_since(dsn: str) -> None:
    """Rows that were moved go, those that were touched stay, the trigger is gone."""
    fill(dsn, 3_000)
    here = target(dsn)
    copying.up(here, FAST)
    run(
        dsn,
        "INSERT INTO enhanced_user_sessions (session_id) VALUES ('own')",
        "UPDATE enhanced_user_sessions SET form_data = '{\"t\": 1}', updated_at = now() + '1s' WHERE id = md5('session1')::uuid",
    )
    message = settling.down(here, FAST)
    assert message == "2,999 rows of enhanced_user_sessions are deleted, 1 that the application has written since are kept"
    assert value(dsn, "SELECT count(*) FROM enhanced_user_sessions") == 2
    assert value(dsn, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == 0
    assert settling.down(here, FAST) == "nothing to undo"
    run(dsn, "DELETE FROM enhanced_user_sessions")
    copying.up(here, FAST)
    assert difference(dsn) == 0


def test_down_and_up_ten_times_give_the_same_rows(dsn: str) -> None:
    """Both bundles, on a filled database."""
    fill(dsn, 1_000)
    here, ours = target(dsn), Bundle(SCHEMA, bundle.load(bundle.shipped(SCHEMA)))
    columns = "id, user_id, session_id, last_activity, preferences, form_data, navigation_state, migration_source"
    query = f"SELECT sum(hashtextextended(x::text, 0))::text FROM (SELECT {columns} FROM enhanced_user_sessions) x"
    copying.up(here, FAST)
    before = value(dsn, query)
    for _ in range(10):
        settling.down(here, FAST)
        schema.down(here, ours)
        schema.up(here, ours)
        copying.up(here, FAST)
        assert value(dsn, query) == before
        assert difference(dsn) == 0


def test_finish_makes_the_target_the_truth(dsn: str) -> None:
    """The source is marked and no longer followed; undo is refused from then on."""
    fill(dsn, 1_000)
    here = target(dsn)
    copying.up(here, FAST)
    assert settling.finish(here, FAST).startswith("enhanced_user_sessions is the truth; 1,000 rows of user_sessions are marked")
    assert value(dsn, "SELECT count(*) FROM user_sessions WHERE migrated AND migrated_at IS NOT NULL") == 1_000
    run(dsn, "DELETE FROM user_sessions")
    assert value(dsn, MOVED) == 1_000
    assert settling.finish(here, FAST).startswith("enhanced_user_sessions is the truth; 0 rows")
    assert copying.up(here, FAST).startswith("already finished")
    with pytest.raises(MigrationFailed, match="is the truth since the copy was finished: it cannot be undone"):
        settling.down(here, FAST)


def test_finish_applies_what_the_trigger_could_only_record(dsn: str) -> None:
    """A change whose row was locked in the target, at the last moment."""
    fill(dsn, 100)
    here = target(dsn)
    copying.up(here, FAST)
    run(dsn, "ALTER TABLE user_sessions DISABLE TRIGGER USER", "DELETE FROM user_sessions WHERE id = md5('session1')::uuid")
    run(dsn, f"INSERT INTO session_rollout.changes VALUES ('{BUNDLE}', md5('session1')::uuid)")
    settling.finish(here, FAST)
    assert value(dsn, MOVED) == 99
    assert value(dsn, "SELECT count(*) FROM session_rollout.changes") == 0


def test_verify_finds_what_differs(dsn: str) -> None:
    """Missing, different, extra: by checksum of the range, then by row."""
    fill(dsn, 2_000)
    here = target(dsn)
    copying.up(here, FAST)
    run(
        dsn,
        "DELETE FROM enhanced_user_sessions WHERE id = md5('session1')::uuid",
        "UPDATE enhanced_user_sessions SET state_version = '1.0' WHERE id = md5('session2')::uuid",
        "INSERT INTO enhanced_user_sessions (session_id, migration_source) VALUES ('x', 'legacy')",
    )
    seen = settling.compare(here, FAST)
    assert (seen.missing, seen.different, seen.extra) == (1, 1, 1)
    assert "missing 1, different 1, extra 1" in verify.words(seen)
    copying.up(here, FAST)  # an attempt puts right what differs
    assert settling.compare(here, FAST).agrees


# --- what is refused


def test_what_would_fail_half_way_is_refused_before(dsn: str) -> None:
    """Missing tables, missing rights with the GRANT that helps, no space, a key that is none."""
    fill(dsn, 10)
    made = Target(dsn, limits=QUICK)
    with pytest.raises(
        MigrationFailed, match="table enhanced_user_sessions does not exist: the migration that creates it must"
    ):
        copying.up(made, FAST)
    here = target(dsn)
    with pytest.raises(MigrationFailed, match=r"needs about \d+ MiB .*, and only 0 MiB are free"):
        copying.up(here, replace(FAST, free_space_query="SELECT 1000"))
    with pytest.raises(MigrationFailed, match="`key` is form_data, and it must be a unique column of user_sessions"):
        copying.up(here, replace(FAST, copy=COPY.model_copy(update={"key": "form_data"})))
    run(dsn, "DROP ROLE IF EXISTS weak", "CREATE ROLE weak LOGIN", "GRANT SELECT ON user_sessions TO weak")
    weak = Target(dsn.replace("postgres@", "weak@"), definer=dsn, limits=QUICK)
    with pytest.raises(MigrationFailed) as refused:
        copying.up(weak, FAST)
    assert "permission denied" in str(refused.value) or "GRANT" in str(refused.value)


def test_a_changed_copy_is_refused(dsn: str) -> None:
    """What was moved by another description must be undone first."""
    fill(dsn, 10)
    here = target(dsn)
    copying.up(here, FAST)
    other = COPY.model_copy(update={"where": "s.migrated IS NOT TRUE"})
    with pytest.raises(MigrationFailed, match=r"copy.yaml was changed after the copy began: undo it with `down` first"):
        copying.up(here, replace(FAST, copy=other))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("source: [", "copy.yaml cannot be read"),
        ("source: user_sessions", r"copy.yaml: `target` is .*Field required"),
        ("{source: 'a; DROP', target: b, key: id, columns: {x: '1'}, ours: 'true'}", "copy.yaml: `source` is 'a; DROP'"),
        ("{source: a, target: b, key: id, columns: {}, ours: 'true'}", "copy.yaml: `columns` is"),
        ("{source: a, target: b, key: id, columns: {x: '1'}, ours: 'true', other: 1}", "copy.yaml: `other` is"),
    ],
)
def test_bad_descriptions_are_refused_with_the_field(tmp_path: Path, text: str, words: str) -> None:
    """Before a connection is opened."""
    (tmp_path / "copy.yaml").write_text(text)
    with pytest.raises(BundleError, match=words):
        copyspec.load(tmp_path)


def test_a_bundle_is_either_steps_or_a_copy(tmp_path: Path) -> None:
    """Both in one place is a mistake."""
    (tmp_path / "copy.yaml").write_text("")
    (tmp_path / "0001_x.up.sql").write_text("")
    with pytest.raises(BundleError, match=r"must have either copy.yaml or NNNN_name.up.sql files"):
        bundle.is_copy(tmp_path)


def test_percent_signs_and_quotes_in_expressions_survive(dsn: str) -> None:
    """In statements with parameters and in the trigger alike."""
    fill(dsn, 20)
    odd = {**COPY.columns, "state_version": "CASE WHEN s.session_id LIKE '%%' THEN '100%' ELSE 'o''k' END"}
    checks = (copyspec.Check(when="s.session_id LIKE 'bad%'", reason="it's 100% bad"),)
    job = replace(FAST, copy=COPY.model_copy(update={"columns": odd, "checks": checks}))
    copying.up(target(dsn), job)
    run(dsn, "UPDATE user_sessions SET session_id = 'bad one' WHERE id = md5('session1')::uuid")
    assert value(dsn, "SELECT DISTINCT state_version FROM enhanced_user_sessions") == "100%"
    assert list(quarantine(dsn).values()) == ["it's 100% bad"]
    assert capture.trigger_name("ns/rollout/my-copy") == "session_rollout_ns_rollout_my_copy"
