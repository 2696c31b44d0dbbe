"""The table of faults fits the code: each fault can be put in. Whether the lives notice it is `make mutants`."""

from pathlib import Path

import pytest

from core.model.mutants import MUTANTS, Mutant, copy_with


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_fault_can_be_put_in(mutant: Mutant, tmp_path: Path) -> None:
    """Its text is in its file exactly once, and the code with the fault is still Python."""
    changed = copy_with(mutant, tmp_path) / "session_rollout" / mutant.path
    compile(changed.read_text(), mutant.path, "exec")
