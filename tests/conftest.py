"""What all tests share: the mark of tests that need the lab, and one lab for all of them."""

from collections.abc import Iterator

import pytest

from lab.lab import Lab
from lab.servers import Postgres
from lab.sessions import server


def pytest_addoption(parser: pytest.Parser) -> None:
    """Golden files are written only when somebody says so, and read before they are committed."""
    parser.addoption("--golden", action="store_true", help="write the golden files anew")


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything that uses the lab is marked so; `-m "not lab"` is fast."""
    for item in items:
        if {"lab", "postgres"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.lab)
