"""One operator process of the model: the real one from the reconciler down to its requests, with a memory of its own."""

import asyncio
from collections.abc import Callable, Container, Coroutine, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import patch

from core.model.server import Object
from session_rollout.adapters.flags import ConfigMapPublisher, document_of
from session_rollout.adapters.lease import UnledTime
from session_rollout.adapters.prometheus import PrometheusSource, read
from session_rollout.adapters.provider_client import Response
from session_rollout.adapters.rollouts import ApiRolloutStore, parse
from session_rollout.api.enums import CheckReason, Verdict
from session_rollout.api.metrics import Metric
from session_rollout.api.parsing import action_of
from session_rollout.controller import deletion
from session_rollout.controller.deletion import Deletion
from session_rollout.controller.downtime import Downtime
from session_rollout.controller.inbox import Inbox
from session_rollout.controller.loops import Loop, Loops
from session_rollout.controller.memory import Memory
from session_rollout.controller.on_demand import OnDemandChecks
from session_rollout.controller.reconciler import Reconciler
from session_rollout.core.observed import Measurement, Seasons
from session_rollout.ports import Key
from session_rollout.settings import Provider

if TYPE_CHECKING:
    from core.model.cluster import Cluster

T = TypeVar("T")
START = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)  # a Monday
NAMESPACE = "default"
LOOK_BACK = timedelta(seconds=20)  # of a query without a range
EARLIER = Decimal("0.001")  # the value of a metric in earlier seasons
SCRAPE = RULE = timedelta(seconds=10)  # how often the provider measures, and how often it evaluates its rules


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
        self._cluster, self.answering = cluster, True

    def measurements(
        self, _provider: str, metrics: tuple[Metric, ...], _max_age: timedelta, _wake: Callable[[], None]
    ) -> dict[str, Measurement]:
        if not (self.answering and self._cluster.answering):
            return {}
        return {metric.name: self._measured(self._cluster.readings[metric.name]) for metric in metrics}

    def seasons(
        self, _provider: str, metric: Metric, ago: tuple[timedelta, ...], _max_age: timedelta, _wake: Callable[[], None]
    ) -> Seasons | None:
        """Each earlier season of a metric that declares them was as now is well; the others have none."""
        now, value = self._clock.now(), self._cluster.readings[metric.name].value
        if value is Verdict.PROVIDER_ERROR:
            return Seasons(
                now, problem=value, reason=CheckReason.CONNECTION_FAILED, message="cannot be reached", unreachable=True
            )
        earlier = (EARLIER,) * len(ago) if metric.baseline is not None else ()
        return Seasons(now, value if isinstance(value, Decimal) else None, earlier)

    def _measured(self, reading: Reading) -> Measurement:
        now, value = self._clock.now(), reading.value
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

    def __init__(self, cluster: "Cluster") -> None:
        self.unled = UnledTime(behind=self._behind)
        if cluster.lease is None:
            self.unled.unknown = True
        else:
            self.unled.read(cluster.lease)
        self.memory, self.downtime, server = Memory(), Downtime(), cluster.server
        self.clock: SteadyClock = SteadyClock(cluster)
        self.began = self.clock.now()
        store = ApiRolloutStore(server, monotonic=self.clock.monotonic)
        self.metrics, flags = Application(cluster), ConfigMapPublisher(server)
        around = replace(cluster.around.ports(), store=store, flags=flags, metrics=self.metrics, clock=self.clock)
        self.reconciler = Reconciler(around, self.memory, self.downtime, cluster.decided, lambda *_: nullcontext())
        self.loops = NoLoops(self.reconciler, Deletion(around, self.memory, parse, lambda _: None), self.memory, around)
        self.inbox = Inbox(self.memory, OnDemandChecks(around), self.loops, store, self.clock, action_of)
        self.downtime.unaccounted = self.unled.unaccounted
        self.downtime.begin(replace(self.unled).since_for, cluster.keys)
        run(self.inbox.sweep())

    def _behind(self) -> tuple[Key, ...]:
        return self.memory.behind(self.clock.now(), all_began=self.downtime.accounted.is_set())

    async def reconcile(self, key: Key) -> float:
        """Reconcile once; seconds until the next time."""
        self.memory.of(key).has_loop = True
        return await self.reconciler.reconcile(key)

    def end(self, raw: Object) -> None:
        """Release what belongs to a deleted rollout, as its loop does; attempts are repeated in the time of the event loop."""
        with patch.object(deletion, "time", SimpleNamespace(monotonic=LOOP.time)):
            run(self._end(Key(NAMESPACE, raw["metadata"]["name"]), Loop(raw)))

    async def _end(self, key: Key, loop: Loop) -> None:
        """It is left as it is while the API server refuses the removal of the finalizer."""
        state = self.memory.of(key)
        state.has_loop, state.uid = True, loop.uid
        for _ in range(200):
            state.removal_due = 0.0
            await self.reconciler.reconcile(key)
            if state.finalized or (state.deleted and await self.loops._end(key, loop)):
                break
            await asyncio.sleep(1)

    def document_changed(self, stored: Object, *, deleted: bool) -> None:
        """The watch of flag documents; of one that was deleted it delivers the last version."""
        place = Key(NAMESPACE, stored["metadata"]["name"])
        self.reconciler.document_changed(place, document_of(stored), deleted=deleted)

    def action_changed(self, raw: Object, *, deleted: bool = False) -> None:
        """The watch of actions; what it schedules is run when the loop runs next."""

        async def deliver() -> None:
            self.inbox.action_changed(raw, deleted=deleted)

        run(deliver())
