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


def test_broken_rows_are_quarantined_with_their_reason_and_copied_once_corrected(dsn: str) -> None:
    """100 of 10,000 rows are broken: exactly these are quarantined, and they are copied after they were corrected."""
    fill(dsn, 10_000)
    run(dsn, LOOSE)
    dice = random.Random(7)
    reasons, chosen = list(BROKEN), dice.sample(range(1, 10_001), 100)
    expected: dict[str, str] = {}
    for number, row in enumerate(chosen):
        reason, key = reasons[number % len(reasons)], value(dsn, "SELECT md5('session' || %s)::uuid::text", row)
        run(dsn, BROKEN[reason].format(id=f"'{key}'"))
        expected[key] = reason
    context = target(dsn)
    with People(dsn, 0, pause=0.01, weights=(1, 0, 0, 0)):
        copy_runner.up(context, FAST)
    assert quarantine(dsn) == expected
    assert difference(dsn) == 0
    assert context.reporter.last.quarantined == 100
    quarantined = lifecycle.status(context, FAST)["quarantine"]
    assert sum(group["rows"] for group in quarantined) == 100
    correction = (
        "UPDATE user_sessions SET preferences = '{}', form_data = '{}', navigation_state = '{}', session_id = md5(id::text),"
        " user_id = (SELECT id FROM users LIMIT 1) WHERE id::text = ANY(%s)"
    )
    with psycopg.connect(dsn) as connection:
        # Without the trigger, as if the rows were corrected while changes were not followed.
        connection.execute("ALTER TABLE user_sessions DISABLE TRIGGER USER")
        connection.execute(correction, (list(expected),))
        connection.execute("ALTER TABLE user_sessions ENABLE TRIGGER USER")
    copy_runner.retry(context, FAST)
    assert quarantine(dsn) == {}
    assert difference(dsn) == 0


def test_a_row_that_is_corrected_in_the_source_is_copied_at_once(dsn: str) -> None:
    """While changes are followed, no retry is needed; a row that becomes broken is quarantined at once."""
    fill(dsn, 50)
    copy_runner.up(target(dsn), FAST)
    run(dsn, "UPDATE user_sessions SET preferences = '[]' WHERE id = md5('session1')::uuid")
    assert list(quarantine(dsn).values()) == ["preferences is not a JSON object"]
    assert difference(dsn) == 0
    run(dsn, "UPDATE user_sessions SET preferences = '{}' WHERE id = md5('session1')::uuid")
    assert quarantine(dsn) == {}
    assert difference(dsn) == 0


def test_a_target_row_that_the_application_created_is_not_overwritten(dsn: str) -> None:
    """The row of the target stays; the source row with the same key is quarantined."""
    fill(dsn, 50)
    context = target(dsn)
    run(dsn, "INSERT INTO enhanced_user_sessions (id, session_id) VALUES (md5('session1')::uuid, 'mine')")
    copy_runner.up(context, FAST)
    assert list(quarantine(dsn).values()) == ["the application created a row with this key in the target"]
    assert value(dsn, "SELECT session_id FROM enhanced_user_sessions WHERE id = md5('session1')::uuid") == "mine"
