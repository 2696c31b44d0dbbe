"""`make transcripts`: runs the demo twice, watches it as a user on call would, and writes the recordings of the docs.

`docs/recordings/NAME.cast` is how the terminal changed (`asciinema play`), `NAME.png` the terminal at one moment, and
`docs/recordings.md` its text at a few; `get-watch.txt` is what `kubectl get sro -w` printed meanwhile.
"""

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from lab.demo import Demo
from lab.lab import ROOT, Lab, ended_by_signals
from lab.session_persistence import NAMESPACE
from lab.terminal import Terminal

DOCS = ROOT / "docs"
RECORDINGS = DOCS / "recordings"
HEIGHT = 46
FAULTY = "autoReconnection"


@dataclass
class Moment:
    """Kept when the screen shows it for the first time."""

    title: str
    shows: str  # regular expression
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
    terminal: Terminal = field(init=False)

    def seen(self, text: str) -> None:
        """Called with every settled screen."""
        for moment in self.moments:
            if not moment.text and re.search(moment.shows, text, re.DOTALL):
                moment.text = text
                if moment.pictured:
                    self.terminal.picture(RECORDINGS / f"{self.name}.png")

    def make(self, console: Console) -> list[str]:
        """Run the demo with a terminal beside it; the lines of its chapter. Raises SystemExit when something was not seen."""
        with Lab() as lab:
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
        lines += [f"Complete recording: `asciinema play docs/recordings/{self.name}.cast`."]
        for moment in self.moments:
            lines += ["", f"{moment.title}:", "", "```text", moment.text, "```"]
        return [*lines, ""]


WATCH = f"kubectl sessionrollout status -w -n {NAMESPACE}"
SHOWN = (
    Recording(
        "status-watch",
        "A rollout from start to finish",
        [WATCH],
        Demo.promote,
        [
            Moment("A step of a ramp holds", r"▶ step 2\.\d[^\n]* left\n"),
            Moment("Session rows move", r"legacy-sessions up, (1\d|2\d),\d{3} of .*/s", pictured=True),
            Moment("A step waits for an approval", r"waits for an approval"),
            Moment("Promoted", r"  Promoted"),
        ],
    ),
    Recording(
        "rollback",
        "A guard rolls a feature back",
        [WATCH, f"kubectl sessionrollout history -n {NAMESPACE}"],
        lambda demo: demo.fault(FAULTY),
        [
            Moment("The feature reaches its first users", r"▶ step 1 +10%"),
            Moment("Rolled back", r"  RolledBack", pictured=True),
            Moment("The history of the rollout", r"kubectl sessionrollout history.*RolledBack"),
        ],
    ),
)


def main() -> None:
    """Entry point."""
    RECORDINGS.mkdir(exist_ok=True)
    page = [
        "# Recordings",
        "",
        "This page shows `kubectl sessionrollout status -w` in a terminal of 80 columns during `make demo`, in which a week lasts fifteen",
        "seconds. `kubectl get sro -w` printed [get-watch.txt](recordings/get-watch.txt) meanwhile. `make transcripts` regenerates this page.",
        "",
    ]
    with ended_by_signals():
        for recording in SHOWN:
            page += recording.make(Console(highlight=False))
    (DOCS / "recordings.md").write_text("\n".join(page))


if __name__ == "__main__":
    main()
