"""The replacement of messages itself: it reaches every text of a status, of events and of answers, and changes no decision.

Not here: that everything else still works with it, which `make test-messages` shows.
"""

import json
import os
import re
import subprocess
import sys
from typing import Any

from lab.lab import ROOT

PROGRAM = """
import json, sys
from lab import reasons_only
if sys.argv[1:] == ["replaced"]:
    reasons_only.install()
from core.scenarios import everything_succeeds, pauses_and_emergencies, breach_rolls_back_everything
from session_rollout.core.observed import Answer, Emit
stories = []
for play in (everything_succeeds, pauses_and_emergencies, breach_rolls_back_everything):
    world = play()
    decision = world.reconcile()
    answers = [[answer.action, answer.accepted, answer.reason, answer.message] for answer in world.answers.values()]
    stories.append({"status": world.status.to_wire(), "events": world.events, "answers": answers})
print(json.dumps(stories))
"""
PROSE = {"message", "progress", "pausedMessage"}
LISTS = {"details", "nextActions", "rollbackReasons"}


def stories(*argv: str) -> Any:
    """Three rollouts, played in a process of their own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / root) for root in ("operator", "tests", "."))}
    command = [sys.executable, "-c", PROGRAM, *argv]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def texts(node: Any) -> list[str]:
    """Every text of a status that is for people."""
    found: list[str] = []
    if isinstance(node, dict):
        for key, value in node.items():
            found += [value] if key in PROSE else list(value) if key in LISTS else texts(value)
    if isinstance(node, list):
        for value in node:
            found += texts(value)
    return [text for text in found if text]


def without_texts(node: Any) -> Any:
    """The same without them."""
    if isinstance(node, dict):
        return {key: without_texts(value) for key, value in node.items() if key not in PROSE | LISTS}
    return [without_texts(value) for value in node] if isinstance(node, list) else node


def test_every_text_is_a_reason_and_no_decision_differs() -> None:
    """Statuses, events and answers with and without prose are the same in every other field."""
    plain, replaced = stories(), stories("replaced")
    for before, after in zip(plain, replaced, strict=True):
        shown = [*texts(after["status"]), *(answer[3] for answer in after["answers"])]
        assert len(shown) > 20
        assert [text for text in shown if not re.fullmatch(r"\[\w+\]", text)] == []
        assert [text for text in texts(before["status"]) if re.fullmatch(r"\[\w+\]", text)] == []
        assert without_texts(before["status"]) == without_texts(after["status"])
        assert (before["events"], [answer[:3] for answer in before["answers"]]) == (
            after["events"],
            [answer[:3] for answer in after["answers"]],
        )
