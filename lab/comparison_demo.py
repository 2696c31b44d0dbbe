"""`make demo FAULT=... SIZE=...`: users with a feature are compared with users without it, by the real operator process.

    make demo FAULT=newCheckout SIZE=0.05   5 of 100 sessions with the feature fail in addition: rolled back
    make demo AA=1                          a feature without any effect: promoted, without a false alarm
    make demo UNWIRED=1                     an application that does not read the flag: nothing is promoted

SIZE is 0.01, 0.05, 0.15 or 0.5. 5 s are one block here, as a minute is at 10,000 sessions an hour. The application counts whom the
published flag document says, and whether a session fails is by chance (SEED=...). Exit 0 only when every check held.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from rich.console import Console

from lab import guard_cost, reasons_only
from lab.comparison import BLOCK_SECONDS, OF_EVERYBODY, check, compared, evidence, of_everybody, value
from lab.counting import OFF, ON, Application, Traffic, counting
from lab.kube import ApiError, Object
from lab.lab import Lab, ended_by_signals, percent_of
from lab.processes import StartFailed
from lab.proofs import Proof
from lab.recorder import Published, Recorder, Status
from lab.timeline import Timeline

NAME: Final = "comparison"
ENDED: Final = ("Promoted", "RolledBack", "Aborted")
PER_HOUR: Final = 10_000
BLOCKS_PER_HOUR: Final = 60
SESSIONS: Final = PER_HOUR / BLOCKS_PER_HOUR / BLOCK_SECONDS  # of all users, in a second: 167 in a block
BASE: Final = 0.0005  # the share of sessions that fails without the feature
PERCENT: Final = 5
FALSE_ROLLBACK: Final = 0.01  # the default of `control.falseRollback`, which the only guard that compares has alone
# Of examples/session-persistence.yaml: below 1 % of all sessions of five minutes, for two minutes. A minute is a block.
BOUND, WINDOW_BLOCKS, LASTING_BLOCKS = 0.01, 5, 2
WINDOW_SECONDS: Final = round(WINDOW_BLOCKS * BLOCK_SECONDS)
ON_ALL: Final = {"below": f"{100 * BOUND:g}%", "for": f"{LASTING_BLOCKS * BLOCK_SECONDS:g}s", "dryRun": True}
# The limits are about the median and the mean of many runs, with a delay of one block. Of single runs, with the three blocks that the
# lab needs at most, fewer than 1 % are above twice the limits: tests/test_comparison_demo.py simulates them.
FACTOR: Final = 2
DELAY_BLOCKS: Final = 3  # from a publish to the first block, and from the last block to the rollback
# Blocks, and failed sessions with the feature, for each harm.
LIMITS: Final = {0.01: (300, 15), 0.05: (45, 10), 0.15: (15, 10), 0.5: (5, 15)}
A_A_SESSIONS: Final = 10 * SESSIONS
A_A_STEPS: Final = ({"percent": 20, "hold": "5s"}, {"percent": 50, "hold": "5s"}, {"percent": 100, "hold": "5s"})
A_A_SECONDS: Final = 600
ALARMS: Final = {"GuardBreached", "RollbackStarted", "Paused"}
UNWIRED_STEPS: Final = ({"percent": PERCENT, "hold": "1s"}, {"percent": 100, "hold": "1s"})
UNWIRED_SECONDS: Final = 120  # until the rollout says so


@dataclass(frozen=True)
class Run:
    """What is rolled out: its feature, its steps, and what the application does."""

    feature: str
    traffic: Traffic
    steps: tuple[Object, ...]
    reads: bool = True  # the flag document

    @property
    def rollout(self) -> Object:
        """The object that is applied."""
        return compared(NAME, list(self.steps), ON_ALL, feature=self.feature, seconds=WINDOW_SECONDS, deadline="1d")


class ComparisonDemo(Timeline):
    """One rollout on one lab."""

    def __init__(self, lab: Lab, console: Console, run: Run) -> None:
        super().__init__(console)
        self.lab, self.run, self.proof = lab, run, Proof()
        self.application = Application(lab, NAME, run.traffic, feature=run.feature, reads=run.reads)

    def follow(self, story: Callable[[], None]) -> None:
        """Apply the rollout, and tell the story."""
        self.lab.install()
        self.lab.namespace("default")
        self.lab.start_operator()
        with counting(self.lab, self.application):
            sessions = f'sum(sessions_total{{job="{NAME}"}})'
            self.lab.until(lambda: value(self.lab, sessions), 30, "the application being scraped")
            self.recorder = Recorder(self.lab, "default", NAME, self.print_history)
            self.started = time.time()
            self.lab.apply(self.run.rollout)
            try:
                story()
            finally:
                self.recorder.stop()

    # --- a harmful feature

    def harmful(self) -> None:
        """Rolled back by the comparison, within the limits; and what other guards would have cost."""
        most_blocks, _ = LIMITS[self.run.traffic.harm]
        self._wait(self._ended, FACTOR * most_blocks * BLOCK_SECONDS + 30)
        self._wait(lambda: self.application.share == 0, 10)
        history = self.recorder.last.get("history", [])
        by = ", ".join(str(entry.get("check")) for entry in history if entry["event"] == "GuardBreached")
        outcome = self.recorder.last.get("outcome")
        self.proof.check(outcome == "RolledBack" and by == "failures", f"outcome {outcome}, by the guards: {by or 'none'}")
        self.proof.check(bool(self._first("Guard", "HarmShown")), f"the guard's reason is {self._reason()}")
        self._prove_limit("blocks of 5 s from the publish to the rollback", self._blocks(), 0)
        self._prove_limit("failed sessions with the feature, by the application", self.application.failed_with_feature, 1)
        self._tell_costs()

    def _prove_limit(self, what: str, number: float, index: int) -> None:
        limit = LIMITS[self.run.traffic.harm][index]
        single = f"{FACTOR * limit} in a single run, which fewer than 1% exceed"
        text = f"{number:.3g} {what} (limit {limit} in the average run, {single})"
        self.proof.check(0 < number <= FACTOR * limit, text)

    def _blocks(self) -> float:
        """From the document that gives the feature to the one that takes it away."""
        given = next((each.seen for each in self.recorder.documents if self._percent(each) == PERCENT), self._taken())
        return (self._taken() - given) / BLOCK_SECONDS

    def _taken(self) -> float:
        """When the last document was published, if it takes the feature away; now if it does not."""
        last = self.recorder.documents[-1] if self.recorder.documents else None
        return last.seen if last is not None and self._percent(last) == 0 else time.time()

    def _percent(self, published: Published) -> float:
        return percent_of(published.document, self.run.feature)

    def _tell_costs(self) -> None:
        """The same harm with guards on all users, next to what the application has counted."""
        traffic, hour = self.run.traffic, 1 / BLOCKS_PER_HOUR
        case = guard_cost.Case(PER_HOUR, PERCENT / 100, traffic.failing, traffic.harm)
        usual = guard_cost.bounded(case, BOUND, WINDOW_BLOCKS * hour, LASTING_BLOCKS * hour)
        best = guard_cost.best(case, FALSE_ROLLBACK, traffic.seed or 0)
        self._say("")
        self._row("harmed: failed sessions of users with the feature", "blocks", "harmed")
        self._row("comparison, counted in this run", _number(self._blocks()), _number(self.application.failed_with_feature))
        for what, guard in (
            (f"guard on all users, below {100 * BOUND:g}%", usual),
            ("best guard on all users, if the rate without harm is known", best),
        ):
            hours = guard.median_hours(case.failing_with, traffic.seed or 0)
            least = f">{_number(guard_cost.LONGEST_HOURS * case.harmed)}"
            self._row(
                what, *((_number(hours * BLOCKS_PER_HOUR), _number(hours * case.harmed)) if hours < inf else ("never", least))
            )
        self._say_inputs(case, usual, best)

    def _say_inputs(self, case: guard_cost.Case, usual: guard_cost.GuardOnAll, best: guard_cost.GuardOnAll) -> None:
        self._say(
            f"The guards on all users are computed from {PER_HOUR:,} sessions an hour, of which {PERCENT}% have the feature,"
            f" {case.failing_without:.3g} failures an hour without harm, and {case.failing_with:.4g} with it. They act at"
            f" {usual.failures} failures in {usual.window * BLOCKS_PER_HOUR:g} blocks for {LASTING_BLOCKS} blocks, and at"
            f" {best.failures} in {best.window * BLOCKS_PER_HOUR:g}. Both figures are medians of {guard_cost.RUNS} simulated runs"
            f" without delays; never: not within {guard_cost.LONGEST_HOURS / 24:g} d."
        )
        self._say(
            f"The best guard acts without harm in at most {100 * FALSE_ROLLBACK:g}% of {guard_cost.LONGEST_HOURS / 24:g} d, as the"
            " comparison does, but only as long as nothing else changes the rate of failures."
        )
        share = f"max_over_time(({of_everybody(NAME, WINDOW_SECONDS)})[1h:1s])"
        taken = self._taken()
        peak = value(self.lab, share, taken)
        record = check([each.status for each in self.recorder.statuses if each.seen <= taken][-1], "Guard", OF_EVERYBODY)
        self._say(
            f"Until the rollback of this run, at most {100 * peak:.2g}% of all sessions failed in {WINDOW_BLOCKS} blocks. A dry run of"
            f" the guard below {100 * BOUND:g}% in the same rollout had the verdict {record.get('verdict')}: {record.get('message')}."
        )

    def _row(self, what: str, *columns: str) -> None:
        self._say("".join((f"{what:60}", *(f"{column:>9}" for column in columns))))

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    # --- a feature without an effect

    def harmless(self) -> None:
        """Promoted in the time that `power` says, and nobody is alarmed."""
        predicted = self._power()
        steps = ", ".join(f"{row['percent']:g}% after {row['passesAfterSeconds']:.0f} s" for row in predicted)
        soon = bool(predicted) and all(row["passesAfterSeconds"] <= A_A_SECONDS for row in predicted)
        self.proof.check(soon, f"power: the criterion passes at {steps}, in four of five cases (limit {A_A_SECONDS} s)")
        self._wait(self._ended, FACTOR * A_A_SECONDS)
        outcome = self.recorder.last.get("outcome")
        self.proof.check(outcome == "Promoted", f"outcome {outcome} after {self._elapsed():.0f} s")
        passed = [each.seen for each in self.recorder.statuses if "StepPassed" in _events(each.status)]
        after = passed[0] - self.started if passed else inf
        text = f"the first step passed after {after:.0f} s (limit {A_A_SECONDS} s, and {FACTOR:g} times that in a single run)"
        self.proof.check(after <= FACTOR * A_A_SECONDS, text)
        alarms = sorted(_events(self.recorder.last) & ALARMS)
        self.proof.check(not alarms, f"false alarms: {', '.join(alarms) or 'none'}")
        for name, variant in (("with", ON), ("without", OFF)):
            failed, total = self.application.counts_of(variant)
            self._say(f"{failed:,} of {total:,} sessions {name} the feature failed")

    def _power(self) -> list[Object]:
        """What the plugin says about the criterion of this rollout."""
        path = self.lab.directory / "comparison.json"
        path.write_text(json.dumps(self.run.rollout))
        options = ["--traffic", f"{3600 * self.run.traffic.sessions:.0f}/h", "--rate", f"{100 * BASE:g}%", "-o", "json"]
        plugin = reasons_only.python_module("session_rollout.cli.app", "power", str(path), *options)
        rows = json.loads(subprocess.run(plugin, check=True, capture_output=True, text=True).stdout)
        return [row for row in rows if row["kind"] == "Criterion"]

    # --- an application that does not read the flag

    def unwired(self) -> None:
        """Nothing is promoted, and the status says why."""
        kinds = ("Guard", "Criterion")
        self._wait(lambda: self._ended() or (self._stalled() and all(map(self._is_not_applied, kinds))), UNWIRED_SECONDS)
        decision, last = self.recorder.last.get("decision", {}), self.recorder.last
        stalled = self._stalled() and decision.get("reason") == "NotApplied"
        text = f"Stalled after {self._elapsed():.0f} s (limit {UNWIRED_SECONDS} s): {decision.get('reason')}, {decision.get('message')}"
        self.proof.check(stalled, text)
        for kind in kinds:
            record = check(last, kind)
            self.proof.check(record.get("reason") == "NotApplied", f"{kind}: {record.get('reason')}, {record.get('message')}")
        most = max(map(self._percent, self.recorder.documents), default=0.0)
        self.proof.check(most == PERCENT, f"at most {most:g}% of users should have had the feature, which is the first step")
        _, total = self.application.counts_of(OFF)
        self.proof.check(total > 0, f"{total:,} sessions, none of them with the feature")
        self.proof.check(not evidence(last), "no block has counted as evidence")

    def _is_not_applied(self, kind: str) -> bool:
        return bool(check(self.recorder.last, kind).get("reason") == "NotApplied")

    def _stalled(self) -> bool:
        conditions = self.recorder.last.get("conditions", [])
        return any(each["type"] == "Stalled" and each["status"] == "True" for each in conditions)

    # --- what is read

    def _wait(self, condition: Callable[[], Any], seconds: float) -> None:
        """Wait as long as this; what has not come is told by the checks."""
        with contextlib.suppress(TimeoutError):
            self.lab.within(condition, seconds)

    def _ended(self) -> bool:
        return self.recorder.last.get("outcome") in ENDED

    def _first(self, kind: str, reason: str) -> Status | None:
        """The first status in which the comparison has this reason."""
        return next((each for each in self.recorder.statuses if check(each.status, kind).get("reason") == reason), None)

    def _reason(self) -> str:
        shown = self._first("Guard", "HarmShown")
        record = check(shown.status if shown else self.recorder.last, "Guard")
        return f"{record.get('reason')}: {record.get('message')}"


def _events(status: Object) -> set[str]:
    return {entry["event"] for entry in status.get("history", [])}


def _number(number: float) -> str:
    return f"{number:,.0f}"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--fault", default="newCheckout", help="feature that is rolled out")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--size", type=float, choices=sorted(LIMITS), help="what it adds to the share of sessions that fails")
    kind.add_argument("--aa", action="store_true", help="it has no effect")
    kind.add_argument("--unwired", action="store_true", help="the application does not read the flag")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="which sessions fail")
    options = parser.parse_args()
    console = Console(highlight=False)
    with ended_by_signals():
        try:
            proof = _demonstrate(options, console)
        except (StartFailed, TimeoutError, ApiError) as error:
            sys.exit(f"demo: {error}")
    sys.exit(proof.report(console, f"seed {options.seed}: each session fails by chance"))


def _demonstrate(options: argparse.Namespace, console: Console) -> Proof:
    run = _run(options)
    with Lab(database=False) as lab:
        demo = ComparisonDemo(lab, console, run)
        demo.follow(demo.harmful if options.size else demo.harmless if options.aa else demo.unwired)
        return demo.proof


def _run(options: argparse.Namespace) -> Run:
    if options.aa:
        return Run(options.fault, Traffic(A_A_SESSIONS, BASE, seed=options.seed), A_A_STEPS)
    if options.unwired:
        return Run(options.fault, Traffic(A_A_SESSIONS, BASE, seed=options.seed), UNWIRED_STEPS, reads=False)
    return Run(options.fault, Traffic(SESSIONS, BASE, options.size, options.seed), ({"percent": PERCENT, "hold": "12h"},))


if __name__ == "__main__":
    main()
