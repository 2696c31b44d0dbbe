"""`session-rollout-migrate`: applies, plans and undoes schema migrations, and copies rows, in migration Jobs and on a terminal.

Exit codes: 0 success; 1 the migration requires manual intervention; 2 wrong arguments; 75 interrupted, another attempt resumes.
"""

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from session_rollout.api.migration_enums import FailureReason
from session_rollout.api.quantities import duration
from session_rollout.errors import Interrupted, MigrationError, MigrationFailed
from session_rollout.migrations import roles
from session_rollout.migrations.connection import Limits, RunContext
from session_rollout.migrations.copy import lifecycle, repair, restore, snapshots, spec
from session_rollout.migrations.copy import runner as copy_runner
from session_rollout.migrations.copy.restore import RestoreOptions
from session_rollout.migrations.copy.runner import CopyJob
from session_rollout.migrations.copy.throttle import ThrottleSettings
from session_rollout.migrations.progress import job_reporter, terminal_reporter
from session_rollout.migrations.schema import bundle as bundles
from session_rollout.migrations.schema import drift, plan
from session_rollout.migrations.schema import runner as schema_runner
from session_rollout.migrations.schema.bundle import COPY_FILE, Bundle
from session_rollout.migrations.schema.lint import lint

FAILED, INTERRUPTED = 1, 75
INSPECTIONS: Final = {"status", "plan", "verify"}  # their result may be longer than a message and is written as it is
TERMINATION_BYTES: Final = 4096  # the most that Kubernetes keeps of a termination message
WITHOUT_DATABASE: Final = {"lint", "roles"}
COMMANDS: Final = {
    "up": "Apply the bundle, or copy its rows. SQL steps that are already applied are skipped.",
    "down": "Undo the bundle, newest SQL step first. For a copy: delete the copied rows.",
    "status": "Print what is applied or copied, and the drift, as JSON.",
    "plan": "Run the pending SQL steps in a transaction that is rolled back; print their SQL and table locks as JSON.",
    "lint": "Check the up files for statements that block the application or destroy data. Needs no database.",
    "verify": "Compare both sides of a copy: row counts, checksums of ranges, and a sample of rows.",
    "retry": "Copy the rows in quarantine again.",
    "repair": "Replace damaged rows of the target of a copy: from the source, or after `finish` from a snapshot.",
    "pause": "Pause a running copy after its current batch.",
    "resume": "Resume a paused copy.",
    "backup": "Take a snapshot of the tables of a copy.",
    "restore": "Restore rows from a snapshot; rows that have been written since the snapshot are kept if `copy.yaml` sets `changed`.",
    "prune": "Drop expired snapshots.",
    "finish": "Finish a copy: its target becomes the source of truth.",
    "roles": "Print the SQL that creates the two database roles.",
}


# --- the command line


def parser() -> argparse.ArgumentParser:
    """The command line."""
    common = _common_options()
    program = argparse.ArgumentParser(prog="session-rollout-migrate", description=(__doc__ or "").split("\n\n")[0])
    commands = program.add_subparsers(dest="command", required=True, metavar="COMMAND")
    added = {name: commands.add_parser(name, help=text, description=text, parents=[common]) for name, text in COMMANDS.items()}
    added["down"].add_argument("--to", type=int, default=0, metavar="N", help="Keep the SQL steps up to number N.")
    added["down"].add_argument("--allow-data-loss", action="store_true", help="Drop even tables and columns that contain data.")
    added["backup"].add_argument("--label", required=True, help="Name of the snapshot, such as the phase.")
    added["restore"].add_argument("--label", help="Name of the snapshot (default: the newest one).")
    added["restore"].add_argument("--user", help="Restore only the rows of this user.")
    added["restore"].add_argument(
        "--at", type=datetime.fromisoformat, metavar="TIME", help="Use the newest snapshot taken before this time."
    )
    added["restore"].add_argument(
        "--exact",
        action="store_true",
        help="Restore every row as it was in the snapshot. Fails if rows have been written since then, unless --lose-newer is set.",
    )
    added["restore"].add_argument(
        "--lose-newer", action="store_true", help="With --exact, overwrite rows that have been written since the snapshot."
    )
    added["roles"].add_argument("--database", required=True, help="Name of the database.")
    added["roles"].add_argument("--application", required=True, help="Database role of the application.")
    added["roles"].add_argument(
        "--references", nargs="*", default=["users"], help="Tables that new tables refer to (default: users)."
    )
    return program


def _common_options() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    source = common.add_mutually_exclusive_group(required=True)
    source.add_argument("--bundle", help="A bundle of this image, such as session-persistence/schema.")
    source.add_argument(
        "--directory", type=Path, help="A directory with NNNN_name.up.sql and NNNN_name.down.sql files, or with copy.yaml."
    )
    common.add_argument("--name", help="Name in the ledger (default: the bundle or the name of the directory).")
    common.add_argument("--dsn-file", type=Path, help="File that holds the connection string.")
    common.add_argument(
        "--definer-dsn-file",
        type=Path,
        help="File that holds the connection string of the role that defines tables and triggers, if that is a separate one.",
    )
    common.add_argument(
        "--lock-timeout",
        default="2s",
        help="Longest time that a statement of a migration waits for a lock (default: %(default)s).",
    )
    common.add_argument(
        "--lock-deadline",
        default="15m",
        help="Time after which the command stops waiting for locks and connections (default: %(default)s).",
    )
    common.add_argument("--statement-timeout", default="10m", help="Time limit of one statement (default: %(default)s).")
    common.add_argument("--termination-log", type=Path, help=argparse.SUPPRESS)
    common.add_argument(
        "--change", choices=["Expand", "Migrate", "Contract"], default="Expand", help="Kind of change (default: %(default)s)."
    )
    common.add_argument(
        "--point-of-no-return",
        type=int,
        metavar="N",
        help="SQL step N and later ones cannot be undone. Once SQL step N is applied, `down` fails and undoes nothing, not even the"
        " SQL steps before N.",
    )
    common.add_argument(
        "--copy-duty-cycle",
        type=float,
        default=0.25,
        metavar="SHARE",
        help="Share of the time in which rows are copied, above 0 and at most 1 (default: %(default)s).",
    )
    common.add_argument(
        "--pause-on-read-latency",
        default="100ms",
        metavar="DURATION",
        help="Pause the copy while reading a row takes longer (default: %(default)s).",
    )
    common.add_argument(
        "--pause-on-replica-lag",
        default="10s",
        metavar="DURATION",
        help="Pause the copy while a replica lags more (default: %(default)s).",
    )
    common.add_argument("--free-space-query", default="", help="SQL that returns the free bytes of the database's disk.")
    return common


def main() -> None:
    """Entry point."""
    options = parser().parse_args()
    context = _context(options)
    signal.signal(signal.SIGTERM, lambda *_: context.stopping.set())
    try:
        message = _run(options, context)
    except MigrationError as error:
        _exit(context, error)
    if options.termination_log is not None and options.command in INSPECTIONS:
        options.termination_log.write_text(_truncated(message))
    elif options.termination_log is not None:
        context.reporter.close(message=message)
    else:
        print(message)


def _truncated(message: str) -> str:
    data = message.encode()
    return message if len(data) <= TERMINATION_BYTES else data[: TERMINATION_BYTES - 8].decode(errors="ignore") + "\n..."


def _context(options: argparse.Namespace) -> RunContext:
    limits = Limits(
        lock_timeout=duration(options.lock_timeout),
        lock_deadline=duration(options.lock_deadline),
        statement_timeout=duration(options.statement_timeout),
    )
    return RunContext(
        dsn="",
        limits=limits,
        reporter=job_reporter(options.termination_log) if options.termination_log else terminal_reporter(),
        stopping=threading.Event(),
        actor=os.environ.get("SESSION_ROLLOUT_ACTOR", os.environ.get("USER", "")),
        job_uid=os.environ.get("SESSION_ROLLOUT_JOB_UID", ""),
    )


def _exit(context: RunContext, error: MigrationError) -> NoReturn:
    interrupted = isinstance(error, Interrupted)
    message = f"interrupted: {error}" if interrupted else str(error)
    if context.reporter.termination_log is not None:
        context.reporter.close(message=message, reason=error.reason)
    print(f"session-rollout-migrate: {message}", file=sys.stderr)
    sys.exit(INTERRUPTED if interrupted else FAILED)


# --- the commands


def _run(options: argparse.Namespace, context: RunContext) -> str:
    """Run the command; returns its result. Raises MigrationError."""
    directory = bundles.shipped(options.bundle) if options.bundle else options.directory
    name = options.name or options.bundle or directory.resolve().name
    if options.command not in WITHOUT_DATABASE:
        context.dsn = _secret(options.dsn_file, "--dsn-file")
        context.definer = _secret(options.definer_dsn_file, "--definer-dsn-file") if options.definer_dsn_file else ""
    if bundles.is_copy(directory):
        job = CopyJob(name, spec.load(directory), _throttle(options), options.free_space_query)
        context.reporter.update(checksum=job.spec.checksum)
        return _run_copy(options, context, job)
    # `down` reads the ledger, which may have steps that this image does not have.
    steps = bundles.load(directory, None if options.command == "down" else options.point_of_no_return)
    context.reporter.update(checksum=bundles.checksum(steps))
    context.dsn = context.definer_dsn  # where there are two roles, only the definer may change the schema
    return _run_schema(options, context, Bundle(name, steps, options.change))


def _secret(path: Path | None, option: str) -> str:
    if path is None:
        message = f"{option} is missing; it must name the file that contains the connection string"
        raise MigrationFailed(message, FailureReason.INVALID_ARGUMENTS)
    try:
        return path.read_text().strip()
    except OSError as error:
        message = f"cannot read the connection string in {path.name}: {error.strerror}"
        raise MigrationFailed(message, FailureReason.INVALID_ARGUMENTS) from error


def _throttle(options: argparse.Namespace) -> ThrottleSettings:
    if not 0 < options.copy_duty_cycle <= 1:
        message = f"--copy-duty-cycle is {options.copy_duty_cycle}: it must be above 0 and at most 1"
        raise MigrationFailed(message, FailureReason.INVALID_ARGUMENTS)
    return ThrottleSettings(
        copy_duty_cycle=options.copy_duty_cycle,
        pause_on_read_latency=duration(options.pause_on_read_latency),
        pause_on_replica_lag=duration(options.pause_on_replica_lag),
    )


def _run_schema(options: argparse.Namespace, context: RunContext, bundle: Bundle) -> str:
    match options.command:
        case "up":
            return schema_runner.up(context, bundle)
        case "down":
            return schema_runner.down(context, bundle, to=options.to, allow_data_loss=options.allow_data_loss)
        case "status":
            return _json(drift.status(context, bundle))
        case "plan":
            return _json([asdict(step) for step in plan.plan(context, bundle)])
        case "lint":
            return _lint(bundle)
    message = f"{options.command} works on a bundle with {COPY_FILE}, but {bundle.name} has SQL files"
    raise MigrationFailed(message, FailureReason.INVALID_ARGUMENTS)


def _lint(bundle: Bundle) -> str:
    if findings := lint(bundle.steps, bundle.change):
        raise MigrationFailed("\n".join(map(str, findings)), FailureReason.LINT_FAILED)
    return f"{len(bundle.steps)} SQL steps, no problems found"


def _run_copy(options: argparse.Namespace, context: RunContext, job: CopyJob) -> str:
    commands: dict[str, Callable[[], object]] = {
        "up": lambda: copy_runner.up(context, job),
        "down": lambda: lifecycle.down(context, job),
        "status": lambda: _json(lifecycle.status(context, job)),
        "verify": lambda: _verify(context, job),
        "retry": lambda: copy_runner.retry(context, job),
        "repair": lambda: repair.repair(context, job),
        "pause": lambda: lifecycle.pause(context, job, paused=True),
        "resume": lambda: lifecycle.pause(context, job, paused=False),
        "backup": lambda: snapshots.backup(context, job, options.label),
        "restore": lambda: _restore(options, context, job),
        "prune": lambda: snapshots.prune(context, job),
        "finish": lambda: lifecycle.finish(context, job),
        "lint": lambda: f"{COPY_FILE} of {job.name}, no problems found",
        "roles": lambda: roles.script(options.database, options.application, (job.spec,), tuple(options.references)),
    }
    if options.command not in commands:
        message = f"{options.command} works on a bundle with SQL files, but {job.name} has {COPY_FILE}"
        raise MigrationFailed(message, FailureReason.INVALID_ARGUMENTS)
    return str(commands[options.command]())


def _verify(context: RunContext, job: CopyJob) -> str:
    comparison = lifecycle.compare(context, job)
    if not comparison.agrees:
        raise MigrationFailed(str(comparison), FailureReason.ROWS_DIFFER)
    return str(comparison)


def _restore(options: argparse.Namespace, context: RunContext, job: CopyJob) -> str:
    restore_options = RestoreOptions(options.label, options.user, options.at, overwrite_newer=options.exact)
    if options.exact and not options.lose_newer and (count := restore.count_newer_rows(context, job, restore_options)):
        message = f"{count:,} rows were written since the snapshot and would be lost: use --lose-newer to overwrite them"
        raise MigrationFailed(message, FailureReason.DATA_LOSS)
    return "; ".join(map(str, restore.restore(context, job, restore_options)))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2)


if __name__ == "__main__":
    main()
