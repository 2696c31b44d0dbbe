"""Objects of the API server as models, and the problems of an invalid one in one sentence.

A CRD that is newer than the operator accepts fields and values that the operator does not know. `readable_rollout_of` reads what is
left of such an object, and `merged` writes what the operator changes in it, and nothing else.
"""

import copy
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from session_rollout.api.action import ActionSpec, SessionRolloutAction
from session_rollout.api.base import Model
from session_rollout.api.phases import Phase
from session_rollout.api.rollout import FeatureSpec, RolloutSpec, SessionRollout
from session_rollout.api.status import RolloutStatus

M = TypeVar("M", bound=Model)
PARTS: Final = {"RolloutSpec": "spec.", "RolloutStatus": "status."}  # of an object, by model
PROBLEMS_REMOVED: Final = 200
FLAGS_SUFFIX: Final = "-flags"
KEYS: Final = ("type", "uid", "kind", "name", "feature", "effect", "id", "time", "event")  # that identify an item of a list


def rollout_of(raw: Mapping[str, Any]) -> SessionRollout:
    """A SessionRollout. Raises ValidationError."""
    metadata = raw["metadata"]
    return SessionRollout(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata["generation"],
        creation_time=metadata.get("creationTimestamp"),
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
    parts, root = [], PARTS.get(error.title, "")
    for problem in error.errors(include_url=False)[:4]:
        field = root + ".".join(str(part) for part in problem["loc"])
        allowed = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
        parts.append(f"`{field}` is {str(problem['input'])[:80]!r}: {allowed}")
    return "; ".join(parts)


# --- objects that cannot be parsed


class ReadableSpec(RolloutSpec):
    """A spec of which any part may be missing."""

    flag_set: str = ""
    features: tuple[FeatureSpec, ...] = ()
    phases: tuple[Phase, ...] = ()


def readable_rollout_of(raw: Mapping[str, Any]) -> SessionRollout:
    """What can be read of a SessionRollout that cannot be parsed: enough to know what is published, and by which names."""
    metadata = raw["metadata"]
    spec = readable(ReadableSpec, raw.get("spec", {})) or ReadableSpec()
    status = readable(RolloutStatus, raw.get("status", {})) or RolloutStatus()
    published = (status.flags.config_map or "").removesuffix(FLAGS_SUFFIX)
    return SessionRollout(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata["generation"],
        creation_time=metadata.get("creationTimestamp"),
        spec=spec.updated(flag_set=published or spec.flag_set or metadata["name"]),
        status=status,
    )


def readable(model: type[M], raw: Any) -> M | None:
    """The model of what it can read: what is unknown or invalid is left out, with what cannot do without it. None when nothing is left."""
    data = copy.deepcopy(raw)
    for _ in range(PROBLEMS_REMOVED):
        try:
            return model.model_validate(data)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_context=False)[0]
            place = problem["loc"][:-1] if problem["type"] == "missing" else problem["loc"]
            if not _removed(data, place):
                return None
    return None


def _removed(data: Any, place: tuple[int | str, ...]) -> bool:
    """Remove what is at this place, or the innermost part around it that exists; False when that is everything."""
    parent, last = None, None
    for key in place:
        try:
            data, parent, last = data[key], data, key
        except (KeyError, IndexError, TypeError):
            break
    if parent is None:
        return False
    del parent[last]
    return True


def merged(raw: Any, before: Any, after: Any) -> Any:
    """What is stored, with what is changed between two readings of it: what these do not contain stays as it is."""
    if before == after:
        return raw
    if isinstance(raw, Mapping) and isinstance(before, Mapping) and isinstance(after, Mapping):
        unread = {key: value for key, value in raw.items() if key not in before and key not in after}
        changed = {key: merged(raw[key], before.get(key), value) if key in raw else value for key, value in after.items()}
        return {**unread, **changed}
    if isinstance(raw, list) and isinstance(before, list) and isinstance(after, list):
        return _merged_lists(raw, before, after)
    return after


def first_missing(sent: Any, stored: Any, path: str) -> str:
    """The first field that what was stored lacks, such as `status.checks[].failingTime`; empty if it has each one that was sent.

    Values are not compared: the API server may write one, such as a time, in another way.
    """
    if isinstance(sent, Mapping) and isinstance(stored, Mapping):
        places = ((key, f"{path}.{key}") for key in sent)
        missing = (first_missing(sent[key], stored[key], place) if key in stored else place for key, place in places)
        return next(filter(None, missing), "")
    if isinstance(sent, list) and isinstance(stored, list):
        missing = (first_missing(item, kept, f"{path}[]") for item, kept in zip(sent, stored, strict=False))
        return next(filter(None, missing), "")
    return ""


def _merged_lists(raw: list[Any], before: list[Any], after: list[Any]) -> list[Any]:
    stored, read = ({_identity(item): item for item in items} for items in (raw, before))
    known = {*read, *(_identity(item) for item in after)}
    unread = [item for item in raw if _identity(item) not in known]
    changed = [merged(stored.get(_identity(item)), read.get(_identity(item)), item) for item in after]
    longest = max(len(raw), len(after))  # more than the schema allows would be refused: what was not read goes first
    return [*unread, *changed][-longest:]


def _identity(item: Any) -> str:
    return repr([item.get(key) for key in KEYS]) if isinstance(item, Mapping) else repr(item)
