"""How gently rows are moved: a share of the time, and not at all while the application or a replica suffers."""

import statistics
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from session_rollout.migrations import copies
from session_rollout.migrations.copysql import CopySql
from session_rollout.migrations.database import Connection, Interrupted, Target, execute, row

SMALLEST: Final = 500
LARGEST: Final = 3_000
AIM_SECONDS: Final = 0.075  # of one batch: longer transactions make the application's tail
GROW: Final = 1.3
SHRINK: Final = 0.75
HALVE: Final = 0.5
LOOK_SECONDS: Final = 1.0
PROBES: Final = 5
BRAKED_SECONDS: Final = 0.5
LOCK_WAIT: Final = timedelta(milliseconds=200)


@dataclass(frozen=True)
class Gentleness:
    """What the admin's profile allows."""

    duty: float = 0.25  # share of the time in which rows are moved; 1 is without pause
    latency: timedelta = timedelta(milliseconds=100)  # of reading one row of the source, as the application does
    lag: timedelta = timedelta(seconds=10)  # of the slowest replica

    @property
    def rows(self) -> int:
        """Rows of one statement where a client paces: little work between two rests."""
        return SMALLEST * 4 if self.duty == 1 else SMALLEST // 2


def next_size(size: int, seconds: float) -> int:
    """Batches of about 75 ms: a third more rows when it took less, half when it took much more."""
    factor = GROW if seconds < AIM_SECONDS * SHRINK else HALVE if seconds > AIM_SECONDS / HALVE else 1.0
    if seconds > AIM_SECONDS and factor == 1.0:
        factor = SHRINK
    return max(SMALLEST, min(LARGEST, round(size * factor)))


@dataclass
class Throttle:
    """Rests after each batch, and looks once a second whether it must stop."""

    target: Target
    connection: Connection
    name: str
    sql: CopySql
    gentleness: Gentleness
    looked: float = 0.0
    braked_seconds: float = 0.0
    _keys: list[str] = field(default_factory=list)

    def rest(self, worked: float) -> None:
        """After a batch that took so many seconds. Raises Interrupted when told to end."""
        self._sleep(worked * (1 / self.gentleness.duty - 1))
        self.look()

    def look(self) -> None:
        """Stop for as long as something speaks against going on. Raises Interrupted when told to end."""
        self._sleep(0)
        if time.monotonic() - self.looked < LOOK_SECONDS:
            return
        self.looked = time.monotonic()
        while why := self.brake():
            self.target.reporter.waits(why)
            self.braked_seconds += BRAKED_SECONDS
            self._sleep(BRAKED_SECONDS)

    def _sleep(self, seconds: float) -> None:
        if self.target.stopping.wait(seconds) if seconds > 0 else self.target.stopping.is_set():
            raise Interrupted("told to end")

    def brake(self) -> str:
        """Why nothing should be moved now; empty when nothing speaks against it."""
        if copies.paused(self.connection, self.name):
            return "paused by a person"
        return self._lagging() or self._waiting() or self._slow()

    def _lagging(self) -> str:
        lag = row(self.connection, "SELECT max(replay_lag) FROM pg_stat_replication")[0]
        return f"brake: a replica is {lag} behind" if lag is not None and lag > self.gentleness.lag else ""

    def _waiting(self) -> str:
        query = (
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation IN (to_regclass(%s), to_regclass(%s))"
            " AND clock_timestamp() - waitstart > %s"
        )
        waiting = row(self.connection, query, self.sql.copy.source, self.sql.copy.target, LOCK_WAIT)[0]
        return f"brake: {waiting} statements wait for a lock on the tables" if waiting else ""

    def _slow(self) -> str:
        """How long the application waits for one row now: the same read, timed here."""
        if not self._keys:
            sample = self.sql.keys(first=True)
            self._keys = [found[0] for found in execute(self.connection, sample, {"size": PROBES}).fetchall()]
        times = []
        for key in self._keys:
            begun = time.monotonic()
            query = f"SELECT * FROM {self.sql.source} s WHERE s.{self.sql.key} = %(key)s::{self.sql.key_type}"
            execute(self.connection, query, {"key": key}).fetchone()
            times.append(time.monotonic() - begun)
        slow = statistics.median(times) if times else 0.0
        limit = self.gentleness.latency.total_seconds()
        return f"brake: reading a row takes {slow * 1000:.0f} ms, more than {limit * 1000:.0f} ms" if slow > limit else ""
