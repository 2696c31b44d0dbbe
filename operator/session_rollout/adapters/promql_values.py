"""What the value of a query in PromQL can say: whether it is about any series, is there without them, or can be below 0."""

from collections.abc import Iterator
from typing import Any, Final

import promql_parser

from session_rollout.adapters.promql import children, nodes, parse
from session_rollout.adapters.promql_ratios import COMPARISONS

CONSTANT: Final = frozenset({"vector", "time", "pi"})
SIGNED: Final = frozenset(
    {"delta", "deriv", "double_exponential_smoothing", "holt_winters", "idelta", "ln", "log10", "log2", "predict_linear"}
)


def series_of(query: str) -> tuple[str, ...]:
    """Names of the series that a query selects, or an empty name for one that it selects by labels alone. Raises ValueError."""
    selectors = (node for node in nodes(parse(query)) if isinstance(node, promql_parser.VectorSelector))
    return tuple(node.name or _name_by_label(node) for node in selectors)


def _name_by_label(selector: Any) -> str:
    return next((each.value for each in selector.matchers.matchers if each.name == "__name__"), "")


def is_there_without_series(query: str) -> bool:
    """Whether the query has a value also when nothing is exported, although it selects series. Raises ValueError."""
    try:
        return bool(series_of(query)) and _is_there(parse(query))
    except RecursionError:  # a chain of a thousand operators
        return False


def _is_there(node: Any) -> bool:
    match node:
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            return True
        case promql_parser.BinaryExpr():
            return any(_parts_there(node)) if str(node.op) == "or" else _has_value(node) and all(_parts_there(node))
        case promql_parser.Call():
            return node.func.name in CONSTANT or (node.func.name not in {"absent", "scalar"} and all(_parts_there(node)))
        case promql_parser.VectorSelector() | promql_parser.MatrixSelector():
            return False
    return all(_parts_there(node))


def _parts_there(node: Any) -> Iterator[bool]:
    return (_is_there(child) for child in children(node))


def _has_value(node: Any) -> bool:
    """Not a division, which is 0/0 then, nor a comparison, which may select nothing."""
    return str(node.op) not in {"/", "%", "unless"} and not (str(node.op) in COMPARISONS and not _returns_bool(node))


def _returns_bool(node: Any) -> bool:
    return node.modifier is not None and bool(node.modifier.return_bool)


def is_zero_when_quiet(query: str) -> bool:
    """Whether a part of the query is 0 until a series exists, as errors are with `or vector(0)`. Raises ValueError."""
    alternatives = (node for node in nodes(parse(query)) if isinstance(node, promql_parser.BinaryExpr) and str(node.op) == "or")
    return any(_is_zero(node.rhs) for node in alternatives)


def _is_zero(node: Any) -> bool:
    while isinstance(node, promql_parser.ParenExpr):
        node = node.expr
    return isinstance(node, promql_parser.Call) and node.func.name == "vector" and _is_number(node.args[0], 0)


def _is_number(node: Any, value: float) -> bool:
    return isinstance(node, promql_parser.NumberLiteral) and node.val == value


def can_be_negative(query: str) -> bool:
    """Whether the query computes a difference or a change: what is counted or measured is not below 0. Raises ValueError."""
    return any(_is_signed(node) for node in nodes(parse(query)))


def _is_signed(node: Any) -> bool:
    if isinstance(node, promql_parser.BinaryExpr):
        return str(node.op) == "-"
    return isinstance(node, promql_parser.UnaryExpr) or (isinstance(node, promql_parser.Call) and node.func.name in SIGNED)
