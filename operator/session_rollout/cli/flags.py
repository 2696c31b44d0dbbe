"""Flags: who has what by the published document, and what people may do about it without contradicting the rollout.

A rollout moves its phases' features together, step by step. `enable` and `rollout` therefore ask for the step that gives
what is wanted; where no step of the running phase does, they say what would.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import click

from session_rollout.adapters.kubectl import ROLLOUTS, Kubectl
from session_rollout.cli.actions import Wish, confirm, current, done, place, send, unmet, wish
from session_rollout.cli.command import Group, emit, output, refusal, wrong
from session_rollout.cli.status import ROLLOUT, pass_kubectl, rollout_of, terminal, the_only
from session_rollout.core.flags import KEY, PROBE, audiences, config_map_name, with_dependents
from session_rollout.core.steps import Increment, audience_text, increments, percent_text

NOBODY: Final[Mapping[str, Any]] = {"groups": [], "overridesOn": [], "overridesOff": []}  # in no group, without overrides


@click.group("flags", cls=Group)
def flags() -> None:
    """Feature flags: what is published, who has it, and emergencies."""


def document(kubectl: Kubectl, raw: Mapping[str, Any]) -> str:
    """The published flag document. Raises Failure when there is none."""
    name = raw.get("status", {}).get("flags", {}).get("configMap") or config_map_name(raw["spec"]["flagSet"])
    text = kubectl.get("configmaps", name).json().get("data", {}).get(KEY)
    if text is None:
        raise refusal(f"ConfigMap {name} has no key {KEY}")
    return str(text)


def _feature(raw: Mapping[str, Any], feature: str) -> None:
    known = [one["name"] for one in raw["spec"]["features"]]
    if feature not in known:
        near = [one for one in known if one.lower() == feature.lower()]
        hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(known)}"
        raise wrong(f"FEATURE is {feature}; {hint}")


# --- looking


@flags.command("status")
@ROLLOUT
@output()
@pass_kubectl
def status(kubectl: Kubectl, name: str | None, form: str | None) -> None:
    """Show every flag: who has it now, in which phase it is, and whether it is off in an emergency."""
    raw = kubectl.get(ROLLOUTS, the_only(kubectl, name)).json()
    rollout = rollout_of(raw)
    disabled = _disabled(rollout)
    reached = audiences(rollout.spec, rollout.status)
    phases = {feature: phase.name for phase in rollout.spec.phases for feature in phase.features}
    rows = [
        {
            "feature": feature.name,
            "percent": percent_text(reached[feature.name].percent),
            "groups": list(reached[feature.name].groups),
            "phase": phases[feature.name],
            "disabled": disabled.get(feature.name, ""),
        }
        for feature in rollout.spec.features
    ]
    if form:
        emit(rows, form)
        return
    _table(rows)


def _disabled(rollout: Any) -> dict[str, str]:
    """What is off in an emergency, with all that depends on it, each with its reason."""
    return with_dependents(rollout.spec, {one.feature: one.reason for one in rollout.status.flags.disabled})


def _table(rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("FEATURE", "WHO", "PHASE", "EMERGENCY"):
        table.add_column(title, overflow="fold")
    for row in rows:
        who = "off for everybody" if row["disabled"] else audience_text(row["percent"], row["groups"])
        style = "bold red" if row["disabled"] else "dim" if who == "0%" else ""
        table.add_row(row["feature"], Text(who, style), row["phase"], row["disabled"])
    terminal().print(table)


@flags.command("who")
@click.argument("user")
@click.option("--group", "groups", multiple=True, help="A group of the user; may be given several times.")
@click.option("--on", "forced_on", multiple=True, metavar="FEATURE", help="An override that the user has.")
@click.option("--off", "forced_off", multiple=True, metavar="FEATURE", help="An override that the user has.")
@ROLLOUT
@output()
@pass_kubectl
def who(
    kubectl: Kubectl,
    user: str,
    *,
    groups: tuple[str, ...],
    forced_on: tuple[str, ...],
    forced_off: tuple[str, ...],
    name: str | None,
    form: str | None,
) -> None:
    """Say which flags a user has by the published document, and which rule decides each."""
    raw = kubectl.get(ROLLOUTS, the_only(kubectl, name)).json()
    for feature in (*forced_on, *forced_off):
        _feature(raw, feature)
    context = {"groups": list(groups), "overridesOn": list(forced_on), "overridesOff": list(forced_off)}
    rows = Reader(json.loads(document(kubectl, raw)), raw["spec"]["flagSet"]).rows(user, context)
    if form:
        emit(rows, form)
        return
    for row in rows:
        click.echo(f"{'on ' if row['on'] else 'off'}  {row['feature']:<32} {row['rule']}")


class Reader:
    """The published document, as the real evaluator reads it."""

    def __init__(self, published: Mapping[str, Any], flag_set: str) -> None:
        from openfeature.contrib.tools.flagd.core import FlagdCore

        self._flags = {name: flag for name, flag in published["flags"].items() if name != PROBE}
        self._flag_set = flag_set
        self._core = FlagdCore()
        self._core.set_flags(json.dumps(published))

    def rows(self, user: str, context: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Every flag for one user, and which rule of the document decides it."""
        from openfeature.evaluation_context import EvaluationContext

        from session_rollout.adapters.flags import bucket

        asked = EvaluationContext(targeting_key=user, attributes=dict(context))
        number = bucket(self._flag_set, user)
        return [
            {
                "feature": feature,
                "on": bool(self._core.resolve_boolean_value(feature, default_value=False, ctx=asked).value),
                "rule": _rule(feature, flag, context, number),
            }
            for feature, flag in self._flags.items()
        ]


def _rule(feature: str, flag: Mapping[str, Any], context: Mapping[str, Any], bucket: int) -> str:
    """Which rule of the document decides, in the order of the document."""
    if "targeting" not in flag:
        return f"emergency: {flag.get('metadata', {}).get('reason', 'off for everybody')}"
    if feature in context["overridesOff"]:
        return "override: off"
    if feature in context["overridesOn"]:
        return "override: on"
    rules = flag["targeting"]["if"][4:]
    named = [
        one["$ref"].removeprefix("group-")
        for one in rules
        if isinstance(one, dict) and str(one.get("$ref", "")).startswith("group-")
    ]
    if matching := [group for group in named if group in context["groups"]]:
        return f"group {matching[0]}"
    share = next((one["fractional"] for one in rules if isinstance(one, dict) and "fractional" in one), None)
    if share is None:
        return "100%" if rules[-1] == "on" else "0%"
    weight = share[1][1]
    return f"bucket {bucket} of 1000, {'below' if bucket < weight else 'not below'} {weight} ({weight / 10:g}%)"


@flags.command("verify")
@click.option("--users", default=1000, show_default=True, type=click.IntRange(1, 100_000), help="Made-up users to evaluate.")
@ROLLOUT
@pass_kubectl
def verify(kubectl: Kubectl, *, users: int, name: str | None) -> None:
    """Evaluate the published document for users, and compare it with what the rollout says it published."""
    from session_rollout.adapters.flags import sha256, validate

    raw = kubectl.get(ROLLOUTS, the_only(kubectl, name)).json()
    rollout = rollout_of(raw)
    text = document(kubectl, raw)
    if rollout.status.flags.sha256 is None:
        raise refusal(f"{raw['metadata']['name']} has published nothing yet: the document in the cluster is from before")
    if sha256(text) != rollout.status.flags.sha256:
        where = rollout.status.flags.config_map
        raise refusal(f"ConfigMap {where} is not what the rollout published: somebody changed it, or it is on its way")
    validate(text)
    reader, counts, differing = Reader(json.loads(text), rollout.spec.flag_set), Counter[str](), []
    for number in range(users):
        for row in reader.rows(f"user-{number}", NOBODY):
            counts[row["feature"]] += row["on"]
            if row["on"] is not _expected(row["rule"]):
                differing.append(f"{row['feature']} of user-{number}: {row['rule']}, evaluated as {row['on']}")
    _compare(rollout, counts, users)
    if differing:
        raise refusal(f"{len(differing)} evaluations differ from their rule: {differing[0]}")
    click.echo(f"the document is the published one, is valid, and decides {users * len(counts):,} times as its rules say")


def _compare(rollout: Any, counts: Mapping[str, int], users: int) -> None:
    reached = audiences(rollout.spec, rollout.status)
    disabled = _disabled(rollout)
    for feature, audience in reached.items():
        wanted = Decimal(0) if feature in disabled else audience.percent
        share = 100 * counts[feature] / users
        click.echo(f"{feature:<32} {share:5.1f}% of {users:,} users, published are {percent_text(wanted)}%")


def _expected(rule: str) -> bool:
    """What a rule's sentence means."""
    return rule.startswith("group ") or rule in {"override: on", "100%"} or ", below " in rule


# --- changing


@flags.command("enable")
@click.argument("feature")
@click.option("--group", required=True, help="The group that is to have it.")
@ROLLOUT
@wish(asks=True)
@pass_kubectl
def enable(kubectl: Kubectl, feature: str, *, group: str, name: str | None, asked: Wish) -> None:
    """Give a feature to a group: by going to the step that has the group."""
    _reach(kubectl, name, feature, asked, group=group)


@flags.command("rollout")
@click.argument("feature")
@click.option("--percentage", required=True, metavar="PERCENT", help="Share of users that is to have it.")
@ROLLOUT
@wish(asks=True)
@pass_kubectl
def rollout_to(kubectl: Kubectl, feature: str, *, percentage: str, name: str | None, asked: Wish) -> None:
    """Give a feature to a share of users: by going to the step that has it."""
    try:
        percent = Decimal(percentage.removesuffix("%"))
    except ArithmeticError:
        percent = Decimal(-1)
    if not 0 <= percent <= 100:  # noqa: PLR2004 - percent
        raise wrong(f"--percentage is {percentage!r}; allowed is a number from 0 to 100")
    _reach(kubectl, name, feature, asked, percent=percent)


def _reach(
    kubectl: Kubectl, name: str | None, feature: str, asked: Wish, *, group: str | None = None, percent: Decimal | None = None
) -> None:
    """Go to the next step if it gives what is wanted; else say what the rollout has instead."""
    raw = kubectl.get(ROLLOUTS, the_only(kubectl, name)).json()
    _feature(raw, feature)
    rollout, what = rollout_of(raw), f"group {group}" if group else f"{percent_text(percent or Decimal(0))}%"
    phase = next(one for one in rollout.spec.phases if feature in one.features)
    record = next((one for one in rollout.status.phases if one.name == phase.name), None)
    if record is not None and record.features and _has(record.percent, record.groups, group, percent):
        click.echo(f"{feature} is at {audience_text(record.percent, record.groups)} already: {what} has it")
        return
    here = current(raw)
    if here.get("phase") != phase.name or here.get("stage") != "Step":
        where = f"the rollout is in {here.get('phase') or 'no phase yet'}, {here.get('stage', 'not begun')}"
        raise refusal(f"{feature} belongs to phase {phase.name}, and {where}: its features move when their phase runs")
    following = _following(increments(phase), here)
    if following is None or not _has(percent_text(following.percent), following.groups, group, percent):
        ladder = ", ".join(audience_text(percent_text(one.percent), one.groups) for one in increments(phase))
        step = f"the next is {percent_text(following.percent)}%" if following else "this is the last"
        raise refusal(
            f"no step of {phase.name} leads to {what} from here: its steps are {ladder}, {step}; `promote` goes one on"
        )
    if not asked.reason:
        raise wrong("--reason is missing: going on now overrides the checks of the running step")
    others = [one for one in phase.features if one != feature]
    lines = [
        f"Goes to {audience_text(percent_text(following.percent), following.groups)} of {phase.name} now;"
        f" with {feature} go {', '.join(others) or 'no others'}.",
        "It overrides:",
        *unmet(raw),
    ]
    confirm(lines, "Go on?", yes=asked.yes)
    done(send(kubectl, rollout.name, "Promote", place(raw), asked), asked.form)


def _has(percent: str, groups: Sequence[str], group: str | None, wanted: Decimal | None) -> bool:
    return (group is not None and group in groups) or (wanted is not None and Decimal(percent) >= wanted)


def _following(ladder: Sequence[Increment], here: Mapping[str, Any]) -> Increment | None:
    """The first increment of the next step: where Promote leads."""
    return next((one for one in ladder if one.step > here["step"]), None)


@flags.command("emergency-disable")
@click.argument("features", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every feature of the rollout.")
@ROLLOUT
@wish(reason=True)
@pass_kubectl
def emergency_disable(kubectl: Kubectl, features: tuple[str, ...], *, everything: bool, name: str | None, asked: Wish) -> None:
    """Switch features off for everybody, now: groups, percentages and overrides do not count until restore."""
    _switch(kubectl, name, "EmergencyDisable", features, asked, everything=everything)


@flags.command("restore")
@click.argument("features", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Everything that is off in an emergency.")
@ROLLOUT
@wish(reason=True)
@pass_kubectl
def restore(kubectl: Kubectl, features: tuple[str, ...], *, everything: bool, name: str | None, asked: Wish) -> None:
    """Lift an emergency: features are as the rollout says again."""
    _switch(kubectl, name, "EmergencyEnable", features, asked, everything=everything)


def _switch(
    kubectl: Kubectl, name: str | None, action: str, features: tuple[str, ...], asked: Wish, *, everything: bool
) -> None:
    """No question is asked: in an emergency nobody wants one."""
    if everything == bool(features):
        raise wrong("give either FEATURES or --all")
    name = the_only(kubectl, name)
    raw = kubectl.get(ROLLOUTS, name).json()
    for feature in features:
        _feature(raw, feature)
    if action == "EmergencyDisable":
        rollout = rollout_of(raw)
        dependents = [one.name for one in rollout.spec.features if set(one.depends_on) & set(features)]
        if more := [one for one in dependents if one not in features]:
            click.echo(f"With them go those that depend on them: {', '.join(more)}.", err=True)
    done(send(kubectl, name, action, {"features": list(features)}, asked), asked.form)
