"""Read-only actions (Verify, Diagnose, InspectMigration): run outside the loops; the response is in their own status.

They do not change the rollout, so they need no decision and nothing waits for them: they work while a rollout is paused, suspended
or ended. One that a crash interrupts is started again by the next sweep; its Jobs have the same names.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from session_rollout.api.action import ActionStatus, Result, SessionRolloutAction, answer
from session_rollout.api.checks import Gate
from session_rollout.api.enums import ActionReason, ActionType, CheckKind, CheckReason, Verdict
from session_rollout.api.migration_enums import Operation
from session_rollout.api.rollout import SessionRollout
from session_rollout.core.naming import job_name
from session_rollout.core.observed import JobState, StartCheck
from session_rollout.errors import ActionRejected, Conflict, RolloutError
from session_rollout.ports import Key, Ports
from session_rollout.tasks import cause_of, place_of, watched

log = logging.getLogger(__name__)
POLL_SECONDS: Final = 0.5
LONGEST_SECONDS: Final = 900.0


class OnDemandChecks:
    """The read-only actions that are running in this process."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._running: dict[str, asyncio.Task[None]] = {}

    def begin(self, action: SessionRolloutAction) -> None:
        """Start the action, unless it is running."""
        if action.uid not in self._running:
            task = watched(self._run(action), f"action {action.namespace}/{action.name}", may_end=True)
            self._running[action.uid] = task
            task.add_done_callback(lambda _: self._running.pop(action.uid, None))

    def close(self) -> None:
        """End those that run: the next leader starts them again."""
        for task in self._running.values():
            task.cancel()

    async def _run(self, action: SessionRolloutAction) -> None:
        try:
            status = await asyncio.wait_for(self._status(action), LONGEST_SECONDS)
        except TimeoutError:
            status = self._refusal(ActionReason.TIMED_OUT, f"timed out after {LONGEST_SECONDS / 60:g} minutes")
        except ActionRejected as refusal:
            status = self._refusal(refusal.reason, str(refusal))
        except RolloutError as error:
            status = self._refusal(ActionReason.FAILED, str(error))
        except Exception as error:
            # Nobody foresaw it. It concerns this action, which every later process would start again.
            log.exception("action %s failed", action.name, extra=cause_of(error))
            status = self._refusal(ActionReason.FAILED, f"{type(error).__name__} in {place_of(error)}")
        try:
            await self._ports.store.answer(action.namespace, action.name, status, uid=action.uid)
        except RolloutError as error:
            # The action remains without a response, so the next sweep starts it again.
            log.warning("action %s: %s", action.name, error)
        except Exception as error:
            log.exception("action %s failed", action.name, extra=cause_of(error))

    def _refusal(self, reason: ActionReason, message: str) -> ActionStatus:
        return answer(accepted=False, reason=reason, message=message, now=self._ports.clock.now())

    def _answer(
        self,
        message: str,
        *,
        reason: ActionReason = ActionReason.ACCEPTED,
        results: tuple[Result, ...] = (),
        output: str = "",
    ) -> ActionStatus:
        now = self._ports.clock.now()
        return answer(accepted=True, reason=reason, message=message, now=now, results=results, output=output)

    async def _status(self, action: SessionRolloutAction) -> ActionStatus:
        rollout = await self._rollout(Key(action.namespace, action.spec.rollout))
        match action.spec.action:
            case ActionType.DIAGNOSE:
                return await self._diagnose(action)
            case ActionType.VERIFY:
                return await self._verify(action, rollout)
            case _:
                return await self._inspect(action, rollout)

    async def _rollout(self, key: Key) -> SessionRollout:
        while True:
            try:
                stored = await self._ports.store.read(key)
                break
            except Conflict:
                # The loop of the rollout wrote while this read was on its way. That is not a reason to reject an action.
                await asyncio.sleep(POLL_SECONDS)
        if stored is None:
            message = f"`rollout` is {key.name}, but there is no SessionRollout with this name in namespace {key.namespace}"
            raise ActionRejected(ActionReason.UNKNOWN_ROLLOUT, message)
        if stored.problem:
            raise ActionRejected(ActionReason.INVALID, f"the rollout cannot be parsed: {stored.problem}")
        return stored.rollout

    async def _diagnose(self, action: SessionRolloutAction) -> ActionStatus:
        topic = action.spec.topic or ""
        results = await self._ports.gates.diagnose(topic)
        if results is None:
            allowed = ", ".join(self._ports.gates.topics()) or "none"
            message = f"`topic` is {topic}, which is not in `diagnostics` of the operator's configuration; allowed: {allowed}"
            raise ActionRejected(ActionReason.UNKNOWN_TOPIC, message)
        return self._answer(_summary(results), results=results)

    # --- Verify

    async def _verify(self, action: SessionRolloutAction, rollout: SessionRollout) -> ActionStatus:
        gates = _gates(rollout)
        if action.spec.check is not None:
            if action.spec.check not in gates:
                message = (
                    f"`check` is {action.spec.check}, which is not a gate of the spec; allowed: {', '.join(gates) or 'none'}"
                )
                raise ActionRejected(ActionReason.UNKNOWN_CHECK, message)
            gates = {action.spec.check: gates[action.spec.check]}
        results = tuple(await asyncio.gather(*(self._result(action, rollout, gate) for gate in gates.values())))
        return self._answer(_summary(results), results=results)

    async def _result(self, action: SessionRolloutAction, rollout: SessionRollout, gate: Gate) -> Result:
        if gate.approval is not None:
            return _approval(rollout, gate)
        if gate.job is not None:
            return await self._job(action, rollout, gate, gate.job.profile)
        result = await self._ports.gates.check(rollout, gate)
        return Result(
            name=gate.name,
            verdict=result.verdict,
            reason=result.reason,
            value=result.value,
            bound=result.bound,
            message=result.message,
        )

    async def _job(self, action: SessionRolloutAction, rollout: SessionRollout, gate: Gate, profile: str) -> Result:
        name = job_name(rollout, gate.name, f"{gate.name}/{action.uid}")
        await self._ports.jobs.start_check(rollout, StartCheck(name, profile))
        succeeded, message = await self._job_end(rollout, name)
        if not succeeded:
            text = f"Job {name} failed: {message}"
            return Result(name=gate.name, verdict=Verdict.FAIL, reason=CheckReason.JOB_FAILED, message=text)
        return Result(name=gate.name, verdict=Verdict.PASS, reason=CheckReason.JOB_SUCCEEDED, message=f"Job {name} succeeded")

    async def _job_end(self, rollout: SessionRollout, name: str) -> tuple[bool, str]:
        """Whether a Job succeeded, and its message, once it has ended."""
        while (job := await self._ports.jobs.observe(rollout, name)).state is JobState.ACTIVE:
            await asyncio.sleep(POLL_SECONDS)
        return job.state is JobState.SUCCEEDED, job.message

    # --- InspectMigration

    async def _inspect(self, action: SessionRolloutAction, rollout: SessionRollout) -> ActionStatus:
        migration, operation = action.spec.migration or "", action.spec.operation or Operation.STATUS
        known = [known.name for known in rollout.spec.migrations]
        if migration not in known:
            message = f"`migration` is {migration}, which is not in the spec; allowed: {', '.join(known) or 'none'}"
            raise ActionRejected(ActionReason.UNKNOWN_MIGRATION, message)
        name = job_name(rollout, migration, f"{migration}-{operation}/{action.uid}", kind=operation)
        await self._ports.jobs.inspect(rollout, name, migration, operation)
        succeeded, message = await self._job_end(rollout, name)
        verdict, why = (Verdict.PASS, CheckReason.JOB_SUCCEEDED) if succeeded else (Verdict.FAIL, CheckReason.JOB_FAILED)
        text = f"{operation} of {migration}" if succeeded else f"{operation} of {migration} failed: {message}"
        result = Result(name=migration, verdict=verdict, reason=why, message=text)
        if not succeeded:
            return self._answer(text, reason=ActionReason.FAILED, results=(result,), output=message)
        return self._answer(text, results=(result,), output=await self._ports.jobs.termination_message(rollout, name))


def _gates(rollout: SessionRollout) -> Mapping[str, Gate]:
    """Every gate of the spec by its name; the first of a name wins."""
    return {gate.name: gate for gate in reversed(rollout.spec.all_gates())}


def _approval(rollout: SessionRollout, gate: Gate) -> Result:
    kinds = {CheckKind.PREFLIGHT, CheckKind.VERIFICATION}
    for record in rollout.status.checks:
        if record.name == gate.name and record.kind in kinds and record.verdict is Verdict.PASS:
            return Result(name=gate.name, verdict=Verdict.PASS, reason=CheckReason.APPROVED, message=record.message)
    return Result(
        name=gate.name,
        verdict=Verdict.NOT_EVALUATED,
        reason=CheckReason.AWAITING_APPROVAL,
        message="requires manual approval when its stage is reached",
    )


def _summary(results: tuple[Result, ...]) -> str:
    failing = [result for result in results if result.verdict is not Verdict.PASS]
    text = f"{len(results) - len(failing)} of {len(results)} checks pass"
    return text + "".join(f"; {result.name}: {result.message}" for result in failing)
