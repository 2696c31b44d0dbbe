"""R1: edits of the spec leave records behind; a list of the status that is full never ends a decision, or an emergency.

Each spec here is as large as the API allows, and is replaced by others with other names, which the API server accepts. Not
here: how messages are shortened (test_status).
"""

from typing import Any

import pytest

from core.document_scenarios import recreated
from core.world import World, at, spec
from session_rollout.api.enums import CheckKind, CheckReason, Outcome, Verdict
from session_rollout.api.migration_enums import MigrationState
from session_rollout.api.progress import Progress
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status_records import MigrationRecord
from session_rollout.core.decide import decide
from session_rollout.core.documents import FLAGS_READ
from session_rollout.core.flags import EVERYBODY, NOBODY
from session_rollout.core.observed import JobObservation, JobState, Measurement
from session_rollout.core.status_budget import kept
from session_rollout.records.codec import BASE, pack
from session_rollout.records.record import Record, line_of, records_in

FEATURES, LISTED = 40, 16


def large(prefix: str, *, migrations: int = 0, features: int = FEATURES) -> RolloutSpec:
    """Three phases with everything named by the prefix."""
    names = [f"{prefix}{number}" for number in range(features)]
    jobs = [f"{prefix}{number}" for number in range(migrations)]
    phases: list[dict[str, Any]] = [
        {
            "name": f"{prefix}-{number}",
            "features": names[number * 16 : number * 16 + 16],
            "migrations": {"before": jobs[number * 8 : number * 8 + 8]},
            "steps": [{"percent": 100, "hold": "10s"}],
        }
        for number in range(3)
    ]
    return spec(
        features=[{"name": name} for name in names],
        phases=phases,
        migrations=[{"name": name, "bundle": "shop/schema"} for name in jobs],
        database={"secretKeyRef": {"name": "db"}},
    )


def test_migrations_of_earlier_specs_make_room() -> None:
    """Promoted with sixteen; a further phase brings sixteen others, four times: declared ones are kept, the rollout goes on."""
    world = World(large("a", migrations=LISTED, features=36))
    world.run(600)
    for turn in range(4):
        data = world.spec.to_wire()
        data["migrations"] = [{"name": f"t{turn}-{number}", "bundle": "shop/schema"} for number in range(LISTED)]
        for phase in data["phases"]:
            phase.pop("migrations", None)
        data["features"].append({"name": f"more{turn}"})
        further: dict[str, Any] = {
            "name": f"more-{turn}",
            "features": [f"more{turn}"],
            "steps": [{"percent": 100, "hold": "10s"}],
        }
        further["migrations"] = {"before": [f"t{turn}-{number}" for number in range(8)]}
        data["phases"].append(further)
        world.edit(RolloutSpec.model_validate(data))
        world.run(300)
        assert world.status.outcome is Outcome.PROMOTED
        assert all(world.migration(f"t{turn}-{number}").state is MigrationState.SUCCEEDED for number in range(8))
    assert len(world.status.migrations) == 32


def test_an_emergency_is_never_refused_for_want_of_room() -> None:
    """Forty features, off; forty others, off, and so on: those of the spec are off each time."""
    world = World(large("a"))
    world.settle()
    for prefix in "bcd":
        world.request("EmergencyDisable")
        world.run(10)
        assert {record.feature for record in world.status.flags.disabled} >= {feature.name for feature in world.spec.features}
        world.edit(large(prefix))
        world.run(10)
    assert len(world.status.flags.disabled) == 80


def guards(prefix: str) -> list[dict[str, Any]]:
    """As many as there may be, all with a baseline."""
    comparison = {"metric": "load", "comparedTo": "Baseline", "maxIncrease": "10%"}
    return [{"name": f"{prefix}{number}", **comparison} for number in range(LISTED)]


def test_guards_of_earlier_specs_leave_no_records() -> None:
    """However often the guards get other names."""
    world = World(spec(guards=guards("first")))
    world.until(at("one", 1))
    for prefix in "abcdefgh":
        world.edit(spec(guards=guards(prefix)))
        world.run(10)
        known = {check.name for check in world.status.checks if check.kind is CheckKind.GUARD}
        assert known == {guard.name for guard in world.spec.guards}


@pytest.mark.parametrize(
    ("records", "most", "expected"),
    [("aAbB", 4, "aAbB"), ("aAbB", 3, "AbB"), ("aAbB", 2, "AB"), ("ABCa", 2, "BC"), ("", 2, "")],
)
def test_unneeded_records_go_first_and_the_order_stays(records: str, most: int, expected: str) -> None:
    """Capital letters are needed."""
    assert "".join(kept(tuple(records), str.isupper, most)) == expected


def test_a_message_of_a_provider_is_always_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON may contain half of a surrogate pair; the verdict is kept, and the status can be written."""
    world = World(spec())
    world.until(at("one", 1))
    half = Measurement(world.now, problem=Verdict.PROVIDER_ERROR, reason=CheckReason.QUERY_REJECTED, message="half \udfff")
    monkeypatch.setattr(world, "measure", lambda _: half)
    world.reconcile()
    world.reconcile()
    assert world.check(CheckKind.CRITERION, "errors").message.encode() == b"errors: half ?"
    record = Record.of(world.observed(), world.now, decide(world.observed(), world.now))
    [read] = records_in({BASE: pack(line_of(record))})
    assert (read.measurements["errors"].message, read.agrees()) == ("half ?", True)


def test_retries_are_counted_without_end() -> None:
    """More than a thousand: somebody retries by a timer."""
    record = MigrationRecord(name="a", attempt=1000)
    assert record.updated(attempt=record.attempt + 1).attempt == 1001


def test_a_copy_may_take_longer_than_there_are_dates() -> None:
    """As many rows as can be counted, one in a second: the Job says so, and its status has a date."""
    rows = 2**53
    world = World(large("a", migrations=1))
    world.settle()
    world.run(0)
    [name] = world.jobs or ["none"]
    world.jobs[name] = JobObservation(JobState.ACTIVE, Progress(done=1, total=rows, rate=1, remaining_seconds=rows))
    world.status = world.status.updated(migrations=(world.migration("a0").updated(state=MigrationState.RUNNING),))
    world.reconcile()
    end = world.migration("a0").estimated_end_time
    assert end is not None
    assert end.year == 2125


@pytest.mark.parametrize("again", [False, True])
def test_an_emergency_is_never_refused_for_the_flags_that_somebody_has_added(*, again: bool) -> None:
    """An edit of the document has as many as are read; those of the spec are off, and come first."""
    world = World(spec())
    world.until(at("one", 1))
    assert world.document is not None
    added = {f"aa{number}": NOBODY for number in range(FLAGS_READ)}
    world.tamper(audiences={**added, **world.document.audiences}, editor="kubectl-edit")
    world = recreated(world) if again else world
    world.publishing = False
    name = world.request("EmergencyDisable")
    world.run(10)
    world.publishing = True
    world.run(20)
    assert world.answer(name)[0]
    assert world.document is not None
    assert set(world.document.disabled) >= {feature.name for feature in world.spec.features}


def depending(prefix: str, *prerequisites: str) -> RolloutSpec:
    """As many features as a spec may have: all but two are on from the beginning, and depend on these."""
    names = [f"{prefix}{number}" for number in range(FEATURES - 2)]
    others = [{"name": name, "initial": "On", "dependsOn": list(prerequisites)} for name in names]
    steps = [{"percent": 10, "hold": "60s"}, {"percent": 100, "hold": "60s"}]
    phases = [{"name": "one", "features": ["alpha", "base"], "steps": steps}]
    return spec(features=[{"name": "alpha"}, {"name": "base"}, *others], phases=phases, guards=[], metrics=[])


def test_dependents_of_earlier_specs_make_room() -> None:
    """Those of the present spec stay off when they depend on nothing any more."""
    world = World(depending("a", "alpha"))
    world.until(at("one", 1))
    world.request("EmergencyDisable", features=["alpha"])
    world.run(10)
    for prefix in "bcd":
        world.edit(depending(prefix, "alpha"))
        world.run(20)
    world.edit(depending("d"))
    world.run(20)
    assert world.document is not None
    assert EVERYBODY not in world.document.audiences.values()
