"""The throttle of a copy: batch sizes, the duty cycle, and the limits that pause it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from lab.sessions import difference, fill
from migrations.copies import FAST, GENTLE, QUICK, target, wait_for
from session_rollout.api.migration_enums import FailureReason
from session_rollout.errors import Interrupted
from session_rollout.migrations.connection import RunContext
from session_rollout.migrations.copy import lifecycle
from session_rollout.migrations.copy import runner as copy_runner
from session_rollout.migrations.copy.throttle import MAX_BATCH_ROWS, MIN_BATCH_ROWS, ThrottleSettings, next_batch_rows


@pytest.mark.parametrize(
    ("size", "seconds", "expected"),
    [
        (1000, 0.01, 1300),
        (1000, 0.07, 1000),
        (1000, 0.1, 750),
        (1000, 0.3, 500),
        (3000, 0.01, MAX_BATCH_ROWS),
        (500, 1.0, MIN_BATCH_ROWS),
    ],
)
def test_batch_size_follows_its_duration(size: int, seconds: float, expected: int) -> None:
    """The aim is 75 ms, between 500 and 3,000 rows."""
    assert next_batch_rows(size, seconds) == expected


def test_duty_cycle_of_a_quarter_pauses_most_of_the_time(dsn: str) -> None:
    """The runner pauses three times as long as it works, also on a busy machine."""
    fill(dsn, 30_000)
    context = target(dsn)
    with pauses(dsn) as samples:
        copy_runner.up(context, FAST)
    full = samples.count(True) / len(samples)
    lifecycle.down(context, FAST)
    with pauses(dsn) as samples:
        copy_runner.up(context, GENTLE)
    assert samples.count(True) / len(samples) > 0.6 > full


@contextmanager
def pauses(dsn: str) -> Iterator[list[bool]]:
    """Samples of whether the runner's connection sleeps or waits for its client."""
    query = (
        "SELECT state = 'idle' OR wait_event = 'PgSleep' FROM pg_stat_activity WHERE application_name LIKE 'session-rollout%%'"
    )
    samples: list[bool] = []
    stopped = threading.Event()

    def work() -> None:
        with psycopg.connect(dsn, autocommit=True) as other:
            while not stopped.wait(0.005):
                samples.extend(bool(state) for (state,) in other.execute(query).fetchall())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield samples
    finally:
        stopped.set()
        thread.join()


def test_a_pause_reports_its_reason(dsn: str) -> None:
    """Slow reads and the `pause` command stop a copy; it continues after `resume`."""
    fill(dsn, 20_000)
    context = target(dsn)
    slow = replace(FAST, throttle=ThrottleSettings(copy_duty_cycle=1.0, pause_on_read_latency=timedelta(microseconds=1)))
    with ThreadPoolExecutor() as pool:
        paused = pool.submit(copy_runner.up, context, slow)
        wait_for(lambda: context.reporter.last.waiting)
        context.stopping.set()
        with pytest.raises(Interrupted) as ended:
            paused.result(10)
    assert ended.value.reason is FailureReason.TERMINATED
    context = RunContext(dsn, limits=QUICK)
    lifecycle.pause(context, FAST, paused=True)
    runner = threading.Thread(target=copy_runner.up, args=(context, FAST), daemon=True)
    runner.start()
    wait_for(lambda: context.reporter.last.waiting)
    assert lifecycle.status(context, FAST)["paused"] is True
    lifecycle.pause(context, FAST, paused=False)
    runner.join()
    assert difference(dsn) == 0
