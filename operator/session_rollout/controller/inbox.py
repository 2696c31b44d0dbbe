"""Delivers actions to their rollouts, from the watch; and the sweep, a list of all actions, rollouts and documents every 30 seconds.

The sweep makes good what watches missed, and whatever got stuck: it starts the loops of rollouts that have none.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from session_rollout.api.action import SessionRolloutAction, answer
from session_rollout.api.enums import ActionReason
from session_rollout.api.parsing import sentence
from session_rollout.api.quantities import duration
from session_rollout.controller.listings import ACTIONS, DOCUMENTS, EVERYWHERE, JOBS, ROLLOUTS, problems_of
from session_rollout.controller.loops import Loops
from session_rollout.controller.memory import Memory
from session_rollout.controller.on_demand import OnDemandChecks
from session_rollout.controller.state import ActionList
from session_rollout.errors import RolloutError, Unavailable
from session_rollout.ports import Clock, Key, Listed, ListedDocuments, RolloutStore
from session_rollout.tasks import Background, cause_of

log = logging.getLogger(__name__)
SWEEP_SECONDS: Final = 30.0
LONGEST_SECONDS: Final = 50.0  # of one sweep
LIST_SHARE: Final = 0.45  # of that for one list: at most two follow each other
TIDY_SECONDS: Final = 1.0  # that a sweep waits for responses and deletions; then they continue in the background
TIDY_AT_ONCE: Final = 8
Parser = Callable[[Mapping[str, Any]], SessionRolloutAction]
Work = Callable[[], Coroutine[Any, Any, None]]
Duty = tuple[Mapping[str, Any], Work]
Result = TypeVar("Result", Listed, ListedDocuments)


class Inbox:
    """Sorts actions into the states of their rollouts and wakes their loops."""

    def __init__(
        self, memory: Memory, on_demand: OnDemandChecks, loops: Loops, store: RolloutStore, clock: Clock, parse: Parser
    ) -> None:
        self._memory, self._on_demand, self._loops = memory, on_demand, loops
        self._store, self._clock, self._parse = store, clock, parse
        self._problems: Mapping[str, str] = {}  # of the last sweep, by namespace
        self._tidying = Background("tidying", TIDY_AT_ONCE)  # by namespace

    async def run(self, swept: Callable[[], None]) -> None:
        """Sweep until cancelled; `swept` is called after each, also after one that failed."""
        while True:
            try:
                async with asyncio.timeout(LONGEST_SECONDS):
                    await self.sweep()
            except TimeoutError:
                log.warning("the sweep was not complete within %.0f s", LONGEST_SECONDS)
            swept()
            await asyncio.sleep(SWEEP_SECONDS)

    def action_changed(self, raw: Mapping[str, Any], *, deleted: bool = False) -> None:
        """An action was created, got its response or was deleted."""
        try:
            action = self._parse(raw)
        except ValidationError:
            # Accepted by a CRD of another version. The next sweep responds to it; nothing is delivered.
            return
        if action.spec.action.is_read_only:
            # It needs no decision: a rollout that is suspended, paused or stalled must not delay a diagnosis.
            if not deleted and not _answered(raw):
                self._on_demand.begin(action)
            return
        self._deliver(action, finished=deleted or _answered(raw))

    def _deliver(self, action: SessionRolloutAction, *, finished: bool) -> None:
        state = self._memory.of(Key(action.namespace, action.spec.rollout))
        new = state.actions.finish(action.uid) if finished else state.actions.add(action)
        if not new:
            # Every sweep lists every action again: only a change may wake a loop.
            return
        if finished:
            state.wake_soon()
        else:
            state.wake.set()  # immediately: it may be an emergency
            self._memory.turns.call()

    # --- the sweep

    async def sweep(self) -> None:
        """List all rollouts, actions and flag documents: make good what the watches have missed, and tidy up."""
        served, self._memory.served = self._memory.served, False
        await asyncio.gather(
            self._sweep_actions(served=served), self._sweep_documents(served=served), self._sweep_jobs(served=served)
        )

    async def _list(self, effect: str, read: Callable[[], Awaitable[Result]], *, served: bool) -> Result | None:
        """A list, bounded in time, whose end is remembered; None when it failed in each namespace."""
        try:
            async with asyncio.timeout(LONGEST_SECONDS * LIST_SHARE):
                listed = await read()
        except (RolloutError, TimeoutError) as error:
            failure = error if isinstance(error, RolloutError) else Unavailable("the list takes too long")
            log.warning("%s failed: %s", effect, failure)
            self._memory.listed(effect, problems_of(failure), self._clock.now(), served=served)
            return None
        self._memory.listed(effect, listed.problems, self._clock.now(), served=served)
        return listed

    async def _sweep_documents(self, *, served: bool) -> None:
        listed = await self._list(DOCUMENTS, self._store.documents, served=served)
        if listed is None:
            self._memory.documents_listed({}, {EVERYWHERE})
        else:
            self._memory.documents_listed(listed.versions, listed.problems)

    async def _sweep_jobs(self, *, served: bool) -> None:
        """A decision reads the Jobs that it needs: this list tells whether the watch can deliver their changes."""
        await self._list(JOBS, self._store.migration_jobs, served=served)

    async def _sweep_actions(self, *, served: bool) -> None:
        """Deliver what the watch missed, start missing loops, reject actions without a rollout, delete expired ones."""
        start = self._clock.now()
        actions = await self._list(ACTIONS, self._store.actions, served=served)
        # Afterwards: the rollout of a new action must be in the list.
        objects = await self._list(ROLLOUTS, self._store.listed, served=served)
        self._log_problems({name: str(error) for each in (objects, actions) if each for name, error in each.problems.items()})
        rollouts = {} if objects is None else _by_key(objects)
        if objects is not None:
            self._loops.listed(rollouts, objects.problems)
        for raw in () if actions is None else actions.items:
            self._action_listed(raw)
        if actions is None or objects is None:
            return
        uids, unlisted = frozenset(raw["metadata"]["uid"] for raw in actions.items), {*actions.problems, *objects.problems}
        self._memory.actions_listed(ActionList(start, uids, frozenset(unlisted)), set(rollouts))
        await self._tidy_all([raw for raw in actions.items if not objects.lacks(raw["metadata"]["namespace"])], set(rollouts))

    async def _tidy_all(self, actions: list[Mapping[str, Any]], rollouts: set[Key]) -> None:
        """Each namespace by itself: requests that hang in one delay neither the others nor the next sweep."""
        namespaces: dict[str, list[Duty]] = {}
        for raw in actions:
            if (work := self._work(raw, rollouts)) is not None:
                namespaces.setdefault(raw["metadata"]["namespace"], []).append((raw, work))
        if tasks := {self._tidying.begin(namespace, partial(self._tidy, duties)) for namespace, duties in namespaces.items()}:
            await asyncio.wait(tasks, timeout=TIDY_SECONDS)

    async def _tidy(self, duties: list[Duty]) -> None:
        for raw, work in duties:
            async with self._tidying.slot:
                try:
                    await work()
                except Exception as error:  # noqa: BLE001 - of this action, or its namespace: the next sweep tries again
                    _log_failure(raw, error)

    def _action_listed(self, raw: Mapping[str, Any]) -> None:
        try:
            self.action_changed(raw)
        except Exception as error:  # noqa: BLE001 - of this action: it must not keep the others from being delivered
            _log_failure(raw, error)

    def _log_problems(self, problems: Mapping[str, str]) -> None:
        """Say once why a namespace cannot be listed: every sweep tries again."""
        for namespace, problem in sorted(problems.items()):
            if self._problems.get(namespace) != problem:
                log.warning("namespace %s is not swept: %s", namespace, problem, extra={"namespace": namespace})
        self._problems = problems

    def _work(self, raw: Mapping[str, Any], rollouts: set[Key]) -> Work | None:
        """What is to be done about an action that was listed."""
        try:
            action = self._parse(raw)
        except ValidationError as error:
            return None if _answered(raw) else partial(self._refuse, raw, ActionReason.INVALID, sentence(error))
        except Exception:  # noqa: BLE001 - logged when it was delivered
            return None
        rollout = Key(action.namespace, action.spec.rollout)
        if _answered(raw):
            delete = partial(self._store.delete_action, action.namespace, action.name, uid=action.uid)
            return delete if _expired(action, self._clock.now()) else None
        known = action.spec.action.is_read_only or rollout in rollouts
        return None if known else partial(self._refuse_unknown, raw, rollout)

    async def _refuse_unknown(self, raw: Mapping[str, Any], rollout: Key) -> None:
        if self._memory.of(rollout).has_loop:
            return  # created since the list
        message = f"`rollout` is {rollout.name}, but there is no SessionRollout with this name in namespace {rollout.namespace}"
        await self._refuse(raw, ActionReason.UNKNOWN_ROLLOUT, message)

    async def _refuse(self, raw: Mapping[str, Any], reason: ActionReason, message: str) -> None:
        metadata, now = raw["metadata"], self._clock.now()
        status = answer(accepted=False, reason=reason, message=message, now=now)
        await self._store.answer(metadata["namespace"], metadata["name"], status, uid=metadata["uid"])


def _by_key(objects: Listed) -> dict[Key, Mapping[str, Any]]:
    return {Key(item["metadata"]["namespace"], item["metadata"]["name"]): item for item in objects.items}


def _answered(raw: Mapping[str, Any]) -> bool:
    return "accepted" in raw.get("status", {})


def _log_failure(raw: Mapping[str, Any], error: Exception) -> None:
    name, place = raw["metadata"]["name"], {"namespace": raw["metadata"]["namespace"]}
    if isinstance(error, RolloutError):
        log.warning("action %s: %s", name, error, extra=place)
    else:
        log.error("action %s failed", name, exc_info=error, extra={**cause_of(error), **place})


def _expired(action: SessionRolloutAction, now: datetime) -> bool:
    return now - action.creation_time > duration(action.spec.ttl)
