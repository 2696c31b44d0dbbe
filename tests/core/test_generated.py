"""R1, R5: whatever the API server accepts can be decided about, and every status that comes out is valid by the CRD.

Objects are made from the CRD's schema (`api.strategies`), lives from the edges of what the outside may answer. No decision
raises; each status passes a validator that knows the schema alone, and stays within its budget. `make generated OBJECTS=50000`
leads as many lives and prints what they did. A tenth as many begin with a status that somebody else has written.
"""

import json
import os
import time
from collections import Counter
from typing import Any, Final

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from api.consistency import accepted
from api.strategies import ROLLOUT, Schema, paths, statuses, touched
from api.structural import problems
from core.lives import EVENTS, LIVES, MOST_EVENTS, Life, life
from session_rollout.api.enums import DecisionReason
from session_rollout.api.status import RolloutStatus
from session_rollout.core.fallback import stall_after
from session_rollout.core.observed import Decision
from session_rollout.core.status_budget import LIMIT_BYTES

OBJECTS: Final = int(os.environ.get("GENERATED_OBJECTS", "60"))
SEED: Final = int(os.environ.get("GENERATED_SEED", "0"))
MANY: Final = settings(max_examples=OBJECTS, deadline=None, suppress_health_check=list(HealthCheck), database=None)
FEWER: Final = settings(MANY, max_examples=max(OBJECTS // 10, 20))
SPEC: Final[Schema] = ROLLOUT["properties"]["spec"]
STATUS: Final[Schema] = ROLLOUT["properties"]["status"]
LARGEST_STATUS: Final = 3 * LIMIT_BYTES
FORBIDDEN: Final = ".rollback.verification[].approval"  # by a rule, though the schema has it
PATHS: Final = frozenset(paths(SPEC)) - {FORBIDDEN}


def cut_short(status: dict[str, Any]) -> bool:
    """Whether nothing is left to leave out: one event, and messages of a few characters."""
    texts = [check.get("message", "") for check in status.get("checks", ())]
    texts += [migration.get("message", "") for migration in status.get("migrations", ())]
    return len(status["history"]) <= 1 and all(len(text) <= 24 for text in texts)


class Counts:
    """What a run did, printed at its end."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.figures: Counter[str] = Counter()
        self.reasons: set[str] = set()
        self.largest = 0
        self.last: RolloutStatus | None = None
        self.touched: set[str] = set()

    def judge(self, decision: Decision) -> None:
        """One decision: its status is valid and small."""
        self.figures["decisions"] += 1
        if decision.status == self.last:
            return
        self.last, wire = decision.status, decision.status.to_wire()
        assert list(problems(wire, STATUS)) == []
        size = len(json.dumps(wire, ensure_ascii=False, separators=(",", ":")).encode())
        assert size <= LIMIT_BYTES or (size <= LARGEST_STATUS and cut_short(wire))
        self.largest = max(self.largest, size)
        self.figures["statuses"] += 1
        self.reasons.add(wire["decision"]["reason"])

    def __str__(self) -> str:
        took = time.perf_counter() - self.started
        figures = ", ".join(f"{count:,} {name}" for name, count in self.figures.items())
        return (
            f"{figures} in {took:.0f} s; {len(self.reasons)} of {len(DecisionReason)} reasons; the largest status has"
            f" {self.largest:,} bytes"
        )

    @property
    def fields(self) -> str:
        """The fields and values that the objects had."""
        missing = ", ".join(sorted(PATHS - self.touched)[:10]) or "none"
        return f"{len(self.touched)} of {len(PATHS)} fields and values of the spec, without {missing}"


def test_every_decision_about_an_accepted_object_has_a_valid_status() -> None:
    """Lives of up to `MOST_EVENTS` events, two decisions each."""
    counts = Counts()

    @seed(SEED)
    @MANY
    @given(LIVES)
    def lead(drawn: tuple[dict[str, Any], int, list[tuple[str, Any]]]) -> None:
        body, generation, events = drawn
        born = life(body, generation, counts.judge)
        born.step()
        for event in events:
            born.happen(event)
        counts.figures["lives"] += 1
        counts.figures["accepted objects"] += 1 + sum(kind == "another spec" for kind, _ in events)
        counts.touched.update(touched(body["spec"], SPEC))

    lead()
    print(counts, counts.fields, sep="; ")
    assert counts.figures["decisions"] >= OBJECTS * MOST_EVENTS * 5 // 6


class Restored(Life):
    """A life whose first status is not the operator's. An exception is a stall with its class, as in the controller."""

    def decide(self) -> Decision:
        try:
            return super().decide()
        except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            assert self.seen is not None
            return stall_after(self.seen, self.now, type(error).__name__)


def test_an_emergency_is_heard_whatever_the_status_says() -> None:
    """R3: after any status that the API server accepts, features go off, and the next status is valid."""
    counts = Counts()

    @seed(SEED)
    @FEWER
    @given(accepted(), statuses(), st.lists(EVENTS, max_size=4))
    def lead(body: dict[str, Any], status: dict[str, Any], events: list[tuple[str, Any]]) -> None:
        born = life(body, 3, counts.judge, kind=Restored)
        born.status = RolloutStatus.model_validate(status)
        born.step()
        for event in events:
            born.happen(event)
        born.publishing = True
        if born.document is not None and born.document.owner != born.name:
            born.document = None
        born.request("EmergencyDisable")
        born.step()
        names = {feature.name for feature in born.spec.features}
        assert names <= {record.feature for record in born.status.flags.disabled}
        assert born.document is not None
        assert names <= set(born.document.disabled)
        counts.figures["statuses of others"] += 1

    lead()
    print(counts)
    assert counts.reasons - {DecisionReason.INTERNAL_ERROR}
