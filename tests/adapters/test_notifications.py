"""What a notification tells its reader to run, and queues against a sink that fails. Real receivers are in tests/integration."""

from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from session_rollout.adapters.notifications import Delivery, send
from session_rollout.api.enums import EventReason
from session_rollout.api.status import PendingNotification
from session_rollout.cli.app import app
from session_rollout.errors import Unavailable
from session_rollout.settings import Sink

NOW = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.mark.parametrize("event", EventReason)
def test_command_of_a_notification_is_one_of_the_plugin(event: EventReason) -> None:
    """Its arguments are taken as they stand."""
    notification = PendingNotification(id="1", sink="chat", event=event, time=NOW)
    program, plugin, *argv = Delivery("uid-1", "default", "shop", notification).command.split()
    assert (program, plugin) == ("kubectl", "sessionrollout")
    command: click.Command | None = app
    with app.make_context("plugin", [], resilient_parsing=True) as context:
        while isinstance(command, click.Group):
            command = command.get_command(context, argv.pop(0))
        assert command is not None
        assert command.make_context("command", argv).params["name"] == "shop"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "{} cannot be read: No such file or directory"),
        (b"\xff\xfe", "{} cannot be read: it is not text"),
        (b"nothing", "`urlFile` does not contain a URL that Apprise supports"),
    ],
)
def test_secret_file_that_is_no_good_is_said_without_what_is_in_it(tmp_path: Path, content: bytes | None, words: str) -> None:
    """In the condition Notified, before anybody reads a log."""
    path = tmp_path / "url"
    if content is not None:
        path.write_bytes(content)
    refused(Sink.model_validate({"urlFile": str(path)}), words.format(path))


def test_key_of_a_webhook_that_is_not_base64(tmp_path: Path) -> None:
    """As the Standard Webhooks specification writes keys."""
    path = tmp_path / "key"
    path.write_text("whsec_abcde")
    webhook = {"url": "http://127.0.0.1:1", "secretFile": str(path)}
    refused(Sink.model_validate({"webhook": webhook}), "`secretFile` starts with whsec_, but the rest is not base64")


def refused(sink: Sink, words: str) -> None:
    delivery = Delivery(
        "uid-1", "default", "shop", PendingNotification(id="1", sink="chat", event=EventReason.STARTED, time=NOW)
    )
    with pytest.raises(Unavailable) as error:
        send(sink, delivery, 1, NOW)
    assert str(error.value) == words
