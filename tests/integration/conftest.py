"""What the tests of checks, notifications, the workload and records share."""

from collections.abc import Iterator

import pytest

from integration.receivers import Chat, service, settings
from lab.fault_site import FaultSite
from lab.gauge import operated, scraped
from lab.lab import Lab


@pytest.fixture(scope="module")
def chat() -> Iterator[Chat]:
    """A receiver that is up."""
    made = Chat()
    made.up()
    yield made
    made.down()


@pytest.fixture(scope="module")
def operator(lab: Lab) -> Iterator[Lab]:
    """The lab with the operator running and one metric scraped."""
    with operated(lab):
        yield lab


@pytest.fixture(scope="module")
def configured_operator(lab: Lab, chat: Chat, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The operator with sinks, checks and diagnostics, a Service's port, and one metric."""
    with scraped(lab) as server:
        assert lab.prometheus is not None
        lab.prometheus.rules({"groups": [{"name": "lab", "rules": [{"alert": "LabErrors", "expr": "lab_errors > 0.5"}]}]})
        lab.start_operator(**settings(chat, tmp_path_factory.mktemp("settings")))
        lab.apply(service("gauge", server.server_port))
        yield lab
        assert lab.operator is not None
        lab.operator.stop()


@pytest.fixture(scope="module")
def fault_site(lab: Lab) -> Iterator[FaultSite]:
    """One operator behind a fault proxy, with a scripted Prometheus."""
    with FaultSite(lab) as site:
        site.start("A", checks={"smoke": {"image": "session-rollout:lab", "command": ["true"]}})
        yield site
