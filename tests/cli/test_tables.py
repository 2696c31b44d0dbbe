"""Tables of the plugin, on a terminal and in a pipe."""

import io

import pytest
from rich.console import Console

from session_rollout.cli import common
from session_rollout.cli.common import print_table

LONG = "x" * 300
ROWS = [("short", "b"), ("resident-memory", LONG), (LONG, "d")]


def printed(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> list[str]:
    """The lines of a table."""
    file = io.StringIO()
    monkeypatch.setattr(common, "terminal", lambda: Console(file=file, width=80, force_terminal=terminal, color_system=None))
    print_table(("CHECK", "MESSAGE"), ROWS)
    return file.getvalue().splitlines()


def test_table_in_a_pipe_has_each_row_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is: programs read lines, and a message that is cut helps nobody."""
    assert [line.split() for line in printed(monkeypatch, terminal=False)] == [["CHECK", "MESSAGE"], *map(list, ROWS)]


def test_table_on_a_terminal_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost."""
    lines = printed(monkeypatch, terminal=True)
    assert max(map(len, lines)) <= 80
    assert "".join(lines).count("x") == 2 * len(LONG)
