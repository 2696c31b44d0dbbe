"""The operator as most tests of commands need it."""

from collections.abc import Iterator

import pytest

from cli.plugin import SHOP, begin
from integration.receivers import service
from lab.gauge import scraped
from lab.lab import Lab


@pytest.fixture(scope="module")
def operator(lab: Lab) -> Iterator[Lab]:
    """The operator with diagnostics, one metric, and the rollout `shop` in its first hold."""
    with scraped(lab) as server:
        errors = [{"name": "error-rate", "query": "lab_errors", "below": "1%"}]
        memory = [{"name": "resident", "query": "vector(900)", "below": "500", "advice": "restart"}]
        lab.start_operator(diagnostics={"errors": errors, "memory": memory})
        lab.apply(service("gauge", server.server_port))
        begin(lab, SHOP)
        yield lab
        assert lab.operator is not None
        lab.operator.stop()
