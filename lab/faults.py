"""`make faults`: every write of every scenario, with every fault, by one leader and by two; a table at the end.

    make faults SCENARIO=breach     one scenario
    make faults DO=kill             one fault
    make faults LEADERS=two         by two leaders alone

The ends are those of two undisturbed runs, which must be equal. A run whose fault did not happen has failed. What fails
among others is played once more alone, so that the table says what one fault alone does.
"""

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.table import Table

from lab.fault_proxy import TURN_KINDS, Fault
from lab.fault_scenarios import SCENARIOS, Run, Scenario, look, play
from lab.fault_site import FaultSite
from lab.kube import Object
from lab.lab import Lab, ended_by_signals, until

TOGETHER: Final = 16
KILLS: Final = (("before", "kill"), ("after", "kill"))
LOST: Final = (("after", "500"), ("after", "reset"), ("after", "hang"))
REFUSED: Final = tuple(("before", code) for code in ("403", "409", "422", "429", "500", "503"))
BROKEN: Final = (("before", "reset"), ("before", "hang"), ("before", "html"), ("before", "late"), ("before", "freeze"))
FAULTS: Final = (*KILLS, *LOST, *REFUSED, *BROKEN)
BY_TWO: Final = (*KILLS, ("after", "500"), ("before", "403"), ("before", "late"), ("before", "freeze"))
ORDERS: Final = sorted({"".join(order) for order in itertools.permutations("AAABBB")})
LEADERS: Final = ("one", "two")
FEW: Final = 4
TRIES: Final = 3  # for a fault to happen
WAITING: Final = "A" * 32  # operator B waits until the fault of A has happened


@dataclass
class Reference:
    """What two undisturbed runs of each scenario have in common."""

    ends: dict[str, Object] = field(default_factory=dict)
    writes: dict[str, list[tuple[str, int]]] = field(default_factory=dict)

    def is_surplus(self, scenario: str, kind: str, number: int) -> bool:
        """Whether it is one of the last two of many writes of a kind: on a busy machine there are a few more or fewer."""
        return number > FEW and (kind, number + 2) not in self.writes[scenario]

    def was_absent(self, run: Run) -> bool:
        """Whether the write of its fault was never made, and that is the only problem."""
        only = not run.happened and len(run.problems) == 1
        return only and all(self.is_surplus(run.scenario.name, fault.kind, fault.number) for fault in run.faults)


def undisturbed(site: FaultSite, scenarios: Iterable[Scenario]) -> Reference:
    """Run each scenario twice: its end, and its writes by kind and number. Raises AssertionError when the ends differ."""
    reference, counted = Reference(), dict[str, Counter[str]]()
    pairs = [Run(scenario) for scenario in scenarios for _ in range(2)]
    play(site, pairs, {})
    for run, counts in zip(pairs, _settled(site, pairs), strict=True):
        assert not run.problems, f"undisturbed {run}: {run.problems}"
        name, run.end = run.scenario.name, look(site, run.namespace)
        assert reference.ends.setdefault(name, run.end) == run.end, f"two undisturbed ends of {run} differ"
        counted[name] = counted.get(name, counts) & counts & Counter({**counts, "finalizer": 1})  # Kopf repeats its own
    site.clear()
    for name, counts in counted.items():
        reference.writes[name] = [(kind, number + 1) for kind in sorted(counts) for number in range(counts[kind])]
    return reference


def _settled(site: FaultSite, runs: Sequence[Run]) -> list[Counter[str]]:
    """The numbers of writes once there are no more of them: twelve equal looks in a row."""
    looks: list[list[Counter[str]]] = []

    def quiet() -> bool:
        looks.append([Counter(site.proxy.counts("A", run.namespace)) for run in runs])
        return len(looks) > 12 and looks[-12] == looks[-1]

    until(quiet, 30, "no more writes")
    return looks[-1]


def by_one(reference: Reference, faults: Sequence[tuple[str, str]] = FAULTS) -> Iterator[Run]:
    """Each write with each fault."""
    for name, writes in reference.writes.items():
        for (kind, number), (when, do) in itertools.product(writes, faults):
            yield Run(SCENARIOS[name], (Fault(kind, number, when, do),))


def by_two(reference: Reference) -> Iterator[Run]:
    """All orders of three writes of each leader; and a fault at each write of A, which B has waited for."""
    for name, writes in reference.writes.items():
        yield from (Run(SCENARIOS[name], order=order) for order in ORDERS)
        ours = [write for write in writes if write[0] in TURN_KINDS]
        for (kind, number), (when, do) in itertools.product(ours, BY_TWO):
            yield Run(SCENARIOS[name], (Fault(kind, number, when, do),), WAITING)


def rotated(reference: Reference, faults: Sequence[tuple[str, str]], step: int = 1) -> Iterator[Run]:
    """Each write that is always made, or each so manieth, with one of the faults: a sample that is the same each time."""
    writes = [
        (name, kind, number)
        for name, writes in reference.writes.items()
        for kind, number in writes
        if not reference.is_surplus(name, kind, number)
    ]
    for (name, kind, number), (when, do) in zip(writes[::step], itertools.cycle(faults), strict=False):
        yield Run(SCENARIOS[name], (Fault(kind, number, when, do),))


def play_all(site: FaultSite, runs: Iterable[Run], reference: Reference, together: int = TOGETHER) -> Iterator[Run]:
    """Play them in batches, those with kills last and apart; the namespaces of each batch are cleared afterwards.

    On a busy machine two writes may become one, and a fault of the second does not happen: it is tried again alone.
    """
    for apart, group in itertools.groupby(sorted(runs, key=_ends_the_operator), _ends_the_operator):
        while batch := tuple(itertools.islice(group, together)):
            play(site, batch, reference.ends, apart=apart)
            site.clear()
            yield from (_until_it_happens(site, run, reference) for run in batch)


def _until_it_happens(site: FaultSite, run: Run, reference: Reference) -> Run:
    for _ in range(TRIES):
        if run.happened:
            break
        run = alone(site, run, reference)
    return run


def alone(site: FaultSite, run: Run, reference: Reference) -> Run:
    """The same run once more, with no other beside it."""
    again = Run(run.scenario, run.faults, run.order)
    play(site, [again], reference.ends)
    site.clear()
    return again


def _ends_the_operator(run: Run) -> bool:
    """Or stops it: that happens to all other runs, too."""
    return any(fault.do in {"kill", "freeze"} for fault in run.faults)


# --- the whole matrix


class Report:
    """Counts what happened, by scenario and leaders."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.failed: list[str] = []

    def add(self, leaders: str, run: Run, again: Run | None, *, absent: bool) -> None:
        """One run, and the same run alone where the first one failed; `absent` means that the write of its fault was never made."""
        key = run.scenario.name, leaders
        self.counts[*key, "runs"] += 1
        self.counts[*key, "fired"] += run.happened
        self.counts[*key, "absent"] += absent
        failed = bool(run.problems) and not absent
        self.counts[*key, "failed"] += failed
        if failed:
            once_more = "" if again is None else f"; alone: {again.problems or 'as undisturbed'}"
            self.failed.append(f"{leaders}, {run}: {run.problems}{once_more}")
            self.console.print(f"FAILED {self.failed[-1]}", markup=False, soft_wrap=True)

    def print(self) -> int:
        """The table; the exit code."""
        figures = ("runs", "fired", "absent", "failed")
        table = Table("scenario", "leaders", *figures)
        for name, leaders in dict.fromkeys((name, leaders) for name, leaders, _ in self.counts):
            row = [str(self.counts[name, leaders, what]) for what in figures]
            table.add_row(name, leaders, *row)
        self.console.print(table)
        for line in self.failed:
            self.console.print(line, markup=False, soft_wrap=True)
        return 1 if self.failed else 0


def matrix(site: FaultSite, report: Report, scenarios: list[Scenario], do: str | None, leaders: Sequence[str]) -> None:
    """One leader, then two."""
    site.start("A")
    reference = undisturbed(site, scenarios)
    for name, writes in reference.writes.items():
        report.console.print(f"{name}: {dict(Counter(kind for kind, _ in writes))}")
    if "one" in leaders:
        _play(site, report, "one", by_one(reference), reference, do)
    if "two" in leaders:
        site.start("B")
        _play(site, report, "two", by_two(reference), reference, do)


def _play(site: FaultSite, report: Report, leaders: str, runs: Iterable[Run], reference: Reference, do: str | None) -> None:
    wanted = [run for run in runs if do is None or any(fault.do == do for fault in run.faults) or run.order == do]
    for run in play_all(site, wanted, reference, TOGETHER if leaders == "one" else TOGETHER // 2):
        absent = reference.was_absent(run)
        report.add(leaders, run, alone(site, run, reference) if run.problems and not absent else None, absent=absent)


def main() -> None:
    """Entry point; exit 1 when a run failed."""
    parser = argparse.ArgumentParser(prog="make faults")
    parser.add_argument("--scenario", choices=SCENARIOS, action="append")
    parser.add_argument("--do", help="one fault, such as kill or 409")
    parser.add_argument("--leaders", choices=LEADERS, action="append")
    options = parser.parse_args()
    console = Console(highlight=False)
    report = Report(console)
    with ended_by_signals(), Lab(database=False, metrics=False) as lab:
        lab.install()
        with FaultSite(lab) as site:
            scenarios = [SCENARIOS[name] for name in options.scenario or SCENARIOS]
            matrix(site, report, scenarios, options.do, options.leaders or LEADERS)
    sys.exit(report.print())


if __name__ == "__main__":
    main()
