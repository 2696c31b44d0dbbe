"""The operator's log: one JSON object a line, whoever wrote it. That secrets show nowhere is for the integration tests."""

import asyncio
import gc
import json
import logging
import os
from collections.abc import Iterator

import kopf
import pytest

from controller.cluster import breathe
from session_rollout import tasks
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


def broken(*, watched: bool = True, error: Exception | None = None) -> int | None:
    """Exit code of a process in which a task failed; None when it continues."""
    codes: list[int] = []

    async def fail() -> None:
        raise error or KeyError("spec")

    async def body() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "_exit", codes.append)
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(logs.end_process)
            task = tasks.watched(fail(), "the sweep") if watched else loop.create_task(fail(), name="a library's")
            await asyncio.wait([task])
            del task
            gc.collect()
            await breathe()

    asyncio.run(body())
    return codes[0] if codes else None


@pytest.mark.parametrize("watched", [True, False])
def test_task_that_fails_ends_the_process_with_one_line(watched: bool, caplog: pytest.LogCaptureFixture) -> None:
    """R2: a task of ours, and one of a library whose exception nobody retrieves."""
    assert broken(watched=watched) == 1
    [record] = caplog.records
    assert (record.levelname, vars(record)["class"]) == ("CRITICAL", "KeyError")
    assert vars(record)["task"] == ("the sweep" if watched else "a library's")
    assert vars(record)["place"].endswith("in fail")


def test_connection_that_breaks_in_a_library_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The request that used it has failed, and is repeated; in a task of ours, nothing is."""
    assert broken(watched=False, error=ConnectionResetError("gone")) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert broken(watched=True, error=ConnectionResetError("gone")) == 1


def test_traceback_shows_no_credentials(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logs.log_as_json()
    logs.log_end(ValueError("postgres://shop:hunter2@db"), "main")
    [line] = capsys.readouterr().err.splitlines()
    assert "hunter2" not in line
    assert json.loads(line)["class"] == "ValueError"
    assert root.handlers
