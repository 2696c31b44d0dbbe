"""The structured log, and the end of a process that cannot continue: one JSON line, and no other output.

The exception handler of the event loop (`end_process`) is where every background task that fails arrives: those of this package
by `tasks.watched`, those of libraries when nobody retrieves their exception.
"""

import asyncio
import logging
import os
import re
import sys
import threading
from typing import Any, Final

import aiohttp
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from session_rollout.tasks import WATCHED, place_of, root_cause

log = logging.getLogger(__name__)
OF_KOPF: Final = ("settings", "k8s_skip", "k8s_ref")  # what it gives with a line; the first is not JSON
# What these report of a task that fails is raised to `main` as well, which writes the one line about it.
REPEATED_BY_KOPF: Final = tuple(f"kopf._core.reactor.{name}" for name in ("running", "orchestration", "queueing"))
_SECRETS: Final = re.compile(r"(://[^:/@\s]+:)[^@\s]+(@)|(password=|Bearer )[^\s'\"]+", re.IGNORECASE)


class Redacted(logging.Filter):
    """Takes passwords and tokens out of every line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the message; never drops a line."""
        record.msg, record.args = redact(record.getMessage()), ()
        return True


def redact(text: str) -> str:
    """The text without credentials."""
    return _SECRETS.sub(lambda match: f"{match.group(1) or match.group(3)}***{match.group(2) or ''}", text)


class Formatter(JsonFormatter):
    """One JSON object for each line, without credentials in a traceback."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name of the standard library
        """The traceback as one field."""
        return redact(str(super().formatException(ei)))


def log_as_json() -> None:
    """Write one JSON object for each line to standard error, without fields that are of no use to readers."""
    handler = logging.StreamHandler(sys.stderr)
    fields = "%(asctime)s %(levelname)s %(name)s %(message)s"
    names = {"asctime": "ts", "levelname": "level", "name": "logger"}
    handler.setFormatter(Formatter(fields, rename_fields=names, reserved_attrs=[*RESERVED_ATTRS, *OF_KOPF]))
    handler.addFilter(Redacted())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    for name in REPEATED_BY_KOPF:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    sys.excepthook = lambda _, error, __: log_end(error, "main")
    threading.excepthook = lambda ended: log_end(ended.exc_value, ended.thread.name if ended.thread else "a thread")


def log_end(error: BaseException | None, task: str) -> None:
    """The one line about an exception that ends the process."""
    cause = root_cause(error) if error is not None else RuntimeError("unknown")
    fields = {"class": type(cause).__name__, "place": place_of(cause), "task": task}
    log.critical("%s ended the process: %s", task, cause, exc_info=cause, extra=fields)


def end_process(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Exception handler of the event loop: write one line, and end the process if the failed task was a part of it.

    A connection that breaks in a library's own task is not: the request that used it has failed and is repeated. The Lease is not
    released, because what else is broken is unknown: the restarted container acquires it at once, another replica after 15 s.
    """
    error, task = context.get("exception"), context.get("task") or context.get("future")
    lost_connection = isinstance(error, (OSError, aiohttp.ClientError)) and WATCHED not in context
    if not isinstance(task, asyncio.Task) or error is None or lost_connection:
        log.warning("%s: %r", context["message"], error)
        return
    log_end(error, task.get_name())
    os._exit(1)
