"""Replaces every message of the operator by its reason in brackets: the proof that nothing depends on prose.

    python -m lab.reasons_only session_rollout.main --config operator.yaml
    LAB_MESSAGES=reasons make test-fast

With LAB_MESSAGES=reasons in the environment, pytest installs it in its own process, and the lab starts the operator, the
plugin and the Pods of migrations through this module. Only the lab reads the variable; the product does not know of it.
`message_of` is the one function through which each text of a status passes; values that are no models of the API, such as
the results of rules, are replaced where they are constructed.
"""

import contextlib
import functools
import importlib
import os
import runpy
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Final

from pydantic import ValidationInfo
from pydantic.alias_generators import to_camel

VARIABLE: Final = "LAB_MESSAGES"
_suspended = False
# The first of these fields that is set is what the message is about.
FIELDS: Final = ("reason", "event", "verdict", "problem", "state")


def wanted() -> bool:
    """Whether the environment asks for it."""
    return os.environ.get(VARIABLE) == "reasons"


def install() -> None:
    """Replace the messages of this process from now on."""
    from session_rollout.api import base
    from session_rollout.core import context, evaluation, observed

    if base.message_of is _of_model:
        return
    base.message_of = _of_model  # type: ignore[assignment]
    for kind in (context.StageResult, evaluation.Evaluation, observed.Answer, observed.CheckResult, observed.Emit):
        _replace_at_construction(kind)
    _replace_at_construction(observed.Measurement)


@contextlib.contextmanager
def suspended() -> Iterator[None]:
    """For a test that is about the text itself, such as its length: messages stay as they are."""
    global _suspended  # noqa: PLW0603 - one switch for the process, as the replacement itself
    before, _suspended = _suspended, True
    try:
        yield
    finally:
        _suspended = before


def _of_model(text: str, info: ValidationInfo) -> str:
    return text if _suspended or not text else _bracketed(info.data, to_camel(info.field_name or "message"))


def _bracketed(fields: Mapping[str, Any], otherwise: str) -> str:
    return f"[{next((fields[name] for name in FIELDS if fields.get(name)), otherwise)}]"


def _replace_at_construction(kind: type[Any]) -> None:
    construct = kind.__init__

    @functools.wraps(construct)
    def replace(self: Any, *args: Any, **fields: Any) -> None:
        construct(self, *args, **fields)
        if self.message and not _suspended:
            object.__setattr__(self, "message", _bracketed(vars(self), kind.__name__))

    kind.__init__ = replace


# --- how the lab starts programs


def python_module(module: str, *argv: str) -> list[str]:
    """The command that runs a module of the project with this interpreter."""
    through = ["-m", "lab.reasons_only"] if wanted() else ["-m"]
    return [sys.executable, *through, module, *argv]


def installed_program(argv: list[str]) -> list[str]:
    """The command of a container; a program of the project is run through this module where that is wanted."""
    targets = {point.name: point.value for point in entry_points(group="console_scripts") if point.value.startswith("session_")}
    if not wanted() or argv[0] not in targets:
        return argv
    return python_module(targets[argv[0]], *argv[1:])


def main() -> None:
    """Run a module, or a function `module:function`, with the messages replaced."""
    target, *sys.argv[1:] = sys.argv[1:]
    install()
    module, _, function = target.partition(":")
    if function:
        getattr(importlib.import_module(module), function)()
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
