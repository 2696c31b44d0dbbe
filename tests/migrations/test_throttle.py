"""The throttle of a copy: batch sizes, the duty cycle, and the limits that pause it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from lab.sessions import difference, fill
from migrations.copies import FAST, GENTLE, QUICK, target, wait_for
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


def test_duty_cycle_of_a_quarter_slows_a_copy_down(dsn: str) -> None:
    """Compared with the duration of the same copy without pauses."""
    fill(dsn, 30_000)
    context = target(dsn)
    started = time.monotonic()
    copy_runner.up(context, FAST)
    full = time.monotonic() - started
    lifecycle.down(context, FAST)
    started = time.monotonic()
    copy_runner.up(context, GENTLE)
    assert time.monotonic() - started > 2 * full


def test_a_pause_reports_its_reason(dsn: str) -> None:
    """Slow reads and the `pause` command stop a copy; it continues after `resume`."""
    fill(dsn, 20_000)
    context = target(dsn)
    slow = replace(FAST, throttle=ThrottleSettings(copy_duty_cycle=1.0, pause_on_read_latency=timedelta(microseconds=1)))
    with ThreadPoolExecutor() as pool:
        paused = pool.submit(copy_runner.up, context, slow)
        wait_for(lambda: "paused: read latency is" in context.reporter.last.waiting)
        context.stopping.set()
        with pytest.raises(Interrupted, match="stopped by SIGTERM"):
            paused.result(10)
    context = RunContext(dsn, limits=QUICK)
    lifecycle.pause(context, FAST, paused=True)
    runner = threading.Thread(target=copy_runner.up, args=(context, FAST), daemon=True)
    runner.start()
    wait_for(lambda: context.reporter.last.waiting == "paused by the `pause` command")
    assert lifecycle.status(context, FAST)["paused"] is True
    lifecycle.pause(context, FAST, paused=False)
    runner.join(20)
    assert difference(dsn) == 0
