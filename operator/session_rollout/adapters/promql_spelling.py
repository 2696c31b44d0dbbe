"""One spelling of each query in PromQL. It is a query with the same result, so that two queries with equal text mean the same.

Parentheses are where the tree needs them, a name is a matcher, a length is in milliseconds, and matchers and labels are sorted.
"""

import json
import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

import promql_parser

IDENTIFIER: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
MATCHES: Final = {"MatchOp.Equal": "=", "MatchOp.NotEqual": "!=", "MatchOp.Re": "=~", "MatchOp.NotRe": "!~"}
GROUPS: Final = {"VectorMatchCardinality.ManyToOne": "group_left", "VectorMatchCardinality.OneToMany": "group_right"}
TIMES: Final = {"AtModifierType.Start": "start()", "AtModifierType.End": "end()"}
MILLISECOND: Final = timedelta(milliseconds=1)
# What the parser reads as something else: a time before 1970, and bytes that are no text.
MISREAD: Final = re.compile(r"@\s*-|\\[x0-7]")


def spelling(node: Any) -> str:
    """The spelling of a tree, also as an operand."""
    while isinstance(node, promql_parser.ParenExpr):
        node = node.expr
    match node:
        case promql_parser.UnaryExpr():
            return f"(-{spelling(node.expr)})"
        case promql_parser.BinaryExpr():
            return f"({spelling(node.lhs)} {node.op}{_matching(node.modifier)} {spelling(node.rhs)})"
        case promql_parser.AggregateExpr():
            arguments = [node.expr] if node.param is None else [node.param, node.expr]
            return f"{node.op}{_grouping(node.modifier)}{_arguments(arguments)}"
        case promql_parser.Call():
            return f"{node.func.name}{_arguments(node.args)}"
        case promql_parser.SubqueryExpr():
            return f"({spelling(node.expr)})[{length_text(node.range)}:{length_text(node.step)}]{_time(node)}"
        case promql_parser.MatrixSelector(vector_selector=selector):
            return f"{_selector(selector)}[{length_text(node.range)}]{_time(selector)}"
        case promql_parser.VectorSelector():
            return f"{_selector(node)}{_time(node)}"
        case promql_parser.NumberLiteral():
            return f"({node.val!r})"  # a sign binds weaker than `^`
    return _text(node.val)


def _arguments(nodes: Sequence[Any]) -> str:
    return f"({', '.join(spelling(node) for node in nodes)})"


def _selector(node: Any) -> str:
    """With `or`, which VictoriaMetrics knows, the name is one of each alternative."""
    name = [] if node.name is None else [f"__name__={_text(node.name)}"]
    common = [*name, *map(_matcher, node.matchers.matchers)]
    alternatives = [[*common, *map(_matcher, group)] for group in node.matchers.or_matchers] or [common]
    return "{" + " or ".join(sorted({", ".join(sorted(set(group))) for group in alternatives})) + "}"


def _matcher(matcher: Any) -> str:
    return f"{_label(matcher.name)}{MATCHES[str(matcher.op)]}{_text(matcher.value)}"


def _time(node: Any) -> str:
    """Modifiers that move a selector in time."""
    offset = f" offset {length_text(node.offset)}" if node.offset else ""
    if node.at is None:
        return offset
    return f"{offset} @ {TIMES.get(str(node.at.type)) or format(node.at.at.timestamp(), '.3f')}"


def _grouping(modifier: Any) -> str:
    if modifier is None:
        return ""
    return f" {'by' if str(modifier.type) == 'AggModifierType.By' else 'without'} {_labels(modifier.labels)} "


def _matching(modifier: Any) -> str:
    """What an operator has in addition: `bool`, the labels that must be equal, and what is done for those that are not."""
    if modifier is None:
        return ""
    words = [" bool"] if modifier.return_bool else []
    if (matching := modifier.matching) is not None:
        words.append(f" {'on' if str(matching.type) == 'LabelModifierType.Include' else 'ignoring'} {_labels(matching.labels)}")
    if group := GROUPS.get(str(modifier.card)):
        words.append(f" {group} {_labels(modifier.group_labels or ())}")
    fills = (("left", modifier.fill_values.lhs), ("right", modifier.fill_values.rhs))
    words += [f" fill_{side} ({value!r})" for side, value in fills if value is not None]
    return "".join(words)


def _labels(labels: Iterable[str]) -> str:
    return f"({', '.join(sorted({_label(label) for label in labels}))})"


def _label(name: str) -> str:
    return name if IDENTIFIER.fullmatch(name) else _text(name)


def length_text(length: timedelta | None) -> str:
    """A length in milliseconds; nothing for None."""
    return "" if length is None else f"{length // MILLISECOND}ms"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
