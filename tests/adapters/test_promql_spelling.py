"""Two queries have the same spelling exactly if they mean the same as far as their trees say."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab import sources
from session_rollout.adapters.promql import parse, spelled
from session_rollout.api.metrics import Metric


def of(query: str) -> str:
    """The spelling of one query."""
    return spelled(Metric.model_construct(name="m", query=query, cohorts=None))


SAME: Final = [
    ('x{a="1",b=~"2|3"}', 'x{b=~"2|3", a="1",}', "{b=~`2|3`, __name__='x', a='1', a='1'}", '{"x", a="1", b=~"2|3"}'),
    ("x", "((x))", "x{}", "{__name__='x'}", "+x", " x # all of them"),
    ("sum by (a, b) (x)", "sum by (b, a) (x)", "sum(x) by (b, a,)", "SUM((x)) BY (a, b)"),
    ("sum without (a, b) (x)", "sum(x) without (b, a)"),
    ("a / on (x, y) group_left (z, w) b", "(a) / on (y, x) group_left (w, z) (b)"),
    ("a / ignoring (x, y) b", "(a / ignoring (y, x) b)"),
    ("a - b - c", "(a - b) - c"),
    ("a ^ b ^ c", "a ^ (b ^ c)"),
    ("rate(x[60m] offset 90s)", "rate((x[1h] offset 1m30s))"),
    ("max_over_time(x[1h:1m] @ end())", "max_over_time((x)[60m:60s] @ end())"),
    ("-x ^ 2", "-(x ^ 2)"),
    ("topk(3, x)", "topk((3.0), x)"),
    ('x{a="1" or b="2"}', 'x{b="2" or a="1"}', '{__name__="x",a="1" or __name__="x",b="2"}'),
]
OTHER: Final = [
    ('x{a="1"}', 'x{a!="1"}', 'x{a=~"1"}', 'x{a!~"1"}', 'x{b="1"}', 'y{a="1"}', "x", '{a="1"}', 'x{a="1"} @ end()'),
    ('x{a="1",b="2"}', 'x{a="1\\",b=\\"2"}', 'x{a="1" or b="2"}', 'x{a="2",b="1"}'),
    (r'x{a="\\n"}', r'x{a="\n"}', r'x{a="\xff"}', 'x{a="ÿ"}'),
    ("sum by (a) (x)", "sum without (a) (x)", "sum (x)", "sum without () (x)", "sum by (a, b) (x)", "max by (a) (x)"),
    ("a / on (x) b", "a / ignoring (x) b", "a / b", "a / on () b", "a / on (x) group_left () b", "a / on (x) group_right () b"),
    (
        "a / on (x) group_left (z) b",
        "a / on (z) group_left (x) b",
        "a / on (x) group_left (z, w) b",
        "b / on (x) group_left (z) a",
    ),
    ("a - (b - c)", "a - b - c", "a - b + c"),
    ("(a ^ b) ^ c", "a ^ b ^ c"),
    ("-x ^ 2", "(-x) ^ 2", "x ^ 2", "--x ^ 2"),
    ("-1 ^ 2", "(-1) ^ 2"),
    ("a or b and c", "(a or b) and c"),
    ("a > b", "a > bool b", "a >= b"),
    ("a + b", "a + fill(0) b", "a + fill_left(0) b", "a + fill_right(0) b"),
    (
        "rate(x[5m])",
        "rate(x[5m] offset 5m)",
        "rate(x[5m] offset -5m)",
        "rate(x[5m] @ 300)",
        "rate(x[5m] @ 300.5)",
        "irate(x[5m])",
    ),
    ("rate(x[1s])", "rate(x[1500ms])", "rate(x[1s:])", "rate(x[1s:1s])", "rate(x[1s:1500ms])"),
    ("x @ -17", "x @ # 5\n -18", "x @ 0", "x @ start()", "x @ 1e15", "x @ 2e15", "x @ 1700000000000"),
    ("topk(3, x)", "topk(4, x)", "bottomk(3, x)"),
    ('count_values("v", x)', 'count_values("w", x)'),
    ('label_replace(x, "a", "$1", "b", "(.*)")', 'label_replace(x, "b", "$1", "a", "(.*)")'),
    ("0.1", "0.10000000000000002", "nan", "inf", "-inf", "1"),
]


@pytest.mark.parametrize("queries", SAME, ids=[row[0] for row in SAME])
def test_another_spelling_is_the_same_query(queries: tuple[str, ...]) -> None:
    """An edit of this kind starts no rolled-back rollout again, and a guard continues its failure."""
    assert len({of(query) for query in queries}) == 1


@pytest.mark.parametrize("queries", OTHER, ids=[row[0] for row in OTHER])
def test_another_query_has_another_spelling(queries: tuple[str, ...]) -> None:
    """A fix would not be tried, and the evidence of one query would count for another."""
    assert len({of(query) for query in queries}) == len(queries)


# --- trees and their spellings


@dataclass(frozen=True)
class Tree:
    """A query without its spelling: what it is, its parts, and the sets that are written in any order."""

    kind: str
    parts: tuple[Any, ...] = ()
    sets: tuple[frozenset[str], ...] = ()


LABELS: Final = st.frozensets(st.sampled_from(["a", "b", "c"]), max_size=3)
VALUES: Final = st.sampled_from(["1", "2", '1",b="2', "\\", "\n", "{", "é"])
MATCHERS: Final = st.frozensets(
    st.builds(
        lambda label, match, value: (
            label + match + '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        ),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["=", "!="]),
        VALUES,
    ),
    max_size=3,
)
LENGTHS: Final = st.sampled_from([0, 1500, 60_000, 90_000, 3_600_000])
SELECTORS: Final = st.builds(
    lambda name, offset, matchers: Tree("selector", (name, offset), (matchers,)), st.sampled_from(["x", "y"]), LENGTHS, MATCHERS
)


def grown(inner: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    """A larger tree."""
    operators = st.sampled_from(["+", "-", "/", "^", "and", "or", "> bool", "=="])
    return st.one_of(
        st.builds(lambda part: Tree("-", (part,)), inner),
        st.builds(
            lambda part, word, labels: Tree("sum", (part, word), (labels,)), inner, st.sampled_from(["by", "without"]), LABELS
        ),
        st.builds(lambda part, length: Tree("subquery", (part, length)), inner, LENGTHS.filter(bool)),
        st.builds(lambda left, operator, right: Tree("plain", (left, operator, right)), inner, operators, inner),
        st.builds(
            lambda left, word, right, labels: Tree("matched", (left, word, right), (labels,)),
            inner,
            st.sampled_from(["on", "ignoring"]),
            inner,
            LABELS,
        ),
    )


TREES: Final = st.recursive(SELECTORS, grown, max_leaves=5)


class Writer:
    """Writes trees as queries, each time otherwise."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw

    def write(self, tree: Tree) -> str:
        """The text of an operand."""
        kinds: dict[str, Callable[[Tree], str]] = {
            "selector": self.selector,
            "-": self.negative,
            "sum": self.sum,
            "subquery": self.subquery,
            "plain": self.plain,
            "matched": self.matched,
        }
        text = kinds[tree.kind](tree)
        needed = tree.kind in {"-", "plain", "matched"}
        times: int = needed + self.draw(st.integers(0, 1))
        return "(" * times + text + ")" * times

    def joined(self, members: frozenset[str]) -> str:
        separator: str = self.draw(st.sampled_from([",", " , "]))
        return separator.join(self.draw(st.permutations(sorted(members))))

    def length(self, milliseconds: int) -> str:
        texts = [f"{milliseconds}ms", *([f"{milliseconds // 1000}s"] if milliseconds % 1000 == 0 else ["1s500ms"])]
        return str(self.draw(st.sampled_from(texts)))

    def selector(self, tree: Tree) -> str:
        (name, offset), (matchers,) = tree.parts, tree.sets
        named = f"{name}{{{self.joined(matchers)}}}"
        text = self.draw(st.sampled_from([named, "{" + self.joined(matchers | {f'__name__="{name}"'}) + "}"]))
        return f"{text} offset {self.length(offset)}" if offset else text

    def negative(self, tree: Tree) -> str:
        return f"-{self.write(tree.parts[0])}"

    def sum(self, tree: Tree) -> str:
        part, grouping = self.write(tree.parts[0]), f"{tree.parts[1]} ({self.joined(tree.sets[0])})"
        return str(self.draw(st.sampled_from([f"sum {grouping} ({part})", f"sum({part}) {grouping}"])))

    def subquery(self, tree: Tree) -> str:
        return f"max_over_time(({self.write(tree.parts[0])})[{self.length(tree.parts[1])}:])"

    def plain(self, tree: Tree) -> str:
        left, operator, right = tree.parts
        return f"{self.write(left)} {operator} {self.write(right)}"

    def matched(self, tree: Tree) -> str:
        left, word, right = tree.parts
        return f"{self.write(left)} / {word} ({self.joined(tree.sets[0])}) {self.write(right)}"


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(TREES, st.data())
def test_equal_trees_have_one_spelling(tree: Tree, data: st.DataObject) -> None:
    """Also the spelling itself is a query, with the same spelling."""
    first, second = (Writer(data.draw).write(tree) for _ in range(2))
    assert of(first) == of(second)
    assert parse(of(first)) is not None
    assert of(of(first)) == of(first)


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[Tree, Tree]:
    """Two trees that often differ in one place alone."""
    tree = draw(TREES)
    return tree, draw(st.one_of(TREES, st.just(tree).flatmap(_changed)))


def _changed(tree: Tree) -> st.SearchStrategy[Tree]:
    """The tree with another part, set or order."""
    ordered = tree.kind in {"plain", "matched"}
    others = [st.just(replace(tree, parts=tuple(reversed(tree.parts)) if ordered else tree.parts))]
    for place, part in enumerate(tree.parts):
        if isinstance(part, Tree):
            before, after = tree.parts[:place], tree.parts[place + 1 :]
            parts = st.tuples(*map(st.just, before), TREES | _changed(part), *map(st.just, after))
            others.append(parts.map(partial(_with_parts, tree)))
    if tree.sets:
        others.append((MATCHERS if tree.kind == "selector" else LABELS).map(lambda new: replace(tree, sets=(new,))))
    return st.one_of(others)


def _with_parts(tree: Tree, parts: tuple[Any, ...]) -> Tree:
    return replace(tree, parts=parts)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(neighbours(), st.data())
def test_other_trees_have_other_spellings(trees: tuple[Tree, Tree], data: st.DataObject) -> None:
    """Whatever their text looks like."""
    first, second = (Writer(data.draw).write(tree) for tree in trees)
    assert (of(first) == of(second)) is (trees[0] == trees[1])


# --- Prometheus

SERIES: Final = {
    f'{name}{{a="{a}",b="{b}"}}': f"{start}+{step}x60"
    for name, step in (("x", 3), ("y", 2))
    for start, (a, b) in enumerate([("1", "2"), ("2", "2"), ('1\\",b=\\"2', "3")], start=1)
}
EVALUATED: Final = [
    'x{b="2",a="1"}',
    'x{a="1\\",b=\\"2"}',
    '{a!="1",__name__=~"x|z"} offset 5m',
    "-x ^ 2",
    "(-x) ^ 2",
    "x - (y - x)",
    "2 ^ 3 ^ 2 + x",
    "sum(x) by (b, a) / on (b, a) group_left () sum by (a, b) (y)",
    "sum without (a) (x) > bool 3",
    "rate(x[10m] offset 90s) or y",
    "max_over_time(rate(x[5m])[20m:1m] offset 1m)",
    "max_over_time((x - y)[10m:])",
    "topk(1, x) * 1.5e3",
    "quantile by (b) (0.9, x)",
    'count_values("v", x > 100)',
    'label_replace(x, "c", "$1\\n", "a", "(.*)")',
    "x and ignoring (a) y unless on (b) (y @ 60 > 10000)",
    "vector(time() - 1.1)",
    "-1 ^ 2 + x",
]


@pytest.mark.parametrize("query", EVALUATED)
def test_prometheus_gives_the_same_result(query: str, tmp_path: Path) -> None:
    """`promtool test rules`: the query and its spelling have the same series with the same values, and some."""
    other = of(query)
    different = f"(({query}) unless ({query}) == {other}) or ({other} unless {other} == ({query}))"
    expected = {f"count({different})": [], f"count({query}) > bool 0": [{"labels": "{}", "value": 1}]}
    document = {
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": series, "values": values} for series, values in SERIES.items()],
                "promql_expr_test": [
                    {"expr": expression, "eval_time": "40m", "exp_samples": samples} for expression, samples in expected.items()
                ],
            }
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(document))
    promtool = sources.prometheus().parent / "promtool"
    done = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
