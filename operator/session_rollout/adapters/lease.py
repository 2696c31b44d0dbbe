"""Leader election by a coordination.k8s.io Lease (port `Leadership`), and the memory of how long nobody led.

Values of client-go: 15 s lease, 10 s to renew, every 2 s. The identity is the Pod's name: a restarted container takes its
own Lease back at once. `unaccounted_since` is when the last leader was last heard of: until every rollout has been looked
at after a start, that time is kept on the Lease, so that a second crash does not lose it.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from session_rollout.adapters.api_server import ApiServer
from session_rollout.adapters.telemetry import LEADER
from session_rollout.api import GROUP
from session_rollout.errors import Conflict, RolloutError, Unavailable
from session_rollout.ports import Clock

log = logging.getLogger(__name__)
LEASE_SECONDS: Final = 15
RENEW_DEADLINE: Final = 10.0
RETRY_SECONDS: Final = 2.0
UNACCOUNTED: Final = f"{GROUP}/unaccounted-since"


class Lease:
    """Our claim on the Lease. `leader` is who else was last seen to hold it; empty: nobody."""

    def __init__(self, api: ApiServer, namespace: str, name: str, identity: str, clock: Clock) -> None:
        self._api = api
        self._name = name
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._identity = identity
        self._clock = clock
        self._renewed = -RENEW_DEADLINE * 10  # monotonic seconds
        self._seen: tuple[str, float] = ("", 0.0)
        self.unaccounted_since: datetime | None = None
        self.leader = ""

    def confirm(self) -> None:
        """See `Leadership.confirm`."""
        if time.monotonic() - self._renewed > RENEW_DEADLINE:
            raise Unavailable("the Lease is not held for certain: nothing is written")

    async def acquire(self, stop: asyncio.Event) -> bool:
        """Wait until the Lease is ours; False when told to stop before."""
        while not stop.is_set() and not await self._try():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RETRY_SECONDS)
        if stop.is_set():
            return False
        LEADER.set(1)
        log.info("leading", extra={"identity": self._identity})
        return True

    async def keep(self, lost: Callable[[], None]) -> None:
        """Renew until the Lease is lost, then call `lost`."""
        while time.monotonic() - self._renewed < RENEW_DEADLINE:
            await asyncio.sleep(RETRY_SECONDS)
            await self._try()
        LEADER.set(0)
        lost()

    async def accounted(self) -> None:
        """Every rollout has been looked at since the start: the gap before it is in their status."""
        self.unaccounted_since = None
        await self._try()

    async def release(self) -> None:
        """Give the Lease up so that the next one need not wait."""
        found = await self._api.find(f"{self._path}/{self._name}")
        if found is not None and found["spec"].get("holderIdentity") == self._identity:
            found["spec"]["holderIdentity"] = ""
            await self._api.request("PUT", f"{self._path}/{self._name}", found)

    async def _try(self) -> bool:
        start = time.monotonic()
        try:
            held = await self._claim()
        except RolloutError as error:
            log.warning("lease: %s", error)
            return False
        if held:
            self._renewed, self.leader = start, ""
        return held

    async def _claim(self) -> bool:
        found = await self._api.find(f"{self._path}/{self._name}")
        if found is None:
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._name},
                "spec": self._spec(0),
            }
            await self._api.request("POST", self._path, body)
            return True
        holder, ours = found["spec"].get("holderIdentity"), time.monotonic() - self._renewed < RENEW_DEADLINE
        if holder not in {self._identity, "", None} and not self._expired(found["spec"]):
            self.leader = holder
            return False
        if not ours:
            self._remember(found)
        return await self._take(found)

    async def _take(self, found: dict[str, Any]) -> bool:
        before = found["spec"]
        ours = before.get("holderIdentity") == self._identity
        spec = self._spec(before.get("leaseTransitions", 0) + (not ours))
        if ours and "acquireTime" in before:
            spec["acquireTime"] = before["acquireTime"]
        annotations = dict(found["metadata"].get("annotations", {}))
        annotations.pop(UNACCOUNTED, None)
        if self.unaccounted_since is not None:
            annotations[UNACCOUNTED] = self.unaccounted_since.isoformat()
        metadata = {**found["metadata"], "annotations": annotations}
        try:
            await self._api.request("PUT", f"{self._path}/{self._name}", {**found, "metadata": metadata, "spec": spec})
        except Conflict:
            return False
        return True

    def _remember(self, found: dict[str, Any]) -> None:
        """When rollouts were last watched, before us."""
        heard = [found["spec"].get("renewTime"), found["metadata"].get("annotations", {}).get(UNACCOUNTED)]
        times = [datetime.fromisoformat(text) for text in heard if text]
        self.unaccounted_since = min(times, default=None)

    def _expired(self, spec: dict[str, Any]) -> bool:
        """Whether the holder has been silent for the whole lease by our own clock: theirs is not trusted."""
        version = str(spec.get("renewTime"))
        if self._seen[0] != version:
            self._seen = (version, time.monotonic())
        return time.monotonic() - self._seen[1] > LEASE_SECONDS

    def _spec(self, transitions: int) -> dict[str, Any]:
        now = self._clock.now().astimezone(UTC)
        text = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": text,
            "acquireTime": text,
            "leaseTransitions": transitions,
        }
