"""What all commands share: the flags of kubectl, the exit codes, and one sentence for each error."""

import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final

import click

from session_rollout.adapters.kubectl import FailureKind, Kubectl, KubectlFailed
from session_rollout.errors import RolloutError

PROGRAM: Final = "kubectl sessionrollout"


class Exit(IntEnum):
    """Exit codes. One meaning each, whatever the command; `MEANINGS` explains them in the help and in the reference."""

    DONE = 0
    REFUSED = 1
    STALLED = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    UNREACHABLE = 5
    USAGE = 64
    TIMEOUT = 124
    INTERRUPTED = 130


MEANINGS: Final[Mapping[Exit, str]] = {
    Exit.DONE: "Success. For `status --watch` and `wait`: the rollout has the expected state, by default Promoted.",
    Exit.REFUSED: "The operator rejected the action, a check failed, a file is invalid, or `diff` found a difference."
    " For `status --watch`, `wait` and `promote --full`: the rollout ended in RolledBack or Aborted.",
    Exit.STALLED: "The rollout is Stalled: it cannot continue by itself, or a deadline was exceeded. Only `status --watch`, `wait`"
    " and `promote --full`.",
    Exit.NOT_FOUND: "The object does not exist, or the CRDs are not installed.",
    Exit.NOT_ALLOWED: "Not allowed, or not logged in. The message names the verb and the resource.",
    Exit.UNREACHABLE: "The API server does not respond.",
    Exit.USAGE: "Wrong arguments, or a kubeconfig that cannot be used (EX_USAGE of sysexits.h).",
    Exit.TIMEOUT: "The command timed out (as with timeout(1)). An action that it created remains, and the operator will respond to it.",
    Exit.INTERRUPTED: "Interrupted with Ctrl-C.",
}

_CODES: Final[Mapping[FailureKind, Exit]] = {
    FailureKind.NOT_FOUND: Exit.NOT_FOUND,
    FailureKind.NOT_INSTALLED: Exit.NOT_FOUND,
    FailureKind.FORBIDDEN: Exit.NOT_ALLOWED,
    FailureKind.UNAUTHORIZED: Exit.NOT_ALLOWED,
    FailureKind.UNREACHABLE: Exit.UNREACHABLE,
    FailureKind.CONFIGURATION: Exit.USAGE,
    FailureKind.INVALID: Exit.REFUSED,
    FailureKind.OTHER: Exit.REFUSED,
}


class Failure(RolloutError):
    """Ends a command with one sentence and an exit code."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code


def refusal(message: str) -> Failure:
    """An error with exit code 1."""
    return Failure(Exit.REFUSED, message)


def usage_error(message: str) -> Failure:
    """An error for wrong or contradictory arguments."""
    return Failure(Exit.USAGE, message)


# kubectl's own flags: every command accepts them and passes them on.
_SHOWN: Final = {"namespace", "context", "kubeconfig", "as"}
INSECURE: Final = "--insecure-skip-tls-verify"
_FLAGS: Final[tuple[tuple[tuple[str, ...], str, str], ...]] = (
    (("--namespace", "-n"), "Use this namespace.", "the namespace of the context"),
    (("--context",), "Use this context of the kubeconfig.", "the current context"),
    (("--kubeconfig",), "Read this kubeconfig.", "as kubectl finds it"),
    (("--as",), "Impersonate this Kubernetes user.", ""),
    (("--as-group",), "Impersonate this group of Kubernetes users. Can be repeated.", ""),
    (("--as-uid",), "Impersonate this UID.", ""),
    (("--cluster",), "Use this cluster of the kubeconfig.", ""),
    (("--user",), "Use this user of the kubeconfig.", ""),
    (("--server", "-s"), "Use the API server at this address.", ""),
    (("--token",), "Authenticate with this bearer token.", ""),
    (("--certificate-authority",), "Trust this CA certificate.", ""),
    (("--client-certificate",), "Authenticate with this client certificate.", ""),
    (("--client-key",), "Use this client key.", ""),
    (("--tls-server-name",), "Expect this name in the certificate of the server.", ""),
    (("--request-timeout",), "Give up on a single request after this time.", ""),
)


def _options() -> list[click.Option]:
    options = [
        click.Option(
            (*names, _parameter(names[0])),
            help=text,
            show_default=default or None,
            hidden=names[0].removeprefix("--") not in _SHOWN,
            multiple=names[0] == "--as-group",
        )
        for names, text, default in _FLAGS
    ]
    return [*options, click.Option((INSECURE, _parameter(INSECURE)), is_flag=True, hidden=True)]


def _parameter(flag: str) -> str:
    """Name of the parameter behind a flag of kubectl, distinct from the command's own."""
    return f"kubectl_{flag.removeprefix('--').replace('-', '_')}"


class Command(click.Command):
    """A command that uses a cluster: its context object is a Kubectl with the flags that were given."""

    def __init__(self, *arguments: Any, **fields: Any) -> None:
        super().__init__(*arguments, **fields)
        self.params = [*self.params, *_options()]

    def invoke(self, ctx: click.Context) -> Any:
        """Take kubectl's flags out of the arguments."""
        flags: list[str] = []
        for names, _, _ in _FLAGS:
            value = ctx.params.pop(_parameter(names[0]))
            values = value if isinstance(value, tuple) else (value,) if value is not None else ()
            flags += [f"{names[0]}={text}" for text in values]
        if ctx.params.pop(_parameter(INSECURE)):
            flags.append(INSECURE)
        ctx.obj = kubectl = Kubectl(tuple(flags))
        try:
            return super().invoke(ctx)
        finally:
            kubectl.end()


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type

    def list_commands(self, _: click.Context) -> list[str]:
        """In the order in which they were added: the most used come first."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Print the first sentence of each command's help in full."""
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        with formatter.section("Commands"):
            formatter.write_dl([(name, first_sentence(command)) for name, command in commands if command is not None])


def first_sentence(command: click.Command) -> str:
    """What a command does, for lists of commands."""
    paragraph = " ".join((command.help or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.) ", paragraph, maxsplit=1)[0]


def output(*, wide: bool = False) -> Callable[[Any], Any]:
    """The option --output."""
    kinds = ["json", "yaml", *(["wide"] if wide else [])]
    return click.option("-o", "--output", "form", type=click.Choice(kinds), help="Print data in this format instead of text.")


def page_output(text: str) -> Callable[[Any], Any]:
    """The option --output of a command that can also print a page."""
    kinds = click.Choice(["text", "json", "html"])
    return click.option("-o", "--output", "form", type=kinds, default="text", show_default=True, help=text)


def emit(data: Any, form: str) -> None:
    """Print data as JSON or YAML."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    if form == "yaml":
        import yaml

        plain = json.loads(text)  # yaml does not represent enums
        text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120).removesuffix("\n")
    click.echo(text)


def run(group: click.Group, argv: Sequence[str] | None = None) -> None:
    """Run a command line and end the process. No error of a user or a server is shown as a traceback.

    What the output cannot encode is written as an escape, which in JSON is the same text: half of a surrogate pair from a
    flag document or a file name, or a check mark where the encoding of the locale has none.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(code_of(group, argv))


def code_of(group: click.Group, argv: Sequence[str] | None = None) -> int:
    """Run a command line; its exit code."""
    try:
        result = group.main(args=list(argv) if argv is not None else None, prog_name=PROGRAM, standalone_mode=False)
        return int(result) if isinstance(result, int) else Exit.DONE
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return Exit.USAGE
    except click.UsageError as error:
        where = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
        return _print_error(" ".join(error.format_message().split()) + where, Exit.USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo(err=True)
        return Exit.INTERRUPTED
    except click.ClickException as error:
        return _print_error(error.format_message(), Exit.USAGE)
    except RolloutError as error:
        return _print_error(str(error), _code_for(error))
    except BrokenPipeError:
        sys.stderr.close()  # otherwise Python reports the same error again at exit
        return Exit.DONE


def _code_for(error: RolloutError) -> Exit:
    match error:
        case Failure():
            return error.code
        case KubectlFailed():
            return _CODES[error.kind]
    return Exit.REFUSED


def _print_error(message: str, code: Exit) -> int:
    click.echo(f"{PROGRAM}: {message}", err=True)
    return code
