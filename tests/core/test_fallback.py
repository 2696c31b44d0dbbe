"""An operator that cannot decide: it gives users nothing, and takes away what is taken away.

Covered: an exception that nobody foresaw, an object that cannot be parsed. Not here: what can be read of such an object
(tests/api/test_parsing), and the controller around it (tests/controller/test_unparsed, test_protection).
"""

import pytest

from core.document_scenarios import FailingWorld
from core.world import at, spec


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
