"""The SQL statements of a copy, composed from its copy.yaml and the type of the key.

Every statement that copies rows first locks the control row of the copy and compares its epoch. When a second runner has taken
over the copy, the epoch is a newer one and the statements of the first runner do nothing.
"""

import json
from dataclasses import dataclass
from typing import Self

from session_rollout.migrations.connection import quote_literal, quote_name
from session_rollout.migrations.copy.spec import Check, CopySpec

CLAIM = "claim AS (SELECT cursor FROM session_rollout.copies WHERE name = %(name)s AND epoch = %(epoch)s FOR UPDATE)"
REASON = "session_rollout_reason"
KEY_TAKEN = "the application created a row with this key in the target"


@dataclass(frozen=True)
class CopySql:
    """The statements of one copy; parameters are `name`, `epoch` and those that each property names.

    The percent signs in `spec` are doubled, as the driver requires it in statements with parameters; see `of`.
    """

    spec: CopySpec
    key_type: str

    @classmethod
    def of(cls, spec: CopySpec, key_type: str) -> Self:
        """The statements of a copy whose key has this type."""
        escaped = json.loads(spec.model_dump_json().replace("%", "%%"))
        return cls(CopySpec.model_validate(escaped), key_type)

    @property
    def source(self) -> str:
        """The source table as an SQL identifier."""
        return quote_name(self.spec.source)

    @property
    def target(self) -> str:
        """The target table as an SQL identifier."""
        return quote_name(self.spec.target)

    @property
    def key(self) -> str:
        """The key column as an SQL identifier."""
        return quote_name(self.spec.key)

    @property
    def _written(self) -> dict[str, str]:
        """By column: the expression of everything that a copied row gets."""
        return {self.spec.key: f"s.{self.key}", **self.spec.columns, **self.spec.stamps}

    @property
    def names(self) -> str:
        """The columns of a copied row, separated by commas."""
        return ", ".join(quote_name(name) for name in self._written)

    @property
    def values(self) -> str:
        """Their values, as expressions of `s`."""
        return ", ".join(self._written.values())

    @property
    def replacing(self) -> str:
        """The SET clause for a row that was copied before."""
        names = [quote_name(name) for name in self._written if name != self.spec.key]
        return ", ".join(f"{name} = excluded.{name}" for name in names)

    def reason(self, checks: tuple[Check, ...]) -> str:
        """Expression of `s`: the reason of the first check that matches, or NULL."""
        if not checks:
            return "NULL::text"
        cases = " ".join(f"WHEN {check.when} THEN {quote_literal(check.reason)}" for check in checks)
        return f"(CASE {cases} END)"

    # --- copying

    def keys(self, *, first: bool) -> str:
        """Keys of the next `size` rows after `cursor`; `first` omits the cursor."""
        begin = "true" if first else f"s.{self.key} > %(cursor)s::{self.key_type}"
        return (
            f"SELECT s.{self.key}::text FROM {self.source} s WHERE {begin} AND ({self.spec.where})"
            f" ORDER BY s.{self.key} LIMIT %(size)s"
        )

    @property
    def apply(self) -> str:
        """Make the target equal to the source for `keys`: (copied, quarantined, deleted, locked keys, released from quarantine).

        No row when another runner has taken over.
        """
        return self._apply("")

    @property
    def apply_beside_trigger(self) -> str:
        """The same while the trigger copies rows as well: source rows are locked, and skipped where a session holds them."""
        return self._apply(" FOR SHARE OF s SKIP LOCKED")

    def _apply(self, lock: str) -> str:
        checks = (*self.spec.checks, *self.spec.lookups)
        refused = f"s.{REASON} IS NOT NULL OR s.{self.key} NOT IN (SELECT key FROM copied)"
        return f"""
WITH {CLAIM}, keys AS MATERIALIZED (
  SELECT DISTINCT key::{self.key_type} AS key FROM unnest(%(keys)s::text[]) AS k(key) WHERE EXISTS (SELECT FROM claim)
), candidates AS MATERIALIZED (
  SELECT s.*, {self.reason(checks)} AS {REASON} FROM {self.source} s
  WHERE s.{self.key} IN (SELECT key FROM keys) AND ({self.spec.where}){lock}
), copied AS (
  INSERT INTO {self.target} AS t ({self.names})
  SELECT {self.values} FROM candidates s WHERE s.{REASON} IS NULL ORDER BY s.{self.key}
  ON CONFLICT ({self.key}) DO UPDATE SET {self.replacing} WHERE {self.spec.ours} RETURNING t.{self.key} AS key
), quarantined AS ({self.quarantine(f"FROM candidates s WHERE {refused}", f"coalesce(s.{REASON}, {quote_literal(KEY_TAKEN)})")}
), locked AS (
  SELECT key FROM keys k WHERE k.key NOT IN (SELECT s.{self.key} FROM candidates s)
  AND EXISTS (SELECT FROM {self.source} s WHERE s.{self.key} = k.key AND ({self.spec.where}))
), deleted AS (
  DELETE FROM {self.target} t WHERE t.{self.key} IN (SELECT key FROM keys) AND ({self.spec.ours})
  AND (NOT EXISTS (SELECT FROM {self.source} s WHERE s.{self.key} = t.{self.key})
    OR t.{self.key} IN (SELECT s.{self.key} FROM candidates s WHERE s.{REASON} IS NOT NULL)) RETURNING 1
), cured AS (
  DELETE FROM session_rollout.quarantine q WHERE q.copy = %(name)s AND q.key IN (SELECT key::text FROM keys)
  AND q.key NOT IN (SELECT s.{self.key}::text FROM candidates s WHERE {refused}) AND q.key NOT IN (SELECT key::text FROM locked)
  RETURNING 1
)
SELECT (SELECT count(*) FROM copied), (SELECT count(*) FROM quarantined), (SELECT count(*) FROM deleted),
  (SELECT array_agg(key::text) FROM locked), (SELECT count(*) FROM cured) FROM claim"""

    def quarantine(self, rows: str, reason: str) -> str:
        """Put rows into the quarantine with a reason; a row that is there already counts one more attempt."""
        return f"""
  INSERT INTO session_rollout.quarantine (copy, key, reason) SELECT %(name)s, s.{self.key}::text, {reason} {rows}
  ON CONFLICT (copy, key) DO UPDATE SET reason = excluded.reason, attempts = quarantine.attempts + 1, last_at = now()
  RETURNING 1"""

    # --- comparing

    def bound(self, *, first: bool) -> str:
        """Last key of the next `size` source rows after `cursor`; `first` omits the cursor."""
        begin = "true" if first else f"s.{self.key} > %(cursor)s::{self.key_type}"
        return (
            f"SELECT key::text FROM (SELECT s.{self.key} AS key FROM {self.source} s WHERE {begin}"
            f" ORDER BY s.{self.key} LIMIT %(size)s) x ORDER BY key DESC LIMIT 1"
        )

    def _between(self, alias: str) -> str:
        """Condition for the rows after `cursor` up to `bound`; NULL means no limit."""
        column = f"{alias}.{self.key}"
        return (
            f"(%(cursor)s::{self.key_type} IS NULL OR {column} > %(cursor)s::{self.key_type})"
            f" AND (%(bound)s::{self.key_type} IS NULL OR {column} <= %(bound)s::{self.key_type})"
        )

    @property
    def _compared(self) -> tuple[str, str]:
        sources = ", ".join(f"({value})" for value in self.spec.columns.values())
        targets = ", ".join(f"t.{quote_name(name)}" for name in self.spec.columns)
        return sources, targets

    @property
    def differences(self) -> str:
        """(key, Missing | Different | Extra) of the rows between `cursor` and `bound`, without quarantined ones."""
        return self.differences_between(self._between("s"), self._between("t"))

    @property
    def differences_of_keys(self) -> str:
        """The same for `keys`."""
        chosen = f"IN (SELECT k::{self.key_type} FROM unnest(%(keys)s::text[]) k)"
        return self.differences_between(f"s.{self.key} {chosen}", f"t.{self.key} {chosen}")

    def differences_between(self, of_source: str, of_target: str) -> str:
        """The same for the rows for which these conditions on `s` and `t` hold."""
        sources, targets = self._compared
        both = f"s.{self.key} IS NOT NULL AND t.{self.key} IS NOT NULL"
        return f"""
SELECT coalesce(s.{self.key}, t.{self.key})::text,
  CASE WHEN t.{self.key} IS NULL THEN 'Missing' WHEN s.{self.key} IS NULL THEN 'Extra' ELSE 'Different' END
FROM (SELECT s.* FROM {self.source} s WHERE {of_source}) s
FULL JOIN (SELECT t.* FROM {self.target} t WHERE {of_target} AND ({self.spec.ours})) t ON t.{self.key} = s.{self.key}
WHERE NOT ({both} AND ROW({sources}) IS NOT DISTINCT FROM ROW({targets}))
AND (s.{self.key} IS NULL OR ({self.spec.where}))
AND NOT EXISTS (SELECT FROM session_rollout.quarantine q WHERE q.copy = %(name)s
  AND q.key = coalesce(s.{self.key}, t.{self.key})::text) LIMIT 10000"""

    @property
    def fingerprints(self) -> str:
        """(source rows, source checksum, target rows, target checksum) between `cursor` and `bound`."""
        sources, targets = self._compared
        not_quarantined = (
            f"NOT EXISTS (SELECT FROM session_rollout.quarantine q WHERE q.copy = %(name)s AND q.key = s.{self.key}::text)"
        )
        return f"""
SELECT * FROM
(SELECT count(*), coalesce(sum(hashtextextended(ROW(s.{self.key}, {sources})::text, 0)), 0)::text
  FROM {self.source} s WHERE {self._between("s")} AND ({self.spec.where}) AND {not_quarantined}) a,
(SELECT count(*), coalesce(sum(hashtextextended(ROW(t.{self.key}, {targets})::text, 0)), 0)::text
  FROM {self.target} t WHERE {self._between("t")} AND ({self.spec.ours})) b"""

    # --- undo and finish

    @property
    def undo(self) -> str:
        """Delete up to `size` copied rows after `cursor` unless the application has written them: (deleted, read, last key)."""
        return f"""
WITH batch AS MATERIALIZED (
  SELECT t.{self.key} AS key, ({self.spec.touched}) AS touched FROM {self.target} t
  WHERE (%(cursor)s::{self.key_type} IS NULL OR t.{self.key} > %(cursor)s::{self.key_type}) AND ({self.spec.ours})
  ORDER BY t.{self.key} LIMIT %(size)s
), deleted AS (
  DELETE FROM {self.target} t WHERE t.{self.key} IN (SELECT key FROM batch WHERE touched IS NOT TRUE)
  AND ({self.spec.touched}) IS NOT TRUE RETURNING 1
)
SELECT (SELECT count(*) FROM deleted), (SELECT count(*) FROM batch),
  (SELECT key::text FROM batch ORDER BY key DESC LIMIT 1)"""

    @property
    def mark(self) -> str:
        """Mark up to `size` copied source rows after `cursor`: (marked, last key)."""
        sets = ", ".join(f"{quote_name(name)} = {value}" for name, value in self.spec.mark.items())
        return f"""
WITH batch AS MATERIALIZED (
  SELECT s.{self.key} AS key FROM {self.source} s
  WHERE (%(cursor)s::{self.key_type} IS NULL OR s.{self.key} > %(cursor)s::{self.key_type}) AND ({self.spec.where})
  AND EXISTS (SELECT FROM {self.target} t WHERE t.{self.key} = s.{self.key} AND ({self.spec.ours}))
  ORDER BY s.{self.key} LIMIT %(size)s
), marked AS (UPDATE {self.source} SET {sets} WHERE {self.key} IN (SELECT key FROM batch) RETURNING 1)
SELECT (SELECT count(*) FROM marked), (SELECT key::text FROM batch ORDER BY key DESC LIMIT 1)"""
