"""Notifications to a webhook and to Apprise while the receiver is up, down, failing or hanging, and through a crash."""

import base64
import hashlib
import hmac
import json
import statistics
from datetime import datetime

from integration.receivers import KEY, Chat
from integration.rollouts import LONG, SHORT, holding, rollout
from lab.lab import Lab

HOLD_SECONDS = 3


def test_sink_that_is_down_for_a_whole_rollout_gets_every_message_once_and_makes_nothing_late(
    configured_operator: Lab, chat: Chat
) -> None:
    """Refused, 500, hanging, until the rollout has ended: then all messages, in order, signed; no decision was later than without."""
    told = ["PhaseStarted", "StepPublished", "StepPassed", "PhaseCompleted", "Promoted"]
    steps = [{"percent": share, "hold": f"{HOLD_SECONDS}s"} for share in (10, 20, 30, 40, 50, 100)]
    chat.taken.clear()
    chat.down()
    configured_operator.apply(rollout("told", steps, notifications=[{"sink": "chat", "events": told}]))
    configured_operator.apply(rollout("untold", steps))
    configured_operator.until(
        lambda: notified(configured_operator, "told")[0] == "False", 30, "the condition while connections are refused"
    )
    for mode in ("500", "hang"):
        before = chat.refused
        chat.up(mode)
        configured_operator.until(lambda before=before: chat.refused > before, 30, f"an attempt that meets {mode}")
    for name in ("told", "untold"):
        configured_operator.until(
            lambda name=name: configured_operator.rollout(name)["status"].get("outcome"), 60, f"an outcome of {name}"
        )
    status = configured_operator.rollout("told")["status"]
    assert notified(configured_operator, "told")[0] == "False"
    assert chat.taken == []
    chat.up()
    wanted = [message["id"] for message in status["pendingNotifications"]]
    assert len(wanted) == 1 + 2 * len(steps) + 2
    configured_operator.until(lambda: len(chat.messages()) >= len(wanted), 60, "the messages")
    configured_operator.until(
        lambda: not configured_operator.rollout("told")["status"].get("pendingNotifications"), 30, "no pending notification"
    )
    assert [message["id"] for message in chat.messages()] == wanted
    assert chat.messages()[-1]["type"] == "Promoted"
    for headers, body in chat.taken:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        digest = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{digest}"
    # A decision that waited for the sink would be late by its timeout. Both rollouts share the results of one query, so that
    # one of them may meet each result up to a check interval later than the other.
    assert statistics.median(late(configured_operator, "told")) < statistics.median(late(configured_operator, "untold")) + 2
    assert "kubectl sessionrollout explain told -n default" in chat.messages()[-1]["text"]
    assert notified(configured_operator, "told")[0] == "True"


def late(lab: Lab, name: str) -> list[float]:
    """Seconds by which each step ended after its hold was over."""
    history = lab.rollout(name)["status"]["history"]
    times = {(entry["event"], entry.get("step")): datetime.fromisoformat(entry["time"]) for entry in history}
    passed = [(step, at) for (event, step), at in times.items() if event == "StepPassed"]
    between = [(at - times["StepPublished", step]).total_seconds() for step, at in passed if ("StepPublished", step) in times]
    return [seconds - HOLD_SECONDS for seconds in between]


def test_operator_that_dies_with_messages_on_their_way_loses_none(configured_operator: Lab, chat: Chat) -> None:
    """What a sink has not taken is in status; the next process delivers it under the same id."""
    chat.taken.clear()
    chat.down()
    # A killed process leaves no coverage: what the tests before this one measured ends politely.
    assert configured_operator.operator is not None
    configured_operator.operator.stop()
    configured_operator.start_operator()
    configured_operator.apply(rollout("dying", LONG, notifications=[{"sink": "chat", "events": ["StepPublished"]}]))
    holding(configured_operator, "dying")
    [pending] = configured_operator.rollout("dying")["status"]["pendingNotifications"]
    configured_operator.operator.kill()
    configured_operator.start_operator()
    chat.up()
    configured_operator.until(chat.messages, 60, "the message")
    assert [message["id"] for message in chat.messages()] == [pending["id"]]


def test_sinks_of_other_kinds_and_sinks_that_are_none(configured_operator: Lab, chat: Chat) -> None:
    """Apprise carries the same words; an unknown sink is shown by the condition and keeps nothing."""
    chat.taken.clear()
    chat.up()
    sinks = [{"sink": "apprise", "events": ["Promoted"]}, {"sink": "nowhere", "events": ["Promoted"]}]
    configured_operator.apply(rollout("apprise", SHORT, notifications=sinks))
    configured_operator.until(lambda: chat.taken, 60, "Apprise's message")
    assert "kubectl sessionrollout explain apprise -n default" in json.loads(chat.taken[-1][1])["message"], chat.taken
    configured_operator.until(lambda: notified(configured_operator, "apprise") == ("False", "SinkFailing"), 20, "the condition")
    assert configured_operator.rollout("apprise")["status"]["outcome"] == "Promoted"


def notified(lab: Lab, name: str) -> tuple[str, str]:
    """Status and reason of the condition Notified."""
    conditions = lab.rollout(name).get("status", {}).get("conditions", [])
    return next(
        ((str(condition["status"]), str(condition["reason"])) for condition in conditions if condition["type"] == "Notified"),
        ("", ""),
    )
