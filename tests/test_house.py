"""The house itself: imports between rooms, what the core may know, generated files, sizes, names and words.

Not here: style and types, which `make lint` checks with ruff and mypy; the words of documentation and messages (tests/docs).
"""

import ast
import functools
import re
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import GROUPS
from lab.lab import ROOT
from session_rollout import api
from session_rollout.api import action, flag_records, progress, rollout, status, status_records  # noqa: F401 - attributes of `api`
from session_rollout.api.base import Model
from session_rollout.api.status import Current, RolloutStatus
from session_rollout.api.status_records import HistoryEntry, PhaseRecord
from tools.crds import documents

SOURCE = ROOT / "operator" / "session_rollout"
PACKAGE = "session_rollout"
# Who may be imported by whom: a room sees itself and the rooms named here.
ROOMS = {
    "api": {"api"},
    "core": {"api", "core", "errors"},
    "records": {"api", "core", "records"},
    "simulation": {"adapters", "api", "core", "records", "simulation"},
    "errors": {"api"},
    "tasks": set(),
    "settings": {"api", "errors"},
    "ports": {"api", "core", "errors"},
    "adapters": {"adapters", "api", "core", "errors", "ports", "records", "settings", "tasks"},
    "controller": {"api", "controller", "core", "errors", "ports", "tasks"},
    "migrations": {"api", "errors", "migrations"},
    "cli": {"adapters", "api", "cli", "core", "errors", "migrations", "records", "simulation"},
    "handlers": {"adapters", "api", "controller", "ports"},
    "main": {"adapters", "api", "controller", "errors", "handlers", "ports", "settings", "tasks"},
}
CLIENTS = {"kopf", "kubernetes", "psycopg", "prometheus_api_client", "requests", "aiohttp", "openfeature", "prometheus_client"}
PYTHON = sorted(
    path for root in ("operator", "lab", "bench", "chaos", "tools", "tests") for path in (ROOT / root).rglob("*.py")
)
CLOCKS = {"time", "now", "utcnow", "today", "monotonic", "perf_counter"}
MODULES = sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    """The room a module is in."""
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path: Path) -> Iterator[str]:
    """Every module that a module imports, however."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield from (f"{module}.{name.name}" for name in names)


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Every node of a module's syntax tree."""
    return tuple(ast.walk(ast.parse(path.read_text())))


def functions(paths: list[Path]) -> Iterator[tuple[str, int]]:
    """Every function with its length in lines."""
    for path in paths:
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{path.name}:{node.name}", node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_arrows_point_the_right_way(path: Path) -> None:
    """Api <- core <- controller <- handlers; adapters beside them."""
    here = room(path)
    if here == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == PACKAGE and len(parts) > 1 and parts[1] != "__version__":
            assert parts[1] in ROOMS[here], f"{here} must not import {name}"


@pytest.mark.parametrize("pure", ["api", "core", "controller"])
def test_pure_rooms_know_no_client_library(pure: str) -> None:
    """Only adapters, handlers and main speak to the outside."""
    for path in (SOURCE / pure).rglob("*.py"):
        clients = {name.split(".")[0] for name in imports(path)} & CLIENTS
        assert not clients, f"{path.name} imports {clients}"


def test_migrations_know_psycopg_alone() -> None:
    """What runs inside a Job has no Kubernetes."""
    for path in (SOURCE / "migrations").rglob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & (CLIENTS - {"psycopg"})


@pytest.mark.parametrize("pure", ["api", "core"])
def test_pure_rooms_read_no_clock(pure: str) -> None:
    """`now` is always an argument."""
    for path in (SOURCE / pure).rglob("*.py"):
        assert "time" not in set(imports(path)), path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                clock = node.func.attr in CLOCKS and owner in {"datetime", "date", "time", "datetime.datetime", "datetime.date"}
                assert not clock, f"{path.name}:{node.lineno} reads the clock"


def test_tests_wait_for_conditions() -> None:
    """A sleep is too short on a busy machine and too long on any other; `lab.lab.until` waits for what a test needs."""
    sleeps = [
        f"{path.name}:{node.lineno}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "sleep"
    ]
    assert sleeps == []


def test_make_test_runs_every_group() -> None:
    """A group that conftest.py knows and the Makefile does not would never run."""
    listed = re.search(r"^GROUPS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed is not None
    assert tuple(listed[1].split()) == GROUPS


def test_operator_is_a_source_root_not_a_package() -> None:
    """A package of that name would hide the standard library's."""
    assert not (ROOT / "operator" / "__init__.py").exists()


@pytest.mark.parametrize("name", sorted(documents()))
def test_crds_are_what_the_models_say(name: str) -> None:
    """`make crds` was run."""
    assert (ROOT / "crds" / name).read_text() == documents()[name]


@pytest.mark.parametrize("paths", [MODULES, PYTHON], ids=["operator", "all"])
def test_functions_stay_readable(paths: list[Path]) -> None:
    """Median function at most 10 lines, nine in ten at most 35."""
    lengths = sorted(length for _, length in functions(paths))
    assert statistics.median(lengths) <= 10
    assert lengths[int(len(lengths) * 0.9)] <= 35


def test_files_stay_readable() -> None:
    """None over 400 lines, tests and tools included."""
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in PYTHON}
    assert {name: size for name, size in sizes.items() if size > LONGEST_FILE} == {}


# --- names and words

LONGEST_FILE = 400
UNSPEAKING = {"_one", "one", "found", "said", "wish"}
OUR_WORDS = tuple((ROOT / "tests" / "data" / "own-words.txt").read_text().split())


def names(path: Path) -> Iterator[tuple[str, int]]:
    """Functions, parameters, attributes and variables of a module, with their lines."""
    for node in nodes(path):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.arg(arg=name) | ast.Name(id=name) | ast.Attribute(attr=name):
                yield name, node.lineno
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name, node.lineno


@pytest.mark.parametrize("root", ["operator", "lab", "bench", "chaos", "tools"])
def test_names_say_what_they_name(root: str) -> None:
    """`one`, `found` and `said` could be anything."""
    paths = sorted((ROOT / root).rglob("*.py"))
    bad = [f"{path.relative_to(ROOT)}:{line} {name}" for path in paths for name, line in names(path) if name in UNSPEAKING]
    assert bad == []


@pytest.mark.parametrize("word", OUR_WORDS)
def test_words_of_our_own_are_gone(word: str) -> None:
    """The field has words for all of them."""
    grep = ["git", "grep", "--line-number", "--word-regexp", "--ignore-case", "-I", word, "--", ".", ":!tests/data"]
    lines = subprocess.run(grep, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    assert [line[:120] for line in lines] == []


# --- the status is validated where it changes

SETTERS: dict[str, tuple[type[Model], ...]] = {
    "change": (RolloutStatus,),
    "move": (Current,),
    "enter": (Current,),
    "mark": (PhaseRecord,),
    "end": (Current,),
    "record_event": (HistoryEntry,),
    "updated": tuple(
        model
        for module in (api.action, api.progress, api.rollout, api.status, api.flag_records, api.status_records)
        for model in vars(module).values()
        if isinstance(model, type) and issubclass(model, Model)
    ),
}
OWN_PARAMETERS = {"at"}  # of `record_event`: where it happened


def setter_calls() -> Iterator[tuple[str, str, str]]:
    """Where a setter is called, its name, and each keyword that is written there."""
    for path in MODULES:
        for node in nodes(path):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SETTERS:
                for keyword in node.keywords:
                    if keyword.arg is not None:
                        yield f"{path.name}:{node.lineno}", node.func.attr, keyword.arg


def test_setters_are_called_with_fields_that_exist() -> None:
    """Each keyword is a field of the model that the setter changes; the unit tests are in tests/core/test_status.py."""
    calls = list(setter_calls())
    fields_of = {name: {field for model in models for field in model.model_fields} for name, models in SETTERS.items()}
    assert len(calls) > 100, "the walk finds the calls"
    assert {name for _, name, _ in calls} == set(SETTERS)
    assert [call for call in calls if call[2] not in fields_of[call[1]] | OWN_PARAMETERS] == []


def test_nothing_goes_around_the_validation() -> None:
    """`model_copy(update=...)` and `model_construct` accept misspelled fields and values out of bounds."""
    around = {"model_copy", "model_construct"}
    calls = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in MODULES
        for node in nodes(path)
        if isinstance(node, ast.Attribute) and node.attr in around and path.name != "settings.py"  # no model of the API
    ]
    assert calls == []


def test_every_module_says_why_it_exists() -> None:
    """A docstring at the top of each."""
    assert [path for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))] == []


def unbounded(node: dict[str, Any], path: str) -> Iterator[str]:
    """Paths of a schema that lack a bound, or say how a list is merged."""
    match node.get("type"):
        case "string" if not {"maxLength", "enum", "format"} & set(node):
            yield f"{path}: no maxLength"
        case "array" if not {"maxItems", "x-kubernetes-list-type"} <= set(node):
            yield f"{path}: no maxItems or list type"
        case "integer" if not {"minimum", "maximum"} <= set(node):
            yield f"{path}: no minimum or maximum"
        case "number":
            yield f"{path}: a float"
    for name, child in node.get("properties", {}).items():
        yield from unbounded(child, f"{path}.{name}")
    if "items" in node:
        yield from unbounded(node["items"], f"{path}[]")


def fields(node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field of a schema by its name."""
    for name, child in node.get("properties", {}).items():
        yield name, child
        yield from fields(child)
    yield from fields(node["items"]) if "items" in node else ()


@pytest.mark.parametrize("name", sorted(documents()))
def test_every_field_says_what_it_means(name: str) -> None:
    """`kubectl explain`, and the reference in the documentation."""
    [version] = yaml.safe_load(documents()[name])["spec"]["versions"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    for half in ("spec", "status"):
        assert [name for name, field in fields(properties[half]) if not field.get("description", "").endswith((".", "`"))] == []


@pytest.mark.parametrize("name", sorted(documents()))
def test_no_field_is_a_word_that_yaml_reads_as_a_truth(name: str) -> None:
    """`on: [Promoted]` would reach the API server as `true: [Promoted]`."""
    [version] = yaml.safe_load(documents()[name])["spec"]["versions"]
    truths = {"y", "n", "yes", "no", "on", "off", "true", "false"}
    assert {name for name, _ in fields(version["schema"]["openAPIV3Schema"]) if name.lower() in truths} == set()


@pytest.mark.parametrize("name", sorted(documents()))
def test_schemas_are_bounded_everywhere(name: str) -> None:
    """Every string, list and number, and no float."""
    [version] = yaml.safe_load(documents()[name])["spec"]["versions"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    assert [*unbounded(properties["spec"], "spec"), *unbounded(properties["status"], "status")] == []
