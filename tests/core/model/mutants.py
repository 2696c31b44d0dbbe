"""Faults that are put into a copy of the operator, one at a time: the random lives have to notice each of them.

    make mutants [LIVES=n] [ONLY='"no hold" "no criteria"']

A fault is a real mistake, as a replacement of a text that must be in its file exactly once: when the code has moved on, the table
says so and is corrected. A fault is caught by a life that ends well without it and breaks a promise with it. Where none of the lives
that are drawn does, the stories do.
"""

import argparse
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core.model.fault_stories import STORIES

ROOT: Final = Path(__file__).parents[3]
PACKAGE: Final = "session_rollout"
SEED: Final = 20


@dataclass(frozen=True)
class Mutant:
    """One fault: what it is, and where."""

    name: str
    path: str
    before: str
    after: str = ""


MUTANTS: Final = (
    Mutant("no hold", "core/promotion.py", "    _awaits_hold,  # the hold is complete\n"),
    Mutant("no criteria", "core/promotion.py", "    _awaits_criteria,  # every criterion passes, and has for long enough\n"),
    Mutant("no approval", "core/promotion.py", "    _awaits_approval,  # the step is approved, where that is required\n"),
    Mutant(
        "a late release asks no guard",
        "core/promotion.py",
        "return (current.is_unpublished or context.status.is_release_pending) and same",
        "return current.is_unpublished and same",
    ),
    Mutant("nobody is held back", "core/promotion.py", "    first |= holdback_fields(context, before)\n"),
    Mutant(
        "a breach after the release holds nobody back again",
        "core/rollback.py",
        "(uid,)).updated(released_time=None), outcome=None)",
        "(uid,)), outcome=None)",
    ),
    Mutant(
        "no data is evidence",
        "core/hold.py",
        "    if record.has_evidence and is_warm and not older:",
        "    if record.verdict is not Verdict.PROVIDER_ERROR and is_warm and not older:",
    ),
    Mutant(
        "no data passes",
        "core/evaluation.py",
        "    return Evaluation(problem, reason, f",
        "    return Evaluation(Verdict.PASS if problem is Verdict.NO_DATA else problem, reason, f",
    ),
    Mutant("paused time counts", "core/hold.py", "    if context.status.paused_by:\n        return DecisionReason.PAUSED\n"),
    Mutant(
        "unobserved time counts",
        "core/hold.py",
        "context.move(hold_until=min(current.hold_until + context.unobserved, longest))",
        "context.move(hold_until=current.hold_until)",
    ),
    Mutant(
        "an absence is accounted for before a status has it",
        "controller/reconciler.py",
        "if is_stored and (made.evaluated or not made.replayable):",
        "if made.evaluated or not made.replayable:",
    ),
    Mutant(
        "the next leader knows no rollout that was not evaluated in time",
        "controller/memory.py",
        "            if state.has_loop and (all_began",
        "            if not state.has_loop and (all_began",
    ),
    Mutant(
        "a status of an earlier leader proves an evaluation by the last one",
        "adapters/lease.py",
        "            if evaluated >= self.term[0]:",
        "            if evaluated:",
    ),
    Mutant(
        "the next leader knows no decision that was refused",
        "controller/reconciler.py",
        "            self._downtime.unaccounted.add(stored.key)\n            state.refused",
        "            state.refused",
    ),
    Mutant(
        "the time until evidence is found lost counts",
        "core/hold.py",
        "is_lost = reason is DecisionReason.AWAITING_EVIDENCE and not context.unobserved",
        "is_lost = False",
    ),
    Mutant(
        "a late document asks no criterion",
        "core/unpublished.py",
        "    if context.current.raised_by is not None or ",
        "    if context.current.step or ",
    ),
    Mutant(
        "the hold outlives an edit",
        "core/generation.py",
        'timers = ("hold_until", ',
        "timers = (",
    ),
    Mutant(
        "the approval outlives an edit",
        "core/generation.py",
        "**dict.fromkeys(timers), approved_by=None)",
        "**dict.fromkeys(timers))",
    ),
    Mutant(
        "an edit that is no fix starts again what was rolled back",
        "core/generation.py",
        "    if status.outcome in UNDONE and _remains_undone(context, plan):\n        return\n",
    ),
    Mutant(
        "an edit lifts an emergency",
        "core/generation.py",
        "    void_verdicts(context)\n",
        "    void_verdicts(context)\n    context.change(flags=context.status.flags.updated(disabled=()))\n",
    ),
    Mutant(
        "enabling one feature enables all",
        "core/emergencies.py",
        "left = tuple(record for record in flags.disabled if record.feature not in names)",
        "left = tuple(record for record in flags.disabled if record.feature not in names and len(names) > len(flags.disabled))",
    ),
    Mutant(
        "dependents stay on",
        "core/flags.py",
        "            if prerequisite in feature.depends_on and feature.name not in disabled:",
        "            if False:",
    ),
    Mutant("guards sleep in the bake", "core/inputs.py", "Stage.AFTER, Stage.BAKE})", "Stage.AFTER})"),
    Mutant(
        "Promote skips a breach",
        "core/decide.py",
        "    if not context.spec.suspend:\n        act_on_breaches(context)\n",
        "    if not context.spec.suspend and context.current.promoted_by is None:\n        act_on_breaches(context)\n",
    ),
    Mutant(
        "a guard acts before its time",
        "core/failures.py",
        "failing_for(context, record) >= duration(check.for_)\n",
        "failing_for(context, record) >= timedelta(0)\n",
    ),
    Mutant(
        "a breach does not pause",
        "core/guards.py",
        "breaches_of(context, OnBreach.PAUSE)) and not",
        "breaches_of(context, OnBreach.PAUSE)) and False and not",
    ),
    Mutant(
        "a rollback keeps the audience",
        "core/rollback.py",
        "percent, groups = _audience_left(context, record, learned=phases is not None)\n",
        "percent, groups = record.percent, record.groups\n",
    ),
    Mutant(
        "a deadline of nothing",
        "core/deadline.py",
        "    limit, (evidence, both) = duration(phase.deadline), _waited(context, wait)\n",
        "    limit, (evidence, both) = timedelta(0), _waited(context, wait)\n",
    ),
    Mutant(
        "suspend is not heard",
        "core/decide.py",
        "    if not context.spec.suspend or context",
        "    if not context.spec.flag_set or context",
    ),
    Mutant(
        "responses are forgotten",
        "core/actions.py",
        "context.change(processed_actions=(*context.status.processed_actions, answer))",
        "context.change(processed_actions=context.status.processed_actions)",
    ),
    Mutant(
        "an Abort does nothing",
        "core/actions.py",
        "        begin_rollback(context, Outcome.ABORTED, (action.spec.reason,), action.uid)\n",
        "        pass\n",
    ),
    Mutant(
        "a hold begins before it is published",
        "core/promotion.py",
        "        Stage.STEP,\n        step=increment.step,",
        "        Stage.STEP,\n        published_time=context.now,\n        step=increment.step,",
    ),
    Mutant(
        "Ready in the bake",
        "core/conditions.py",
        "done = context.status.outcome is Outcome.PROMOTED",
        "done = context.current.stage in {Stage.BAKE, Stage.ENDED}",
    ),
    Mutant("a status without bounds", "api/base.py", "ATOMIC), _keeps_first(SENTENCES)]", "ATOMIC)]"),
    Mutant(
        "published before it is decided",
        "controller/reconciler.py",
        "        wrote, failure = await self._write_status(",
        "        await self._applier.apply(rollout, state, decision)\n        wrote, failure = await self._write_status(",
    ),
)


def faulty(mutant: Mutant) -> str:
    """The text of its file with this fault. Raises ValueError when what it replaces is not there once."""
    text = (ROOT / "operator" / PACKAGE / mutant.path).read_text()
    if text.count(mutant.before) != 1:
        raise ValueError(f"{mutant.path} has {text.count(mutant.before)} times: {mutant.before.strip()}")
    return text.replace(mutant.before, mutant.after)


def copy_with(mutant: Mutant | None, directory: Path) -> Path:
    """A copy of the operator with this fault; where to import it from."""
    shutil.copytree(ROOT / "operator" / PACKAGE, directory / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is not None:
        (directory / PACKAGE / mutant.path).write_text(faulty(mutant))
    return directory


def lives(mutant: Mutant | None, options: argparse.Namespace, well: list[int] | None = None) -> dict[str, str]:
    """The lives that break a promise, with its name; with `well`, only those of these lives, up to the first."""
    with tempfile.TemporaryDirectory() as directory:
        source = copy_with(mutant, Path(directory))
        paths = os.pathsep.join(map(str, (source, ROOT / "tests", ROOT)))
        command = [sys.executable, "-m", "core.model.mutants", "--here", json.dumps(well), "--lives", str(options.lives)]
        command += ["--without", *options.without]
        run = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False)
        if run.returncode:
            return {"-1": f"does not start: {run.stderr.strip().splitlines()[-1]}"}
        return dict(json.loads(run.stdout))


def here(options: argparse.Namespace) -> dict[int, str]:
    """The same in this process."""
    from core.model.cluster import Broken
    from core.model.lives import Life
    from core.model.promises import PROMISES
    from core.model.strategies import random_life

    logging.disable(logging.CRITICAL)
    source, broken = random.Random(SEED), dict[int, str]()
    well, heeds = json.loads(options.here), frozenset(PROMISES) - set(options.without)
    random_lives = [random_life(source) for _ in range(options.lives)]
    for number, (shape, events) in enumerate([*random_lives, *((story.shape, list(story.events)) for story in STORIES)]):
        if well is not None and number not in well:
            continue
        try:
            Life(shape, heeds).live(events)
        except Broken as objection:
            broken[number] = objection.promise
            if well is not None:
                break
    return broken


def place(number: int, random_lives: int) -> str:
    """Which life it was: those that are drawn come first, then the stories; a copy that does not start has none."""
    if number < 0:
        return "this fault is a mistake of the table"
    if number < random_lives:
        return f"life {number}"
    story = STORIES[number - random_lives]
    return f"story {story.row}: {story.sentence}"


def main() -> int:
    """Print the table; 1 when a fault was not caught."""
    parser = argparse.ArgumentParser(prog="python -m core.model.mutants", description=__doc__)
    parser.add_argument("--lives", type=int, default=400, help="how many lives each fault has at most")
    parser.add_argument("--without", nargs="*", default=[], help="promises that nobody objects for")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("only", nargs="*")
    options = parser.parse_args()
    if options.here is not None:
        print(json.dumps(here(options)))
        return 0
    stories, unhurt = len(STORIES), lives(None, options)
    well = [number for number in range(options.lives + stories) if str(number) not in unhurt]
    print(f"{len(well)} of {options.lives} random lives and {stories} stories keep every promise without a fault")
    missed = 0
    for mutant in MUTANTS:
        if options.only and mutant.name not in options.only:
            continue
        caught = lives(mutant, options, well)
        missed += not caught or "-1" in caught
        [(number, promise)] = caught.items() or [("", "NOT CAUGHT")]
        print(f"{mutant.name:40} {promise:18} {place(int(number), options.lives) if caught else ''}", flush=True)
    return missed > 0


if __name__ == "__main__":
    sys.exit(main())
