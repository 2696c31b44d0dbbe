"""One look at one rollout: read it, gather what its decision needs, decide, write the status, do the effects.

The status is written before the effects (the intent), with the resourceVersion that was read. A conflict is no error: the
object is read again and decided again, never re-sent. Whatever is not finished now is found unfinished by the next look.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from session_rollout.api.action import SessionRolloutAction, answer
from session_rollout.api.enums import Stage
from session_rollout.api.quantities import duration
from session_rollout.api.rollout import DeletionPolicy, SessionRollout
from session_rollout.core.decide import RESYNC, decide
from session_rollout.core.flags import NOBODY, Compiled, compile_document, config_map_name
from session_rollout.core.inputs import external_gates, needed_metrics, needs_revisions, needs_workload, running_jobs
from session_rollout.core.observed import (
    Answer,
    Decision,
    Effect,
    Emit,
    Observed,
    Publish,
    RestartWorkload,
    Revisions,
    StartCheck,
    StartJob,
    SuspendJob,
    UndoWorkload,
)
from session_rollout.errors import Conflict, Forbidden, RolloutError, SpecError, Unavailable
from session_rollout.ports import (
    Clock,
    Courier,
    EventSink,
    Examiner,
    Fingerprint,
    FlagPublisher,
    JobRunner,
    Key,
    Leadership,
    MetricSource,
    Reconciled,
    Recorder,
    RolloutStore,
    Stored,
    Workloads,
)

log = logging.getLogger(__name__)
RETRY_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
FRESH: Final = 0.9  # an answer as old as this part of the interval is asked anew
FINALIZE_SECONDS: Final = 15.0
SETTLE_SECONDS: Final = 2.0
LATE_LOOKS: Final = 2
SAMPLE_EVERY: Final = timedelta(minutes=5)
SAMPLE_INTERVALS: Final = 10
TOGETHER_SECONDS: Final = 0.03  # answers that come together are judged in one look


@dataclass(frozen=True)
class Ports:
    """Everything outside that a look touches."""

    store: RolloutStore
    workloads: Workloads
    examiner: Examiner
    courier: Courier
    recorder: Recorder
    flags: FlagPublisher
    jobs: JobRunner
    metrics: MetricSource
    events: EventSink
    clock: Clock
    leader: Leadership


@dataclass(frozen=True)
class Stuck:
    """An effect that could not be done."""

    effect: Effect
    generation: int
    time: datetime
    why: str


@dataclass
class Watched:
    """What the process remembers about one rollout; all of it can be lost."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    inbox: dict[str, SessionRolloutAction] = field(default_factory=dict)
    document: Fingerprint = field(default_factory=Fingerprint)  # what is published, as far as is known
    last_reconcile: datetime | None = None
    last_record: datetime | None = None
    failures: int = 0
    stuck: Stuck | None = None  # the last effect that could not be done and will not be before somebody acts
    due: float = 0.0  # monotonic seconds by which the next look should have happened
    nudged: bool = False

    @property
    def trouble(self) -> str:
        """Why an effect could not be done; goes into status with the next look."""
        return self.stuck.why if self.stuck is not None else ""

    def nudge(self) -> None:
        """Wake in a moment; what comes until then is seen in the same look."""
        if not self.nudged:
            self.nudged = True
            asyncio.get_running_loop().call_later(TOGETHER_SECONDS, self._wake)

    def _wake(self) -> None:
        self.nudged = False
        self.wake.set()


class Controller:
    """All rollouts of this process."""

    def __init__(self, ports: Ports, on_seen: Callable[[Key, Reconciled], None]) -> None:
        self._ports = ports
        self._on_seen = on_seen
        self.watched: dict[Key, Watched] = {}
        self.unaccounted: set[Key] = set()  # rollouts not yet looked at since the start
        self.unaccounted_since: datetime | None = None

    def of(self, key: Key) -> Watched:
        """What is remembered about a rollout."""
        return self.watched.setdefault(key, Watched())

    async def look(self, key: Key) -> float:
        """One look; seconds until the next one at the latest. Never raises what can be foreseen."""
        watched = self.of(key)
        try:
            seconds = await self._look(key, watched)
        except Conflict as conflict:
            log.info("read again: %s", conflict, extra=_names(key))
            return RETRY_SECONDS[0] / 4
        except RolloutError as error:
            watched.failures += 1
            log.warning("%s", error, extra=_names(key))
            return RETRY_SECONDS[min(watched.failures, len(RETRY_SECONDS)) - 1]
        watched.failures = 0
        return seconds

    async def _look(self, key: Key, watched: Watched) -> float:
        begun = time.monotonic()
        stored = await self._ports.store.read(key)
        if stored is None or stored.deleting or stored.rollout is None:
            self.unaccounted.discard(key)
        if stored is None or stored.deleting:
            return RESYNC.total_seconds()
        if stored.rollout is None:
            raise SpecError(f"the object cannot be read: {stored.problem}")
        observed = await self._gather(stored.rollout, watched)
        now = self._ports.clock.now()
        decision = decide(observed, now)
        wrote = decision.status.to_wire() != stored.rollout.status.to_wire()
        if wrote:
            self._ports.leader.confirm()
            await self._ports.store.write_status(stored, decision.status)
        if decision.complete:
            watched.last_reconcile = now
            self.unaccounted.discard(key)
        self._on_seen(key, Reconciled(stored.rollout, decision, wrote, time.monotonic() - begun, observed.measurements))
        if wrote:
            _log_decision(key, decision)
        again = await self._apply(stored.rollout, watched, decision)
        self._carry(stored.rollout, watched, decision)
        await self._record(observed, now, decision, watched, wrote=wrote)
        return 0.0 if again else decision.next_reconcile.total_seconds()

    # --- gather

    async def _gather(self, rollout: SessionRollout, watched: Watched) -> Observed:
        ports, metrics = self._ports, needed_metrics(rollout)
        max_age = duration(rollout.spec.check_interval) * FRESH
        loop = asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(watched.nudge)

        measurements = ports.metrics.look(rollout.spec.prometheus, metrics, max_age, wake) if metrics else {}
        jobs = {name: await ports.jobs.observe(rollout, name) for name in running_jobs(rollout)}
        gates, outbox = external_gates(rollout), rollout.status.pending_notifications
        problem, revisions = await self._workload(rollout)
        return Observed(
            rollout=rollout,
            measurements=measurements,
            ranges=ports.metrics.ranges(rollout.spec.metrics),
            published_sha256=await self._fingerprint(rollout, watched),
            jobs=jobs,
            requests=tuple(sorted(watched.inbox.values(), key=lambda one: (one.creation_time, one.name))),
            workload=problem,
            revisions=revisions,
            gates=ports.examiner.look(rollout, gates, max_age, watched.nudge) if gates else {},
            delivered=ports.courier.delivered(rollout.uid) if outbox else frozenset(),
            sink_errors=ports.courier.troubles() if rollout.spec.notifications else {},
            problems=(
                *ports.metrics.problems(rollout.spec.prometheus, rollout.spec.metrics),
                *((watched.trouble,) if watched.trouble else ()),
            ),
            last_reconcile=watched.last_reconcile or self.unaccounted_since,
        )

    async def _workload(self, rollout: SessionRollout) -> tuple[str, Revisions | None]:
        """Why the workload is not available, and its revisions; each only when a decision needs it."""
        workload, ports = rollout.spec.workload, self._ports
        if workload is None:
            return "", None
        problem = await ports.workloads.problem(rollout.namespace, workload) if needs_workload(rollout) else ""
        revisions = await ports.workloads.revisions(rollout.namespace, workload) if needs_revisions(rollout) else None
        return problem, revisions

    async def _fingerprint(self, rollout: SessionRollout, watched: Watched) -> str | None:
        """What is published: the watch tells, and is asked where it has not yet."""
        if watched.document.sha256 is None:
            name = config_map_name(rollout.spec.flag_set)
            watched.document = await self._ports.flags.fingerprint(rollout.namespace, name)
        return watched.document.sha256

    def see_document(self, key: Key, seen: Fingerprint) -> None:
        """The watch shows a flag document; what is older than what was read back is no news."""
        watched = self.of(key)
        if seen.sha256 is None or seen.version > watched.document.version:
            watched.document = seen
            watched.wake.set()

    # --- apply

    async def _apply(self, rollout: SessionRollout, watched: Watched, decision: Decision) -> bool:
        """Do the effects, flags first; whether something changed that is worth another look at once."""
        again, before, now = False, watched.trouble, self._ports.clock.now()
        first = [effect for effect in decision.effects if isinstance(effect, Publish)]
        rest: list[Effect] = [effect for effect in decision.effects if not isinstance(effect, Publish)]
        stuck = self._still_stuck(rollout, watched, decision)
        if stuck is not None and now - stuck.time >= RESYNC:
            rest.append(stuck.effect)
            stuck = None
        for effect in (*first, *rest):
            try:
                again |= await self._do(rollout, watched, effect)
            except SpecError as error:
                stuck = Stuck(effect, rollout.generation, now, str(error))
        watched.stuck = stuck
        return again or watched.trouble not in {"", before}

    def _still_stuck(self, rollout: SessionRollout, watched: Watched, decision: Decision) -> Stuck | None:
        """What could not be done and is not asked for now, because it keeps the rollout from going on: it is tried now and then.

        Another spec or a rollback asks for something else.
        """
        stuck, stage = watched.stuck, decision.status.current.stage
        gone = stuck is None or stuck.generation != rollout.generation or stuck.effect in decision.effects
        return None if gone or stage in {Stage.ROLLING_BACK, Stage.ENDED} else stuck

    async def _do(self, rollout: SessionRollout, watched: Watched, effect: Effect) -> bool:
        ports = self._ports
        if not isinstance(effect, Emit):
            ports.leader.confirm()
        match effect:
            case Publish(config_map=config_map, text=text):
                watched.document = await ports.flags.publish(rollout, config_map, text)
                return True
            case StartJob():
                await ports.jobs.start(rollout, effect)
                return True
            case SuspendJob(name=name, suspend=suspend):
                await ports.jobs.suspend(rollout, name, suspend=suspend)
                return True
            case StartCheck():
                await ports.jobs.start_check(rollout, effect)
                return True
            case UndoWorkload() | RestartWorkload():
                await self._change_workload(rollout, effect)
                return True
            case Answer(action=action, accepted=accepted, message=message):
                status = answer(accepted=accepted, message=message, now=ports.clock.now())
                await ports.store.answer(rollout.namespace, action, status)
                watched.inbox.pop(action, None)
                return False
            case Emit(reason=reason, message=message):
                await ports.events.emit(rollout, reason, message)
                return False

    async def _change_workload(self, rollout: SessionRollout, effect: UndoWorkload | RestartWorkload) -> None:
        workload, ports = rollout.spec.workload, self._ports.workloads
        if workload is None:
            return
        match effect:
            case UndoWorkload(revision=revision, earlier=earlier):
                await ports.undo(rollout.namespace, workload, revision=revision, earlier=earlier)
            case RestartWorkload(at=at):
                await ports.restart(rollout.namespace, workload, at)

    # --- beside the decision: nothing waits for these

    def _carry(self, rollout: SessionRollout, watched: Watched, decision: Decision) -> None:
        if rollout.spec.notifications or decision.status.pending_notifications:
            self._ports.courier.carry(rollout, decision.status.pending_notifications, watched.nudge)

    async def _record(self, observed: Observed, now: datetime, decision: Decision, watched: Watched, *, wrote: bool) -> None:
        """Keep what the decision rested on: when it changed something, and now and then for the answers it saw."""
        period = max(SAMPLE_EVERY, SAMPLE_INTERVALS * duration(observed.rollout.spec.check_interval))
        due = watched.last_record is not None and now - watched.last_record >= period and bool(observed.measurements)
        if wrote or due:
            watched.last_record = now
            await self._ports.recorder.keep(observed, now, decision)

    # --- deletion

    async def finalize(self, key: Key, raw: Mapping[str, Any], parse: Callable[[Mapping[str, Any]], Stored]) -> None:
        """Let go of a deleted rollout: flags stay or go off, bounded in time; then a migration that runs comes to its end.

        Doing it again, or from the beginning after a crash, changes nothing.
        """
        self.watched.pop(key, None)
        rollout = parse(raw).rollout
        if rollout is None:
            return
        self._ports.recorder.forget(rollout.uid)
        self._ports.courier.forget(rollout.uid)
        name = config_map_name(rollout.spec.flag_set)
        try:
            await asyncio.wait_for(self._ports.flags.release(rollout, name, _all_off(rollout)), FINALIZE_SECONDS)
        except (RolloutError, TimeoutError) as error:
            log.warning("deletion goes on without: %s", error or "time is over", extra=_names(key))
        await self._outwait(key)

    async def _outwait(self, key: Key) -> None:
        """Wait for the Jobs that run; garbage collection would kill them.

        Taking their owner references away is a right that few clusters would give us. While the API server does not answer,
        the object could not go either.
        """
        said: tuple[str, ...] = ()
        while True:
            try:
                running = await self._ports.jobs.running(key.namespace, key.name)
            except Forbidden as error:
                log.warning("deletion does not wait for migrations: %s", error, extra=_names(key))
                return
            except Unavailable:
                running = said
            else:
                if not running:
                    return
            if running != said:
                log.info("deletion waits for %s", ", ".join(running), extra=_names(key))
            said = running
            await asyncio.sleep(SETTLE_SECONDS)

    # --- watching the loops

    def overdue(self) -> tuple[Key, ...]:
        """Rollouts whose loop missed its time."""
        now = time.monotonic()
        return tuple(key for key, one in self.watched.items() if one.due and now > one.due)

    def expect(self, key: Key, seconds: float) -> None:
        """The next look should come within this time, and is missed after twice as much and some slack."""
        self.of(key).due = time.monotonic() + LATE_LOOKS * (seconds + RESYNC.total_seconds())


def _all_off(rollout: SessionRollout) -> str | None:
    """The document with every feature off, where the deletion policy says so."""
    if rollout.spec.deletion_policy is DeletionPolicy.RETAIN:
        return None
    nobody = {feature.name: NOBODY for feature in rollout.spec.features}
    revision = rollout.status.flags.revision + 1
    metadata: dict[str, str | int] = {"rollout": rollout.name, "rolloutGeneration": rollout.generation, "revision": revision}
    return compile_document(Compiled(rollout.spec.flag_set, rollout.namespace, nobody, {}, metadata)).text


def _names(key: Key) -> dict[str, str]:
    return {"namespace": key.namespace, "rollout": key.name}


def _log_decision(key: Key, decision: Decision) -> None:
    status = decision.status
    log.info(
        "%s: %s",
        status.decision.action,
        status.decision.message,
        extra={
            **_names(key),
            "generation": status.observed_generation,
            "stage": status.current.stage,
            "phase": status.current.phase,
            "step": status.current.step,
            "percent": status.current.percent,
            "details": list(status.decision.details),
            "checks": {f"{one.kind}/{one.name}": f"{one.verdict} {one.value or ''}".strip() for one in status.checks},
        },
    )
