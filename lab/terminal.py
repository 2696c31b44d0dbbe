"""A real terminal for programs that draw: a pseudo-terminal of fixed size, what was on it, and pictures of it."""

import codecs
import itertools
import json
import os
import pty
import select
import shlex
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import pyte
from PIL import Image, ImageDraw, ImageFont

from lab.processes import die_with_parent

COLUMNS: Final = 80
SETTLED_SECONDS: Final = 0.05  # a drawing comes in several pieces
FONT, FONT_BOLD, FONT_SIZE, MARGIN = "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf", 15, 12
BACKGROUND: Final = "#1e1e24"
DIM: Final = "dim"
COLOURS: Final = {
    "default": "#dcdce0",
    DIM: "#8b8b98",
    "black": "#1e1e24",
    "red": "#ff6b6b",
    "green": "#6bd68b",
    "brown": "#e8c35a",  # as terminals call yellow
    "blue": "#6fa8ff",
    "magenta": "#d78bf0",
    "cyan": "#5fd3d8",
    "white": "#ffffff",
}
CODES: Final = {DIM: 2, **{name: 30 + number for number, name in enumerate(list(COLOURS)[2:])}}  # ECMA-48
PROMPTED: Final = 'for line in "$@"; do printf "\\033[1m$ %s\\033[0m\\n" "$line"; eval "$line"; done'


class Screen(pyte.Screen):
    """Also knows faint text, as a color of its own."""

    def select_graphic_rendition(self, *attrs: int, **kwargs: Any) -> None:
        """Called for every SGR sequence."""
        super().select_graphic_rendition(*attrs, **kwargs)
        if 2 in attrs:
            self.cursor.attrs = self.cursor.attrs._replace(fg=DIM)


class Terminal:
    """Shell lines typed one after another; `seen` is called with the text of the screen whenever it has settled."""

    def __init__(
        self, lines: Sequence[str], environment: Mapping[str, str], *, height: int, seen: Callable[[str], None] | None = None
    ) -> None:
        self.lines, self.height, self.seen = lines, height, seen or (lambda _: None)
        self.environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", **environment}
        self.screen = Screen(COLUMNS, height)
        self.pieces: list[tuple[float, str]] = []  # seconds since the start, and what draws the lines that differ by then
        self._drawn = [""] * height

    def __enter__(self) -> Self:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (self.height, COLUMNS))
        self.process = subprocess.Popen(
            ["bash", "-c", PROMPTED, "bash", *self.lines],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=self.environment,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl call, no locks taken
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.wait(30)
        os.close(self._master)

    def wait(self, seconds: float) -> int:
        """Wait until all lines have run and all they printed was read; the last exit code. Raises TimeoutExpired."""
        code = self.process.wait(seconds)
        self._reader.join(seconds)
        return code

    def _read(self) -> None:
        stream, decode, begun = (
            pyte.Stream(self.screen),
            codecs.getincrementaldecoder("utf-8")("replace").decode,
            time.monotonic(),
        )
        while piece := self._piece():
            stream.feed(decode(piece))
            if not select.select([self._master], [], [], SETTLED_SECONDS)[0]:
                self._settled(time.monotonic() - begun)
        self._settled(time.monotonic() - begun)

    def _settled(self, moment: float) -> None:
        lines = [self._line(row) for row in range(self.height)]
        changed = "".join(f"\033[{row + 1}H\033[K{line}" for row, line in enumerate(lines) if line != self._drawn[row])
        if changed:
            self.pieces.append((moment, changed))
            self._drawn = lines
            self.seen(self.text())

    def _line(self, row: int) -> str:
        """What draws a row: its characters, and the colors where they change."""
        cells = [self.screen.buffer[row][column] for column in range(COLUMNS)]
        runs = itertools.groupby(cells, lambda cell: (cell.fg, cell.bold))
        drawn = (
            f"\033[0;{CODES.get(colour, 39)}{';1' * bold}m{''.join(cell.data for cell in run)}" for (colour, bold), run in runs
        )
        return "".join(drawn).rstrip()

    def _piece(self) -> bytes:
        try:
            return os.read(self._master, 65536)
        except OSError:  # Linux: the other side is closed
            return b""

    # --- what is kept

    def text(self) -> str:
        """The screen as it is now, without the empty end of lines and of the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def cast(self, title: str) -> str:
        """How the screen changed, as asciicast v2 (`asciinema play FILE`)."""
        header = {"version": 2, "width": COLUMNS, "height": self.height, "title": title, "command": shlex.join(self.lines)}
        events = [json.dumps([round(moment, 2), "o", text], ensure_ascii=False) for moment, text in self.pieces]
        return "\n".join([json.dumps(header), *events, ""])

    def picture(self, path: Path) -> None:
        """The screen as it is now, as a PNG. Raises OSError where the font is not installed (Debian: fonts-dejavu-core)."""
        plain, bold = ImageFont.truetype(FONT, FONT_SIZE), ImageFont.truetype(FONT_BOLD, FONT_SIZE)
        wide, high = plain.getlength("M"), sum(plain.getmetrics()) + 1
        lines = self.text().count("\n") + 1
        image = Image.new("RGB", (round(COLUMNS * wide) + 2 * MARGIN, lines * high + 2 * MARGIN), BACKGROUND)
        draw = ImageDraw.Draw(image)
        for row in range(lines):
            for column in range(COLUMNS):
                cell = self.screen.buffer[row][column]
                if cell.data.strip():
                    place = (MARGIN + column * wide, MARGIN + row * high)
                    font = bold if cell.bold else plain
                    draw.text(place, cell.data, COLOURS.get(cell.fg, COLOURS["default"]), font)
        image.quantize(64).save(path, optimize=True)
