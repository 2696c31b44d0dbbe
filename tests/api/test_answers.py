"""Responses to actions in a real API server: an action has one, whoever answers it first.

Not here: when an action is answered (tests/controller, tests/core), and by which leader (the model).
"""

from datetime import UTC, datetime
from typing import Any

import pytest

from api.connection import connected
from lab.kube import Object
from lab.lab import Lab
from session_rollout.adapters.api_server import ApiServer
from session_rollout.adapters.rollouts import ApiRolloutStore
from session_rollout.api.action import answer
from session_rollout.api.enums import ActionReason

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PATH = "/apis/sessionrollout.dev/v1alpha1/namespaces/default/sessionrolloutactions"
YES: dict[str, Any] = {"accepted": True, "reason": ActionReason.ACCEPTED, "message": "paused"}
NO: dict[str, Any] = {"accepted": False, "reason": ActionReason.NOT_RUNNING, "message": "the generation has ended"}


def answered(lab: Lab, name: str, *answers: dict[str, Any], status: Object | None = None) -> Object:
    """The status of an action that gets these answers, one after the other; `status` is what somebody has written before."""
    action = lab.act("Pause", name)
    path = f"{PATH}/{action}"
    if status is not None:
        lab.kube.merge(f"{path}/status", {"status": status})
    uid = lab.kube.get(path)["metadata"]["uid"]

    async def give(api: ApiServer) -> None:
        for fields in answers:
            await ApiRolloutStore(api).answer("default", action, answer(**fields, now=NOW), uid=uid)

    connected(lab, give)
    return dict(lab.kube.get(path)["status"])


@pytest.mark.parametrize(
    ("first", "second"), [(YES, NO), (NO, YES), (YES, YES)], ids=["refused later", "accepted later", "again"]
)
def test_first_answer_of_two_leaders_stays(lab: Lab, first: dict[str, Any], second: dict[str, Any]) -> None:
    """R8: to the one that comes late, what was carried out no longer applies."""
    status = answered(lab, "answers", first, second)
    assert (status["accepted"], status["reason"], status["message"]) == tuple(first.values())


def test_status_that_is_no_answer_is_replaced(lab: Lab) -> None:
    """Somebody who may write it has: the action is answered all the same."""
    status = answered(lab, "answers", YES, status={"message": "seen"})
    assert (status["accepted"], status["message"]) == (True, "paused")
