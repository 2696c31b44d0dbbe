"""Carries out the effects of a decision, after its status was written.

The flags come first, because they are what protects users. One effect that fails does not keep the others from being
carried out: a response, an Event or a Job of the same decision may not be decided again for a long time.
"""

from datetime import timedelta
from typing import Final

from session_rollout.api.action import answer
from session_rollout.api.enums import Stage
from session_rollout.api.rollout import SessionRollout
from session_rollout.controller.state import BlockedEffect, RolloutState
from session_rollout.core.observed import (
    Answer,
    Decision,
    Effect,
    Emit,
    Publish,
    RestartWorkload,
    StartCheck,
    StartJob,
    SuspendJob,
    UndoWorkload,
)
from session_rollout.errors import RolloutError, SpecError
from session_rollout.ports import Ports

RETRY_BLOCKED: Final = timedelta(seconds=30)


class Applier:
    """Carries out effects through the ports."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def apply(self, rollout: SessionRollout, state: RolloutState, decision: Decision) -> bool:
        """Carry out the effects; returns whether something changed that the next decision must observe immediately.

        Raises the first error that may pass by itself, after the other effects were tried.
        """
        before, again = state.blocked, False
        failure: RolloutError | None = None
        state.blocked, effects = self._effects(rollout, state, decision)
        for effect in effects:
            try:
                again |= await self._carry_out(rollout, state, effect)
            except SpecError as error:
                state.blocked = BlockedEffect(effect, rollout.generation, self._ports.clock.now(), str(error))
            except RolloutError as error:
                if isinstance(effect, Publish):
                    # While the flags are not what the status says, nothing slower may begin: a migration that is
                    # undone before the features are off breaks every user who still has them.
                    raise
                failure = failure or error
        if failure is not None:
            raise failure
        # An effect that has just become blocked is a problem of the spec: the next decision shows it in the status.
        return again or (state.blocked is not None and (before is None or before.effect != state.blocked.effect))

    def _effects(
        self, rollout: SessionRollout, state: RolloutState, decision: Decision
    ) -> tuple[BlockedEffect | None, list[Effect]]:
        """The effect that remains blocked without another attempt, and the effects to carry out, flags first."""
        effects: list[Effect] = sorted(decision.effects, key=lambda effect: not isinstance(effect, Publish))
        blocked = self._still_blocked(rollout, state, decision)
        if blocked is not None and self._ports.clock.now() - blocked.time >= RETRY_BLOCKED:
            return None, [*effects, blocked.effect]
        return blocked, effects

    def _still_blocked(self, rollout: SessionRollout, state: RolloutState, decision: Decision) -> BlockedEffect | None:
        blocked = state.blocked
        if blocked is None or blocked.generation != rollout.generation or blocked.effect in decision.effects:
            # Another spec requests something else; an effect that is requested again is tried in any case.
            return None
        if decision.status.current.stage in {Stage.ROLLING_BACK, Stage.ENDED}:
            # A rollback abandons what was requested before. A missing check profile must not delay it.
            return None
        # The problem keeps the rollout from requesting the effect again, so it is tried from time to time:
        # the configuration may have been corrected.
        return blocked

    async def _carry_out(self, rollout: SessionRollout, state: RolloutState, effect: Effect) -> bool:
        """Carry out one effect; returns whether the next decision must observe what it changed."""
        if not isinstance(effect, Emit):
            self._ports.leader.confirm()
        match effect:
            case Publish(config_map=config_map, text=text):
                state.document = await self._ports.flags.publish(rollout, config_map, text)
                return True
            case StartJob() | StartCheck() | SuspendJob():
                await self._change_job(rollout, effect)
                return True
            case UndoWorkload() | RestartWorkload():
                await self._change_workload(rollout, effect)
                return True
            case Answer():
                await self._answer(rollout, state, effect)
                return True
            case Emit(reason=reason, message=message):
                await self._ports.events.emit(rollout, reason, message)
                return False

    async def _change_job(self, rollout: SessionRollout, effect: StartJob | StartCheck | SuspendJob) -> None:
        match effect:
            case StartJob():
                await self._ports.jobs.start(rollout, effect)
            case StartCheck():
                await self._ports.jobs.start_check(rollout, effect)
            case SuspendJob(name=name, suspend=suspend):
                await self._ports.jobs.suspend(rollout, name, suspend=suspend)

    async def _change_workload(self, rollout: SessionRollout, effect: UndoWorkload | RestartWorkload) -> None:
        workload, ports = rollout.spec.workload, self._ports.workloads
        if workload is None:
            # `workload` was removed from the spec after the request: there is nothing left to change.
            return
        match effect:
            case UndoWorkload(revision=revision, earlier=earlier):
                await ports.undo(rollout.namespace, workload, revision=revision, earlier=earlier)
            case RestartWorkload(at=at):
                await ports.restart(rollout.namespace, workload, at)

    async def _answer(self, rollout: SessionRollout, state: RolloutState, effect: Answer) -> None:
        status = answer(accepted=effect.accepted, reason=effect.reason, message=effect.message, now=self._ports.clock.now())
        await self._ports.store.answer(rollout.namespace, effect.action, status, uid=effect.uid)
        state.actions.finish(effect.uid)
