"""Carries out the effects of a decision: what protects users, flags, Jobs and the workload, then Events and answers.

One effect that fails does not keep the others from being carried out, with one exception: while the flags are not what the
status says, no Job begins. What was refused is remembered (`state.refusals`) and decided again. Nothing waits long for an answer:
the next decision may be an emergency.
"""

import asyncio
import logging
from dataclasses import replace
from functools import partial
from typing import Final, get_args

from session_rollout.api.action import answer
from session_rollout.api.rollout import SessionRollout
from session_rollout.controller.requests import read_soon
from session_rollout.controller.state import RolloutState
from session_rollout.core.documents import PublishedDocument
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
from session_rollout.errors import Conflict, RolloutError
from session_rollout.ports import Ports
from session_rollout.tasks import Background

log = logging.getLogger(__name__)
LAST: Final = 2
ORDER: Final[dict[type, int]] = {Publish: 0, Emit: LAST}
EFFECTS: Final = frozenset(kind.__name__ for kind in get_args(Effect))
JOBS: Final = 1  # the place in this order of all other effects
ANSWER_SECONDS: Final = 0.3  # that a decision waits for its answers; then they continue in the background
ANSWERS_AT_ONCE: Final = 16
TOUCHED_AT_ONCE: Final = 8  # times that a document is written again at once, while others change only its metadata


class Applier:
    """Carries out effects through the ports."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._answers = Background("answers", ANSWERS_AT_ONCE)

    async def protect(self, rollout: SessionRollout, state: RolloutState, decision: Decision) -> RolloutError | None:
        """Take away from users what the decision takes away; the error that prevented it."""
        self._forget(state, decision)
        return None if decision.urgent is None else await self._attempt(rollout, state, decision.urgent, urgent=True)

    def _forget(self, state: RolloutState, decision: Decision) -> None:
        """What the decision no longer requests is no longer refused, and what is under way is given up."""
        requested = {type(effect).__name__ for effect in (*decision.effects, decision.urgent)}
        for name in EFFECTS - requested:
            state.succeeded(name)
        overtaken = decision.urgent is not None  # by a document that protects users
        state.effects.forget({_what(effect) for effect in decision.effects if not (overtaken and isinstance(effect, Publish))})

    async def apply(self, rollout: SessionRollout, state: RolloutState, decision: Decision) -> bool:
        """Carry out the effects; returns whether something changed that the next decision must observe immediately.

        Raises the first error that may pass by itself, after the other effects were tried.
        """
        again, failure, flags_failed = False, None, False
        for place in range(LAST + 1):
            effects = [effect for effect in decision.effects if not isinstance(effect, Answer) and _place(effect) == place]
            if flags_failed and place == JOBS:
                # A migration that is undone before the features are off breaks every user who still has them.
                effects = [effect for effect in effects if _only_stops(effect)]
            errors = await asyncio.gather(*(self._attempt(rollout, state, effect) for effect in effects))
            again |= None in errors and place != LAST
            failure = failure or next(filter(None, errors), None)
            flags_failed |= place == 0 and failure is not None
        answered, error = await self.answer(rollout, state, decision)
        if failure := failure or error:
            raise failure
        return again or answered

    async def answer(
        self, rollout: SessionRollout, state: RolloutState, decision: Decision
    ) -> tuple[bool, RolloutError | None]:
        """Respond to actions: whether they got their responses, and the first error."""
        return await self._answer_all(rollout, state, [effect for effect in decision.effects if isinstance(effect, Answer)])

    def emit(self, rollout: SessionRollout, decision: Decision) -> None:
        """The Events of a decision."""
        for effect in decision.effects:
            if isinstance(effect, Emit):
                self._ports.events.emit(rollout, effect.reason, effect.message)

    async def answer_protections(self, rollout: SessionRollout, state: RolloutState, decision: Decision) -> None:
        """The status could not be written: answer what the flag document has, and nothing else."""
        document = state.document
        known = {protection.uid for protection in document.protections} if document is not None else set()
        answers = [effect for effect in decision.effects if isinstance(effect, Answer) and effect.uid in known]
        await self._answer_all(rollout, state, [effect for effect in answers if effect.accepted])

    async def _answer_all(
        self, rollout: SessionRollout, state: RolloutState, answers: list[Answer]
    ) -> tuple[bool, RolloutError | None]:
        """Whether actions got their answers, and the first error. What takes long is complete before a later decision."""
        errors: list[RolloutError | None] = []

        async def attempt_all() -> None:
            for effect in answers:
                async with self._answers.slot:
                    done = (
                        effect.uid in state.actions.finished
                    )  # by the answers of an earlier decision, since this one was made
                    errors.append(None if done else await self._attempt(rollout, state, effect))

        if answers:
            task = await self._answers.give(rollout.uid, attempt_all, ANSWER_SECONDS)
            if len(errors) < len(answers):  # these, or those of an earlier decision, continue
                task.add_done_callback(lambda _: state.wake_soon())
        return None in errors, next((error for error in errors if error is not None), None)

    async def _attempt(
        self, rollout: SessionRollout, state: RolloutState, effect: Effect, *, urgent: bool = False
    ) -> RolloutError | None:
        """Carry out one effect; the error that kept it from being carried out."""
        name = type(effect).__name__
        try:
            if not isinstance(effect, Emit):
                self._ports.leader.confirm()
            await self._carry_out_soon(rollout, state, effect, urgent=urgent)
        except Conflict as error:
            if isinstance(effect, Publish):
                state.forget_document()
            return error
        except RolloutError as error:
            state.refused(name, error, self._ports.clock.now())
            return error
        except Exception as error:
            log.exception("effect failed", extra={"namespace": rollout.namespace, "rollout": rollout.name, "effect": name})
            state.refused(name, error, self._ports.clock.now())
            return RolloutError(f"{name}: {type(error).__name__}")
        state.succeeded(name)
        return None

    async def _carry_out_soon(self, rollout: SessionRollout, state: RolloutState, effect: Effect, *, urgent: bool) -> None:
        """Carry it out; what protects nobody and takes longer than a moment goes on in the background, and raises Unavailable."""
        carry_out = partial(self._carry_out, rollout, state, effect, urgent=urgent)
        if urgent or isinstance(effect, Emit | Answer):
            await carry_out()
        else:
            await state.effects.take(_what(effect), carry_out, state.wake_soon)

    async def _carry_out(self, rollout: SessionRollout, state: RolloutState, effect: Effect, *, urgent: bool) -> None:
        match effect:
            case Publish():
                state.published(await self._publish(rollout, state, effect, urgent=urgent), _seen(effect))
            case StartJob() | StartCheck() | SuspendJob():
                await self._change_job(rollout, effect)
            case UndoWorkload() | RestartWorkload():
                await self._change_workload(rollout, effect)
            case Answer():
                await self._answer(rollout, state, effect)
            case Emit(reason=reason, message=message):
                self._ports.events.emit(rollout, reason, message)

    async def _publish(
        self, rollout: SessionRollout, state: RolloutState, effect: Publish, *, urgent: bool
    ) -> PublishedDocument:
        """Publish; again at once when another client has only touched the ConfigMap since it was read.

        Whoever changes an annotation in a loop must not delay what protects users. Raises Conflict when anything else has changed:
        also when the watch has delivered that after the decision, so that what is known is no longer what it saw.
        """
        known, flags = state.document if _seen(effect) >= state.document_since else None, self._ports.flags
        for _ in range(TOUCHED_AT_ONCE):
            try:
                return await flags.publish(rollout, effect, urgent=urgent)
            except Conflict:
                current = await read_soon(partial(flags.read, rollout.namespace, effect.config_map))
                if known is None or current is None or not current.same_as(known):
                    raise
                effect = replace(effect, version=current.version)
                self._ports.leader.confirm()
        return await flags.publish(rollout, effect, urgent=urgent)

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


def _what(effect: Effect) -> str:
    """A name for the request of this effect, and for no other."""
    match effect:
        case Publish(config_map=name, sha256=sha256, version=version):
            return f"publishing {name} {sha256[7:19]} over version {version}"
        case StartJob(name=name) | StartCheck(name=name):
            return f"creating Job {name}"
        case SuspendJob(name=name, suspend=suspend):
            return f"{'suspending' if suspend else 'resuming'} Job {name}"
    return str(effect)


def _seen(effect: Publish) -> int:
    """The version of the document that the decision saw; -1 for none."""
    return -1 if effect.version is None else effect.version


def _only_stops(effect: Effect) -> bool:
    return isinstance(effect, SuspendJob) and effect.suspend


def _place(effect: Effect) -> int:
    return ORDER.get(type(effect), JOBS)
