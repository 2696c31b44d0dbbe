"""Ratios in PromQL: which of them return nothing, or always a number, when they should not. No server is involved.

A ratio of which the upper half selects by more labels than the lower one is empty until such a series exists: on a service that
never failed, `5xx / all` has no series, so that a healthy application waits for ever and a guard is blind.

A query that the parser does not know says nothing: a newer server may accept it, and so does `validate`.
Trees are walked with a list and not by recursion, because a query may be a chain of a thousand operators.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import promql_parser

from session_rollout.adapters.promql import children, nodes, parse

DIVIDE, OR, AND, UNLESS = "/", "or", "and", "unless"
ZERO: Final = "or vector(0)"
ALWAYS_THERE: Final = frozenset({"vector", "absent", "absent_over_time", "time", "scalar", "pi"})
COMPARISONS: Final = frozenset({">", ">=", "<", "<=", "==", "!="})
UNBOUNDED: Final = frozenset({"> 0", ">= 0", "!= 0"})  # comparisons that let a single event pass


Matcher = tuple[str, str, str]  # label, operator, value


@dataclass(frozen=True)
class Selector:
    """A selection of series."""

    name: str | None
    matchers: frozenset[Matcher]


@dataclass(frozen=True)
class Ratio:
    """A division, and the query that returns 0 instead of nothing while the upper half has no series."""

    numerator: str
    denominator: str
    can_be_absent: bool
    rewritten: str  # the whole query
    events: (
        str | None
    )  # the query that counts the events below, such as all requests; None if they are no events, or have a minimum


def ratios(query: str) -> tuple[Ratio, ...]:
    """Every division of two selections of series."""
    try:
        tree = parse(query)
        whole = str(tree)
    except (ValueError, RecursionError):
        return ()  # the parser cannot write a chain of a thousand operators, so that there is nothing to propose
    return tuple(_ratio(division, whole) for division in _divisions(tree))


def is_zero_without_traffic(query: str) -> bool:
    """Whether the whole query is a ratio that is 0 when both halves are absent: a service without requests then passes."""
    node = _bare(_tree(query))
    if not _is_operator(node, OR) or next(_selectors(node.rhs), None) is not None:
        return False
    return any(_divides(inner) for inner in nodes(node.lhs))


def needs_default(part: str, whole: str) -> bool:
    """Whether the query of a part can be absent while that of the whole is not, such as the good events of all."""
    return _can_be_absent(_tree(part), tuple(_selectors(_tree(whole))))


def _tree(query: str) -> Any:
    """The tree of a query; None when it cannot be parsed."""
    try:
        return parse(query)
    except ValueError:
        return None


# --- divisions


@dataclass(frozen=True)
class _Division:
    node: Any
    can_be_absent: bool
    has_minimum: bool  # the query returns nothing for few events


def _divisions(tree: Any, *, has_minimum: bool = False) -> list[_Division]:
    """Every division of two selections. One that can be absent is made up for by an `or` with what cannot."""
    divisions: list[_Division] = []
    pending = [(tree, has_minimum)]
    while pending:
        node, bounded = pending.pop()
        if _is_operator(node, OR):
            divisions += _alternatives(_divisions(node.lhs, has_minimum=bounded), _divisions(node.rhs, has_minimum=bounded))
            continue
        if _divides(node):
            absent = not _fills(node) and _can_be_absent(node.lhs, tuple(_selectors(node.rhs)))
            divisions.append(_Division(node, absent, bounded))
        bounded = bounded or (_is_operator(node, AND) and any(_compares(inner) for inner in nodes(node.rhs)))
        pending += [(child, bounded) for child in reversed(children(node))]
    return divisions


def _alternatives(first: list[_Division], other: list[_Division]) -> list[_Division]:
    if all(any(division.can_be_absent for division in each) for each in (first, other)):
        return [*first, *other]
    return [replace(division, can_be_absent=False) for division in (*first, *other)]


def _divides(node: Any) -> bool:
    halves = (node.lhs, node.rhs) if _is_operator(node, DIVIDE) else ()
    return bool(halves) and all(next(_selectors(half), None) is not None for half in halves)


def _ratio(division: _Division, whole: str) -> Ratio:
    node = division.node
    upper, lower = str(_bare(node.lhs)), str(node.rhs)
    if not (_has_no_labels(node.lhs) and _has_no_labels(node.rhs)):
        upper, lower = f"sum({upper})", f"sum({_bare(node.rhs)})"  # the series of `vector(0)` would match none with labels
    return Ratio(
        numerator=_plain(str(node.lhs)),
        denominator=_plain(str(node.rhs)),
        can_be_absent=division.can_be_absent,
        rewritten=_plain(whole.replace(str(node), f"({upper} {ZERO}) / {lower}", 1)),
        events=None if division.has_minimum else _events(node.rhs),
    )


def _has_no_labels(node: Any) -> bool:
    """Whether the result is one series without labels."""
    node = _bare(node)
    while isinstance(node, promql_parser.BinaryExpr):
        node = _bare(node.lhs)
    if isinstance(node, promql_parser.AggregateExpr):
        return node.modifier is None
    return isinstance(node, promql_parser.Call) and node.func.name == "scalar"


def _plain(text: str) -> str:
    """The parser's text without the braces that it adds to a selector without labels."""
    return re.sub(r"(?<=\w)\{\}", "", text)


# --- events


def _events(node: Any) -> str | None:
    """The number of events in the range of a rate; None when few of them give no result."""
    if any(_is_minimum(inner) for inner in nodes(node)):
        return None
    counted, times = re.subn(r"\b(?:irate|rate)\(", "increase(", _plain(str(_bare(node))))
    return counted if times or "increase(" in counted else None


def _is_minimum(node: Any) -> bool:
    if _compares(node):
        return f"{node.op} {node.rhs}" not in UNBOUNDED
    return isinstance(node, promql_parser.Call) and node.func.name == "clamp_min"


def _compares(node: Any) -> bool:
    return isinstance(node, promql_parser.BinaryExpr) and str(node.op) in COMPARISONS


# --- what can be absent


def _can_be_absent(part: Any, wider: Sequence[Selector]) -> bool:
    """Whether the part selects less than the wider selectors do, and has nothing that replaces missing series."""
    pending = [part]
    while pending:
        node = pending.pop()
        if isinstance(node, promql_parser.VectorSelector):
            if _selects_less(_selector(node), wider):
                return True
        elif _is_operator(node, OR):
            if _can_be_absent(node.lhs, wider) and _can_be_absent(node.rhs, wider):
                return True
        elif not _fills(node) and not (isinstance(node, promql_parser.Call) and node.func.name in ALWAYS_THERE):
            pending += children(node)[:1] if _is_operator(node, UNLESS) else children(node)
    return False


def _selects_less(selector: Selector, wider: Sequence[Selector]) -> bool:
    """By a label that is not selected there, unless both select by labels of their own; or a counter, which may not have counted yet."""
    same = [other for other in wider if other.name == selector.name]
    if same:
        return all(selector.matchers - other.matchers for other in same)
    known = frozenset(matcher for other in wider for matcher in other.matchers)
    narrower = selector.matchers - known and _labels(known) <= _labels(selector.matchers)
    return bool(wider) and (bool(narrower) or (selector.name or "").endswith("_total"))


def _labels(matchers: frozenset[Matcher]) -> frozenset[str]:
    return frozenset(label for label, _, _ in matchers)


def _fills(node: Any) -> bool:
    """Whether an operator has a value for what is missing on its left."""
    modifier = node.modifier if isinstance(node, promql_parser.BinaryExpr) else None
    return modifier is not None and modifier.fill_values.lhs is not None


def _selectors(node: Any) -> Iterator[Selector]:
    return (_selector(inner) for inner in nodes(node) if isinstance(inner, promql_parser.VectorSelector))


def _selector(node: Any) -> Selector:
    """What narrows a selection. The bounds of buckets do not: each series of a histogram has all of them."""
    known = (each for each in node.matchers.matchers if each.name not in {"__name__", "le"})
    return Selector(node.name, frozenset((each.name, str(each.op), each.value) for each in known))


# --- trees


def _is_operator(node: Any, operator: str) -> bool:
    return isinstance(node, promql_parser.BinaryExpr) and str(node.op) == operator


def _bare(node: Any) -> Any:
    while isinstance(node, promql_parser.ParenExpr):
        node = node.expr
    return node
