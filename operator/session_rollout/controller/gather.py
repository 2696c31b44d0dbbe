"""Gathers what a decision needs, and only that: `core.inputs` says which inputs the current stage has."""

from datetime import timedelta
from typing import Final

from session_rollout.api.quantities import duration
from session_rollout.api.rollout import SessionRollout
from session_rollout.controller.state import Downtime, Memory, RolloutState
from session_rollout.core.flags import config_map_name
from session_rollout.core.inputs import external_gates, needed_metrics, needs_revisions, needs_workload, running_jobs
from session_rollout.core.observed import CheckResult, JobObservation, Measurement, Observed, Revisions
from session_rollout.ports import Ports

REFRESH_AFTER: Final = 0.9  # a metric is queried again when its result is older than this share of the check interval


class Gatherer:
    """Reads the inputs of decisions through the ports."""

    def __init__(self, ports: Ports, memory: Memory, downtime: Downtime) -> None:
        self._ports, self._memory, self._downtime = ports, memory, downtime

    async def gather(self, rollout: SessionRollout, state: RolloutState) -> Observed:
        """Everything that the decision about this rollout depends on, except the time."""
        max_age = duration(rollout.spec.check_interval) * REFRESH_AFTER
        return Observed(
            rollout=rollout,
            measurements=self._measurements(rollout, state, max_age),
            ranges=self._ports.metrics.ranges(rollout.spec.prometheus, rollout.spec.metrics),
            published_sha256=await self._published(rollout, state),
            jobs=await self._jobs(rollout),
            actions=state.actions.oldest_first(),
            settled_actions=state.actions.settled(rollout.status.processed_actions, self._memory.actions),
            gates=self._gates(rollout, state, max_age),
            revisions=await self._revisions(rollout),
            delivered=self._ports.notifier.delivered(rollout.uid) if rollout.status.pending_notifications else frozenset(),
            sink_errors=self._ports.notifier.errors() if rollout.spec.notifications else {},
            workload_unavailable_reason=await self._workload_unavailable_reason(rollout),
            problems=self._problems(rollout, state),
            last_reconcile=state.last_reconcile or self._downtime.since,
        )

    def _measurements(self, rollout: SessionRollout, state: RolloutState, max_age: timedelta) -> dict[str, Measurement]:
        metrics = needed_metrics(rollout)
        if not metrics:
            # Nothing is evaluated in this stage. A rollout that has ended would query its provider forever.
            return {}
        return self._ports.metrics.measurements(rollout.spec.prometheus, metrics, max_age, state.wake_soon)

    def _gates(self, rollout: SessionRollout, state: RolloutState, max_age: timedelta) -> dict[str, CheckResult]:
        gates = external_gates(rollout)
        return self._ports.gates.results(rollout, gates, max_age, state.wake_soon) if gates else {}

    async def _jobs(self, rollout: SessionRollout) -> dict[str, JobObservation]:
        return {name: await self._ports.jobs.observe(rollout, name) for name in running_jobs(rollout)}

    async def _published(self, rollout: SessionRollout, state: RolloutState) -> str | None:
        """Fingerprint of the published document. The watch delivers it; until it has, the document is read."""
        if state.document.sha256 is None:
            name = config_map_name(rollout.spec.flag_set)
            state.document = await self._ports.flags.fingerprint(rollout.namespace, name)
        return state.document.sha256

    async def _workload_unavailable_reason(self, rollout: SessionRollout) -> str | None:
        if rollout.spec.workload is None or not needs_workload(rollout):
            # Only the preflight waits for it: later, guards measure whether the application works.
            return None
        return await self._ports.workloads.unavailable_reason(rollout.namespace, rollout.spec.workload)

    async def _revisions(self, rollout: SessionRollout) -> Revisions | None:
        if rollout.spec.workload is None or not needs_revisions(rollout):
            # Neither an undo nor a restart is requested: the operator may lack the permission to list ReplicaSets.
            return None
        return await self._ports.workloads.revisions(rollout.namespace, rollout.spec.workload)

    def _problems(self, rollout: SessionRollout, state: RolloutState) -> tuple[str, ...]:
        blocked = (state.blocked.reason,) if state.blocked is not None else ()
        return (*self._ports.metrics.problems(rollout.spec.prometheus, rollout.spec.metrics), *blocked)
