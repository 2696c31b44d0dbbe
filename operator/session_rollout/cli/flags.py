"""The commands `flags ...`: who has which feature, and what users may change without contradicting the rollout.

A rollout advances the features of a phase together, step by step. `enable` and `rollout` therefore advance to the step that
has the requested audience; if the running phase has no such step, they list its steps.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from session_rollout.adapters.kubectl import ROLLOUT_RESOURCE, Kubectl
from session_rollout.api.base import sha256_of
from session_rollout.api.enums import ActionType, Stage
from session_rollout.api.phases import Phase
from session_rollout.api.quantities import format_duration
from session_rollout.api.rollout import SessionRollout
from session_rollout.cli.action_client import ActionOptions, act, action_options, confirm
from session_rollout.cli.command import Group, emit, output, refusal, usage_error
from session_rollout.cli.common import (
    ROLLOUT,
    DurationType,
    counted,
    listed,
    pass_kubectl,
    print_table,
    read_rollout,
    rollout_of,
)
from session_rollout.cli.flag_document import (
    FOREIGN_RULES,
    Evaluation,
    Evaluator,
    User,
    published,
    published_or_none,
    read_document,
)
from session_rollout.cli.running_step import skipped_checks, target_of
from session_rollout.cli.stale import StaleFeature, stale_features
from session_rollout.core.documents import PublishedDocument
from session_rollout.core.flags import NOBODY, Audience, audiences, disabled_features, with_dependents
from session_rollout.core.holdback import users_text
from session_rollout.core.steps import Increment, audience_text, increments, percent_text, placebo_text

WHOLE = 100


@click.group("flags", cls=Group)
def flags() -> None:
    """Show, verify, advance and turn off feature flags."""


def _require_feature(rollout: SessionRollout, feature: str) -> None:
    """Raises Failure when the spec has no such feature."""
    known = [candidate.name for candidate in rollout.spec.features]
    if feature not in known:
        near = [name for name in known if name.lower() == feature.lower()]
        hint = f"did you mean {near[0]}?" if near else f"features of {rollout.name}: {listed(known)}"
        raise usage_error(f"there is no feature {feature}; {hint}")


# --- status, who, verify


@flags.command("status")
@ROLLOUT
@output()
@pass_kubectl
def status(kubectl: Kubectl, name: str | None, form: str | None) -> None:
    """Show the published audience of every feature, its phase, and the features that are disabled in an emergency.

    Features that have left the spec and are still published are shown, too.
    """
    rollout = read_rollout(kubectl, name)
    document = published_or_none(kubectl, rollout)
    if document is None:
        click.echo("The flag document is not published, or you may not read it; audiences are those of the status.", err=True)
    rows = list(feature_rows(rollout, document))
    if form:
        emit(rows, form)
        return
    print_table(
        ("FEATURE", "AUDIENCE", "PHASE", "EMERGENCY"),
        [(row["feature"], _audience(row), _place(row), _emergency(row)) for row in rows],
    )


def feature_rows(rollout: SessionRollout, document: PublishedDocument | None) -> Iterator[dict[str, Any]]:
    """One row for each feature that is published, in the spec or in the status."""
    disabled, known = disabled_features(rollout.spec, rollout.status), audiences(rollout.spec, rollout.status)
    phases = {feature: record.name for record in rollout.status.phases for feature in record.features}
    phases |= {feature: phase.name for phase in rollout.spec.phases for feature in phase.features}
    specified = {feature.name for feature in rollout.spec.features}
    given: Mapping[str, Audience | None] = known if document is None else document.audiences
    emergencies = {} if document is None else document.disabled
    for name in dict.fromkeys([*(feature.name for feature in rollout.spec.features), *known, *disabled, *given]):
        audience = given.get(name, NOBODY)
        yield {
            "feature": name,
            "percent": percent_text(audience.percent) if audience is not None else "",
            "groups": list(audience.groups) if audience is not None else [],
            "placebo": (placebo_text(audience.placebo) or "") if audience is not None else "",
            "heldBack": percent_text(audience.held_back) if audience is not None else "",
            "phase": phases.get(name, ""),
            "disabled": emergencies.get(name) or disabled.get(name, ""),
            "pending": name in disabled and document is not None and (audience is None or audience.has_users),
            "inSpec": name in specified,
        }


def _audience(row: Mapping[str, Any]) -> str:
    if row["disabled"] and not row["pending"]:
        return "off for all users"
    known = (row[name] for name in ("percent", "groups", "placebo", "heldBack"))
    return audience_text(*known) if row["percent"] else FOREIGN_RULES


def _emergency(row: Mapping[str, Any]) -> str:
    return f"NOT IN FORCE: {row['disabled']}" if row["pending"] else str(row["disabled"])


def _place(row: Mapping[str, Any]) -> str:
    return str(row["phase"]) if row["inSpec"] else f"{row['phase']} (not in the spec)".lstrip()


@flags.command("who")
@click.argument("user")
@click.option("--group", "groups", multiple=True, help="Evaluate for a user of this group. Can be repeated.")
@click.option("--on", "overrides_on", multiple=True, metavar="FEATURE", help="Force this feature on.")
@click.option("--off", "overrides_off", multiple=True, metavar="FEATURE", help="Force this feature off.")
@ROLLOUT
@output()
@pass_kubectl
def who(kubectl: Kubectl, /, user: str, *, name: str | None, form: str | None, **context: tuple[str, ...]) -> None:
    """Show the flags of USER according to the published document, and the rule that decides each."""
    rollout = read_rollout(kubectl, name)
    text = read_document(kubectl, rollout)
    evaluator, known = Evaluator(text, rollout.spec.flag_set), published(text)
    for feature in (*context["overrides_on"], *context["overrides_off"]):
        if feature not in known.audiences:
            _require_feature(rollout, feature)
    evaluations = list(evaluator.evaluate(User(user, **context)))
    if form:
        emit([evaluation.as_data() for evaluation in evaluations], form)
        return
    rows = [(evaluation.feature, "on" if evaluation.on else "off", str(evaluation.rule)) for evaluation in evaluations]
    print_table(("FEATURE", "VALUE", "RULE"), rows)


@flags.command("verify")
@click.option(
    "--users", default=1000, show_default=True, type=click.IntRange(1, 100_000), help="Evaluate for this many generated users."
)
@ROLLOUT
@output()
@pass_kubectl
def verify(kubectl: Kubectl, *, users: int, name: str | None, form: str | None) -> None:
    """Evaluate the published document for generated users, and compare the values with its rules."""
    rollout = read_rollout(kubectl, name)
    text = read_document(kubectl, rollout)
    _require_published(rollout, text)
    evaluator = Evaluator(text, rollout.spec.flag_set)
    evaluations = [evaluation for number in range(users) for evaluation in evaluator.evaluate(User(f"user-{number}"))]
    rows = _shares(rollout, evaluations, users)
    if form:
        emit(rows, form)
    else:
        print_table(
            ("FEATURE", "EVALUATED", "PUBLISHED"), [(row["feature"], row["evaluated"], row["published"]) for row in rows]
        )
    if different := [evaluation for evaluation in evaluations if evaluation.on is not evaluation.rule.on]:
        first = different[0]
        raise refusal(f"{counted(len(different), 'evaluation')} do not match their rule, such as {first.feature}: {first.rule}")
    click.echo(f"valid and published; {counted(len(evaluations), 'evaluation')} match their rules", err=bool(form))


def _require_published(rollout: SessionRollout, text: str) -> None:
    """Raises Failure unless the text is valid and is what the rollout published."""
    from session_rollout.adapters.flag_evaluator import validate

    published = rollout.status.flags
    if published.sha256 is None:
        raise refusal(f"{rollout.name} has not published a flag document yet; the one in the cluster is older")
    where, digest = f"ConfigMap {published.config_map} is", sha256_of(text)
    if digest not in {published.sha256, published.published_sha256}:
        raise refusal(f"{where} not what the rollout published: it was modified externally, or its update is not visible yet")
    if digest != published.sha256:
        waiting = rollout.status.decision.message
        raise refusal(f"{where} the document that was published last; the next one is not published yet: {waiting}")
    validate(text)


def _shares(rollout: SessionRollout, evaluations: Sequence[Evaluation], users: int) -> list[dict[str, str]]:
    """For each feature, the share of generated users that have it and the published percentage."""
    counts = Counter(evaluation.feature for evaluation in evaluations if evaluation.on)
    disabled = disabled_features(rollout.spec, rollout.status)
    return [
        {
            "feature": feature,
            "evaluated": f"{100 * counts[feature] / users:.1f}%",
            "published": f"{percent_text(Decimal(0) if feature in disabled else audience.share)}%",
        }
        for feature, audience in audiences(rollout.spec, rollout.status).items()
    ]


@flags.command("stale")
@click.option("--in", "name", metavar="NAME", help="Report on this rollout.", show_default="all of the namespace")
@click.option("-A", "--all-namespaces", is_flag=True, help="Report on the rollouts of all namespaces.")
@click.option(
    "--older-than",
    type=DurationType(),
    default="30d",
    show_default=True,
    help="List a promoted feature if all users have had it for this long.",
)
@output()
@pass_kubectl
def stale(kubectl: Kubectl, name: str | None, *, all_namespaces: bool, older_than: timedelta, form: str | None) -> None:
    """List features whose flag can be removed from the code: all users have had them since a promotion, or they are retired.

    Features that have left the spec and are still published are listed, too.
    """
    if name and all_namespaces:
        raise usage_error("--in and --all-namespaces are mutually exclusive")
    where = ["-A"] if all_namespaces else []
    items = [kubectl.get(ROLLOUT_RESOURCE, name).json()] if name else kubectl.list(ROLLOUT_RESOURCE, *where).items()
    now = datetime.now(UTC)
    features = [feature for item in items for feature in stale_features(rollout_of(item), now, older_than)]
    if form:
        emit([_stale_data(feature) for feature in features], form)
    elif features:
        print_table(
            ("NAMESPACE", "ROLLOUT", "FEATURE", "AUDIENCE", "WHY", "SINCE"), [_stale_row(feature, now) for feature in features]
        )
    else:
        click.echo(f"no stale features in {counted(len(items), 'rollout')}")


def _stale_data(feature: StaleFeature) -> dict[str, Any]:
    data = {"namespace": feature.rollout.namespace, "rollout": feature.rollout.name, "feature": feature.name}
    since = feature.since.isoformat() if feature.since else ""
    return {**data, "audience": feature.audience, "why": feature.why, "since": since}


def _stale_row(feature: StaleFeature, now: datetime) -> tuple[str, ...]:
    since = f"{feature.since:%Y-%m-%d} ({format_duration(now - feature.since)})" if feature.since else ""
    return feature.rollout.namespace, feature.rollout.name, feature.name, feature.audience, feature.why, since


# --- enable, rollout


@flags.command("enable")
@click.argument("feature")
@click.option("--group", required=True, help="Give the feature to this group.")
@ROLLOUT
@action_options(confirms=True)
@pass_kubectl
def enable(kubectl: Kubectl, feature: str, *, group: str, name: str | None, options: ActionOptions) -> None:
    """Give FEATURE to a group by advancing to the next step, if that step names the group.

    Completes the current step without waiting for its hold, criteria or approval, and requires --reason for that. All features of
    the phase advance. Creates a Promote action.
    """
    _advance(read_rollout(kubectl, name), kubectl, feature, Target(group=group), options)


@flags.command("rollout")
@click.argument("feature")
@click.option("--percentage", required=True, metavar="PERCENT", help="Give the feature to this percentage of users.")
@ROLLOUT
@action_options(confirms=True)
@pass_kubectl
def rollout_to(kubectl: Kubectl, feature: str, *, percentage: str, name: str | None, options: ActionOptions) -> None:
    """Give FEATURE to a percentage of users by advancing to the next step, if that step reaches the percentage.

    Completes the current step without waiting for its hold, criteria or approval, and requires --reason for that. The audience is
    that of the next step, which may be larger. All features of the phase advance. Creates a Promote action.
    """
    try:
        percent = Decimal(percentage.removesuffix("%"))
    except InvalidOperation:
        percent = Decimal(-1)
    if not percent.is_finite() or not 0 <= percent <= WHOLE:
        raise usage_error(f"--percentage is {percentage!r}; it must be a number from 0 to 100")
    _advance(read_rollout(kubectl, name), kubectl, feature, Target(percent=percent), options)


@dataclass(frozen=True)
class Target:
    """A group or a percentage of users that should have a feature."""

    group: str | None = None
    percent: Decimal | None = None

    def __str__(self) -> str:
        return f"group {self.group}" if self.group else f"{percent_text(self.percent or Decimal(0))}%"

    def is_reached(self, percent: Decimal, groups: Sequence[str]) -> bool:
        """Whether an audience includes it."""
        return (self.group is not None and self.group in groups) or (self.percent is not None and percent >= self.percent)


def _advance(rollout: SessionRollout, kubectl: Kubectl, feature: str, target: Target, options: ActionOptions) -> None:
    """Advance to the next step if it reaches the target; otherwise say what the rollout has instead."""
    _require_feature(rollout, feature)
    published = audiences(rollout.spec, rollout.status)[feature]
    if target.is_reached(published.percent, published.groups):
        click.echo(f"{feature} is already at {users_text(published)}, which includes {target}")
        return
    phase = _phase_of(rollout, feature)
    following = _reaching(rollout, phase, target)
    if not options.reason:
        raise usage_error(
            "--reason is required, because the current step is completed without waiting for its hold, criteria or approval"
        )
    others = listed([name for name in phase.features if name != feature])
    lines = [f"Advancing phase {phase.name} to {following.audience} now. Features that advance with {feature}: {others}."]
    confirm([*lines, "This skips:", *skipped_checks(rollout)], "Advance?", yes=options.yes)
    act(kubectl, rollout.name, ActionType.PROMOTE, options, **target_of(rollout))


def _phase_of(rollout: SessionRollout, feature: str) -> Phase:
    """The phase of a feature. Raises Failure unless a step of it is running."""
    current = rollout.status.current
    phase = next((candidate for candidate in rollout.spec.phases if feature in candidate.features), None)
    if phase is None:
        raise refusal(f"{feature} is not in a phase of {rollout.name}; add it to the `features` of a phase")
    if (current.phase, current.stage) != (phase.name, Stage.STEP):
        place = f"phase {current.phase}, stage {current.stage}" if current.phase else f"stage {current.stage}"
        raise refusal(f"{feature} belongs to phase {phase.name}, but the rollout is in {place}")
    return phase


def _reaching(rollout: SessionRollout, phase: Phase, target: Target) -> Increment:
    """The increment that a `Promote` action advances to. Raises Failure when it does not reach the target."""
    steps = increments(phase)
    following = next((increment for increment in steps if increment.step > rollout.status.current.step), None)
    if following is not None and target.is_reached(following.percent, following.groups):
        return following
    ladder = listed([increment.audience for increment in steps])
    hint = f"the next is {following.audience}; use `promote` to advance one step" if following else "the last one is running"
    raise refusal(f"the next step of phase {phase.name} does not reach {target}; steps: {ladder}; {hint}")


# --- emergencies


@flags.command("emergency-disable")
@click.argument("features", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Turn off all features of the rollout.")
@ROLLOUT
@action_options(reason=True)
@pass_kubectl
def emergency_disable(
    kubectl: Kubectl, features: tuple[str, ...], *, everything: bool, name: str | None, options: ActionOptions
) -> None:
    """Turn FEATURES off for all users now, until `flags emergency-enable`.

    During the emergency, groups, percentages and overrides do not apply to these features. The command does not prompt. If a
    name is not a feature, the others are turned off all the same, and the exit code is 1.
    """
    rollout = _with_features(kubectl, name, features, everything=everything)
    dependents = [feature for feature in with_dependents(rollout.spec, dict.fromkeys(features, "")) if feature not in features]
    if dependents:
        click.echo(f"Features that depend on them are also turned off: {listed(dependents)}.", err=True)
    act(kubectl, rollout.name, ActionType.EMERGENCY_DISABLE, options, features=features)


@flags.command("emergency-enable")
@click.argument("features", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="End the emergency disable of all features.")
@ROLLOUT
@action_options(reason=True)
@pass_kubectl
def emergency_enable(
    kubectl: Kubectl, features: tuple[str, ...], *, everything: bool, name: str | None, options: ActionOptions
) -> None:
    """End an emergency disable: return FEATURES to the audience of the rollout."""
    rollout = _with_features(kubectl, name, features, everything=everything)
    act(kubectl, rollout.name, ActionType.EMERGENCY_ENABLE, options, features=features)


def _with_features(kubectl: Kubectl, name: str | None, features: tuple[str, ...], *, everything: bool) -> SessionRollout:
    """The rollout, which has or has published one of these features; the operator says which of them are none. Raises Failure."""
    if everything == bool(features):
        raise usage_error("give either FEATURES or --all")
    rollout = read_rollout(kubectl, name)
    known = {row["feature"] for row in feature_rows(rollout, None)}
    if features and known.isdisjoint(features):
        document = published_or_none(kubectl, rollout)  # if nobody knows what is published, the operator decides
        if document is not None and document.audiences.keys().isdisjoint(features):
            _require_feature(rollout, features[0])
    return rollout
