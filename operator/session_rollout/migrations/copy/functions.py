"""Moving and comparing rows a few at a time, with pauses between them inside the database.

What makes the application's slowest statements slow is not the share of the time in which rows are moved but how long
they are moved without a pause: a statement that wakes up while another one computes waits for its turn at the processor.
At the same share of the time, pieces of tens of milliseconds make the application's p99 several times as long and pieces of a
fraction of one hardly change it (`make bench-migrations BENCH="--slice 3000"` shows the difference). A client cannot pause that
often, so that functions in the database do it. Without a pause (`duty` 1) a slice is the whole batch.
"""

from typing import Final

from session_rollout.migrations.capture import trigger_name
from session_rollout.migrations.copysql import REASON, CopySql
from session_rollout.migrations.database import Connection, execute

MOVE_SLICE: Final = 6  # rows, about 0.2 ms
COMPARE_SLICE: Final = 50
SHORTEST_PAUSE: Final = 0.0006  # seconds; the database sleeps a millisecond then, and more slices follow

_PAUSE: Final = f"""
    owed := owed + extract(epoch FROM clock_timestamp() - begun) * (1 / p_duty - 1);
    IF owed >= {SHORTEST_PAUSE} THEN
      begun := clock_timestamp();
      PERFORM pg_sleep(owed);
      owed := owed - extract(epoch FROM clock_timestamp() - begun);
    END IF;"""


def move_name(copy: str) -> str:
    """The function that moves a batch."""
    return f"session_rollout.{trigger_name(copy)}_move"


def compare_name(copy: str) -> str:
    """The function that compares a range."""
    return f"session_rollout.{trigger_name(copy)}_compare"


def define(connection: Connection, sql: CopySql, copy: str) -> None:
    """Create both functions, or bring them up to this image; they run with the rights of whoever calls them."""
    execute(connection, _move(sql, copy))
    execute(connection, _compare(sql, copy))


def drop(connection: Connection, copy: str) -> None:
    """Remove both."""
    execute(connection, f"DROP FUNCTION IF EXISTS {move_name(copy)}, {compare_name(copy)}")


def _plain(text: str) -> str:
    """Without the driver's doubled percent signs and named parameters: these are the function's own."""
    for name in ("name", "epoch"):
        text = text.replace(f"%({name})s", f"p_{name}")
    return text.replace("%%", "%")


def _move(sql: CopySql, copy: str) -> str:
    """Move `p_size` rows after the cursor and set the cursor, all or nothing; (rows read, moved, bad, last key) or no row."""

    def slice_(begin: str) -> str:
        return f"""
      WITH judged AS MATERIALIZED (
        SELECT s.*, {sql.reason(sql.copy.checks)} AS {REASON} FROM {sql.source} s
        WHERE {begin} AND ({sql.copy.where}) ORDER BY s.{sql.key} LIMIT p_slice
      ), moved AS (INSERT INTO {sql.target} ({sql.names}) SELECT {sql.values} FROM judged s WHERE s.{REASON} IS NULL
      ), bad AS ({sql.quarantine(f"FROM judged s WHERE s.{REASON} IS NOT NULL", f"s.{REASON}")})
      SELECT count(*), count(*) FILTER (WHERE {REASON} IS NULL),
        (SELECT s.{sql.key} FROM judged s ORDER BY s.{sql.key} DESC LIMIT 1) INTO got, good, upto FROM judged;"""

    return _plain(f"""
CREATE OR REPLACE FUNCTION {move_name(copy)}(p_name text, p_epoch bigint, p_size int, p_duty float8, p_slice int,
  OUT read bigint, OUT moved bigint, OUT bad bigint, OUT last text) RETURNS SETOF record LANGUAGE plpgsql AS $session_rollout$
#variable_conflict use_column
DECLARE here {sql.key_type}; upto {sql.key_type}; got bigint; good bigint; owed float8 := 0; begun timestamptz;
BEGIN
  SELECT c.cursor INTO here FROM session_rollout.copies c WHERE c.name = p_name AND c.epoch = p_epoch FOR UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
  read := 0; moved := 0;
  LOOP
    begun := clock_timestamp();
    IF here IS NULL THEN {slice_("true")}
    ELSE {slice_(f"s.{sql.key} > here")}
    END IF;
    EXIT WHEN got = 0;
    read := read + got; moved := moved + good; here := upto;
    EXIT WHEN read >= p_size;{_PAUSE}
  END LOOP;
  bad := read - moved; last := here;
  UPDATE session_rollout.copies c SET cursor = here, done = c.done + moved, updated_at = now() WHERE c.name = p_name;
  RETURN NEXT;
END $session_rollout$""")


def _compare(sql: CopySql, copy: str) -> str:
    """Differences of `p_size` rows after `p_cursor`, as (key, what); at last (the key that was reached, 'Reached')."""

    def slice_(begin: str, end: str) -> str:
        bounds = [" AND ".join(part.replace("?", f"{alias}.{sql.key}") for part in (begin, end)) for alias in ("s", "t")]
        return f"RETURN QUERY {sql.differences_between(*bounds)};"

    above, below = "? > here", "? <= upto"
    return _plain(f"""
CREATE OR REPLACE FUNCTION {compare_name(copy)}(p_name text, p_cursor text, p_size int, p_duty float8, p_slice int,
  OUT key text, OUT what text) RETURNS SETOF record LANGUAGE plpgsql AS $session_rollout$
#variable_conflict use_column
DECLARE here {sql.key_type} := p_cursor; upto {sql.key_type}; seen int := 0; owed float8 := 0; begun timestamptz;
BEGIN
  WHILE seen < p_size LOOP
    begun := clock_timestamp();
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
    seen := seen + p_slice;{_PAUSE}
  END LOOP;
  key := here; what := 'Reached';
  RETURN NEXT;
END $session_rollout$""")
