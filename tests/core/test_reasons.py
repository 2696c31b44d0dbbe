"""Everything that is published is produced: each value of the enumerations has a scenario in which it happens.

Values that the core does not make are listed with the module that makes them, and that module must name them. Not here: in
which situation which value is right (the files named after their topics).
"""

import re
from enum import StrEnum

import pytest

from core.scenarios import played
from lab.lab import ROOT
from session_rollout.api.enums import (
    ActionReason,
    CheckKind,
    CheckReason,
    ConditionReason,
    DecisionAction,
    DecisionReason,
    EventReason,
    Outcome,
    PhaseState,
    Stage,
    State,
    Verdict,
)
from session_rollout.api.migration_enums import MigrationState, NoReturn, Operation

SOURCE = ROOT / "operator" / "session_rollout"


def name(value: StrEnum) -> str:
    """`CheckReason.NO_EVENTS`: how code refers to the value."""
    return f"{type(value).__name__}.{value.name}"


PROMETHEUS, PROVIDER, RESULTS = "adapters/prometheus.py", "adapters/provider_client.py", "adapters/provider_results.py"
GATES, ON_DEMAND = "adapters/gate_checks.py", "controller/on_demand.py"
MADE_ELSEWHERE: list[tuple[StrEnum, str]] = [  # not a mapping: values of two enumerations can be equal
    (DecisionReason.NOT_DECIDED, "api/status.py"),  # a new object
    (CheckReason.NOT_A_NUMBER, PROMETHEUS),
    (CheckReason.INFINITE_VALUE, PROMETHEUS),
    (CheckReason.MULTIPLE_SERIES, PROMETHEUS),
    (CheckReason.NOT_A_SAMPLE, PROMETHEUS),
    (CheckReason.PARTIAL_RESULT, "errors.py"),
    (CheckReason.UNKNOWN_PROVIDER, RESULTS),
    (CheckReason.STALE_SAMPLE, PROMETHEUS),
    (CheckReason.NAME_NOT_RESOLVED, PROVIDER),
    (CheckReason.CERTIFICATE_REJECTED, PROVIDER),
    (CheckReason.TLS_FAILED, PROVIDER),
    (CheckReason.CONNECTION_FAILED, PROVIDER),
    (CheckReason.TIMED_OUT, PROVIDER),
    (CheckReason.QUERY_REJECTED, PROVIDER),
    (CheckReason.RESPONSE_TOO_LARGE, PROVIDER),
    (CheckReason.INVALID_RESPONSE, PROVIDER),
    (CheckReason.CREDENTIALS_UNREADABLE, PROVIDER),
    (CheckReason.INTERNAL_ERROR, RESULTS),
    (CheckReason.CHECK_SUCCEEDED, GATES),
    (CheckReason.CHECK_FAILED, GATES),
    (CheckReason.NOT_CONFIGURED, GATES),
    (EventReason.FLAGS_NOT_RELEASED, "controller/deletion.py"),
    (ActionReason.UNKNOWN_TOPIC, ON_DEMAND),
    (ActionReason.UNKNOWN_ROLLOUT, "controller/inbox.py"),
    (ActionReason.TIMED_OUT, ON_DEMAND),
    (ActionReason.FAILED, ON_DEMAND),
    (Operation.PLAN, "api/action.py"),  # of InspectMigration: these run beside the decisions
    (Operation.STATUS, "api/action.py"),
    (Operation.VERIFY, "api/action.py"),
]
NAMES_ELSEWHERE = {name(value) for value, _ in MADE_ELSEWHERE}
PUBLISHED: tuple[type[StrEnum], ...] = (
    DecisionAction,
    DecisionReason,
    CheckKind,
    CheckReason,
    ActionReason,
    ConditionReason,
    EventReason,
    MigrationState,
    NoReturn,
    Operation,
    Outcome,
    PhaseState,
    Stage,
    State,
    Verdict,
)
VALUES = [value for published in PUBLISHED for value in published if name(value) not in NAMES_ELSEWHERE]


@pytest.fixture(scope="module")
def produced() -> dict[tuple[str, str], str]:
    """What the scenarios produced, with the first scenario that did."""
    first: dict[tuple[str, str], str] = {}
    for name, world in played().items():
        for value in world.produced:
            first.setdefault(value, name)
    return first


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}.{value}")
def test_value_is_produced_by_the_core(value: StrEnum, produced: dict[tuple[str, str], str]) -> None:
    """In at least one scenario."""
    assert (type(value).__name__, str(value)) in produced


@pytest.mark.parametrize(("value", "module"), MADE_ELSEWHERE, ids=str)
def test_value_is_produced_by_the_module_that_is_named(value: StrEnum, module: str) -> None:
    """The list above must not excuse a value that nobody makes."""
    assert name(value) in (SOURCE / module).read_text()


def test_core_makes_no_value_that_is_listed_as_made_elsewhere() -> None:
    """A value that the core makes needs a scenario."""
    core = "\n".join(path.read_text() for path in (SOURCE / "core").glob("*.py"))
    assert NAMES_ELSEWHERE & set(re.findall(r"\b[A-Z]\w+\.[A-Z_]+\b", core)) == set()
