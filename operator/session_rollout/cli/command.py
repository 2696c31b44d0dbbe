"""What all commands share: kubectl's flags, the exit codes, and one sentence for whatever goes wrong.

Exit codes: 0 done; 1 refused, or a check says no; 2 wrong arguments; 3 there is no such object; 4 not allowed;
5 the API server does not answer; 6 no answer in time.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final

import click

from session_rollout.adapters.kubectl import Kind, Kubectl, KubectlFailed
from session_rollout.errors import RolloutError

PROGRAM: Final = "kubectl sessionrollout"
COMPLETE: Final = "_SRO_COMPLETE"  # what a shell sets to ask for completions of `sro`


class Exit(IntEnum):
    """Exit codes; documented for scripts, never renumbered."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    UNREACHABLE = 5
    TIMEOUT = 6


_OF_KIND: Final[Mapping[Kind, Exit]] = {
    Kind.NOT_FOUND: Exit.NOT_FOUND,
    Kind.NOT_INSTALLED: Exit.NOT_FOUND,
    Kind.FORBIDDEN: Exit.NOT_ALLOWED,
    Kind.UNAUTHORIZED: Exit.NOT_ALLOWED,
    Kind.UNREACHABLE: Exit.UNREACHABLE,
    Kind.CONFIGURATION: Exit.USAGE,
    Kind.INVALID: Exit.REFUSED,
    Kind.OTHER: Exit.REFUSED,
}


class Failure(RolloutError):
    """Ends a command with one sentence and an exit code."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code


def refusal(message: str) -> Failure:
    """The answer is no."""
    return Failure(Exit.REFUSED, message)


def wrong(message: str) -> Failure:
    """The arguments do not fit together."""
    return Failure(Exit.USAGE, message)


# kubectl's own flags, which every command takes and hands on.
_SHOWN: Final = {"namespace", "context", "kubeconfig", "as"}
INSECURE: Final = "--insecure-skip-tls-verify"
_FLAGS: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (("--namespace", "-n"), "Namespace (default: the context's)."),
    (("--context",), "Context of the kubeconfig."),
    (("--kubeconfig",), "Path of the kubeconfig."),
    (("--as",), "User to act as."),
    (("--as-group",), "Group to act as."),
    (("--as-uid",), "UID to act as."),
    (("--cluster",), "Cluster of the kubeconfig."),
    (("--user",), "User of the kubeconfig."),
    (("--server", "-s"), "Address of the API server."),
    (("--token",), "Bearer token."),
    (("--certificate-authority",), "CA of the API server."),
    (("--client-certificate",), "Client certificate."),
    (("--client-key",), "Client key."),
    (("--tls-server-name",), "Server name to check."),
    (("--request-timeout",), "Longest wait for one request."),
)


def _options() -> list[click.Option]:
    made = [
        click.Option(
            (*names, _parameter(names[0])),
            help=text,
            hidden=names[0].removeprefix("--") not in _SHOWN,
            multiple=names[0] == "--as-group",
        )
        for names, text in _FLAGS
    ]
    return [*made, click.Option((INSECURE, _parameter(INSECURE)), is_flag=True, hidden=True)]


def _parameter(flag: str) -> str:
    """Name of the parameter behind a flag of kubectl's, apart from our own."""
    return f"kubectl_{flag.removeprefix('--').replace('-', '_')}"


class Command(click.Command):
    """A command that speaks to a cluster: its context has a Kubectl with the flags that were given."""

    def __init__(self, *arguments: Any, **fields: Any) -> None:
        super().__init__(*arguments, **fields)
        self.params = [*self.params, *_options()]

    def invoke(self, ctx: click.Context) -> Any:
        """Take kubectl's flags out of the arguments."""
        flags: list[str] = []
        for names, _ in _FLAGS:
            value = ctx.params.pop(_parameter(names[0]))
            values = value if isinstance(value, tuple) else (value,) if value is not None else ()
            flags += [f"{names[0]}={one}" for one in values]
        if ctx.params.pop(_parameter(INSECURE)):
            flags.append(INSECURE)
        ctx.obj = Kubectl(tuple(flags))
        return super().invoke(ctx)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type

    def list_commands(self, _: click.Context) -> list[str]:
        """In the order in which they were added: what people need first comes first."""
        return list(self.commands)


def output(*, wide: bool = False) -> Callable[[Any], Any]:
    """The option -o."""
    kinds = ["json", "yaml", *(["wide"] if wide else [])]
    return click.option("-o", "--output", "form", type=click.Choice(kinds), help="Print data instead of words.")


def emit(data: Any, form: str) -> None:
    """Print data as JSON or YAML."""
    if form == "yaml":
        import yaml

        click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120), nl=False)
        return
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def run(group: click.Group, argv: Sequence[str] | None = None) -> None:
    """Run a command line; ends the process. Nothing a person can cause is a traceback."""
    sys.exit(code_of(group, argv))


def code_of(group: click.Group, argv: Sequence[str] | None = None) -> int:
    """Run a command line; its exit code."""
    try:
        result = group.main(
            args=list(argv) if argv is not None else None, prog_name=PROGRAM, complete_var=COMPLETE, standalone_mode=False
        )
        return int(result) if isinstance(result, int) else Exit.DONE
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return Exit.USAGE
    except click.UsageError as error:
        where = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
        return _say(" ".join(error.format_message().split()) + where, Exit.USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo(err=True)
        return 130
    except click.ClickException as error:
        return _say(error.format_message(), Exit.USAGE)
    except Failure as error:
        return _say(str(error), error.code)
    except KubectlFailed as error:
        return _say(str(error), _OF_KIND[error.kind])
    except RolloutError as error:
        return _say(str(error), Exit.REFUSED)
    except BrokenPipeError:
        sys.stderr.close()  # or Python says so once more while it ends
        return Exit.DONE


def _say(message: str, code: Exit) -> int:
    click.echo(f"{PROGRAM}: {message}", err=True)
    return code
