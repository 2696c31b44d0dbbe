"""What a flag document in the cluster gives, read back from its text, and how it compares to what the status gives."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from session_rollout.api.base import FEATURE_PATTERN, sha256_of, shortened
from session_rollout.api.protection import Protection
from session_rollout.core.flags import EVERYBODY, NOBODY, PROBE, WEIGHTS, Audience

GROUP_PREFIX: Final = "group-"
FLAGS_READ: Final = 400  # ten times as many features as a spec may have
REASON_LENGTH: Final = 256
LARGEST_REVISION: Final = 2**53 - 2**20


@dataclass(frozen=True)
class PublishedDocument:
    """The flag document that is in the cluster, as far as decisions depend on it."""

    sha256: str
    version: int = 0  # resourceVersion of the ConfigMap
    revision: int = 0  # 0 when the text does not say
    owner: str | None = None  # name of the rollout that it is labelled with
    managed: bool = True  # whether a rollout wrote it; False for a ConfigMap of somebody else
    audiences: Mapping[str, Audience | None] = field(default_factory=dict)  # by feature; None for rules that are not ours
    disabled: Mapping[str, str] = field(default_factory=dict)  # features that an emergency turned off; the reason of each
    taken_away: frozenset[str] = frozenset()  # features that are off for everybody, and not by rules that we write
    protections: tuple[Protection, ...] = ()
    editor: str | None = None  # the other field manager that wrote the text last

    def belongs_to(self, rollout: str) -> bool:
        """Whether this rollout may write it: its own document, or one that a deleted rollout left behind."""
        return self.owner == rollout or (self.owner is None and self.managed)

    @property
    def gives_something(self) -> bool:
        """Whether some user has some feature."""
        return any(audience != NOBODY for audience in self.audiences.values())


def read_document(text: str, **known: Any) -> PublishedDocument:
    """The document of this text; `known` are the fields that its ConfigMap has besides the text.

    Whoever may edit the ConfigMap may write anything: a text that is no flag document gives nobody anything, and what the
    API does not allow as a feature is not one.
    """
    sha256 = sha256_of(text)
    try:
        document = json.loads(text)
        flags = {
            name: flag for name, flag in document["flags"].items() if name != PROBE and re.fullmatch(FEATURE_PATTERN, name)
        }
        flags = dict(list(flags.items())[:FLAGS_READ])
        disabled = {name: _reason(flag) for name, flag in flags.items() if _is_emergency(flag)}
        return PublishedDocument(
            sha256,
            revision=_revision(document.get("metadata", {}).get("revision", 0)),
            audiences={name: NOBODY if name in disabled else audience_of(flag) for name, flag in flags.items()},
            disabled=disabled,
            taken_away=frozenset(name for name, flag in flags.items() if name not in disabled and _is_off(flag)),
            **known,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return PublishedDocument(sha256, **known)


def _revision(value: Any) -> int:
    return value if type(value) is int and 0 <= value <= LARGEST_REVISION else 0


def _reason(flag: Mapping[str, Any]) -> str:
    return shortened(str(flag["metadata"].get("reason", "")), REASON_LENGTH)


def _is_emergency(flag: Mapping[str, Any]) -> bool:
    return _is_off(flag) and flag.get("metadata", {}).get("emergencyDisabled") is True


def _is_off(flag: Mapping[str, Any]) -> bool:
    """Whether the flag is off for everybody in a way that the compiler never writes for an audience."""
    if flag.get("state") == "DISABLED" or flag["variants"].get("on") is False:
        return True
    return "targeting" not in flag and flag.get("defaultVariant") == "off"


def audience_of(flag: Mapping[str, Any]) -> Audience | None:
    """The audience that `core.flags` compiled into this flag; None for rules that it does not write."""
    if _is_off(flag):
        return NOBODY
    try:
        _, _, _, _, *rules = flag["targeting"]["if"]
        groups: list[str] = []
        while isinstance(rules[0], dict) and rules[0]["$ref"].startswith(GROUP_PREFIX):
            groups.append(rules[0]["$ref"].removeprefix(GROUP_PREFIX))
            rules = rules[2:]
        if rules == ["on"]:
            return Audience(EVERYBODY.percent, tuple(groups))
        if rules == ["off"]:
            return Audience(NOBODY.percent, tuple(groups))
        (_, weight), _ = rules[1]["fractional"][1:]
        if type(weight) is not int or not 0 <= weight <= WEIGHTS:
            return None
        return Audience(Decimal(weight) * 100 / WEIGHTS, tuple(groups))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None


def lesser(first: Audience, other: Audience) -> Audience:
    """What both audiences give."""
    if first.percent == EVERYBODY.percent:
        return other
    if other.percent == EVERYBODY.percent:
        return first
    groups = tuple(group for group in first.groups if group in other.groups)
    return Audience(min(first.percent, other.percent), groups)


def gives_less(first: Audience, other: Audience) -> bool:
    """Whether the first audience lacks a user that the second one has."""
    return _plain(lesser(first, other)) != _plain(other)


def _plain(audience: Audience) -> Audience:
    """The audience without groups where everybody has the feature."""
    return EVERYBODY if audience.percent == EVERYBODY.percent else audience
