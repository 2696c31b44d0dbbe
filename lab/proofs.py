"""What a run promised against what it did.

Read from the recorded documents, the database and the application, never from the operator's own code.
"""

import itertools
import json
from dataclasses import dataclass, field

from openfeature.contrib.tools.flagd.core import FlagdCore
from rich.console import Console

from lab.kube import Object
from lab.population import User, users
from lab.recorder import Published

TOLERANCE = 0.01
TABLES = ["enhanced_user_sessions", "session_analytics", "session_feature_flags"]
INDEXES = [
    "idx_enhanced_sessions_session_id",
    "idx_enhanced_sessions_user_id",
    "idx_feature_flags_user_feature",
    "idx_session_analytics_timestamp",
    "idx_session_analytics_user_id",
]
STEPS = 5
Audience = tuple[float, tuple[str, ...]]


@dataclass
class Proof:
    """Lines that were checked, and what did not hold."""

    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def check(self, holds: bool, text: str) -> None:
        """One line of the proof."""
        self.lines.append(f"{'ok  ' if holds else 'FAIL'} {text}")
        if not holds:
            self.failures.append(text)

    def report(self, console: Console, beside: str) -> int:
        """Print every line and the sum; the exit code."""
        console.print()
        for line in self.lines:
            console.print(line, soft_wrap=True)
        console.print(f"{len(self.lines) - len(self.failures)} checks held, {len(self.failures)} did not ({beside})")
        return 1 if self.failures else 0


class Evaluator:
    """Who has a feature in a document, by flagd's own evaluator; a flag that did not change is not evaluated again."""

    def __init__(self, population: tuple[User, ...]) -> None:
        self.population = population
        self._contexts = [(user.id, user.context()) for user in population]
        self._known: dict[tuple[str, str], frozenset[str]] = {}

    def having(self, document: Object, feature: str) -> frozenset[str]:
        """Ids of the users who have it."""
        key = (feature, json.dumps(document["flags"][feature]))
        if key not in self._known:
            core = FlagdCore()
            core.set_flags(json.dumps(document))
            self._known[key] = frozenset(
                user
                for user, context in self._contexts
                if core.resolve_boolean_value(feature, default_value=False, ctx=context).value
            )
        return self._known[key]

    def members(self, groups: tuple[str, ...]) -> frozenset[str]:
        """Ids of the users in any of the groups."""
        return frozenset(user.id for user in self.population if set(user.groups) & set(groups))


def prove_shares(proof: Proof, spec: Object, promised: dict[str, list[Audience]], documents: list[Published]) -> None:
    """In every step: share of 10,000 users within +-1 % of the promise, group members always, and no user lost a feature."""
    evaluator = Evaluator(users())
    before: dict[str, frozenset[str]] = {}
    lost = 0
    for phase in spec["phases"]:
        mine = [published for published in documents if published.document["metadata"]["phase"] == phase["name"]]
        seen = _distinct(mine, phase["features"])
        expected = list(dict.fromkeys(promised[phase["name"]]))
        # A feature that was on before its phase is at its last audience from the first document on.
        reached = seen[-len(expected) :]
        proof.check(len(reached) == len(expected), f"{phase['name']}: {len(reached)} of {len(expected)} audiences published")
        for published, audience in zip(reached, expected, strict=False):
            _prove_audience(proof, evaluator, phase, published, audience)
        for published in mine:
            for feature in phase["features"]:
                having = evaluator.having(published.document, feature)
                lost += len(before.get(feature, frozenset()) - having)
                before[feature] = having
    proof.check(lost == 0, f"{lost} users lost a feature on the way up, of {len(evaluator.population)}")


def _distinct(documents: list[Published], features: list[str]) -> list[Published]:
    """The documents in which the definition of these features changed."""
    kept: list[Published] = []
    for published in documents:
        flags = [published.document["flags"][feature] for feature in features]
        if not kept or [kept[-1].document["flags"][feature] for feature in features] != flags:
            kept.append(published)
    return kept


def _prove_audience(proof: Proof, evaluator: Evaluator, phase: Object, published: Published, audience: Audience) -> None:
    percent, groups = audience
    members, everybody = evaluator.members(groups), len(evaluator.population)
    expected = (len(members) + (everybody - len(members)) * percent / 100) / everybody
    having = {feature: evaluator.having(published.document, feature) for feature in phase["features"]}
    shares = [len(ids) / everybody for ids in having.values()]
    worst = max(abs(share - expected) for share in shares)
    in_groups = all(members <= ids for ids in having.values())
    text = f"{phase['name']:22} {percent:5.1f}% {'+' + '+'.join(groups) if groups else '':13}"
    text += f" promised {100 * expected:6.2f}%  measured {100 * min(shares):6.2f}..{100 * max(shares):6.2f}%"
    text += f"  group members {len(members)}: all have it" if groups and in_groups else ""
    proof.check(worst <= TOLERANCE and in_groups, text)


def prove_database(proof: Proof, tables: dict[str, list[str]]) -> None:
    """The three tables, the five indexes, and each step of the migration once."""
    proof.check(tables["tables"] == TABLES, f"tables: {', '.join(tables['tables']) or 'none'}")
    proof.check(tables["indexes"] == INDEXES, f"indexes: {', '.join(tables['indexes']) or 'none'}")
    ledger = tables["ledger"]
    proof.check(len(set(ledger)) == len(ledger) == STEPS, f"ledger: {', '.join(ledger) or 'empty'}, each once")


def prove_never_backwards(proof: Proof, documents: list[Published]) -> None:
    """The log of published documents: revisions only rise."""
    revisions = [published.document["metadata"]["revision"] for published in documents]
    steady = all(a < b for a, b in itertools.pairwise(revisions))
    proof.check(steady, f"{len(revisions)} flag documents, revisions {revisions[0]} to {revisions[-1]}, never backwards")
