"""What a notice tells a person to type. Delivery itself is tried against a real receiver in tests/integration."""

from datetime import UTC, datetime

import click
import pytest

from session_rollout.adapters.sinks import Letter
from session_rollout.api.reasons import EventReason
from session_rollout.api.status import Notice
from session_rollout.cli.app import app


@pytest.mark.parametrize("event", EventReason)
def test_command_of_a_notice_is_one_of_the_plugin(event: EventReason) -> None:
    """Its arguments are taken as they stand."""
    notice = Notice(id="1", sink="chat", event=event, time=datetime(2026, 1, 5, tzinfo=UTC))
    program, plugin, *argv = Letter("uid-1", "default", "shop", notice).command.split()
    assert (program, plugin) == ("kubectl", "sessionrollout")
    command: click.Command | None = app
    with app.make_context("plugin", [], resilient_parsing=True) as context:
        while isinstance(command, click.Group):
            command = command.get_command(context, argv.pop(0))
        assert command is not None
        assert command.make_context("command", argv).params["name"] == "shop"
