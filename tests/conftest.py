"""What all tests share: the mark of tests that need the lab, one lab for all of them, and the groups that run side by side."""

from collections.abc import Iterator

import pytest

from lab import reasons_only
from lab.lab import Lab
from lab.servers import Postgres
from lab.sessions import server

if reasons_only.wanted():
    reasons_only.install()

GROUPS = ("lab", "cli", "node", "database", "fast", "model")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Golden files are written only when somebody says so, and read before they are committed."""
    parser.addoption("--golden", action="store_true", help="write the golden files again")
    parser.addoption("--group", choices=GROUPS, help="run one of the groups of `make test`")


@pytest.fixture
def prose() -> Iterator[None]:
    """For a test that is about a text itself: `make test-messages` leaves the texts of this test as they are."""
    with reasons_only.suspended():
        yield


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab with the project installed in it; started once, for the first test that needs it."""
    with Lab() as running:
        running.install()
        running.namespace("default")
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL alone, for what needs no cluster."""
    with server() as running:
        yield running


def group_of(item: pytest.Item) -> str:
    """The one group of a test, by what it needs; groups share no server, port or directory."""
    needs = set(getattr(item, "fixturenames", ()))
    if "lab" in needs:
        return "cli" if item.path.parent.name == "cli" else "lab"
    if "postgres" in needs:
        return "database"
    if item.get_closest_marker("lab"):
        return "node"  # labs of its own, a real node, helm
    return "model" if item.path.name == "test_model.py" else "fast"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Everything that uses the lab is marked so; `-m "not lab"` is fast. With `--group`, the other groups are left out."""
    wanted, others = config.getoption("--group"), []
    for item in items[:]:
        group = group_of(item)
        if group not in {"fast", "model"}:
            item.add_marker(pytest.mark.lab)
        if group == "model":
            # It computes all the time, and everybody else goes first.
            item.add_marker(pytest.mark.timeout(3600 if config.getini("timeout") != "0" else 0))
        if wanted not in {None, group}:
            items.remove(item)
            others.append(item)
    config.hook.pytest_deselected(items=others)
