"""What people and their tools get from the core: gates of every kind, checks after a rollback, the workload, notices, records.

Each story runs on a clock that the test moves. Not here: who answers an HTTP check or takes a notice (tests/integration).
"""

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.test_stories import at, ended
from core.world import START, World, spec
from session_rollout.api.enums import ActionType, MigrationState, Outcome, Stage, Verdict
from session_rollout.core.observed import Revisions
from session_rollout.records.codec import BASE, pack
from session_rollout.records.record import Record, line_of, records_in

HEALTH = {"name": "health", "http": {"service": "web", "path": "/health"}}
STORE = {"name": "store", "builtin": "FlagStore"}
SMOKE = {"name": "smoke", "job": {"profile": "smoke-tests"}}
TOLD = ["PhaseStarted", "GuardBreached", "RolledBack", "Promoted"]


def check(world: World, kind: str, name: str) -> Any:
    """The record of a check."""
    return next(one for one in world.status.checks if (one.kind, one.name) == (kind, name))


def rolled_back(world: World) -> None:
    """Breach the guard and let it end."""
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.06")
    world.until(ended)


@pytest.mark.parametrize("gate", [HEALTH, STORE], ids=["http", "builtin"])
def test_preflight_waits_until_an_asked_check_passes(gate: dict[str, Any]) -> None:
    """No answer and a bad answer both keep it; status says which, and the failure is told once."""
    world = World(spec(preflight=[gate]))
    world.run(60)
    assert world.status.current.stage is Stage.PREFLIGHT
    assert f"{gate['name']}: is being asked" in world.status.decision.details
    world.gates[gate["name"]] = Verdict.FAIL
    world.run(60)
    assert world.status.decision.message == f"preflight: {gate['name']}: Fail it is"
    assert world.events.count("CheckFailed") == 1
    world.gates[gate["name"]] = Verdict.PASS
    world.run(10)
    assert world.status.current.phase == "one"


def test_check_that_cannot_be_asked_is_no_pass() -> None:
    """A provider error is shown and waits."""
    world = World(spec(preflight=[STORE]), gates={"store": Verdict.PROVIDER_ERROR})
    world.run(120)
    assert check(world, "Preflight", "store").verdict is Verdict.PROVIDER_ERROR
    assert world.status.current.stage is Stage.PREFLIGHT


def test_job_of_a_check_runs_once_and_again_by_retry() -> None:
    """A failed one stays failed until a person says Retry; the second attempt is another Job."""
    world = World(spec(preflight=[SMOKE]), jobs_succeed=False)
    world.run(120)
    assert list(world.jobs) == [check(world, "Preflight", "smoke").job]
    assert "relation exists" in world.status.decision.message
    assert "Retry" in world.status.decision.next_actions[0]
    world.jobs_succeed = True
    world.request("Retry", generation=1)
    world.run(20)
    assert len(world.jobs) == 2
    assert world.status.current.phase == "one"


def test_job_of_a_check_survives_a_crash_between_status_and_effect() -> None:
    """The intent is in status; the next look creates the Job under the same name."""
    world = World(spec(preflight=[SMOKE]))
    world.reconcile(crash_before_effects=True)
    name = check(world, "Preflight", "smoke").job
    assert (name is not None, world.jobs) == (True, {})
    world.settle()
    assert list(world.jobs) == [name]


def test_verification_of_a_phase_takes_every_kind() -> None:
    """All must pass before the next phase begins."""
    given = spec()
    phases = [given.phases[0].model_dump(by_alias=True, exclude_none=True) | {"verification": [HEALTH, STORE, SMOKE]}]
    world = World(spec(phases=[*phases, given.phases[1].model_dump(by_alias=True, exclude_none=True)]))
    world.gates |= {"health": Verdict.PASS, "store": Verdict.FAIL}
    world.until(lambda one: one.status.current.stage is Stage.VERIFICATION)
    world.run(60)
    assert world.status.current.stage is Stage.VERIFICATION
    world.gates["store"] = Verdict.PASS
    world.until(at("two", 1), 120)
    assert len(world.jobs) == 1


def test_checks_after_a_rollback_do_not_keep_it_and_are_told() -> None:
    """The outcome is there first; a metric is judged only on data from after; all passing is one event."""
    calm = {"name": "calm", "metric": "errors", "below": "5%"}
    world = World(spec(rollback={"verification": [HEALTH, calm]}), ranges={"errors": timedelta(seconds=60)})
    world.gates["health"] = Verdict.FAIL
    rolled_back(world)
    assert check(world, "AfterRollback", "calm").verdict is Verdict.NOT_EVALUATED
    world.values["errors"] = Decimal("0.001")
    world.run(90)
    assert check(world, "AfterRollback", "calm").verdict is Verdict.PASS
    assert check(world, "AfterRollback", "health").verdict is Verdict.FAIL
    assert "RollbackVerified" not in world.events
    world.gates["health"] = Verdict.PASS
    world.run(30)
    assert world.events.count("RollbackVerified") == 1
    writes = world.writes
    world.run(300)
    assert world.writes == writes


# --- the workload

WEB: dict[str, Any] = {"workload": {"kind": "Deployment", "name": "web"}}


def test_rollback_brings_the_workload_back_once() -> None:
    """Flags first, then the earlier revision; a crash at any point repeats nothing."""
    world = World(spec(**WEB, rollback={"workload": "Undo"}), revisions=Revisions(7, 6))
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.06")
    while not ended(world):
        world.reconcile(crash_before_effects=True)
        world.reconcile()
        world.now += timedelta(seconds=5)
    assert world.undone == [(7, 6)]
    assert world.status.workload is not None
    assert world.status.workload.message == "web is back at what revision 6 was, now revision 8"
    world.run(60)
    assert world.undone == [(7, 6)]


@pytest.mark.parametrize(
    ("revisions", "words"),
    [
        (Revisions(1, None), "there is no earlier one"),
        (Revisions(3, 2, blocked_reason="the operator may not patch deployments"), "may not patch deployments"),
    ],
    ids=["first revision", "no right"],
)
def test_workload_that_cannot_go_back_does_not_keep_the_rollback(revisions: Revisions, words: str) -> None:
    """It says why and ends."""
    world = World(spec(**WEB, rollback={"workload": "Undo"}), revisions=revisions)
    rolled_back(world)
    assert (world.status.outcome, world.undone) == (Outcome.ROLLED_BACK, [])
    assert world.status.workload is not None
    assert words in world.status.workload.message


def test_people_restart_and_undo_the_workload() -> None:
    """Each once, whatever crashes; refused where the spec names none."""
    world = World(spec(**WEB), revisions=Revisions(7, 6))
    world.until(at("one", 1))
    restart = world.request("RestartWorkload")
    world.reconcile(crash_before_effects=True)
    world.run(20)
    assert (len(world.restarts), world.answers[restart].accepted) == (1, True)
    undo = world.request("UndoWorkload")
    world.run(20)
    assert (world.undone, world.answers[undo].accepted) == ([(7, 6)], True)
    bare = World(spec())
    bare.until(at("one", 1))
    refused = bare.request("RestartWorkload")
    bare.run(10)
    assert bare.answers[refused] == (False, "`workload` is not in the spec: it names the Deployment")
    assert bare.status.workload is None, "a wish that was refused is none"


# --- notices


def test_notices_wait_in_status_until_a_sink_took_them() -> None:
    """Each event once, in order, under an id of its own; a restart makes no second one."""
    world = World(spec(notifications=[{"sink": "chat", "events": TOLD}, {"sink": "mail", "events": ["RolledBack"]}]))
    rolled_back(world)
    notices = [(one.sink, one.event) for one in world.status.pending_notifications]
    assert notices == [("chat", "PhaseStarted"), ("chat", "GuardBreached"), ("chat", "RolledBack"), ("mail", "RolledBack")]
    assert len({one.id for one in world.status.pending_notifications}) == 4
    before = world.status.pending_notifications
    world.run(60)
    assert world.status.pending_notifications == before
    world.delivered = {before[0].id, before[1].id, before[2].id}
    world.run(10)
    assert [one.sink for one in world.status.pending_notifications] == ["mail"]


def test_sink_that_fails_is_named_and_slows_nothing() -> None:
    """The same looks, the same decisions; only the condition differs."""
    told: dict[str, Any] = {"notifications": [{"sink": "chat", "events": TOLD}]}
    quiet, loud = World(spec()), World(spec(**told), sink_errors={"chat": "answered 500"})
    for world in (quiet, loud):
        world.until(lambda one: one.status.outcome is Outcome.PROMOTED)
    assert quiet.now == loud.now
    assert loud.condition("Notified") == "False"
    assert next(one.message for one in loud.status.conditions if one.type == "Notified") == "chat: answered 500"


def test_outbox_is_bounded_and_counts_what_it_loses() -> None:
    """A sink that is gone for weeks costs its oldest notices, not the status."""
    world = World(spec(notifications=[{"sink": "chat", "events": ["Paused", "Resumed"]}]))
    world.until(at("one", 1))
    for _ in range(20):
        for wish in ("Pause", "Resume"):
            world.request(wish)
            world.run(10)
    assert (len(world.status.pending_notifications), world.status.notifications_lost) == (32, 8)


# --- actions that only look, and migrations by hand


@pytest.mark.parametrize("action", [one for one in ActionType if one.is_read_only])
def test_looking_actions_are_no_decisions(action: ActionType) -> None:
    """They are answered elsewhere; one that comes here is refused and changes nothing."""
    world = World(spec())
    world.until(at("one", 1))
    fields = {"migration": "tables"} if action is ActionType.INSPECT_MIGRATION else {}
    name, where = world.request(action, **fields), world.where
    world.settle()
    assert (world.answers[name].accepted, world.where) == (False, where)


def test_migration_is_undone_by_hand_only_after_a_rollback() -> None:
    """While users may have what needs it, it stays."""
    phases = [one.model_dump(by_alias=True, exclude_none=True) for one in spec().phases]
    phases[0]["migrations"] = {"before": ["tables"]}
    data: dict[str, Any] = {
        "database": {"secretKeyRef": {"name": "db"}},
        "migrations": [{"name": "tables", "bundle": "shop/schema"}],
    }
    world = World(spec(phases=phases, **data))
    world.until(at("one", 1))
    early = world.request("MigrateDown", migration="tables")
    world.run(10)
    assert world.answers[early] == (False, "a migration is undone by hand only when its phase was rolled back: `Abort` first")
    world.request("Abort")
    world.run(20)
    down = world.request("MigrateDown", migration="tables")
    world.run(20)
    assert world.answers[down].accepted
    assert world.status.migrations[0].state is MigrationState.REVERTED
    assert sorted(name.rsplit("-", 2)[1] for name in world.jobs) == ["down", "up"]


@pytest.mark.parametrize(
    ("action", "operation"), [("BackupData", "backup"), ("RepairData", "repair")], ids=["backup", "repair"]
)
def test_session_data_by_hand(action: str, operation: str) -> None:
    """A Job each time it is asked for; a failure leaves the migration what it was."""
    phases = [one.model_dump(by_alias=True, exclude_none=True) for one in spec().phases]
    phases[0]["migrations"] = {"before": ["rows"]}
    data: dict[str, Any] = {
        "database": {"secretKeyRef": {"name": "db"}},
        "migrations": [{"name": "rows", "bundle": "shop/rows"}],
    }
    world = World(spec(phases=phases, **data), progress={"done": 10, "total": 10})
    world.until(at("one", 1))
    for _ in range(2):
        name = world.request(action, migration="rows")
        world.run(20)
        assert world.answers[name].accepted
    assert sum(f"-{operation}-" in name for name in world.jobs) == 2
    world.jobs_succeed = False
    world.request(action, migration="rows")
    world.run(20)
    assert world.status.migrations[0].state is MigrationState.SUCCEEDED
    assert world.status.migrations[0].message == f"{operation} failed: relation exists"


# --- records


def test_every_decision_can_be_made_again_from_its_record() -> None:
    """A whole run with everything in it: the record, as a line, packed and unpacked, gives the same action and reason."""
    world = World(spec(**WEB, preflight=[HEALTH], notifications=[{"sink": "chat", "events": TOLD}]), revisions=Revisions(7, 6))
    world.gates["health"] = Verdict.PASS
    lines: list[bytes] = []
    asked = False
    while not ended(world) and world.now < START + timedelta(hours=1):
        observed, before = world.observed(), world.writes
        decision = world.reconcile()
        if world.writes > before:
            lines.append(line_of(Record.of(observed, world.now, decision)))
        world.now += timedelta(seconds=5)
        if world.where[:2] == ("two", 1) and not asked:
            asked = True
            world.request("RestartWorkload")
            world.request("Pause")
            world.request("Resume")
    entries = {BASE: pack(lines[0]), **{f"entry-{n:05}": pack(line, lines[0]) for n, line in enumerate(lines[1:])}}
    records = records_in(entries)
    assert len(records) == len(lines) > 12
    assert all(record.agrees() for record in records)
    assert records[-1].decide_again().status == world.status
    changed = records[-1].model_copy(update={"details": ("something else",)})
    assert not changed.agrees()


def test_records_are_small_and_unreadable_ones_say_so() -> None:
    """Entries after the first cost a fraction of it; rubbish is a ValueError."""
    world = World(spec())
    first = line_of(Record.of(world.observed(), world.now, world.reconcile()))
    world.until(at("one", 1))
    later = line_of(Record.of(world.observed(), world.now, world.reconcile()))
    assert len(pack(later, first)) < 0.2 * len(later)
    assert json.loads(first)["observed"]["rollout"]["name"] == "shop"
    with pytest.raises(ValueError, match="cannot be read"):
        records_in({BASE: b"rubbish"})
