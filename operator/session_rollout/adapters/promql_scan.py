"""Reads queries that no parser here knows, such as MetricsQL, by their brackets: how deep they are, and how far back they look.

Assumed: `[5m]` after a selector is its range, and after anything else that of a subquery; `offset 5m` looks further back; a
number without a unit is seconds; whatever else stands in brackets (`step()`, `5i`, a name) is as long as `unknown`. Sums and
differences in brackets count as sums, so that a warm-up is never too short.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

NOTHING: Final = timedelta(0)
UNKNOWN: Final = timedelta(minutes=5)
MOST: Final = timedelta(days=100_000)
SECONDS: Final = {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}

TEXT: Final = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`|#[^\n]*', re.DOTALL)
NUMBER: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?)([a-z]*)|([a-z_$]+)", re.IGNORECASE)
TOKEN: Final = re.compile(
    r"(?P<labels>\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\))|(?P<call>[a-z_:][\w:.]*\s*\()|(?P<open>\()|(?P<close>\))|\[(?P<range>[^\[\]]*)\]"
    r"|\boffset\s*(?P<offset>(?:-\s*)?(?:\([^()]*\)|[\w.]+))"
    r"|\b(?P<word>group_left|group_right|bool|and|or|unless|default|if|ifnot|keep_metric_names|limit|inf|nan)\b"
    r"|(?P<selector>[a-z_:][\w:.]*\s*(?:\{[^{}]*\})?|\{[^{}]*\})|(?P<number>[0-9][\w.]*)|@\s*[\w.]+|(?P<operator>\S)",
    re.IGNORECASE,
)


def without_text(query: str) -> str:
    """The query with empty strings for its strings, and without its comments."""
    return TEXT.sub(lambda text: " " if text[0].startswith("#") else '""', query)


def nesting(query: str) -> int:
    """The largest number of brackets that are open at the same time."""
    depth = deepest = 0
    for character in without_text(query):
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


@dataclass
class _Level:
    """What is between two parentheses: the selectors so far, and those of the last operand, which a range may follow."""

    done: list[tuple[timedelta, bool]] = field(default_factory=list)
    last: list[tuple[timedelta, bool]] = field(default_factory=list)
    bare: bool = False  # whether the last operand is a selector without a range

    def operand(self, selectors: list[tuple[timedelta, bool]], *, bare: bool) -> None:
        """The next operand begins."""
        self.done, self.last, self.bare = self.done + self.last, selectors, bare

    def further(self, length: timedelta, *, has_range: bool) -> None:
        """The last operand looks this much further back."""
        ranged = has_range and self.bare
        self.last = [(min(reach + length, MOST), each or ranged) for reach, each in self.last]
        self.bare = self.bare and not has_range


def scanned(query: str, step: timedelta = UNKNOWN) -> list[tuple[timedelta, bool]]:
    """Each selector of a query: how far back it looks, and whether it has a range."""
    levels = [_Level()]
    for token in TOKEN.finditer(without_text(query)):
        match token.lastgroup:
            case "call" | "open":
                levels.append(_Level())
            case "close" if len(levels) > 1:
                inner = levels.pop()
                levels[-1].operand(inner.done + inner.last, bare=False)
            case "range":
                levels[-1].further(_length(token["range"].split(":")[0], step), has_range=True)
            case "offset":
                levels[-1].further(_length(token["offset"], step), has_range=False)
            case "selector":
                levels[-1].operand([(NOTHING, False)], bare=True)
            case "operator" | "number" | "word":
                levels[-1].operand([], bare=False)
    return [selector for level in levels for selector in level.done + level.last]


def _length(text: str, step: timedelta) -> timedelta:
    return min(sum(_lengths(text, step), NOTHING), MOST)


def _lengths(text: str, step: timedelta) -> Iterator[timedelta]:
    for number, unit, _ in NUMBER.findall(text):
        if unit.lower() in SECONDS and number:
            yield timedelta(seconds=min(float(number) * SECONDS[unit.lower()], MOST.total_seconds()))
        else:
            yield step
