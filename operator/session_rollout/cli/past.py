"""Access of `backtest` and `power` to what a Prometheus server has recorded."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from session_rollout.cli.command import usage_error

if TYPE_CHECKING:
    from session_rollout.adapters.recorded import Recorder


def credentials(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options --token-file and --ca-file of a command that reads from Prometheus."""
    place = click.Path(path_type=Path)
    trusting = click.option("--ca-file", type=place, help="Trust the certificate authorities in this PEM file.")(command)
    return click.option("--token-file", type=place, help="Send the bearer token in this file.")(trusting)


def recorder_of(url: str, directory: Path | None, token_file: Path | None, ca_file: Path | None) -> "Recorder":
    """A reader of the server that --prometheus names; it keeps results in a directory, if there is one."""
    from session_rollout.adapters.recorded import Place, Recorder

    if not url.startswith(("http://", "https://")):
        raise usage_error(f"--prometheus is {url!r}; it must begin with http:// or https://")
    return Recorder(Place(url.rstrip("/"), token_file, ca_file), directory, datetime.now(UTC))
