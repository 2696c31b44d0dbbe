"""Completion of `kubectl sessionrollout`: kubectl runs `kubectl_complete-sessionrollout`, which is installed with the plugin."""

import sys
from typing import Final

import click
from click.shell_completion import ShellComplete

from session_rollout.cli.app import app
from session_rollout.cli.command import PROGRAM

NO_FILES: Final = ":4"  # kubectl's ShellCompDirectiveNoFileComp
FILES: Final = ":0"


def main() -> None:
    """Take the words so far as arguments; print one candidate a line, and whether file names may be completed."""
    *words, incomplete = sys.argv[1:] or [""]
    candidates = ShellComplete(app, {}, PROGRAM, "").get_completions(words, incomplete)
    for candidate in candidates:
        if candidate.type == "plain":
            click.echo(f"{candidate.value}\t{candidate.help}" if candidate.help else candidate.value)
    click.echo(FILES if any(candidate.type in {"file", "dir"} for candidate in candidates) else NO_FILES)
