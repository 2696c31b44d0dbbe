"""`make transcripts`: runs the demo twice, watches it as a user on call would, and writes the recordings of the docs.

`docs/recordings/NAME.cast` is how the terminal changed (`asciinema play`), `NAME.png` the terminal at one moment, and
`docs/recordings.md` its text at a few; `get-watch.txt` is what `kubectl get sro -w` printed meanwhile.
"""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from lab.demo import Demo
from lab.kube import Object
from lab.lab import ROOT, Lab, ended_by_signals
from lab.session_persistence import NAME, NAMESPACE
from lab.terminal import Terminal

DOCS = ROOT / "docs"
RECORDINGS = DOCS / "recordings"
HEIGHT = 46
FAULTY = "autoReconnection"
ROLLOUT = f"/apis/sessionrollout.dev/v1alpha1/namespaces/{NAMESPACE}/sessionrollouts/{NAME}"


@dataclass
class Moment:
    """A screen that is kept: the first one while the rollout's status is as `when` says."""

    title: str
    when: Callable[[Object], Any]
    pictured: bool = False
    text: str = ""


@dataclass
class Recording:
    """What is typed, while what happens, and what of it is kept."""

    name: str
    title: str
    lines: list[str]
    story: Callable[[Demo], None]
    moments: list[Moment]
    ending: str = ""  # title of the screen after the last command
    terminal: Terminal = field(init=False)
    lab: Lab = field(init=False)

    def seen(self, text: str) -> None:
        """Called with every settled screen, which shows the status of this moment."""
        status = (self.lab.kube.find(ROLLOUT) or {}).get("status", {})
        for moment in self.moments:
            if not moment.text and moment.when(status):
                moment.text = text
                if moment.pictured:
                    self.terminal.picture(RECORDINGS / f"{self.name}.png")

    def make(self, console: Console) -> list[str]:
        """Run the demo with a terminal beside it; the lines of its chapter. Raises SystemExit when something was not seen."""
        with Lab() as lab:
            self.lab = lab
            demo = Demo(lab, console, seed=1)
            demo.set_up()
            path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
            environment = {"KUBECONFIG": str(lab.kubeconfig), "PATH": path}
            with Terminal(self.lines, environment, height=HEIGHT, seen=self.seen) as self.terminal:
                self.story(demo)
                self.terminal.wait(30)
            demo.recorder.stop()
            demo.watcher.stop()
            if self.name == "status-watch":
                shutil.copy(demo.watcher.log, RECORDINGS / "get-watch.txt")
        if missed := [moment.title for moment in self.moments if not moment.text] or demo.proof.failures:
            raise SystemExit(f"transcripts: {self.name}: {'; '.join(missed)}")
        (RECORDINGS / f"{self.name}.cast").write_text(self.terminal.cast(self.title))
        return self._chapter()

    def _chapter(self) -> list[str]:
        lines = [f"## {self.title}", "", f"![{self.title}](recordings/{self.name}.png)", ""]
        if self.ending:
            self.moments.append(Moment(self.ending, bool, text=self.terminal.text()))
        lines += [f"Complete recording: `asciinema play docs/recordings/{self.name}.cast`."]
        for moment in self.moments:
            lines += ["", f"{moment.title}:", "", "```text", moment.text, "```"]
        return [*lines, ""]


def current(status: Object, name: str) -> Any:
    """A field of `status.current`."""
    return status.get("current", {}).get(name)


def decided(status: Object, reason: str) -> bool:
    """Whether the last decision has this reason."""
    return bool(status.get("decision", {}).get("reason") == reason)


def copied(status: Object) -> int:
    """Rows that the running migration has copied."""
    return max((record.get("done", 0) for record in status.get("migrations", []) if record["state"] == "Running"), default=0)


WATCH = f"kubectl sessionrollout status -w -n {NAMESPACE}"
SHOWN = (
    Recording(
        "status-watch",
        "A rollout from start to finish",
        [WATCH],
        Demo.promote,
        [
            Moment("A step of a ramp", lambda status: current(status, "increment") and decided(status, "Holding")),
            Moment("Session rows are copied", lambda status: 10_000 <= copied(status) < 30_000, pictured=True),
            Moment("A step requires approval", lambda status: decided(status, "AwaitingApproval")),
            Moment("Promoted", lambda status: status.get("outcome") == "Promoted"),
        ],
    ),
    Recording(
        "rollback",
        "A guard rolls a feature back",
        [WATCH, f"kubectl sessionrollout history -n {NAMESPACE}"],
        lambda demo: demo.fault(FAULTY),
        [
            Moment("The feature reaches its first users", lambda status: current(status, "percent") == "10"),
            Moment("Rolled back", lambda status: status.get("outcome") == "RolledBack", pictured=True),
        ],
        ending="The history of the rollout",
    ),
)


def main() -> None:
    """Entry point."""
    RECORDINGS.mkdir(exist_ok=True)
    page = [
        "# Recordings",
        "",
        "This page shows `kubectl sessionrollout status -w` in a terminal of 80 columns during `make demo`, in which a week lasts fifteen",
        "seconds. `kubectl get sro -w` printed [get-watch.txt](recordings/get-watch.txt) during the same run. `make transcripts` regenerates this page.",
        "",
    ]
    with ended_by_signals():
        for recording in SHOWN:
            page += recording.make(Console(highlight=False))
    (DOCS / "recordings.md").write_text("\n".join(page))


if __name__ == "__main__":
    main()
