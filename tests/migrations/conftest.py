"""A database of its own for every test, with the application's tables."""

import uuid
from collections.abc import Iterator

import pytest

from lab.servers import Postgres
from lab.sessions import database


@pytest.fixture
def dsn(postgres: Postgres) -> Iterator[str]:
    """Connection string of an administrator of a fresh database."""
    with database(postgres.url, f"test_{uuid.uuid4().hex[:10]}") as made:
        yield made
