"""The loop of one rollout: read it, gather what its decision needs, decide, write the status, carry out the effects.

The status is the intent and is written before the effects, with the resourceVersion that was read. What a crash or an
error leaves undone, the next reconciliation decides again.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import partial
from typing import Final

from session_rollout.api.quantities import duration
from session_rollout.api.rollout import SessionRollout
from session_rollout.api.status import RolloutStatus
from session_rollout.controller.apply import Applier
from session_rollout.controller.backoff import LONGEST_SECONDS, at_most_urgent, delay
from session_rollout.controller.decisions import Decisions
from session_rollout.controller.deletion import GONE, Remains, patience
from session_rollout.controller.downtime import Downtime
from session_rollout.controller.finalizers import Finalizers
from session_rollout.controller.memory import Memory
from session_rollout.controller.requests import read_soon
from session_rollout.controller.state import DecidedStatus, RolloutState
from session_rollout.controller.unconfirmed import Made
from session_rollout.core.context import RESYNC
from session_rollout.core.documents import PublishedDocument
from session_rollout.core.observed import Decision
from session_rollout.core.refusals import STATUS_EFFECT
from session_rollout.errors import Conflict, RolloutError, Unavailable
from session_rollout.ports import Incomplete, Key, Ports, Reconciled, Stored
from session_rollout.tasks import cause_of

log = logging.getLogger(__name__)
CONFLICT_SECONDS: Final = 0.05
CONFLICTS_AT_ONCE: Final = 3
RETRY_SECONDS: Final = (0.2, 0.5, 1.0)  # after the first failures; then with jitter
JITTER_SECONDS: Final = 0.05
FIRST_SECONDS: Final = 30.0  # that the turn of a new one may take to come; it is overdue later
KEEP_OFF_SECONDS: Final = 5.0  # between reads of a document that a deletion keeps off: without its label, no watch delivers it
RECORD_EVERY: Final = timedelta(minutes=5)  # a record even without a change, for the values of metrics over time
RECORD_INTERVALS: Final = 10
STATUS: Final = "the status"
Span = Callable[[str, dict[str, str]], AbstractContextManager[None]]


class Reconciler:
    """Reconciles all rollouts of this process."""

    def __init__(
        self, ports: Ports, memory: Memory, downtime: Downtime, on_reconciled: Callable[[Key, Reconciled], None], span: Span
    ) -> None:
        self._ports, self._memory, self._downtime = ports, memory, downtime
        self._on_reconciled, self._span = on_reconciled, span
        self._decisions, self._applier = Decisions(ports, memory, downtime), Applier(ports)
        self._finalizers, self._remains = Finalizers(ports), Remains(ports)

    # --- what wakes the loop

    def job_changed(self, key: Key, owners: frozenset[str]) -> None:
        """The watch delivered a Job with the labels of this rollout; a copy of one has them, too, but not its owner."""
        state = self._memory.of(key)
        if state.uid in owners:
            state.wake.set()

    def document_changed(self, place: Key, document: PublishedDocument, *, deleted: bool = False) -> None:
        """The watch delivered a ConfigMap with the label of flag documents. One that no rollout publishes in is a copy."""
        for state in self._memory.with_document(place):
            if document.version <= state.document_version:
                # The watch is behind: this version is older than what was read back after the last write. Taking it
                # for the present would report drift and publish again.
                continue
            state.know(None if deleted else document, document.version)
            state.wake.set()

    # --- the loop

    async def run(self, key: Key, stopped: asyncio.Event) -> None:
        """Reconcile a rollout until it is deleted or the loop is stopped; a rollout that has ended is reconciled, too."""
        state = self._memory.of(key)
        state.expect_next(FIRST_SECONDS)
        while not (stopped.is_set() or state.deleted):
            state.wake.clear()  # before reading: what changes during the reconciliation causes another one
            asked = time.monotonic()
            async with self._memory.turns.take(lambda: state.priority, key.namespace) as state.pass_on:
                state.waited = time.monotonic() - asked
                with state.working():
                    seconds = await self._reconcile_guarded(key, state)
            if state.awaits_removal:  # it may have become due meanwhile
                seconds = min(seconds, state.until_removal)
            seconds = seconds if state.released is None else min(seconds, KEEP_OFF_SECONDS)
            seconds = at_most_urgent(seconds) if state.unprotected else seconds
            state.expect_next(seconds)
            await _rest(state, stopped, seconds + random.uniform(0, JITTER_SECONDS))  # noqa: S311 - no secret

    async def _reconcile_guarded(self, key: Key, state: RolloutState) -> float:
        """Reconcile once. An exception that nobody foresaw concerns this rollout: it must not end the loops of the others."""
        try:
            with self._span("reconcile", {"k8s.namespace.name": key.namespace, "sessionrollout.name": key.name}):
                return await self.reconcile(key)
        except Exception as error:
            state.failures += 1
            log.exception("a reconciliation failed", extra={**key.fields, **cause_of(error)})
            return delay(state.failures)

    async def reconcile(self, key: Key) -> float:
        """Reconcile once; seconds until the next time at the latest. Foreseeable errors are logged and retried."""
        state = self._memory.of(key)
        try:
            seconds = await self._reconcile(key, state)
        except Conflict as conflict:
            # Another client wrote the rollout after it was read, such as `kubectl apply` with a new spec. The decision
            # rests on an object that no longer exists: read again and decide again, never send it a second time.
            log.info("write conflict; reading again: %s", conflict, extra=key.fields)
            state.conflicts += 1
            return CONFLICT_SECONDS if state.conflicts <= CONFLICTS_AT_ONCE else delay(state.conflicts - CONFLICTS_AT_ONCE)
        except RolloutError as error:
            # An outage of the API server lasts for minutes and affects every rollout at the same time: back off.
            state.failures += 1
            log.warning("%s", error, extra=key.fields)
            return _pause(state, error)
        state.failures = state.conflicts = 0
        return seconds

    async def _reconcile(self, key: Key, state: RolloutState) -> float:
        start, state.awaits_removal = time.monotonic(), False
        state.unprotected |= state.actions.protect
        stored = await read_soon(partial(self._ports.store.read, key))
        self._memory.served = True
        if stored is None or state.uid not in {None, stored.uid}:
            return self._end(key, state)
        awaited = await self._remains.awaited(stored, state) if stored.deleting else None
        stored = await self._keep_finalizer(stored, state, protected=False)
        self._memory.has_features(key, frozenset(feature.name for feature in stored.rollout.spec.features))
        state.applies(stored.rollout.spec)
        if not stored.problem:
            state.read(stored.rollout.status, stored.created, by_others=stored.status_by_others)
        made = await self._decisions.make(stored, state, awaited)
        rollout, decision, observed = made.observed.rollout, made.decision, made.observed
        unprotected = await self._applier.protect(rollout, state, decision)
        state.unprotected = unprotected is not None
        if decision.urgent is not None:
            await state.pass_on()
        if awaited is not None and awaited.is_over and self._has_protected(rollout, state, decision, unprotected):
            await self._applier.answer(rollout, state, decision)
            return self._end(key, state)
        stored = await self._keep_finalizer(stored, state, protected=True)
        wrote, failure = await self._write_status(stored, stored.rollout, state, made)
        self._account(key, state, made, is_stored=failure is None)
        known, seconds = decision.status if wrote else stored.rollout.status, time.monotonic() - start
        result = Reconciled(rollout, decision, wrote, known, seconds, state.waited, observed.measurements)
        self._on_reconciled(key, result)
        if failure is not None:
            await self._applier.answer_protections(rollout, state, decision)
            if decision.urgent is None or unprotected is not None:
                raise failure
            log.warning("%s", failure, extra=key.fields)
            return 0.0  # users have another document: the next decision is about it, and guards start from there
        seconds = await self._carry_out(made, state, wrote=wrote)
        if unprotected is not None:
            raise unprotected
        return seconds if decision.urgent is None else 0.0

    def _account(self, key: Key, state: RolloutState, made: Made, *, is_stored: bool) -> None:
        """Nothing that is not replayable has a hold that runs, so that no downtime can count once its status says so."""
        if made.evaluated:
            state.reconciled(made.now)
        if is_stored and (made.evaluated or not made.replayable):
            state.accounted = True
            self._downtime.account(key)

    async def _keep_finalizer(self, stored: Stored, state: RolloutState, *, protected: bool) -> Stored:
        """After what protects users, because it may hang; before the first decision, because nothing is published without it."""
        first = stored.rollout.status.flags.sha256 is None
        return stored if stored.deleting or first is protected else await self._finalizers.keep(stored, state)

    def _has_protected(
        self, rollout: SessionRollout, state: RolloutState, decision: Decision, unprotected: RolloutError | None
    ) -> bool:
        """Whether a deletion that waits for nothing else has written what protects users, as far as the API server lets it."""
        if unprotected is None or patience(state, unprotected) > 0:
            return decision.urgent is None
        self._remains.leave(rollout, str(unprotected))
        return True

    async def protect_last(self, stored: Stored, state: RolloutState) -> None:
        """The object is gone: what was decided to protect its users is written. Raises RolloutError while it cannot be."""
        for _ in range(2):  # the document first, and then the responses about it
            made = await self._decisions.make(stored, state, GONE)
            rollout, decision = made.observed.rollout, made.decision
            stored = state.last or stored
            if made.observed.document is None:
                return  # it was deleted, too, and must not come back
            if (error := await self._applier.protect(rollout, state, decision)) is not None:
                raise error
            await self._applier.answer(rollout, state, decision)

    def _end(self, key: Key, state: RolloutState) -> float:
        """Deleted: this loop ends. A decision made now could publish a document that the deletion is about to release."""
        self._downtime.account(key)
        state.deleted = True
        return RESYNC.total_seconds()

    async def _write_status(
        self, stored: Stored, rollout: SessionRollout, state: RolloutState, made: Made
    ) -> tuple[bool, RolloutError | None]:
        """Whether the status was written, and why it could not be. Raises Conflict.

        A status that cannot be written is kept in memory: the next decision starts from it, so that time counts for guards
        and holds. No effect but the protection of users is carried out for it.
        """
        decision, now = made.decision, made.now
        state.note_contest(stored.key, rollout.status, decision.status, now)
        begins = made.evaluated and decision.status.has_timers and not state.accounted
        if not begins and decision.status.to_wire() == rollout.status.to_wire():
            # A steady hold writes nothing: every write would wake all who watch the object, this loop included.
            state.decided = None
            state.status_stored()
            await self._probe_crd(stored, state)
            return False, None
        known, state.stored = state.stored, None  # the response may be lost
        repeated = state.decided is not None and state.decided.decided == decision.status
        status = decision.status.updated(
            last_update_time=rollout.status.last_update_time if repeated else now,
            evaluation_time=now if made.evaluated and not repeated else rollout.status.evaluation_time,
        )
        try:
            self._ports.leader.confirm()
            incomplete = await self._send(stored, state, status)
        except Conflict:
            state.stored = known
            state.unconfirmed.add(made)
            self._downtime.unaccounted.add(stored.key)
            # Repeated conflicts must not blind a guard with `for`: whatever else changed in the object, its time counts.
            observed = now if decision.complete else state.last_observed
            state.keep_decided(DecidedStatus(rollout.status, decision.status, rollout.generation, observed))
            raise
        except RolloutError as error:
            state.unconfirmed.add(made)
            self._downtime.unaccounted.add(stored.key)
            state.refused(STATUS_EFFECT, error, self._ports.clock.now())
            state.keep_decided(DecidedStatus(rollout.status, decision.status))
            return False, error
        state.succeeded(STATUS_EFFECT)
        if incomplete is not None:
            return self._keep_unstored(incomplete, state, made)
        state.decided = None
        state.wrote(status)
        _log_decision(stored.key, decision)
        return True, None

    async def _send(self, stored: Stored, state: RolloutState, status: RolloutStatus) -> Incomplete | None:
        """Write the status, one at a time. A write that hangs must not delay the next decision: it raises Unavailable.

        When it has ended, the object is another one than the decision is about.
        """
        late = state.writes.under_way(STATUS)
        incomplete = await state.writes.take(STATUS, partial(self._ports.store.write_status, stored, status), state.wake_soon)
        if late:
            state.status_stored()
            raise Conflict("the response to an earlier status has arrived")
        return incomplete

    def _keep_unstored(self, incomplete: Incomplete, state: RolloutState, made: Made) -> tuple[bool, RolloutError | None]:
        """The status was stored without a field. When this is news, the next decision comes first: it stalls.

        It is written again with each decision, which changes nothing until the CRD has the field.
        """
        decision = made.decision
        changed = state.decided is None or state.decided.decided != decision.status
        status = incomplete.stored.rollout.status
        news = state.stored_without(incomplete.field, status, decision.status, self._ports.clock.now())
        state.wrote(status)
        if news is not None:
            state.unconfirmed.add(made)
        elif changed:
            _log_decision(incomplete.stored.key, decision)
        return changed, news

    async def _probe_crd(self, stored: Stored, state: RolloutState) -> None:
        """What is decided is stored as it is. Whether the field that was dropped would be, too, only a status with it shows."""
        if state.unstored is None:
            return
        try:
            probe = partial(self._ports.store.write_status, stored, state.unstored, dry_run=True)
            incomplete = await state.writes.take("whether the CRD is complete", probe, state.wake_soon)
        except RolloutError as error:
            log.info("whether the CRD still drops a field is unknown: %s", error, extra=stored.key.fields)
            return
        if incomplete is None:
            state.stored_whole()

    async def _tell(self, late: Made) -> None:
        """The status has this decision, which was not known when it was made. Its flags and Jobs are those of the status."""
        rollout = late.observed.rollout
        _log_decision(Key(rollout.namespace, rollout.name), late.decision)
        self._applier.emit(rollout, late.decision)
        if late.replayable:
            await self._ports.recorder.keep(late.observed, late.now, late.decision)

    async def _carry_out(self, made: Made, state: RolloutState, *, wrote: bool) -> float:
        """Everything after the status write; seconds until the next reconciliation."""
        decision, rollout = made.decision, made.observed.rollout
        again, failure = False, None
        try:
            again = await self._applier.apply(rollout, state, decision)
        except RolloutError as error:
            # Notifications and records do not depend on the effects. An outage that fails an effect is
            # exactly what users want to be notified of.
            failure = error
        self._notify(rollout, state, decision)
        for late in state.unconfirmed.confirmed(rollout.status):
            await self._tell(late)
        if made.replayable:
            await self._record(made, state, wrote=wrote)
        if failure is not None:
            raise failure
        return 0.0 if again else decision.next_reconcile.total_seconds()

    def _notify(self, rollout: SessionRollout, state: RolloutState, decision: Decision) -> None:
        if rollout.spec.notifications or decision.status.pending_notifications:
            self._ports.notifier.enqueue(rollout, decision.status.pending_notifications, state.wake_soon)

    async def _record(self, made: Made, state: RolloutState, *, wrote: bool) -> None:
        """Keep what the decision rested on when it changed something, and from time to time for its measurements."""
        observed, now = made.observed, made.now
        period = max(RECORD_EVERY, RECORD_INTERVALS * duration(observed.rollout.spec.check_interval))
        due = state.last_record is not None and now - state.last_record >= period and bool(observed.measurements)
        if wrote or due:
            state.last_record = now
            await self._ports.recorder.keep(observed, now, made.decision)


def _pause(state: RolloutState, error: RolloutError) -> float:
    """Seconds after a failure: what the server asks for, and no longer than the last decision could wait."""
    failures = state.failures
    early = failures <= len(RETRY_SECONDS)
    seconds = RETRY_SECONDS[failures - 1] if early else delay(failures - len(RETRY_SECONDS))
    wanted = error.retry_after.total_seconds() if isinstance(error, Unavailable) and error.retry_after is not None else 0.0
    return max(min(seconds, state.next_decision), min(wanted, LONGEST_SECONDS))


async def _rest(state: RolloutState, stopped: asyncio.Event, seconds: float) -> None:
    """Wait until something changes, the loop is stopped, or the time is over."""
    begun = time.monotonic()
    waiting = [asyncio.ensure_future(state.wake.wait()), asyncio.ensure_future(stopped.wait())]
    try:
        await asyncio.wait(waiting, timeout=0 if state.deleted else seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        state.rested += time.monotonic() - begun


def _log_decision(key: Key, decision: Decision) -> None:
    status = decision.status
    log.info(
        "%s: %s",
        status.decision.action,
        status.decision.message,
        extra={
            **key.fields,
            "reason": status.decision.reason,
            "generation": status.observed_generation,
            "stage": status.current.stage,
            "phase": status.current.phase,
            "step": status.current.step,
            "percent": status.current.percent,
            "details": list(status.decision.details),
            "checks": {f"{check.kind}/{check.name}": f"{check.verdict} {check.value or ''}".strip() for check in status.checks},
        },
    )
