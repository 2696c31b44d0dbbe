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
def test_batches_adapt(size: int, seconds: float, expected: int) -> None:
    """Towards 75 ms, between 500 and 3,000 rows."""
    assert next_batch_rows(size, seconds) == expected


def test_it_works_a_quarter_of_the_time(dsn: str) -> None:
    """The duty cycle, by the time that the same takes without it."""
    fill(dsn, 30_000)
    here = target(dsn)
    begun = time.monotonic()
    copy_runner.up(here, FAST)
    full = time.monotonic() - begun
    lifecycle.down(here, FAST)
    begun = time.monotonic()
    copy_runner.up(here, GENTLE)
    assert time.monotonic() - begun > 2 * full


def test_brakes_say_why(dsn: str) -> None:
    """Slow reads, waiting statements and a person's pause stop it; it goes on when they are over."""
    fill(dsn, 20_000)
    here = target(dsn)
    slow = replace(FAST, throttle=ThrottleSettings(copy_duty_cycle=1.0, pause_on_read_latency=timedelta(microseconds=1)))
    with ThreadPoolExecutor() as pool:
        braked = pool.submit(copy_runner.up, here, slow)
        wait_for(lambda: "paused: read latency is" in here.reporter.last.waiting)
        here.stopping.set()
        with pytest.raises(Interrupted, match="stopped by SIGTERM"):
            braked.result(10)
    here = RunContext(dsn, limits=QUICK)
    lifecycle.pause(here, FAST, paused=True)
    runner = threading.Thread(target=copy_runner.up, args=(here, FAST), daemon=True)
    runner.start()
    wait_for(lambda: here.reporter.last.waiting == "paused by the `pause` command")
    assert lifecycle.status(here, FAST)["paused"] is True
    lifecycle.pause(here, FAST, paused=False)
    runner.join(20)
    assert difference(dsn) == 0
