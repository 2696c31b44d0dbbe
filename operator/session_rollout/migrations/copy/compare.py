"""Compares both sides of a copy row by row, in ranges of keys; each range is one snapshot of the database."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from session_rollout.migrations.connection import Connection, execute
from session_rollout.migrations.copy import functions, state
from session_rollout.migrations.copy.sql import CopySql

RANGE_ROWS: Final = 20_000
PACED_RANGE_ROWS: Final = 6_000  # compared in one call, with pauses inside
SAMPLE_ROWS: Final = 1_000
SAMPLE_BATCH: Final = 100

Difference = tuple[str, str]  # key, and Missing, Different or Extra


@dataclass(frozen=True)
class Comparison:
    """The result of comparing both sides; all numbers but `ranges` count rows."""

    source_rows: int
    target_rows: int
    quarantined: int
    ranges: int
    sampled: int
    missing: int
    different: int
    extra: int

    @property
    def agrees(self) -> bool:
        """Whether no row differs."""
        return not (self.missing or self.different or self.extra)

    def __str__(self) -> str:
        rows = f"{self.source_rows:,} source rows, {self.target_rows:,} copied rows, {self.quarantined:,} in quarantine"
        if self.agrees:
            return f"source and target are equal: {rows}; {self.ranges} ranges by checksum, {self.sampled:,} rows by column"
        return f"source and target differ: {self.missing} missing, {self.different} different, {self.extra} extra rows; {rows}"


def find_differences(connection: Connection, name: str, duty_cycle: float, after_range: Callable[[], None]) -> list[Difference]:
    """Every row that differs between source and target; `after_range` is called after each range. Raises psycopg.Error."""
    slice_rows = functions.COMPARE_SLICE if duty_cycle < 1 else RANGE_ROWS
    size = PACED_RANGE_ROWS if duty_cycle < 1 else RANGE_ROWS
    query = f"SELECT key, kind FROM {functions.compare_function(name)}(%s, %s, %s, %s, %s)"
    cursor, differences = None, list[Difference]()
    while True:
        rows = execute(connection, query, (name, cursor, size, duty_cycle, slice_rows)).fetchall()
        differences += rows[:-1]
        cursor = rows[-1][0]
        after_range()
        if cursor is None:
            return differences


def compare(connection: Connection, sql: CopySql, name: str, pace: Callable[[float], None]) -> Comparison:
    """Compare counts and checksums of every range, the rows of ranges that differ, and a random sample column by column.

    `pace` is called after each range with the seconds it took. Changes nothing. Raises psycopg.Error.
    """
    source = target = ranges = 0
    differences = set[Difference]()
    for bounds in _ranges(connection, sql):
        started = time.monotonic()
        values = {**bounds, "name": name}
        source_rows, source_sum, target_rows, target_sum = execute(connection, sql.fingerprints, values).fetchone()
        source, target, ranges = source + source_rows, target + target_rows, ranges + 1
        if (source_rows, source_sum) != (target_rows, target_sum):
            differences.update(execute(connection, sql.differences, values).fetchall())
        pace(time.monotonic() - started)
    sampled, sample_differences = _compare_sample(connection, sql, name)
    kinds = [kind for _, kind in differences | sample_differences]
    return Comparison(
        source_rows=source,
        target_rows=target,
        quarantined=state.quarantined(connection, name),
        ranges=ranges,
        sampled=sampled,
        missing=kinds.count("Missing"),
        different=kinds.count("Different"),
        extra=kinds.count("Extra"),
    )


def _ranges(connection: Connection, sql: CopySql) -> Iterator[dict[str, str | None]]:
    """Ranges of keys that together contain every possible key."""
    cursor: str | None = None
    while True:
        record = execute(connection, sql.bound(first=cursor is None), {"cursor": cursor, "size": RANGE_ROWS}).fetchone()
        bound = record[0] if record else None
        yield {"cursor": cursor, "bound": bound}
        if bound is None:
            return
        cursor = bound


def _compare_sample(connection: Connection, sql: CopySql, name: str) -> tuple[int, set[Difference]]:
    """Number of random rows that were compared column by column, and their differences."""
    query = f"SELECT s.{sql.key}::text FROM {sql.source} s WHERE {sql.spec.where} ORDER BY random() LIMIT %(size)s"
    keys = [record[0] for record in execute(connection, query, {"size": SAMPLE_ROWS}).fetchall()]
    differences = set[Difference]()
    for start in range(0, len(keys), SAMPLE_BATCH):
        values = {"keys": keys[start : start + SAMPLE_BATCH], "name": name}
        differences.update(execute(connection, sql.differences_of_keys, values).fetchall())
    return len(keys), differences
