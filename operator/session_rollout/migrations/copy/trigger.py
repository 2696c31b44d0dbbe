"""The trigger on the source table, which captures changes of the application during and after the copy.

Only its function is replaced, never the trigger, because replacing the trigger locks the table. The function has three modes:
`recording` writes the key of a changed row into `session_rollout.changes`, which the runner applies. `following` applies the
change itself in the transaction of the application, so that both tables remain equal; a change that it cannot apply within 50 ms
is recorded. `off` does nothing. The application never fails because of the trigger and never waits longer than 50 ms for it.
"""

from typing import Final

from session_rollout.migrations.connection import Connection, execute, fetch_row, quote_literal
from session_rollout.migrations.copy.sql import CopySql

RECORDING: Final = "recording"
FOLLOWING: Final = "following"
OFF: Final = "off"
LOCK_TIMEOUT: Final = "50ms"
SEARCH_PATH: Final = "public, pg_catalog, pg_temp"  # pg_temp last: a temporary object must not replace a real one


def trigger_name(copy: str) -> str:
    """Name of the trigger and of its function, for the copy with this name."""
    return "session_rollout_" + "".join(letter if letter.isalnum() else "_" for letter in copy.lower())[:46]


def function(sql: CopySql, copy: str, mode: str) -> str:
    """SQL of the trigger function in one of its modes. It runs with the privileges of its owner, so the application does not need any."""
    bodies = {OFF: "", RECORDING: _recording(sql, copy), FOLLOWING: _following(sql, copy)}
    wait = f" SET lock_timeout = '{LOCK_TIMEOUT}'" if mode == FOLLOWING else ""
    return f"""
CREATE OR REPLACE FUNCTION session_rollout.{trigger_name(copy)}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {SEARCH_PATH}{wait} AS $session_rollout$
BEGIN
  {bodies[mode]}
  RETURN NULL;
END $session_rollout$""".replace("%%", "%")


def _recording(sql: CopySql, copy: str) -> str:
    """Kept minimal: it is part of every write of the application."""
    record = f"INSERT INTO session_rollout.changes (copy, key) VALUES ({quote_literal(copy)}, "
    return f"""IF TG_OP = 'INSERT' THEN {record}NEW.{sql.key});
  ELSIF TG_OP = 'DELETE' THEN {record}OLD.{sql.key});
  ELSIF TG_OP = 'TRUNCATE' THEN {record}'*');
  ELSE
    {record}NEW.{sql.key});
    IF OLD.{sql.key} <> NEW.{sql.key} THEN {record}OLD.{sql.key}); END IF;
  END IF;"""


def _following(sql: CopySql, copy: str) -> str:
    reason, quarantine = sql.reason(sql.spec.checks), "session_rollout.quarantine"
    of_copy = f"q.copy = {quote_literal(copy)}"
    return f"""
  DECLARE v_reason text;
  BEGIN
    IF TG_OP = 'TRUNCATE' THEN
      DELETE FROM {sql.target} t WHERE {sql.spec.ours};
      DELETE FROM {quarantine} q WHERE {of_copy};
      RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND OLD.{sql.key} <> NEW.{sql.key}) THEN
      DELETE FROM {sql.target} t WHERE t.{sql.key} = OLD.{sql.key} AND ({sql.spec.ours});
      DELETE FROM {quarantine} q WHERE {of_copy} AND q.key = OLD.{sql.key}::text;
    END IF;
    IF TG_OP <> 'DELETE' THEN
      SELECT {reason} INTO v_reason FROM (SELECT (NEW).*) s;
      IF v_reason IS NOT NULL THEN
        DELETE FROM {sql.target} t WHERE t.{sql.key} = NEW.{sql.key} AND ({sql.spec.ours});
        INSERT INTO {quarantine} AS q (copy, key, reason) VALUES ({quote_literal(copy)}, NEW.{sql.key}, v_reason)
        ON CONFLICT (copy, key) DO UPDATE SET reason = excluded.reason, attempts = q.attempts + 1, last_at = now();
      ELSE
        INSERT INTO {sql.target} AS t ({sql.names}) SELECT {sql.values} FROM (SELECT (NEW).*) s WHERE ({sql.spec.where})
        ON CONFLICT ({sql.key}) DO UPDATE SET {sql.replacing} WHERE {sql.spec.ours};
        DELETE FROM {quarantine} q WHERE {of_copy} AND q.key = NEW.{sql.key}::text;
      END IF;
    END IF;
  EXCEPTION WHEN OTHERS THEN
    {_recording(sql, copy)}
  END;"""


def set_mode(connection: Connection, sql: CopySql, copy: str, mode: str) -> None:
    """Switch the function to another mode; takes no lock on the source. Raises psycopg.Error."""
    execute(connection, function(sql, copy, mode))


def is_installed(connection: Connection, sql: CopySql, copy: str) -> bool:
    """Whether the source table has the triggers."""
    query = "SELECT count(*) FROM pg_trigger WHERE tgrelid = to_regclass(%s) AND tgname IN (%s, %s)"
    name = trigger_name(copy)
    return bool(fetch_row(connection, query, sql.spec.source, name, name + "_all")[0] == 2)  # noqa: PLR2004 - rows and TRUNCATE


def install_text(sql: CopySql, copy: str) -> str:
    """SQL that adds the triggers to the source; its lock waits for open write transactions, so that no change is missed."""
    name = trigger_name(copy)
    return f"""
CREATE OR REPLACE TRIGGER {name} AFTER INSERT OR UPDATE OR DELETE ON {sql.source}
FOR EACH ROW EXECUTE FUNCTION session_rollout.{name}();
CREATE OR REPLACE TRIGGER {name}_all AFTER TRUNCATE ON {sql.source}
FOR EACH STATEMENT EXECUTE FUNCTION session_rollout.{name}();"""


def remove_text(sql: CopySql, copy: str) -> str:
    """SQL that removes the triggers; only the owner of the table may run it."""
    name = trigger_name(copy)
    return f"DROP TRIGGER IF EXISTS {name} ON {sql.source}; DROP TRIGGER IF EXISTS {name}_all ON {sql.source};"


WRITERS: Final = """
SELECT virtualtransaction, pid FROM pg_locks WHERE locktype = 'relation' AND relation = to_regclass(%s) AND granted
AND pid <> pg_backend_pid() AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')"""


def writers(connection: Connection, source: str) -> dict[str, int]:
    """Open transactions that have written the source table, with the pids of their backends."""
    return dict(execute(connection, WRITERS, (source,)).fetchall())
