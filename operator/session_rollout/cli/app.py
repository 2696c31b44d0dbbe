"""All commands of `kubectl sessionrollout`, in the order in which people need them."""

import importlib
from collections.abc import Sequence
from typing import Any, Final

import click

from session_rollout.cli.command import Group, run

# Command or group -> (module, object, help for the list): a module is loaded when its command is called.
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "get": ("status", "get", "List rollouts: where each is and why."),
    "status": ("status", "status", "Show where a rollout is, why, and what would unblock it."),
    "explain": ("status", "explain", "Say why it is there, from the record of its decisions alone."),
    "approve": ("actions", "approve", "Give the yes that a step or a gate waits for."),
    "promote": ("actions", "promote", "Leave the running step now, past its hold and criteria."),
    "pause": ("actions", "pause", "Keep the audience as it is; guards still protect."),
    "resume": ("actions", "resume", "Go on after a pause."),
    "abort": ("actions", "abort", "Roll back now: flags first."),
    "rollback": ("actions", "rollback", "Roll back now; with --workload the application alone."),
    "retry": ("actions", "retry", "Another attempt at what failed or was rolled back."),
    "restart": ("actions", "restart", "Have the Pods of the workload replaced."),
    "flags": ("flags", "flags", "status, who, verify, enable, rollout, emergency-disable, restore"),
    "migrations": ("migrations", "migrations", "status, plan, up, down"),
    "sessions": ("migrations", "sessions", "status, migrate, retry, recover, backup, restore, verify"),
    "verify": ("checks", "verify", "Run the checks of preflight, verification and rollback now."),
    "diagnose": ("checks", "diagnose", "Ask about a topic: memory, performance, database, cache ..."),
    "check-errors": ("checks", "check_errors", "Ask about errors."),
    "history": ("status", "history", "Show what happened and what people asked for."),
    "init": ("manifests", "init", "Write a valid object."),
    "validate": ("manifests", "validate", "Check files as the API server would, and warn of what is unwise."),
    "rehearse": ("manifests", "rehearse", "Play a whole programme on a virtual clock."),
    "diff": ("manifests", "diff", "Show what applying a file would change."),
    "report": ("report", "report", "The scorecard, as Markdown or HTML."),
    "completion": ("completion", "completion", "Print the completion for a shell."),
    "events": ("status", "events", "Show the Kubernetes Events about a rollout."),
}


class App(Group):
    """The root."""

    def list_commands(self, _: click.Context) -> list[str]:
        """All, in order."""
        return list(COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        """Load one."""
        if name not in COMMANDS:
            return None
        module, attribute, _help = COMMANDS[name]
        found: click.Command = getattr(importlib.import_module(f"session_rollout.cli.{module}"), attribute)
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find one; where there is none, name those that were probably meant: the base class knows only loaded ones."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from None

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """The list, without loading anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.command(cls=App, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="session-rollout", prog_name="kubectl sessionrollout")
def app() -> None:
    """Progressive rollouts of feature flags with their database migrations.

    NAME may be left out where a namespace has one rollout. kubectl's own flags (-n, --context, --as, ...) go with every
    command. Exit codes: 0 done, 1 refused, 2 wrong arguments, 3 not found, 4 not allowed, 5 unreachable, 6 no answer in time.
    """


def main(argv: Sequence[str] | None = None) -> Any:
    """Entry point."""
    run(app, argv)


if __name__ == "__main__":
    main()
