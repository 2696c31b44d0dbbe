"""An operator that cannot decide: it gives users nothing, and takes away what is taken away.

Covered: an exception that nobody foresaw, an object that cannot be parsed. Not here: what can be read of such an object
(tests/api/test_parsing), and the controller around it (tests/controller/test_unparsed, test_protection).
"""

from datetime import timedelta
from decimal import Decimal

import pytest

from core.document_scenarios import FailingWorld
from core.test_deadline import limited
from core.world import at, spec
from session_rollout.api.enums import Outcome, Verdict
from session_rollout.core import fallback
from session_rollout.core.flags import NOBODY


@pytest.mark.parametrize("problem", ["", "`spec.novel` is 'x'"], ids=["exception", "cannot be parsed"])
def test_operator_that_cannot_decide_gives_users_nothing(problem: str) -> None:
    """A kill by hand stays, drift is not corrected, and what the status has taken away is taken away in the document."""
    world = FailingWorld(spec(), failing=not problem, problem=problem)
    world.failing, world.problem = False, ""
    world.until(at("one", 1))
    world.failing, world.problem = not problem, problem
    world.tamper(taken_away=frozenset({"alpha"}), editor="kubectl-edit")
    before = world.document
    world.run(60)
    assert world.document is not None
    assert before is not None
    assert "alpha" in {*world.document.taken_away, *world.document.disabled}
    world.failing, world.problem = False, ""
    world.run(10)
    assert [record.feature for record in world.status.flags.disabled] == ["alpha"]


@pytest.mark.parametrize("problem", ["", "`spec.novel` is 'x'"], ids=["exception", "cannot be parsed"])
@pytest.mark.parametrize("restarted", [False, True])
def test_time_in_which_nothing_can_be_decided_counts_for_no_hold(problem: str, *, restarted: bool) -> None:
    """Another process does not see it in its own downtime, and its first decision must not complete the step."""
    world = FailingWorld(spec())
    world.until(at("one", 1))
    world.run(20)
    until = world.status.current.hold_until
    world.failing, world.problem = not problem, problem
    world.run(600)
    assert until is not None
    world.failing, world.problem = False, ""
    world.last_reconcile = world.now if restarted else world.last_reconcile
    world.settle()
    assert world.where[:2] == ("one", 1)
    assert world.status.current.hold_until == until + timedelta(seconds=600)
    assert world.status.current.hold_paused_time is None


@pytest.mark.parametrize("problem", ["", "`spec.novel` is 'x'"], ids=["exception", "cannot be parsed"])
def test_time_in_which_nothing_can_be_decided_counts_for_no_deadline(problem: str) -> None:
    """A step that had waited for half of its deadline is not rolled back for an error of the operator."""
    world = FailingWorld(limited())
    world.until(at("one", 1))
    world.values["errors"] = Verdict.NO_DATA
    world.run(360)
    world.failing, world.problem = not problem, problem
    world.run(6000)
    world.failing, world.problem = False, ""
    world.run(60)
    assert world.status.outcome is None
    world.run(600)
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_operator_that_cannot_decide_forgets_no_kill_by_hand() -> None:
    """An emergency for another feature writes the document, and with it goes what shows that it was edited."""
    world = FailingWorld(spec())
    world.until(at("one", 1))
    world.failing = True
    world.tamper(taken_away=frozenset({"alpha"}), editor="kubectl-edit")
    world.request("EmergencyDisable", features=["gamma"])
    world.run(60)
    world.failing = False
    world.run(10)
    assert {record.feature for record in world.status.flags.disabled} == {"alpha", "gamma"}


def test_operator_that_cannot_decide_completes_a_rollback() -> None:
    """The status had it, and the document was refused."""
    world = FailingWorld(spec())
    world.until(at("one", 1))
    world.publishing = False
    world.request("Abort")
    world.run(10)
    assert world.document is not None
    assert world.document.gives_something
    world.publishing, world.failing = True, True
    world.run(10)
    assert not world.document.gives_something


def test_operator_that_cannot_decide_keeps_no_document_that_is_gone() -> None:
    """An emergency is published although the status still waits for `Adopt` or `Reset`."""
    world = FailingWorld(spec())
    world.until(at("one", 1))
    fresh = FailingWorld(spec(), uid="another", document=world.document, now=world.now)
    fresh.failing = False
    fresh.settle()
    assert fresh.status.flags.adoption_required
    fresh.failing, fresh.document = True, None
    name = fresh.request("EmergencyDisable", reason="drill")
    fresh.run(10)
    assert fresh.answer(name)[0] is True
    assert fresh.document is not None
    assert set(fresh.document.disabled) == {"alpha", "beta", "gamma"}


@pytest.mark.parametrize("problem", ["", "`spec.novel` is 'x'"], ids=["exception", "cannot be parsed"])
@pytest.mark.parametrize("what", ["breach", "emergency"])
def test_what_was_decided_to_protect_is_carried_out_by_an_operator_that_cannot_decide(problem: str, what: str) -> None:
    """The document could not be written until the object got a field of a newer CRD; users keep everything else."""
    world = FailingWorld(spec(guards=[{"name": "errors", "metric": "errors", "below": "5%"}]))
    world.until(at("two", 1))
    before = world.document
    world.publishing = False
    if what == "breach":
        world.values["errors"] = Decimal("0.5")
    else:
        world.request("EmergencyDisable", features=["gamma"])
    world.settle()
    world.failing, world.problem = not problem, problem
    world.publishing = True
    world.run(10)
    assert before is not None
    assert world.document is not None
    assert world.document.audiences["gamma"] == NOBODY
    assert world.document.audiences["alpha"] == before.audiences["alpha"] != NOBODY


def rolled_back_in_the_document() -> FailingWorld:
    """The process has ended between the write of the document and that of the status; then nothing can be decided."""
    world = FailingWorld(spec(guards=[{"name": "errors", "metric": "errors", "below": "5%"}]))
    world.until(at("one", 2, 1))
    world.values["errors"] = Decimal("0.5")
    world.now += timedelta(seconds=10)
    urgent = world.decide().urgent
    assert urgent is not None
    world.apply(urgent)
    world.values["errors"] = Decimal("0.001")
    world.last_reconcile, world.failing = None, True
    world.run(10)
    return world


def test_operator_that_cannot_decide_forgets_no_rollback_of_the_document() -> None:
    """An emergency writes the document, of which only the annotation knows the rollback."""
    world = rolled_back_in_the_document()
    world.request("EmergencyDisable", features=["gamma"])
    world.run(10)
    world.failing = False
    world.run(60)
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert world.document is not None
    assert not world.document.gives_something


def test_operator_that_cannot_learn_carries_out_emergencies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning may be what fails."""

    def fail(*_: object) -> None:
        raise KeyError

    monkeypatch.setattr(fallback, "learn_protections", fail)
    world = rolled_back_in_the_document()
    name = world.request("EmergencyDisable", features=["gamma"])
    world.run(10)
    assert world.answer(name)[0]
    assert world.document is not None
    assert "gamma" in world.document.disabled
