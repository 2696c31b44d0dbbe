"""The flag document compiler: audiences in, flagd JSON out.

Rule order in every flag: emergency > forced off > forced on > groups > percentage > off. All flags of a rollout share one
salt, so every user of a feature also gets its prerequisites. Buckets are those of flagd's bucketing generation v2: `["on", w]`
first, weights of a thousand. Emergency is ENABLED + default off + no targeting: DISABLED would give the caller's default.

The variant says why a user has a value. `on` and `off` come from the percentage alone: these users were divided at random, and
can be compared. Everybody else has `on-chosen` or `off-chosen`. One more flag divides users into cells of one size.

Users who are held back have the last buckets: no percentage reaches them, and a group gives them nothing. Where everybody else has the
feature, that includes users who have no bucket.

In a placebo step, the variants are those of its percentage, and the value of `on` is false. Only who is forced on has the feature.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from session_rollout.api.base import sha256_of
from session_rollout.api.flag_records import DISABLED_LENGTH, DisabledFeature
from session_rollout.api.parsing import FLAGS_SUFFIX
from session_rollout.api.rollout import OnOff, RolloutSpec
from session_rollout.api.status import RolloutStatus
from session_rollout.api.status_records import PhaseRecord, rfc3339
from session_rollout.core.status_budget import kept

SCHEMA: Final = "https://flagd.dev/schema/v0/flags.json"
KEY: Final = "flags.flagd.json"
BUCKETING: Final = "v2"
PROBE: Final = "sessionrollout-bucketing-generation"
CELL: Final = "sessionrollout-cell"
CELL_NAMES: Final = tuple(str(number) for number in range(16))
NO_CELL: Final = "none"  # of a user without a targeting key
OWN_FLAGS: Final = frozenset({PROBE, CELL})
FIRST_PUBLISHED: Final = "firstPublished"
GROUP_PREFIX: Final = "group-"
HELD_BACK_PREFIX: Final = "heldBack-"
WEIGHTS: Final = 1000
ON: Final = "on"
OFF: Final = "off"
ON_CHOSEN: Final = "on-chosen"
OFF_CHOSEN: Final = "off-chosen"
VARIANTS: Final = {ON: True, OFF: False, ON_CHOSEN: True, OFF_CHOSEN: False}
PLACEBO_VARIANTS: Final = {**VARIANTS, ON: False}


@dataclass(frozen=True)
class Audience:
    """Who gets a feature: a share of all users, and named groups whatever the share."""

    percent: Decimal = Decimal(0)
    groups: tuple[str, ...] = ()
    placebo: Decimal = field(
        default=Decimal(0), repr=False
    )  # percentage of users with the variant `on`, while nobody has the feature
    held_back: Decimal = field(default=Decimal(0), repr=False)  # percentage of users to whom groups and 100% give nothing

    @property
    def has_users(self) -> bool:
        """Whether somebody gets the feature: a placebo gives it to nobody."""
        return self.percent > 0 or bool(self.groups)

    @property
    def share(self) -> Decimal:
        """The percentage of users who have the feature by their bucket."""
        return min(self.percent, 100 - self.held_back)


@dataclass(frozen=True)
class FlagDocument:
    """The text that is published and its fingerprint."""

    config_map: str
    text: str
    sha256: str


EVERYBODY: Final = Audience(percent=Decimal(100))
NOBODY: Final = Audience()


def without_held_back(audience: Audience, held_back: Decimal) -> Audience:
    """The audience without the users who are held back, in its one form: audiences of the same users are equal.

    Below 100% and without groups, it is a smaller percentage, or the same.
    """
    held = max(held_back, audience.held_back)
    if not held:
        return audience
    least, whole = EVERYBODY.percent - held, audience.percent == EVERYBODY.percent
    percent = audience.percent if whole else min(audience.percent, least)
    return Audience(
        percent, audience.groups, min(audience.placebo, least), held if audience.groups or whole else NOBODY.held_back
    )


def held_back_of(status: RolloutStatus, record: PhaseRecord) -> Decimal:
    """The percentage of users who are held back from the features of a phase."""
    is_over = status.flags.released_time is not None or record.promoted_time is not None
    return Decimal(0) if is_over else Decimal(record.held_back or 0)


def audience_of_phase(status: RolloutStatus, record: PhaseRecord) -> Audience:
    """Who is to have the features of a phase."""
    audience = Audience(Decimal(record.percent), record.groups, Decimal(record.placebo or 0))
    return without_held_back(audience, held_back_of(status, record))


def config_map_name(flag_set: str) -> str:
    """Name of the ConfigMap that holds a flag set."""
    return f"{flag_set}{FLAGS_SUFFIX}"


def flag_set_of(config_map: str) -> str:
    """The flag set that the ConfigMap of this name holds."""
    return config_map.removesuffix(FLAGS_SUFFIX)


@dataclass(frozen=True)
class FlagSource:
    """What a flag document is compiled from."""

    flag_set: str
    namespace: str
    audiences: Mapping[str, Audience]
    disabled: Mapping[str, str] = field(default_factory=dict)  # feature -> reason
    metadata: Mapping[str, str | int] = field(default_factory=dict)
    first_published: Mapping[str, datetime] = field(default_factory=dict)  # by feature, see `core.first_publish`


def audiences(spec: RolloutSpec, status: RolloutStatus) -> dict[str, Audience]:
    """Who has which feature now: the audience published for its phase, else its initial value."""
    by_feature = {feature.name: NOBODY for feature in spec.features}
    by_feature.update(dict.fromkeys(initially_on(spec, status), EVERYBODY))
    for record in status.phases:
        by_feature.update(dict.fromkeys(record.features, audience_of_phase(status, record)))
    by_feature.update({kept.feature: Audience(Decimal(kept.percent), kept.groups) for kept in status.flags.retired})
    return {**{record.feature: NOBODY for record in status.flags.disabled}, **by_feature}


def of_users(audiences: Mapping[str, Audience | None]) -> dict[str, Audience | None]:
    """What users have by these audiences; None for rules that are not ours, by which they may have anything."""
    return {name: audience if audience is None or audience.has_users else NOBODY for name, audience in audiences.items()}


def initially_on(spec: RolloutSpec, status: RolloutStatus) -> tuple[str, ...]:
    """Features that everybody has before their phase. One that was off is not among them: only its phase gives it to users."""
    off = status.flags.initially_off
    return tuple(feature.name for feature in spec.features if feature.initial is OnOff.ON and feature.name not in off)


def initially_off(spec: RolloutSpec, status: RolloutStatus) -> tuple[str, ...]:
    """Features that no phase has published and that are off before their phase, or were in an earlier spec."""
    published = {name for record in status.phases for name in record.features}
    on = {*initially_on(spec, status), *published}
    return tuple(sorted(feature.name for feature in spec.features if feature.name not in on))


def with_dependents(spec: RolloutSpec, features: Mapping[str, str]) -> dict[str, str]:
    """The disabled features and all features that depend on them, each with its reason."""
    disabled = dict(features)
    waiting = list(disabled)
    while waiting:
        prerequisite = waiting.pop()
        for feature in spec.features:
            if prerequisite in feature.depends_on and feature.name not in disabled:
                disabled[feature.name] = f"depends on {prerequisite}: {disabled[prerequisite]}"
                waiting.append(feature.name)
    return disabled


def disabled_features(spec: RolloutSpec, status: RolloutStatus) -> dict[str, str]:
    """Features that are off because of an emergency, with their dependents; each with its reason.

    A feature that no longer depends on a disabled one stays off with it: only an `EmergencyEnable` action turns it on.
    """
    declared, known = _disabled_by_spec(spec, status), audiences(spec, status)
    recorded = {
        name: f"depends on {record.feature}: {record.reason}"
        for record in status.flags.disabled
        for name in record.dependents
        if name in known and name not in declared
    }
    return with_dependents(spec, {**declared, **recorded}) if recorded else declared


def _disabled_by_spec(spec: RolloutSpec, status: RolloutStatus) -> dict[str, str]:
    return with_dependents(spec, {record.feature: record.reason for record in status.flags.disabled})


def with_recorded_dependents(spec: RolloutSpec, disabled: tuple[DisabledFeature, ...]) -> tuple[DisabledFeature, ...]:
    """The records, with the features that depend on each of them now or did before. Where a list is full, earlier ones make room."""
    taken = {name for record in disabled for name in (record.feature, *record.dependents)}
    records = []
    for record in disabled:
        present = with_dependents(spec, {record.feature: ""})
        fresh = tuple(name for name in present if name not in taken)
        taken.update(fresh)
        dependents = kept((*record.dependents, *fresh), present.__contains__, DISABLED_LENGTH)
        records.append(record.updated(dependents=dependents) if fresh else record)
    return tuple(records)


def compile_document(given: FlagSource) -> FlagDocument:
    """The flag document; the same input gives the same bytes."""
    metadata = {"flagSetId": f"{given.namespace}/{given.flag_set}", "bucketingGeneration": BUCKETING, **given.metadata}
    rules = frozenset(name for audience in given.audiences.values() for name in _names_of_rules(audience))
    flags = {
        name: _flag(given.flag_set, audience, given.disabled.get(name), given.first_published.get(name))
        for name, audience in sorted(given.audiences.items())
    }
    text = _object(
        {
            "$schema": _json(SCHEMA),
            "metadata": _json(metadata),
            "$evaluators": _evaluators(given.flag_set, rules),
            "flags": _object({**flags, PROBE: _PROBE_FLAG, CELL: _cell_flag(given.flag_set)}),
        }
    )
    return FlagDocument(config_map_name(given.flag_set), text, sha256_of(text))


# Every decision compiles the whole document, in which hardly a flag has changed, and indented JSON is slow to write: so the
# texts of its parts are kept.


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=False, ensure_ascii=True)


def _object(members: Mapping[str, str]) -> str:
    """The object with these texts as values, as `_json` would write it."""
    text = ",\n".join(f"{json.dumps(name)}: {value}" for name, value in members.items())
    return "{\n " + text.replace("\n", "\n ") + "\n}"


@functools.lru_cache(maxsize=1024)
def _evaluators(flag_set: str, names: frozenset[str]) -> str:
    """The rules that flags refer to: those of every document, and these."""
    return _json({name: shared_rule(name, flag_set) for name in (*_SHARED, *sorted(names))})


def _names_of_rules(audience: Audience) -> Iterator[str]:
    """The rules that the flag of this audience refers to, and others do not."""
    yield from (f"{GROUP_PREFIX}{group}" for group in audience.groups)
    if audience.groups and audience.held_back:
        yield held_back_name(audience.held_back)


def shared_rule(name: str, flag_set: str) -> Mapping[str, Any] | None:
    """The rule of this name that flags refer to; None when the compiler writes none."""
    if (held := held_back_named(name)) is not None:
        return _held_back(flag_set, weight_of(held))
    group = name.removeprefix(GROUP_PREFIX)
    return _SHARED.get(name) if group == name else {"in": [group, {"var": ["groups", []]}]}


def held_back_name(percent: Decimal) -> str:
    """The name of the rule for users who are held back: with how many of the 1,000 buckets are theirs."""
    return f"{HELD_BACK_PREFIX}{weight_of(percent)}"


def held_back_named(name: str) -> Decimal | None:
    """The percentage of users that the rule of this name holds back; None for any other rule."""
    known = re.fullmatch(f"{HELD_BACK_PREFIX}([1-9][0-9]{{0,2}})", name)
    return Decimal(known[1]) * 100 / WEIGHTS if known is not None else None


def _held_back(flag_set: str, weight: int) -> Mapping[str, Any]:
    """Whether a user has one of the last buckets. It refers to no other rule: evaluators do not resolve that here."""
    bucket = {"fractional": [_bucket(flag_set), ["others", WEIGHTS - weight], ["heldBack", weight]]}
    return {"and": [_IS_KNOWN_GENERATION, _IS_IDENTIFIED, {"==": [bucket, "heldBack"]}]}


@functools.lru_cache(maxsize=4096)
def _flag(flag_set: str, audience: Audience, emergency: str | None, first_published: datetime | None) -> str:
    """One flag: its targeting rules, or its default `off` while an emergency disables it."""
    metadata: dict[str, Any] = {"emergencyDisabled": True, "reason": emergency} if emergency is not None else {}
    if first_published is not None:
        metadata[FIRST_PUBLISHED] = rfc3339(first_published)
    variants = PLACEBO_VARIANTS if audience.placebo and emergency is None else VARIANTS
    rules = {} if emergency is not None else {"targeting": targeting_of(flag_set, audience)}
    known = {"metadata": metadata} if metadata else {}
    return _json({"state": "ENABLED", "variants": variants, "defaultVariant": OFF_CHOSEN, **rules, **known})


def targeting_of(flag_set: str, audience: Audience) -> dict[str, Any]:
    """The targeting rules that give a feature to this audience, or its variants in a placebo step."""
    return {"if": [*FORCED, *_groups(audience), *_share(flag_set, audience)]}


FORCED_ON: Final = {"$ref": "forcedOn"}
FORCED: Final = [{"$ref": "forcedOff"}, OFF_CHOSEN, FORCED_ON, ON_CHOSEN]
NOBODY_TARGETING: Final = {"if": [*FORCED, OFF_CHOSEN]}
BUCKETED: Final = {"$ref": "bucketed"}
_GENERATION: Final = {"fractional": [{"cat": ["probe-0"]}, ["v3", 1], ["v2", 1], ["v1", 1]]}
_IS_KNOWN_GENERATION: Final = {"==": [_GENERATION, BUCKETING]}  # another one would give the percentage to other users
_IS_IDENTIFIED: Final = {"!!": [{"var": "targetingKey"}]}
_SHARED: Final[Mapping[str, Mapping[str, Any]]] = {
    "forcedOff": {"in": [{"var": "$flagd.flagKey"}, {"var": ["overridesOff", []]}]},
    "forcedOn": {"in": [{"var": "$flagd.flagKey"}, {"var": ["overridesOn", []]}]},
    "bucketed": {"and": [_IS_KNOWN_GENERATION, _IS_IDENTIFIED]},
}
_PROBE_FLAG: Final = _json(
    {
        "state": "ENABLED",
        "variants": {"v1": "v1", "v2": "v2", "v3": "v3"},
        "defaultVariant": "v2",
        "targeting": _GENERATION,
    }
)


@functools.lru_cache(maxsize=1024)
def _cell_flag(flag_set: str) -> str:
    """The flag that divides users into cells, whatever percentage they are in: the label `cell` of what an application counts."""
    bucket = {"cat": [f"{flag_set}:cell:", {"var": "targetingKey"}]}
    return _json(
        {
            "state": "ENABLED",
            "variants": {name: name for name in (*CELL_NAMES, NO_CELL)},
            "defaultVariant": NO_CELL,
            "targeting": {"if": [BUCKETED, {"fractional": [bucket, *([name, 1] for name in CELL_NAMES)]}, NO_CELL]},
        }
    )


def _groups(audience: Audience) -> list[Any]:
    """Conditions and values for the groups: each gives the feature, but to users who are held back."""
    held = {"$ref": held_back_name(audience.held_back)}
    value = {"if": [held, OFF_CHOSEN, ON_CHOSEN]} if audience.held_back else ON_CHOSEN
    return [part for group in audience.groups for part in ({"$ref": f"{GROUP_PREFIX}{group}"}, value)]


def weight_of(percent: Decimal) -> int:
    """The first bucket that a percentage does not reach."""
    return int(percent * WEIGHTS / 100)


def _share(flag_set: str, audience: Audience) -> list[Any]:
    """The last rule, which compiles the percentage into a weight: users by the bucket of their targeting key.

    Users without one, and all users of an evaluator with another bucketing generation, are off. Where everybody has the feature but
    those who are held back, they are on: nobody can tell that they are held back, and the release is not for them.
    """
    weight, rest = weight_of(audience.placebo or audience.percent), OFF_CHOSEN
    if weight == WEIGHTS and audience.held_back:
        weight, rest = WEIGHTS - weight_of(audience.held_back), ON_CHOSEN
    if weight in {0, WEIGHTS}:
        return [ON if weight else OFF_CHOSEN]
    return [BUCKETED, {"fractional": [_bucket(flag_set), [ON, weight], [OFF, WEIGHTS - weight]]}, rest]


def _bucket(flag_set: str) -> Mapping[str, Any]:
    """What selects the bucket of a user."""
    return {"cat": [f"{flag_set}:", {"var": "targetingKey"}]}
