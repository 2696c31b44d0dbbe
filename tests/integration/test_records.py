"""Decision records: complete through a restart of the operator, and decided again with the same result."""

from integration.rollouts import holding, rollout
from lab.decisions import decisions
from lab.lab import Lab


def test_every_decision_is_recorded_and_can_be_made_again(configured_operator: Lab) -> None:
    """Through a restart of the configured_operator, too; the last record leads to the status that is there."""
    configured_operator.apply(rollout("recorded", [{"percent": 50, "hold": "2s"}, {"percent": 100, "hold": "1h"}]))
    configured_operator.until(
        lambda: holding(configured_operator, "recorded")["status"]["current"].get("step") == 2, 40, "step 2"
    )
    assert configured_operator.operator is not None
    configured_operator.operator.stop()
    configured_operator.start_operator()
    configured_operator.act("Pause", "recorded")
    configured_operator.until(
        lambda: decisions(configured_operator, "recorded")[-1].action == "Pause", 20, "the record of the pause"
    )
    kept = decisions(configured_operator, "recorded")
    # How many there are depends on what is seen together; each step has its own.
    assert {record.current.step for record in kept} >= {1, 2}
    assert [record.message for record in kept if not record.agrees()] == []
    # The answer to the pause leaves the status with one more decision.
    configured_operator.until(
        lambda: decided_again(configured_operator, "recorded"), 20, "the last record leading to the status that is there"
    )


def decided_again(lab: Lab, name: str) -> bool:
    """Whether the last record leads to the status that is stored, but for the times that are set when it is sent."""
    sent = {"lastUpdateTime": None, "evaluationTime": None}
    return bool({**decisions(lab, name)[-1].decide_again().status.to_wire(), **sent} == {**lab.rollout(name)["status"], **sent})
