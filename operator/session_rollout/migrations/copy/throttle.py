"""Throttles a copy: rows are copied for a share of the time, and not at all while the application or a replica is slow."""

import statistics
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from session_rollout.api.quantities import format_duration
from session_rollout.migrations.connection import Connection, RunContext, execute, fetch_row
from session_rollout.migrations.copy import state
from session_rollout.migrations.copy.sql import CopySql
from session_rollout.migrations.retry import terminated

MIN_BATCH_ROWS: Final = 500
MAX_BATCH_ROWS: Final = 3_000
BATCH_SECONDS: Final = 0.075  # longer transactions slow down the slowest statements of the application
GROW: Final = 1.3
SHRINK: Final = 0.75
HALVE: Final = 0.5
CHECK_SECONDS: Final = 1.0
SAMPLE_ROWS: Final = 5
PAUSE_SECONDS: Final = 0.5
LOCK_WAIT: Final = timedelta(milliseconds=200)


@dataclass(frozen=True)
class ThrottleSettings:
    """The limits that the profile in the operator's configuration sets."""

    copy_duty_cycle: float = 0.25  # share of the time in which rows are copied; above 0, 1 means without pauses
    pause_on_read_latency: timedelta = timedelta(milliseconds=100)  # of reading one source row by its key
    pause_on_replica_lag: timedelta = timedelta(seconds=10)  # of the slowest replica

    @property
    def statement_rows(self) -> int:
        """Rows per statement where the client makes the pauses: short statements, so that pauses come often."""
        return MIN_BATCH_ROWS * 4 if self.copy_duty_cycle == 1 else MIN_BATCH_ROWS // 2


def next_batch_rows(rows: int, seconds: float) -> int:
    """Rows of the next batch, after one with so many rows took so many seconds; the aim is 75 ms per batch."""
    factor = GROW if seconds < BATCH_SECONDS * SHRINK else HALVE if seconds > BATCH_SECONDS / HALVE else 1.0
    if seconds > BATCH_SECONDS and factor == 1.0:
        factor = SHRINK
    return max(MIN_BATCH_ROWS, min(MAX_BATCH_ROWS, round(rows * factor)))


@dataclass
class Throttle:
    """Pauses after each batch, and checks once per second whether the copy must wait."""

    context: RunContext
    connection: Connection
    name: str
    sql: CopySql
    settings: ThrottleSettings
    _checked: float = 0.0
    _sample_keys: list[str] = field(default_factory=list)

    def pace(self, seconds: float) -> None:
        """Pause after a batch that took so many seconds, then check the limits. Raises Interrupted after SIGTERM."""
        self._sleep(seconds * (1 / self.settings.copy_duty_cycle - 1))
        self.wait_within_limits()

    def wait_within_limits(self) -> None:
        """Wait while a limit is exceeded; checked at most once per second. Raises Interrupted after SIGTERM."""
        self._sleep(0)
        if time.monotonic() - self._checked < CHECK_SECONDS:
            return
        self._checked = time.monotonic()
        while reason := self.pause_reason():
            self.context.reporter.wait_for(reason)
            self._sleep(PAUSE_SECONDS)

    def _sleep(self, seconds: float) -> None:
        if self.context.stopping.wait(seconds) if seconds > 0 else self.context.stopping.is_set():
            raise terminated()

    def pause_reason(self) -> str | None:
        """Why no rows may be copied now; None when they may."""
        if state.paused(self.connection, self.name):
            return "paused by the `pause` command"
        return self._replica_lag() or self._lock_waits() or self._read_latency()

    def _replica_lag(self) -> str | None:
        lag = fetch_row(self.connection, "SELECT max(replay_lag) FROM pg_stat_replication")[0]
        limit = self.settings.pause_on_replica_lag
        return (
            f"paused: replica lag is {lag}, the limit is {format_duration(limit)}" if lag is not None and lag > limit else None
        )

    def _lock_waits(self) -> str | None:
        query = (
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation IN (to_regclass(%s), to_regclass(%s))"
            " AND clock_timestamp() - waitstart > %s"
        )
        waits = fetch_row(self.connection, query, self.sql.spec.source, self.sql.spec.target, LOCK_WAIT)[0]
        return f"paused: {waits} statements wait for locks on the tables of the copy" if waits else None

    def _read_latency(self) -> str | None:
        """Compares the median time of reading a row, as the application reads it, with the limit."""
        if not self._sample_keys:
            query = self.sql.keys(first=True)
            self._sample_keys = [record[0] for record in execute(self.connection, query, {"size": SAMPLE_ROWS}).fetchall()]
        times = [self._read_seconds(key) for key in self._sample_keys]
        latency = statistics.median(times) if times else 0.0
        limit = self.settings.pause_on_read_latency.total_seconds()
        if latency <= limit:
            return None
        return f"paused: read latency is {latency * 1000:.0f} ms, the limit is {limit * 1000:.0f} ms"

    def _read_seconds(self, key: str) -> float:
        started = time.monotonic()
        query = f"SELECT * FROM {self.sql.source} s WHERE s.{self.sql.key} = %(key)s::{self.sql.key_type}"
        execute(self.connection, query, {"key": key}).fetchone()
        return time.monotonic() - started
