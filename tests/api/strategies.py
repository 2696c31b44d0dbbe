"""Hypothesis strategies made from the schemas of the CRDs: whatever the API server may accept, boundaries first.

Types, bounds, patterns, enums, list types and the CEL rules of one node are read from the schema, so a new field is
generated as soon as it exists. What rules of a whole rollout demand (names that refer to each other, percentages that
rise) is made true by `api.consistency`. Long lists are a few drawn entries repeated under other names, and long strings a
few drawn characters, so that the largest objects cost Hypothesis no more than small ones.
"""

import copy
import functools
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as sre_parser  # type: ignore[attr-defined]
from typing import Any, Final

import cel
from hypothesis import strategies as st

from session_rollout.api.crds import action_definition, rollout_definition
from session_rollout.cli.admission import _context, _defaulted

Object = dict[str, Any]
Schema = Mapping[str, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]
DURATIONS: Final = (
    "1s",
    "0s",
    "1ms",
    "999ms",
    "10s",
    "1m",
    "60000ms",
    "1h30m",
    "1d12h",
    "52w1d",
    "365d",
    "8760h",
    "31536000000ms",
)
SHORTER_DURATIONS: Final = {
    "to 31d:": ("1h", "7d", "31d", "60m"),
    "to 1h:": ("1m", "30m", "1h", "60s"),
}  # by the message of the rule
EDGE_DURATIONS: Final = ("00000001s", "0w0d0h0m1s0ms", "51w7d23h59m59s1000ms", "1000ms")
UNICODE: Final = (
    "x",
    " ",
    "é",
    "\n",
    "\t",
    "\U0001d54f",
    "\u202e",
    "\u0000",
    "\u2028",
    '"',
    "\\",
    "'",
    "$cohort",
    "{",
    "</b>",
    "\x1b[31m",
    "[/]",
    "a\U0001d54f\u0301\u202e\n\u2028\\'\"${{[/]</b>\x1b[0m\u0000é",
)
# Values that mean something to somebody: by the name of the field. What the schema refuses is not used.
MEANINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "timeZone": ("UTC", "Europe/Berlin", "America/Argentina/ComodRivadavia", "Mars/Olympus", "Europe", "/", "/etc", "-", "posix/UTC", "Etc/GMT-14", "localtime", "A" * 64),
    "query": ("up", "sum(rate(a[5m])) / sum(rate(b[5m]))", "a offset 9999y", "rate(a[9999y])", "rate(a[1ms:1ms])", "(" * 900 + "1" + ")" * 900, "-" * 2000 + "1", "a @ 1e300", "sum by (x) (a", "", "1", "a[365d]", "rate(a[365d] offset 365d)", "{}", "max_over_time(rate(a[5m])[30d:1m])", "é", "a + " * 500 + "a", "99999999999999999999999999w", "rate(a[0s])", "a offset -5m", "quantile_over_time(NaN, a[1m])"),
    "good": ('a{v="$cohort"}', "$cohort", 'rate(a{v="$cohort"}[365d])', "(" * 500 + "$cohort", "$cohort" * 292),
    "total": ('b{v="$cohort"}', "$cohort", "$cohort offset 9999y"),
    "at": ("2026-11-20T09:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "2024-02-29T00:00:00+14:00", "1970-01-01T00:00:00.1-12:00"),
}  # fmt: skip
PERCENTAGES: Final = (100, 0, 1, 50, 99, "100", "0.1", "99.9", "00", "5.0", "33.3")
MORE_ENTRIES: Final = (0, 1, 1, 1, 2, 2, 3)
BOOLEANS: Final = st.booleans()
RARELY: Final = 150  # one in as many objects has all lists as long as they may be
POOL: Final = 200  # strings for each pattern
FLIPS: Final = 200  # of fields, until the rules of a node hold


def root(definition: Schema) -> Schema:
    """The schema of a kind."""
    [version] = definition["spec"]["versions"]
    schema: Schema = version["schema"]["openAPIV3Schema"]
    return schema


ROLLOUT: Final = root(rollout_definition())
ACTION: Final = root(action_definition())


def paths(schema: Schema, path: str = "") -> Iterator[str]:
    """Every field of a schema, and every value of an enum."""
    for name, child in schema.get("properties", {}).items():
        yield f"{path}.{name}"
        yield from paths(child, f"{path}.{name}")
    yield from (f"{path}={value}" for value in schema.get("enum", ()))
    yield from paths(schema["items"], f"{path}[]") if "items" in schema else ()


def touched(value: Any, schema: Schema, path: str = "") -> Iterator[str]:
    """Those that an object has."""
    if isinstance(value, dict):
        for name, entry in value.items():
            yield f"{path}.{name}"
            yield from touched(entry, schema["properties"][name], f"{path}.{name}")
    elif isinstance(value, list):
        for entry in value:
            yield from touched(entry, schema["items"], f"{path}[]")
    elif "enum" in schema:
        yield f"{path}={value}"


# --- strategies, each made once: Hypothesis examines a new one whenever it is drawn from


@functools.cache
def one_of(values: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """Any of these."""
    return st.sampled_from(values)


@functools.cache
def number(least: int, most: int) -> st.SearchStrategy[int]:
    """At an end of the range, or anywhere in it."""
    near = sorted({least, min(least + 1, most), min(least + 2, most), max(most - 1, least), most})
    return st.sampled_from(near) | st.integers(least, most)


@functools.cache
def mask(every: int) -> st.SearchStrategy[int]:
    """No bit, all of them, or any."""
    return st.sampled_from((0, every)) | st.integers(0, every)


# --- rules of one node


@functools.cache
def _program(rule: str) -> Any:
    return cel.compile(rule)


def broken(value: Any, schema: Schema) -> list[str]:
    """The rules of a node that do not hold for it with its defaults; those about a change are left out."""
    rules = [validation["rule"] for validation in schema.get("x-kubernetes-validations", ())]
    if not rules:
        return []
    failing, context = [], _context(_defaulted(value, schema))
    for rule in rules:
        if "oldSelf" in rule:
            continue
        try:
            holds = _program(rule).execute(context)
        except (RuntimeError, ValueError, LookupError, TypeError, ArithmeticError):
            holds = False
        if holds is not True:
            failing.append(rule)
    return failing


# --- strings


@functools.cache
def matching(pattern: str, longest: int) -> tuple[str, ...]:
    """Strings that a pattern matches: shortest, longest or between, of characters at the ends of their ranges."""
    source = random.Random(pattern)
    nodes = list(sre_parser.parse(pattern))
    return tuple(sorted({_repeat(source, nodes, longest) for _ in range(POOL)}, key=lambda text: (len(text), text)))


def _repeat(source: random.Random, nodes: list[Any], longest: int) -> str:
    text = ""
    for kind, value in nodes:
        room = max(longest - len(text), 0)
        match kind:
            case sre.AT:
                continue
            case sre.LITERAL:
                text += chr(value)
            case sre.IN:
                text += source.choice(_characters(tuple(value)))
            case sre.SUBPATTERN:
                text += _repeat(source, list(value[-1]), room)
            case sre.BRANCH:
                text += _repeat(source, list(source.choice(value[1])), room)
            case sre.MAX_REPEAT:
                text += _times(source, value, room)
            case _:
                raise NotImplementedError(f"{kind} in a pattern")
    return text


def _times(source: random.Random, repeat: Any, room: int) -> str:
    least, most, nodes = repeat
    most = min(int(most), room) if len(nodes) == 1 and nodes[0][0] is sre.IN else int(most)
    count = source.choice(sorted({least, min(least + 1, most), min(least + 3, most), most}))
    return "".join(_repeat(source, list(nodes), room) for _ in range(count))


@functools.cache
def _characters(ranges: tuple[Any, ...]) -> tuple[str, ...]:
    """The first and the last of each range, and each single one."""
    ends = [(value if kind is sre.RANGE else (value, value)) for kind, value in ranges]
    return tuple(dict.fromkeys(chr(end) for pair in ends for end in pair))


@dataclass
class Maker:
    """Makes one value from a schema. The lists that `long` names have as many entries as they may."""

    draw: Draw
    long: frozenset[str] = frozenset()

    def value(self, schema: Schema, path: str = "") -> Any:
        """A value that satisfies the schema and the rules of each of its nodes, except those of the whole spec."""
        if "enum" in schema:
            return self.draw(one_of(tuple(schema["enum"])))
        if schema.get("x-kubernetes-int-or-string"):
            return self.draw(one_of(PERCENTAGES))
        match schema["type"]:
            case "boolean":
                return self.draw(BOOLEANS)
            case "integer":
                return self._number(schema)
            case "string":
                return self._text(schema, path)
            case "array":
                return self._list(schema, path)
        return self.object(schema, path)

    def _number(self, schema: Schema) -> int:
        return int(self.draw(number(schema["minimum"], schema["maximum"])))

    def _text(self, schema: Schema, path: str) -> str:
        for _ in range(20):
            text = self._candidate(schema, path.rsplit(".", 1)[-1])
            fits = schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", len(text))
            if fits and ("pattern" not in schema or re.search(schema["pattern"], text)) and not broken(text, schema):
                return text
        raise AssertionError(f"no text for {path}: {schema}")

    def _candidate(self, schema: Schema, name: str) -> str:
        longest = schema.get("maxLength", 64)
        if name in MEANINGS and (schema.get("format") or self.draw(one_of(tuple(range(8))))):
            return str(self.draw(one_of(MEANINGS[name])))
        if "ms)?$" in schema.get("pattern", "") and schema["pattern"].startswith("^("):
            shorter = next((texts for rule, texts in SHORTER_DURATIONS.items() if rule in str(schema)), None)
            return str(self.draw(one_of(shorter or DURATIONS + EDGE_DURATIONS)))
        if schema.get("format") == "date-time":
            return str(self.draw(one_of(MEANINGS["at"])))
        if "pattern" in schema:
            return str(self.draw(one_of(matching(schema["pattern"], longest))))
        sign, length = self.draw(one_of(UNICODE)), self.draw(one_of((1, 0, 2, longest)))
        return str(sign * length)[:longest]

    # --- lists

    def _list(self, schema: Schema, path: str) -> list[Any]:
        least, most, items = schema.get("minItems", 0), schema["maxItems"], schema["items"]
        count = most if path in self.long else min(max(least, self.draw(one_of(MORE_ENTRIES))), most)
        if "enum" in items:
            first = self.draw(one_of(tuple(range(len(items["enum"])))))
            return [*items["enum"][first:], *items["enum"][:first]][:count]
        drawn = [self.value(items, f"{path}[]") for _ in range(min(count, 3))]
        entries = [copy.deepcopy(drawn[index % 3]) for index in range(count)]
        keys = [key for key in schema.get("x-kubernetes-list-map-keys", ()) if "enum" not in items["properties"][key]]
        if keys or schema.get("x-kubernetes-list-type") == "set":
            text = items["properties"][keys[0]] if keys else items
            distinct(entries, keys[0] if keys else None, text.get("maxLength", 40))
        return entries

    # --- objects

    def object(self, schema: Schema, path: str, *, rules: bool = True) -> Object:
        """An object with some of its optional fields: none, all, or any."""
        required = [name for name in schema.get("properties", {}) if name in schema.get("required", ())]
        optional = [name for name in schema.get("properties", {}) if name not in required]
        every = (1 << len(optional)) - 1
        bits = self.draw(mask(every)) if optional else 0
        present = [name for bit, name in enumerate(optional) if bits >> bit & 1]
        value: Object = {name: self.value(schema["properties"][name], f"{path}.{name}") for name in required}
        values = _Lazily(self, schema, path, value)
        for name in present:
            value[name] = values.of(name)
        if rules:
            values.keep_rules(set(optional))
        return {name: value[name] for name in schema.get("properties", {}) if name in value}


@dataclass
class _Lazily:
    """The optional fields of one object: made when they are needed, put in and taken out until its rules hold."""

    maker: Maker
    schema: Schema
    path: str
    value: Object
    known: Object = field(default_factory=dict)

    def of(self, name: str) -> Any:
        """The value of a field, whether the object has it or not."""
        if name not in self.known:
            self.known[name] = self.maker.value(self.schema["properties"][name], f"{self.path}.{name}")
        return self.known[name]

    def keep_rules(self, optional: set[str]) -> None:
        """Flip fields that a broken rule names, one at a time; the order depends only on what is there."""
        source = random.Random(json.dumps(sorted(self.value)) + self.path)
        for _ in range(FLIPS):
            failing = [
                names for rule in broken(self.value, self.schema) if (names := _named(rule) & optional)
            ]  # others are for `consistency`
            if not failing:
                return
            name = source.choice(sorted(source.choice(failing)))
            if name in self.value:
                del self.value[name], self.known[name]
            else:
                self.value[name] = self.of(name)


@functools.cache
def _named(rule: str) -> frozenset[str]:
    return frozenset(re.findall(r"has\(self\.(\w+)\)", rule))


def distinct(entries: list[Any], key: str | None, longest: int) -> None:
    """Give entries of a set or map that occur again other names, of the same characters and no longer than allowed."""
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        text = entry[key] if key else entry
        if text in seen:
            suffix = f"x{index}"
            text = text[: min(longest, 40) - len(suffix)] + suffix
            if key:
                entry[key] = text
            else:
                entries[index] = text
        seen.add(text)


def lists(schema: Schema, path: str = "") -> Iterator[str]:
    """The path of every list."""
    if "items" in schema:
        yield path
        yield from lists(schema["items"], f"{path}[]")
    for name, child in schema.get("properties", {}).items():
        yield from lists(child, f"{path}.{name}")


LISTS: Final = tuple(lists(ROLLOUT["properties"]["spec"]))


@st.composite
def drafts(draw: Draw) -> tuple[Object, Maker]:
    """The spec of a rollout, valid but for the rules of the whole, and its maker."""
    how_many = draw(one_of((0,) * 8 + (1,) * 8 + (2, 2, 4)))
    every = draw(st.integers(0, RARELY)) == RARELY // 3  # not an end of the range, which Hypothesis prefers
    maker = Maker(draw, frozenset(LISTS if every else (draw(one_of(LISTS)) for _ in range(how_many))))
    return maker.object(ROLLOUT["properties"]["spec"], "", rules=False), maker


@st.composite
def action_specs(draw: Draw) -> Object:
    """The spec of an action, valid by every rule."""
    return Maker(draw).object(ACTION["properties"]["spec"], "")


@st.composite
def statuses(draw: Draw) -> Object:
    """A status that the API server accepts from whoever may write one: its fields need not fit together, or to the spec."""
    return Maker(draw).object(ROLLOUT["properties"]["status"], ".status")
