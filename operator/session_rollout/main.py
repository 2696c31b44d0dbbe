"""`session-rollout-operator`: reads the configuration, acquires the Lease, and runs Kopf with all adapters connected."""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import uuid
from pathlib import Path
from typing import Final

import kopf

from session_rollout import handlers
from session_rollout.adapters import telemetry, tracing
from session_rollout.adapters.api_server import ApiServer
from session_rollout.adapters.clock import WallClock
from session_rollout.adapters.flags import LABEL, ConfigMapPublisher
from session_rollout.adapters.gate_checks import GateChecks
from session_rollout.adapters.http import Health, HttpServer
from session_rollout.adapters.jobs import MIGRATION_LABEL, KubernetesJobs
from session_rollout.adapters.lease import Lease
from session_rollout.adapters.notifications import SinkNotifier
from session_rollout.adapters.prometheus import PrometheusSource
from session_rollout.adapters.records import ConfigMapRecorder
from session_rollout.adapters.rollouts import ApiEventSink, ApiRolloutStore, parse
from session_rollout.adapters.workloads import ApiWorkloads
from session_rollout.api import GROUP
from session_rollout.api.parsing import action_of
from session_rollout.controller.deletion import Deletion
from session_rollout.controller.inbox import Inbox
from session_rollout.controller.on_demand import OnDemandChecks
from session_rollout.controller.reconciler import Reconciler
from session_rollout.controller.state import Downtime, Memory
from session_rollout.errors import RolloutError, SpecError
from session_rollout.ports import Ports
from session_rollout.settings import Settings, load

log = logging.getLogger("session_rollout")
WATCHDOG_SECONDS: Final = 5.0
FINALIZER: Final = f"{GROUP}/finalizer"


class Operator:
    """One process: its clients, its loops and its HTTP port."""

    def __init__(self, settings: Settings, api: ApiServer) -> None:
        clock = WallClock()
        identity = os.environ.get("POD_NAME") or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self.settings, self.identity = settings, identity
        self.store = ApiRolloutStore(api, settings.namespaces)
        name = os.environ.get("LEASE_NAME", "session-rollout")
        self.lease = Lease(api, os.environ.get("POD_NAMESPACE", "default"), name, identity, clock)
        self.metrics = PrometheusSource(settings.prometheus, clock, settings.metric_workers)
        workloads = ApiWorkloads(api)
        self.gates = GateChecks(api, settings, self.metrics, workloads, clock)
        self.notifier = SinkNotifier(settings.sinks, clock)
        ports = Ports(
            store=self.store,
            flags=ConfigMapPublisher(api),
            jobs=KubernetesJobs(api, settings),
            workloads=workloads,
            gates=self.gates,
            notifier=self.notifier,
            recorder=ConfigMapRecorder(api),
            metrics=self.metrics,
            events=ApiEventSink(api, clock, identity),
            clock=clock,
            leader=self.lease,
        )
        self.memory, self.downtime = Memory(), Downtime()
        self.deletion = Deletion(ports, self.memory, parse, lambda key: telemetry.forget(key.namespace, key.name))
        self.reconciler = Reconciler(ports, self.memory, self.downtime, self.deletion, telemetry.observe, tracing.span)
        self.inbox = Inbox(self.memory, OnDemandChecks(ports), self.store, clock, action_of)
        self.http = HttpServer(self._live, self._ready)
        self.ready = asyncio.Event()
        self.stop = asyncio.Event()

    async def run(self, port: int) -> None:
        """Serve HTTP, acquire the Lease, and run Kopf until the process is stopped."""
        for number in (signal.SIGTERM, signal.SIGINT):  # Kopf takes them over; a replica that stands by has no Kopf yet
            asyncio.get_running_loop().add_signal_handler(number, self.stop.set)
        await self.http.start(None, port)
        try:
            if await self.lease.acquire(self.stop):
                await self._lead()
        finally:
            self.gates.close()  # before the metrics, which it queries
            self.metrics.close()
            self.notifier.close()
            with contextlib.suppress(RolloutError):
                await self.lease.release()

    async def _lead(self) -> None:
        self.downtime.begin(self.lease.unled.since, await self.store.keys())
        loops = (self.lease.keep(self._lost), self._account(), self.inbox.run(), self._watch())
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            await kopf.operator(
                registry=kopf.get_default_registry(),
                settings=kopf_settings(),
                memo=kopf.Memo(reconciler=self.reconciler, deletion=self.deletion, inbox=self.inbox, leave=self._leave),
                clusterwide=not self.settings.namespaces,
                namespaces=self.settings.namespaces,
                standalone=True,
                # Without it Kopf looks up the user's name, which a UID in a container does not have.
                # The declared type is a NewType of str that Kopf does not export.
                identity=self.identity,  # type: ignore[arg-type]
                ready_flag=self.ready,
                stop_flag=self.stop,
            )
        finally:
            for task in tasks:
                task.cancel()

    async def _leave(self) -> None:
        """Set the stop flag and close open connections: Kopf would wait five seconds for each, while the Lease is still held."""
        self.stop.set()
        await self.http.close()

    def _lost(self) -> None:
        """Exit, because a process without the Lease must not write. The kubelet starts a new one."""
        log.error("the Lease is lost; exiting")
        os._exit(1)

    async def _account(self) -> None:
        """Remove the downtime from the Lease after every rollout has taken it into account."""
        await self.downtime.accounted.wait()
        await self.lease.accounted()

    async def _watch(self) -> None:
        """The watchdog: reports rollouts that are overdue; the liveness probe then fails and the kubelet replaces the Pod."""
        while True:
            late = self.memory.overdue()
            telemetry.OVERDUE.set(len(late))
            for key in late:
                log.error("reconcile overdue", extra={"namespace": key.namespace, "rollout": key.name})
            await asyncio.sleep(WATCHDOG_SECONDS)

    def _live(self) -> Health:
        late = self.memory.overdue()
        return Health(not late, f"{len(late)} rollouts are overdue for reconciliation" if late else "ok")

    def _ready(self) -> Health:
        """Whether this replica is ready: one that waits for the Lease is ready to take over, so it is also available."""
        if self.ready.is_set():
            return Health(healthy=True, message="ok")
        if self.lease.leader:
            return Health(healthy=True, message=f"standing by; {self.lease.leader} holds the Lease")
        return Health(healthy=False, message="waiting for the Lease, or for the first list of rollouts")


def kopf_settings() -> kopf.OperatorSettings:
    """Settings of Kopf. A comment explains each setting whose default would break the operator."""
    settings = kopf.OperatorSettings()
    settings.persistence.finalizer = FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP, v1=False)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP, v1=False)
    settings.scanning.disabled = True  # otherwise Kopf needs the permission to list namespaces and CRDs
    settings.posting.enabled = False  # the operator sends its own Events
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = (1, 1, 2, 3, 5, 8, *([13] * 60))  # an outage of minutes must not end the process
    settings.watching.reconnect_backoff = 1.0
    settings.watching.label_selectors["", "v1", "configmaps"] = LABEL
    settings.watching.label_selectors["batch", "v1", "jobs"] = MIGRATION_LABEL
    settings.process.ultimate_exiting_timeout = 15
    settings.background.instant_exit_timeout = 0.5  # a reconciliation that is running completes
    return settings


async def serve(settings: Settings, port: int) -> None:
    """Run one operator."""
    api = await ApiServer.connect()
    try:
        await Operator(settings, api).run(port)
    finally:
        await api.close()


def main() -> None:
    """Entry point. A configuration error is printed as one sentence; the exit code is 2."""
    parser = argparse.ArgumentParser(prog="session-rollout-operator")
    parser.add_argument("--config", type=Path, required=True, help="the operator's configuration (YAML)")
    options = parser.parse_args()
    telemetry.log_as_json()
    tracing.start()
    try:
        settings = load(options.config)
    except SpecError as error:
        print(f"session-rollout-operator: {error}", file=sys.stderr)
        sys.exit(2)
    try:
        asyncio.run(serve(settings, int(os.environ.get("SESSION_ROLLOUT_PORT", "8080"))))
    except RolloutError as error:
        sys.exit(f"session-rollout-operator: {error}")


__all__ = ["handlers", "main"]  # importing `handlers` registers Kopf's decorators

if __name__ == "__main__":
    main()
