"""Functions in the database that copy and compare rows a few at a time, with pauses in between.

What slows down the slowest statements of the application is not the share of time in which rows are copied, but how long rows
are copied without a pause: a statement that becomes ready while a batch runs waits for the processor. With the same duty cycle,
slices of tens of milliseconds multiply the application's p99, and slices of less than a millisecond hardly change it
(`make bench-migrations BENCH="--slice 3000"` shows the difference). A client cannot pause that often, so functions in the
database do it. With a duty cycle of 1 there are no pauses, and a slice is the whole batch.
"""

from typing import Final

from session_rollout.migrations.connection import Connection, execute
from session_rollout.migrations.copy.sql import REASON, CopySql
from session_rollout.migrations.copy.trigger import trigger_name

COPY_SLICE: Final = 6  # rows, about 0.2 ms
COMPARE_SLICE: Final = 50
SHORTEST_PAUSE: Final = 0.0006  # seconds; pg_sleep takes at least about a millisecond, so shorter pauses are added up

_PAUSE: Final = f"""
    owed := owed + extract(epoch FROM clock_timestamp() - started) * (1 / p_duty_cycle - 1);
    IF owed >= {SHORTEST_PAUSE} THEN
      started := clock_timestamp();
      PERFORM pg_sleep(owed);
      owed := owed - extract(epoch FROM clock_timestamp() - started);
    END IF;"""


def copy_function(copy: str) -> str:
    """Name of the function that copies a batch."""
    return f"session_rollout.{trigger_name(copy)}_move"


def compare_function(copy: str) -> str:
    """Name of the function that compares a range of keys."""
    return f"session_rollout.{trigger_name(copy)}_compare"


def define(connection: Connection, sql: CopySql, copy: str) -> None:
    """Create or replace both functions; they run with the privileges of their caller. Raises psycopg.Error."""
    with connection.transaction():
        drop(connection, copy)  # CREATE OR REPLACE cannot change the parameters of an earlier version
        execute(connection, _copy_text(sql, copy))
        execute(connection, _compare_text(sql, copy))


def drop(connection: Connection, copy: str) -> None:
    """Drop both functions. Raises psycopg.Error."""
    execute(connection, f"DROP FUNCTION IF EXISTS {copy_function(copy)}, {compare_function(copy)}")


def _plain(text: str) -> str:
    """Replace the doubled percent signs and named parameters of the driver: the function has parameters of its own."""
    for name in ("name", "epoch"):
        text = text.replace(f"%({name})s", f"p_{name}")
    return text.replace("%%", "%")


def _copy_text(sql: CopySql, copy: str) -> str:
    """Copy `p_size` rows after the cursor and set the cursor, all or nothing: (read, copied, quarantined, last key).

    Returns no row when another runner has taken over.
    """

    def slice_(begin: str) -> str:
        return f"""
      WITH checked AS MATERIALIZED (
        SELECT s.*, {sql.reason(sql.spec.checks)} AS {REASON} FROM {sql.source} s
        WHERE {begin} AND ({sql.spec.where}) ORDER BY s.{sql.key} LIMIT p_slice
      ), copied AS (INSERT INTO {sql.target} ({sql.names}) SELECT {sql.values} FROM checked s WHERE s.{REASON} IS NULL
      ), quarantined AS ({sql.quarantine(f"FROM checked s WHERE s.{REASON} IS NOT NULL", f"s.{REASON}")})
      SELECT count(*), count(*) FILTER (WHERE {REASON} IS NULL),
        (SELECT s.{sql.key} FROM checked s ORDER BY s.{sql.key} DESC LIMIT 1) INTO got, valid, upto FROM checked;"""

    return _plain(f"""
CREATE OR REPLACE FUNCTION {copy_function(copy)}(p_name text, p_epoch bigint, p_size int, p_duty_cycle float8, p_slice int,
  OUT read bigint, OUT copied bigint, OUT quarantined bigint, OUT last text) RETURNS SETOF record LANGUAGE plpgsql AS $session_rollout$
#variable_conflict use_column
DECLARE here {sql.key_type}; upto {sql.key_type}; got bigint; valid bigint; owed float8 := 0; started timestamptz;
BEGIN
  SELECT c.cursor INTO here FROM session_rollout.copies c WHERE c.name = p_name AND c.epoch = p_epoch FOR UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
  read := 0; copied := 0;
  LOOP
    started := clock_timestamp();
    IF here IS NULL THEN {slice_("true")}
    ELSE {slice_(f"s.{sql.key} > here")}
    END IF;
    EXIT WHEN got = 0;
    read := read + got; copied := copied + valid; here := upto;
    EXIT WHEN read >= p_size;{_PAUSE}
  END LOOP;
  quarantined := read - copied; last := here;
  UPDATE session_rollout.copies c SET cursor = here, done = c.done + copied, updated_at = now() WHERE c.name = p_name;
  RETURN NEXT;
END $session_rollout$""")


def _compare_text(sql: CopySql, copy: str) -> str:
    """Differences of `p_size` rows after `p_cursor`, as (key, kind); the last row is (last compared key, 'Reached')."""

    def slice_(begin: str, end: str) -> str:
        bounds = [" AND ".join(part.replace("?", f"{alias}.{sql.key}") for part in (begin, end)) for alias in ("s", "t")]
        return f"RETURN QUERY {sql.differences_between(*bounds)};"

    above, below = "? > here", "? <= upto"
    return _plain(f"""
CREATE OR REPLACE FUNCTION {compare_function(copy)}(p_name text, p_cursor text, p_size int, p_duty_cycle float8, p_slice int,
  OUT key text, OUT kind text) RETURNS SETOF record LANGUAGE plpgsql AS $session_rollout$
#variable_conflict use_column
DECLARE here {sql.key_type} := p_cursor; upto {sql.key_type}; compared int := 0; owed float8 := 0; started timestamptz;
BEGIN
  WHILE compared < p_size LOOP
    started := clock_timestamp();
    IF here IS NULL THEN
      SELECT s.{sql.key} INTO upto FROM {sql.source} s ORDER BY s.{sql.key} OFFSET p_slice - 1 LIMIT 1;
    ELSE
      SELECT s.{sql.key} INTO upto FROM {sql.source} s WHERE s.{sql.key} > here ORDER BY s.{sql.key} OFFSET p_slice - 1 LIMIT 1;
    END IF;
    IF upto IS NULL AND here IS NULL THEN {slice_("true", "true")}
    ELSIF here IS NULL THEN {slice_("true", below)}
    ELSIF upto IS NULL THEN {slice_(above, "true")}
    ELSE {slice_(above, below)}
    END IF;
    here := upto;
    EXIT WHEN here IS NULL;
    compared := compared + p_slice;{_PAUSE}
  END LOOP;
  key := here; kind := 'Reached';
  RETURN NEXT;
END $session_rollout$""")
