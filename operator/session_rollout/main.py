"""`session-rollout-operator`: reads the configuration, wins the Lease, and runs Kopf with everything wired."""

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
from typing import Any, Final

import kopf
from kopf._core.engines.peering import Identity

from session_rollout import handlers
from session_rollout.adapters import telemetry, tracing
from session_rollout.adapters.api_server import ApiServer
from session_rollout.adapters.clock import WallClock
from session_rollout.adapters.flags import LABEL, ConfigMapPublisher
from session_rollout.adapters.gate_checks import GateExaminer
from session_rollout.adapters.http import Health, HttpServer
from session_rollout.adapters.jobs import MIGRATION_LABEL, KubernetesJobs
from session_rollout.adapters.lease import Lease
from session_rollout.adapters.notifications import SinkCourier
from session_rollout.adapters.prometheus import PrometheusSource
from session_rollout.adapters.records import ConfigMapRecorder
from session_rollout.adapters.rollouts import ApiEventSink, ApiRolloutStore
from session_rollout.adapters.workloads import ApiWorkloads
from session_rollout.api import GROUP
from session_rollout.api.parsing import action_of
from session_rollout.controller.inbox import SWEEP_SECONDS, Inbox
from session_rollout.controller.on_demand import Examinations
from session_rollout.controller.reconciler import Controller, Ports
from session_rollout.errors import RolloutError, SpecError
from session_rollout.settings import Settings, load

log = logging.getLogger("session_rollout")
WATCHDOG_SECONDS: Final = 5.0
ACCOUNT_SECONDS: Final = 0.25
FINALIZER: Final = f"{GROUP}/finalizer"


class Operator:
    """One process: its clients, its loops, its HTTP port."""

    def __init__(self, settings: Settings, api: ApiServer) -> None:
        clock = WallClock()
        identity = os.environ.get("POD_NAME") or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self.settings, self.identity = settings, identity
        self.store = ApiRolloutStore(api, settings.namespaces)
        name = os.environ.get("LEASE_NAME", "session-rollout")
        self.lease = Lease(api, os.environ.get("POD_NAMESPACE", "default"), name, identity, clock)
        self.metrics = PrometheusSource(settings.prometheus, clock, settings.metric_workers)
        self.courier = SinkCourier(settings.sinks, clock)
        workloads = ApiWorkloads(api)
        ports = Ports(
            store=self.store,
            flags=ConfigMapPublisher(api),
            jobs=KubernetesJobs(api, settings),
            workloads=workloads,
            examiner=GateExaminer(api, settings, self.metrics, workloads, clock),
            courier=self.courier,
            recorder=ConfigMapRecorder(api),
            metrics=self.metrics,
            events=ApiEventSink(api, clock, identity),
            clock=clock,
            leader=self.lease,
        )
        self.controller = Controller(ports, telemetry.observe)
        examinations = Examinations(self.store, ports.examiner, ports.jobs, clock)
        self.inbox = Inbox(self.controller, examinations, self.store, clock, action_of)
        self.http = HttpServer(self._live, self._ready)
        self.ready = asyncio.Event()
        self.stop = asyncio.Event()

    async def run(self, port: int) -> None:
        """Serve, lead, and run Kopf until told to stop."""
        for number in (signal.SIGTERM, signal.SIGINT):  # Kopf takes them over; who stands by has no Kopf yet
            asyncio.get_running_loop().add_signal_handler(number, self.stop.set)
        await self.http.start(os.environ.get("SESSION_ROLLOUT_HOST"), port)
        try:
            if await self.lease.acquire(self.stop):
                await self._lead()
        finally:
            self.metrics.close()
            self.courier.close()
            with contextlib.suppress(RolloutError):
                await self.lease.release()

    async def _lead(self) -> None:
        self.controller.unaccounted_since = self.lease.unaccounted_since
        self.controller.unaccounted = set(await self.store.keys())
        tasks = [
            asyncio.create_task(step) for step in (self.lease.keep(self._lost), self._account(), self._sweep(), self._watch())
        ]
        try:
            await kopf.operator(
                registry=kopf.get_default_registry(),
                settings=kopf_settings(),
                memo=kopf.Memo(controller=self.controller, inbox=self.inbox, leave=self._leave),
                clusterwide=not self.settings.namespaces,
                namespaces=self.settings.namespaces,
                standalone=True,
                identity=Identity(self.identity),  # or Kopf asks for a user's name, which a uid in a container has not
                ready_flag=self.ready,
                stop_flag=self.stop,
            )
        finally:
            for task in tasks:
                task.cancel()

    async def _leave(self) -> None:
        """End what Kopf would wait five seconds for, holding the Lease: its own waiting for our flag, and open connections."""
        self.stop.set()
        await self.http.close()

    def _lost(self) -> None:
        """Without the Lease this process must not write; a fresh one starts clean."""
        log.error("the Lease is lost: the process ends")
        os._exit(1)

    async def _account(self) -> None:
        """Forget the gap before the start once every rollout has it in its status."""
        while self.controller.unaccounted:
            await asyncio.sleep(ACCOUNT_SECONDS)
        await self.lease.accounted()

    async def _sweep(self) -> None:
        while True:
            await self.inbox.sweep()
            await asyncio.sleep(SWEEP_SECONDS)

    async def _watch(self) -> None:
        """The watchdog: reports rollouts that are overdue; the liveness probe then fails and the kubelet replaces the Pod."""
        while True:
            late = self.controller.overdue()
            telemetry.OVERDUE.set(len(late))
            for key in late:
                log.error("reconcile overdue", extra={"namespace": key.namespace, "rollout": key.name})
            await asyncio.sleep(WATCHDOG_SECONDS)

    def _live(self) -> Health:
        late = self.controller.overdue()
        return Health(not late, f"{len(late)} rollouts are overdue for reconciliation" if late else "ok")

    def _ready(self) -> Health:
        """Ready to lead, or standing by: a replica that waits for the Lease is no less available."""
        if self.ready.is_set():
            return Health(healthy=True, message="ok")
        if self.lease.leader:
            return Health(healthy=True, message=f"standing by: {self.lease.leader} leads")
        return Health(healthy=False, message="waiting for the Lease, or for the first list of rollouts")


def kopf_settings() -> kopf.OperatorSettings:
    """Kopf as it has to be: see the traps in the documentation of each setting."""
    settings = kopf.OperatorSettings()
    settings.persistence.finalizer = FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP, v1=False)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP, v1=False)
    settings.scanning.disabled = True  # no right to list namespaces or CRDs is needed
    settings.posting.enabled = False  # our own Events
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = (1, 1, 2, 3, 5, 8, *([13] * 60))  # an outage of minutes must not end us
    settings.watching.reconnect_backoff = 1.0
    settings.watching.label_selectors["", "v1", "configmaps"] = LABEL
    settings.watching.label_selectors["batch", "v1", "jobs"] = MIGRATION_LABEL
    settings.process.ultimate_exiting_timeout = 15
    settings.background.instant_exit_timeout = 0.5  # a loop that is looking just now comes to its end
    return settings


@kopf.on.login()
async def login(**known: Any) -> kopf.ConnectionInfo | None:
    """The Pod's ServiceAccount, or KUBECONFIG; read anew each time, so that a rotated token is found."""
    return kopf.login_with_service_account(**known) or kopf.login_with_kubeconfig(**known)


async def serve(settings: Settings, port: int) -> None:
    """Run one operator."""
    api = await ApiServer.connect()
    try:
        await Operator(settings, api).run(port)
    finally:
        await api.close()


def main() -> None:
    """Entry point. Configuration errors are one sentence and exit code 2."""
    parser = argparse.ArgumentParser(prog="session-rollout-operator")
    parser.add_argument("--config", type=Path, required=True, help="the operator's configuration (YAML)")
    parser.add_argument("--port", type=int, default=int(os.environ.get("SESSION_ROLLOUT_PORT", "8080")))
    options = parser.parse_args()
    telemetry.log_as_json()
    tracing.start()
    try:
        settings = load(options.config)
    except SpecError as error:
        print(f"session-rollout-operator: {error}", file=sys.stderr)
        sys.exit(2)
    try:
        asyncio.run(serve(settings, options.port))
    except RolloutError as error:
        sys.exit(f"session-rollout-operator: {error}")


__all__ = ["handlers", "login", "main"]

if __name__ == "__main__":
    main()
