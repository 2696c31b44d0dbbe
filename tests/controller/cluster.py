"""All ports of the controller in memory, and one operator process on them. Tests say which call fails, and how."""

import asyncio
import copy
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from controller.job_port import JobPort
from controller.past import Past
from core.world import spec
from session_rollout.adapters.promql import spelled
from session_rollout.adapters.rollouts import parse, status_to_write
from session_rollout.api.action import ActionStatus, Result
from session_rollout.api.checks import Gate
from session_rollout.api.enums import CheckReason, EventReason, Verdict
from session_rollout.api.metrics import DEFAULT_CONTROL, Control, Metric
from session_rollout.api.parsing import action_of, first_missing
from session_rollout.api.rollout import SessionRollout, Workload
from session_rollout.api.status import RolloutStatus
from session_rollout.api.status_records import PendingNotification
from session_rollout.controller.deletion import Deletion
from session_rollout.controller.downtime import Downtime
from session_rollout.controller.inbox import Inbox
from session_rollout.controller.loops import Loops
from session_rollout.controller.memory import Memory
from session_rollout.controller.on_demand import OnDemandChecks
from session_rollout.controller.reconciler import Reconciler
from session_rollout.controller.state import RolloutState
from session_rollout.core.documents import PublishedDocument, read_document
from session_rollout.core.observed import CheckResult, Decision, JobObservation, Measurement, Observed, Publish, Revisions
from session_rollout.errors import Conflict, Forbidden, Request, Unavailable
from session_rollout.ports import Incomplete, Key, Listed, ListedDocuments, Ports, Queries, Reconciled, Stored

NOW = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)
KEY = Key("default", "shop")
DOCUMENT = Key(KEY.namespace, "shop-flags")
Raw = dict[str, Any]


def forbidden(resource: str, namespace: str = "", verb: str = "list") -> Forbidden:
    """The API server denies a request."""
    error = Forbidden(f"cannot {verb} {resource}")
    error.request = Request(verb, resource, namespace)
    return error


class Crash(BaseException):
    """The process is killed here."""


class Cluster(Past):
    """Implements every port; `calls` has the names of the calls that change something, in order."""

    def __init__(self) -> None:
        self.time = NOW
        self.rollouts: dict[Key, Raw] = {}
        self.action_objects: dict[str, Raw] = {}  # by UID
        self.calls: list[str] = []
        self.forbidden: set[str] = set()  # namespaces that cannot be listed
        self.failures: dict[str, list[BaseException]] = {}  # by call; each is raised once
        self.hooks: dict[str, Callable[[], None]] = {}  # by call; called before it
        self.unknown_fields: frozenset[str] = frozenset()  # that the CRD does not have, such as `status.checks[].failingTime`
        self.leads = True
        self.answers: list[tuple[str, ActionStatus]] = []
        self.events: list[EventReason] = []
        self.document: PublishedDocument | None = None
        self.text = ""
        self.released: list[str | None] = []
        self.copies: dict[Key, int] = {}  # other ConfigMaps with the label of the document, by place: their versions
        self.workload = Revisions(2, 1)
        self.jobs: dict[str, JobObservation] = {}
        self.running_jobs: list[tuple[str, ...] | Exception] = []
        self.values: dict[str, Decimal] = {"errors": Decimal("0.001"), "load": Decimal("1.0")}
        super().__init__()
        self.max_ages: dict[str, timedelta] = {}  # by metric, as it was asked for last
        self.counted: dict[str, Measurement] = {}  # blocks of events, by metric
        self.since: dict[str, datetime] = {}  # by metric: from when on its blocks were asked for last
        self.metric_problems: tuple[str, ...] = ()
        self.enqueued: list[tuple[PendingNotification, ...]] = []
        self.records: list[Decision] = []
        self.gate_verdicts: dict[str, Verdict] = {}
        self.diagnostics: dict[str, tuple[Result, ...]] = {}

    # --- what tests do to it

    def add_rollout(self, **changes: Any) -> Raw:
        """The rollout of tests/core/world.py, with top-level fields of its spec replaced."""
        metadata = {
            "namespace": KEY.namespace,
            "name": KEY.name,
            "uid": "uid-1",
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": NOW.isoformat(),
        }
        self.rollouts[KEY] = {"metadata": metadata, "spec": spec(**changes).to_wire()}
        return self.rollouts[KEY]

    def add_action(self, uid: str, kind: str, rollout: str = KEY.name, **fields: Any) -> Raw:
        """An action that is not answered."""
        metadata = {"namespace": KEY.namespace, "name": f"action-{uid}", "uid": uid, "creationTimestamp": self.time.isoformat()}
        self.action_objects[uid] = {"metadata": metadata, "spec": {"rollout": rollout, "action": kind, **fields}}
        return self.action_objects[uid]

    @property
    def status(self) -> RolloutStatus:
        """The stored status."""
        return RolloutStatus.model_validate(self.rollouts[KEY].get("status", {}))

    def ports(self) -> Ports:
        """Itself as every port."""
        return Ports(
            store=self,
            workloads=self,
            gates=self,
            notifier=self,
            recorder=self,
            flags=FlagPort(self),
            jobs=JobPort(self),
            metrics=self,
            events=self,
            clock=self,
            leader=self,
        )

    def called(self, name: str) -> None:
        """Note a call, and fail as the test says."""
        self.calls.append(name)
        if hook := self.hooks.pop(name, None):
            hook()
        if self.failures.get(name):
            raise self.failures[name].pop(0)

    # --- store

    async def read(self, key: Key) -> Stored | None:
        self.called("read")
        raw = self.rollouts.get(key)
        return None if raw is None else parse(copy.deepcopy(raw))

    async def write_status(self, stored: Stored, status: RolloutStatus, *, dry_run: bool = False) -> Incomplete | None:
        self.called("probe_status" if dry_run else "write_status")
        raw = self.rollouts[stored.key]
        if raw["metadata"]["resourceVersion"] != stored.raw["metadata"]["resourceVersion"]:
            raise Conflict("another client wrote first")
        sent = status_to_write(stored, status)
        kept = pruned(sent, self.unknown_fields)
        if not dry_run and kept != raw.get("status"):
            raw["status"] = kept
            raw["metadata"]["resourceVersion"] = str(int(raw["metadata"]["resourceVersion"]) + 1)
        field = first_missing(sent, kept, "status")
        return Incomplete(field, parse(copy.deepcopy({**raw, "status": kept}))) if field else None

    async def set_finalizer(self, stored: Stored, finalizer: str, *, present: bool) -> Stored:
        self.called(f"finalizer {present}")
        raw = self.rollouts[stored.key]
        if raw["metadata"]["resourceVersion"] != stored.raw["metadata"]["resourceVersion"]:
            raise Conflict("another client wrote first")
        raw["metadata"]["finalizers"] = [finalizer] if present else []
        raw["metadata"]["resourceVersion"] = str(int(raw["metadata"]["resourceVersion"]) + 1)
        if not present and "deletionTimestamp" in raw["metadata"]:
            del self.rollouts[stored.key]
        return parse(copy.deepcopy(raw))

    async def listed(self) -> Listed:
        listed = tuple({"metadata": copy.deepcopy(raw["metadata"])} for raw in self.rollouts.values())
        self.called("listed")
        return self._readable(listed)

    async def actions(self) -> Listed:
        listed = tuple(copy.deepcopy(raw) for raw in self.action_objects.values())
        self.called("actions")
        return self._readable(listed)

    async def documents(self) -> ListedDocuments:
        self.called("documents")
        document = self.document if self.document is not None and self.document.owner == KEY.name else None
        own = {} if document is None else {DOCUMENT: document.version}
        versions = {
            place: version for place, version in {**own, **self.copies}.items() if place.namespace not in self.forbidden
        }
        return ListedDocuments(versions, self._readable(()).problems)

    async def migration_jobs(self) -> Listed:
        self.called("migration_jobs")
        return self._readable(())

    def _readable(self, items: tuple[Mapping[str, Any], ...]) -> Listed:
        known = tuple(item for item in items if item["metadata"]["namespace"] not in self.forbidden)
        return Listed(known, {namespace: forbidden("a kind", namespace) for namespace in self.forbidden})

    async def answer(self, namespace: str, name: str, answer: ActionStatus, *, uid: str) -> None:
        self.called("answer")
        if uid in self.action_objects:
            self.action_objects[uid]["status"] = answer.to_wire()
        assert namespace == KEY.namespace
        self.answers.append((name, answer))

    async def delete_action(self, namespace: str, name: str, *, uid: str) -> None:
        self.called("delete_action")
        metadata = self.action_objects.pop(uid)["metadata"]
        assert (metadata["namespace"], metadata["name"]) == (namespace, name)

    # --- workloads

    async def unavailable_reason(self, _namespace: str, _workload: Workload) -> str | None:
        return None

    async def revisions(self, _namespace: str, _workload: Workload) -> Revisions | None:
        return self.workload

    async def undo(self, _namespace: str, _workload: Workload, *, revision: int, earlier: int) -> None:
        self.called(f"undo {revision} to {earlier}")
        self.workload = Revisions(revision + 1, revision)

    async def restart(self, _namespace: str, _workload: Workload, _at: datetime) -> None:
        self.called("restart")

    # --- gates

    def results(
        self, _rollout: SessionRollout, gates: tuple[Gate, ...], _max_age: timedelta, _wake: Callable[[], None]
    ) -> dict[str, CheckResult]:
        return {gate.name: self._gate(gate) for gate in gates if gate.name in self.gate_verdicts}

    async def check(self, _rollout: SessionRollout, gate: Gate) -> CheckResult:
        return self._gate(gate)

    def _gate(self, gate: Gate) -> CheckResult:
        verdict = self.gate_verdicts.get(gate.name, Verdict.PASS)
        reason = CheckReason.CHECK_SUCCEEDED if verdict is Verdict.PASS else CheckReason.CHECK_FAILED
        return CheckResult(self.time, verdict, reason, "a message")

    async def diagnose(self, topic: str) -> tuple[Result, ...] | None:
        return self.diagnostics.get(topic)

    def topics(self) -> tuple[str, ...]:
        return tuple(self.diagnostics)

    # --- notifier and recorder

    def enqueue(
        self, _rollout: SessionRollout, notifications: tuple[PendingNotification, ...], _wake: Callable[[], None]
    ) -> None:
        self.enqueued.append(notifications)

    def delivered(self, _uid: str) -> frozenset[str]:
        return frozenset()

    def errors(self) -> Mapping[str, str]:
        return {}

    def forget(self, uid: str) -> None:
        self.called(f"forget {uid}")

    async def keep(self, _observed: Observed, _now: datetime, decision: Decision) -> None:
        self.records.append(decision)

    # --- flags

    async def publish(self, rollout: SessionRollout, document: Publish, *, urgent: bool = False) -> PublishedDocument:
        self.called("protect" if urgent else "publish")
        if document.version != (self.document.version if self.document is not None else None):
            raise Conflict("another version of the document is in the cluster")
        version = (document.version or 0) + 1
        self.text = document.text
        known: dict[str, Any] = {"version": version, "owner": rollout.name, "protections": document.protections}
        self.document = read_document(document.text, **known)
        return self.document

    async def read_document(self, _namespace: str, _config_map: str) -> PublishedDocument | None:
        return self.document

    async def release(self, _rollout: SessionRollout, _config_map: str, document: PublishedDocument, text: str | None) -> None:
        self.called("release")
        if self.document is None or document.version != self.document.version:
            raise Conflict("another version of the document is in the cluster")
        self.released.append(text)
        kept = document if text is None else read_document(text, protections=document.protections)
        self.document = replace(kept, version=document.version + 1, owner=None, labelled=False)

    # --- metrics, events, clock, leadership

    def measurements(
        self, _provider: str, metrics: tuple[Metric, ...], max_age: timedelta, _wake: Callable[[], None]
    ) -> dict[str, Measurement]:
        self.max_ages |= dict.fromkeys((metric.name for metric in metrics), max_age)
        return {
            metric.name: Measurement(self.time, value=self.values[metric.name])
            for metric in metrics
            if metric.name in self.values
        }

    def blocks(
        self, _provider: str, metric: Metric, _control: Control, since: datetime, _wake: Callable[[], None]
    ) -> Measurement | None:
        self.since[metric.name] = since
        return self.counted.get(metric.name)

    async def read_queries(self, _provider: str, metrics: tuple[Metric, ...], _control: Control = DEFAULT_CONTROL) -> Queries:
        spellings = {metric.name: spelled(metric) for metric in metrics}
        return Queries({metric.name: timedelta(0) for metric in metrics}, spellings, self.metric_problems)

    async def query(self, _provider: str, _query: str) -> Measurement:
        return Measurement(self.time, value=Decimal(1))

    async def alert_rules(self, _provider: str) -> frozenset[str]:
        return frozenset()

    def emit(self, _rollout: SessionRollout, reason: EventReason, _message: str) -> None:
        self.called("emit")
        self.events.append(reason)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return (self.time - NOW).total_seconds()

    def confirm(self) -> None:
        if not self.leads:
            raise Unavailable("the Lease is not held for certain")


def pruned(value: Any, unknown: Collection[str], path: str = "status") -> Any:
    """What an API server stores of a status whose CRD does not have these fields."""
    if isinstance(value, Mapping):
        kept = {key: each for key, each in value.items() if f"{path}.{key}" not in unknown}
        return {key: pruned(each, unknown, f"{path}.{key}") for key, each in kept.items()}
    return [pruned(each, unknown, f"{path}[]") for each in value] if isinstance(value, list) else value


class FlagPort:
    """The flag document of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.publish, self.release, self.read = cluster.publish, cluster.release, cluster.read_document


class Process:
    """One operator process: its memory is lost with it, the cluster stays."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.memory, self.downtime = cluster, Memory(), Downtime()
        self.reconciled: list[Reconciled] = []
        self.deleted: list[Key] = []
        ports = cluster.ports()
        self.deletion = Deletion(ports, self.memory, parse, self.deleted.append)
        self.reconciler = Reconciler(
            ports,
            self.memory,
            self.downtime,
            lambda _, result: self.reconciled.append(result),
            lambda *_: nullcontext(),
        )
        self.on_demand = OnDemandChecks(ports)
        self.loops = Loops(self.reconciler, self.deletion, self.memory, ports)
        self.inbox = Inbox(self.memory, self.on_demand, self.loops, cluster, cluster, action_of)

    @property
    def state(self) -> RolloutState:
        return self.memory.of(KEY)

    def watch_actions(self) -> None:
        """The watch delivers every action as it is now."""
        for raw in self.cluster.action_objects.values():
            self.inbox.action_changed(copy.deepcopy(raw))

    async def reconcile(self) -> float:
        return await self.reconciler.reconcile(KEY)

    async def settle(self) -> None:
        """Reconcile until nothing is to be done at once."""
        for _ in range(20):
            if await self.reconcile() > 0.1:
                return
        raise AssertionError("it never settles")


async def until(condition: Callable[[], Any]) -> None:
    """Let the tasks work until the condition holds; pytest ends what waits for ever."""
    while not condition():
        await asyncio.sleep(0.001)


async def breathe(turns: int = 10) -> None:
    """Let everything happen that can happen at once."""
    for _ in range(turns):
        await asyncio.sleep(0)


def run(body: Callable[[], Any]) -> None:
    """Run a test's coroutine; pytest ends what hangs, and shows where."""
    asyncio.run(body())
