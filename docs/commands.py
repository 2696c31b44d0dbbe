"""The page about the plugin's commands, written from click's own definitions."""

from collections.abc import Iterator
from typing import Final

import click

from docs.tables import cell
from session_rollout.cli.app import app
from session_rollout.cli.command import MEANINGS

CLI_INTRODUCTION: Final = """
`kubectl sessionrollout` is a plugin of kubectl. It uses your kubectl with the same authentication, and every command accepts kubectl's
flags: `--namespace`, `--context`, `--kubeconfig`, `--as`, `--server`, `--token` and so on. It changes a rollout only by creating a
SessionRolloutAction, so RBAC, audit logging and GitOps continue to apply.

`NAME` can be omitted if the namespace has exactly one rollout. `-o json` and `-o yaml` print data. Colors are off without a terminal and
with `NO_COLOR`. kubectl completes commands and names with `kubectl_complete-sessionrollout`, which is installed with the plugin.
"""


def cli() -> str:
    """Every command of the plugin with its arguments, options, defaults and help, and the exit codes."""
    codes = [f"| {code.value} | {text} |" for code, text in MEANINGS.items()]
    names = [f"- [`{title}`](#{anchor})" for title, anchor in ((_title(path), _anchor(path)) for path, _ in _commands(app, ()))]
    parts = ["# CLI", CLI_INTRODUCTION.strip(), "## Exit codes", "| code | meaning |\n|---|---|\n" + "\n".join(codes)]
    parts += ["## Commands", "\n".join(names)]
    parts += [part for path, command in _commands(app, ()) for part in _command(path, command)]
    return "\n\n".join(parts) + "\n"


def _commands(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, in the order of the help."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, "it is in the list"
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


def _title(path: tuple[str, ...]) -> str:
    return " ".join(path)


def _anchor(path: tuple[str, ...]) -> str:
    return "-".join(path)


def _command(path: tuple[str, ...], command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=f"kubectl sessionrollout {_title(path)}")
    yield f"### {_title(path)}"
    yield f"```\n{' '.join(command.collect_usage_pieces(context)).join((f'{context.command_path} ', ''))}\n```"
    yield "\n\n".join(" ".join(paragraph.split()) for paragraph in (command.help or "").split("\n\n"))
    shown = [option for option in command.params if isinstance(option, click.Option) and not _of_kubectl(option)]
    if shown:
        rows = [_option(option, context) for option in shown]
        yield "| option | default | meaning |\n|---|---|---|\n" + "\n".join(rows)


def _of_kubectl(option: click.Option) -> bool:
    return option.hidden or (option.name or "").startswith("kubectl_")


def _option(option: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in sorted(option.opts, key=len))
    value = "" if option.is_flag else f" `{option.make_metavar(context)}`"
    default = f"`{option.default}`" if isinstance(option.default, str | int) and option.default and not option.is_flag else ""
    text = "required" if option.required else option.show_default if isinstance(option.show_default, str) else default
    return f"| {names}{cell(value)} | {text} | {cell(option.help or '')} |"
