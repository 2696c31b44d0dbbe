"""Reads queries that no parser here knows, such as MetricsQL, by their brackets: how deep they are, and how far back they look.

Assumed: `[5m]` after a selector is its range, and after anything else that of a subquery; `offset 5m` looks further back; a
number without a unit is seconds; `step()` and the unit `i` are the step of an instant query; `@ end()` and `@ start()` are now, and
`@` with a number is a fixed time, which is never about the current audience. Arithmetic in brackets counts as the
largest value that it may have, so that a warm-up is never too short. A length that cannot be read is not guessed.
"""

import ast
import math
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

NOTHING: Final = timedelta(0)
UNKNOWN: Final = timedelta(minutes=5)
MOST: Final = timedelta(days=100_000)
SECONDS: Final = {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}

TEXT: Final = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`|#[^\n]*', re.DOTALL)
SPACE: Final = re.compile(r"(?P<text>\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`[^`]*`)|(?:#[^\n]*|\s)+", re.DOTALL)
PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ms|[smhdwyi]|)", re.IGNORECASE)
LENGTH: Final = re.compile(
    r"(?P<time>(?:[0-9]+(?:\.[0-9]*)?(?:ms|[smhdwyi]))+|[0-9]+(?:\.[0-9]*)?(?![\w.]))|(?P<step>\b(?:step|range)\s*\(\s*\))|(?P<power>\^)"
    r"|\b(?:min|max)\b",
    re.IGNORECASE,
)
UNREAD: Final = re.compile(r"@(?!\s*(?:(?:start|end)\s*\(\s*\)|[-+]?[0-9]))", re.IGNORECASE)
AT_NUMBER: Final = re.compile(r"@\s*[-+]?[0-9]")
FIXED: Final = "the query looks at a fixed time (`@`) alone, so it never measures the current audience"
LONGEST_SHOWN: Final = 40
INFINITE: Final = float("inf")
TOKEN: Final = re.compile(
    r"(?P<labels>\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\))|(?P<call>[a-z_:][\w:.]*\s*\()|(?P<open>\()|(?P<close>\))|\[(?P<range>[^\[\]]*)\]"
    r"|\boffset\s*(?P<offset>(?:-\s*)?(?:\([^()]*\)|(?:step|range)\s*\(\s*\)|[\w.]+))"
    r"|\b(?P<word>group_left|group_right|bool|and|or|unless|default|if|ifnot|keep_metric_names|limit|inf|nan)\b"
    r"|(?P<selector>[a-z_:][\w:.]*\s*(?:\{[^{}]*\})?|\{[^{}]*\})|(?P<number>[0-9][\w.]*)"
    r"|(?P<now>@\s*(?:start|end)\s*\(\s*\))|(?P<fixed>@\s*[-+]?[0-9][\w.]*)|(?P<operator>\S)",
    re.IGNORECASE,
)


def without_text(query: str) -> str:
    """The query with empty strings for its strings, and without its comments."""
    return TEXT.sub(lambda text: " " if text[0].startswith("#") else '""', query)


def in_one_line(query: str) -> str:
    """The query without its comments, and with single spaces outside of its strings."""
    parts = SPACE.sub(lambda part: part["text"] or " ", query)
    return parts.strip()


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
        self.done += self.last
        self.last, self.bare = selectors, bare

    def further(self, length: timedelta, *, has_range: bool) -> None:
        """The last operand looks this much further back."""
        ranged = has_range and self.bare
        self.last = [(min(reach + length, MOST), each or ranged) for reach, each in self.last]
        self.bare = self.bare and not has_range


def scanned(query: str, step: timedelta = UNKNOWN) -> list[tuple[timedelta, bool]]:
    """Each selector of a query: how far back it looks, and whether it has a range. Raises ValueError."""
    levels = [_Level()]
    for token in TOKEN.finditer(_readable(without_text(query))):
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
            case "fixed":
                levels[-1].last = []
            case "selector":
                levels[-1].operand([(NOTHING, False)], bare=True)
            case "operator" | "number" | "word":
                levels[-1].operand([], bare=False)
    selectors = [selector for level in levels for selector in level.done + level.last]
    if not selectors and AT_NUMBER.search(without_text(query)):
        raise ValueError(FIXED)
    return selectors


def _readable(text: str) -> str:
    """The same, if each time after `@` is now or a number. Raises ValueError otherwise: an expression there looks back unseen."""
    if unread := UNREAD.search(text):
        shown = " ".join(text[unread.start() :].split())[:LONGEST_SHOWN]
        raise ValueError(f"the time in `{shown}` cannot be read; write an offset such as `offset 1h`")
    return text


def _length(text: str, step: timedelta) -> timedelta:
    """A length in brackets or after `offset`. Raises ValueError when it cannot be read."""
    if not text.strip():
        return NOTHING
    try:
        tree = ast.parse(LENGTH.sub(lambda token: _translated(token, step), text.strip()), mode="eval")
        return timedelta(seconds=min(max(_value(tree.body), 0.0), MOST.total_seconds()))
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ValueError(f"the length `{text.strip()[:LONGEST_SHOWN]}` cannot be read; write a time such as `5m`") from error


def _translated(token: re.Match[str], step: timedelta) -> str:
    """A token of a length as Python has it: times in seconds, and `^` for powers."""
    match token.lastgroup:
        case "time":
            parts = ((float(number), unit.lower()) for number, unit in PART.findall(token["time"]))
            return f"({sum(number * (step.total_seconds() if unit == 'i' else SECONDS[unit]) for number, unit in parts)!r})"
        case "step":
            return f"({step.total_seconds()!r})"
        case "power":
            return "**"
    return token[0].lower()


def _value(node: ast.expr) -> float:
    """The largest value that a length may have. Differences count as sums, so that a warm-up is never too short."""
    match node:
        case ast.Constant(value=float() | int() as value) if value < INFINITE:
            return float(value)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right):
            return _value(left) + _value(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _value(left) * _value(right)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _value(left) / _value(right)
        case ast.BinOp(left=left, op=ast.Mod()):
            return _value(left)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return math.pow(_value(left), _value(right))
        case ast.Call(func=ast.Name(id="min" | "max"), args=[_, *_] as arguments, keywords=[]):
            return max(_value(argument) for argument in arguments)
    raise ValueError("not a length")
