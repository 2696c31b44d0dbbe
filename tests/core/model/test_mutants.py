"""The table of faults fits the code: each fault can be put in. Whether the lives notice it is `make mutants`."""

import pytest

from core.model.mutants import MUTANTS, Mutant, faulty


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_fault_can_be_put_in(mutant: Mutant) -> None:
    """Its text is in its file exactly once, and the code with the fault is still Python."""
    compile(faulty(mutant), mutant.path, "exec")
