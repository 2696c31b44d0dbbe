"""People's actions on their way to their rollout: from the watch, and every 30 seconds from a list, in case the watch is deaf."""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from session_rollout.api.action import SessionRolloutAction, answer
from session_rollout.api.quantities import duration
from session_rollout.controller.on_demand import Examinations
from session_rollout.controller.reconciler import Controller
from session_rollout.errors import RolloutError
from session_rollout.ports import Clock, Key, RolloutStore

log = logging.getLogger(__name__)
SWEEP_SECONDS: Final = 30.0
Parser = Callable[[Mapping[str, Any]], SessionRolloutAction]


class Inbox:
    """Sorts actions into the memory of their rollouts and wakes these."""

    def __init__(
        self, controller: Controller, examinations: Examinations, store: RolloutStore, clock: Clock, parse: Parser
    ) -> None:
        self._controller = controller
        self._examinations = examinations
        self._store = store
        self._clock = clock
        self._parse = parse

    def see(self, raw: Mapping[str, Any], *, deleted: bool = False) -> None:
        """An action was created, answered or deleted."""
        action = self._readable(raw)
        if action is None:
            return
        if action.spec.action.is_read_only:
            if not deleted and not _answered(raw):
                self._examinations.begin(action)
            return
        watched = self._controller.of(Key(action.namespace, action.spec.rollout))
        if deleted or _answered(raw):
            watched.inbox.pop(action.name, None)
        elif action.name not in watched.inbox:
            watched.inbox[action.name] = action
            watched.wake.set()

    def _readable(self, raw: Mapping[str, Any]) -> SessionRolloutAction | None:
        try:
            return self._parse(raw)
        except ValidationError as error:
            log.warning("action %s cannot be read: %s", raw["metadata"]["name"], error.errors(include_url=False)[:1])
            return None

    async def sweep(self) -> None:
        """List all actions: see what the watch missed, refuse what has no rollout, delete what is too old."""
        try:
            actions = await self._store.actions()
            rollouts = set(await self._store.keys())  # afterwards, or one made meanwhile would be missed
            for raw in actions:
                self.see(raw)
                if (action := self._readable(raw)) is not None:
                    await self._tidy(action, rollouts, answered=_answered(raw))
        except RolloutError as error:
            log.warning("sweep: %s", error)

    async def _tidy(self, action: SessionRolloutAction, rollouts: set[Key], *, answered: bool) -> None:
        now, key = self._clock.now(), Key(action.namespace, action.spec.rollout)
        if answered and _expired(action, now):
            await self._store.delete_action(action.namespace, action.name)
        elif not answered and key not in rollouts:
            message = f"`rollout` names {action.spec.rollout}, and there is no such SessionRollout in {action.namespace}"
            await self._store.answer(action.namespace, action.name, answer(accepted=False, message=message, now=now))


def _answered(raw: Mapping[str, Any]) -> bool:
    return "accepted" in raw.get("status", {})


def _expired(action: SessionRolloutAction, now: datetime) -> bool:
    return now - action.creation_time > duration(action.spec.ttl)
