"""The published flag document: how the real evaluator decides each flag, and which rule of the document that follows."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from session_rollout.adapters.kubectl import FailureKind, Kubectl, KubectlFailed
from session_rollout.api.rollout import SessionRollout
from session_rollout.cli.command import Failure, refusal
from session_rollout.core import documents
from session_rollout.core.documents import PublishedDocument, is_emergency
from session_rollout.core.flags import EVERYBODY, KEY, NOBODY, OWN_FLAGS, WEIGHTS, Audience, config_map_name, weight_of
from session_rollout.core.holdback import users_text

INVALID: Final = "the published flag document is invalid; the operator replaces it when it runs"
FOREIGN_RULES: Final = "rules of somebody else"


class RuleKind(StrEnum):
    """The rule of the document that decides a flag for a user."""

    EMERGENCY = "Emergency"
    OVERRIDE = "Override"
    GROUP = "Group"
    HELD_BACK = "HeldBack"  # in a group that has the feature, but for these users
    BUCKET = "Bucket"
    PLACEBO = "Placebo"  # nobody has the feature; the bucket decides the variant alone
    ALL_USERS = "AllUsers"
    NO_USER_ID = "NoUserId"
    FOREIGN = "Foreign"  # the flag was not written by an operator


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
            case RuleKind.HELD_BACK:
                return f"held back: bucket {self.bucket} is not below {self.weight}"
            case RuleKind.BUCKET:
                assert self.weight is not None, "set with the bucket"
                return f"bucket {self.bucket} is {'below' if self.on else 'not below'} {self.weight} ({self.weight / 10:g}%)"
            case RuleKind.PLACEBO:
                return f"placebo of {(self.weight or 0) / 10:g}%: nobody has the feature"
            case RuleKind.NO_USER_ID:
                return "no user ID, so in no percentage below 100%"
            case RuleKind.FOREIGN:
                return FOREIGN_RULES
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


def published(text: str) -> PublishedDocument:
    """What a document gives of every feature, whatever the spec says today. Raises Failure when it is no flag document."""
    document = documents.read_document(text)
    if not document.audiences:
        raise refusal(INVALID)
    return document


def published_or_none(kubectl: Kubectl, rollout: SessionRollout) -> PublishedDocument | None:
    """The document in the cluster; None when there is none that this user can read."""
    try:
        return published(read_document(kubectl, rollout))
    except KubectlFailed as error:
        if error.kind not in {FailureKind.NOT_FOUND, FailureKind.FORBIDDEN}:
            raise
    except Failure:
        pass  # it is not a flag document, which an emergency must not depend on
    return None


def text_of(document: PublishedDocument, feature: str) -> str:
    """Who has a feature by a document."""
    if feature in document.disabled:
        return "off for all users"
    audience = document.audiences.get(feature, NOBODY)
    if audience is None:
        return FOREIGN_RULES
    return users_text(audience)


class Evaluator:
    """A flag document in the evaluator that applications use."""

    def __init__(self, text: str, flag_set: str) -> None:
        from openfeature.contrib.tools.flagd.core import FlagdCore
        from openfeature.exception import OpenFeatureError

        self._flag_set, self._core = flag_set, FlagdCore()
        self._audiences = documents.read_document(text, flag_set=flag_set).audiences
        try:
            self._flags = {name: flag for name, flag in json.loads(text)["flags"].items() if name not in OWN_FLAGS}
            self._core.set_flags(text)
        except (ValueError, TypeError, LookupError, AttributeError, OpenFeatureError) as error:
            raise refusal(INVALID) from error

    def evaluate(self, user: User) -> Iterator[Evaluation]:
        """Every flag for one user."""
        from openfeature.evaluation_context import EvaluationContext

        from session_rollout.adapters.flag_evaluator import bucket

        context = EvaluationContext(targeting_key=user.key, attributes=dict(user.attributes()))
        number = bucket(self._flag_set, user.key)
        for feature, flag in self._flags.items():
            on = self._value(feature, context)
            yield Evaluation(
                feature, on, _rule(feature, flag, self._audiences.get(feature), user, number) or Rule(RuleKind.FOREIGN, on)
            )

    def _value(self, feature: str, context: Any) -> bool:
        """The value of a flag; that of an application whose default is off when the flag has none."""
        from openfeature.exception import OpenFeatureError

        try:
            return bool(self._core.resolve_boolean_value(feature, default_value=False, ctx=context).value)
        except OpenFeatureError:
            return False


def _rule(feature: str, flag: Mapping[str, Any], audience: Audience | None, user: User, bucket: int) -> Rule | None:
    """The first rule that applies, in the order of the document; None for a flag that no operator has written."""
    if is_emergency(flag):
        return Rule(RuleKind.EMERGENCY, on=False, detail=str(flag["metadata"].get("reason", "")))
    if audience is None or not flag.get("targeting") or flag.get("state") == "DISABLED":
        return None
    if feature in user.overrides_off:
        return Rule(RuleKind.OVERRIDE, on=False)
    if feature in user.overrides_on:
        return Rule(RuleKind.OVERRIDE, on=True)
    least = WEIGHTS - weight_of(audience.held_back)
    if group := next((name for name in audience.groups if name in user.groups), None):
        if user.key and bucket >= least:
            return Rule(RuleKind.HELD_BACK, on=False, detail=group, bucket=bucket, weight=least)
        return Rule(RuleKind.GROUP, on=True, detail=group)
    return _share(audience, user, bucket)


def _share(audience: Audience, user: User, bucket: int) -> Rule:
    """The rule of the percentage."""
    if audience.placebo:
        return Rule(RuleKind.PLACEBO, on=False, bucket=bucket, weight=weight_of(audience.placebo))
    if audience.held_back and audience.percent == EVERYBODY.percent and user.key:
        weight = WEIGHTS - weight_of(audience.held_back)
        return Rule(RuleKind.BUCKET, on=bucket < weight, bucket=bucket, weight=weight)
    if audience.percent in {NOBODY.percent, EVERYBODY.percent}:
        return Rule(RuleKind.ALL_USERS, on=audience.percent == EVERYBODY.percent)
    if not user.key:
        return Rule(RuleKind.NO_USER_ID, on=False)
    weight = weight_of(audience.percent)
    return Rule(RuleKind.BUCKET, on=bucket < weight, bucket=bucket, weight=weight)
