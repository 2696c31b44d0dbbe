"""The CEL rules of a check, of a phase, of the rollback and of the whole rollout: (rule, message) or (rule, message, what was found).

The API server evaluates them after the schema of `api.rollout`. Each message names the field and says what is allowed.
The bounds of lists and strings in the models keep the estimated cost within the API server's budget. The value that was
found is only in messages where its length is bounded too, which CEL loses in most nested lists.
"""

from typing import Final

from session_rollout.api.quantities import milliseconds

_NUMBER: Final = "double(self.between[{0}].find('^-?[0-9.]+'))"
_UNIT: Final = "self.between[{0}].find('[a-z%]*$')"
RANGE: Final = (
    f"!has(self.between) || self.between.size() != 2 || ({_NUMBER.format(0)} < {_NUMBER.format(1)}"
    f" && {_UNIT.format(0)} == {_UNIT.format(1)})",
    "`between` must have the lower bound first, and both bounds must have the same unit",
)


_BOUNDED: Final = "has(self.above) || has(self.below) || has(self.between)"
_CHANGED: Final = "has(self.maxIncrease) || has(self.maxDecrease) || has(self.minIncrease)"
_CONTROL: Final = "has(self.comparedTo) && self.comparedTo == 'Control'"


def comparison(required: str) -> tuple[tuple[str, str], ...]:
    """The rules of a check; `required` is what a tolerance can be compared to, as the message names it."""
    return (
        (
            f"[{_BOUNDED.replace(' ||', ',')}, {_CHANGED.replace(' ||', ',')}].filter(x, x).size() == 1"
            f" || ({_CONTROL} && !({_BOUNDED} || {_CHANGED}))",
            "must have exactly one of `above`, `below`, `between`, `maxIncrease`, `maxDecrease` and `minIncrease`, or"
            " `comparedTo: Control` alone",
        ),
        (
            f"has(self.comparedTo) ? {_CHANGED} || (self.comparedTo == 'Control' && !({_BOUNDED})) : !({_CHANGED})",
            "`comparedTo` requires `maxIncrease`, `maxDecrease` or `minIncrease`, and each of these requires " + required,
        ),
        (
            f"!has(self.tolerate) || ({_CONTROL} && !({_CHANGED}))",
            "`tolerate` requires `comparedTo: Control`, without `maxIncrease`, `maxDecrease` and `minIncrease`",
        ),
        RANGE,
        (
            "!has(self.outOf) || int(self.outOf.find('^[0-9]+')) <= int(self.outOf.find('[0-9]+$'))",
            "`outOf` must not require more failures than evaluations, such as `3/5`",
        ),
        ("!has(self.outOf) || self.__for__ == '0s'", "`outOf` excludes `for`"),
    )


GUARD: Final = (
    f"!({_CONTROL}) || (!({_CHANGED}) && self.__for__ == '0s' && !has(self.outOf))",
    "a guard with `comparedTo: Control` must not have `maxIncrease`, `maxDecrease`, `minIncrease`, `for` or `outOf`: its evidence is"
    " over time already, and `tolerate` is what it is compared with",
)
BUDGET: Final = (
    f"!has(self.harmBudget) || ({_CONTROL} && !has(self.tolerate))",
    "`harmBudget` requires `comparedTo: Control`, and excludes `tolerate`: it counts every bad event beyond the rate without the feature",
)
_PLACEBO = "(has(s.placebo) && s.placebo)"
_PERCENT_OF = f"(has(s.ramp) ? string(s.ramp.to) : has(s.percent) && !{_PLACEBO} ? string(s.percent) : '0')"
PLACEBO: Final = (
    "!has(self.placebo) || !self.placebo || (has(self.percent) && double(string(self.percent)) > 0.0"
    " && double(string(self.percent)) < 100.0 && (!has(self.groups) || self.groups.size() == 0))",
    "`placebo: true` requires `percent` above 0 and below 100, and excludes `groups` and `ramp`: it divides users at random, and gives the"
    " features to nobody",
)


AUDIENCES: Final = (
    (
        f"self.steps.map(s, double({_PERCENT_OF})).isSorted()",
        "the percentage must not be less than in the preceding step, so that a user who has a feature keeps it",
    ),
    (
        "self.steps.map(s, has(s.groups) ? s.groups.size() : 0).isSorted()"
        " && self.steps.all(s, !has(s.groups) || self.steps.all(t, has(t.groups)"
        " ? (t.groups.size() < s.groups.size() || s.groups.all(g, g in t.groups)) : s.groups.size() >= 0))",
        "`groups` must contain all groups of the preceding step, so that a user who has a feature keeps it",
    ),
    (
        f"self.steps.map(s, {_PLACEBO} ? 0 : 1).isSorted() && self.steps.exists(s, !{_PLACEBO})",
        "steps with `placebo: true` must come first in `steps`, and a step without it must follow, because a placebo step shows that the"
        " comparison works before users get the features",
    ),
)

_PLACES = "self.phases.all(p, !has(p.{0}) || p.{0}.all(c, {1}))"
_ENDS_FULL = "p.steps.exists(s, (has(s.percent) && string(s.percent) == '100') || (has(s.ramp) && string(s.ramp.to) == '100'))"
_CONTRACTS = (
    "has(p.migrations) && has(p.migrations.after)"
    " && p.migrations.after.exists(n, self.migrations.exists(m, m.name == n && has(m.change) && m.change == 'Contract'))"
)
_METRIC_KNOWN = "(has(self.metrics) && self.metrics.exists(m, m.name == c.metric))"
_PLAIN = "!has(m.counts) && !(has(m.cohorts) && has(m.cohorts.feature))"
_GATE_KNOWN = f"(!has(c.metric) || (has(self.metrics) && self.metrics.exists(m, m.name == c.metric && {_PLAIN})))"
_OF_GATES = "must be a name from `metrics`, of one without `counts` and `cohorts.feature`"
_MINIMUM_KNOWN = f"(!has(c.minimum) || (has(self.metrics) && self.metrics.exists(m, m.name == c.minimum.metric && {_PLAIN})))"
# A metric of counters has no value of its own: it is only compared, and only it is compared without a difference.
_COUNTED = "self.metrics.exists(m, m.name == c.metric && has(m.cohorts) && has(m.cohorts.feature))"
_OF_PHASE = (
    "self.metrics.exists(m, m.name == c.metric && has(m.cohorts) && has(m.cohorts.feature) && m.cohorts.feature in p.features)"
)
_COMPARED = (
    "(has(c.comparedTo) && c.comparedTo == 'Control' && !has(c.maxIncrease) && !has(c.maxDecrease) && !has(c.minIncrease))"
)
_COUNTED_RULE = (
    "must compare a metric whose `cohorts` has a `feature` to `Control`, with `tolerate`, and no other metric in this way"
)
# Of events that are counted, a share is bad: the evidence that it is too large is over time already.
_BOUNDED_SHARE = (
    "!self.metrics.exists(m, m.name == c.metric && has(m.counts))"
    " || (has(c.below) && c.below.matches('^[0-9]{1,2}([.][0-9]+)?%$') && double(c.below.find('^[0-9.]+')) > 0.0"
    " && c.__for__ == '0s' && !has(c.outOf))"
)
_BOUNDED_RULE = "must have `below` between 0% and 100%, such as `1%`, without `for` and `outOf`, for a metric with `counts`"
_NOBODY_HELD_BACK = (
    "!has(self.control) || !has(self.control.holdback) || self.control.holdback == '0%' || self.control.holdback == '0.0%'"
)
_MEAN = "self.metrics.exists(m, m.name == c.metric && has(m.cohorts) && has(m.cohorts.sum))"
_FEATURE_KNOWN = "self.features.exists(d, d.name == f)"
_IN_ONE_PHASE = "self.phases.exists_one(q, f in q.features)"


def _feature_of_phases(holds: str) -> str:
    """CEL for the first feature of a phase for which a condition does not hold."""
    return f"self.phases.filter(p, p.features.exists(f, !({holds})))[0].features.filter(f, !({holds}))[0]"


ROLLBACK: Final = (
    (
        "!has(self.scope) || self.scope != 'Step' || ((!has(self.migrations) || self.migrations != 'Down')"
        " && (!has(self.restoreData) || !self.restoreData) && (!has(self.workload) || self.workload != 'Undo'))",
        "`scope: Step` excludes `migrations: Down`, `restoreData: true` and `workload: Undo`, because the users who keep the features"
        " need what these undo",
    ),
)

ROLLOUT: Final = (
    (
        f"self.phases.all(p, p.features.all(f, {_FEATURE_KNOWN}))",
        "`phases[].features` must contain only names from `features`",
        _feature_of_phases(_FEATURE_KNOWN),
    ),
    (
        f"self.phases.all(p, p.features.all(f, {_IN_ONE_PHASE}))",
        "`phases[].features` must not contain a feature of another phase, because a feature can be in one phase only",
        _feature_of_phases(_IN_ONE_PHASE),
    ),
    (
        "self.features.all(f, !has(f.retired) || !f.retired || self.phases.all(p, !(f.name in p.features)))",
        "a feature with `retired: true` must not be in `phases[].features`, because it is no longer part of the plan",
    ),
    (
        "self.features.all(f, !has(f.dependsOn) || f.dependsOn.all(d, self.features.exists(g, g.name == d)))",
        "`features[].dependsOn` must contain only names of other entries of `features`",
    ),
    (
        "self.features.all(f, !has(f.dependsOn) || f.dependsOn.all(d, self.phases.map(p, d in p.features ? 1"
        " : (f.name in p.features ? 2 : 0)).filter(x, x > 0).isSorted()))",
        "`features[].dependsOn` must contain only features of the same phase or an earlier one, so that users get"
        " a prerequisite before the features that depend on it",
    ),
    (
        f"self.phases.all(p, {_ENDS_FULL} || self.features.all(f, !has(f.dependsOn) || f.name in p.features"
        " || !f.dependsOn.exists(d, d in p.features)))",
        "a phase must end with `percent: 100` if a later phase depends on one of its features, so that users get a prerequisite"
        " before the features that depend on it",
    ),
    (
        "self.features.all(f, !has(f.initial) || f.initial != 'On' || self.phases.all(p, !(f.name in p.features)"
        " || (has(p.steps[0].percent) && string(p.steps[0].percent) == '100')))",
        "the first step of a phase with a feature that is `initial: On` must be `percent: 100`, so that a user who has the feature keeps it",
    ),
    (
        "self.features.all(f, !has(f.initial) || f.initial != 'On' || !has(f.dependsOn)"
        " || f.dependsOn.all(d, self.features.exists(g, g.name == d && has(g.initial) && g.initial == 'On')))",
        "a feature that is `initial: On` must depend only on features that are `initial: On`, so that users have its prerequisites, too",
    ),
    (
        _PLACES.format("criteria", _METRIC_KNOWN),
        "`phases[].criteria[].metric` must be a name from `metrics`",
    ),
    (
        _PLACES.format("verification", _GATE_KNOWN),
        f"`phases[].verification[].metric` {_OF_GATES}",
    ),
    (
        f"!has(self.guards) || self.guards.all(c, {_METRIC_KNOWN})",
        "`guards[].metric` must be a name from `metrics`",
    ),
    (
        f"!has(self.metrics) || {_PLACES.format('criteria', f'{_COMPARED} == {_COUNTED}')}",
        f"`phases[].criteria` {_COUNTED_RULE}",
    ),
    (
        f"!has(self.metrics) || {_PLACES.format('criteria', f'!{_COMPARED} || {_OF_PHASE}')}",
        "`phases[].criteria` must compare a metric whose `cohorts.feature` is a feature of the phase",
    ),
    (
        f"!has(self.metrics) || !has(self.guards) || self.guards.all(c, {_COMPARED} == {_COUNTED})",
        f"`guards` {_COUNTED_RULE}",
    ),
    (
        f"!has(self.metrics) || !has(self.guards) || self.guards.all(c, !has(c.harmBudget) || !{_MEAN})",
        "`guards[].harmBudget` must be of a metric with `cohorts.bad` or `cohorts.histogram`, because a mean counts no bad events",
    ),
    (
        f"!has(self.metrics) || {_PLACES.format('criteria', _BOUNDED_SHARE)}",
        f"`phases[].criteria` {_BOUNDED_RULE}",
    ),
    (
        f"!has(self.metrics) || !has(self.guards) || self.guards.all(c, {_BOUNDED_SHARE})",
        f"`guards` {_BOUNDED_RULE}",
    ),
    (
        "!has(self.metrics) || self.metrics.all(m, !has(m.cohorts) || !has(m.cohorts.feature)"
        " || self.phases.exists(p, m.cohorts.feature in p.features))",
        "`metrics[].cohorts.feature` must be a name from `phases[].features`",
    ),
    (
        _PLACES.format("criteria", _MINIMUM_KNOWN),
        f"`phases[].criteria[].minimum.metric` {_OF_GATES}",
    ),
    (
        f"!has(self.guards) || self.guards.all(c, {_MINIMUM_KNOWN})",
        f"`guards[].minimum.metric` {_OF_GATES}",
    ),
    (
        f"!has(self.preflight) || self.preflight.all(c, {_GATE_KNOWN})",
        f"`preflight[].metric` {_OF_GATES}",
    ),
    (
        f"!has(self.rollback) || !has(self.rollback.verification) || self.rollback.verification.all(c, {_GATE_KNOWN})",
        f"`rollback.verification[].metric` {_OF_GATES}",
    ),
    (
        "!has(self.rollback) || !has(self.rollback.verification) || self.rollback.verification.all(c, !has(c.approval))",
        "`rollback.verification` must not contain `approval`, because a rollback never waits for an approval",
    ),
    (
        "has(self.workload) || !has(self.rollback) || !has(self.rollback.workload) || self.rollback.workload != 'Undo'",
        "`rollback.workload: Undo` requires `workload`, the Deployment to roll back",
    ),
    (
        "self.phases.all(p, !has(p.migrations) || ["
        "has(p.migrations.before) ? p.migrations.before : [], has(p.migrations.after) ? p.migrations.after : []"
        "].all(l, l.all(n, has(self.migrations) && self.migrations.exists(m, m.name == n))))",
        "`phases[].migrations` must contain only names from `migrations`",
    ),
    (
        "!has(self.migrations) || self.migrations.all(m, self.phases.map(p, !has(p.migrations) ? 0 :"
        " ((has(p.migrations.before) ? p.migrations.before.filter(n, n == m.name).size() : 0)"
        " + (has(p.migrations.after) ? p.migrations.after.filter(n, n == m.name).size() : 0))).sum() <= 1)",
        "`phases[].migrations` must contain each migration only once, in one phase",
    ),
    (
        "!has(self.migrations) || self.migrations.size() == 0 || has(self.database)",
        "`migrations` requires `database`, which names the Secret with the connection string",
    ),
    (
        "!has(self.migrations) || self.phases.all(p, !has(p.migrations) || !has(p.migrations.before)"
        " || p.migrations.before.all(n, !self.migrations.exists(m, m.name == n && has(m.change) && m.change == 'Contract')))",
        "a migration with `change: Contract` must be in `migrations.after` of a phase, because the code path without the feature needs what it removes",
    ),
    (
        f"!has(self.migrations) || self.phases.map(p, !has(p.migrations) ? -1 : ({_CONTRACTS})"
        " ? 1 : ((has(p.migrations.before) && p.migrations.before.size() > 0)"
        " || (has(p.migrations.after) && p.migrations.after.size() > 0)) ? 0 : -1).filter(x, x >= 0).isSorted()",
        "migrations with `change: Contract` must run after all other migrations: first expand, then migrate, then contract",
    ),
    (
        f"!has(self.migrations) || (self.phases.map(p, ({_CONTRACTS} ? 1 : 0) + ({_ENDS_FULL} ? 0 : 2)).filter(x, x > 0) + [2]).isSorted()",
        "a phase must end with `percent: 100` if a migration with `change: Contract` runs after it or after a later phase,"
        " because the remaining users need what it removes",
    ),
    (
        f"{_NOBODY_HELD_BACK} || !self.features.exists(f, has(f.initial) && f.initial == 'On')",
        "`control.holdback` must be `0%` with a feature that is `initial: On`, so that a user who has the feature keeps it",
        "self.control.holdback",
    ),
    (
        f"{_NOBODY_HELD_BACK} || !has(self.migrations) || !self.migrations.exists(m, has(m.change) && m.change == 'Contract')",
        "`control.holdback` must be `0%` with a migration with `change: Contract`, because the users who are held back need what it removes",
        "self.control.holdback",
    ),
    (
        "!has(self.rollback) || !has(self.rollback.restoreData) || !self.rollback.restoreData"
        " || (has(self.migrations) && self.migrations.exists(m, has(m.backup) && m.backup))",
        "`rollback.restoreData: true` requires a migration with `backup: true`, whose snapshot is restored",
    ),
    (
        f"self.phases.all(p, p.steps.all(s, !has(s.hold) || {milliseconds('s.hold')} >= {milliseconds('self.checkInterval')}))",
        "`phases[].steps[].hold` must be at least `checkInterval`, so that criteria are evaluated during the hold",
    ),
    (
        "self.phases.all(p, p.steps.all(s, !has(s.ramp) || "
        f"{milliseconds('s.ramp.over')} >= s.ramp.increments * ({milliseconds('self.checkInterval')})))",
        "`phases[].steps[].ramp.over` must be at least `increments` times `checkInterval`, so that every increment is evaluated",
    ),
    (
        f"{milliseconds('self.checkInterval')} >= 1000",
        "`checkInterval` must be at least `1s`",
        "self.checkInterval",
    ),
)
