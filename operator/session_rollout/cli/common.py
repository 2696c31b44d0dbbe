"""What several commands share: arguments, reading a rollout as a model, times and durations on the command line."""

import copy
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from session_rollout.adapters.kubectl import ROLLOUT_RESOURCE, Call, Kubectl, KubectlFailed
from session_rollout.cli.command import Exit, Failure, refusal, usage_error
from session_rollout.cli.operator_lease import OperatorLease
from session_rollout.records.codec import RECORD_LABEL

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

    from session_rollout.api.rollout import SessionRollout

    AnyModel = TypeVar("AnyModel", bound=BaseModel)

NAMES_SHOWN: Final = 8
WIDEST: Final = 10**6  # columns of a table that is not for a terminal
pass_kubectl = click.pass_obj


# --- arguments


def _complete_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Rollouts of the namespace; none if they cannot be listed, since completion must not print errors."""
    namespace = ctx.params.get("kubectl_namespace")
    try:
        items = Kubectl((f"--namespace={namespace}",) if namespace else ()).list(ROLLOUT_RESOURCE).items()
    except KubectlFailed:
        return []
    return [name for item in items if (name := str(item["metadata"]["name"])).startswith(incomplete)]


class DurationType(click.ParamType[timedelta]):
    """A duration such as `90s`, `10m` or `1h30m`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Parse it; an error names the option."""
        if isinstance(value, timedelta):
            return value
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class TimeType(click.ParamType[datetime]):
    """A time: ISO 8601, a time of today, or `10m ago`."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse it; an error names the option."""
        if isinstance(value, datetime):
            return value
        try:
            return parse_time(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


FIRST_YEAR, LAST_YEAR = 1970, 9000  # arithmetic with the longest rollout stays within what datetime can hold
ANY_FILE: Final = click.Path(allow_dash=True)  # for completion; a file that cannot be read is reported when it is read
NAME = click.argument("name", required=False, shell_complete=_complete_names)
ROLLOUT = click.option(
    "--in",
    "name",
    metavar="NAME",
    shell_complete=_complete_names,
    help="Use this rollout.",
    show_default="the only one in the namespace",
)


def timeout_option(text: str, default: str | None = None) -> Callable[[Any], Any]:
    """The option --timeout."""
    shown = True if default else "no limit"
    return click.option("--timeout", type=DurationType(), default=default, show_default=shown, help=text)


def parse_duration(text: str) -> timedelta:
    """A duration of the API. Raises ValueError with what is allowed."""
    from session_rollout.api.quantities import DURATION_PATTERN, LONGEST, duration

    if not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError(f"{text!r} is not a duration; use numbers with ms, s, m, h, d or w, such as 90s, 10m or 1h30m")
    length = duration(text)
    if length > duration(LONGEST):
        raise ValueError(f"{text!r} is too long; the maximum is {LONGEST}")
    return length


def parse_time(text: str) -> datetime:
    """A time, in UTC unless it has an offset. Raises ValueError with what is allowed."""
    now, text = datetime.now(UTC), text.strip()
    try:
        if text.endswith(" ago"):
            return now - parse_duration(text.removesuffix(" ago").strip())
        if clock := re.fullmatch(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", text):
            hour, minute, second = (int(part or 0) for part in clock.groups())
            return now.replace(hour=hour, minute=minute, second=second, microsecond=999_999)
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time; use 2026-11-24T14:02, 14:02 (today) or '10m ago'") from error
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValueError(f"{text!r} is not in the years {FIRST_YEAR} to {LAST_YEAR}")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


# --- reading


def rollout_name(kubectl: Kubectl, name: str | None) -> str:
    """The name that was given, or that of the only rollout in the namespace."""
    return name if name is not None else str(_only_item(kubectl)["metadata"]["name"])


def read_rollout(kubectl: Kubectl, name: str | None) -> "SessionRollout":
    """The rollout of that name, or the only one in the namespace. Says first if no operator takes care of it."""
    with OperatorLease(kubectl):
        raw = kubectl.get(ROLLOUT_RESOURCE, name).json() if name is not None else _only_item(kubectl)
    return rollout_of(raw)


def _only_item(kubectl: Kubectl) -> dict[str, Any]:
    items = kubectl.list(ROLLOUT_RESOURCE).items()
    if not items:
        raise Failure(Exit.NOT_FOUND, "no SessionRollout found in this namespace; choose another namespace with -n")
    if len(items) > 1:
        names = sorted(item["metadata"]["name"] for item in items)
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        raise usage_error(f"{_selector()}, because there are several SessionRollouts: {', '.join(names[:NAMES_SHOWN])}{more}")
    return items[0]


def _selector() -> str:
    """How the running command selects a rollout: commands whose arguments are not rollouts have the option --in."""
    context = click.get_current_context(silent=True)
    parameters = context.command.params if context is not None else []
    has_option = any("--in" in parameter.opts for parameter in parameters)
    return "use --in NAME" if has_option else "NAME is required"


def rollout_of(raw: Mapping[str, Any]) -> "SessionRollout":
    """The object as a model. Raises Failure if this version of the plugin cannot read it."""
    from session_rollout.api.rollout import RolloutSpec, SessionRollout
    from session_rollout.api.status import RolloutStatus

    metadata = raw["metadata"]
    return SessionRollout(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata["generation"],
        spec=tolerant(RolloutSpec, raw["spec"], f"the spec of {metadata['name']}"),
        status=tolerant(RolloutStatus, printable(raw.get("status", {})), f"the status of {metadata['name']}"),
    )


def printable(node: Any) -> Any:
    """The data without control characters: whoever may create an action must not write to the terminal of others."""
    match node:
        case dict():
            return {key: printable(value) for key, value in node.items()}
        case list():
            return [printable(value) for value in node]
        case str():
            return "".join(" " if unicodedata.category(character) == "Cc" else character for character in node)
    return node


def tolerant(model: "type[AnyModel]", data: Mapping[str, Any], what: str) -> "AnyModel":
    """A model from data that may have fields of a newer version, so that an older plugin can still roll back a rollout.

    Raises Failure when something else is wrong with it.
    """
    from pydantic import ValidationError

    from session_rollout.api.parsing import sentence

    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = error.errors(include_url=False)
    known: Any = copy.deepcopy(data)
    for problem in problems:
        if problem["type"] == "extra_forbidden":
            _delete(known, problem["loc"])
    try:
        return model.model_validate(known)
    except ValidationError as error:
        raise refusal(f"this version of the plugin cannot read {what}: {sentence(error)}") from error


def _delete(node: Any, path: Sequence[str | int]) -> None:
    for part in path[:-1]:
        node = node[part]
    del node[path[-1]]


def start_reading_records(kubectl: Kubectl, name: str) -> Call:
    """Start to fetch the decision records of a rollout; the output is read later."""
    return kubectl.list("configmaps", "-l", f"{RECORD_LABEL}={name}")


def trends_of(records: Call) -> Mapping[str, Sequence[Decimal]]:
    """Past values of each metric; none if the records cannot be read."""
    from session_rollout.records.reader import trends

    try:
        return trends(records.items())
    except KubectlFailed:
        return {}


# --- text


def terminal() -> "Console":
    """Where text goes: colored on a terminal, plain elsewhere."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, markup=False)


def print_table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Rows under titles, as kubectl prints them. On a terminal long cells wrap; elsewhere each row is on one line."""
    from rich.table import Table

    console = terminal()
    table = Table(box=None, pad_edge=False, header_style="")
    for title in titles:
        table.add_column(title, overflow="fold", no_wrap=not console.is_terminal)
    for row in rows:
        table.add_row(*row)
    if not console.is_terminal:
        console.width = max(console.width, console.measure(table, options=console.options.update(width=WIDEST)).maximum)
    console.print(table)


def counted(count: int, noun: str) -> str:
    """`1 error`, `2 errors`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(names: Iterator[str] | Sequence[str]) -> str:
    """Names separated by commas, or `none`."""
    return ", ".join(names) or "none"
