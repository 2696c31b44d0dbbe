"""What the controller remembers about all rollouts together; what it remembers about one is in `state`."""

import asyncio
from collections.abc import Collection, Container, Mapping
from datetime import datetime

from session_rollout.controller.listings import EVERYWHERE, Listings, Problems, Watches
from session_rollout.controller.requests import AT_ONCE, Requests
from session_rollout.controller.state import ActionList, PendingActions, RolloutState
from session_rollout.controller.turns import Turns
from session_rollout.core.observed import ClockJump
from session_rollout.errors import RolloutError
from session_rollout.ports import Key


class Memory:
    """The states of all rollouts, the last list of actions, and the last jump of a clock."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.clock_jump: ClockJump | None = None
        self.listings, self.watches = Listings(), Watches()
        self.served = False  # a loop could read its rollout since the last sweep began
        self._states: dict[Key, RolloutState] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}  # for the requests of a namespace
        self._having: dict[tuple[str, str], set[str]] = {}  # by namespace and feature: the rollouts that have one of this name
        self.actions: ActionList | None = None

    def actions_in(self, namespace: str) -> ActionList | None:
        """The last list of actions; None when it says nothing about this namespace."""
        return None if self.actions is None or namespace in self.actions.unlisted else self.actions

    def of(self, key: Key) -> RolloutState:
        """The state of a rollout; a fresh one when nothing is remembered."""
        return self._states.get(key) or self._begin(key)

    def _begin(self, key: Key, actions: PendingActions | None = None) -> RolloutState:
        slot = self._slots.setdefault(key.namespace, asyncio.Semaphore(AT_ONCE))
        state = RolloutState(actions=actions or PendingActions(), writes=Requests(slot), effects=Requests(slot))
        self._states[key] = state
        return state

    def with_document(self, place: Key) -> tuple[RolloutState, ...]:
        """The states of rollouts whose flag document is this ConfigMap, whatever its labels say."""
        return tuple(state for key, state in self._states.items() if place == Key(key.namespace, state.config_map))

    def forget(self, key: Key) -> None:
        """Drop the state of a rollout that was deleted."""
        self._drop(key)

    def end(self, key: Key) -> None:
        """Drop it, but for actions that wait: they may be about an object that was created under the same name."""
        ended = self._drop(key)
        if ended.actions.waiting:
            self._begin(key, ended.actions)

    def _drop(self, key: Key) -> RolloutState:
        self.has_features(key, frozenset())
        return self._states.pop(key)

    def has_features(self, key: Key, features: frozenset[str]) -> None:
        """Remember which features a rollout has: among a thousand rollouts, each decision asks who else has them."""
        state = self.of(key)
        for feature in features - state.features:
            self._having.setdefault((key.namespace, feature), set()).add(key.name)
        for place in ((key.namespace, feature) for feature in state.features - features):
            self._having[place].remove(key.name)
            if not self._having[place]:
                del self._having[place]
        state.features = features

    def others_with(self, key: Key) -> dict[str, str]:
        """By feature of a rollout: another one of its namespace that has a feature of this name."""
        others = {feature: self._having[key.namespace, feature] - {key.name} for feature in self.of(key).features}
        return {feature: min(names) for feature, names in others.items() if names}

    def listed(self, effect: str, problems: Problems, now: datetime, *, served: bool) -> None:
        """Remember how a list ended, and wake the loops of rollouts whose refusals change by that."""
        self._wake_in(self.listings.note(effect, problems, now, served=served))

    def watched(self, resource: str, namespace: str, error: RolloutError | None, now: datetime) -> None:
        """Remember how the request for a watch ended, as `listed` does."""
        if self.watches.note(resource, namespace, error, now):
            self._wake_in({namespace})

    def _wake_in(self, changed: Collection[str]) -> None:
        for key, state in self._states.items():
            if state.has_loop and (key.namespace in changed or EVERYWHERE in changed):
                state.wake_soon()

    def documents_listed(self, versions: Mapping[Key, int], unlisted: Container[str]) -> None:
        """Have each document read again of which the watch has missed a change: its version is another.

        It is a lower one after the cluster was restored from a snapshot. One that could not be listed is read before it is trusted.
        """
        for key, state in self._states.items():
            if state.document is None:
                continue
            if key.namespace in unlisted or EVERYWHERE in unlisted:
                state.document_doubted = True
            elif versions.get(Key(key.namespace, state.config_map)) == state.document_version:
                state.confirm_document()
            else:
                state.forget_document()
                state.wake.set()

    def overdue(self) -> tuple[Key, ...]:
        """Rollouts that were not reconciled in time."""
        return tuple(key for key, state in self._states.items() if state.overdue)

    def behind(self, now: datetime, *, all_began: bool) -> tuple[Key, ...]:
        """Rollouts that are not evaluated in time. Until all have been since this process leads, the Lease says it of the others."""
        return tuple(
            key
            for key, state in self._states.items()
            if state.has_loop and (all_began or state.last_reconcile is not None or state.restored) and state.is_behind(now)
        )

    def hung(self) -> tuple[Key, ...]:
        """Rollouts whose loop hangs."""
        return tuple(key for key, state in self._states.items() if state.hung)

    def actions_listed(self, listed: ActionList, rollouts: set[Key]) -> None:
        """Keep a list of actions, after each of them was received, and drop what it shows to be no longer needed."""
        self.actions = listed
        for key, state in self._states.items():
            if key.namespace not in listed.unlisted:
                state.actions.finished &= listed.uids
        # Late events of a deleted rollout, such as that of its flag document, left a state behind.
        left = {key for key, state in self._states.items() if not (state.has_loop or state.actions.waiting)}
        for key in left - rollouts:
            if key.namespace not in listed.unlisted:
                self.forget(key)
