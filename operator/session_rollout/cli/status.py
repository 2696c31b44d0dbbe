"""Looking: get, status (also live), history, events, explain."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import click

from session_rollout.adapters.kubectl import ROLLOUTS, Kubectl, KubectlFailed
from session_rollout.cli.command import Command, Exit, Failure, emit, output, refusal, wrong
from session_rollout.cli.common import start_reading_records
from session_rollout.records import reader

REFRESH_SECONDS: Final = 1.0
ENDINGS: Final = ("Promoted", "RolledBack", "Aborted")


def _names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Rollouts of the namespace, for a shell that completes; nothing where they cannot be asked for."""
    namespace = ctx.params.get("kubectl_namespace")
    try:
        items = Kubectl((f"--namespace={namespace}",) if namespace else ()).list(ROLLOUTS).items()
    except KubectlFailed:
        return []
    return [name for item in items if (name := str(item["metadata"]["name"])).startswith(incomplete)]


NAME = click.argument("name", required=False, shell_complete=_names)
ROLLOUT = click.option(
    "--in", "name", metavar="NAME", shell_complete=_names, help="The rollout (default: the only one in the namespace)."
)
pass_kubectl = click.pass_obj


def the_only(kubectl: Kubectl, name: str | None) -> str:
    """The name, or that of the only rollout in the namespace."""
    if name is not None:
        return name
    found = [item["metadata"]["name"] for item in kubectl.list(ROLLOUTS).items()]
    if len(found) == 1:
        return str(found[0])
    if not found:
        raise Failure(Exit.NOT_FOUND, "there is no SessionRollout in this namespace; name another with -n")
    raise wrong(f"NAME is missing, and there are several SessionRollouts: {', '.join(sorted(found)[:8])}")


@click.command("get", cls=Command)
@click.argument("names", nargs=-1)
@click.option("-A", "--all-namespaces", is_flag=True, help="In all namespaces.")
@output(wide=True)
@pass_kubectl
def get(kubectl: Kubectl, names: tuple[str, ...], *, all_namespaces: bool, form: str | None) -> None:
    """List rollouts: where each is and why."""
    argv = [*names, *(["-A"] if all_namespaces else []), *(["-o", form] if form else [])]
    click.echo(kubectl.ask("get", ROLLOUTS, *argv).text(), nl=False)


@click.command("status", cls=Command)
@NAME
@click.option("-w", "--watch", is_flag=True, help="Stay, and follow every change; ends with the rollout.")
@output()
@pass_kubectl
def status(kubectl: Kubectl, name: str | None, *, watch: bool, form: str | None) -> None:
    """Show where a rollout is, why, and what would unblock it.

    Phases with their steps, checks with value, trend, bound and baseline, migrations with their progress, flags.
    """
    if watch and form:
        raise wrong("--watch draws a picture, and --output prints data: give one of them")
    name = the_only(kubectl, name)
    if form:
        emit(kubectl.get(ROLLOUTS, name).json(), form)
    elif watch:
        _watch(kubectl, name, terminal())
    else:
        _draw_once(kubectl, name)


def _draw_once(kubectl: Kubectl, name: str) -> None:

    asked, kept = kubectl.get(ROLLOUTS, name), start_reading_records(kubectl, name)
    from session_rollout.cli.render.status import draw  # while kubectl asks

    raw = asked.json()
    terminal().print(draw(rollout_of(raw), datetime.now(UTC), trends_of(kept)))


def terminal() -> Any:
    """Where words go: coloured on a terminal, plain elsewhere, 80 columns where nobody says how many."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, markup=False)


def rollout_of(raw: dict[str, Any]) -> Any:
    """The object as a model; one sentence when this version cannot read it."""
    from pydantic import ValidationError

    from session_rollout.api.parsing import rollout_of as read
    from session_rollout.api.parsing import sentence

    try:
        return read(raw)
    except ValidationError as error:
        raise refusal(f"{raw['metadata']['name']} cannot be read by this version: {sentence(error)}") from error


def trends_of(kept: Any) -> Any:
    """Past values; none where the records may not be read."""
    from session_rollout.records.reader import trends

    try:
        return trends(kept.items())
    except KubectlFailed:
        return {}


def _watch(kubectl: Kubectl, name: str, console: Any) -> None:
    """Draw anew on every change and every second, until the rollout has ended; where there is no terminal, on every change."""
    import queue
    import threading

    from rich.live import Live

    from session_rollout.cli.render.status import draw

    changes: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_follow, args=(kubectl, name, changes.put), daemon=True).start()
    raw, trends = kubectl.get(ROLLOUTS, name).json(), trends_of(start_reading_records(kubectl, name))
    with Live(console=console, auto_refresh=False, transient=True) as live:
        drawn = None
        while True:
            picture = draw(rollout_of(raw), datetime.now(UTC), trends)
            if console.is_terminal:
                live.update(picture, refresh=True)
            elif raw is not drawn:
                console.print(picture, "")
            drawn = raw
            if raw.get("status", {}).get("outcome") in ENDINGS:
                break
            for change in _changes(changes):
                if isinstance(change, Exception):
                    raise change
                raw = change
                trends = trends_of(start_reading_records(kubectl, name))
    if console.is_terminal:
        console.print(picture)


def _follow(kubectl: Kubectl, name: str, put: Callable[[Any], None]) -> None:
    try:
        for event in kubectl.watch(ROLLOUTS, name):
            if event["type"] == "DELETED":
                put(Failure(Exit.NOT_FOUND, f"{name} was deleted"))
                return
            put(event["object"])
        put(Failure(Exit.UNREACHABLE, "the API server ended the watch"))
    except Exception as error:  # noqa: BLE001 - it is raised again in the main thread
        put(error)


def _changes(changes: Any) -> Iterator[Any]:
    """What came within a second; the newest of several objects."""
    import queue

    try:
        newest = changes.get(timeout=REFRESH_SECONDS)
        while not changes.empty() and not isinstance(newest, Exception):
            newest = changes.get_nowait()
    except queue.Empty:
        return
    yield newest


@click.command("history", cls=Command)
@NAME
@output()
@pass_kubectl
def history(kubectl: Kubectl, name: str | None, form: str | None) -> None:
    """Show what happened, oldest first: the story that status keeps, and what people asked for."""
    from session_rollout.adapters.kubectl import ACTIONS

    name = the_only(kubectl, name)
    asked, actions = kubectl.get(ROLLOUTS, name), kubectl.list(ACTIONS)
    told = [
        {
            "time": one["time"],
            "event": one["event"],
            "where": _where(one),
            "by": one.get("by", ""),
            "message": one.get("message", ""),
        }
        for one in asked.json().get("status", {}).get("history", [])
    ]
    told += [_of_action(one) for one in actions.items() if one["spec"]["rollout"] == name and _untold(one, told)]
    told.sort(key=lambda one: str(one["time"]))
    if form:
        emit(told, form)
        return
    console = terminal()
    for one in told:
        by = f" (by {one['by']})" if one["by"] else ""
        hang(console, one["time"][:19].replace("T", " "), f"{one['event']}{one['where']}: {one['because']}{by}")


def hang(console: Any, first: str, rest: str) -> None:
    """A line whose rest keeps to the right of its beginning where a terminal makes it wrap; one line elsewhere."""
    from rich.table import Table

    if not console.is_terminal:
        console.print(f"{first}  {rest}", soft_wrap=True)
        return
    line = Table.grid(padding=(0, 2))
    line.add_column(no_wrap=True)
    line.add_row(first, rest)
    console.print(line)


def _where(entry: dict[str, Any]) -> str:
    step = f" step {entry['step']}" if entry.get("step") else ""
    return f" {entry['phase']}{step}" if entry.get("phase") else ""


def _untold(action: dict[str, Any], told: list[dict[str, Any]]) -> bool:
    return not any(one["by"] == action["metadata"]["name"] for one in told)


def _of_action(action: dict[str, Any]) -> dict[str, Any]:
    """An action that the history does not have: refused, only looking, or so old that its line is gone."""
    spec, status = action["spec"], action.get("status", {})
    verdict = {True: "accepted", False: "refused"}.get(status.get("accepted"), "unanswered")
    said = ": ".join(part for part in (status.get("message", ""), spec.get("reason", "")) if part)
    return {
        "time": action["metadata"]["creationTimestamp"],
        "event": f"{spec['action']} {verdict}",
        "where": "",
        "by": action["metadata"]["name"],
        "message": said,
    }


@click.command("events", cls=Command)
@NAME
@pass_kubectl
def events(kubectl: Kubectl, name: str | None) -> None:
    """Show the Kubernetes Events about a rollout."""
    name = the_only(kubectl, name)
    kubectl.get(ROLLOUTS, name).text()  # an unknown name is said, and not an empty list
    click.echo(kubectl.ask("events", "--for", f"sessionrollout.sessionrollout.dev/{name}").text(), nl=False)


@click.command("explain", cls=Command)
@NAME
@click.option(
    "--at", metavar="TIME", help="At this time (2026-11-24T14:02, UTC unless it says otherwise; or 14:02; or 10m ago)."
)
@click.option("--check", is_flag=True, help="Make every recorded decision again, and fail when one differs.")
@output()
@pass_kubectl
def explain(kubectl: Kubectl, name: str | None, *, at: str | None, check: bool, form: str | None) -> None:
    """Say why a rollout is where it is, from the record of its decisions alone.

    The decision is made again here, by the same core, on the facts the operator had.
    """
    name = the_only(kubectl, name)
    asked, kept = kubectl.get(ROLLOUTS, name), start_reading_records(kubectl, name)
    asked.text()  # an unknown name is said first
    try:
        records = reader.records(kept.items())
    except (ValueError, KeyError) as error:
        raise refusal(f"the records of {name} cannot be read: {error}") from error
    if not records:
        raise refusal(f"nothing is recorded about {name} yet: the operator keeps a record of each decision it makes")
    if check:
        _check(name, records)
        return
    moment = moment_of(at) if at else datetime.now(UTC)
    chosen = [one for one in records if one.time <= moment]
    if not chosen:
        raise refusal(f"the oldest record is of {records[0].time:%Y-%m-%d %H:%M:%S} UTC: nothing is known about {at}")
    if form:
        emit(chosen[-1].model_dump(mode="json"), form)
        return
    _explain(chosen[-1], moment, since="before that" if at else "ago")


def moment_of(text: str) -> datetime:
    """A time as people write it."""
    import re

    from session_rollout.api.quantities import duration

    now = datetime.now(UTC)
    if found := re.fullmatch(r"(\d{1,6}(?:ms|s|m|h|d|w)) ago", text.strip()):
        return now - duration(found[1])
    if found := re.fullmatch(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", text.strip()):
        hour, minute, second = (int(part or 0) for part in found.groups())
        if hour < 24 and minute < 60 and second < 60:  # noqa: PLR2004 - a clock
            return now.replace(hour=hour, minute=minute, second=second, microsecond=999_999)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise wrong(f"--at is {text!r}; allowed are 2026-11-24T14:02, 14:02, 10m ago") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _check(name: str, records: list[Any]) -> None:
    begun = time.perf_counter()
    different = [one for one in records if not one.agrees()]
    took = time.perf_counter() - begun
    for one in different[:5]:
        again = one.decide_again().status.decision
        click.echo(f"{one.time:%Y-%m-%d %H:%M:%S} was {one.action}: {one.message}; now {again.action}: {again.message}")
    said = f"{len(records) - len(different)} of {len(records)} decisions of {name} come out the same again ({took:.2f} s)"
    if different:
        raise refusal(said)
    click.echo(said)


def _explain(record: Any, moment: datetime, *, since: str) -> None:
    from session_rollout.cli.render.status import draw, left

    console = terminal()
    again = record.decide_again()
    rollout = record.rollout.model_copy(update={"status": again.status})
    agrees = "made again here with the same result" if record.agrees() else "this version decides otherwise"
    age = f"{left(moment - record.time)} {since}"
    console.print(f"Decided {record.time:%Y-%m-%d %H:%M:%S} UTC, {age}; {agrees}.", style="dim")
    console.print(draw(rollout, record.time))
    seen = [f"  {name}: {one.value if one.value is not None else one.message}" for name, one in record.measurements.items()]
    if seen:
        console.print("It saw:", style="bold")
        for line in seen:
            console.print(line)
