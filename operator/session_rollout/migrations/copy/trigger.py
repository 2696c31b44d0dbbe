"""Changes of the source while rows are moved, and after: a trigger on the source, whose function is replaced, never the trigger.

`recording`: the key of a changed row goes into `session_rollout.changes`, to be applied by the runner. `following`: the
trigger applies the change itself, in the application's own transaction, so that both sides agree all the time; what it
cannot apply within a moment it records. `off`: nothing. The application never fails and never waits for more than that
moment because of it.
"""

from typing import Final

from session_rollout.migrations.copysql import CopySql
from session_rollout.migrations.database import Connection, execute, literal, row

RECORDING: Final = "recording"
FOLLOWING: Final = "following"
OFF: Final = "off"
PATIENCE: Final = "50ms"
PATH: Final = "public, pg_catalog, pg_temp"  # temporary objects last: nobody can slip one in


def trigger_name(copy: str) -> str:
    """Name of the trigger and of its function."""
    return "session_rollout_" + "".join(letter if letter.isalnum() else "_" for letter in copy.lower())[:46]


def function(sql: CopySql, copy: str, mode: str) -> str:
    """The trigger function in one of its modes. It runs with its owner's rights: the application needs none of its own."""
    bodies = {OFF: "", RECORDING: _recording(sql, copy), FOLLOWING: _following(sql, copy)}
    wait = f" SET lock_timeout = '{PATIENCE}'" if mode == FOLLOWING else ""
    return f"""
CREATE OR REPLACE FUNCTION session_rollout.{trigger_name(copy)}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {PATH}{wait} AS $session_rollout$
BEGIN
  {bodies[mode]}
  RETURN NULL;
END $session_rollout$""".replace("%%", "%")


def _recording(sql: CopySql, copy: str) -> str:
    """As little as can be: it is part of every write of the application."""
    record = f"INSERT INTO session_rollout.changes (copy, key) VALUES ({literal(copy)}, "
    return f"""IF TG_OP = 'INSERT' THEN {record}NEW.{sql.key});
  ELSIF TG_OP = 'DELETE' THEN {record}OLD.{sql.key});
  ELSIF TG_OP = 'TRUNCATE' THEN {record}'*');
  ELSE
    {record}NEW.{sql.key});
    IF OLD.{sql.key} <> NEW.{sql.key} THEN {record}OLD.{sql.key}); END IF;
  END IF;"""


def _following(sql: CopySql, copy: str) -> str:
    reason, quarantine = sql.reason(sql.copy.checks), "session_rollout.quarantine"
    mine = f"q.copy = {literal(copy)}"
    return f"""
  DECLARE wrong text;
  BEGIN
    IF TG_OP = 'TRUNCATE' THEN
      DELETE FROM {sql.target} t WHERE {sql.copy.ours};
      DELETE FROM {quarantine} q WHERE {mine};
      RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND OLD.{sql.key} <> NEW.{sql.key}) THEN
      DELETE FROM {sql.target} t WHERE t.{sql.key} = OLD.{sql.key} AND ({sql.copy.ours});
      DELETE FROM {quarantine} q WHERE {mine} AND q.key = OLD.{sql.key}::text;
    END IF;
    IF TG_OP <> 'DELETE' THEN
      SELECT {reason} INTO wrong FROM (SELECT (NEW).*) s;
      IF wrong IS NOT NULL THEN
        DELETE FROM {sql.target} t WHERE t.{sql.key} = NEW.{sql.key} AND ({sql.copy.ours});
        INSERT INTO {quarantine} AS q (copy, key, reason) VALUES ({literal(copy)}, NEW.{sql.key}, wrong)
        ON CONFLICT (copy, key) DO UPDATE SET reason = excluded.reason, attempts = q.attempts + 1, last_at = now();
      ELSE
        INSERT INTO {sql.target} AS t ({sql.names}) SELECT {sql.values} FROM (SELECT (NEW).*) s WHERE ({sql.copy.where})
        ON CONFLICT ({sql.key}) DO UPDATE SET {sql.replacing} WHERE {sql.copy.ours};
        DELETE FROM {quarantine} q WHERE {mine} AND q.key = NEW.{sql.key}::text;
      END IF;
    END IF;
  EXCEPTION WHEN OTHERS THEN
    {_recording(sql, copy)}
  END;"""


def replace(connection: Connection, sql: CopySql, copy: str, mode: str) -> None:
    """Give the function another mode; takes no lock on the source."""
    execute(connection, function(sql, copy, mode))


def installed(connection: Connection, sql: CopySql, copy: str) -> bool:
    """Whether the trigger is on the source."""
    query = "SELECT count(*) FROM pg_trigger WHERE tgrelid = to_regclass(%s) AND tgname IN (%s, %s)"
    name = trigger_name(copy)
    return bool(row(connection, query, sql.copy.source, name, name + "_all")[0] == 2)  # noqa: PLR2004 - rows and TRUNCATE


def install_text(sql: CopySql, copy: str) -> str:
    """Put the trigger on the source: waits until nobody is writing, so that no change is missed."""
    name = trigger_name(copy)
    return f"""
CREATE OR REPLACE TRIGGER {name} AFTER INSERT OR UPDATE OR DELETE ON {sql.source}
FOR EACH ROW EXECUTE FUNCTION session_rollout.{name}();
CREATE OR REPLACE TRIGGER {name}_all AFTER TRUNCATE ON {sql.source}
FOR EACH STATEMENT EXECUTE FUNCTION session_rollout.{name}();"""


def remove_text(sql: CopySql, copy: str) -> str:
    """Take the trigger off; needs the rights of the table's owner."""
    name = trigger_name(copy)
    return f"DROP TRIGGER IF EXISTS {name} ON {sql.source}; DROP TRIGGER IF EXISTS {name}_all ON {sql.source};"


WRITERS: Final = """
SELECT virtualtransaction, pid FROM pg_locks WHERE locktype = 'relation' AND relation = to_regclass(%s) AND granted
AND pid <> pg_backend_pid() AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')"""


def writers(connection: Connection, source: str) -> dict[str, int]:
    """Open transactions that have written the source, with their backends' pids."""
    return dict(execute(connection, WRITERS, (source,)).fetchall())
