"""Reads queries that no parser here knows, such as MetricsQL, by their brackets: how deep they are, and how far back they look.

Assumed: `[5m]` after a selector is its range, and after anything else, or with a colon, that of a subquery; `offset 5m` looks
further back; a range that is `anchored` or `smoothed` begins with a sample as old as the look-back; a number without a unit is
seconds; `step()` and the unit `i` are the step of an instant query; `@ end()` and `@ start()` are now, and `@` with a number is a
fixed time, which is never about the current audience. Arithmetic in brackets and offsets counts as the largest value that it
may have, so that a warm-up is never too short. A length that cannot be read is not guessed.
"""

import ast
import math
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
    r"\b(?P<offset>offset)\b(?=[-+\s]*[\w.$(])"
    r"|(?P<labels>\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\))|(?P<call>[a-z_:][\w:.]*\s*\()|(?P<open>\()|(?P<close>\))|\[(?P<range>[^\[\]]*)\]"
    r"|\b(?P<word>and|or|unless|atan2|default|if|ifnot|limit)\b|\b(?P<modifier>keep_metric_names)\b|\b(?P<edges>anchored|smoothed)\b"
    r"|\b(?P<glue>group_left|group_right|bool|[a-z_]\w*(?=\s+(?:by|without)\s*\([^()]*\)\s*\())\b"
    r"|(?P<number>[0-9][\w.]*|\b(?:inf|nan)\b)"
    r"|(?P<selector>[a-z_:][\w:.]*\s*(?:\{[^{}]*\})?|\{[^{}]*\})"
    r"|(?P<now>@\s*(?:start|end)\s*\(\s*\))|(?P<fixed>@\s*[-+]?[0-9][\w.]*)|(?P<operator>\S)",
    re.IGNORECASE,
)
NAMES: Final = frozenset({"offset", "word", "modifier", "edges"})  # words that are names of series where an operand begins
BETWEEN: Final = frozenset({"call", "open", "word", "glue", "operator"})  # what an operand follows
# The length after `offset`: a time, or the beginning of what ends with its parenthesis.
OFFSET: Final = re.compile(r"[-+\s]*(?:(?P<open>(?:[a-z_]\w*\s*)?\()|[\w.$]+)", re.IGNORECASE)


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

    def read(self, kind: str, token: re.Match[str], step: timedelta) -> None:
        """The next token, which is no parenthesis."""
        match kind:
            case "range":
                self.within(token["range"], step)
            case "offset":
                self.further(_length(token.string[token.end() : _end_of_length(token)], step))
            case "edges":  # with the last sample before the range, as old as the look-back
                self.last = [(reach, False) for reach, _ in self.last]
            case "fixed":
                self.last = []
            case "selector":
                self.operand([(NOTHING, False)], bare=True)
            case "operator" | "number" | "word" | "glue":
                self.operand([], bare=False)

    def further(self, length: timedelta) -> None:
        """The last operand looks this much further back."""
        self.last = [(min(reach + length, MOST), ranged) for reach, ranged in self.last]

    def within(self, brackets: str, step: timedelta) -> None:
        """The last operand has these brackets: the range of a selector, or a subquery."""
        length, colon, _ = brackets.partition(":")
        self.further(_length(length, step))
        self.last = [(reach, ranged or (self.bare and not colon)) for reach, ranged in self.last]
        self.bare = False


def scanned(query: str, step: timedelta = UNKNOWN) -> list[tuple[timedelta, bool]]:
    """Each selector of a query: how far back it looks, and whether it has a range. Raises ValueError."""
    levels = [_Level()]
    for kind, token in _tokens(_readable(without_text(query))):
        match kind:
            case "call" | "open":
                levels.append(_Level())
            case "close" if len(levels) > 1:
                inner = levels.pop()
                levels[-1].operand(inner.done + inner.last, bare=False)
            case _:
                levels[-1].read(kind, token, step)
    selectors = [selector for level in levels for selector in level.done + level.last]
    if not selectors and AT_NUMBER.search(without_text(query)):
        raise ValueError(FIXED)
    return selectors


def _tokens(text: str) -> Iterator[tuple[str, re.Match[str]]]:
    """The tokens of a query, and what each is. What follows `offset` is a length, and has none."""
    place, follows = 0, False  # whether an operand is before the token
    while token := TOKEN.search(text, place):
        kind = token.lastgroup or ""
        if kind in NAMES and not follows:
            kind = "selector"
        yield kind, token
        place = token.end() if kind != "offset" else _end_of_length(token)
        follows = kind not in BETWEEN and (kind != "labels" or follows)


def _end_of_length(offset: re.Match[str]) -> int:
    """Where the length after `offset` ends, in the text that contains it."""
    text, length = offset.string, OFFSET.match(offset.string, offset.end())
    assert length is not None, "as `TOKEN` looks ahead"
    place, depth = length.end(), int(length["open"] is not None)
    while depth and place < len(text):
        depth += (text[place] == "(") - (text[place] == ")")
        place += 1
    return place


def _readable(text: str) -> str:
    """The same, if each time after `@` is now or a number. Raises ValueError otherwise: an expression there looks back unseen."""
    if unread := UNREAD.search(text):
        shown = " ".join(text[unread.start() :].split())[:LONGEST_SHOWN]
        raise ValueError(f"the time in `{shown}` cannot be read; write an offset such as `offset 1h`")
    return text


def _length(text: str, step: timedelta) -> timedelta:
    """A length in brackets or after `offset`. Raises ValueError when it cannot be read."""
    text = " ".join(text.split())
    if not text:
        return NOTHING
    try:
        tree = ast.parse(LENGTH.sub(lambda token: _translated(token, step), text), mode="eval")
        return timedelta(seconds=min(max(_value(tree.body), 0.0), MOST.total_seconds()))
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ValueError(f"the length `{text[:LONGEST_SHOWN]}` cannot be read; write a time such as `5m`") from error


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
