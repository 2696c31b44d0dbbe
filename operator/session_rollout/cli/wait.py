"""The command wait, and how `status --watch` and `promote --full` follow a rollout until it has a state."""

import queue
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from session_rollout.adapters.kubectl import ROLLOUT_RESOURCE, Kubectl, Watch
from session_rollout.cli.command import Command, Exit, Failure
from session_rollout.cli.common import NAME, pass_kubectl, rollout_name, rollout_of, timeout_option
from session_rollout.cli.operator_lease import OperatorLease

if TYPE_CHECKING:
    from session_rollout.api.rollout import SessionRollout

Object = dict[str, Any]
REFRESH_SECONDS: Final = 1.0
STOP_SECONDS: Final = 5.0  # for kubectl to end
STATES: Final = ("Progressing", "Paused", "Stalled", "Promoted", "RolledBack", "Aborted")


@click.command("wait", cls=Command)
@NAME
@click.option(
    "--for",
    "state",
    type=click.Choice(STATES),
    default="Promoted",
    show_default=True,
    help="Wait for this state of the current generation.",
)
@timeout_option("Give up after this time, such as 10m or 1h30m.")
@pass_kubectl
def wait(kubectl: Kubectl, name: str | None, *, state: str, timeout: timedelta | None) -> None:
    """Wait until a rollout has a state, without displaying progress.

    Exit codes: 0 if it has the state, 1 if it ended in another state, 2 if it is Stalled, 124 on --timeout.
    """
    name = rollout_name(kubectl, name)
    rollout, code = wait_for(kubectl, name, timeout, lambda latest: exit_code(latest, state))
    if code is not Exit.DONE:
        raise Failure(code, describe(rollout))
    click.echo(describe(rollout))


def exit_code(rollout: "SessionRollout", state: str = "Promoted") -> Exit | None:
    """How waiting for a state ends; None while it has not ended. The status of an older generation ends nothing."""
    status = rollout.status
    if status.observed_generation != rollout.generation:
        return None
    if status.state == state:
        return Exit.DONE
    if status.outcome is not None:
        return Exit.REFUSED
    return Exit.STALLED if status.state == "Stalled" else None


def describe(rollout: "SessionRollout") -> str:
    """State and message of a rollout in one line."""
    status = rollout.status
    return (
        f"{rollout.name} is {status.state or 'waiting for its first decision'}: {status.decision.message or 'no decision yet'}"
    )


def wait_for(
    kubectl: Kubectl, name: str, timeout: timedelta | None, ends: Callable[["SessionRollout"], Exit | None]
) -> tuple["SessionRollout", Exit]:
    """Follow a rollout until `ends` gives an exit code. Raises Failure on the timeout."""
    with closing(follow(kubectl, name, timeout)) as states:
        for rollout, _ in states:
            if (code := ends(rollout)) is not None:
                return rollout, code
    raise AssertionError("follow() does not end by itself")


def follow(
    kubectl: Kubectl, name: str, timeout: timedelta | None = None
) -> Generator[tuple["SessionRollout", bool], None, None]:
    """The rollout, and whether it has changed: now, on every change, and every second. Raises Failure on the timeout."""
    watcher, lease = Watcher(kubectl, name), OperatorLease(kubectl)
    watcher.start()
    deadline = time.monotonic() + timeout.total_seconds() if timeout is not None else float("inf")
    try:
        rollout, changed = rollout_of(kubectl.get(ROLLOUT_RESOURCE, name).json()), True
        lease.warn()
        while True:
            yield rollout, changed
            if time.monotonic() >= deadline:
                raise Failure(Exit.TIMEOUT, f"timed out; {describe(rollout)}")
            lease.check_again()
            newest = watcher.newest(min(REFRESH_SECONDS, deadline - time.monotonic()))
            changed = newest is not None
            rollout = rollout_of(newest) if newest is not None else rollout
    finally:
        watcher.stop()
        lease.stop()


class Watcher(threading.Thread):
    """Reads the changes of a rollout in the background."""

    def __init__(self, kubectl: Kubectl, name: str) -> None:
        super().__init__(daemon=True)
        self._kubectl, self._object = kubectl, name
        self._changes: queue.Queue[Object | Exception] = queue.Queue()
        self._watch: Watch | None = None
        self._stopped = threading.Event()

    def newest(self, seconds: float) -> Object | None:
        """The newest object that arrives within this time; None when nothing arrives. Raises the error that ended the watch."""
        try:
            newest = self._changes.get(timeout=max(seconds, 0))
            while not self._changes.empty() and not isinstance(newest, Exception):
                newest = self._changes.get_nowait()
        except queue.Empty:
            return None
        if isinstance(newest, Exception):
            raise newest
        return newest

    def stop(self) -> None:
        """End the running watch, or the one that is about to start."""
        self._stopped.set()
        if self._watch is not None:
            self._watch.stop()
        self.join(STOP_SECONDS)

    def run(self) -> None:
        """Collect every change, and at last an error. API servers end a watch after 30 to 60 minutes: it is started again."""
        try:
            while not self._stopped.is_set() and self._watch_once():
                pass
            self._changes.put(Failure(Exit.UNREACHABLE, "the API server ended the watch"))
        except Exception as error:  # noqa: BLE001 - it is raised again in the main thread
            self._changes.put(error)

    def _watch_once(self) -> bool:
        """Whether the watch delivered anything: a new watch begins with the object as it is."""
        delivered = False
        self._watch = self._kubectl.watch(ROLLOUT_RESOURCE, self._object)
        if self._stopped.is_set():
            self._watch.stop()
        for event in self._watch.events():
            if event["type"] == "DELETED":
                raise Failure(Exit.NOT_FOUND, f"{self._object} was deleted")
            self._changes.put(event["object"])
            delivered = True
        return delivered
