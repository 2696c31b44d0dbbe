"""Notices to people's tools (port `Courier`): signed webhooks, and through Apprise whatever it knows.

One worker for each sink takes its notices in order, in its own time: a sink that is down, slow or refusing keeps only its
own notices waiting, which stay in the status of their rollouts until it takes them. Each carries its id, so that a receiver
recognises one that comes twice after a crash. Addresses and keys are files of the admin's and appear nowhere.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import requests
from apprise import Apprise, NotifyType

from session_rollout.api.enums import EventReason
from session_rollout.api.quantities import duration
from session_rollout.api.rollout import SessionRollout
from session_rollout.api.status import PendingNotification
from session_rollout.errors import SpecError, Unavailable
from session_rollout.ports import Clock
from session_rollout.settings import Sink, Webhook, credential

log = logging.getLogger(__name__)
BACKOFF_SECONDS: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
WORKERS: Final = 4
COMMANDS: Final[Mapping[EventReason, str]] = {
    EventReason.APPROVAL_NEEDED: "approve",
    EventReason.PAUSED: "resume",
    EventReason.FLAGS_DISABLED: "flags status --in",
}


@dataclass(frozen=True)
class Letter:
    """One notice and whose it is."""

    uid: str
    namespace: str
    rollout: str
    notice: PendingNotification

    @property
    def command(self) -> str:
        """What a person would run next."""
        verb = COMMANDS.get(self.notice.event, "explain")
        return f"kubectl sessionrollout {verb} {self.rollout} -n {self.namespace}"

    @property
    def title(self) -> str:
        """One line."""
        return f"{self.namespace}/{self.rollout}: {self.notice.event}"

    @property
    def body(self) -> str:
        """What happened, where, and what to do."""
        where = f" [{self.notice.phase} step {self.notice.step}]" if self.notice.step else ""
        return f"{self.notice.message}{where}\n{self.command}\nid {self.notice.id}"

    def to_json(self) -> dict[str, Any]:
        """As a webhook gets it; `text` is what Slack and its kind show."""
        return {
            "id": self.notice.id,
            "type": self.notice.event,
            "timestamp": self.notice.time.isoformat(),
            "text": f"{self.title}\n{self.body}",
            "data": {
                "namespace": self.namespace,
                "rollout": self.rollout,
                "phase": self.notice.phase,
                "step": self.notice.step,
                "message": self.notice.message,
                "command": self.command,
            },
        }


@dataclass
class Line:
    """What waits for one sink."""

    letters: dict[str, Letter] = field(default_factory=dict)
    wakes: dict[str, Callable[[], None]] = field(default_factory=dict)  # by uid of the rollout
    trouble: str = ""
    worker: asyncio.Task[None] | None = None


class SinkCourier:
    """All sinks of the configuration."""

    def __init__(self, sinks: Mapping[str, Sink], clock: Clock) -> None:
        self._sinks, self._clock = sinks, clock
        self._lines: dict[str, Line] = {}
        self._delivered: dict[str, set[str]] = {}  # by uid of the rollout
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="sinks")

    def carry(self, rollout: SessionRollout, notices: tuple[PendingNotification, ...], wake: Callable[[], None]) -> None:
        """See `Courier.carry`."""
        wanted = {one.id for one in notices}
        done = self._delivered.setdefault(rollout.uid, set())
        done &= wanted
        for line in self._lines.values():
            gone = [key for key, one in line.letters.items() if one.uid == rollout.uid and key not in wanted]
            for key in gone:
                del line.letters[key]
        for notice in notices:
            line = self._lines.setdefault(notice.sink, Line())
            line.wakes[rollout.uid] = wake
            if notice.id not in done:
                line.letters.setdefault(notice.id, Letter(rollout.uid, rollout.namespace, rollout.name, notice))
            if line.letters and (line.worker is None or line.worker.done()):
                line.worker = asyncio.create_task(self._work(notice.sink, line))

    def delivered(self, uid: str) -> frozenset[str]:
        """See `Courier.delivered`."""
        return frozenset(self._delivered.get(uid, ()))

    def troubles(self) -> Mapping[str, str]:
        """See `Courier.troubles`."""
        return {sink: line.trouble for sink, line in self._lines.items() if line.trouble}

    def forget(self, uid: str) -> None:
        """See `Courier.forget`."""
        self._delivered.pop(uid, None)
        for line in self._lines.values():
            line.wakes.pop(uid, None)
            line.letters = {key: one for key, one in line.letters.items() if one.uid != uid}

    def close(self) -> None:
        """Let no new delivery start."""
        for line in self._lines.values():
            if line.worker is not None:
                line.worker.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _work(self, sink: str, line: Line) -> None:
        """Deliver in order until nothing waits; the first that is not taken is tried again, later each time."""
        failures = 0
        while line.letters:
            letter = next(iter(line.letters.values()))
            try:
                await self._deliver(sink, letter)
            except (Unavailable, SpecError) as error:
                self._troubled(line, str(error))
                await asyncio.sleep(BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)])
                failures += 1
                continue
            failures = 0
            self._delivered.setdefault(letter.uid, set()).add(letter.notice.id)
            line.letters.pop(letter.notice.id, None)
            self._troubled(line, "")
            self._wake(line, letter.uid)

    def _troubled(self, line: Line, trouble: str) -> None:
        if line.trouble != trouble:
            line.trouble = trouble
            for uid in {one.uid for one in line.letters.values()}:
                self._wake(line, uid)

    def _wake(self, line: Line, uid: str) -> None:
        if wake := line.wakes.get(uid):
            wake()

    async def _deliver(self, name: str, letter: Letter) -> None:
        sink = self._sinks.get(name)
        if sink is None:
            raise SpecError(f"is no sink of the configuration; allowed are {', '.join(sorted(self._sinks)) or 'none'}")
        loop, seconds = asyncio.get_running_loop(), duration(sink.timeout).total_seconds()
        now = self._clock.now()
        try:
            # A thread that hangs beyond its own time-outs must not keep its line waiting for ever.
            await asyncio.wait_for(loop.run_in_executor(self._pool, send, sink, letter, seconds, now), 2 * seconds)
        except TimeoutError as error:
            raise Unavailable(f"no answer within {sink.timeout}") from error


def send(sink: Sink, letter: Letter, seconds: float, now: datetime) -> None:
    """Deliver one letter; blocks. Raises Unavailable, with nothing in it that the sink's address or answer may hold."""
    try:
        if sink.webhook is not None:
            _post(sink.webhook, letter, seconds, now)
        elif sink.url_file is not None:
            _through_apprise(credential(sink.url_file), letter)
    except OSError as error:  # requests' errors are of this kind, too
        said = f"no answer within {seconds:g} s" if isinstance(error, requests.Timeout) else type(error).__name__
        raise Unavailable(said) from error


def _post(webhook: Webhook, letter: Letter, seconds: float, now: datetime) -> None:
    body = json.dumps(letter.to_json()).encode()
    headers = {"Content-Type": "application/json", **signature(webhook, letter.notice.id, now, body)}
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(webhook.url, data=body, headers=headers, timeout=seconds, allow_redirects=False, stream=True)
        answer.close()
    if not answer.ok:
        raise Unavailable(f"answered {answer.status_code}")


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
        raise Unavailable("`secretFile` begins with whsec_, and what follows is not base64") from error
    digest = hmac.new(key, f"{identity}.{moment}.".encode() + body, hashlib.sha256).digest()
    return {**headers, "webhook-signature": f"v1,{base64.b64encode(digest).decode()}"}


def _through_apprise(url: str, letter: Letter) -> None:
    apprise = Apprise()
    if not apprise.add(url):
        raise Unavailable("`urlFile` holds no URL that Apprise knows")
    kind = NotifyType.WARNING if letter.notice.event.is_warning else NotifyType.INFO
    if not apprise.notify(title=letter.title, body=letter.body, notify_type=kind):
        raise Unavailable("did not take the message")
