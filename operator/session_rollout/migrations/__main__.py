"""`session-rollout-migrate up|down`: the program of a migration Job. Reports in the termination log, as JSON."""

import argparse
import json
import sys
from pathlib import Path

from session_rollout.api.quantities import duration
from session_rollout.migrations.bundle import BundleError, load, shipped
from session_rollout.migrations.runner import Limits, MigrationFailed, Result, down, up

MESSAGE_BYTES = 1024


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="session-rollout-migrate", description="Apply or undo a bundle of SQL exactly once.")
    parser.add_argument("direction", choices=["up", "down"])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--bundle", help="a bundle shipped with this image, such as session-persistence/schema")
    source.add_argument("--directory", type=Path, help="a directory with NNNN_name.up.sql and .down.sql")
    parser.add_argument("--name", help="name in the ledger (default: the bundle)")
    parser.add_argument("--dsn-file", type=Path, required=True, help="file that holds the connection string")
    parser.add_argument("--lock-timeout", default="2s")
    parser.add_argument("--lock-deadline", default="15m")
    parser.add_argument("--statement-timeout", default="10m")
    parser.add_argument("--termination-log", type=Path)
    return parser.parse_args(argv)


def run(options: argparse.Namespace) -> Result:
    """Do it. Raises BundleError or MigrationFailed."""
    steps = load(shipped(options.bundle) if options.bundle else options.directory)
    limits = Limits(
        lock_timeout=duration(options.lock_timeout),
        lock_deadline=duration(options.lock_deadline),
        statement_timeout=duration(options.statement_timeout),
    )
    try:
        dsn = options.dsn_file.read_text().strip()
    except OSError as error:
        raise MigrationFailed(f"the connection string cannot be read: {error.strerror}") from error
    move = up if options.direction == "up" else down
    return move(dsn, options.name or options.bundle, steps, limits)


def main() -> None:
    """Entry point; exit 0 when done, 1 when it failed."""
    options = arguments()
    try:
        result = run(options)
    except (BundleError, MigrationFailed) as error:
        _report(options.termination_log, {"message": str(error)[:MESSAGE_BYTES]})
        sys.exit(f"session-rollout-migrate: {error}")
    _report(options.termination_log, {"message": result.message, "checksum": result.checksum})
    print(result.message)


def _report(path: Path | None, words: dict[str, str]) -> None:
    if path is not None:
        path.write_text(json.dumps(words))


if __name__ == "__main__":
    main()
