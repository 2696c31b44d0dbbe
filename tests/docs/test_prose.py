"""What users read is plain American English: phrases that were replaced, British spellings and fragments do not come back.

Text comes from Markdown, from comments and descriptions in YAML, and from strings in Python. Code is not read. To cover
another file, add its path to COVERED. Not here: whether a sentence is true.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lab.lab import ROOT

COVERED = (
    "*.md",
    "docs/**/*.md",
    "crds/*.yaml",
    "examples/**/*.yaml",
    "charts/session-rollout/*.yaml",
    "charts/session-rollout/files/rules/*.yaml",
    "charts/session-rollout/templates/NOTES.txt",
    "operator/session_rollout/**/*.py",
    "tools/**/*.py",
)
FILES = sorted({path for pattern in COVERED for path in ROOT.glob(pattern)})

# Regular expression, and what to write instead.
PHRASES = {
    r"a person\b|a person's|needs? (?:a )?people": "a user; requires manual approval; requires manual intervention",
    r"stands? still|longer by": "pauses; extends the hold",
    r"go(?:es|ing)? on\b|went on\b": "continues; resumes where it stopped",
    r"the truth\b": "the source of truth",
    r"mend(?:s|ed|ing)?\b": "fix",
    r"anew\b|made again|makes? (?:it|this page) again": "again; regenerated",
    r"in the manner of": "based on",
    r"who may what|who may do what": "User roles",
    r"let(?:s)? (?:it|them) rest|rows rest\b": "Pause a migration; copying pauses",
    r"is said by|is said\b|says so, too": "is set by; is reported",
    r"(?:is|are) asked of|is asked about": "queries",
    r"the admin's\b|an admin's\b|one of the admin's": "the cluster administrator configures",
    r"whoever\b": "every user who",
    r"look(?:s|ed)? (?:at a rollout|after)\b|looked at\b|each look\b": "reconcile",
    r"rungs?\b": "increment",
    r"couriers?\b": "notifier",
    r"notices\b": "notifications",
    r"wish(?:es|ed)?\b": "request",
    r"is no (?:YAML|object|JSON)": "invalid YAML; expected a mapping, found a list",
    r"nobody can be asked": "cannot prompt without a terminal; use --yes",
    r"nothing to say against": "no problems found",
    r"needs? nothing of\b|nothing of yours": "does not modify your objects",
    r"is (?:away|deaf)\b": "is unreachable",
    r"passed over\b": "skipped",
    r"\d{4,} ?ms\b|\d+d\d+h0m\b": "3.8 s; 1 d 12 h",
    r"\d+ %": "5%",
    r"(?:an|the) action (?:`|CODE\b)": "an `Approve` action: the name comes first",
    r"meanwhile\b": "during the outage; while it is paused",
    r"beside\b": "next to; in addition to",
    r"wrote since\b|written since (?!the|they|it)": "rows that users have written since the snapshot",
    r"go(?:es)? off\b": "is turned off",
    r"h[eo]ld(?:s|ing)? (?:it |them |the \w+ )?up\b": "delay",
    r"towards\b": "toward",
    r"any more\b": "no longer",
    r"(?<!there )is no (?!longer\b)\w": "is not a; missing data never counts as a pass",
    r"at once\b": "immediately; at the same time",
    r", too\b": "also",
    r"the kinds\b": "the CRDs; the custom resources",
}
BRITISH = {
    r"(?:mis)?behaviours?": "behavior",
    r"colou?red\b(?<!colored)|colours?": "color",
    r"favou?rs?\b(?<!favor)(?<!favors)|favourites?": "favor",
    r"neighbours?|honours?": "neighbor, honor",
    r"centres?|metres?": "center",
    r"catalogues?|dialogues?": "catalog, dialog",
    r"(?:un)?labelled|cancell(?:ed|ing)|travell\w+|modelled": "labeled, canceled",
    r"defences?|licences?|offences?": "defense, license",
    r"judgements?|artefacts?|whilst|amongst|grey": "judgment, artifact, while, among, gray",
    r"fulfil\b|fulfils|enrol\b": "fulfill, enroll",
    r"analys(?:e|es|ed|ing)\b(?<!analyses)": "analyze",
    r"\w+(?:al|ar|or|im|gn|an|ron|ten|mon|tim|riz)is(?:e|es|ed|ing|ation|ations)\b": "-ize",
}
FRAGMENTS = (
    r"(?:^|(?<=[.|:]\s)|(?<=\|\s))(?:Of (?:the|a|an|all|that|what)|Which (?:of|is)|Whose|In which|On which)\b[^?|]*?(?:[.|]|$)"
)

_CODE = re.compile(r"```.*?```|`[^`\n]*`|<!--.*?-->|\]\([^)]*\)", re.DOTALL)


def markdown(text: str) -> Iterator[str]:
    """Lines of Markdown without code and addresses."""
    yield from _CODE.sub(lambda code: "\n" * code[0].count("\n") or "CODE", text).splitlines()


def of_yaml(text: str) -> Iterator[str]:
    """Descriptions and messages of every document, and comments."""
    for document in yaml.safe_load_all(text):
        yield from _described(document)
    yield from (line.split("# ", 1)[1] for line in text.splitlines() if re.match(r"^(?:.*\s)?# ", line))


def _described(node: object) -> Iterator[str]:
    match node:
        case dict():
            for key, value in node.items():
                if key in {"description", "message", "summary"} and isinstance(value, str):
                    yield value
                yield from _described(value)
        case list():
            for item in node:
                yield from _described(item)


def strings(text: str) -> Iterator[str]:
    """Every string of several words: help texts and messages. Docstrings count where a decorator makes them a command's help."""
    tree = ast.parse(text)
    internal = {ast.get_docstring(tree, clean=False)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.decorator_list:
            internal.add(ast.get_docstring(node, clean=False))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value and node.value not in internal:
            yield node.value


READERS: dict[str, Callable[[str], Iterator[str]]] = {".md": markdown, ".yaml": of_yaml, ".py": strings, ".txt": markdown}


def mistakes(texts: Iterator[str]) -> list[str]:
    """Each mistake, what to write instead, and where it is."""
    found = []
    for text in texts:
        for pattern, instead in (PHRASES | BRITISH).items():
            if hit := re.search(rf"(?<![\w-])(?:{pattern})", text, re.IGNORECASE):
                found.append(f"`{hit[0]}` -> {instead}: {text.strip()[:120]}")
        if hit := re.search(FRAGMENTS, text):
            found.append(f"`{hit[0]}` is not a sentence: {text.strip()[:120]}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_prose(path: Path) -> None:
    """No phrase, spelling or fragment that was replaced."""
    assert mistakes(READERS[path.suffix](path.read_text())) == []


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("page.md", "Then it goes on.\n\n```sh\ngoes on\n```\n", "goes on"),
        ("crd.yaml", "properties: {name: {description: Of the Secret.}}", "Of the Secret."),
        ("values.yaml", "# The colour of it.\nname: goes on\n", "colour"),
        ("app.py", 'option("--all", help="Mend everything.")', "Mend"),
        ("act.py", '@command\ndef retry():\n    """Has rows moved anew."""\n', "anew"),
        ("table.md", "| `name` | Which of `metrics`. |", "Which of CODE. "),
        ("page.md", "It waits for an action `Approve`.", "an action CODE"),
        ("page.md", "More than 5 % of users are affected.", "5 %"),
        ("page.md", "A missing value is no pass.", "is no p"),
        ("page.md", "Failing criteria hold it up without limit.", "hold it up"),
        ("app.py", 'message = "rows that users wrote since"', "wrote since"),
        ("NOTES.txt", "The flags go off at the rollback.", "go off"),
    ],
)
def test_mistakes_are_noticed_where_users_read(name: str, text: str, words: str) -> None:
    """In each kind of file, and not in code."""
    [mistake] = mistakes(READERS[Path(name).suffix](text))
    assert mistake.startswith(f"`{words.strip()}")
