"""All commands of `kubectl sessionrollout`, in the order of the help."""

import importlib
from collections.abc import Sequence
from typing import Any, Final

import click

from session_rollout.cli.command import Group, run

# Command or group -> (module, object, help for the list). A module is imported when its command is called.
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "get": ("status", "get", "List rollouts with state, phase, step, audience and message."),
    "status": ("status", "status", "Show the state of a rollout, its reason, and what comes next."),
    "wait": ("wait", "wait", "Wait until a rollout has a state, by default Promoted."),
    "explain": ("explain", "explain", "Replay a decision from its recorded inputs."),
    "history": ("history", "history", "Show past decisions and actions."),
    "events": ("history", "events", "Show the Kubernetes Events of a rollout."),
    "report": ("report", "report", "Print a report as Markdown or HTML."),
    "approve": ("actions", "approve", "Approve the step or gate that is waiting."),
    "promote": ("actions", "promote", "Complete the current step without waiting for its hold, criteria or approval."),
    "pause": ("actions", "pause", "Keep the current audience; guards remain active."),
    "resume": ("actions", "resume", "Resume a paused rollout."),
    "abort": ("actions", "abort", "Roll back now, starting with the flags."),
    "rollback": ("actions", "rollback", "Roll back now, or roll back only the workload."),
    "retry": ("actions", "retry", "Retry a rolled-back phase, a failed migration or the failed Job of a gate."),
    "adopt": ("actions", "adopt", "Resume from the flag document in the cluster, when it gives more than the status knows."),
    "reset": ("actions", "reset", "Start from the beginning in spite of the flag document in the cluster."),
    "restart": ("actions", "restart", "Restart the workload."),
    "flags": ("flags", "flags", "Show, verify, advance and turn off feature flags."),
    "migrations": ("migrations", "migrations", "Show, plan, retry and undo migrations."),
    "data": ("data", "data", "Show, retry, repair, back up and restore copied rows."),
    "verify": ("checks", "verify", "Run the gates of a rollout now."),
    "diagnose": ("checks", "diagnose", "Run the queries of a diagnostics topic, such as memory."),
    "check-errors": ("checks", "check_errors", "Show guards and criteria, and diagnose errors."),
    "init": ("manifests", "init", "Write a valid SessionRollout."),
    "validate": ("validate", "validate", "Check files as the API server would, and warn about probable mistakes."),
    "rehearse": ("rehearse", "rehearse", "Simulate a whole rollout on a virtual clock."),
    "backtest": ("backtest", "backtest", "Say how often guards would have ended a rollout in the past."),
    "power": ("power", "power", "Say what the comparisons of a rollout would see."),
    "diff": ("manifests", "diff", "Show what applying a file would change."),
}


class App(Group):
    """The root group."""

    def list_commands(self, _: click.Context) -> list[str]:
        """All commands, in order."""
        return list(COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        """Import the module of a command."""
        if name not in COMMANDS:
            return None
        module, attribute, _help = COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(f"session_rollout.cli.{module}"), attribute)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command; suggest similar names from the whole list, since the base class knows only imported ones."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from None

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Print the list without importing any module."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.command(cls=App, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="session-rollout", prog_name="kubectl sessionrollout")
def app() -> None:
    """Observe and control progressive rollouts of feature flags and their database migrations.

    NAME can be omitted if the namespace has exactly one rollout. Every command accepts kubectl's flags (-n, --context,
    --as, ...).

    Exit codes: 0 success; 1 rejected, a check failed, or the rollout was rolled back; 2 stalled; 3 not found; 4 not allowed;
    5 API server unreachable; 64 wrong arguments; 124 timeout.
    """


def main(argv: Sequence[str] | None = None) -> Any:
    """Entry point."""
    run(app, argv)


if __name__ == "__main__":
    main()
