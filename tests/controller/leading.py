"""Processes that lead one after another: each with its Lease, connected as the operator connects them."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Self

from adapters.api import Api
from controller.cluster import KEY, Cluster, Process
from session_rollout.adapters.lease import Lease
from session_rollout.ports import Key


class Leader:
    """One process that leads. `existing` are the rollouts that it can list; None while it can list none."""

    def __init__(self, cluster: Cluster, api: Api, name: str = "a", existing: Iterable[Key] | None = (KEY,)) -> None:
        self.cluster, self.existing = cluster, existing
        self.lease, self.process = Lease(api, "ops", "session-rollout", name, cluster), Process(cluster)
        self._is_accounted = False

    async def lead(self) -> Self:
        """Acquire the Lease, which nobody else holds."""
        assert await self.lease._try()
        downtime, memory = self.process.downtime, self.process.memory
        downtime.begin(replace(self.lease.unled).since_for, self.existing)
        downtime.unaccounted = self.lease.unled.unaccounted
        self.lease.unled.behind = lambda: memory.behind(self.cluster.now(), all_began=downtime.accounted.is_set())
        return self

    async def renew(self) -> None:
        """Tell the Lease what is accounted for."""
        if self.process.downtime.accounted.is_set() and not self._is_accounted:
            self._is_accounted = True
            await self.lease.accounted()
        assert await self.lease._try()

    async def settle(self) -> None:
        """Reconcile every rollout until nothing is to be done at once, and renew."""
        for key in self.existing or ():
            state = self.process.memory.of(key)
            state.has_loop = True
            for _ in range(6):
                if await self.process.reconciler._reconcile_guarded(key, state) > 0.1 or state.failures:
                    break
        await self.renew()

    async def run(self, seconds: float, every: float = 10) -> None:
        """Let time pass; between two reconciliations, the loops have nothing to do."""
        for _ in range(round(seconds / every)):
            self.cluster.time += timedelta(seconds=every)
            for key in self.existing or ():
                self.process.memory.of(key).rested += every
            await self.settle()

    async def crash(self, after: float = 0, existing: Iterable[Key] | None = (KEY,)) -> "Leader":
        """The next leader: its container is started again."""
        self.cluster.time += timedelta(seconds=after)
        return await Leader(self.cluster, self.lease._api, existing=existing).lead()  # type: ignore[arg-type]


async def leading(cluster: Cluster, existing: Iterable[Key] | None = (KEY,)) -> Leader:
    """A leader that has evaluated everything once, ten seconds ago."""
    leader = await Leader(cluster, Api(), existing=existing).lead()
    await leader.settle()
    await leader.run(10)
    return leader
