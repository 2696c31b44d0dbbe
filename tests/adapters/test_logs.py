"""The operator's log: one JSON object a line, whoever wrote it. That secrets show nowhere is for the integration tests."""

import json
import logging
from collections.abc import Iterator

import kopf
import pytest

from session_rollout.adapters import logs


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger as it was before."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_what_kopf_says_of_an_object_is_json_too(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """It gives its settings with every line, which hold threads and queues."""
    logs.log_as_json()
    given = {"settings": kopf.OperatorSettings(), "k8s_skip": True, "k8s_ref": {"name": "checkout"}}
    logging.getLogger("kopf.objects").warning("Patching failed: password=hunter2", extra=given)
    [line] = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert found.pop("ts")
    assert found == {"level": "WARNING", "logger": "kopf.objects", "message": "Patching failed: password=***"}
    assert root.handlers[0].formatter is not None
