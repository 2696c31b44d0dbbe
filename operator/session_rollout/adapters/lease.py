"""Leader election by a coordination.k8s.io Lease (port `Leadership`), with the values of client-go: 15 s, 10 s, 2 s.

`kubernetes.aio.leaderelection` of the client package is not used. It writes naive local times that end in "Z", measures its
deadlines with the wall clock, and cannot release the Lease or be stopped: a rolling update would wait for 15 s. Errors of
aiohttp escape from its loop, and it never counts `leaseTransitions`.
The identity is the Pod's name: a restarted container acquires its own Lease again immediately.
"""

import asyncio
import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from session_rollout.adapters.api_server import ApiServer
from session_rollout.adapters.labels import recommended
from session_rollout.adapters.telemetry import LEADER
from session_rollout.api import GROUP
from session_rollout.errors import Conflict, NotFound, RolloutError, Unavailable
from session_rollout.ports import Clock, Key

log = logging.getLogger(__name__)
LEASE_SECONDS: Final = 15
AFTER_RENEWAL: Final = timedelta(seconds=LEASE_SECONDS)  # a leader may evaluate for so long after its last renewal
RENEW_DEADLINE: Final = 10.0
RETRY_SECONDS: Final = 2.0
SHORTEST_SECONDS: Final = 0.1  # between renewals of which one takes longer than that
LABELS: Final = recommended("operator")  # the plugin finds the Lease by the first of them, whatever the release is called
ATTEMPT_SECONDS: Final = RENEW_DEADLINE / 2  # for one request, as client-go has it: one that hangs leaves time for another
UNACCOUNTED: Final = f"{GROUP}/unaccounted-since"
UNACCOUNTED_ROLLOUTS: Final = f"{GROUP}/unaccounted-rollouts"
ROLLOUTS_LENGTH: Final = 500  # names in the annotation: with more of them, the time of every rollout is unknown
WATCHED: Final = f"{GROUP}/watched-namespaces"
ALL: Final = "*"
UNKNOWN: Final = "unknown"  # instead of a time
NAMES: Final = r"[a-z0-9.-]+/[a-z0-9.-]+(,[a-z0-9.-]+/[a-z0-9.-]+)*"


@dataclass
class UnledTime:
    """Time since which no replica has watched the rollouts, until every rollout has taken that time into account.

    It is kept on the Lease: a process that crashes before it has reconciled every rollout must not lose it. So are the namespaces
    that replicas have watched, because a Lease that is renewed proves nothing about the others. Nor does it prove that a rollout was
    evaluated that could not be, or whose status the API server refuses: their names are kept, too.
    """

    namespaces: frozenset[str] = frozenset()  # that this process is to watch; empty for all
    since: datetime | None = None
    term: tuple[datetime, datetime] | None = None  # in which the previous leader has led, by its first and last renewal
    unknown: bool = False  # nobody knows since when, or for which rollouts: holds start again
    watched: frozenset[str] | None = None  # namespaces that every replica since then has watched; None for all
    unaccounted: set[Key] = field(default_factory=set)  # rollouts of which no status says what this process knows
    behind: Callable[[], Iterable[Key]] = tuple  # rollouts that this process does not evaluate in time
    lost: frozenset[Key] = frozenset()  # what the previous leader has left of both

    def since_for(self, rollout: Key, evaluated: datetime | None = None) -> datetime | None:
        """The unled time of a rollout whose status was written after this evaluation; None when it is unknown.

        The previous leader has evaluated it until its last renewal, if it once did and has not left its name.
        """
        if rollout in self.lost or not (self.watched is None or rollout.namespace in self.watched):
            return None
        if evaluated is not None and self.term is not None and evaluated <= self.term[1] + AFTER_RENEWAL:
            if evaluated >= self.term[0]:
                return max(self.term[1], evaluated)
            return None if self.since is None else max(self.since, evaluated)
        return self.since

    def read(self, lease: Mapping[str, Any]) -> None:
        """Set the time from the Lease of the previous leader.

        It is the last renewal of that leader or, if earlier, the unled time that it had recorded and not accounted for. An
        annotation that cannot be read makes it unknown, which is no reason not to lead; so does a Lease that nobody has renewed.
        """
        annotations = lease["metadata"].get("annotations", {})
        recorded, watched = annotations.get(UNACCOUNTED), annotations.get(WATCHED, ALL)
        self.watched = None if watched == ALL else frozenset(watched.split(","))
        renewed, names = lease["spec"].get("renewTime"), annotations.get(UNACCOUNTED_ROLLOUTS, "")
        are_names = not names or re.fullmatch(NAMES, names) is not None
        self.unknown = not (renewed or recorded) or (bool(recorded) and _time_of(recorded) is None) or not are_names
        self.lost = frozenset(Key(*name.split("/")) for name in names.split(",") if name and are_names)
        self.unaccounted |= self.lost
        if renewed and _time_of(renewed) is None:  # the API server stores nothing of the kind
            raise Unavailable("the Lease in the answer of the API server has an invalid time")
        began, ended = map(_time_of, (lease["spec"].get("acquireTime"), renewed))
        self.term = (began, ended) if began is not None and ended is not None else None
        times = [time for time in map(_time_of, (renewed, recorded)) if time is not None]
        self.since = None if self.unknown else min(times, default=None)

    def annotations(self, lease: Mapping[str, Any]) -> dict[str, str]:
        """The annotations of the Lease with this time in them, or without it once it is accounted for."""
        rollouts = self.unaccounted.union(self.behind())
        many = len(rollouts) > ROLLOUTS_LENGTH
        since = UNKNOWN if self.unknown or many else "" if self.since is None else self.since.isoformat()
        unaccounted = "" if many else ",".join(sorted(f"{key.namespace}/{key.name}" for key in rollouts))
        ours = {UNACCOUNTED: since, UNACCOUNTED_ROLLOUTS: unaccounted, WATCHED: self._watched_by_all()}
        kept = {name: text for name, text in lease["metadata"].get("annotations", {}).items() if name not in ours}
        return {**kept, **{name: text for name, text in ours.items() if text or name == WATCHED}}

    def _watched_by_all(self) -> str:
        if not self.namespaces and self.watched is None:
            return ALL
        both = (
            self.namespaces & self.watched if self.namespaces and self.watched is not None else self.namespaces or self.watched
        )
        return ",".join(sorted(both or frozenset()))

    def forget_deleted(self, existing: Iterable[Key], lacks: Callable[[str], bool]) -> None:
        """These rollouts exist, but for namespaces that the list lacks. No status of one that was deleted will have its decision."""
        listed = {key for key in self.unaccounted if key.namespace in self.namespaces or not self.namespaces}
        self.unaccounted -= {key for key in listed if not lacks(key.namespace)}.difference(existing)

    def account(self) -> None:
        """Every rollout has taken the time into account."""
        self.since, self.watched, self.unknown, self.lost = None, None, False, frozenset()


def _time_of(text: Any) -> datetime | None:
    """A time of the Lease; None when it cannot be read, or is of no time zone."""
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return None if time.tzinfo is None else time


class Lease:
    """This process's claim on the Lease. `leader` is the other replica that holds it; empty when none is known."""

    def __init__(
        self, api: ApiServer, namespace: str, name: str, identity: str, clock: Clock, namespaces: tuple[str, ...] = ()
    ) -> None:
        self._api = api
        self._name = name
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._identity = identity
        self._clock = clock
        self._renewed = -math.inf  # monotonic seconds
        self._took = 0.0  # seconds for the last attempt
        self._known: dict[str, Any] | None = None  # the Lease as this process has written it, if that was the last attempt
        self._leads = False  # it once held the Lease, and ends when it loses it
        self._observed: tuple[str, float] = ("", 0.0)  # last renewTime of another holder, and when it changed
        self.unled = UnledTime(frozenset(namespaces))
        self.leader = ""

    def confirm(self) -> None:
        """See `Leadership.confirm`."""
        if not self._held:
            raise Unavailable("this replica may not hold the Lease, so it does not write")

    @property
    def age(self) -> float:
        """Seconds since the last renewal."""
        return time.monotonic() - self._renewed

    @property
    def _held(self) -> bool:
        return self.age <= RENEW_DEADLINE

    async def acquire(self, tried: Callable[[], None]) -> None:
        """Wait until this process holds the Lease; `tried` is called after each attempt."""
        while not await self._try():
            tried()
            await asyncio.sleep(RETRY_SECONDS)
        LEADER.set(1)
        log.info("acquired the Lease", extra={"identity": self._identity})

    async def keep(self, lost: Callable[[], None]) -> None:
        """Renew until the Lease is lost, then call `lost`."""
        while self._held:
            await asyncio.sleep(max(RETRY_SECONDS - self._took, SHORTEST_SECONDS))
            await self._try()
        LEADER.set(0)
        lost()

    def resign(self) -> None:
        """Write nothing any more: this process ends."""
        self._renewed = -math.inf

    async def accounted(self) -> None:
        """Every rollout has taken the unled time into account: remove it from the Lease."""
        self.unled.account()
        await self._try()

    async def release(self) -> None:
        """Release the Lease, so that the next leader does not have to wait until it expires."""
        lease = await self._find()
        if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
            lease["spec"]["holderIdentity"] = ""
            lease["metadata"]["annotations"] = self.unled.annotations(lease)
            await self._write(lease)

    async def _try(self) -> bool:
        start = time.monotonic()
        try:
            held = await self._claim()
        except RolloutError as error:
            log.warning("cannot renew or acquire the Lease: %s", error)
            return False
        finally:
            self._took = time.monotonic() - start
        if held:
            # From before the request: the API server may have stored it at any moment since.
            self._renewed, self.leader, self._leads = start, "", True
        return held

    async def _claim(self) -> bool:
        known, self._known = self._known, None
        if known is not None and await self._take(known):
            # Its version is proof that nobody has written it since, so it need not be read: two requests of a slow API server take
            # as long as a renewal counts.
            return True
        lease = await self._find()
        if lease is None:
            self.unled.unknown |= not self._leads  # somebody has deleted it, and what it said
            await self._create()
            return True
        holder = lease["spec"].get("holderIdentity")
        if holder not in {self._identity, "", None} and not self._observe_expiry(lease["spec"]):
            self.leader = holder
            self.resign()  # whatever the clock of this process says: it may have stood still
            return False
        if not self._leads:
            self.unled.read(lease)
        return await self._take(lease)

    async def _find(self) -> dict[str, Any] | None:
        lease = await self._api.find(f"{self._path}/{self._name}", seconds=ATTEMPT_SECONDS)
        if lease is not None and not isinstance(lease.get("spec"), dict):
            raise Unavailable("the Lease in the answer of the API server has no `spec`")
        return lease

    async def _create(self) -> None:
        kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        metadata = {"name": self._name, "labels": LABELS, "annotations": self.unled.annotations({"metadata": {}})}
        body = {**kind, "metadata": metadata, "spec": self._spec(0)}
        self._note(await self._api.request("POST", self._path, body, seconds=ATTEMPT_SECONDS))

    async def _take(self, lease: dict[str, Any]) -> bool:
        before = lease["spec"]
        own = before.get("holderIdentity") == self._identity
        spec = self._spec(before.get("leaseTransitions", 0) + (not own))
        if self._leads and "acquireTime" in before:
            spec["acquireTime"] = before["acquireTime"]
        labels = {**lease["metadata"].get("labels", {}), **LABELS}
        metadata = {**lease["metadata"], "labels": labels, "annotations": self.unled.annotations(lease)}
        try:
            await self._write({**lease, "metadata": metadata, "spec": spec})
        except (Conflict, NotFound):
            # Another replica took it, or another client changed or deleted it, between the read and this write.
            return False
        return True

    async def _write(self, lease: dict[str, Any]) -> None:
        self._note(await self._api.request("PUT", f"{self._path}/{self._name}", lease, seconds=ATTEMPT_SECONDS))

    def _note(self, written: dict[str, Any]) -> None:
        self._known = written if isinstance(written.get("spec"), dict) else None

    def _observe_expiry(self, spec: dict[str, Any]) -> bool:
        """Record the last renewal; returns whether the holder has not renewed for the whole lease, by the clock of this process: the clock of the holder may be wrong."""
        version = str(spec.get("renewTime"))
        if self._observed[0] != version:
            self._observed = (version, time.monotonic())
        return time.monotonic() - self._observed[1] > LEASE_SECONDS

    def _spec(self, transitions: int) -> dict[str, Any]:
        text = self._clock.now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": text,
            "acquireTime": text,
            "leaseTransitions": transitions,
        }
