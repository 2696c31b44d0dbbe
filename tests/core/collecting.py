"""A world that keeps every published value of its rollout, and the specs that the scenarios share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from core import world as tests
from core.world import rollout_data
from session_rollout.api.enums import Condition
from session_rollout.api.status import MetaCondition, RolloutStatus
from session_rollout.core.observed import Answer, Decision

WEB: Final[dict[str, Any]] = {"workload": {"kind": "Deployment", "name": "web"}}
DATABASE: Final[dict[str, Any]] = {"database": {"secretKeyRef": {"name": "db"}}}
EVERY_GATE: Final = [
    {"name": "calm", "metric": "errors", "below": "1%"},
    {"name": "health", "http": {"service": "web", "path": "/health"}},
    {"name": "smoke", "job": {"profile": "smoke-tests"}},
    {"name": "signed", "approval": {}},
]
SIGNED: Final = [{"name": "signed", "approval": {}}]
FIGURES: Final = {"done": 1000, "total": 1000, "following": True}
DELTA: Final = {"name": "delta", "features": ["delta"], "steps": [{"percent": 100, "hold": "60s"}]}


@dataclass
class World(tests.World):
    """Keeps everything that its rollout produced."""

    produced: set[tuple[str, str]] = field(default_factory=set)  # name of the enumeration, value
    decided: list[tuple[datetime, RolloutStatus]] = field(default_factory=list)  # each status that differs from the one before

    def reconcile(self, *, crash_before_effects: bool = False) -> Decision:
        decision = super().reconcile(crash_before_effects=crash_before_effects)
        self.produced |= set(_values(decision))
        if not self.decided or self.decided[-1][1] != decision.status:
            self.decided.append((self.now, decision.status))
        return decision


def _repeats_decision(condition: MetaCondition) -> bool:
    """Whether the reason of a condition is the reason of the decision."""
    stalled = condition.type == Condition.STALLED and condition.status == "True"
    return stalled or condition.type in {Condition.READY, Condition.RECONCILING}


def _values(decision: Decision) -> list[tuple[str, str]]:
    """The values of enumerations in the status and in the answers of a decision."""
    status = decision.status
    single = (status.state, status.outcome, status.current.stage, status.decision.action, status.decision.reason)
    values: list[Any] = [value for value in single if value is not None]
    values += [record.state for record in status.phases]
    values += [record.state for record in status.migrations]
    values += [record.operation for record in status.migrations if record.job]
    values += [value for record in status.checks for value in (record.kind, record.verdict, record.reason) if value is not None]
    values += [entry.event for entry in status.history]
    values += [effect.reason for effect in decision.effects if isinstance(effect, Answer)]
    values += [record.point_of_no_return for record in status.migrations if record.point_of_no_return is not None]
    named = [(type(value).__name__, str(value)) for value in values]
    return [*named, *(("ConditionReason", known.reason) for known in status.conditions if not _repeats_decision(known))]


def migrated(**changes: Any) -> dict[str, Any]:
    """A copy of rows with a snapshot before phase one, a change of the schema after it."""
    phases = rollout_data()["phases"]
    names = {"before": ["rows"], "after": ["cleanup"]}
    migrations = [
        {"name": "rows", "bundle": "a/rows", "change": "Migrate", "backup": True},
        {"name": "cleanup", "bundle": "a/cleanup", "pointOfNoReturn": 2},
    ]
    return {**DATABASE, "migrations": migrations, "phases": [{**phases[0], "migrations": names}, phases[1]], **changes}


def verified(gates: list[dict[str, Any]]) -> Callable[[dict[str, Any]], None]:
    """Phase one with these gates after its last step."""
    return lambda data: data["phases"][0].update(verification=gates)


def with_delta(data: dict[str, Any]) -> None:
    """One more phase."""
    data["features"].append({"name": "delta"})
    data["phases"].append(DELTA)
