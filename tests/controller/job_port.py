"""The Jobs of the cluster in memory (port `JobRunner`)."""

from typing import TYPE_CHECKING

from session_rollout.api.migration_enums import Operation
from session_rollout.api.rollout import SessionRollout
from session_rollout.core.observed import JobObservation, JobState, StartCheck, StartJob

if TYPE_CHECKING:
    from controller.cluster import Cluster


class JobPort:
    """The Jobs of a cluster."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster

    async def start(self, _rollout: SessionRollout, job: StartJob) -> None:
        self._create("start", job.name)

    async def start_check(self, _rollout: SessionRollout, check: StartCheck) -> None:
        self._create("start_check", check.name)

    async def inspect(self, _rollout: SessionRollout, name: str, _migration: str, _operation: Operation) -> None:
        self._create("inspect", name)

    def _create(self, call: str, name: str) -> None:
        self.cluster.called(call)
        self.cluster.jobs.setdefault(name, JobObservation(JobState.ACTIVE))

    async def observe(self, _rollout: SessionRollout, name: str) -> JobObservation:
        return self.cluster.jobs.get(name, JobObservation(JobState.MISSING))

    async def suspend(self, _rollout: SessionRollout, _name: str, *, suspend: bool) -> None:
        self.cluster.called(f"suspend {suspend}")

    async def termination_message(self, _rollout: SessionRollout, name: str) -> str:
        return f"output of {name}"

    async def running(self, _rollout: SessionRollout) -> tuple[str, ...]:
        self.cluster.called("running")
        result = self.cluster.running_jobs.pop(0) if self.cluster.running_jobs else ()
        if isinstance(result, Exception):
            raise result
        return result
