"""Kubernetes Events (port `EventSink`), sent in the background: best effort, because the history in `status` has the same entries.

An admission webhook that hangs must not delay the next decision. Each namespace has a queue of its own, in the order of its Events.
"""

import hashlib
import logging
from collections import deque
from functools import partial
from typing import Any, Final

from session_rollout.adapters.api_server import URGENT_SECONDS, ApiServer
from session_rollout.api import API_VERSION
from session_rollout.api.enums import EventReason
from session_rollout.api.rollout import SessionRollout
from session_rollout.errors import RolloutError
from session_rollout.ports import Clock
from session_rollout.tasks import Background

log = logging.getLogger(__name__)
EVENT_NOTE: Final = 1024
MOST_WAITING: Final = 100  # Events of one namespace
AT_ONCE: Final = 8
CLOSE_SECONDS: Final = 0.3  # for Events that wait when the process ends
Object = dict[str, Any]


class ApiEventSink:
    """Events under the operator's own component."""

    def __init__(self, api: ApiServer, clock: Clock, instance: str) -> None:
        self._api, self._clock, self._instance = api, clock, instance
        self._waiting: dict[str, deque[Object]] = {}  # by namespace
        self._background = Background("Events", AT_ONCE)

    def emit(self, rollout: SessionRollout, reason: EventReason, message: str) -> None:
        """See `EventSink.emit`."""
        waiting = self._waiting.setdefault(rollout.namespace, deque())
        if len(waiting) >= MOST_WAITING:
            place = {"namespace": rollout.namespace, "rollout": rollout.name}
            log.warning("Event %s is dropped: %s wait", reason, MOST_WAITING, extra=place)
            return
        waiting.append(self._event(rollout, reason, message))
        self._background.begin(rollout.namespace, partial(self._send, rollout.namespace, waiting))

    async def close(self) -> None:
        """Send what waits if that takes but a moment."""
        await self._background.close(CLOSE_SECONDS)

    async def _send(self, namespace: str, waiting: deque[Object]) -> None:
        path = f"/api/v1/namespaces/{namespace}/events"
        while waiting:
            async with self._background.slot:
                try:
                    await self._api.request("POST", path, waiting.popleft(), seconds=URGENT_SECONDS)
                except RolloutError:
                    continue  # counted as a request
        del self._waiting[namespace]

    def _event(self, rollout: SessionRollout, reason: EventReason, message: str) -> Object:
        moment = self._clock.now()
        stamp = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        identity = f"{rollout.uid}/{reason}/{message}/{moment.timestamp()}"
        return {
            "metadata": {
                "name": f"{rollout.name[:200]}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}",
                "namespace": rollout.namespace,
            },
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": "SessionRollout",
                "namespace": rollout.namespace,
                "name": rollout.name,
                "uid": rollout.uid,
            },
            "reason": reason,
            "message": message[:EVENT_NOTE],
            "type": "Warning" if reason.is_warning else "Normal",
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
            "source": {"component": "session-rollout"},
            "reportingComponent": "session-rollout",
            "reportingInstance": self._instance,
        }
