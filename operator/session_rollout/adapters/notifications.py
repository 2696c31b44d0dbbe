"""Notifications to other tools (port `Notifier`): signed webhooks, and everything that Apprise supports.

One worker for each sink delivers its notifications in order, in a thread of its own. A sink that is down, slow or rejecting delays
only its own notifications; they remain in the status of their rollouts until it accepts them. Each carries its id, so that a receiver
recognizes one that arrives twice after a crash. Addresses and keys are files of the administrator and are never logged.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import requests
from apprise import Apprise, NotifyType

from session_rollout.adapters.blocking import Call, PlainSession
from session_rollout.api.enums import EventReason
from session_rollout.api.quantities import duration, format_duration
from session_rollout.api.rollout import SessionRollout
from session_rollout.api.status_records import PendingNotification
from session_rollout.errors import SpecError, Unavailable
from session_rollout.ports import Clock
from session_rollout.settings import Sink, Webhook, credential
from session_rollout.tasks import cause_of, watched

log = logging.getLogger(__name__)
BACKOFF_SECONDS: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
ACCEPTED: Final = range(200, 300)  # a redirect is the login page of a proxy, not a receiver
COMMANDS: Final[Mapping[EventReason, str]] = {
    EventReason.APPROVAL_NEEDED: "approve",
    EventReason.PAUSED: "resume",
    EventReason.FLAGS_DISABLED: "flags status --in",
}


@dataclass(frozen=True)
class Delivery:
    """One notification and the rollout that it is about."""

    uid: str
    namespace: str
    rollout: str
    notification: PendingNotification

    @property
    def command(self) -> str:
        """The command that the reader would run next."""
        verb = COMMANDS.get(self.notification.event, "explain")
        return f"kubectl sessionrollout {verb} {self.rollout} -n {self.namespace}"

    @property
    def title(self) -> str:
        """One line."""
        return f"{self.namespace}/{self.rollout}: {self.notification.event}"

    @property
    def body(self) -> str:
        """What happened, where, and what to do."""
        where = f" [{self.notification.phase} step {self.notification.step}]" if self.notification.step else ""
        return f"{self.notification.message}{where}\n{self.command}\nid {self.notification.id}"

    def to_json(self) -> dict[str, Any]:
        """The body of a webhook; `text` is the field that Slack and similar tools show."""
        return {
            "id": self.notification.id,
            "type": self.notification.event,
            "timestamp": self.notification.time.isoformat(),
            "text": f"{self.title}\n{self.body}",
            "data": {
                "namespace": self.namespace,
                "rollout": self.rollout,
                "phase": self.notification.phase,
                "step": self.notification.step,
                "message": self.notification.message,
                "command": self.command,
            },
        }


@dataclass
class Queue:
    """What one sink has yet to accept, oldest first."""

    deliveries: dict[str, Delivery] = field(default_factory=dict)  # by id of the notification
    wakes: dict[str, Callable[[], None]] = field(default_factory=dict)  # by UID of the rollout
    error: str | None = None  # why the sink rejects notifications
    worker: asyncio.Task[None] | None = None

    def keep(self, uid: str, ids: set[str]) -> None:
        """Drop the notifications of a rollout that its status no longer has."""
        self.deliveries = {key: item for key, item in self.deliveries.items() if item.uid != uid or key in ids}

    def set_error(self, error: str | None) -> None:
        """Wake the rollouts that wait when the sink starts or stops failing: the `Notified` condition shows it."""
        if self.error != error:
            self.error = error
            for uid in {item.uid for item in self.deliveries.values()}:
                self.wake(uid)

    def wake(self, uid: str) -> None:
        """Wake the loop of a rollout."""
        if wake := self.wakes.get(uid):
            wake()


class SinkNotifier:
    """All sinks of the configuration."""

    def __init__(self, sinks: Mapping[str, Sink], clock: Clock) -> None:
        self._sinks, self._clock = sinks, clock
        self._queues: dict[str, Queue] = {}
        self._delivered: dict[str, set[str]] = {}  # by UID of the rollout
        self._calls: dict[str, Call[None]] = {}  # by sink; Apprise's cannot be ended from outside

    def enqueue(
        self, rollout: SessionRollout, notifications: tuple[PendingNotification, ...], wake: Callable[[], None]
    ) -> None:
        """See `Notifier.enqueue`."""
        ids = {notification.id for notification in notifications}
        self._delivered.setdefault(rollout.uid, set()).intersection_update(ids)
        for queue in self._queues.values():
            queue.keep(rollout.uid, ids)
        for notification in notifications:
            queue = self._queues.setdefault(notification.sink, Queue())
            queue.wakes[rollout.uid] = wake
            self._add(queue, Delivery(rollout.uid, rollout.namespace, rollout.name, notification))

    def _add(self, queue: Queue, delivery: Delivery) -> None:
        if delivery.notification.id not in self._delivered[delivery.uid]:
            queue.deliveries.setdefault(delivery.notification.id, delivery)
        if queue.deliveries and (queue.worker is None or queue.worker.done()):
            queue.worker = watched(
                self._work(delivery.notification.sink, queue), f"sink {delivery.notification.sink}", may_end=True
            )

    def delivered(self, uid: str) -> frozenset[str]:
        """See `Notifier.delivered`."""
        return frozenset(self._delivered.get(uid, ()))

    def errors(self) -> Mapping[str, str]:
        """See `Notifier.errors`."""
        return {sink: queue.error for sink, queue in self._queues.items() if queue.error is not None}

    def forget(self, uid: str) -> None:
        """See `Notifier.forget`."""
        self._delivered.pop(uid, None)
        for queue in self._queues.values():
            queue.wakes.pop(uid, None)
            queue.keep(uid, set())

    def close(self) -> None:
        """Start no new delivery, and wait for none."""
        for queue in self._queues.values():
            if queue.worker is not None:
                queue.worker.cancel()

    async def _work(self, sink: str, queue: Queue) -> None:
        """Deliver in order until the queue is empty; a delivery that fails is repeated with growing pauses."""
        failures = 0
        while queue.deliveries:
            delivery = next(iter(queue.deliveries.values()))
            try:
                await self._deliver(sink, delivery)
            except Exception as error:  # noqa: BLE001 - of this delivery: it must not end the others, or the process
                queue.set_error(_explained(sink, error))
                await asyncio.sleep(BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)])
                failures += 1
                continue
            failures = 0
            self._delivered.setdefault(delivery.uid, set()).add(delivery.notification.id)
            queue.deliveries.pop(delivery.notification.id, None)
            queue.set_error(None)
            queue.wake(delivery.uid)

    async def _deliver(self, name: str, delivery: Delivery) -> None:
        sink = self._sinks.get(name)
        if sink is None:
            allowed = ", ".join(sorted(self._sinks)) or "none"
            raise SpecError(f"not in `sinks` of the operator's configuration; allowed: {allowed}")
        if name in self._calls and self._calls[name].is_alive():
            raise Unavailable("the delivery before has not ended")
        seconds = duration(sink.timeout).total_seconds()
        call = self._calls[name] = Call(partial(send, sink, delivery, seconds, self._clock.now()), f"sink {name}")
        try:
            # The library limits each wait for a byte. What trickles is ended here.
            await call.result(2 * seconds)
        except TimeoutError as error:
            raise Unavailable(f"no response within {format_duration(duration(sink.timeout))}") from error


def _explained(sink: str, error: Exception) -> str:
    """Why a delivery failed. Of an exception that nobody foresaw, only the class: its text may contain the sink's address."""
    if isinstance(error, Unavailable | SpecError):
        return str(error)
    log.error("delivery to sink %s failed", sink, extra=cause_of(error))
    return type(error).__name__


def send(sink: Sink, delivery: Delivery, seconds: float, now: datetime) -> None:
    """Deliver one notification; blocks. Raises Unavailable without anything from the sink's address or response."""
    try:
        if sink.webhook is not None:
            _post(sink.webhook, delivery, seconds, now)
        elif sink.url_file is not None:
            _through_apprise(credential(sink.url_file), delivery)
    except OSError as error:  # including the errors of requests
        timed_out = isinstance(error, requests.Timeout)
        raise Unavailable(
            f"no response within {format_duration(timedelta(seconds=seconds))}" if timed_out else type(error).__name__
        ) from error


def _post(webhook: Webhook, delivery: Delivery, seconds: float, now: datetime) -> None:
    body = json.dumps(delivery.to_json()).encode()
    headers = {"Content-Type": "application/json", **signature(webhook, delivery.notification.id, now, body)}
    with PlainSession() as session, session.post(webhook.url, data=body, headers=headers, timeout=seconds) as response:
        status = response.status_code
    if status not in ACCEPTED:
        raise Unavailable(f"HTTP status {status}")


def signature(webhook: Webhook, identity: str, now: datetime, body: bytes) -> dict[str, str]:
    """Headers of the Standard Webhooks specification: id, time, and HMAC-SHA256 over both and the body."""
    moment = str(int(now.timestamp()))
    headers = {"webhook-id": identity, "webhook-timestamp": moment}
    if webhook.secret_file is None:
        return headers
    secret = credential(webhook.secret_file)
    try:
        key = base64.b64decode(secret.removeprefix("whsec_")) if secret.startswith("whsec_") else secret.encode()
    except ValueError as error:
        raise Unavailable("`secretFile` starts with whsec_, but the rest is not base64") from error
    digest = hmac.new(key, f"{identity}.{moment}.".encode() + body, hashlib.sha256).digest()
    return {**headers, "webhook-signature": f"v1,{base64.b64encode(digest).decode()}"}


def _through_apprise(url: str, delivery: Delivery) -> None:
    apprise = Apprise()
    if not apprise.add(url):
        raise Unavailable("`urlFile` does not contain a URL that Apprise supports")
    kind = NotifyType.WARNING if delivery.notification.event.is_warning else NotifyType.INFO
    if not apprise.notify(title=delivery.title, body=delivery.body, notify_type=kind):
        raise Unavailable("did not accept the notification")
