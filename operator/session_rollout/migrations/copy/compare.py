"""Whether both sides of a copy agree: row by row in ranges of keys, each range at one moment."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from session_rollout.migrations import copies, paced
from session_rollout.migrations.copysql import CopySql
from session_rollout.migrations.database import Connection, execute

RANGE: Final = 20_000
SOME: Final = 6_000  # rows that are compared in one call, with pauses
SAMPLE: Final = 1_000


@dataclass(frozen=True)
class Verification:
    """What a comparison of both sides has found."""

    source_rows: int
    target_rows: int
    quarantined: int
    ranges: int
    ranges_differing: int
    sampled: int
    missing: int
    different: int
    extra: int

    @property
    def agrees(self) -> bool:
        """Nothing differs."""
        return not (self.missing or self.different or self.extra)


def _ranges(connection: Connection, sql: CopySql) -> Iterator[dict[str, str | None]]:
    """Ranges of keys that together hold every possible key."""
    cursor: str | None = None
    while True:
        query = sql.bound(first=cursor is None)
        found = execute(connection, query, {"cursor": cursor, "size": RANGE}).fetchone()
        bound = found[0] if found else None
        yield {"cursor": cursor, "bound": bound}
        if bound is None:
            return
        cursor = bound


def differing(connection: Connection, name: str, duty: float, told: Callable[[], None]) -> list[tuple[str, str]]:
    """(key, Missing | Different | Extra) of every row that is not the same on both sides."""
    slice_ = paced.COMPARE_SLICE if duty < 1 else RANGE
    size = SOME if duty < 1 else RANGE
    query = f"SELECT key, what FROM {paced.compare_name(name)}(%s, %s, %s, %s, %s)"
    cursor, found = None, list[tuple[str, str]]()
    while True:
        rows = execute(connection, query, (name, cursor, size, duty, slice_)).fetchall()
        found += rows[:-1]
        cursor = rows[-1][0]
        told()
        if cursor is None:
            return found


def verification(connection: Connection, sql: CopySql, name: str, pace: Callable[[float], None]) -> Verification:
    """Counts and checksums of every range, all columns of the rows of those that differ, and of a sample of the others."""
    source = target = ranges = 0
    suspects: list[dict[str, str | None]] = []
    for bounds in _ranges(connection, sql):
        begun = time.monotonic()
        here = execute(connection, sql.fingerprints, {**bounds, "name": name}).fetchone()
        source, target, ranges = source + here[0], target + here[2], ranges + 1
        if here[:2] != here[2:]:
            suspects.append(bounds)
        pace(time.monotonic() - begun)
    rows: list[tuple[str, str]] = []
    for bounds in suspects:
        rows += execute(connection, sql.differences, {**bounds, "name": name}).fetchall()
    sample = _sample(connection, sql, name)
    kinds = [what for _, what in {*rows, *sample[1]}]
    return Verification(
        source_rows=source,
        target_rows=target,
        quarantined=copies.quarantined(connection, name),
        ranges=ranges,
        ranges_differing=len(suspects),
        sampled=sample[0],
        missing=kinds.count("Missing"),
        different=kinds.count("Different"),
        extra=kinds.count("Extra"),
    )


def _sample(connection: Connection, sql: CopySql, name: str) -> tuple[int, list[tuple[str, str]]]:
    """Compare some rows picked at random, column by column and not by checksum."""
    pick = f"SELECT s.{sql.key}::text FROM {sql.source} s WHERE {sql.copy.where} ORDER BY random() LIMIT %(size)s"
    keys = [found[0] for found in execute(connection, pick, {"size": SAMPLE}).fetchall()]
    differing_rows: list[tuple[str, str]] = []
    for at in range(0, len(keys), 100):
        chosen = {"keys": keys[at : at + 100], "name": name}
        differing_rows += execute(connection, sql.differences_of_keys, chosen).fetchall()
    return len(keys), differing_rows


def words(seen: Verification) -> str:
    """In one sentence."""
    both = f"{seen.source_rows:,} rows in the source, {seen.target_rows:,} moved, {seen.quarantined:,} in quarantine"
    if seen.agrees:
        return f"both sides agree: {both}; {seen.ranges} ranges by checksum, {seen.sampled:,} rows column by column"
    return f"the sides differ: {both}; missing {seen.missing}, different {seen.different}, extra {seen.extra}"


def as_json(seen: Verification) -> dict[str, Any]:
    """For programs."""
    return {"agrees": seen.agrees, **seen.__dict__}
