"""Actions that only look (Verify, Diagnose, InspectMigration): examined beside the loops and answered in their own status.

They change no rollout, so no decision is needed and nothing waits for them: they work while a rollout is paused, suspended
or ended. An examination that a crash cut short is made again.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from session_rollout.api.action import ActionStatus, Result, SessionRolloutAction, answer
from session_rollout.api.checks import Gate
from session_rollout.api.enums import ActionType, Operation, Verdict
from session_rollout.api.rollout import SessionRollout
from session_rollout.core.inputs import PREFLIGHT, VERIFICATION, job_name
from session_rollout.core.observed import JobState, StartCheck
from session_rollout.errors import Conflict, RolloutError
from session_rollout.ports import Clock, Examiner, JobRunner, Key, RolloutStore, Stored

log = logging.getLogger(__name__)
POLL_SECONDS: Final = 0.5
LONGEST_SECONDS: Final = 900.0


class Refused(Exception):
    """Why an examination is not made; the message is the answer."""


class Examinations:
    """Those under way in this process."""

    def __init__(self, store: RolloutStore, examiner: Examiner, jobs: JobRunner, clock: Clock) -> None:
        self._store, self._examiner, self._jobs, self._clock = store, examiner, jobs, clock
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def begin(self, action: SessionRolloutAction) -> None:
        """Examine, unless that is under way."""
        if action.uid not in self._under_way:
            task = asyncio.create_task(self._run(action))
            self._under_way[action.uid] = task
            task.add_done_callback(lambda _: self._under_way.pop(action.uid, None))

    async def _run(self, action: SessionRolloutAction) -> None:
        try:
            status = await asyncio.wait_for(self._status(action), LONGEST_SECONDS)
        except TimeoutError:
            status = self._answer(accepted=False, message=f"not done within {LONGEST_SECONDS / 60:g} minutes")
        except RolloutError as error:
            status = self._answer(accepted=False, message=str(error))
        try:
            await self._store.answer(action.namespace, action.name, status)
        except RolloutError as error:  # it stays unanswered, and the next sweep begins it again
            log.warning("action %s: %s", action.name, error)

    def _answer(self, *, accepted: bool, message: str, results: tuple[Result, ...] = (), output: str = "") -> ActionStatus:
        return answer(accepted=accepted, message=message, now=self._clock.now(), results=results, output=output)

    async def _status(self, action: SessionRolloutAction) -> ActionStatus:
        stored = await self._read(Key(action.namespace, action.spec.rollout))
        if stored is None or stored.rollout is None:
            why = stored.problem if stored else f"there is no SessionRollout {action.spec.rollout} in {action.namespace}"
            return self._answer(accepted=False, message=why)
        try:
            match action.spec.action:
                case ActionType.DIAGNOSE:
                    return await self._diagnose(action)
                case ActionType.VERIFY:
                    return await self._verify(action, stored.rollout)
                case _:
                    return await self._inspect(action, stored.rollout)
        except Refused as reason:
            return self._answer(accepted=False, message=str(reason))

    async def _read(self, key: Key) -> Stored | None:
        """The rollout's own loop may write while we read: that is no reason to refuse anything."""
        while True:
            try:
                return await self._store.read(key)
            except Conflict:
                await asyncio.sleep(POLL_SECONDS)

    async def _diagnose(self, action: SessionRolloutAction) -> ActionStatus:
        topic = action.spec.topic or ""
        results = await self._examiner.diagnose(topic)
        if results is None:
            allowed = ", ".join(self._examiner.topics()) or "none"
            raise Refused(f"`topic` is {topic}, which the configuration's `diagnostics` do not have; allowed are {allowed}")
        return self._answer(accepted=True, message=_summary(results), results=results)

    # --- checks on demand

    async def _verify(self, action: SessionRolloutAction, rollout: SessionRollout) -> ActionStatus:
        gates = _gates(rollout)
        if action.spec.check is not None:
            gates = {name: one for name, one in gates.items() if name == action.spec.check}
            if not gates:
                allowed = ", ".join(_gates(rollout)) or "none"
                raise Refused(f"`check` names {action.spec.check}, which is no gate of the spec; allowed are {allowed}"[:512])
        results = tuple(await asyncio.gather(*(self._result(action, rollout, gate) for gate in gates.values())))
        return self._answer(accepted=True, message=_summary(results), results=results)

    async def _result(self, action: SessionRolloutAction, rollout: SessionRollout, gate: Gate) -> Result:
        if gate.approval is not None:
            return _approval(rollout, gate)
        if gate.job is not None:
            return await self._job(action, rollout, gate, gate.job.profile)
        seen = await self._examiner.examine(rollout, gate)
        return Result(name=gate.name, verdict=seen.verdict, value=seen.value, bound=seen.bound, message=seen.message[:512])

    async def _job(self, action: SessionRolloutAction, rollout: SessionRollout, gate: Gate, profile: str) -> Result:
        name = job_name(rollout, gate.name, f"{gate.name}/{action.uid}")
        await self._jobs.start_check(rollout, StartCheck(name, profile))
        succeeded, message = await self._wait(rollout, name)
        verdict = Verdict.PASS if succeeded else Verdict.FAIL
        said = f"Job {name} succeeded" if succeeded else f"Job {name} failed: {message}"
        return Result(name=gate.name, verdict=verdict, message=said[:512])

    async def _wait(self, rollout: SessionRollout, name: str) -> tuple[bool, str]:
        while True:
            seen = await self._jobs.observe(rollout, name)
            if seen.state is not JobState.ACTIVE:
                return seen.state is JobState.SUCCEEDED, seen.message
            await asyncio.sleep(POLL_SECONDS)

    # --- a look at a migration

    async def _inspect(self, action: SessionRolloutAction, rollout: SessionRollout) -> ActionStatus:
        migration, operation = action.spec.migration or "", action.spec.operation or Operation.STATUS
        known = [one.name for one in rollout.spec.migrations]
        if migration not in known:
            raise Refused(f"`migration` names {migration}, which is none of the spec; allowed are {', '.join(known) or 'none'}")
        name = job_name(rollout, migration, f"{migration}-{operation}/{action.uid}", kind=operation)
        await self._jobs.inspect(rollout, name, migration, operation)
        succeeded, message = await self._wait(rollout, name)
        output = await self._jobs.words(rollout, name)
        said = f"{operation} of {migration}" if succeeded else f"{operation} of {migration} failed: {message}"
        result = Result(name=migration, verdict=Verdict.PASS if succeeded else Verdict.FAIL, message=said[:512])
        return self._answer(accepted=True, message=said[:512], results=(result,), output=output if succeeded else message)


def _gates(rollout: SessionRollout) -> Mapping[str, Gate]:
    """Every gate of the spec that can be checked: before the first phase, after each, after a rollback; first name wins."""
    spec = rollout.spec
    every = [*spec.preflight, *(gate for phase in spec.phases for gate in phase.verification), *spec.rollback.verification]
    return {gate.name: gate for gate in reversed(every)}


def _approval(rollout: SessionRollout, gate: Gate) -> Result:
    given = next(
        (one for one in rollout.status.checks if one.name == gate.name and one.kind in {PREFLIGHT, VERIFICATION}), None
    )
    if given is not None and given.verdict is Verdict.PASS:
        return Result(name=gate.name, verdict=Verdict.PASS, message=given.message)
    return Result(name=gate.name, verdict=Verdict.NOT_EVALUATED, message="is a person's to give when its stage asks for it")


def _summary(results: tuple[Result, ...]) -> str:
    bad = [one for one in results if one.verdict is not Verdict.PASS]
    text = f"{len(results) - len(bad)} of {len(results)} pass"
    return (text + "".join(f"; {one.name} {one.message}" for one in bad))[:512]
