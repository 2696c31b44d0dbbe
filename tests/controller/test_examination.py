"""An examination against the rollout's own loop, which writes while it reads; everything else about them is in tests/integration."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from session_rollout.api.action import ActionSpec, ActionStatus, Result, SessionRolloutAction
from session_rollout.api.enums import ActionType, Operation, Verdict
from session_rollout.api.migration import Migration
from session_rollout.api.progress import Progress
from session_rollout.controller import on_demand
from session_rollout.core.observed import JobObservation, JobState
from session_rollout.errors import Conflict

NOW = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)


class Store:
    """The first answer is older than what the loop wrote meanwhile."""

    def __init__(self) -> None:
        self.reads = 0
        self.answered: list[ActionStatus] = []

    async def read(self, _: Any) -> Any:
        self.reads += 1
        if self.reads == 1:
            raise Conflict("default/shop: the answer is older than our last write")
        return SimpleNamespace(rollout=object(), problem=None)

    async def answer(self, _namespace: str, _name: str, status: ActionStatus) -> None:
        self.answered.append(status)


class Examiner:
    async def diagnose(self, _: str) -> tuple[Result, ...]:
        return (Result(name="error-rate", verdict=Verdict.PASS),)


def test_a_write_of_the_loop_is_no_reason_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_demand, "POLL_SECONDS", 0)
    store, unused = Store(), None
    clock = SimpleNamespace(now=lambda: NOW)
    examinations: Any = on_demand.Examinations(store, Examiner(), unused, clock)  # type: ignore[arg-type]
    spec = ActionSpec(rollout="shop", action=ActionType.DIAGNOSE, topic="errors")
    action = SessionRolloutAction(namespace="default", name="shop-1", uid="uid-1", creation_time=NOW, spec=spec)
    asyncio.run(examinations._run(action))
    assert store.reads == 2
    assert [status.accepted for status in store.answered] == [True]


class Jobs:
    """A Job that has ended, and its termination message."""

    def __init__(self, state: JobState, message: str) -> None:
        self.observation = JobObservation(state, Progress(message=message))

    async def inspect(self, *_: Any) -> None:
        return None

    async def observe(self, *_: Any) -> JobObservation:
        return self.observation

    async def words(self, *_: Any) -> str:
        return '{"steps": []}'


@pytest.mark.parametrize(
    ("state", "message", "verdict", "output"),
    [
        (JobState.SUCCEEDED, "plan failed: a message that only looks like a failure", Verdict.PASS, '{"steps": []}'),
        (JobState.FAILED, "no lock", Verdict.FAIL, "no lock"),
    ],
)
def test_an_inspection_reports_failure_by_its_verdict(state: JobState, message: str, verdict: Verdict, output: str) -> None:
    """Programs read the verdict of the result; the message is for people."""
    store, migration = Store(), Migration(name="tables", bundle="session-persistence/schema")
    clock = SimpleNamespace(now=lambda: NOW)
    examinations: Any = on_demand.Examinations(store, Examiner(), Jobs(state, message), clock)  # type: ignore[arg-type]
    spec = ActionSpec(rollout="shop", action=ActionType.INSPECT_MIGRATION, migration="tables", operation=Operation.PLAN)
    action = SessionRolloutAction(namespace="default", name="shop-1", uid="uid-1", creation_time=NOW, spec=spec)
    rollout = SimpleNamespace(name="shop", uid="uid-0", spec=SimpleNamespace(migrations=(migration,)))
    status = asyncio.run(examinations._inspect(action, rollout))
    assert [result.verdict for result in status.results] == [verdict]
    assert status.output == output
