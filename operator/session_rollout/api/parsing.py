"""Objects of the API server as models, and the problems of an invalid one in one sentence."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from session_rollout.api.action import ActionSpec, SessionRolloutAction
from session_rollout.api.rollout import RolloutSpec, SessionRollout
from session_rollout.api.status import RolloutStatus


def rollout_of(raw: Mapping[str, Any]) -> SessionRollout:
    """A SessionRollout. Raises ValidationError."""
    metadata = raw["metadata"]
    return SessionRollout(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata["generation"],
        spec=RolloutSpec.model_validate(raw["spec"]),
        status=RolloutStatus.model_validate(raw.get("status", {})),
    )


def action_of(raw: Mapping[str, Any]) -> SessionRolloutAction:
    """A SessionRolloutAction. Raises ValidationError."""
    metadata = raw["metadata"]
    return SessionRolloutAction(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        creation_time=metadata["creationTimestamp"],
        spec=ActionSpec.model_validate(raw["spec"]),
    )


def sentence(error: ValidationError) -> str:
    """The first problems of a validation as one sentence: field, what was found, what is allowed."""
    parts = []
    for problem in error.errors(include_url=False)[:4]:
        field = ".".join(str(part) for part in problem["loc"])
        allowed = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
        parts.append(f"`{field}` is {str(problem['input'])[:80]!r}: {allowed}")
    return "; ".join(parts)
