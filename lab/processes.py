"""Child processes that never outlive the lab: started with a parent-death signal, stopped in reverse order, logged to files."""

import atexit
import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS = 240.0
STOP_SECONDS = 8.0
LAB_STOP_SECONDS = 1.0  # nothing of the lab needs to be kept
PR_SET_PDEATHSIG = 1


class StartFailed(Exception):
    """A part of the lab did not come up; the message names it and has the end of its log."""


PORTS = range(20_000, 32_768)  # below Linux' ephemeral range, of which any outgoing connection may take one
_reserved = contextlib.ExitStack()
atexit.register(_reserved.close)


def free_port() -> int:
    """A TCP port that nobody listens on now, and that no other lab of this machine gets while this process lives.

    The reservation is an abstract socket of Linux: it ends with the process, and leaves no file.
    """
    while True:
        port, reservation = random.choice(PORTS), socket.socket(socket.AF_UNIX)
        try:
            if sys.platform == "linux":
                reservation.bind(f"\0session-rollout-lab-{port}")
            with socket.socket() as probe:
                probe.bind(("", port))
        except OSError:
            reservation.close()
            continue
        _reserved.enter_context(reservation)
        return port


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Ask Linux to end this process with the thread that started it; runs between fork and exec."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class Process:
    """One running program and its log."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.popen.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, number)

    def stop(
        self, *, signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGKILL), grace: float = STOP_SECONDS
    ) -> None:
        """End it and its children: politely, then not."""
        for number in signals:
            self.send(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(grace)
                break

    def kill(self) -> None:
        """End it at once, as the kernel would for want of memory."""
        self.stop(signals=[signal.SIGKILL])

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@dataclass
class Processes:
    """All programs of one lab, in the order in which they were started."""

    directory: Path
    running: list[Process] = field(default_factory=list)

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        user: int | None = None,
        cwd: Path | str = "/",
    ) -> Process:
        """Start a program in a process group of its own; its output goes to `<directory>/<name>.log`."""
        log = self.directory / f"{name}.log"
        with log.open("ab") as sink:
            popen = subprocess.Popen(
                [str(part) for part in argv],
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl call, no locks taken
                user=user,
                group=user,
                extra_groups=[] if user is not None else None,
            )
        process = Process(name=name, popen=popen, log=log)
        self.running.append(process)
        return process

    def wait(self, process: Process, ready: Callable[[], bool]) -> None:
        """Wait until `ready`; raises StartFailed with the log when the program ends or the time is over."""
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if not process.alive or time.monotonic() > deadline:
                why = "did not answer in time" if process.alive else f"ended with {process.popen.returncode}"
                raise StartFailed(f"{process.name} {why}:\n{process.tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End everything, last started first."""
        for process in reversed(self.running):
            process.send(signal.SIGTERM)
        while self.running:
            self.running.pop().stop(grace=LAB_STOP_SECONDS)


def port_open(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((host, port)) == 0
