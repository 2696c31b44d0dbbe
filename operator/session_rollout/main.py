"""`session-rollout-operator`: reads the configuration, acquires the Lease, and runs Kopf with all adapters connected.

Whatever hangs, the process ends: it must not be waited for with the Lease in its hand.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Coroutine, Iterable, Iterator
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Final

import kopf

from session_rollout import handlers
from session_rollout.adapters import logs, telemetry, tracing
from session_rollout.adapters.api_server import ApiServer
from session_rollout.adapters.clock import ServerClock
from session_rollout.adapters.events import ApiEventSink
from session_rollout.adapters.flags import LABEL, ConfigMapPublisher
from session_rollout.adapters.gate_checks import GateChecks
from session_rollout.adapters.heartbeats import SILENT_SECONDS, WATCH_LIMIT, WATCH_SECONDS, Heartbeats, watch_name
from session_rollout.adapters.http import Health, HttpServer
from session_rollout.adapters.jobs import MIGRATION_LABEL, KubernetesJobs
from session_rollout.adapters.lease import RENEW_DEADLINE, Lease
from session_rollout.adapters.notifications import SinkNotifier
from session_rollout.adapters.prometheus import PrometheusSource
from session_rollout.adapters.records import ConfigMapRecorder
from session_rollout.adapters.rollouts import ApiRolloutStore, parse
from session_rollout.adapters.watching import PAGE, Sessions
from session_rollout.adapters.workloads import ApiWorkloads
from session_rollout.api import ACTIONS, API_VERSION, GROUP, ROLLOUTS
from session_rollout.api.parsing import action_of
from session_rollout.controller.backoff import delay
from session_rollout.controller.deletion import Deletion
from session_rollout.controller.downtime import Downtime
from session_rollout.controller.inbox import LONGEST_SECONDS, SWEEP_SECONDS, Inbox
from session_rollout.controller.listings import EVERYWHERE
from session_rollout.controller.loops import Loops
from session_rollout.controller.memory import Memory
from session_rollout.controller.on_demand import OnDemandChecks
from session_rollout.controller.reconciler import Reconciler
from session_rollout.errors import RolloutError, SpecError
from session_rollout.ports import Key, Ports
from session_rollout.settings import Settings, load
from session_rollout.tasks import watch, watched

log = logging.getLogger("session_rollout")
WATCHDOG_SECONDS: Final = 5.0
STOP_SECONDS: Final = 4.0  # after a signal the process ends within this time, whatever hangs; what follows ends before that
KOPF_SECONDS: Final = 0.5
RELEASE_SECONDS: Final = 1.0
LEASE, SWEEP, WATCHDOG = "Lease", "sweep", "watchdog"
LEASE_LIMIT: Final = RENEW_DEADLINE + 5.0  # before, the process ends because the Lease is lost
SWEEP_LIMIT: Final = SWEEP_SECONDS + LONGEST_SECONDS + 10.0
WATCHDOG_LIMIT: Final = 30.0
NAMED: Final = 3  # rollouts that the liveness probe names


class Operator:
    """One process: its clients, its loops and its HTTP port."""

    def __init__(self, settings: Settings, api: ApiServer, lease_api: ApiServer, clock: ServerClock) -> None:
        identity = os.environ.get("POD_NAME") or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self.settings, self.identity, self.clock = settings, identity, clock
        self.watches = watched_paths(settings.namespaces)
        self.store = ApiRolloutStore(api, settings.namespaces)
        name = os.environ.get("LEASE_NAME", "session-rollout")
        namespace = os.environ.get("POD_NAMESPACE", "default")
        self.lease = Lease(lease_api, namespace, name, identity, clock, settings.namespaces)
        api.confirm = self.lease.confirm
        self.metrics = PrometheusSource(settings.prometheus, clock, settings.metric_workers)
        workloads = ApiWorkloads(api)
        self.gates = GateChecks(api, settings, self.metrics, workloads, clock)
        self.notifier = SinkNotifier(settings.sinks, clock)
        self.events = ApiEventSink(api, clock, identity)
        ports = Ports(
            store=self.store,
            flags=ConfigMapPublisher(api),
            jobs=KubernetesJobs(api, settings),
            workloads=workloads,
            gates=self.gates,
            notifier=self.notifier,
            recorder=ConfigMapRecorder(api),
            metrics=self.metrics,
            events=self.events,
            clock=clock,
            leader=self.lease,
        )
        self.memory, self.downtime, self.hearts = Memory(), Downtime(), Heartbeats()
        deletion = Deletion(ports, self.memory, parse, lambda key: telemetry.forget(key.namespace, key.name))
        self.reconciler = Reconciler(ports, self.memory, self.downtime, telemetry.observe, tracing.span)
        self.loops = Loops(self.reconciler, deletion, self.memory, ports)
        self.on_demand = OnDemandChecks(ports)
        self.inbox = Inbox(self.memory, self.on_demand, self.loops, self.store, clock, action_of)
        self.http = HttpServer(self._live, self._ready)
        self.ready = asyncio.Event()
        self.stop = asyncio.Event()

    async def run(self, port: int) -> None:
        """Serve HTTP, acquire the Lease, and run Kopf until the process is stopped."""
        asyncio.get_running_loop().set_exception_handler(logs.end_process)
        self._take_signals()
        await self.http.start(None, port)
        watched(self._watch(), WATCHDOG)
        try:
            if await self._until_stopped(self._acquire()):
                await self._lead()
        finally:
            await self._leave()
            self.lease.resign()
            with contextlib.suppress(RolloutError, TimeoutError):
                await asyncio.wait_for(self.lease.release(), RELEASE_SECONDS)

    def _take_signals(self) -> None:
        """Handle the signals here. Kopf takes them over when it starts, so they are taken back then."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopped_by_signal)

    def _stopped_by_signal(self) -> None:
        """End in an orderly way, but within STOP_SECONDS: by a thread, because the event loop may hang, too."""
        if not self.stop.is_set():
            self.stop.set()
            timer = threading.Timer(STOP_SECONDS, _end_late)
            timer.daemon = True
            timer.start()

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Whether the work completed before the process was told to stop; otherwise it is cancelled."""
        tasks = {asyncio.create_task(work), asyncio.create_task(self.stop.wait())}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        done, _ = await asyncio.wait(tasks)
        for task in done:
            if not task.cancelled():
                task.result()
        return not self.stop.is_set()

    async def _acquire(self) -> None:
        self.hearts.expect(LEASE, LEASE_LIMIT)
        await self.lease.acquire(lambda: self.hearts.beat(LEASE))
        self.hearts.end(LEASE)  # from now on its own age counts

    async def _lead(self) -> None:
        self.clock.hold_steady()
        self.downtime.begin(replace(self.lease.unled).since_for)  # the Lease's own is accounted for one day
        self.downtime.unaccounted = self.lease.unled.unaccounted
        self.lease.unled.behind = self._behind
        self._expect_beats()
        before = asyncio.all_tasks()
        tasks = (
            watched(self.lease.keep(self._lost), LEASE),
            watched(self._account(), "accounting of the downtime", may_end=True),
            watched(self.inbox.run(lambda: self.hearts.beat(SWEEP)), SWEEP),
        )
        try:
            await self._run_kopf(before | set(tasks))
        finally:
            for task in tasks:
                task.cancel()

    def _behind(self) -> Iterable[Key]:
        return self.memory.behind(self.clock.now(), all_began=self.downtime.accounted.is_set())

    async def _existing(self) -> Iterable[Key]:
        """The rollouts that have yet to take the downtime into account. Nothing else waits for this list.

        While some cannot be listed, nobody knows them all, and the time stays on the Lease.
        """
        failures = 0
        while True:
            try:
                listed = await self.store.listed()
            except RolloutError as error:
                log.warning("cannot list the rollouts: %s", error)
            else:
                existing = [Key(item["metadata"]["namespace"], item["metadata"]["name"]) for item in listed.items]
                self.lease.unled.forget_deleted(existing, listed.lacks)
                if not listed.problems:
                    return existing
            failures += 1
            await asyncio.sleep(delay(failures))

    def _on_watch(self, path: str, error: RolloutError | None) -> None:
        resource, namespace = self.watches[path]
        self.memory.watched(resource, namespace, error, self.clock.now())

    def _expect_beats(self) -> None:
        self.hearts.expect(SWEEP, SWEEP_LIMIT)
        for path in self.watches:
            self.hearts.expect(watch_name(path), WATCH_LIMIT)

    async def _run_kopf(self, others: set[asyncio.Task[Any]]) -> None:
        """Run Kopf until the process is told to stop. One of its tasks that fails ends the process at once.

        By itself, Kopf would first end its other tasks, for up to ten seconds and not in silence. It would also wait for the
        requests of its discovery, which hang when they are cut off by the end, and the Lease would not be released.
        """
        tasks = await kopf.spawn_tasks(
            registry=kopf.get_default_registry(),
            settings=kopf_settings(),
            memo=kopf.Memo(
                reconciler=self.reconciler, loops=self.loops, inbox=self.inbox, sessions=Sessions(self.hearts, self._on_watch)
            ),
            clusterwide=not self.settings.namespaces,
            namespaces=self.settings.namespaces,
            standalone=True,
            # Without it Kopf looks up the user's name, which a UID in a container does not have.
            # The declared type is a NewType of str that Kopf does not export.
            identity=self.identity,  # type: ignore[arg-type]
            ready_flag=self.ready,
            stop_flag=self.stop,
        )
        for task in tasks:
            watch(task, may_end=True)
        self._take_signals()
        running = asyncio.create_task(kopf.run_tasks(tasks, ignored=others))
        running.add_done_callback(lambda _: self.stop.set())
        await self.stop.wait()
        await self._leave()
        await asyncio.wait({running}, timeout=KOPF_SECONDS)

    async def _leave(self) -> None:
        """End everything but the Lease: loops, threads, probes."""
        self.stop.set()
        await self.loops.close()
        await self.events.close()
        self.on_demand.close()
        self.gates.close()  # before the metrics, which it queries
        self.metrics.close()
        self.notifier.close()
        await self.http.close()

    def _lost(self) -> None:
        """Exit, because a process without the Lease must not write. The kubelet starts a new one."""
        log.error("the Lease is lost; exiting")
        os._exit(1)

    async def _account(self) -> None:
        """Remove the downtime from the Lease after every rollout has taken it into account."""
        self.downtime.expect(await self._existing())
        await self.downtime.accounted.wait()
        await self.lease.accounted()

    async def _watch(self) -> None:
        """The watchdog: reports rollouts that are overdue, and clocks that were set."""
        self.hearts.expect(WATCHDOG, WATCHDOG_LIMIT)
        while True:
            self.hearts.beat(WATCHDOG)
            self.clock.tick()
            self.memory.clock_jump = self.clock.jump
            late = self.memory.overdue()
            telemetry.OVERDUE.set(len(late))
            for key in late:
                log.error("reconcile overdue", extra=key.fields)
            await asyncio.sleep(WATCHDOG_SECONDS)

    def _late(self) -> Iterator[str]:
        """What the process did not do in time."""
        if self.ready.is_set() and self.lease.age > LEASE_LIMIT:
            yield f"{LEASE} ({self.lease.age:.0f} s)"
        yield from self.hearts.late()
        hung = self.memory.hung()
        yield from (f"reconciliation of {key.namespace}/{key.name}" for key in hung[:NAMED])
        if len(hung) > NAMED:
            yield f"{len(hung) - NAMED} more rollouts"

    def _live(self) -> Health:
        late = ", ".join(self._late())
        return Health(not late, f"late: {late}" if late else "ok")

    def _ready(self) -> Health:
        """Whether this replica is ready: one that waits for the Lease is ready to take over, so it is also available."""
        if self.ready.is_set():
            return Health(healthy=True, message="ok")
        if self.lease.leader:
            return Health(healthy=True, message=f"standing by; {self.lease.leader} holds the Lease")
        return Health(healthy=False, message="waiting for the Lease, or for the first list of rollouts")


def watched_paths(namespaces: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """By the path of each watch that Kopf keeps for the handlers: its resource and namespace."""
    kinds = (
        (f"/apis/{API_VERSION}", ROLLOUTS),
        (f"/apis/{API_VERSION}", ACTIONS),
        ("/apis/batch/v1", "jobs"),
        ("/api/v1", "configmaps"),
    )
    scopes = {name: f"/namespaces/{name}" for name in namespaces} or {EVERYWHERE: ""}
    return {f"{root}{scope}/{plural}": (plural, name) for root, plural in kinds for name, scope in scopes.items()}


def _end_late() -> None:
    log.error("the process was stopped, but something hangs; exiting without it")
    os._exit(1)


class Backoffs:
    """Pauses of Kopf between attempts, without end: an outage, or a namespace whose rights are gone, must not end the process."""

    def __iter__(self) -> Iterator[float]:
        """The pauses in seconds."""
        return chain((1, 1, 2, 3, 5, 8), repeat(13))


class NoDifferences(kopf.AnnotationsDiffBaseStorage):
    """Kopf compares objects with nothing: no handler asks what has changed, and a copy of each object that comes costs time."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """The part of an object that is compared."""
        return kopf.BodyEssence()


def kopf_settings() -> kopf.OperatorSettings:
    """Settings of Kopf. A comment explains each setting whose default would break the operator."""
    settings = kopf.OperatorSettings()
    settings.persistence.finalizer = f"{GROUP}/kopf"  # never set: it would remove ours, which no handler of Kopf needs
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP, v1=False)
    settings.persistence.diffbase_storage = NoDifferences(prefix=GROUP, v1=False)
    settings.scanning.disabled = True  # otherwise Kopf needs the permission to list namespaces and CRDs
    settings.posting.enabled = False  # the operator sends its own Events
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = Backoffs()
    settings.watching.chunk_size = PAGE  # otherwise one answer has all objects
    settings.watching.reconnect_backoff = 1.0
    settings.watching.server_timeout = WATCH_SECONDS  # each new request is a sign of life
    settings.watching.inactivity_timeout = SILENT_SECONDS
    settings.watching.label_selectors["", "v1", "configmaps"] = LABEL
    settings.watching.label_selectors["batch", "v1", "jobs"] = MIGRATION_LABEL
    settings.queueing.exit_timeout = 0.5
    settings.process.ultimate_exiting_timeout = None  # by a signal to a thread, which ends the process without a word
    return settings


async def serve(settings: Settings, port: int) -> None:
    """Run one operator."""
    clock = ServerClock()
    api, lease_api = await ApiServer.connect(clock), await ApiServer.connect(clock)
    try:
        await Operator(settings, api, lease_api, clock).run(port)
    finally:
        await api.close()
        await lease_api.close()


def main() -> None:
    """Entry point. A configuration error is printed as one sentence; the exit code is 2."""
    parser = argparse.ArgumentParser(prog="session-rollout-operator")
    parser.add_argument("--config", type=Path, required=True, help="the operator's configuration (YAML)")
    options = parser.parse_args()
    logs.log_as_json()
    tracing.start()
    try:
        settings = load(options.config)
    except SpecError as error:
        print(f"session-rollout-operator: {error}", file=sys.stderr)
        sys.exit(2)
    _exit(_served(settings))


def _served(settings: Settings) -> int:
    """Run until the end; the exit code. An exception is one line of the log, whatever it is."""
    try:
        # Not `asyncio.run`: at its end it waits for every thread.
        asyncio.Runner().run(serve(settings, int(os.environ.get("SESSION_ROLLOUT_PORT", "8080"))))
    except Exception as error:  # noqa: BLE001 - reported, and the process ends
        logs.log_end(error, "main")
        return 1
    return 0


def _exit(code: int) -> None:
    """End now: threads that wait for a server that hangs would be waited for."""
    tracing.stop()
    logging.shutdown()
    os._exit(code)


__all__ = ["handlers", "main"]  # importing `handlers` registers Kopf's decorators

if __name__ == "__main__":
    main()
