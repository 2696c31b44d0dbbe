"""Whether the operator runs: how long ago it has renewed its Lease. If it does not, what every other object says may be old.

The Lease is found by its label. Who may not list Leases in all namespaces may still read the one of an installation with
default names; for everybody else the plugin is silent. Of several Leases, the one that was renewed last counts, because the
Lease of an operator that was removed remains.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import click

from session_rollout.adapters.kubectl import Call, FailureKind, Kubectl, KubectlFailed

RESOURCE: Final = "leases.coordination.k8s.io"
LABEL: Final = "app.kubernetes.io/name=session-rollout"
DEFAULT_NAME: Final = "session-rollout"  # of the Lease and of its namespace
TOLERANCE: Final = timedelta(seconds=15)  # beyond the duration of a Lease: clocks differ
HANDOVER: Final = timedelta(seconds=10)  # a Lease that was released has no holder until another replica acquires it
CHECK_SECONDS: Final = 15.0

Object = Mapping[str, Any]


class OperatorLease:
    """Reads the Lease beside what a command reads in the `with` block; at the end of the block, says if it is old."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        self._warned = False
        self._start()

    def _start(self) -> None:
        self._call: Call | None = self._kubectl.list(RESOURCE, "-A", "-l", LABEL)
        self._next = time.monotonic() + CHECK_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self.warn()
        else:
            self.stop()

    def stop(self) -> None:
        """End a running kubectl."""
        if self._call is not None:
            self._call.process.kill()
            self._call.process.communicate()
            self._call = None

    def warn(self) -> None:
        """Say once that the operator does not run."""
        if self._call is not None and not self._warned and (text := self.sentence()):
            click.echo(f"{text}: what follows may be old, and actions get no response", err=True)
            self._warned = True

    def check_again(self) -> None:
        """The same while a command waits: from time to time, and without waiting for kubectl."""
        if self._call is not None and self._call.process.poll() is not None:
            self.warn()
        elif self._call is None and time.monotonic() >= self._next:
            self._start()

    def sentence(self) -> str | None:
        """Since when no operator has renewed its Lease; None while one does, or if nobody knows."""
        from session_rollout.api.quantities import format_duration

        silent = min((_silence(lease["spec"]) for lease in self._leases()), default=timedelta(0))
        text = format_duration(timedelta(seconds=round(silent.total_seconds())))
        return f"the operator has not renewed its Lease for {text}" if silent else None

    def _leases(self) -> Sequence[Object]:
        """Leases of operators that were ever held; none that this user may not read."""
        call, self._call = self._call, None
        leases = _items(call) if call is not None else ()
        if leases is None:
            here = self._kubectl.also(f"--namespace={DEFAULT_NAME}")
            leases = _items(here.get(RESOURCE, DEFAULT_NAME)) or ()
        return [lease for lease in leases if lease.get("spec", {}).get("renewTime")]


def _items(call: Call) -> Sequence[Object] | None:
    """The objects of a response; None when this user may not read them, or when there are none."""
    try:
        answer = call.json()
    except KubectlFailed as error:
        return None if error.kind in {FailureKind.FORBIDDEN, FailureKind.NOT_FOUND} else ()
    return answer.get("items", [answer]) or None


def _silence(spec: Object) -> timedelta:
    """How long ago the Lease was renewed; zero while that is not too long."""
    age = datetime.now(UTC) - datetime.fromisoformat(spec["renewTime"])
    held = timedelta(seconds=spec.get("leaseDurationSeconds") or 0) + TOLERANCE
    return age if age > (held if spec.get("holderIdentity") else HANDOVER) else timedelta(0)
