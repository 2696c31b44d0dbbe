"""Prints what happens in a demo as it happens: lines with the time since the start, and new entries of the history."""

import json
import time

from rich.console import Console

from lab.recorder import Status


class Timeline:
    """The output of one demo."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.printed: set[str] = set()
        self.started = time.time()

    def print_line(self, text: str, moment: float | None = None) -> None:
        """Print a line with the time since the start."""
        self.console.print(f"{self._elapsed(moment):6.1f}s {text}", soft_wrap=True)

    def print_history(self, recorded: Status) -> None:
        """One line for every new entry of the history."""
        for entry in recorded.status.get("history", []):
            key = json.dumps(entry)
            if key not in self.printed:
                self.printed.add(key)
                where = f"{entry.get('phase') or '':22} {entry.get('step') or '':>2} {entry.get('audience') or '':>13}"
                self.print_line(f"{where} {entry['event']:18} {entry.get('message', '')}", recorded.seen)

    def _elapsed(self, moment: float | None = None) -> float:
        return (moment or time.time()) - self.started
