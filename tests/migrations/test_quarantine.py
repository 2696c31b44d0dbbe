"""Rows that cannot be copied go into quarantine with a reason, and are copied once they are corrected."""

import random

import psycopg

from lab.sessions import People, difference, fill, run, value
from migrations.copies import FAST, quarantine, target
from session_rollout.migrations.copy import lifecycle
from session_rollout.migrations.copy import runner as copy_runner

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
        message = copy_runner.up(here, FAST)
    assert "100 in quarantine" in message
    assert quarantine(dsn) == expected
    assert difference(dsn) == 0
    assert here.reporter.last.quarantined == 100
    standing = lifecycle.status(here, FAST)
    assert sum(item["rows"] for item in standing["quarantine"]) == 100
    # The fix: sound content again.
    sound = (
        "UPDATE user_sessions SET preferences = '{}', form_data = '{}', navigation_state = '{}', session_id = md5(id::text),"
        " user_id = (SELECT id FROM users LIMIT 1) WHERE id::text = ANY(%s)"
    )
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "ALTER TABLE user_sessions DISABLE TRIGGER USER"
        )  # as if the rows were corrected while changes were not followed
        connection.execute(sound, (list(expected),))
        connection.execute("ALTER TABLE user_sessions ENABLE TRIGGER USER")
    assert copy_runner.retry(here, FAST) == "100 of 100 quarantined rows are copied, 0 stay in quarantine"
    assert quarantine(dsn) == {}
    assert difference(dsn) == 0


def test_mending_a_row_in_the_source_brings_it_back_at_once(dsn: str) -> None:
    """While changes are followed, no retry is needed; breaking one sets it aside at once."""
    fill(dsn, 50)
    copy_runner.up(target(dsn), FAST)
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
    copy_runner.up(here, FAST)
    assert list(quarantine(dsn).values()) == ["the application created a row with this key in the target"]
    assert value(dsn, "SELECT session_id FROM enhanced_user_sessions WHERE id = md5('session1')::uuid") == "mine"
