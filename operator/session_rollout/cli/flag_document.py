"""The published flag document: how the real evaluator decides each flag, and which rule of the document that follows."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from session_rollout.adapters.kubectl import FailureKind, Kubectl, KubectlFailed
from session_rollout.api.rollout import SessionRollout
from session_rollout.cli.command import Failure, refusal
from session_rollout.core.flags import KEY, PROBE, config_map_name
from session_rollout.core.steps import audience_text, percent_text

_PREAMBLE: Final = 4  # overrides come first in the targeting of every flag: two conditions with their variants
_GROUP: Final = "group-"


class RuleKind(StrEnum):
    """The rule of the document that decides a flag for a user."""

    EMERGENCY = "Emergency"
    OVERRIDE = "Override"
    GROUP = "Group"
    BUCKET = "Bucket"
    ALL_USERS = "AllUsers"
    NO_USER_ID = "NoUserId"


@dataclass(frozen=True)
class User:
    """The attributes of a user that the document reads."""

    key: str
    groups: Sequence[str] = ()
    overrides_on: Sequence[str] = ()
    overrides_off: Sequence[str] = ()

    def attributes(self) -> Mapping[str, Any]:
        """The evaluation context."""
        return {
            "groups": list(self.groups),
            "overridesOn": list(self.overrides_on),
            "overridesOff": list(self.overrides_off),
        }


@dataclass(frozen=True)
class Rule:
    """The rule that decides a flag for a user, and the value that it gives."""

    kind: RuleKind
    on: bool
    detail: str = ""  # the group, the reason of the emergency
    bucket: int | None = None  # of the user, 0 to 999
    weight: int | None = None  # the first bucket that does not have the feature

    def __str__(self) -> str:
        match self.kind:
            case RuleKind.EMERGENCY:
                return f"emergency: {self.detail}" if self.detail else "emergency"
            case RuleKind.GROUP:
                return f"group {self.detail}"
            case RuleKind.BUCKET:
                assert self.weight is not None, "set with the bucket"
                return f"bucket {self.bucket} is {'below' if self.on else 'not below'} {self.weight} ({self.weight / 10:g}%)"
            case RuleKind.NO_USER_ID:
                return "no user ID, so in no percentage below 100%"
            case RuleKind.OVERRIDE:
                return f"override {'on' if self.on else 'off'}"
        return "100%" if self.on else "0%"


@dataclass(frozen=True)
class Evaluation:
    """One flag for one user: the value of the evaluator, and the rule that should give it."""

    feature: str
    on: bool
    rule: Rule

    def as_data(self) -> dict[str, Any]:
        """For JSON and YAML."""
        rule = {"detail": self.rule.detail, "bucket": self.rule.bucket, "weight": self.rule.weight}
        known = {name: value for name, value in rule.items() if value not in (None, "")}
        return {"feature": self.feature, "on": self.on, "rule": self.rule.kind, **known}


def read_document(kubectl: Kubectl, rollout: SessionRollout) -> str:
    """The published flag document. Raises Failure when there is none."""
    name = rollout.status.flags.config_map or config_map_name(rollout.spec.flag_set)
    text = kubectl.get("configmaps", name).json().get("data", {}).get(KEY)
    if text is None:
        raise refusal(f"ConfigMap {name} has no key {KEY}")
    return str(text)


@dataclass(frozen=True)
class Published:
    """What a document gives of one feature."""

    percent: Decimal | None  # None: its rules are not those of an operator
    groups: tuple[str, ...] = ()
    emergency: str | None = None  # the reason of the emergency that keeps it off

    def __str__(self) -> str:
        if self.emergency is not None:
            return "off for all users"
        return "rules of somebody else" if self.percent is None else audience_text(percent_text(self.percent), self.groups)


def published(text: str) -> dict[str, Published]:
    """Every feature of a document, whatever the spec says today. Raises Failure when it is no flag document."""
    try:
        flags = {name: flag for name, flag in json.loads(text)["flags"].items() if name != PROBE}
        return {name: _published(flag) for name, flag in flags.items()}
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise refusal("the published flag document is invalid; the operator replaces it when it runs") from error


def published_or_none(kubectl: Kubectl, rollout: SessionRollout) -> dict[str, Published] | None:
    """Every feature of the document in the cluster; None when there is none that this user can read."""
    try:
        return published(read_document(kubectl, rollout))
    except KubectlFailed as error:
        if error.kind not in {FailureKind.NOT_FOUND, FailureKind.FORBIDDEN}:
            raise
    except Failure:
        pass  # it is not a flag document, which an emergency must not depend on
    return None


def _published(flag: Mapping[str, Any]) -> Published:
    if "targeting" not in flag:
        metadata, on = flag.get("metadata", {}), flag.get("variants", {}).get(flag.get("defaultVariant")) is True
        emergency = str(metadata.get("reason", "")) if metadata.get("emergencyDisabled") else None
        return Published(Decimal(100 if on and flag.get("state") == "ENABLED" else 0), emergency=emergency)
    try:
        rules = flag["targeting"]["if"][_PREAMBLE:]
        weight = _weight(rules)
        known = Decimal(weight) / 10 if weight is not None else {"on": Decimal(100), "off": Decimal(0)}[rules[-1]]
        return Published(known, tuple(_groups(rules)))
    except (TypeError, LookupError, ValueError):
        return Published(None)


class Evaluator:
    """A flag document in the evaluator that applications use."""

    def __init__(self, text: str, flag_set: str) -> None:
        from openfeature.contrib.tools.flagd.core import FlagdCore
        from openfeature.exception import OpenFeatureError

        self._flag_set, self._core = flag_set, FlagdCore()
        try:
            self._flags = {name: flag for name, flag in json.loads(text)["flags"].items() if name != PROBE}
            self._core.set_flags(text)
        except (ValueError, TypeError, LookupError, AttributeError, OpenFeatureError) as error:
            raise refusal("the published flag document is invalid; the operator replaces it when it runs") from error

    def evaluate(self, user: User) -> Iterator[Evaluation]:
        """Every flag for one user."""
        from openfeature.evaluation_context import EvaluationContext

        from session_rollout.adapters.flags import bucket

        context = EvaluationContext(targeting_key=user.key, attributes=dict(user.attributes()))
        number = bucket(self._flag_set, user.key)
        for feature, flag in self._flags.items():
            on = bool(self._core.resolve_boolean_value(feature, default_value=False, ctx=context).value)
            yield Evaluation(feature, on, _rule(feature, flag, user, number))


def _rule(feature: str, flag: Mapping[str, Any], user: User, bucket: int) -> Rule:
    """The first rule that applies, in the order of the document."""
    if "targeting" not in flag:
        return Rule(RuleKind.EMERGENCY, on=False, detail=flag.get("metadata", {}).get("reason", ""))
    if feature in user.overrides_off:
        return Rule(RuleKind.OVERRIDE, on=False)
    if feature in user.overrides_on:
        return Rule(RuleKind.OVERRIDE, on=True)
    rules = flag["targeting"]["if"][_PREAMBLE:]
    if group := next((name for name in _groups(rules) if name in user.groups), None):
        return Rule(RuleKind.GROUP, on=True, detail=group)
    weight = _weight(rules)
    if weight is None:
        return Rule(RuleKind.ALL_USERS, on=rules[-1] == "on")
    if not user.key:
        return Rule(RuleKind.NO_USER_ID, on=False)
    return Rule(RuleKind.BUCKET, on=bucket < weight, bucket=bucket, weight=weight)


def _groups(rules: Sequence[Any]) -> Iterator[str]:
    for rule in rules:
        if isinstance(rule, dict) and str(rule.get("$ref", "")).startswith(_GROUP):
            yield rule["$ref"].removeprefix(_GROUP)


def _weight(rules: Sequence[Any]) -> int | None:
    """Weight of `on` in the percentage rule; None when the document has none, at 0% and 100%."""
    shares = (rule["fractional"] for rule in rules if isinstance(rule, dict) and "fractional" in rule)
    return next((int(share[1][1]) for share in shares), None)
