"""The sweep of actions against what people do between its two lists; everything else about actions is in tests/integration."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from session_rollout.api.action import ActionStatus
from session_rollout.api.parsing import action_of
from session_rollout.controller.inbox import Inbox
from session_rollout.ports import Key

NOW = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)


class Store:
    """A store in which a rollout and an action about it appear while the first list is on its way."""

    def __init__(self) -> None:
        self.there = False
        self.answers: list[ActionStatus] = []

    async def keys(self) -> tuple[Key, ...]:
        seen, self.there = self.there, True
        return (Key("default", "shop"),) if seen else ()

    async def actions(self) -> tuple[Mapping[str, Any], ...]:
        seen, self.there = self.there, True
        meta = {"name": "shop-1", "namespace": "default", "uid": "uid-1", "creationTimestamp": "2026-01-05T10:00:00Z"}
        return ({"metadata": meta, "spec": {"rollout": "shop", "action": "Pause"}},) if seen else ()

    async def answer(self, _namespace: str, _name: str, answer: ActionStatus) -> None:
        self.answers.append(answer)


def test_action_made_with_its_rollout_during_a_sweep_is_not_refused() -> None:
    """`kubectl apply` of both at once: the sweep after this one sees both."""
    store: Any = Store()
    watched = SimpleNamespace(inbox={}, wake=asyncio.Event())
    controller: Any = SimpleNamespace(of=lambda _: watched)
    clock: Any = SimpleNamespace(now=lambda: NOW)
    unused: Any = None
    inbox = Inbox(controller, unused, store, clock, action_of)
    asyncio.run(inbox.sweep())
    asyncio.run(inbox.sweep())
    assert store.answers == []
    assert list(watched.inbox) == ["shop-1"]
