"""What the tests of copies share: the shipped copy, with and without pauses, and the state of a database."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg

from lab.lab import until
from lab.sessions import BUNDLE, SCHEMA
from session_rollout.migrations.connection import Limits, RunContext
from session_rollout.migrations.copy import spec
from session_rollout.migrations.copy.runner import CopyJob
from session_rollout.migrations.copy.throttle import ThrottleSettings
from session_rollout.migrations.schema import bundle, runner
from session_rollout.migrations.schema.bundle import Bundle

COPY = spec.load(bundle.shipped(BUNDLE))
QUICK = Limits(lock_timeout=timedelta(milliseconds=200), lock_deadline=timedelta(seconds=30))
FAST = CopyJob(BUNDLE, COPY, ThrottleSettings(copy_duty_cycle=1.0, pause_on_read_latency=timedelta(seconds=5)))
GENTLE = replace(FAST, throttle=ThrottleSettings(copy_duty_cycle=0.25, pause_on_read_latency=timedelta(seconds=5)))
MOVED = "SELECT count(*) FROM enhanced_user_sessions WHERE migration_source = 'legacy'"


def target(dsn: str) -> RunContext:
    """The context of this database, with the schema of the target applied."""
    context = RunContext(dsn, limits=QUICK, actor="test")
    runner.up(context, Bundle(SCHEMA, bundle.load(bundle.shipped(SCHEMA))))
    return context


def quarantine(dsn: str) -> dict[str, str]:
    """By key: the reason of each row in quarantine."""
    with psycopg.connect(dsn) as connection:
        return dict(connection.execute("SELECT key, reason FROM session_rollout.quarantine ORDER BY key").fetchall())


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> None:
    """Wait until the condition is true."""
    until(condition, seconds)
