"""The SQL of a copy, put together once from its description and the key's type.

Every statement that moves rows first locks the copy's own row with its epoch: a runner that was overtaken by another one
finds nothing to move.
"""

import json
from dataclasses import dataclass
from typing import Self

from session_rollout.migrations.copyspec import Check, Copy
from session_rollout.migrations.database import literal, quoted

MINE = "mine AS (SELECT cursor FROM session_rollout.copies WHERE name = %(name)s AND epoch = %(epoch)s FOR UPDATE)"
REASON = "session_rollout_reason"
TAKEN = "the target has a row of its own with this key"


@dataclass(frozen=True)
class CopySql:
    """All statements of one copy; parameters are `name`, `epoch` and what each property says.

    `copy` has its percent signs doubled, as the driver wants them beside parameters; see `of`.
    """

    copy: Copy
    key_type: str

    @classmethod
    def of(cls, copy: Copy, key_type: str) -> Self:
        """The statements of a copy whose key has this type."""
        escaped = json.loads(copy.model_dump_json().replace("%", "%%"))
        return cls(Copy.model_validate(escaped), key_type)

    @property
    def source(self) -> str:
        """The source, quoted."""
        return quoted(self.copy.source)

    @property
    def target(self) -> str:
        """The target, quoted."""
        return quoted(self.copy.target)

    @property
    def key(self) -> str:
        """The key, quoted."""
        return quoted(self.copy.key)

    @property
    def _written(self) -> dict[str, str]:
        """Column to expression of everything that a move writes."""
        return {self.copy.key: f"s.{self.key}", **self.copy.columns, **self.copy.stamps}

    @property
    def names(self) -> str:
        """Columns that a move writes."""
        return ", ".join(quoted(name) for name in self._written)

    @property
    def values(self) -> str:
        """Their values, from `s`."""
        return ", ".join(self._written.values())

    @property
    def replacing(self) -> str:
        """What a move sets in a row that was moved before."""
        names = [quoted(name) for name in self._written if name != self.copy.key]
        return ", ".join(f"{name} = excluded.{name}" for name in names)

    def reason(self, checks: tuple[Check, ...]) -> str:
        """What is wrong with a source row, or NULL."""
        if not checks:
            return "NULL::text"
        cases = " ".join(f"WHEN {check.when} THEN {literal(check.reason)}" for check in checks)
        return f"(CASE {cases} END)"

    # --- forward

    def keys(self, *, first: bool) -> str:
        """Keys of the next `size` rows after the `cursor`."""
        begin = "true" if first else f"s.{self.key} > %(cursor)s::{self.key_type}"
        return (
            f"SELECT s.{self.key}::text FROM {self.source} s WHERE {begin} AND ({self.copy.where})"
            f" ORDER BY s.{self.key} LIMIT %(size)s"
        )

    @property
    def apply(self) -> str:
        """Make the target agree with the source for `keys`; (moved, bad, deleted, keys that were locked by somebody)."""
        return self._apply("")

    @property
    def apply_beside_trigger(self) -> str:
        """The same while the trigger moves rows itself: nobody may change a row between our reading and writing it."""
        return self._apply(" FOR SHARE OF s SKIP LOCKED")

    def _apply(self, lock: str) -> str:
        checks = (*self.copy.checks, *self.copy.lookups)
        refused = f"s.{REASON} IS NOT NULL OR s.{self.key} NOT IN (SELECT key FROM moved)"
        return f"""
WITH {MINE}, keys AS MATERIALIZED (
  SELECT DISTINCT key::{self.key_type} AS key FROM unnest(%(keys)s::text[]) AS k(key) WHERE EXISTS (SELECT FROM mine)
), wanted AS MATERIALIZED (
  SELECT s.*, {self.reason(checks)} AS {REASON} FROM {self.source} s
  WHERE s.{self.key} IN (SELECT key FROM keys) AND ({self.copy.where}){lock}
), moved AS (
  INSERT INTO {self.target} AS t ({self.names})
  SELECT {self.values} FROM wanted s WHERE s.{REASON} IS NULL ORDER BY s.{self.key}
  ON CONFLICT ({self.key}) DO UPDATE SET {self.replacing} WHERE {self.copy.ours} RETURNING t.{self.key} AS key
), bad AS ({self.quarantine(f"FROM wanted s WHERE {refused}", f"coalesce(s.{REASON}, {literal(TAKEN)})")}
), locked AS (
  SELECT key FROM keys k WHERE k.key NOT IN (SELECT s.{self.key} FROM wanted s)
  AND EXISTS (SELECT FROM {self.source} s WHERE s.{self.key} = k.key AND ({self.copy.where}))
), deleted AS (
  DELETE FROM {self.target} t WHERE t.{self.key} IN (SELECT key FROM keys) AND ({self.copy.ours})
  AND (NOT EXISTS (SELECT FROM {self.source} s WHERE s.{self.key} = t.{self.key})
    OR t.{self.key} IN (SELECT s.{self.key} FROM wanted s WHERE s.{REASON} IS NOT NULL)) RETURNING 1
), healed AS (
  DELETE FROM session_rollout.quarantine q WHERE q.copy = %(name)s AND q.key IN (SELECT key::text FROM keys)
  AND q.key NOT IN (SELECT s.{self.key}::text FROM wanted s WHERE {refused}) AND q.key NOT IN (SELECT key::text FROM locked)
  RETURNING 1
)
SELECT (SELECT count(*) FROM moved), (SELECT count(*) FROM bad), (SELECT count(*) FROM deleted),
  (SELECT array_agg(key::text) FROM locked), (SELECT count(*) FROM healed) FROM mine"""

    def quarantine(self, rows: str, reason: str) -> str:
        """Set rows aside with a reason; what was set aside before counts another attempt."""
        return f"""
  INSERT INTO session_rollout.quarantine (copy, key, reason) SELECT %(name)s, s.{self.key}::text, {reason} {rows}
  ON CONFLICT (copy, key) DO UPDATE SET reason = excluded.reason, attempts = quarantine.attempts + 1, last_at = now()
  RETURNING 1"""

    # --- comparing

    def bound(self, *, first: bool) -> str:
        """Last key of the next `size` rows of the source after `cursor`."""
        begin = "true" if first else f"s.{self.key} > %(cursor)s::{self.key_type}"
        return (
            f"SELECT key::text FROM (SELECT s.{self.key} AS key FROM {self.source} s WHERE {begin}"
            f" ORDER BY s.{self.key} LIMIT %(size)s) x ORDER BY key DESC LIMIT 1"
        )

    def _between(self, alias: str) -> str:
        """Rows after `cursor` up to `bound`, where these are given."""
        column = f"{alias}.{self.key}"
        return (
            f"(%(cursor)s::{self.key_type} IS NULL OR {column} > %(cursor)s::{self.key_type})"
            f" AND (%(bound)s::{self.key_type} IS NULL OR {column} <= %(bound)s::{self.key_type})"
        )

    @property
    def _compared(self) -> tuple[str, str]:
        sources = ", ".join(f"({value})" for value in self.copy.columns.values())
        targets = ", ".join(f"t.{quoted(name)}" for name in self.copy.columns)
        return sources, targets

    @property
    def differences(self) -> str:
        """(key, Missing | Different | Extra) of a range; a quarantined row is none of them."""
        return self.differences_between(self._between("s"), self._between("t"))

    @property
    def differences_of_keys(self) -> str:
        """The same of some `keys`."""
        chosen = f"IN (SELECT k::{self.key_type} FROM unnest(%(keys)s::text[]) k)"
        return self.differences_between(f"s.{self.key} {chosen}", f"t.{self.key} {chosen}")

    def differences_between(self, of_source: str, of_target: str) -> str:
        """The same of the rows for which these hold."""
        sources, targets = self._compared
        both = f"s.{self.key} IS NOT NULL AND t.{self.key} IS NOT NULL"
        return f"""
SELECT coalesce(s.{self.key}, t.{self.key})::text,
  CASE WHEN t.{self.key} IS NULL THEN 'Missing' WHEN s.{self.key} IS NULL THEN 'Extra' ELSE 'Different' END
FROM (SELECT s.* FROM {self.source} s WHERE {of_source}) s
FULL JOIN (SELECT t.* FROM {self.target} t WHERE {of_target} AND ({self.copy.ours})) t ON t.{self.key} = s.{self.key}
WHERE NOT ({both} AND ROW({sources}) IS NOT DISTINCT FROM ROW({targets}))
AND (s.{self.key} IS NULL OR ({self.copy.where}))
AND NOT EXISTS (SELECT FROM session_rollout.quarantine q WHERE q.copy = %(name)s
  AND q.key = coalesce(s.{self.key}, t.{self.key})::text) LIMIT 10000"""

    @property
    def fingerprints(self) -> str:
        """(rows, checksum) of a range on both sides: equal where the sides agree."""
        sources, targets = self._compared
        not_bad = (
            f"NOT EXISTS (SELECT FROM session_rollout.quarantine q WHERE q.copy = %(name)s AND q.key = s.{self.key}::text)"
        )
        return f"""
SELECT * FROM
(SELECT count(*), coalesce(sum(hashtextextended(ROW(s.{self.key}, {sources})::text, 0)), 0)::text
  FROM {self.source} s WHERE {self._between("s")} AND ({self.copy.where}) AND {not_bad}) a,
(SELECT count(*), coalesce(sum(hashtextextended(ROW(t.{self.key}, {targets})::text, 0)), 0)::text
  FROM {self.target} t WHERE {self._between("t")} AND ({self.copy.ours})) b"""

    # --- back and end

    @property
    def undo(self) -> str:
        """Delete up to `size` moved rows after `cursor` that the application has not touched; (deleted, kept, last key)."""
        return f"""
WITH batch AS MATERIALIZED (
  SELECT t.{self.key} AS key, ({self.copy.touched}) AS touched FROM {self.target} t
  WHERE (%(cursor)s::{self.key_type} IS NULL OR t.{self.key} > %(cursor)s::{self.key_type}) AND ({self.copy.ours})
  ORDER BY t.{self.key} LIMIT %(size)s
), deleted AS (
  DELETE FROM {self.target} t WHERE t.{self.key} IN (SELECT key FROM batch WHERE touched IS NOT TRUE)
  AND ({self.copy.touched}) IS NOT TRUE RETURNING 1
)
SELECT (SELECT count(*) FROM deleted), (SELECT count(*) FROM batch),
  (SELECT key::text FROM batch ORDER BY key DESC LIMIT 1)"""

    @property
    def mark(self) -> str:
        """Mark up to `size` rows of the source after `cursor` as moved; (rows read, last key)."""
        sets = ", ".join(f"{quoted(name)} = {value}" for name, value in self.copy.mark.items())
        return f"""
WITH batch AS MATERIALIZED (
  SELECT s.{self.key} AS key FROM {self.source} s
  WHERE (%(cursor)s::{self.key_type} IS NULL OR s.{self.key} > %(cursor)s::{self.key_type}) AND ({self.copy.where})
  AND EXISTS (SELECT FROM {self.target} t WHERE t.{self.key} = s.{self.key} AND ({self.copy.ours}))
  ORDER BY s.{self.key} LIMIT %(size)s
), marked AS (UPDATE {self.source} SET {sets} WHERE {self.key} IN (SELECT key FROM batch) RETURNING 1)
SELECT (SELECT count(*) FROM marked), (SELECT key::text FROM batch ORDER BY key DESC LIMIT 1)"""
