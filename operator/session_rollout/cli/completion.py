"""Completion in shells: for `kubectl sessionrollout` through the program that kubectl asks, for `sro` through the shell's own way."""

import sys
from typing import Final

import click
from click.shell_completion import ShellComplete, get_completion_class

from session_rollout.cli.app import app
from session_rollout.cli.command import COMPLETE

NO_FILES: Final = ":4"  # kubectl's ShellCompDirectiveNoFileComp
FILES: Final = ":0"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion of `sro` for a shell: add `source <(sro completion bash)` to its profile.

    `kubectl sessionrollout` needs nothing: kubectl asks `kubectl_complete-sessionrollout`, which is installed beside it.
    """
    found = get_completion_class(shell)
    assert found is not None, "click knows these shells"
    click.echo(found(app, {}, "sro", COMPLETE).source())


def main() -> None:
    """What kubectl asks: the words so far as arguments; the answers as lines, and how to treat them."""
    *words, incomplete = sys.argv[1:] or [""]
    found = ShellComplete(app, {}, "kubectl sessionrollout", "").get_completions(words, incomplete)
    for one in found:
        if one.type == "plain":
            click.echo(f"{one.value}\t{one.help}" if one.help else one.value)
    click.echo(FILES if any(one.type in {"file", "dir"} for one in found) else NO_FILES)
