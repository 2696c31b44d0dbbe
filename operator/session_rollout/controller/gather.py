"""Gathers what a decision needs, and only that: `core.inputs` says which inputs the current stage has."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from typing import Final

from session_rollout.api.enums import Stage
from session_rollout.api.metrics import Metric
from session_rollout.api.quantities import duration
from session_rollout.api.rollout import RolloutSpec, SessionRollout
from session_rollout.api.status import REFUSALS_LENGTH, RolloutStatus
from session_rollout.api.status_records import Refusal
from session_rollout.controller.documents import Documents
from session_rollout.controller.downtime import Downtime
from session_rollout.controller.listings import OF_JOBS
from session_rollout.controller.memory import Memory
from session_rollout.controller.state import READ_DOCUMENT, RolloutState
from session_rollout.core.documents import PublishedDocument
from session_rollout.core.evidence import blocks_since
from session_rollout.core.inputs import external_gates, has_jobs, needed_metrics, needs_revisions, needs_workload, running_jobs
from session_rollout.core.observed import CheckResult, JobObservation, Measurement, Observed, Revisions
from session_rollout.core.publication import protection_uids
from session_rollout.core.seasons import seasons_read
from session_rollout.errors import RolloutError
from session_rollout.ports import Key, Ports, Queries

SHORTEST_AGE: Final = timedelta(
    seconds=1
)  # so that no clock that was set back has a result queried again as soon as it is there
REFRESH_AFTER: Final = 0.9  # a metric is queried again when its result is older than this share of the check interval


class Gatherer:
    """Reads the inputs of decisions through the ports."""

    def __init__(self, ports: Ports, memory: Memory, downtime: Downtime) -> None:
        self._ports, self._memory, self._downtime = ports, memory, downtime
        self._documents = Documents(ports)

    async def gather(self, rollout: SessionRollout, stored: RolloutStatus, state: RolloutState) -> Observed:
        """Everything that the decision about this rollout depends on, except the time.

        `rollout` has the status that the decision starts from, `stored` is the one that the API server has. Only the flag
        document must be readable: what else cannot be read is a refusal, and users are protected without it.
        """
        now = self._ports.clock.now()
        max_age = duration(rollout.spec.check_interval) * REFRESH_AFTER
        queries = await self._queries(rollout, state)
        published = await self.gather_published(rollout, stored, state)
        # All at once: each may take a moment, and the decision may be an emergency.
        jobs, revisions, unavailable = await asyncio.gather(
            self._jobs(rollout, state, now),
            self._revisions(rollout, state, now),
            self._workload_unavailable_reason(rollout, state),
        )
        return replace(
            published,
            measurements=self._measurements(rollout, state),
            ranges=queries.ranges,
            queries=queries.spelled,
            other_rollouts=self._memory.others_with(Key(rollout.namespace, rollout.name)),
            jobs=jobs,
            gates=self._gates(rollout, state, max_age),
            revisions=revisions,
            workload_unavailable_reason=unavailable,
            problems=queries.problems,
            refusals=self._refusals(rollout, state, now),
            clock_jump=self._memory.clock_jump,
            busy=state.busy(self._ports.clock.now()),
        )

    async def gather_published(self, rollout: SessionRollout, stored: RolloutStatus, state: RolloutState) -> Observed:
        """What is published and requested, and nothing that the spec asks for: it cannot be parsed."""
        return Observed(
            rollout=rollout,
            document=await self._document(rollout, state),
            stored_uids=protection_uids(stored),
            actions=state.actions.oldest_first(),
            settled_actions=state.actions.settled(rollout.status.processed_actions, self._memory.actions_in(rollout.namespace)),
            delivered=self._ports.notifier.delivered(rollout.uid) if rollout.status.pending_notifications else frozenset(),
            sink_errors=self._ports.notifier.errors() if rollout.spec.notifications else {},
            refusals=self._refusals(rollout, state, self._ports.clock.now()),
            last_reconcile=self._last_evaluation(rollout, stored, state),
        )

    def _refusals(self, rollout: SessionRollout, state: RolloutState, now: datetime) -> tuple[Refusal, ...]:
        """What the API server refuses to this rollout, and what it does not list or watch."""
        unlisted = self._memory.listings.refusals(rollout.namespace, now)
        unwatched = self._memory.watches.refusals(rollout.namespace)
        concerned = tuple(
            refusal for refusal in (*unlisted, *unwatched) if refusal.effect not in OF_JOBS or has_jobs(rollout.spec)
        )
        return (*state.shown_refusals(now), *concerned)[:REFUSALS_LENGTH]

    def _last_evaluation(self, rollout: SessionRollout, stored: RolloutStatus, state: RolloutState) -> datetime | None:
        """By this process; else, by another one that is known to have evaluated it until some time, or has written so."""
        if state.restored or state.last_observed is not None:
            return None if state.restored else state.last_observed
        return self._downtime.since(Key(rollout.namespace, rollout.name), stored.evaluation_time)

    async def _queries(self, rollout: SessionRollout, state: RolloutState) -> Queries:
        """What the queries say: read once for each spec, because that may take a second."""
        asked = (rollout.spec.prometheus, rollout.spec.metrics, rollout.spec.control)
        if state.queries is None or state.queries[0] != asked:
            state.queries = asked, await self._ports.metrics.read_queries(*asked)
        return state.queries[1]

    def _measurements(self, rollout: SessionRollout, state: RolloutState) -> dict[str, Measurement]:
        """Latest results of the metrics that this stage needs: none where nothing is evaluated, or it would query forever."""
        spec, results = rollout.spec, dict[str, Measurement]()
        by_interval = groupby(sorted(needed_metrics(rollout), key=_interval(spec)), key=_interval(spec))
        for interval, metrics in by_interval:
            max_age = min(interval * REFRESH_AFTER, self._oldest(rollout))
            results |= self._ports.metrics.measurements(spec.prometheus, tuple(metrics), max_age, state.wake_soon)
        return self._with_seasons(rollout, state, results) | self._blocks(rollout, state)

    def _with_seasons(
        self, rollout: SessionRollout, state: RolloutState, results: dict[str, Measurement]
    ) -> dict[str, Measurement]:
        """Results with the earlier seasons that they are compared with. Until both are there, a result is on its way."""
        spec, results = rollout.spec, dict(results)
        for name, ago in seasons_read(rollout, self._ports.clock.now()).items():
            metric, measurement = spec.metric(name), results.get(name)
            if metric is None or measurement is None:
                continue
            max_age = min(spec.interval_of(name) * REFRESH_AFTER, self._oldest(rollout))
            seasons = self._ports.metrics.seasons(spec.prometheus, metric, ago, max_age, state.wake_soon)
            if seasons is None:
                del results[name]
            else:
                results[name] = replace(measurement, seasons=seasons)
        return results

    def _blocks(self, rollout: SessionRollout, state: RolloutState) -> dict[str, Measurement]:
        """The latest blocks of the metrics that are counted by cohort. Where there is nothing to compare, nothing is asked."""
        spec, results, now = rollout.spec, dict[str, Measurement](), self._ports.clock.now()
        for metric in needed_metrics(rollout):
            if metric.counted is None:
                continue
            since = blocks_since(spec, rollout.status, metric)
            known = (
                self._ports.metrics.blocks(spec.prometheus, metric, spec.control, since, state.wake_soon)
                if since is not None
                else Measurement(now)
            )
            results |= {metric.name: known} if known is not None else {}
        return results

    def _oldest(self, rollout: SessionRollout) -> timedelta:
        """How old a result may be to say something: one of before the baseline's time says nothing, though another rollout has it."""
        current = rollout.status.current
        if current.stage is not Stage.BASELINE or current.stage_start_time is None:
            return timedelta.max
        return max(SHORTEST_AGE, self._ports.clock.now() - current.stage_start_time)

    def _gates(self, rollout: SessionRollout, state: RolloutState, max_age: timedelta) -> dict[str, CheckResult]:
        gates = external_gates(rollout)
        return self._ports.gates.results(rollout, gates, max_age, state.wake_soon) if gates else {}

    async def _jobs(self, rollout: SessionRollout, state: RolloutState, now: datetime) -> dict[str, JobObservation]:
        names = running_jobs(rollout)
        state.reads.forget({*(f"Job {name}" for name in names), "the workload", "the revisions"})
        observed = await asyncio.gather(*(self._job(rollout, state, name) for name in names))
        failures = (result for result in observed if isinstance(result, RolloutError))
        state.note("ReadJob", next(failures, None), now)
        return {name: result for name, result in zip(names, observed, strict=True) if isinstance(result, JobObservation)}

    async def _job(self, rollout: SessionRollout, state: RolloutState, name: str) -> JobObservation | RolloutError:
        try:
            return await state.reads.take(f"Job {name}", partial(self._ports.jobs.observe, rollout, name), state.wake_soon)
        except RolloutError as error:
            return error

    async def _document(self, rollout: SessionRollout, state: RolloutState) -> PublishedDocument | None:
        """The published document. The watch delivers the rollout's own; any other one is read each time."""
        if state.document is None or state.document.owner != rollout.name:
            document = await self._documents.read(rollout)
            state.know(document, document.version if document is not None else -1)
        elif state.document_doubted:
            await self._confirm_document(rollout, state)
        return state.document

    async def _confirm_document(self, rollout: SessionRollout, state: RolloutState) -> None:
        """Read the document that no sweep can list. If it cannot be read either, users are protected from what is remembered of it."""
        version = state.document_version
        try:
            document = await self._documents.read(rollout)
        except RolloutError as error:
            state.refused(READ_DOCUMENT, error, self._ports.clock.now())
            return
        if state.document_version == version:  # otherwise the watch has delivered a newer one meanwhile
            state.know(document, document.version if document is not None else -1)

    async def _workload_unavailable_reason(self, rollout: SessionRollout, state: RolloutState) -> str | None:
        if rollout.spec.workload is None or not needs_workload(rollout):
            # Only the preflight waits for it: later, guards measure whether the application works.
            return None
        try:
            read = partial(self._ports.workloads.unavailable_reason, rollout.namespace, rollout.spec.workload)
            return await state.reads.take("the workload", read, state.wake_soon)
        except RolloutError as error:
            return str(error)

    async def _revisions(self, rollout: SessionRollout, state: RolloutState, now: datetime) -> Revisions | None:
        revisions, failure = None, None
        if rollout.spec.workload is not None and needs_revisions(rollout):
            # Otherwise the operator may lack the permission to list ReplicaSets.
            try:
                read = partial(self._ports.workloads.revisions, rollout.namespace, rollout.spec.workload)
                revisions = await state.reads.take("the revisions", read, state.wake_soon)
            except RolloutError as error:
                failure = error
        state.note("ReadWorkload", failure, now)
        return revisions


def _interval(spec: RolloutSpec) -> Callable[[Metric], timedelta]:
    """How often a metric is queried."""
    return lambda metric: spec.interval_of(metric.name)
