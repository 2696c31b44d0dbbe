"""What a flag document gives, read by the witness itself: nothing of the operator reads it here."""

import functools
import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from core.model.server import Object
from session_rollout.core.flags import OWN_FLAGS


@dataclass(frozen=True)
class Given:
    """Who has a feature, as the document in the cluster says."""

    percent: Decimal = Decimal(0)
    groups: frozenset[str] = frozenset()
    emergency: bool = False
    held_back: Decimal = Decimal(0)  # percentage of users who have nothing of it

    @property
    def on(self) -> bool:
        """Whether anybody has it."""
        return bool(self.percent or self.groups)

    def exceeds(self, other: "Given") -> bool:
        """Whether somebody has it here and not there."""
        return self.percent > other.percent or bool(self.groups - other.groups)


NOBODY = Given()


@functools.lru_cache(maxsize=4096)
def audiences(text: str | None) -> dict[str, Given]:
    """The audience of each feature in a document."""
    flags = json.loads(text)["flags"] if text else {}
    return {name: _audience(flag) for name, flag in flags.items() if name not in OWN_FLAGS}


def off_for_all(text: str | None) -> frozenset[str]:
    """Features whose flag has no rules."""
    flags = json.loads(text)["flags"] if text else {}
    return frozenset(name for name, flag in flags.items() if "targeting" not in flag)


def _audience(flag: Object) -> Given:
    if "targeting" not in flag:
        return Given(emergency="emergencyDisabled" in flag.get("metadata", {}))
    rules = flag["targeting"]["if"]
    groups = {rule["$ref"].removeprefix("group-") for rule in rules if isinstance(rule, dict) and "$ref" in rule}
    pairs = [rule["fractional"][1] for rule in rules if isinstance(rule, dict) and "fractional" in rule]
    shares = [share if flag["variants"][variant] else 0 for variant, share in pairs]  # in a placebo step, `on` is off
    percent = Decimal(shares[0]) / 10 if shares else Decimal(100 if rules[-1] == "on" else 0)
    is_whole = bool(shares) and rules[-1] == "on-chosen"  # for all users but those who are held back
    held = 100 - percent if is_whole else max((_held(rule) for rule in rules), default=Decimal(0))
    return Given(
        Decimal(100) if is_whole else percent, frozenset(groups - {"forcedOff", "forcedOn", "bucketed"}), held_back=held
    )


def _held(rule: Any) -> Decimal:
    """The percentage of users to whom a group gives nothing."""
    held = rule["if"][0]["$ref"].removeprefix("heldBack-") if isinstance(rule, dict) and "if" in rule else "0"
    return Decimal(held) / 10


def revision(text: str | None) -> int:
    """The revision of a document; 0 when there is none."""
    return int(json.loads(text)["metadata"].get("revision", 0)) if text else 0
