"""What a flag document in the cluster gives, read back from its text, and how it compares to what the status gives."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Any, Final

from pydantic import TypeAdapter

from session_rollout.api.base import FEATURE_PATTERN, encodable, sha256_of, shortened
from session_rollout.api.flag_records import FlagsRecord
from session_rollout.api.protection import Protection, ProtectionKind
from session_rollout.api.status_records import Time
from session_rollout.core.flags import (
    BUCKETED,
    EVERYBODY,
    FIRST_PUBLISHED,
    FORCED,
    FORCED_ON,
    GROUP_PREFIX,
    NOBODY,
    NOBODY_TARGETING,
    OFF,
    OFF_CHOSEN,
    ON,
    ON_CHOSEN,
    OWN_FLAGS,
    PLACEBO_VARIANTS,
    VARIANTS,
    WEIGHTS,
    Audience,
    held_back_named,
    of_users,
    shared_rule,
    targeting_of,
    without_held_back,
)

FLAGS_READ: Final = 400  # ten times as many features as a spec may have
LONGEST_RULE: Final = 256  # branches, shares and variants of a rule that is read; the compiler writes less than 64
REASON_LENGTH: Final = 256
TIME: Final = TypeAdapter[datetime](Time)
LARGEST_REVISION: Final = 2**53 - 2**20
NO_VARIANT: Final = ""  # of a flag without a default: applications use their own
EXACT_DIGITS: Final = 20  # more than any number has that counts
OLDER_VARIANTS: Final = {ON: True, OFF: False}  # before a variant said whether a user was chosen
OLDER_NAMES: Final = {ON_CHOSEN: ON, OFF_CHOSEN: OFF, "bucketed": "identified"}  # of variants, and of a shared rule
OLDER_SHARED: Final = {"identified": {"!!": [{"var": "targetingKey"}]}}


@dataclass(frozen=True)
class PublishedDocument:
    """The flag document that is in the cluster, as far as decisions depend on it."""

    sha256: str
    version: int = 0  # resourceVersion of the ConfigMap
    revision: int = 0  # 0 when the text does not say
    owner: str | None = None  # name of the rollout that it is labelled with
    labelled: bool = True  # whether it has that label: without it, the watch does not deliver it
    managed: bool = True  # whether its labels say that a rollout wrote it
    author: str | None = None  # name of the rollout that its text says
    audiences: Mapping[str, Audience | None] = field(default_factory=dict)  # by feature; None for rules that are not ours
    disabled: Mapping[str, str] = field(default_factory=dict)  # features that an emergency turned off; the reason of each
    taken_away: frozenset[str] = frozenset()  # features that are off for everybody, and not by rules that we write
    first_published: Mapping[str, datetime] = field(default_factory=dict)  # by feature, as far as its text says
    protections: tuple[Protection, ...] = ()
    editor: str | None = None  # the other field manager that wrote the text last

    def belongs_to(self, rollout: str) -> bool:
        """Whether this rollout may write it: its own document, or one that a deleted rollout left behind.

        Labels are lost when somebody copies a ConfigMap or creates it again from its data; then its text says whose it is.
        """
        return self.owner in {rollout, None} if self.managed else self.author == rollout

    def gives(self, audiences: Mapping[str, Audience | None], disabled: Collection[str]) -> bool:
        """Whether these features have these audiences, others nobody, and exactly the disabled ones are off by an emergency."""
        given = {**audiences, **dict.fromkeys(disabled, NOBODY)}
        names = self.audiences.keys() | given.keys()
        same = all(self.audiences.get(name, NOBODY) == given.get(name, NOBODY) for name in names)
        return same and set(self.disabled) == set(disabled)

    def without_placebos(self) -> "PublishedDocument":
        """What users have by it: a document that differs in placebos alone gives nobody anything else."""
        return replace(self, audiences=of_users(self.audiences))

    def same_as(self, other: "PublishedDocument") -> bool:
        """Whether it says the same: nothing but metadata that no decision depends on was changed between the two versions."""
        return replace(self, version=other.version) == other

    @property
    def rolled_back(self) -> Protection | None:
        """The rollback that it is the result of."""
        return next((protection for protection in self.protections if protection.kind is ProtectionKind.ROLLBACK), None)

    @property
    def gives_something(self) -> bool:
        """Whether some user has some feature."""
        return any(audience is None or audience.has_users for audience in self.audiences.values())


def read_document(text: str, *, flag_set: str = "", **known: Any) -> PublishedDocument:
    """The document of this text; `known` are the fields that its ConfigMap has besides the text.

    `flag_set` is the one that its ConfigMap is for, by default the one that the text says.

    Whoever may edit the ConfigMap may write anything: a text that is no flag document gives nobody anything, and what the
    API does not allow as a feature is not one. Each part is read for itself: whatever is wrong with one flag or with the
    metadata, a feature that the same edit turned off is off.
    """
    sha256, document = sha256_of(text), _mapping(_parsed(text))
    if not isinstance(document.get("flags"), dict):
        return PublishedDocument(sha256, **known)
    named = (name for name in document["flags"] if name not in OWN_FLAGS and re.fullmatch(FEATURE_PATTERN, name))
    shared, metadata = _mapping(document.get("$evaluators")), _mapping(document.get("metadata"))
    flag_set = flag_set or _text(metadata.get("flagSetId")).rpartition("/")[2]
    rules = SharedRules(flag_set, shared)
    flags = {name: rules.in_place(_mapping(document["flags"][name])) for name in islice(named, FLAGS_READ)}
    disabled = {name: _reason(flag) for name, flag in flags.items() if is_emergency(flag)}
    return PublishedDocument(
        sha256,
        revision=_revision(metadata.get("revision")),
        audiences={name: NOBODY if name in disabled else audience_of(flag, flag_set) for name, flag in flags.items()},
        disabled=disabled,
        taken_away=frozenset(name for name, flag in flags.items() if _is_taken_away(flag)),
        first_published={name: time for name, flag in flags.items() if (time := _first_published(flag)) is not None},
        author=_text(metadata.get("rollout")) or None,
        **known,
    )


def _parsed(text: str) -> Any:
    """The JSON value of a text; None when it is not JSON, or is nested deeper than can be read."""
    try:
        return json.loads(text, parse_int=_number)
    except (ValueError, RecursionError):
        return None


@dataclass(frozen=True)
class SharedRules:
    """The shared rules of a document."""

    flag_set: str
    rules: Mapping[str, Any]

    def in_place(self, flag: Mapping[str, Any]) -> Mapping[str, Any]:
        """The flag with the shared rules that somebody has replaced in place of the references to them: they give it to other users.

        `forcedOff: true` turns every flag off.
        """
        match flag.get("targeting"):
            case {"if": [*branches]}:
                return {**flag, "targeting": {"if": [self._branch(branch) for branch in branches]}}
        return flag

    def _branch(self, branch: Any) -> Any:
        """A condition or a value. What a group gives may be a rule itself: that of users who are held back."""
        match branch:
            case {"if": [*parts]}:
                return {**branch, "if": [self._rule(part) for part in parts]}
        return self._rule(branch)

    def _rule(self, branch: Any) -> Any:
        match branch:
            case {"$ref": str(name)}:
                rule, written = self.rules.get(name), (shared_rule(name, self.flag_set), OLDER_SHARED.get(name))
                return branch if any(known is not None and is_exactly(rule, known) for known in written) else rule
        return branch


def is_exactly(value: Any, wanted: Any) -> bool:
    """Whether JSON values are the same: `true` is not 1, as it is for Python."""
    if type(value) is not type(wanted):
        return False
    if isinstance(wanted, dict):
        return value.keys() == wanted.keys() and all(is_exactly(value[key], item) for key, item in wanted.items())
    if isinstance(wanted, list):
        return len(value) == len(wanted) and all(map(is_exactly, value, wanted))
    return bool(value == wanted)


def _number(digits: str) -> int | float:
    """The number, inexact when it is huge: Python refuses to read an integer of thousands of digits."""
    return int(digits) if len(digits) <= EXACT_DIGITS else float(digits)


def _mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a JSON object; an empty object for anything else."""
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _revision(value: Any) -> int:
    return value if type(value) is int and 0 <= value <= LARGEST_REVISION else 0


def _reason(flag: Mapping[str, Any]) -> str:
    return shortened(encodable(_text(flag["metadata"].get("reason"))), REASON_LENGTH)


def _first_published(flag: Mapping[str, Any]) -> datetime | None:
    try:
        time = TIME.validate_python(_text(_mapping(flag.get("metadata")).get(FIRST_PUBLISHED)))
    except ValueError:
        return None
    return time if time.tzinfo is not None else None


def is_emergency(flag: Any) -> bool:
    """Whether an emergency turned this flag off."""
    flag = _mapping(flag)
    return _is_off(flag) and _mapping(flag.get("metadata")).get("emergencyDisabled") is True


def _is_taken_away(flag: Mapping[str, Any]) -> bool:
    """Whether the flag is on for nobody in a way that the compiler never writes: a person has turned it off."""
    return not any(_values(flag)) and not _is_compiled_for_nobody(flag) and not _is_compiled_for_emergency(flag)


def _is_compiled_for_emergency(flag: Mapping[str, Any]) -> bool:
    default = OFF_CHOSEN if ON_CHOSEN in _mapping(flag.get("variants")) else OFF
    unchanged = "targeting" not in flag and flag.get("defaultVariant") == default
    return is_emergency(flag) and _is_served(flag) and unchanged and any(flag["variants"].values())


def _is_compiled_for_nobody(flag: Mapping[str, Any]) -> bool:
    compiled = flag.get("targeting") in (NOBODY_TARGETING, _older(NOBODY_TARGETING)) or _placebo_of(flag) is not None
    return _is_served(flag) and compiled and any(flag["variants"].values())


def _placebo_of(flag: Mapping[str, Any]) -> Audience | None:
    """The audience of a flag that was compiled for a placebo step, and gives nobody anything; None for any other flag."""
    if not _is_served(flag) or flag["variants"] != PLACEBO_VARIANTS:
        return None
    match flag.get("targeting"):
        case {"if": [*forced, bucketed, {"fractional": [_, [given, int(weight)], [rest, _]]}, _]}:
            ours = (forced, bucketed, given, rest) == (FORCED, BUCKETED, ON, OFF)
            return Audience(placebo=Decimal(weight) * 100 / WEIGHTS) if ours and 0 < weight < WEIGHTS else None
    return None


def _is_off(flag: Mapping[str, Any]) -> bool:
    """Whether no user gets the feature, other than those whom an application forces it on for."""
    return all(value is not None and not value for value in _values(flag))


def _is_served(flag: Mapping[str, Any]) -> bool:
    """Whether applications take a value from this flag: while it is disabled or cannot be read, they use their own default.

    Evaluators read only `ENABLED` and `DISABLED`. Another spelling of the first one is no reason to turn a feature off.
    """
    variants = flag.get("variants")
    return _text(flag.get("state")).upper() == "ENABLED" and isinstance(variants, dict) and bool(variants)


def _values(flag: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values that the flag can have; `True` when that cannot be told, None for a variant that it does not have."""
    if not _is_served(flag):
        return (False,)
    try:
        given = _variants(flag.get("targeting") or None, flag.get("defaultVariant"))
    except (TypeError, ValueError, IndexError, RecursionError):
        return (True,)  # no evaluator can read the rules
    return (True,) if given is None else tuple(flag["variants"].get(name) for name in given)


def _variants(rule: Any, default: Any) -> frozenset[str] | None:
    """The variants that a rule can give; None when that cannot be told, or when the rule is too long to tell."""
    if rule is None or rule == {}:
        return frozenset({default if isinstance(default, str) else NO_VARIANT})
    match rule:
        case str():
            return frozenset({rule})
        case bool():
            return frozenset({str(rule).lower()})
        case {"if": [*branches]} if len(rule) == 1 and len(branches) <= LONGEST_RULE:
            return _variants_of_branches(branches, default)
        case {"fractional": [*shares]} if len(rule) == 1 and len(shares) <= LONGEST_RULE:
            return _variants_of_shares(shares)
    return None


def _variants_of_branches(branches: list[Any], default: Any) -> frozenset[str] | None:
    """Of `if`: conditions and rules in turn, and perhaps a rule for the rest."""
    conditions, rules = [*branches[:-1:2], True], [*branches[1::2], branches[-1] if len(branches) % 2 else None]
    given: frozenset[str] = frozenset()
    for condition, rule in zip(conditions, rules, strict=True):
        constant = not isinstance(condition, dict | list)
        if condition == FORCED_ON or (constant and not condition):
            continue
        possible = _variants(rule, default)
        if possible is None:
            return None
        given |= possible
        if len(given) > LONGEST_RULE:
            return None
        if constant and condition:
            break
    return given


def _variants_of_shares(shares: list[Any]) -> frozenset[str] | None:
    """Of `fractional`: what is bucketed, and pairs of variant and weight."""
    pairs = shares if isinstance(shares[0], list) else shares[1:]
    return frozenset(str(name) for name, *weight in pairs if weight != [0]) if pairs else None


def audience_of(flag: Any, flag_set: str) -> Audience | None:
    """The audience that `core.flags` compiled into this flag, or what its default gives; None for other rules.

    Rules that are not exactly those of the compiler may give the feature to other users, however many these are.
    """
    flag = _mapping(flag)
    if _is_off(flag):
        return _placebo_of(flag) or NOBODY  # nobody has the feature by it, however its users are divided
    variants, targeting = flag["variants"], flag.get("targeting")
    if not targeting:
        return EVERYBODY if variants.get(_text(flag.get("defaultVariant"))) is True else None
    older = ON_CHOSEN not in variants
    if any(variants.get(name) is not value for name, value in (OLDER_VARIANTS if older else VARIANTS).items()):
        return None
    audience = _one_form(_written(targeting))
    compiled = targeting_of(flag_set, audience) if audience is not None else None
    return audience if is_exactly(targeting, _older(compiled) if older else compiled) else None


def _written(targeting: Any) -> Audience | None:
    """The audience that rules are for, if the compiler wrote them; None if it cannot have."""
    try:
        _, _, _, _, *rules = targeting["if"]
        groups: list[str] = []
        held = NOBODY.held_back
        while isinstance(rules[0], dict) and rules[0]["$ref"].startswith(GROUP_PREFIX):
            groups.append(rules[0]["$ref"].removeprefix(GROUP_PREFIX))
            held = held if isinstance(rules[1], str) else _held_back(rules[1])
            rules = rules[2:]
        if len(rules) == 1:
            return Audience(EVERYBODY.percent if rules[0] == ON else NOBODY.percent, tuple(groups), held_back=held)
        _, (_, weight), _ = rules[1]["fractional"]
        if not 0 < weight < WEIGHTS:
            return None
        percent = Decimal(weight) * 100 / WEIGHTS
        if rules[2] == ON_CHOSEN:
            return Audience(EVERYBODY.percent, tuple(groups), held_back=EVERYBODY.percent - percent)
        return Audience(percent, tuple(groups), held_back=held)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None


def _held_back(value: Any) -> Decimal:
    """The percentage of users to whom a group gives nothing."""
    return held_back_named(value["if"][0]["$ref"]) or NOBODY.held_back


def _one_form(audience: Audience | None) -> Audience | None:
    return without_held_back(audience, audience.held_back) if audience is not None else None


def _older(rule: Any) -> Any:
    """Rules as they were before a variant said whether a user was chosen."""
    if isinstance(rule, dict):
        return {name: _older(part) for name, part in rule.items()}
    if isinstance(rule, list):
        return [_older(part) for part in rule]
    return OLDER_NAMES.get(rule, rule) if isinstance(rule, str) else rule


def _added(given: Mapping[str, Audience | None]) -> Iterator[list[tuple[str, Any]]]:
    """What the text of an audience does not have: placebos, and users who are held back."""
    known = [(name, audience) for name, audience in given.items() if audience is not None]
    if placebos := [(name, audience.placebo) for name, audience in known if audience.placebo]:
        yield placebos
    if held := [(name, f"held back: {audience.held_back.normalize():f}") for name, audience in known if audience.held_back]:
        yield held


def note_given(flags: FlagsRecord, document: PublishedDocument, now: datetime) -> FlagsRecord:
    """Keep since when users have what this document gives, which was read in the cluster, whoever wrote it."""
    given = {name: audience for name, audience in document.audiences.items() if audience != NOBODY}
    given_text = "".join(repr(sorted(each)) for each in (given.items(), *_added(given)))
    given_sha256 = sha256_of(given_text)  # as versions without placebos and users who are held back wrote it
    if given_sha256 == flags.given_sha256:
        return flags
    is_first = flags.given_sha256 is None and flags.revision <= 1 and not given
    return flags.updated(given_sha256=given_sha256, given_time=None if is_first else now)
