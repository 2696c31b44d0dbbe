"""The application's own session data as the seed has it: its tables, rows in any number, broken ones, and users who change it.

Also the comparison of both sides of the migration, in SQL of its own: nothing here is shared with what is tested.
"""

import contextlib
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psycopg

from lab.processes import Processes
from lab.servers import Postgres, remove

BUNDLE = "session-persistence/sessions"
SCHEMA = "session-persistence/schema"
TABLES = """
CREATE TABLE users (id uuid PRIMARY KEY, email text);
CREATE TABLE user_sessions (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), user_id uuid REFERENCES users (id) ON DELETE CASCADE,
  session_id text UNIQUE, last_activity timestamptz, preferences jsonb, form_data jsonb, navigation_state jsonb,
  migrated boolean, migrated_at timestamptz
);
"""
LOOSE = """
ALTER TABLE user_sessions DROP CONSTRAINT user_sessions_user_id_fkey, DROP CONSTRAINT user_sessions_session_id_key;
"""
FILL = """
INSERT INTO users (id, email) SELECT md5('user' || n)::uuid, 'user' || n || '@example.org' FROM generate_series(1, {users}) n
ON CONFLICT DO NOTHING;
INSERT INTO user_sessions (id, user_id, session_id, last_activity, preferences, form_data, navigation_state)
SELECT md5('session' || n)::uuid, md5('user' || 1 + n % {users})::uuid, md5('token' || n), now() - n * interval '1 second',
  '{{"theme": "dark", "language": "en"}}', jsonb_build_object('subject', 'ticket ' || n, 'body', repeat('x', 60)),
  '{{"page": "/tickets", "scroll": 120}}'
FROM generate_series({first}, {last}) n;
"""
COLUMNS = "id, user_id, session_id, last_activity, preferences, form_data, navigation_state"
DIFFERENCE = f"""
SELECT count(*) FROM (
  (SELECT {COLUMNS} FROM user_sessions WHERE migrated IS NULL AND id::text NOT IN (SELECT key FROM session_rollout.quarantine)
   EXCEPT ALL SELECT {COLUMNS} FROM enhanced_user_sessions WHERE migration_source = 'legacy')
  UNION ALL
  (SELECT {COLUMNS} FROM enhanced_user_sessions WHERE migration_source = 'legacy'
   EXCEPT ALL SELECT {COLUMNS} FROM user_sessions WHERE migrated IS NULL)) x
"""


def value(dsn: str, query: str, *values: Any) -> Any:
    """The first value of a query."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query, values or None).fetchone()
        return row[0] if row else None


def run(dsn: str, *queries: str) -> None:
    """Execute these."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for query in queries:
            connection.execute(query)


def fill(dsn: str, rows: int, users: int = 0, first: int = 1) -> None:
    """So many sessions of so many users."""
    run(dsn, FILL.format(users=users or max(rows // 10, 1), first=first, last=first + rows - 1), "ANALYZE")


def difference(dsn: str) -> int:
    """Rows that are on one side only, or differ: both directions, quarantined ones left out."""
    return int(value(dsn, DIFFERENCE))


@contextlib.contextmanager
def server(**settings: str) -> Iterator[Postgres]:
    """A PostgreSQL of its own, without the rest of a lab."""
    directory = Path(tempfile.mkdtemp(prefix="session-rollout-database-"))
    directory.chmod(0o755)
    for name in ("logs", "postgres"):
        (directory / name).mkdir()
    processes = Processes(directory / "logs")
    try:
        postgres = Postgres(directory / "postgres", processes)
        postgres.initialise().popen.wait(60)
        processes.wait(postgres.start(**settings), postgres.ready)
        yield postgres
    finally:
        processes.stop()
        remove(directory)


@contextlib.contextmanager
def database(url: str, name: str) -> Iterator[str]:
    """A database of its own with the application's tables; its connection string."""
    run(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', f'CREATE DATABASE "{name}"')
    dsn = url.removesuffix("postgres") + name
    run(dsn, TABLES)
    try:
        yield dsn
    finally:
        with contextlib.suppress(psycopg.Error):
            run(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


_INSERT = """
INSERT INTO user_sessions (user_id, session_id, last_activity, preferences, form_data, navigation_state)
SELECT id, gen_random_uuid()::text, now(), '{"theme": "light"}', '{"subject": "new"}', '{"page": "/new"}' FROM users
OFFSET %s LIMIT 1"""
_UPDATE = """
UPDATE user_sessions SET last_activity = now(), form_data = jsonb_build_object('subject', 'changed', 'n', %s::int)
WHERE id = md5('session' || %s)::uuid"""
_DELETE = "DELETE FROM user_sessions WHERE id = md5('session' || %s)::uuid"


@dataclass
class People:
    """Users who keep working: inserts, updates and deletes of sessions, now and then a whole user's."""

    dsn: str
    rows: int
    seed: int = 1
    pause: float = 0.004
    weights: tuple[int, int, int, int] = (25, 50, 24, 1)  # of inserts, updates, deletes, and users who leave
    done: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    stopped: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join(30)

    def _work(self) -> None:
        dice = random.Random(self.seed)
        while not self.stopped.is_set():
            with (
                contextlib.suppress(psycopg.Error),
                psycopg.connect(self.dsn, autocommit=True, connect_timeout=5) as connection,
            ):
                while not self.stopped.wait(self.pause):
                    begun = time.monotonic()
                    self._write(connection, dice)
                    self.slowest = max(self.slowest, time.monotonic() - begun)
            self.stopped.wait(0.05)

    def _write(self, connection: psycopg.Connection[Any], dice: random.Random) -> None:
        what = dice.choices(("insert", "update", "delete", "user"), self.weights)[0]
        row = dice.randint(1, max(self.rows, 1))
        match what:
            case "insert":
                connection.execute(_INSERT, (dice.randint(0, 50),))
            case "update":
                connection.execute(_UPDATE, (row, row))
            case "delete":
                connection.execute(_DELETE, (row,))
            case "user":
                connection.execute("DELETE FROM users WHERE id = (SELECT user_id FROM user_sessions OFFSET 5 LIMIT 1)")
        self.done[what] += 1
