"""The world of a random life: an API server, an application that is measured, people, and one operator process at a time.

The operator is the real one from the reconciler down to its requests; only HTTP, time and the measured application are made
up. Everything that later changes between core and controller is inside that; what a life needs from outside is in `Replica`.
"""

import asyncio
import json
from collections.abc import Callable, Container, Coroutine, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest.mock import patch

from controller import cluster as ports
from core.model.server import Frozen, Object, Server
from session_rollout.adapters.flags import LABEL, ConfigMapPublisher, document_of
from session_rollout.adapters.prometheus import PrometheusSource, read
from session_rollout.adapters.provider_client import Response
from session_rollout.adapters.rollouts import ApiRolloutStore, parse
from session_rollout.api import ACTIONS, API_VERSION, ROLLOUTS
from session_rollout.api.base import Model
from session_rollout.api.enums import CheckReason, Verdict
from session_rollout.api.parsing import action_of
from session_rollout.api.rollout import Metric, RolloutSpec
from session_rollout.api.status import RolloutStatus
from session_rollout.controller import deletion
from session_rollout.controller.deletion import Deletion
from session_rollout.controller.downtime import Downtime
from session_rollout.controller.finalizers import Finalizers
from session_rollout.controller.inbox import Inbox
from session_rollout.controller.loops import Loops
from session_rollout.controller.memory import Memory
from session_rollout.controller.on_demand import OnDemandChecks
from session_rollout.controller.reconciler import Reconciler
from session_rollout.core.flags import KEY as DOCUMENT
from session_rollout.core.observed import Measurement
from session_rollout.ports import Key, Reconciled
from session_rollout.settings import Provider

T = TypeVar("T")
M = TypeVar("M", bound=Model)
START = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)  # a Monday
NAMESPACE, NAME = "default", "shop"
ROOT = f"/apis/{API_VERSION}/namespaces/{NAMESPACE}"
AT_ONCE = 0.1  # seconds: an operator that wants to decide again sooner has not settled
LOOK_BACK = timedelta(seconds=20)  # of a query without a range
SCRAPE = RULE = timedelta(seconds=10)  # how often the provider measures, and how often it evaluates its rules


class Broken(AssertionError):
    """A promise that was not kept; `promise` is its name in the table of the witness."""

    def __init__(self, promise: str, sentence: str) -> None:
        super().__init__(f"{promise}: {sentence}")
        self.promise = promise


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which nothing takes time: when everything waits, its clock moves to the first timer."""

    seconds = 0.0

    def time(self) -> float:
        return self.seconds

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.seconds = max(self.seconds, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


LOOP = VirtualLoop()


def run(body: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, at once."""
    return LOOP.run_until_complete(body)


def known(model: type[Any], **fields: Any) -> dict[str, Any]:
    """The fields that this model has: a world that is older or younger than the API it talks to leaves out the rest."""
    return {model.model_fields[name].alias or name: value for name, value in fields.items() if name in model.model_fields}


PROVIDERS = {
    "default": Provider.model_validate(
        {
            "url": "http://prometheus",
            **known(Provider, lookback_delta="20s", scrape_interval="10s", rule_interval="10s"),
        }
    )
}


@dataclass(frozen=True)
class Reading:
    """What a metric says now: a number or why there is none, and how old its sample is."""

    value: Decimal | Verdict
    age: timedelta = timedelta(0)


class Application(PrometheusSource):
    """The measured application behind the production reader of results: no thread and no HTTP."""

    def __init__(self, cluster: "Cluster") -> None:
        super().__init__(PROVIDERS, SteadyClock(cluster), 1)
        self._cluster = cluster

    def measurements(
        self, _provider: str, metrics: tuple[Metric, ...], _max_age: timedelta, _wake: Callable[[], None]
    ) -> dict[str, Measurement]:
        if not self._cluster.answering:
            return {}
        return {metric.name: self._measured(self._cluster.readings[metric.name]) for metric in metrics}

    def _measured(self, reading: Reading) -> Measurement:
        now, value = self._cluster.now(), reading.value
        sample = {"metric": {}, "value": [(now - reading.age).timestamp(), str(value)]}
        match value:
            case Verdict.NO_DATA:
                result = []
            case Verdict.INCONCLUSIVE:
                result = [sample, sample]
            case Verdict():
                return Measurement(now, problem=value, reason=CheckReason.CONNECTION_FAILED, message="cannot be reached")
            case _:
                result = [sample]
        data = {"resultType": "vector", "result": result}
        return read(Response(data, 0.0, now, timedelta(0)), now, PROVIDERS["default"])


class SteadyClock:
    """The clock of one process: that of the API server when it started, carried on by elapsed time."""

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster, self._offset = cluster, cluster.offset

    def now(self) -> datetime:
        """See `Clock.now`."""
        return self._cluster.time + self._offset

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return (self._cluster.time - START).total_seconds()


class NoLoops(Loops):
    """A life reconciles by itself: the sweep starts nothing."""

    def listed(self, objects: Mapping[Key, Mapping[str, Any]], unlisted: Container[str] = ()) -> None:
        """Nothing that is listed gets a task."""


class Replica:
    """One operator process: its memory is lost with it, the cluster stays."""

    def __init__(self, cluster: "Cluster", *, since: datetime | None) -> None:
        self.memory, self.downtime, server = Memory(), Downtime(), cluster.server
        self.clock: SteadyClock = SteadyClock(cluster)
        store = ApiRolloutStore(server, monotonic=self.clock.monotonic)
        around = replace(
            cluster.around.ports(), store=store, flags=ConfigMapPublisher(server), metrics=cluster.application, clock=self.clock
        )
        self.deletion = Deletion(around, self.memory, parse, lambda _: None)
        self.finalizers = Finalizers(around)
        self.reconciler = Reconciler(around, self.memory, self.downtime, cluster.decided, lambda *_: nullcontext())
        loops = NoLoops(self.reconciler, self.deletion, self.memory, around)
        self.inbox = Inbox(self.memory, OnDemandChecks(around), loops, store, self.clock, action_of)
        self.downtime.begin(lambda _: since, cluster.keys)
        run(self.inbox.sweep())

    def reconcile(self, key: Key) -> float:
        """Reconcile once; seconds until the next time."""
        self.memory.of(key).has_loop = True
        return run(self.reconciler.reconcile(key))

    def end(self, raw: Object) -> None:
        """Release what belongs to a deleted rollout, as its loop does; attempts are repeated in the time of the event loop."""
        with patch.object(deletion, "time", SimpleNamespace(monotonic=LOOP.time)):
            stored = parse(raw)
            run(self.deletion.finalize(raw))
            if run(self.finalizers.remove(stored, self.memory.of(stored.key))):
                self.deletion.forget(stored.key, stored.uid)

    def document_changed(self, stored: Object, *, deleted: bool) -> None:
        """The watch of flag documents; of one that was deleted it delivers the last version."""
        place = Key(NAMESPACE, stored["metadata"]["name"])
        self.reconciler.document_changed(place, document_of(stored), deleted=deleted)

    def action_changed(self, raw: Object, *, deleted: bool = False) -> None:
        """The watch of actions; what it schedules is run when the loop runs next."""

        async def deliver() -> None:
            self.inbox.action_changed(raw, deleted=deleted)

        run(deliver())


@dataclass
class Cluster:
    """Everything around the operator, and the operator."""

    time: datetime = START  # as it passes, whatever anybody sets
    offset: timedelta = timedelta(0)  # how far the clock of the API server was set
    answering: bool = True  # False: every result is still on its way
    readings: dict[str, Reading] = field(default_factory=dict)  # by metric
    server: Server = field(default_factory=Server)
    keys: tuple[Key, ...] = (Key(NAMESPACE, NAME),)
    last_led: datetime | None = None
    heard: list[Callable[[Reconciled], None]] = field(default_factory=list)  # called with each decision that was written
    numbers: int = 0

    def __post_init__(self) -> None:
        self.around = ports.Cluster()  # Jobs, gates, Events and notifications: lives have none of interest
        self.around.forget = lambda uid: None  # type: ignore[method-assign]  # noqa: ARG005
        self.application = Application(self)
        self.server.on_document.append(self._document_changed)
        self.replica = Replica(self, since=self.time)
        self._watched = self.document_object
        self._models: dict[str, tuple[Object, Model]] = {}

    def now(self) -> datetime:
        """By the clock of the operator."""
        return self.replica.clock.now()

    # --- what is stored

    @property
    def path(self) -> str:
        """Path of the rollout."""
        return f"{ROOT}/{ROLLOUTS}/{NAME}"

    @property
    def raw(self) -> Object | None:
        """The rollout; None while there is none."""
        return self.server.objects.get(self.path)

    @property
    def spec(self) -> RolloutSpec:
        """Its spec."""
        assert self.raw is not None
        return self._parsed("spec", self.raw["spec"], RolloutSpec)

    @property
    def status(self) -> RolloutStatus:
        """Its status as it is stored."""
        return self._parsed("status", (self.raw or {}).get("status", {}), RolloutStatus)

    def _parsed(self, name: str, stored: Object, model: type[M]) -> M:
        """A part of the object as a model; parsed once, because nothing that is stored is changed in place."""
        known = self._models.get(name)
        if known is None or known[0] is not stored:
            known = self._models[name] = stored, model.model_validate(stored)
        result = known[1]
        assert isinstance(result, model)
        return result

    @property
    def document_path(self) -> str:
        """Path of the ConfigMap of its flags."""
        return f"/api/v1/namespaces/{NAMESPACE}/configmaps/{NAME}-flags"

    @property
    def document_object(self) -> Object | None:
        """The ConfigMap of its flags."""
        return self.server.objects.get(self.document_path)

    @property
    def document(self) -> str | None:
        """The flag document that applications read."""
        stored = self.document_object
        return stored["data"].get(DOCUMENT) if stored else None

    def condition(self, kind: str) -> str | None:
        """Status of a condition; None when it is not there."""
        return next((condition.status for condition in self.status.conditions if condition.type == kind), None)

    def action(self, uid: str) -> Object | None:
        """The response to an action; None without one."""
        actions = (value for path, value in self.server.objects.items() if path.startswith(f"{ROOT}/{ACTIONS}/"))
        return next((raw.get("status") for raw in actions if raw["metadata"]["uid"] == uid), None)

    # --- people

    def create(self, spec: RolloutSpec, name: str = NAME) -> None:
        """A new object: another UID, generation 1, no status."""
        self.numbers += 1
        created = (self.time + self.offset).isoformat()
        metadata = {"namespace": NAMESPACE, "uid": f"uid-{self.numbers}", "generation": 1, "creationTimestamp": created}
        self.server.put(f"{ROOT}/{ROLLOUTS}/{name}", {"metadata": metadata, "spec": spec.to_wire()})

    def edit(self, spec: RolloutSpec) -> None:
        """Another spec, and another generation if it differs."""
        raw, wire = self.raw, spec.to_wire()
        if raw is not None and raw["spec"] != wire:
            metadata = {**raw["metadata"], "generation": raw["metadata"]["generation"] + 1}
            self.server.put(self.path, {**raw, "metadata": metadata, "spec": wire})

    def forget_status(self) -> None:
        """The object is replaced, or restored from a backup without its status; its finalizer never ran."""
        assert self.raw is not None
        spec = self.spec
        self.server.remove(self.path)
        self.create(spec)
        self.restart(since=self.last_led)

    def delete(self) -> None:
        """The object is deleted: at once, or when the operator has finalized it."""
        raw = self.raw
        assert raw is not None
        if raw["metadata"].get("finalizers"):
            raw = {**raw, "metadata": {**raw["metadata"], "deletionTimestamp": (self.time + self.offset).isoformat()}}
            raw = self.server.put(self.path, raw)
        else:
            self.server.remove(self.path)
        try:
            self.replica.end(raw)
        except Frozen:
            self.restart(since=self.now())
            if self.raw is not None:
                self.replica.end(self.raw)

    def request(self, action: str, name: str = "", **fields: Any) -> str:
        """Create an action; its UID."""
        self.numbers += 1
        uid = f"{action}-{self.numbers}"
        path = f"{ROOT}/{ACTIONS}/{name or uid.lower()}"
        metadata = {"namespace": NAMESPACE, "uid": uid, "creationTimestamp": (self.time + self.offset).isoformat()}
        spec = {"rollout": NAME, "action": action, "reason": "for a test", **fields}
        self.replica.action_changed(self.server.put(path, {"metadata": metadata, "spec": spec}))
        return uid

    def write_document(self, change: Callable[[Object], Any], manager: str = "kubectl-edit", suffix: str = "") -> None:
        """Somebody edits the flag document by hand, or a copy of it, which has its labels; the watch delivers both."""
        stored = self.document_object
        if stored is None:
            return
        document = json.loads(stored["data"][DOCUMENT])
        change(document)
        edited = {**stored, "data": {DOCUMENT: json.dumps(document, indent=1)}}
        written = self.server.put(self.document_path + suffix, edited, manager=manager)
        if suffix:
            self.replica.document_changed(written, deleted=False)

    # --- the operator

    def decided(self, _: Key, result: Reconciled) -> None:
        """A reconciliation has decided."""
        for listener in self.heard:
            listener(result)

    def _document_changed(self) -> None:
        stored, before = self.document_object, self._watched
        watched = stored or before or {}
        self._watched = stored
        if LABEL in (watched.get("metadata", {}).get("labels") or {}):
            self.replica.document_changed(watched, deleted=stored is None)

    def reconcile(self) -> None:
        """Reconcile every rollout until nothing is to be done at once."""
        for key in self.keys:
            unchanged = 0
            for _ in range(20):
                version = self.server.version
                try:
                    seconds = self.replica.reconcile(key)
                except Frozen:
                    self.restart(since=self.now())
                    seconds, version = 0.0, -1
                unchanged = unchanged + 1 if self.server.version == version else 0
                if seconds > AT_ONCE or unchanged > 1:
                    break
            else:
                raise Broken("settles", "the operator changes things for ever at one moment")
        self.last_led = self.now()

    def restart(self, *, since: datetime | None) -> None:
        """Another process leads from now on; what the old one knew is lost."""
        self.replica = Replica(self, since=since)

    def crash_before(self, kind: str) -> None:
        """The process ends at its next write of this kind, which never arrives."""
        self.server.held[kind] = True
        self.reconcile()
        self.server.held.pop(kind, None)
        self.server.late = []
