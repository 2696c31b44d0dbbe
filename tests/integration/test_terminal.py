"""What `make transcripts` looks through: a real pseudo-terminal of 80 columns."""

import json

from lab.terminal import COLUMNS, DIM, Terminal


def test_terminal_keeps_what_a_program_drew() -> None:
    """Text, colours, the width a program is told, each piece with its time, and the exit code."""
    seen: list[str] = []
    draw = r"printf '\033[1;31mbad\033[0m \033[2;36mfaint\033[0m ✔ %s' $(tput cols)"
    with Terminal([draw, "exit 3"], {}, height=5, seen=seen.append) as terminal:
        assert terminal.wait(60) == 3
    line = next(line for line in terminal.text().splitlines() if line.startswith("bad"))
    assert line.startswith(f"bad faint ✔ {COLUMNS}")
    row = terminal.text().splitlines().index(line)
    cells = terminal.screen.buffer[row]
    assert (cells[0].fg, cells[0].bold, cells[4].fg, cells[10].fg) == ("red", True, DIM, "default")
    assert seen[-1] == terminal.text()
    header, *events = (json.loads(line) for line in terminal.cast("a title").splitlines())
    assert (header["version"], header["width"], header["title"]) == (2, COLUMNS, "a title")
    assert "\033[0;31;1mbad\033[0;39m \033[0;2mfaint" in "".join(text for _, kind, text in events if kind == "o")
