"""A sample of `make faults`: a third of the writes with one of the faults each, some kills, and some orders of two leaders.

The ends are those of two undisturbed runs; nothing is on again that was off; each planned fault has happened.
"""

from collections.abc import Iterable

import pytest

from lab.fault_proxy import TURN_KINDS, Fault
from lab.fault_scenarios import PROMOTE, SCENARIOS, Run, play
from lab.fault_site import FaultSite
from lab.faults import BROKEN, BY_TWO, KILLS, LOST, ORDERS, REFUSED, WAITING, Reference, play_all, rotated, undisturbed

WITHOUT_KILLS = (*LOST, *REFUSED, *(fault for fault in BROKEN if fault != ("before", "freeze")))


@pytest.fixture(scope="module")
def reference(fault_site: FaultSite) -> Reference:
    """What the undisturbed runs have in common."""
    return undisturbed(fault_site, SCENARIOS.values())


def failed(runs: Iterable[Run]) -> dict[str, list[str]]:
    """What was wrong, by run."""
    return {str(run): run.problems for run in runs if run.problems}


def test_the_writes_that_matter_are_numbered(reference: Reference) -> None:
    """A sample of nothing would pass."""
    kinds = {name: {kind for kind, _ in writes} for name, writes in reference.writes.items()}
    assert kinds["promote"] >= {"status", "document", "event", "record"}
    assert all("document" in each for each in kinds.values())
    assert "answer" in kinds["emergency"] & kinds["enable"]


def test_a_refused_or_lost_write_leads_to_the_undisturbed_end(fault_site: FaultSite, reference: Reference) -> None:
    """Every third write, with the faults in turn."""
    runs = rotated(reference, WITHOUT_KILLS, step=3)
    assert failed(play_all(fault_site, runs, reference, together=30)) == {}


def test_a_kill_leads_to_the_undisturbed_end(fault_site: FaultSite, reference: Reference) -> None:
    """Before or after every eighth write of the short scenarios."""
    short = Reference(reference.ends, {name: writes for name, writes in reference.writes.items() if name != PROMOTE.name})
    assert failed(play_all(fault_site, rotated(short, KILLS, step=8), reference)) == {}


def test_kills_of_many_rollouts_at_once_lead_to_the_undisturbed_ends(fault_site: FaultSite, reference: Reference) -> None:
    """Each is killed at a write of its own, and by the kills of all others."""
    writes = [write for write in reference.writes[PROMOTE.name] if write[0] in TURN_KINDS]
    runs = list(rotated(Reference(reference.ends, {PROMOTE.name: writes}), KILLS, step=3))
    play(fault_site, runs, reference.ends, seconds=240)
    assert failed(runs) == {}
    fault_site.clear()


def test_two_leaders_lead_to_the_undisturbed_end(fault_site: FaultSite, reference: Reference) -> None:
    """Every fourth order of their writes, and a fault at the document of each scenario while the other leader waits."""
    fault_site.start("B")
    faults = [fault for fault in BY_TWO if fault[1] not in {"kill", "freeze"}]
    orders = [Run(scenario, order=order) for scenario in SCENARIOS.values() for order in ORDERS[::10]]
    fatal = [
        Run(scenario, (Fault("document", 1, *fault),), WAITING)
        for scenario, fault in zip(SCENARIOS.values(), faults * 2, strict=False)
    ]
    assert failed(play_all(fault_site, (*orders, *fatal), reference, together=8)) == {}
