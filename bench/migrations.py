"""How fast a copy is, and what the application feels of it; the last line is JSON.

a  moving rows without pause, against one plain INSERT ... SELECT of the same rows: median of five, in turns
b  p99 of the application's statements while a copy runs with its defaults, against the same load before and after it
c  rows that differ between both sides after b: none

The load of b is pgbench at a fixed rate, single statements as a session service sends them: insert, update, delete and read
a session, list a user's, report on the 3,000 oldest. Figures by kind are printed: p99 of all is what the slower ones feel.

make bench-migrations BENCH="--rows 1000000 --rate 300"
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure, show
from lab.lab import ended_by_signals
from lab.processes import StartFailed
from lab.servers import Postgres
from lab.sessions import BUNDLE, SCHEMA, database, difference, fill, run, server, value
from session_rollout.migrations.connection import RunContext
from session_rollout.migrations.copy import functions, lifecycle, spec
from session_rollout.migrations.copy import runner as copy_runner
from session_rollout.migrations.copy.runner import CopyJob
from session_rollout.migrations.copy.throttle import ThrottleSettings
from session_rollout.migrations.schema import bundle
from session_rollout.migrations.schema import runner as schema_runner
from session_rollout.migrations.schema.bundle import Bundle

SETTINGS = {
    "shared_buffers": "2GB",
    "min_wal_size": "4GB",  # segments are used again, as on a server of some age; creating a new segment stops all writers for 50 ms
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "autovacuum_naptime": "10s",
}
QUIET_SECONDS = 40
SETTLE_SECONDS = 5
FOLLOW_SECONDS = 20
SCRIPTS = {
    "update.sql@5": "\\set n random(1, {rows})\nUPDATE user_sessions SET last_activity = now(),"
    " form_data = jsonb_build_object('subject', 'changed', 'n', :n::int) WHERE id = md5('session' || :n)::uuid;\n",
    "insert.sql@2": "\\set n random(1, {users})\nINSERT INTO user_sessions (user_id, session_id, last_activity, preferences)"
    " VALUES (md5('user' || :n)::uuid, gen_random_uuid()::text, now(), '{{}}');\n",
    "delete.sql@1": "\\set n random(1, {rows})\nDELETE FROM user_sessions WHERE id = md5('session' || :n)::uuid;\n",
    "read.sql@2": "\\set n random(1, {rows})\nSELECT * FROM user_sessions WHERE id = md5('session' || :n)::uuid;\n",
    "list.sql@2": "\\set n random(1, {users})\nSELECT * FROM user_sessions WHERE user_id = md5('user' || :n)::uuid"
    " ORDER BY last_activity DESC LIMIT 20;\n",
    "report.sql@1": "SELECT user_id, count(*), max(last_activity) FROM (SELECT * FROM user_sessions ORDER BY last_activity"
    " LIMIT 3000) oldest GROUP BY user_id ORDER BY 2 DESC LIMIT 20;\n",
}
PLAIN = """
INSERT INTO enhanced_user_sessions (id, user_id, session_id, last_activity, preferences, form_data, navigation_state,
  migration_source, state_version, enhanced_features_enabled, migration_timestamp, updated_at)
SELECT id, user_id, session_id, last_activity, preferences, form_data, navigation_state, 'legacy', '2.0', true, now(), now()
FROM user_sessions"""


@dataclass(frozen=True)
class Statement:
    """One of the application's, as pgbench logged it."""

    ended: float
    milliseconds: float
    script: int


def job(duty_cycle: float) -> CopyJob:
    """The copy of the shipped bundle."""
    return CopyJob(BUNDLE, spec.load(bundle.shipped(BUNDLE)), ThrottleSettings(copy_duty_cycle=duty_cycle))


def prepare(dsn: str, rows: int) -> RunContext:
    """The schema and so many sessions."""
    fill(dsn, rows)
    run(dsn, "CREATE INDEX ON user_sessions (user_id)", "CREATE INDEX ON user_sessions (last_activity)")
    context = RunContext(dsn)
    schema_runner.up(context, Bundle(SCHEMA, bundle.load(bundle.shipped(SCHEMA))))
    run(dsn, "VACUUM ANALYZE", "CHECKPOINT")
    return context


# --- a: throughput


def throughput(url: str, rows: int, rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds of the plain statement, of moving rows, and of a whole copy with its comparison at the end."""
    plain, moving, whole = list[float](), list[float](), list[float]()
    with database(url, "throughput") as dsn:
        context = prepare(dsn, rows)
        for number in range(rounds + 1):  # the first one warms up
            run(dsn, "TRUNCATE enhanced_user_sessions", "CHECKPOINT")
            started = time.monotonic()
            run(dsn, PLAIN)
            plain.append(time.monotonic() - started)
            run(dsn, "TRUNCATE enhanced_user_sessions", "CHECKPOINT")
            started = time.monotonic()
            copy_runner.up(context, job(1.0))
            whole.append(time.monotonic() - started)
            moving.append(value(dsn, "SELECT extract(epoch FROM moved_at - started_at)::float FROM session_rollout.copies"))
            lifecycle.down(context, job(1.0))
            print(
                f"round {number}: plain {plain[-1]:.2f} s, moving {moving[-1]:.2f} s, with comparison {whole[-1]:.2f} s",
                flush=True,
            )
    return plain[1:], moving[1:], whole[1:]


def fast(url: str, rows: int, rounds: int) -> list[Figure]:
    """The figures of a."""
    plain, moving, whole = throughput(url, rows, rounds)
    base = statistics.median(plain)
    return [
        Figure("a: throughput against one statement", base / statistics.median(moving), "", 0.8, at_least=True),
        Figure("a: the same with the comparison", base / statistics.median(whole), "", 0.0001, at_least=True),
        Figure("a: rows a second", rows / statistics.median(moving), "1/s", 1, at_least=True),
    ]


# --- b: what the application feels


@contextmanager
def load(postgres: Postgres, dsn: str, rows: int, rate: int, name: str) -> Iterator[Path]:
    """The application at a fixed rate, until the end of the block."""
    directory = postgres.directory / name
    directory.mkdir()
    directory.chmod(0o777)
    scripts = []
    for script, text in SCRIPTS.items():
        path = directory / script.partition("@")[0]
        path.write_text(text.format(rows=rows, users=max(rows // 10, 1)))
        scripts += ["-f", f"{path}@{script.partition('@')[2]}"]
    argv = [str(postgres.binaries / "pgbench"), "-n", "-c", "8", "-j", "1", "-M", "prepared", "-R", str(rate), "-T", "3600"]
    log = (directory / "pgbench.log").open("wb")
    process = subprocess.Popen(
        [*argv, "--log", "--log-prefix=statements", *scripts, dsn], cwd=directory, stdout=log, stderr=log
    )
    try:
        yield directory
        if process.poll() is not None:
            raise StartFailed("pgbench ended early:\n" + (directory / "pgbench.log").read_text())
    finally:
        process.terminate()
        process.wait(10)
        log.close()


def statements(directory: Path) -> list[Statement]:
    """What pgbench logged: client, number, microseconds, script, epoch seconds and microseconds, lag of the schedule."""
    logged = []
    for path in directory.glob("statements.*"):
        for line in path.read_text().splitlines():
            parts = line.split()
            if len(parts) == 7:
                logged.append(Statement(int(parts[4]) + int(parts[5]) / 1e6, int(parts[2]) / 1000, int(parts[3])))
    return logged


def percentile(times: list[float], share: float) -> float:
    """The value below which this share lies."""
    return sorted(times)[min(int(len(times) * share), len(times) - 1)]


def felt(postgres: Postgres, url: str, rows: int, rate: int) -> list[Figure]:
    """The application's statements without the copy, during it, while changes are followed, and without it again."""
    with database(url, "felt") as dsn:
        context = prepare(dsn, rows)
        with load(postgres, dsn, rows, rate, "first") as directory:
            before = window(QUIET_SECONDS)
            started = time.time()
            message = copy_runner.up(context, job(ThrottleSettings().copy_duty_cycle))
            copied = started, time.time()
            followed = window(FOLLOW_SECONDS)
        print(f"under load: {message}", flush=True)
        differing, executed = difference(dsn), statements(directory)
        lifecycle.down(context, job(1.0))
        with load(postgres, dsn, rows, rate, "second") as directory:
            after = window(QUIET_SECONDS)
        executed += statements(directory)
    without = [*within(executed, before), *within(executed, after)]
    during, following = within(executed, copied), within(executed, followed)
    for name, times in (("without", without), ("during the copy", during), ("following", following)):
        shown = ", ".join(f"p{share:g} {percentile(times, share / 100):.2f} ms" for share in (50, 95, 99, 99.9))
        print(f"{name}: {len(times):,} statements, {shown}")
    for number, script in enumerate(SCRIPTS):
        of_script = [statement for statement in executed if statement.script == number]
        here, there = [*within(of_script, before), *within(of_script, after)], within(of_script, copied)
        print(
            f"  {script.partition('.')[0]}: p99 {percentile(here, 0.99):.2f} -> {percentile(there, 0.99):.2f} ms during the copy"
        )
    base = percentile(without, 0.99)
    return [
        Figure("b: statements a second during the copy", len(during) / (copied[1] - copied[0]), "1/s", 200, at_least=True),
        Figure("b: seconds of the copy", copied[1] - copied[0], "s", float("inf")),
        Figure("b: p99 during the copy to without", percentile(during, 0.99) / base, "", 1.3),
        Figure("b: p99 while changes are followed to without", percentile(following, 0.99) / base, "", float("inf")),
        Figure("c: rows that differ afterwards", differing, "", 0.5),
    ]


def window(seconds: float) -> tuple[float, float]:
    """Let the load run for so long, after it has settled; from when to when."""
    time.sleep(SETTLE_SECONDS)
    started = time.time()
    time.sleep(seconds)
    return started, time.time()


def within(executed: list[Statement], span: tuple[float, float]) -> list[float]:
    """Milliseconds of the statements that ended in this time."""
    return [statement.milliseconds for statement in executed if span[0] < statement.ended < span[1]]


def main() -> None:
    """Entry point; exit 1 when a limit is not held."""
    parser = argparse.ArgumentParser(prog="make bench-migrations", description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--throughput-rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5, help="of a; 0 leaves it out")
    parser.add_argument("--slice", type=int, default=functions.COPY_SLICE, help="rows between two pauses (%(default)s)")
    parser.add_argument("--rate", type=int, default=300)
    options = parser.parse_args()
    functions.COPY_SLICE = options.slice  # type: ignore[misc]
    with ended_by_signals(), server(**SETTINGS) as postgres:
        figures = fast(postgres.url, options.throughput_rows, options.rounds) if options.rounds else []
        figures += felt(postgres, postgres.url, options.rows, options.rate)
    show(figures)
    sys.exit(any(figure.ratio > 1 for figure in figures))


if __name__ == "__main__":
    main()
