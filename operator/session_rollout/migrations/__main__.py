"""`session-rollout-migrate`: the program of a migration Job, and of a person beside the database.

Exit codes: 0 done; 1 a person must act first; 2 wrong arguments; 75 interrupted, another attempt goes on.
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
from typing import Any, Final

from session_rollout.api.quantities import duration
from session_rollout.migrations import bundle, copying, copyspec, examine, recover, roles, schema, settling, snapshots, verify
from session_rollout.migrations.bundle import BundleError
from session_rollout.migrations.copying import Job
from session_rollout.migrations.database import Interrupted, Limits, MigrationFailed, Target
from session_rollout.migrations.lint import lint
from session_rollout.migrations.report import to_log, to_person
from session_rollout.migrations.schema import Bundle
from session_rollout.migrations.throttle import Gentleness

FAILED, INTERRUPTED = 1, 75
LOOKING: Final = {"status", "plan", "verify"}
TERMINATION_BYTES: Final = 4096
WITHOUT_DATABASE: Final = {"lint", "roles"}
COMMANDS: Final = {
    "up": "apply the bundle, or move its rows; what is done already is not done again",
    "down": "undo it, newest step first; a copy: delete the rows that were moved",
    "status": "what is applied or moved, and what has drifted, as JSON",
    "plan": "run what is not applied in a transaction that is rolled back; print SQL and locks",
    "lint": "what the up files must not say; needs no database",
    "verify": "compare both sides of a copy: counts, checksums of ranges, a sample of rows",
    "retry": "move the rows in quarantine again",
    "recover": "mend damaged rows of a copy's target",
    "pause": "let a running copy rest",
    "resume": "let it go on",
    "backup": "take a snapshot of a copy's tables",
    "restore": "bring rows back from a snapshot, keeping what was written since",
    "prune": "drop snapshots whose time is over",
    "finish": "end a copy: its target is the truth from then on",
    "roles": "print the SQL that creates the two database roles",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    common = argparse.ArgumentParser(add_help=False)
    source = common.add_mutually_exclusive_group(required=True)
    source.add_argument("--bundle", help="a bundle shipped with this image, such as session-persistence/schema")
    source.add_argument("--directory", type=Path, help="a directory with NNNN_name.up.sql and .down.sql, or copy.yaml")
    common.add_argument("--name", help="name in the ledger (default: the bundle, or the directory's name)")
    common.add_argument("--dsn-file", type=Path, help="file that holds the connection string")
    common.add_argument(
        "--definer-dsn-file", type=Path, help="the same for tables and triggers, where another role defines them"
    )
    common.add_argument("--lock-timeout", default="2s", help="longest that others may wait for us (%(default)s)")
    common.add_argument("--lock-deadline", default="15m", help="how long locks and connections are tried for (%(default)s)")
    common.add_argument("--statement-timeout", default="10m", help="longest statement (%(default)s)")
    common.add_argument("--termination-log", type=Path, help=argparse.SUPPRESS)
    common.add_argument("--change", choices=["Expand", "Migrate", "Contract"], default="Expand", help="what the steps may do")
    common.add_argument("--point-of-no-return", type=int, metavar="N", help="step N and later cannot be undone")
    common.add_argument("--duty", type=float, default=0.25, help="share of the time in which rows are moved (%(default)s)")
    common.add_argument("--brake-latency", default="100ms", help="rest while reading a row takes longer (%(default)s)")
    common.add_argument("--brake-lag", default="10s", help="rest while a replica is further behind (%(default)s)")
    common.add_argument("--free-space-query", default="", help="SQL that returns the free bytes of the database's disk")
    program = argparse.ArgumentParser(prog="session-rollout-migrate", description=(__doc__ or "").split("\n\n")[0])
    commands = program.add_subparsers(dest="command", required=True)
    made = {name: commands.add_parser(name, help=text, description=text, parents=[common]) for name, text in COMMANDS.items()}
    made["down"].add_argument("--to", type=int, default=0, metavar="N", help="keep steps up to N")
    made["down"].add_argument("--allow-data-loss", action="store_true", help="also where tables or columns hold data")
    made["backup"].add_argument("--label", required=True, help="what it is for, such as the phase")
    made["restore"].add_argument("--label", help="which snapshot (default: the newest)")
    made["restore"].add_argument("--user", help="only this user's rows")
    made["restore"].add_argument("--at", type=datetime.fromisoformat, help="from the newest snapshot taken before this time")
    made["restore"].add_argument("--exact", action="store_true", help="also rows that were written since; refused if there are")
    made["restore"].add_argument("--lose-newer", action="store_true", help="with --exact: lose what was written since")
    made["roles"].add_argument("--database", required=True)
    made["roles"].add_argument("--application", required=True, help="role of the application")
    made["roles"].add_argument("--references", nargs="*", default=["users"], help="tables that new ones refer to (%(default)s)")
    return program


def main() -> None:
    """Entry point."""
    options = parser().parse_args()
    target = _target(options)
    signal.signal(signal.SIGTERM, lambda *_: target.stopping.set())
    try:
        message = _run(options, target)
    except (BundleError, MigrationFailed) as error:
        _end(target, str(error), FAILED)
    except Interrupted as error:
        _end(target, f"interrupted: {error}", INTERRUPTED)
    if options.termination_log is not None and options.command in LOOKING:
        options.termination_log.write_text(_fitting(message))
    elif options.termination_log is not None:
        target.reporter.close(message=message)
    else:
        print(message)


def _fitting(message: str) -> str:
    """A message within what Kubernetes keeps of a Pod's last words."""
    data = message.encode()
    return message if len(data) <= TERMINATION_BYTES else data[: TERMINATION_BYTES - 8].decode(errors="ignore") + "\n..."


def _target(options: argparse.Namespace) -> Target:
    limits = Limits(
        lock_timeout=duration(options.lock_timeout),
        lock_deadline=duration(options.lock_deadline),
        statement_timeout=duration(options.statement_timeout),
    )
    return Target(
        dsn="",
        limits=limits,
        reporter=to_log(options.termination_log) if options.termination_log else to_person(),
        stopping=threading.Event(),
        actor=os.environ.get("SESSION_ROLLOUT_ACTOR", os.environ.get("USER", "")),
        job_uid=os.environ.get("SESSION_ROLLOUT_JOB_UID", ""),
    )


def _end(target: Target, message: str, code: int) -> None:
    if target.reporter.termination_log is not None:
        target.reporter.close(message=message)
    print(f"session-rollout-migrate: {message}", file=sys.stderr)
    sys.exit(code)


def _run(options: argparse.Namespace, target: Target) -> str:
    """Do it; what to say about it. Raises BundleError, MigrationFailed, Interrupted."""
    directory = bundle.shipped(options.bundle) if options.bundle else options.directory
    name = options.name or options.bundle or directory.resolve().name
    if options.command not in WITHOUT_DATABASE:
        target.dsn = _secret(options.dsn_file, "--dsn-file")
        target.definer = _secret(options.definer_dsn_file, "--definer-dsn-file") if options.definer_dsn_file else ""
    if bundle.is_copy(directory):
        job = Job(name, copyspec.load(directory), _gentleness(options), options.free_space_query)
        target.reporter.tell(checksum=job.copy.checksum)
        return _run_copy(options, target, job)
    # Going back asks the ledger, which may know steps that this image does not.
    steps = bundle.load(directory, None if options.command == "down" else options.point_of_no_return)
    target.reporter.tell(checksum=bundle.checksum(steps))
    # Tables are defined by the role that may, where there are two.
    target.dsn = target.defining
    return _run_schema(options, target, Bundle(name, steps, options.change))


def _secret(path: Path | None, option: str) -> str:
    if path is None:
        raise MigrationFailed(f"{option} must name the file that holds the connection string")
    try:
        return path.read_text().strip()
    except OSError as error:
        raise MigrationFailed(f"the connection string in {path.name} cannot be read: {error.strerror}") from error


def _gentleness(options: argparse.Namespace) -> Gentleness:
    if not 0 < options.duty <= 1:
        raise MigrationFailed(f"--duty is {options.duty}, and it must be above 0 and at most 1")
    return Gentleness(options.duty, duration(options.brake_latency), duration(options.brake_lag))


def _run_schema(options: argparse.Namespace, target: Target, steps: Bundle) -> str:
    match options.command:
        case "up":
            return schema.up(target, steps)
        case "down":
            return schema.down(target, steps, to=options.to, allow_data_loss=options.allow_data_loss)
        case "status":
            return _json(examine.status(target, steps))
        case "plan":
            return _json([asdict(one) for one in examine.plan(target, steps)])
        case "lint":
            return _linted(steps)
    raise MigrationFailed(f"{options.command} is for a bundle with {bundle.COPY}, and {steps.name} has steps of SQL")


def _linted(steps: Bundle) -> str:
    if findings := lint(steps.steps, steps.change):
        raise MigrationFailed("\n".join(str(one) for one in findings))
    return f"{len(steps.steps)} steps, nothing to say against them"


def _run_copy(options: argparse.Namespace, target: Target, job: Job) -> str:
    ways: dict[str, Callable[[], object]] = {
        "up": lambda: copying.up(target, job),
        "down": lambda: settling.down(target, job),
        "status": lambda: _json(settling.standing(target, job)),
        "verify": lambda: _verified(target, job),
        "retry": lambda: copying.retry(target, job),
        "recover": lambda: recover.recover(target, job),
        "pause": lambda: settling.pause(target, job, paused=True),
        "resume": lambda: settling.pause(target, job, paused=False),
        "backup": lambda: snapshots.backup(target, job, options.label),
        "restore": lambda: _restored(options, target, job),
        "prune": lambda: snapshots.prune(target, job),
        "finish": lambda: settling.finish(target, job),
        "lint": lambda: f"{bundle.COPY} of {job.name} can be read",
        "roles": lambda: roles.script(options.database, options.application, (job.copy,), tuple(options.references)),
    }
    if options.command not in ways:
        raise MigrationFailed(f"{options.command} is for a bundle with steps of SQL, and {job.name} has {bundle.COPY}")
    return str(ways[options.command]())


def _verified(target: Target, job: Job) -> str:
    seen = settling.compare(target, job)
    if not seen.agrees:
        raise MigrationFailed(verify.words(seen))
    return verify.words(seen)


def _restored(options: argparse.Namespace, target: Target, job: Job) -> str:
    wanted = snapshots.Wanted(options.label, options.user, options.at, overwrite_newer=options.exact)
    if options.exact and not options.lose_newer and (count := snapshots.newer_rows(target, job, wanted)):
        raise MigrationFailed(f"{count:,} rows were written since the snapshot and would be lost: refused without --lose-newer")
    return "; ".join(str(one) for one in snapshots.restore(target, job, wanted))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2)


if __name__ == "__main__":
    main()
