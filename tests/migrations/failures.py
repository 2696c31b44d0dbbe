"""Expects a migration to fail for a reason."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from session_rollout.api.migration_enums import FailureReason
from session_rollout.errors import MigrationError


@contextmanager
def failing(reason: FailureReason, *names: str) -> Iterator[None]:
    """The block fails with this reason, and its message contains these names, numbers and fields; its wording is free."""
    with pytest.raises(MigrationError) as failed:
        yield
    assert failed.value.reason is reason, failed.value
    assert [name for name in names if name not in str(failed.value)] == [], failed.value
