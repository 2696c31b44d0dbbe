"""Runs kubectl as a subprocess for all API access of the plugin, with the user's own flags, authentication and proxies.

A call is started immediately and its output is read later, so that several calls run at the same time. Errors of kubectl are sorted
into a few kinds by their text, because kubectl has one exit code for all of them; the text itself, which names the verb and
the resource, is kept.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from session_rollout.api import ACTIONS, GROUP, ROLLOUTS
from session_rollout.errors import RolloutError

ROLLOUT_RESOURCE: Final = f"{ROLLOUTS}.{GROUP}"
ACTION_RESOURCE: Final = f"{ACTIONS}.{GROUP}"


class FailureKind(StrEnum):
    """Why kubectl failed."""

    NOT_FOUND = "NotFound"
    FORBIDDEN = "Forbidden"
    UNAUTHORIZED = "Unauthorized"
    UNREACHABLE = "Unreachable"
    INVALID = "Invalid"
    NOT_INSTALLED = "NotInstalled"
    CONFIGURATION = "Configuration"
    OTHER = "Other"


class KubectlFailed(RolloutError):
    """kubectl failed; the message is one sentence."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


_KINDS: Final[tuple[tuple[str, FailureKind], ...]] = (
    (r"\(NotFound\)", FailureKind.NOT_FOUND),
    (r"\(Forbidden\)", FailureKind.FORBIDDEN),
    (r"\(Unauthorized\)|must be logged in|provide credentials", FailureKind.UNAUTHORIZED),
    (r"\(Invalid\)|\(BadRequest\)|is invalid|strict decoding|error validating|cannot be handled as", FailureKind.INVALID),
    (r"doesn't have a resource type|no matches for kind|could not find the requested resource", FailureKind.NOT_INSTALLED),
    (
        r"was refused|Unable to connect|i/o timeout|deadline exceeded|no such host|couldn't get current server|"
        r"ServiceUnavailable|InternalError|request canceled|context canceled|EOF|Timeout",
        FailureKind.UNREACHABLE,
    ),
    (
        r"context .* does not exist|context was not found|Error in configuration|no context exists|error loading config|unknown flag|no such file|invalid argument|flag needs|"
        r"invalid configuration|cluster .* does not exist|auth info .* does not exist",
        FailureKind.CONFIGURATION,
    ),
)
_PREFIX: Final = re.compile(r"^(?:Error from server(?: \(\w+\))?|[Ee]rror): ?(?:error when \w+ \"?[^\"]*\"?: )?")
_NOISE: Final = re.compile(r"^[EWI]\d{4} ")  # client-go's own log lines


def failure(text: str) -> KubectlFailed:
    """An error of kubectl, in one sentence."""
    lines = [line for line in text.splitlines() if line.strip() and not _NOISE.match(line)]
    noisy = " ".join(text.split())
    kind = next((kind for pattern, kind in _KINDS if re.search(pattern, "\n".join(lines) or noisy)), FailureKind.OTHER)
    if kind is FailureKind.NOT_INSTALLED:
        return KubectlFailed(
            kind,
            "the SessionRollout CRDs are not installed in this cluster; a cluster administrator must install the chart or `crds/`",
        )
    sentence = _PREFIX.sub("", " ".join(lines) or noisy or "kubectl exited without output")
    return KubectlFailed(kind, sentence[:600])


@dataclass
class Call:
    """A call of kubectl that was started; its output is read later."""

    process: "subprocess.Popen[str]"
    stdin: str | None = None
    done: tuple[str, str] | None = None

    def text(self) -> str:
        """What kubectl printed. Raises KubectlFailed."""
        if self.done is None:
            self.done = self.process.communicate(self.stdin)
        if self.process.returncode:
            raise failure(self.done[1])
        return self.done[0]

    def json(self) -> dict[str, Any]:
        """The same, as JSON."""
        return dict(json.loads(self.text()))

    def items(self) -> list[dict[str, Any]]:
        """The items of a list."""
        return list(self.json()["items"])


@dataclass
class Watch:
    """A running watch of one object."""

    process: "subprocess.Popen[str]"

    def events(self) -> Iterator[dict[str, Any]]:
        """Each event, until the API server ends the watch. Raises KubectlFailed when it breaks."""
        decoder, text = json.JSONDecoder(), ""
        assert self.process.stdout is not None
        try:
            while part := self.process.stdout.readline():
                text = (text + part).lstrip()
                try:
                    event, end = decoder.raw_decode(text)
                except ValueError:
                    continue  # the object continues in the next line
                text = text[end:]
                yield dict(event)
        finally:
            self.stop()
            errors = self.process.communicate()[1]
        if self.process.returncode and errors.strip():
            raise failure(errors)

    def stop(self) -> None:
        """End the process, which would otherwise run until the object changes again."""
        self.process.terminate()


@dataclass(frozen=True)
class Kubectl:
    """kubectl with the flags of the command line."""

    flags: tuple[str, ...] = ()
    started: "list[subprocess.Popen[str]]" = field(default_factory=list, repr=False, compare=False)  # by `ask`

    def also(self, *flags: str) -> "Kubectl":
        """The same with more flags."""
        return replace(self, flags=(*self.flags, *flags))

    def end(self) -> None:
        """End what was started and never read, as after an error: it would outlive the command."""
        for process in self.started:
            if not _is_read(process):
                process.kill()
                process.communicate()

    def ask(self, *argv: str, stdin: str | None = None) -> Call:
        """Start kubectl; the output is read later."""
        self.started[:] = [process for process in self.started if not _is_read(process)]
        self.started.append(self._start(argv, stdin=stdin))
        return Call(self.started[-1], stdin)

    def _start(self, argv: tuple[str, ...], *, stdin: str | None = None) -> "subprocess.Popen[str]":
        program = os.environ.get("KUBECTL", "kubectl")
        try:
            return subprocess.Popen(  # noqa: S603 - no shell; the arguments are the user's own, for their own kubectl
                [program, *argv, *self.flags],
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        except OSError as error:
            raise KubectlFailed(
                FailureKind.CONFIGURATION,
                f"cannot start {program}: {error.strerror}; install kubectl, or set KUBECTL to its path",
            ) from error

    def get(self, resource: str, name: str) -> Call:
        """One object."""
        return self.ask("get", resource, name, "-o", "json")

    def list(self, resource: str, *argv: str) -> Call:
        """Objects."""
        return self.ask("get", resource, "-o", "json", *argv)

    def create(self, body: Mapping[str, Any]) -> Call:
        """Create an object; the output is the object as it was stored. The server validates it, so kubectl does not."""
        return self.ask("create", "--validate=false", "-f", "-", "-o", "json", stdin=json.dumps(body))

    def watch(self, resource: str, name: str) -> "Watch":
        """The object now and after each change."""
        return Watch(self._start(("get", resource, name, "-o", "json", "--watch", "--output-watch-events")))


def _is_read(process: "subprocess.Popen[str]") -> bool:
    return process.stdout is None or process.stdout.closed
