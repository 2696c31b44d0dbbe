"""The world of a random life: an API server, an application that is measured, people, and the operator processes that lead.

The operator is the real one from the reconciler down to its requests; only HTTP, time and the measured application are made
up. Everything that later changes between core and controller is inside that; what a life needs from outside is in `Replica`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from controller import cluster as ports
from core.model.replica import NAMESPACE, START, Reading, Replica, run
from core.model.server import Frozen, Object, Server
from session_rollout.adapters.flags import LABEL
from session_rollout.api import ACTIONS, API_VERSION, ROLLOUTS
from session_rollout.api.base import Model
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status import RolloutStatus
from session_rollout.core.flags import KEY as DOCUMENT
from session_rollout.ports import Key, Reconciled

M = TypeVar("M", bound=Model)
NAME = "shop"
ROOT = f"/apis/{API_VERSION}/namespaces/{NAMESPACE}"
AT_ONCE = 0.1  # seconds: an operator that wants to decide again sooner has not settled


class Broken(AssertionError):
    """A promise that was not kept; `promise` is its name in the table of the witness."""

    def __init__(self, promise: str, sentence: str) -> None:
        super().__init__(f"{promise}: {sentence}")
        self.promise = promise


@dataclass
class Cluster:
    """Everything around the operator, and the operator."""

    time: datetime = START  # as it passes, whatever anybody sets
    offset: timedelta = timedelta(0)  # how far the clock of the API server was set
    answering: bool = True  # False: every result is still on its way
    readings: dict[str, Reading] = field(default_factory=dict)  # by metric
    server: Server = field(default_factory=Server)
    keys: tuple[Key, ...] = (Key(NAMESPACE, NAME),)
    heard: list[Callable[[Reconciled], None]] = field(default_factory=list)  # called with each decision that was written
    numbers: int = 0

    def __post_init__(self) -> None:
        self.around = ports.Cluster()  # Jobs, gates, Events and notifications: lives have none of interest
        self.around.forget = lambda uid: None  # type: ignore[method-assign]  # noqa: ARG005
        self.server.on_document.append(self._document_changed)
        self.lease: Object | None = {
            "metadata": {},
            "spec": {"renewTime": self.time.isoformat()},
        }  # as the last leader has left it
        self.take_over()
        self.rival: Replica | None = None  # another process that leads at the same time
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
        self.take_over()

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
            self.renew()
            self.take_over()
            if self.raw is not None:
                self.replica.end(self.raw)

    def request(self, action: str, name: str = "", **fields: Any) -> str:
        """Create an action; its UID."""
        self.numbers += 1
        uid = f"{action}-{self.numbers}"
        path = f"{ROOT}/{ACTIONS}/{name or uid.lower()}"
        metadata = {"namespace": NAMESPACE, "uid": uid, "creationTimestamp": (self.time + self.offset).isoformat()}
        spec = {"rollout": NAME, "action": action, "reason": "for a test", **fields}
        stored = self.server.put(path, {"metadata": metadata, "spec": spec})
        for replica in self.leaders:
            replica.action_changed(stored)
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
        for replica in self.leaders if suffix else ():
            replica.document_changed(written, deleted=False)

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
            for replica in self.leaders:
                replica.document_changed(watched, deleted=stored is None)

    def reconcile(self) -> None:
        """Reconcile every rollout until nothing is to be done at once."""
        for key in self.keys:
            unchanged = 0
            for _ in range(20):
                version = self.server.version
                try:
                    seconds = run(self.replica.reconcile(key))
                except Frozen:
                    self.renew()
                    self.take_over()
                    seconds, version = 0.0, -1
                unchanged = unchanged + 1 if self.server.version == version else 0
                if seconds > AT_ONCE or unchanged > 1:
                    break
            else:
                raise Broken("settles", "the operator changes things for ever at one moment")
        if self.rival is not None:
            run(self.overtake())
        self.renew()

    @property
    def leaders(self) -> tuple[Replica, ...]:
        """The processes that lead."""
        return (self.replica,) if self.rival is None else (self.replica, self.rival)

    async def overtake(self) -> None:
        """The other leader reconciles until nothing is to be done at once."""
        for key in self.keys:
            for _ in range(20):
                try:
                    if self.rival is None or await self.rival.reconcile(key) > AT_ONCE:
                        break
                except Frozen:
                    self.rival = None

    def renew(self) -> None:
        """The process that leads writes the Lease, without the unled time that every rollout has taken into account."""
        if self.replica.downtime.accounted.is_set():
            self.replica.unled.account()
        self._write_lease()

    def take_over(self) -> None:
        """Another process leads from now on; what the old one knew is lost, but for what it has left in the Lease."""
        self.replica = Replica(self)
        self._write_lease()

    def _write_lease(self) -> None:
        times = {"acquireTime": self.replica.began.isoformat(), "renewTime": self.now().isoformat()}
        annotations = self.replica.unled.annotations(self.lease or {"metadata": {}})
        self.lease = {"metadata": {"annotations": annotations}, "spec": times}

    @property
    def evaluating(self) -> bool:
        """Whether the operator can evaluate anything: it has results, and can read what they are about."""
        return self.answering and not self.server.unread

    def crash_before(self, kind: str) -> None:
        """The process ends at its next write of this kind, which never arrives."""
        self.server.held[kind] = True
        self.reconcile()
        self.server.held.pop(kind, None)
        self.server.late = []
