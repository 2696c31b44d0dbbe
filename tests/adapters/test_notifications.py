"""What a notification tells its reader to run, and queues against a sink that fails. Real receivers are in tests/integration."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest

from core.world import World, spec
from session_rollout.adapters import notifications
from session_rollout.adapters.clock import WallClock
from session_rollout.adapters.notifications import Delivery, SinkNotifier, send, signature
from session_rollout.api.enums import EventReason
from session_rollout.api.status_records import PendingNotification
from session_rollout.cli.app import app
from session_rollout.errors import Unavailable
from session_rollout.settings import Sink, Webhook

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


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"hunter2"])
def test_file_that_is_not_usable_is_named_without_its_content(tmp_path: Path, content: bytes | None) -> None:
    """In the condition Notified, before anybody reads a log."""
    path = tmp_path / "url"
    if content is not None:
        path.write_bytes(content)
    message = refused(Sink.model_validate({"urlFile": str(path)}))
    assert (str(path) in message) is (content != b"hunter2")
    assert "hunter2" not in message


def test_key_of_a_webhook_that_is_not_base64(tmp_path: Path) -> None:
    """As the Standard Webhooks specification writes keys."""
    path = tmp_path / "key"
    path.write_text("whsec_abcde")
    webhook = {"url": "http://127.0.0.1:1", "secretFile": str(path)}
    assert "abcde" not in refused(Sink.model_validate({"webhook": webhook}))


def refused(sink: Sink) -> str:
    """The error of a delivery."""
    with pytest.raises(Unavailable) as error:
        send(sink, Delivery("uid-1", "default", "shop", pending("1")), 1, NOW)
    return str(error.value)


def test_signature_is_that_of_the_specification(tmp_path: Path) -> None:
    """The test vector of Standard Webhooks."""
    path = tmp_path / "key"
    path.write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    webhook = Webhook.model_validate({"url": "http://127.0.0.1:1", "secretFile": str(path)})
    headers = signature(
        webhook, "msg_p5jXN8AQM9LWM0D4loKWxJek", datetime.fromtimestamp(1614265330, UTC), b'{"test": 2432232314}'
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    "location",
    [b"/login", "/anmelden-für-alle".encode("latin-1"), b"http://[bad/", b"http://a:99999999/", b"http://\xff/", b"//", b""],
)
def test_redirect_of_a_webhook_is_a_failed_delivery_wherever_it_points(location: bytes) -> None:
    """The login page of a proxy: nobody got the notification, and its address is not even parsed."""
    with redirecting(location) as port:
        assert refused(Sink.model_validate({"webhook": {"url": f"http://127.0.0.1:{port}/"}})) == "HTTP status 302"


@contextmanager
def redirecting(location: bytes) -> Iterator[int]:
    """The port of a proxy that answers one request."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def respond() -> None:
            connection, _ = listening.accept()
            with connection:
                request = b""
                while b"\r\n\r\n{" not in request:
                    request += connection.recv(65536)
                connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=respond)
        thread.start()
        yield int(listening.getsockname()[1])
        thread.join()


# --- queues


ROLLOUT = World(spec()).rollout()


def pending(number: str, sink: str = "chat") -> PendingNotification:
    return PendingNotification(id=number, sink=sink, event=EventReason.STARTED, time=NOW)


class Receiver:
    """What `send` would reach: fails as a test says, and notes what arrives."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken: list[str] = []
        self.failures: list[Exception] = []
        monkeypatch.setattr(notifications, "send", self.send)
        monkeypatch.setattr(notifications, "BACKOFF_SECONDS", (0,))

    def send(self, _sink: Sink, delivery: Delivery, *_: Any) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.taken.append(delivery.notification.id)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Receiver:
    """A receiver that takes everything."""
    return Receiver(monkeypatch)


class Fixture:
    """A notifier with sinks, and the event that wakes the rollout."""

    def __init__(self, *others: str, port: int = 1, timeout: str = "10s") -> None:
        webhook = {"webhook": {"url": f"http://127.0.0.1:{port}"}, "timeout": timeout}
        sinks = {name: Sink.model_validate(webhook) for name in ("chat", *others)}
        self.notifier, self.woken = SinkNotifier(sinks, WallClock()), asyncio.Event()

    def enqueue(self, *numbers: str, sink: str = "chat") -> None:
        self.notifier.enqueue(ROLLOUT, tuple(pending(number, sink) for number in numbers), self.woken.set)

    async def wake(self) -> None:
        await asyncio.wait_for(self.woken.wait(), 60)
        self.woken.clear()

    async def until_delivered(self, *numbers: str) -> None:
        while self.notifier.delivered(ROLLOUT.uid) != set(numbers):
            await self.wake()


def test_each_is_delivered_once_and_in_order(receiver: Receiver) -> None:
    """Every reconciliation enqueues all that are pending; the order is that of the status."""

    async def body() -> None:
        fixture = Fixture()
        for _ in range(3):
            fixture.enqueue("2", "1", "3")
        await fixture.until_delivered("1", "2", "3")
        fixture.enqueue("2", "1", "3")
        assert receiver.taken == ["2", "1", "3"]
        fixture.enqueue("3")
        assert fixture.notifier.delivered(ROLLOUT.uid) == {"3"}, "the status has forgotten the others"
        fixture.notifier.close()

    asyncio.run(body())


def test_failing_sink_is_an_error_until_it_takes_something(receiver: Receiver) -> None:
    """The rollout is woken for both: its condition Notified changes."""
    receiver.failures = [Unavailable("HTTP status 500"), Unavailable("HTTP status 500")]

    async def body() -> None:
        fixture = Fixture()
        fixture.enqueue("1")
        await fixture.wake()
        assert "chat" in fixture.notifier.errors() or receiver.taken
        await fixture.until_delivered("1")
        assert fixture.notifier.errors() == {}
        assert receiver.taken == ["1"]
        fixture.notifier.close()

    asyncio.run(body())


def test_exception_that_nobody_foresaw_fails_one_delivery_and_is_shown_with_its_class(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker delivers again, the process does not end, and the text, which may contain the address, is not logged."""
    receiver.failures = [ValueError("https://chat.example.com/secret")] * 3
    ended: list[object] = []

    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: ended.append(context))
        fixture, shown = Fixture(), set()
        fixture.enqueue("1", "2")
        while fixture.notifier.delivered(ROLLOUT.uid) != {"1", "2"}:
            await fixture.wake()
            shown |= set(fixture.notifier.errors().values())
        assert shown == {"ValueError"}
        fixture.notifier.close()

    asyncio.run(body())
    assert (receiver.taken, ended) == (["1", "2"], [])
    assert {(record.levelname, vars(record)["class"]) for record in caplog.records} == {("ERROR", "ValueError")}
    assert "secret" not in caplog.text


def test_sinks_that_trickle_hold_up_no_other(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many they are: each has a thread of its own, and one at most."""
    released, slow, begun = threading.Event(), [f"slow-{number}" for number in range(20)], list[str]()

    def send(sink: Sink, delivery: Delivery, *options: Any) -> None:
        if delivery.notification.sink == "chat":
            receiver.send(sink, delivery, *options)
        else:
            begun.append(delivery.notification.sink)
            released.wait()

    monkeypatch.setattr(notifications, "send", send)

    async def body() -> None:
        fixture = Fixture(*slow, timeout="100ms")
        fixture.notifier.enqueue(ROLLOUT, (*(pending(name, name) for name in slow), pending("1")), fixture.woken.set)
        await fixture.until_delivered("1")
        while fixture.notifier.errors() != dict.fromkeys(slow, "the delivery before has not ended"):
            await fixture.wake()
        assert sorted(begun) == sorted(slow)
        fixture.notifier.close()

    try:
        asyncio.run(asyncio.wait_for(body(), 60))
    finally:
        released.set()


def test_webhook_that_trickles_is_ended() -> None:
    """Its thread and its connection do not stay."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        async def body() -> None:
            fixture = Fixture(port=listening.getsockname()[1], timeout="100ms")
            fixture.enqueue("1")
            connection, _ = await asyncio.to_thread(listening.accept)
            while connection.send(b"x"):
                try:
                    await asyncio.wait_for(fixture.wake(), 0.02)
                    break
                except TimeoutError:
                    continue
            assert fixture.notifier.errors() == {"chat": "no response within 100 ms"}
            call = fixture.notifier._calls["chat"]
            await asyncio.to_thread(call.join, 5)
            assert not call.is_alive()
            fixture.notifier.close()
            connection.close()

        asyncio.run(asyncio.wait_for(body(), 60))


def test_unknown_sink_holds_up_no_other(receiver: Receiver) -> None:
    async def body() -> None:
        fixture = Fixture()
        fixture.notifier.enqueue(ROLLOUT, (pending("1", "nowhere"), pending("2")), fixture.woken.set)
        await fixture.until_delivered("2")
        assert list(fixture.notifier.errors()) == ["nowhere"]
        assert receiver.taken == ["2"]
        fixture.notifier.close()

    asyncio.run(body())


def test_notifications_of_a_deleted_rollout_are_dropped(receiver: Receiver) -> None:
    async def body() -> None:
        fixture = Fixture()
        fixture.enqueue("1", sink="nowhere")
        await fixture.wake()
        fixture.notifier.forget(ROLLOUT.uid)
        assert fixture.notifier.delivered(ROLLOUT.uid) == frozenset()
        worker = fixture.notifier._queues["nowhere"].worker
        assert worker is not None
        await asyncio.wait_for(worker, 60)
        assert receiver.taken == []
        fixture.notifier.close()

    asyncio.run(body())
