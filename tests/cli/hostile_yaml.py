"""YAML that a file may contain and nobody means: aliases, tags, merge keys, numbers, times, control characters, deep nesting.

Half of the files are an example of ours with a few places spoiled, so that what comes after the parser is reached, too.
"""

import random
from collections.abc import Callable, Sequence
from typing import Final

from lab.lab import ROOT

EXAMPLES: Final = tuple(
    text
    for path in sorted((ROOT / "examples").glob("*.yaml"))
    if len(text := path.read_text()) < 4000 and "kind: SessionRollout" in text
)
SCALARS: Final = (
    "", "~", "null", "yes", "Off", "1", "-0", "1_000", "0x1F", "0o17", "0b1", "017", "190:20:30", "1e999", "-1e-999", ".inf", "-.INF", ".nan",
    "9" * 400, "9" * 5000, "0x" + "f" * 5000, "1." + "0" * 300, "12e03", "+.5", "685.230_15e+03", "10", "99.95", "100%", "0.1",
    "2001-12-14t21:59:43.10-05:00", "2001-02-30", "0000-00-00", "2001-12-14 99:99:99", "9999-12-31T23:59:59+23:59", "2001-1-1 1:1:1 +1", "0001-01-01T00:00:00+14:00",
    "=", "<<", "|", ">", "|9\n  x", ">-\n  folded\n  text", "'", '"', "'it''s'", '"\\u0000"', '"\\ud800"', '"\\uDC00\\ud800"', '"\\x85"', '"\\u202e"', '"\\UFFFFFFFF"',
    '"\\U0010ffff"', '"\\ud835\\udd4f"', "@", "`", "%", "&a 1", "*a", "*b", "!!str 1", "!!int x", "!!int ''", "!!int 1:99:99", "!!float x", "!!bool maybe", "!!null x",
    "!!binary x", "!!binary aGk=", "!!binary é", "!!timestamp x", "!!timestamp 2001-99-99", "!!python/object/apply:os.system [id]", "!!python/name:os", "!x y", "!<x> y",
    "!!str {a: b}", "!!map [a]", "!!seq {a: b}", "!!set {a, b}", "!!set [a]", "!!omap [a: 1, b: 2]", "!!omap [a]", "!!omap {}", "!!pairs [a: 1, a: 2]", "!!pairs [1]",
    "!!merge <<", "!!value =", "{}", "[]", "[{}]", "{{}: {}}", "{[a]: b}", "{1: a, 1.0: b}", "{~: a}", "{true: a}", "{2001-01-01: a}", "{a: 1, a: 2}", "? a", "? [a]\n: b",
    "SessionRollout", "SessionRolloutAction", "sessionrollout.dev/v1alpha1", "30s", "365d", "-1s", "$cohort", "x" * 300, "é" * 70, "a\u2028b", "a\u0085b", "\ufeff", "\t",
)  # fmt: skip
BREAKS: Final = ("\0", "\r", "\x85", "\u2028", "\ufeff", "\t", "\x1b", "\x7f", "\ud800", "\uffff", "\U0010ffff", "é", "---\n", "...\n", "%YAML 9.9\n---\n", "%TAG ! x\n", "# ", ": ", "- ", "? ", "&a ", "*a", "<<: *a\n", "!", "'", '"', "[", "]", "{", "}", ",", "\n", "\n\n", " ")  # fmt: skip
WHOLE: Final = (
    "&a [*a]", "&a {x: *a}", "&a {<<: *a}", "a: &a {b: 1}\n<<: *a", "<<: [{a: 1}, 2]", "<<: 1", "<<: [[1]]", "- 1\n- 2", "just text", "# nothing", "---\n---\n...", "--- a\n--- b",
    "kind: SessionRollout", "kind: [SessionRollout]\napiVersion: {}", "kind: SessionRollout\napiVersion: sessionrollout.dev/v1alpha1\nmetadata: []",
    "kind: SessionRollout\napiVersion: sessionrollout.dev/v1alpha1\nmetadata: {name: &n x, *n : y}\nspec: *n",
    "a: &a [x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nd: &d [*c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e, *e, *e]\ng: [*f, *f, *f, *f, *f, *f, *f, *f, *f]",
)  # fmt: skip
DEPTHS: Final = (3, 50, 200, 400, 1000, 5000, 100_000)
NESTS: Final = (("[", "]"), ("{a: ", "}"), ("- ", ""), ("!x [", "]"), ("? ", ""), ("[[", ""), ("{? ", ""), ("&a [", "]"))


def nested(source: random.Random) -> str:
    """Deep."""
    opening, closing = source.choice(NESTS)
    depth = source.choice(DEPTHS)
    return opening * depth + source.choice(("1", "", "{}")) + closing * depth


def blocks(source: random.Random) -> str:
    """Deep, by indentation."""
    depth = source.choice(DEPTHS[:5])
    return "\n".join(" " * level + "a:" for level in range(depth))


def tree(source: random.Random, depth: int = 0) -> str:
    """A flow node of scalars that are none."""
    if depth > 4 or source.random() < 0.4:
        return source.choice(SCALARS)
    parts = [tree(source, depth + 1) for _ in range(source.randrange(4))]
    if source.random() < 0.5:
        return f"[{', '.join(parts)}]"
    return "{" + ", ".join(f"{source.choice(SCALARS)}: {part}" for part in parts) + "}"


def spoiled(source: random.Random) -> str:
    """An example with other values, keys or lines."""
    lines = source.choice(EXAMPLES).splitlines()
    for _ in range(source.choice((1, 1, 1, 2, 5))):
        index = source.randrange(len(lines))
        line = lines[index]
        match source.randrange(6):
            case 0 | 1:
                lines[index] = line.partition(": ")[0] + ": " + source.choice((source.choice(SCALARS), tree(source)))
            case 2:
                lines[index] = line[: len(line) - len(line.lstrip())] + source.choice(SCALARS) + ": " + line.partition(": ")[2]
            case 3:
                lines.insert(index, source.choice((line, "  " + line, line[1:], source.choice(WHOLE))))
            case 4:
                del lines[index]
                lines = lines or [""]
            case 5:
                at = source.randrange(len(line) + 1)
                lines[index] = line[:at] + source.choice(BREAKS) + line[at:]
    return "\n".join(lines)


def several(source: random.Random) -> str:
    """Documents of all kinds."""
    makers: Sequence[Callable[[random.Random], str]] = (spoiled, tree, whole)
    return "\n---\n".join(source.choice(makers)(source) for _ in range(source.randrange(1, 5)))


def whole(source: random.Random) -> str:
    """One that is known to be difficult."""
    return source.choice(WHOLE)


def noise(source: random.Random) -> str:
    """Characters with a meaning, in any order."""
    return "".join(source.choice((*BREAKS, "a", "1")) for _ in range(source.randrange(60)))


MAKERS: Final = (spoiled, spoiled, spoiled, spoiled, tree, several, whole, noise, nested, blocks)
ENCODINGS: Final = ("utf-8",) * 12 + ("utf-16", "utf-16-le", "latin-1", "utf-8-sig")


def hostile(source: random.Random) -> bytes:
    """One file."""
    text = source.choice(MAKERS)(source)
    encoding = source.choice(ENCODINGS)
    passes = encoding != "latin-1" and source.random() < 0.5
    data = text.encode(encoding, errors="surrogatepass" if passes else "replace")
    if source.random() < 0.02:
        at = source.randrange(len(data) + 1)
        data = data[:at] + bytes([source.randrange(256)]) + data[at:]
    return data
