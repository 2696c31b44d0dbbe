"""Ratios in PromQL: which of them return nothing, or always a number, when they should not. No server is involved.

A ratio of which the upper half selects by more labels than the lower one is empty until such a series exists: on a service that
never failed, `5xx / all` has no series, so that a healthy application waits for ever and a guard is blind.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import promql_parser

from session_rollout.adapters.promql import children, parse

DIVIDE, OR = "/", "or"
ZERO: Final = "or vector(0)"


@dataclass(frozen=True)
class Selector:
    """A selection of series."""

    name: str | None
    matchers: frozenset[str]


@dataclass(frozen=True)
class Ratio:
    """A division, and the query that returns 0 instead of nothing while the upper half has no series."""

    numerator: str
    denominator: str
    can_be_absent: bool
    rewritten: str  # the whole query
    events: str | None  # the query that counts the events below, such as all requests; None if they are no events


def ratios(query: str) -> tuple[Ratio, ...]:
    """Every division of two selections of series. Raises ValueError with the parser's sentence."""
    tree = parse(query)
    return tuple(_ratio(node, str(tree)) for node in _nodes(tree) if _divides(node))


def is_zero_without_traffic(query: str) -> bool:
    """Whether the whole query is a ratio that is 0 when both halves are absent: a service without requests then passes."""
    node = _bare(parse(query))
    if not isinstance(node, promql_parser.BinaryExpr) or str(node.op) != OR or next(_selectors(node.rhs), None) is not None:
        return False
    return any(_divides(inner) for inner in _nodes(node.lhs))


def needs_default(part: str, whole: str) -> bool:
    """Whether the query of a part can be absent while that of the whole is not, such as the good events of all."""
    return _can_be_absent(parse(part), parse(whole))


def _divides(node: Any) -> bool:
    halves = (node.lhs, node.rhs) if isinstance(node, promql_parser.BinaryExpr) and str(node.op) == DIVIDE else ()
    return bool(halves) and all(next(_selectors(half), None) is not None for half in halves)


def _ratio(node: Any, whole: str) -> Ratio:
    numerator, denominator = str(node.lhs), str(node.rhs)
    upper, lower = str(_bare(node.lhs)), denominator
    if not (_has_no_labels(node.lhs) and _has_no_labels(node.rhs)):
        upper, lower = f"sum({upper})", f"sum({_bare(node.rhs)})"  # the series of `vector(0)` would match none with labels
    rewritten = whole.replace(f"{numerator} / {denominator}", f"({upper} {ZERO}) / {lower}", 1)
    return Ratio(
        numerator=_plain(numerator),
        denominator=_plain(denominator),
        can_be_absent=_can_be_absent(node.lhs, node.rhs),
        rewritten=_plain(rewritten),
        events=_events(node.rhs),
    )


def _events(node: Any) -> str | None:
    """The number of events in the range of a rate."""
    counted, times = re.subn(r"\b(?:irate|rate)\(", "increase(", _plain(str(_bare(node))))
    return counted if times or "increase(" in counted else None


def _has_no_labels(node: Any) -> bool:
    """Whether the result is one series without labels."""
    match _bare(node):
        case promql_parser.AggregateExpr() as aggregate:
            return aggregate.modifier is None
        case promql_parser.BinaryExpr() as binary:
            return _has_no_labels(binary.lhs)
        case promql_parser.Call() as call:
            return call.func.name == "scalar"
    return False


def _plain(text: str) -> str:
    """The parser's text without the braces that it adds to a selector without labels."""
    return re.sub(r"(?<=\w)\{\}", "", text)


def _can_be_absent(part: Any, whole: Any) -> bool:
    """Whether the part selects less than the whole does, and has nothing that replaces missing series."""
    if any(isinstance(node, promql_parser.BinaryExpr) and str(node.op) == OR for node in _nodes(part)):
        return False
    wider = list(_selectors(whole))
    return any(_selects_less(selector, wider) for selector in _selectors(part))


def _selects_less(selector: Selector, wider: Sequence[Selector]) -> bool:
    """By a label that the same metric does not have there; or a counter of its own, which may not have counted yet."""
    same = [other for other in wider if other.name == selector.name]
    if same:
        return all(selector.matchers - other.matchers for other in same)
    return (selector.name or "").endswith("_total") and bool(wider)


def _selectors(node: Any) -> Iterator[Selector]:
    return (_selector(inner) for inner in _nodes(node) if isinstance(inner, promql_parser.VectorSelector))


def _selector(node: Any) -> Selector:
    matchers = (f"{matcher.name}{matcher.op}{matcher.value}" for matcher in node.matchers.matchers)
    return Selector(node.name, frozenset(matchers))


def _bare(node: Any) -> Any:
    while isinstance(node, promql_parser.ParenExpr):
        node = node.expr
    return node


def _nodes(node: Any) -> Iterator[Any]:
    """The node and everything below it."""
    yield node
    for inner in children(node):
        yield from _nodes(inner)
